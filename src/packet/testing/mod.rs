//! Packets for tests: builders of well-formed ones ([`build`]) and a source of endless odd ones ([`Fuzz`]). Behind the
//! feature `testing`; nothing here is fast or part of the packet path.

pub mod build;
mod fuzz;
mod mutate;
mod rng;
mod talk;
mod world;

pub use fuzz::Fuzz;
pub use rng::Rng;
pub use world::World;
