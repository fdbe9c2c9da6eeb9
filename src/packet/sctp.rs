//! SCTP common headers and chunks (RFC 9260). The CRC32c is in [`crate::checksum`].

use crate::bytes::{fields, view};

/// Length of the common header.
pub const HEADER_LEN: usize = 12;
/// Where the source port lies.
pub const SRC_PORT: usize = 0;
/// Where the destination port lies.
pub const DST_PORT: usize = 2;
/// Where the verification tag lies.
pub const TAG: usize = 4;
/// Where the CRC32c lies.
pub const CHECKSUM: usize = 8;

/// Chunk types.
pub mod chunk {
    /// Data.
    pub const DATA: u8 = 0;
    /// Begins an association.
    pub const INIT: u8 = 1;
    /// Answers INIT.
    pub const INIT_ACK: u8 = 2;
    /// Selective acknowledgement.
    pub const SACK: u8 = 3;
    /// Heartbeat.
    pub const HEARTBEAT: u8 = 4;
    /// Answers a heartbeat.
    pub const HEARTBEAT_ACK: u8 = 5;
    /// Ends an association at once.
    pub const ABORT: u8 = 6;
    /// Begins an orderly end.
    pub const SHUTDOWN: u8 = 7;
    /// Answers SHUTDOWN.
    pub const SHUTDOWN_ACK: u8 = 8;
    /// Tells of an error.
    pub const ERROR: u8 = 9;
    /// Brings the state cookie back.
    pub const COOKIE_ECHO: u8 = 10;
    /// Answers COOKIE_ECHO.
    pub const COOKIE_ACK: u8 = 11;
    /// Ends an orderly end.
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

view!(
    /// An SCTP common header.
    Sctp,
    HEADER_LEN
);
fields!(Sctp, HEADER_LEN;
    src_port set_src_port: u16 @ SRC_PORT, "Source port.";
    dst_port set_dst_port: u16 @ DST_PORT, "Destination port.";
    tag set_tag: u32 @ TAG, "Verification tag.";
    checksum set_checksum: [4] @ CHECKSUM, "CRC32c, in the byte order in which it is sent (lowest byte first).";
);

/// One chunk of an SCTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Type, one of [`chunk`] or unknown.
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// Length as the chunk says, its four-byte header included.
    pub len: u16,
    /// What follows the chunk's header, as far as it is there.
    pub value: &'a [u8],
}

/// Walks over the chunks of an SCTP packet. Ends at the first chunk whose header isn't all there or whose length is below
/// that of its header, so it is bounded by the packet.
#[derive(Clone, Debug)]
pub struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Chunks<'a> {
    /// The chunks of the packet that begins with the common header at `packet[0]`.
    pub fn of(packet: &'a [u8]) -> Chunks<'a> {
        Chunks {
            rest: packet.get(HEADER_LEN..).unwrap_or_default(),
        }
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        let (header, value) = self.rest.split_first_chunk::<4>()?;
        let len = u16::from_be_bytes([header[2], header[3]]);
        let value_len = usize::from(len).checked_sub(4)?;
        // Chunks are padded to a multiple of four bytes, which their length leaves out.
        self.rest = value
            .get(value_len.next_multiple_of(4)..)
            .unwrap_or_default();
        Some(Chunk {
            kind: header[0],
            flags: header[1],
            len,
            value: &value[..value_len.min(value.len())],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_walked_over_their_padding() {
        let mut bytes = vec![0; HEADER_LEN];
        bytes.extend([chunk::COOKIE_ECHO, 0, 0, 6, 0xaa, 0xbb, 0, 0]);
        bytes.extend([chunk::DATA, 3, 0, 4]);
        bytes.extend([chunk::SACK, 0, 0, 16, 1, 2]);
        let seen: Vec<_> = Chunks::of(&bytes)
            .map(|c| (c.kind, c.len, c.value.to_vec()))
            .collect();
        assert_eq!(
            seen,
            [
                (chunk::COOKIE_ECHO, 6, vec![0xaa, 0xbb]),
                (chunk::DATA, 4, vec![]),
                (chunk::SACK, 16, vec![1, 2])
            ]
        );
    }

    #[test]
    fn a_length_below_the_header_ends_the_walk() {
        let mut bytes = vec![0; HEADER_LEN];
        bytes.extend([chunk::DATA, 0, 0, 3, 0, 0, 0, 0]);
        assert_eq!(Chunks::of(&bytes).count(), 0);
        assert_eq!(Chunks::of(&bytes[..5]).count(), 0);
    }
}
