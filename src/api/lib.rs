//! The control protocol: what clients ask ripvsd for and what it answers, over a Unix socket of type SOCK_SEQPACKET.
//!
//! A datagram holds one or more netlink messages of two generic netlink families: [`ipvs`], the kernel's own for IPVS,
//! which unmodified ipvsadm and keepalived speak, and [`ripvs`], ours, for all that IPVS has no words for. [`message`]
//! puts the families together; [`nl`] is netlink as bytes; [`socket`] is for both ends, [`Client`] for one,
//! and [`Pipeline`] for many requests of one at once.
//! Nothing here judges a request against the tables: that is the daemon's control thread.

pub mod client;
pub mod ctrl;
mod errno;
pub mod ipvs;
pub mod message;
pub mod nl;
pub mod pipeline;
pub mod ripvs;
pub mod socket;

pub use client::{Client, ClientError};
pub use errno::Errno;
pub use message::{Answer, Incoming, Outgoing, Refusal, Reply, Request};
pub use pipeline::Pipeline;

/// Where the daemon listens if it is not told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/ripvs/ripvsd.sock";
/// The environment variable that tells clients where the daemon listens.
pub const SOCKET_ENV: &str = "RIPVS_SOCKET";
/// Longest datagram that clients may send and the daemon sends, bytes.
pub const MAX_DATAGRAM: usize = 64 * 1024;
