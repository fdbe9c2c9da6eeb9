//! The load balancer itself: services, dests, connections, schedulers, forwarding and the network layer around them.
//! Knows neither DPDK nor threads: a [`worker`](crate) is fed bursts of frames and messages, and tested in memory.

pub mod conn;
pub mod family;
pub mod net;
pub mod sched;
pub mod spec;
pub mod state;
pub mod types;
pub mod verdict;

pub use spec::*;
pub use types::*;
