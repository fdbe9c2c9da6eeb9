//! UDP headers (RFC 768). How checksums of zero are dealt with is in [`crate::checksum`].

use crate::bytes::{fields, view};

/// Length of the header.
pub const HEADER_LEN: usize = 8;
/// Where the source port lies.
pub const SRC_PORT: usize = 0;
/// Where the destination port lies.
pub const DST_PORT: usize = 2;
/// Where the length lies.
pub const LENGTH: usize = 4;
/// Where the checksum lies.
pub const CHECKSUM: usize = 6;

view!(
    /// A UDP header.
    Udp,
    HEADER_LEN
);
fields!(Udp, HEADER_LEN;
    src_port set_src_port: u16 @ SRC_PORT, "Source port.";
    dst_port set_dst_port: u16 @ DST_PORT, "Destination port.";
    length set_length: u16 @ LENGTH, "Length of header and data.";
    checksum set_checksum: u16 @ CHECKSUM, "Checksum over pseudo-header, header and data; 0 where the sender made none.";
);

/// The bytes of a header.
pub fn build(src_port: u16, dst_port: u16, length: u16, checksum: u16) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    let mut u = Udp(&mut bytes);
    u.set_src_port(src_port);
    u.set_dst_port(dst_port);
    u.set_length(length);
    u.set_checksum(checksum);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_header_reads_back() {
        let bytes = build(5353, 53, 20, 0xabcd);
        let u = Udp::new(&bytes).unwrap();
        assert_eq!((u.src_port(), u.dst_port()), (5353, 53));
        assert_eq!((u.length(), u.checksum()), (20, 0xabcd));
        assert!(Udp::new(&bytes[..7]).is_none());
    }
}
