//! TCP headers (RFC 9293).

use crate::bytes::{fields, view};

/// Length of the header without options.
pub const HEADER_LEN: usize = 20;
/// Where the source port lies.
pub const SRC_PORT: usize = 0;
/// Where the destination port lies.
pub const DST_PORT: usize = 2;
/// Where the sequence number lies.
pub const SEQ: usize = 4;
/// Where the acknowledgement number lies.
pub const ACK_SEQ: usize = 8;
/// Where the data offset lies.
pub const DATA_OFFSET: usize = 12;
/// Where the flags lie.
pub const FLAGS: usize = 13;
/// Where the window lies.
pub const WINDOW: usize = 14;
/// Where the checksum lies.
pub const CHECKSUM: usize = 16;
/// Where the urgent pointer lies.
pub const URGENT: usize = 18;

/// No more data from the sender.
pub const FIN: u8 = 0x01;
/// Synchronise sequence numbers.
pub const SYN: u8 = 0x02;
/// Reset.
pub const RST: u8 = 0x04;
/// Push.
pub const PSH: u8 = 0x08;
/// The acknowledgement number counts.
pub const ACK: u8 = 0x10;
/// The urgent pointer counts.
pub const URG: u8 = 0x20;

view!(
    /// A TCP header's fixed 20 bytes.
    Tcp,
    HEADER_LEN
);
fields!(Tcp, HEADER_LEN;
    src_port set_src_port: u16 @ SRC_PORT, "Source port.";
    dst_port set_dst_port: u16 @ DST_PORT, "Destination port.";
    seq set_seq: u32 @ SEQ, "Sequence number.";
    ack_seq set_ack_seq: u32 @ ACK_SEQ, "Acknowledgement number.";
    data_offset_byte set_data_offset_byte: u8 @ DATA_OFFSET, "Header length in units of four bytes, in the upper four bits.";
    flags set_flags: u8 @ FLAGS, "Flags: [`FIN`] to [`URG`].";
    window set_window: u16 @ WINDOW, "Receive window.";
    checksum set_checksum: u16 @ CHECKSUM, "Checksum over pseudo-header, header and data.";
    urgent set_urgent: u16 @ URGENT, "Urgent pointer.";
);

impl<T: core::ops::Deref<Target = [u8; HEADER_LEN]>> Tcp<T> {
    /// Length of the header with its options, in bytes; below 20 where the header is wrong.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        usize::from(self.data_offset_byte() >> 4) * 4
    }

    /// Whether all of `flags` are set.
    #[inline(always)]
    pub fn has(&self, flags: u8) -> bool {
        self.flags() & flags == flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_read_back() {
        let mut bytes = [0; 20];
        let mut t = Tcp::new_mut(&mut bytes).unwrap();
        t.set_src_port(40000);
        t.set_dst_port(80);
        t.set_seq(0x01020304);
        t.set_data_offset_byte(0x80);
        t.set_flags(SYN | ACK);
        let t = Tcp::new(&bytes).unwrap();
        assert_eq!(
            (t.src_port(), t.dst_port(), t.seq()),
            (40000, 80, 0x01020304)
        );
        assert_eq!(t.header_len(), 32);
        assert!(t.has(SYN) && t.has(SYN | ACK) && !t.has(SYN | RST));
        assert!(Tcp::at(&bytes, 1).is_none());
    }
}
