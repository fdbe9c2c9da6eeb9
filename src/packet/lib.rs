//! Packets as bytes: header views, checksums, and the `Frame` and `PacketIo` traits by which the packet path touches
//! frames without knowing whose memory they lie in. Owns no state and decides nothing.
//!
//! A header view ([`ipv4::Ipv4`], say) is made from bytes by `new`, `at`, `new_mut` or `at_mut`, which is where lengths
//! are checked; reading and writing its fields cannot fail. Numbers are host byte order, addresses are network byte order
//! arrays. [`parse`] reads a packet's network layer at once, with the kernel's checks.

mod bytes;
mod hop_options;

pub mod arp;
pub mod checksum;
pub mod eth;
pub mod frame;
pub mod icmp;
pub mod ipv4;
pub mod ipv4_options;
pub mod ipv6;
pub mod memory;
pub mod nd;
pub mod parse;
pub mod sctp;
pub mod tcp;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod udp;

pub use frame::{Frame, PacketIo, PortId};
