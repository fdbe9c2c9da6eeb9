//! Packets as bytes: header views, checksums, and the `Frame` and `PacketIo` traits by which the packet path touches
//! frames without knowing whose memory they lie in. Owns no state and decides nothing.

pub mod frame;

pub use frame::{Frame, PacketIo, PortId};
