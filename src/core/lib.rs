//! The load balancer itself: services, dests, connections, schedulers, forwarding and the network layer around them.
//! Knows neither DPDK nor threads: a [`Worker`] is fed bursts of frames and messages, and tested in memory.
//!
//! A packet's way is told by `datapath.rs`; what the control thread may say to a worker by `delta.rs`; what workers say to
//! each other by `message.rs`.

mod choose;
pub mod conn;
mod datapath;
mod defence;
pub mod delta;
mod express;
pub mod family;
mod first;
mod flow;
mod forward;
pub mod frag;
mod ftp;
mod glance;
mod growing;
mod hop;
mod host;
mod input;
pub mod ledger;
mod listing;
pub mod mark;
pub mod message;
pub mod net;
mod options;
mod outgoing;
mod over;
mod own;
mod owner;
mod packet;
mod plain;
mod recent;
mod related;
mod rewrite;
pub mod sched;
mod seq;
mod service;
pub mod settings;
mod sip;
pub mod spec;
pub mod state;
mod sweep;
pub mod tally;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod thin;
mod tunnel;
pub mod types;
pub mod verdict;
mod worker;

pub use owner::owner_of_client;
pub use spec::*;
pub use types::*;
pub use worker::{Io, Post, Worker, WorkerConfig};
