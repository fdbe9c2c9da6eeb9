//! IPv4 headers (RFC 791).

use crate::bytes::{fields, u16_at, view};
use crate::checksum::{self, Sum};

/// Length of the header without options.
pub const HEADER_LEN: usize = 20;
/// Longest header.
pub const MAX_HEADER_LEN: usize = 60;
/// Where the version and the header length lie.
pub const VERSION_IHL: usize = 0;
/// Where the type of service (DSCP and ECN) lies.
pub const TOS: usize = 1;
/// Where the total length lies.
pub const TOTAL_LEN: usize = 2;
/// Where the identification lies.
pub const ID: usize = 4;
/// Where the flags and the fragment offset lie.
pub const FRAGMENT: usize = 6;
/// Where the time to live lies.
pub const TTL: usize = 8;
/// Where the protocol lies.
pub const PROTOCOL: usize = 9;
/// Where the header checksum lies.
pub const CHECKSUM: usize = 10;
/// Where the source address lies.
pub const SRC: usize = 12;
/// Where the destination address lies.
pub const DST: usize = 16;

/// "Don't fragment", in the flags and offset field.
pub const DF: u16 = 0x4000;
/// "More fragments", in the flags and offset field.
pub const MF: u16 = 0x2000;
/// The offset, in units of 8 bytes, in the flags and offset field.
pub const OFFSET_MASK: u16 = 0x1fff;

view!(
    /// An IPv4 header's fixed 20 bytes.
    Ipv4,
    HEADER_LEN
);
fields!(Ipv4, HEADER_LEN;
    version_ihl set_version_ihl: u8 @ VERSION_IHL, "Version in the upper four bits, header length in units of four bytes below.";
    tos set_tos: u8 @ TOS, "Type of service: DSCP and ECN.";
    total_len set_total_len: u16 @ TOTAL_LEN, "Length of the packet with its header.";
    id set_id: u16 @ ID, "Identification, common to a datagram's fragments.";
    fragment set_fragment: u16 @ FRAGMENT, "Flags ([`DF`], [`MF`]) and fragment offset in units of 8 bytes.";
    ttl set_ttl: u8 @ TTL, "Time to live.";
    protocol set_protocol: u8 @ PROTOCOL, "Protocol of the payload.";
    checksum set_checksum: u16 @ CHECKSUM, "Header checksum.";
    src set_src: [4] @ SRC, "Source address.";
    dst set_dst: [4] @ DST, "Destination address.";
);

impl<T: core::ops::Deref<Target = [u8; HEADER_LEN]>> Ipv4<T> {
    /// Version, 4 in a right header.
    #[inline(always)]
    pub fn version(&self) -> u8 {
        self.version_ihl() >> 4
    }

    /// Length of the header with its options, in bytes; below 20 where the header is wrong.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        usize::from(self.version_ihl() & 0xf) * 4
    }

    /// Whether fragmenting is forbidden.
    #[inline(always)]
    pub fn dont_fragment(&self) -> bool {
        self.fragment() & DF != 0
    }

    /// Whether this is not the last fragment.
    #[inline(always)]
    pub fn more_fragments(&self) -> bool {
        self.fragment() & MF != 0
    }

    /// Where in the datagram's payload this fragment belongs, in bytes.
    #[inline(always)]
    pub fn fragment_offset(&self) -> usize {
        usize::from(self.fragment() & OFFSET_MASK) * 8
    }
}

impl<T: core::ops::DerefMut<Target = [u8; HEADER_LEN]>> Ipv4<T> {
    /// Changes a 16-bit field at an even offset and the header checksum with it, as the kernel's `csum_replace2` does.
    #[inline(always)]
    fn replace16(&mut self, at: usize, new: u16) {
        let old = u16_at(&self.0, at);
        let check = checksum::replace16(self.checksum(), old, new);
        crate::bytes::put(&mut self.0, at, new.to_be_bytes());
        self.set_checksum(check);
    }

    /// Takes one from the time to live and adjusts the header checksum, bit for bit as `ip_decrease_ttl` does.
    #[inline(always)]
    pub fn decrement_ttl(&mut self) {
        let check = u32::from(self.checksum()) + 0x0100;
        self.set_checksum((check + u32::from(check >= 0xffff)) as u16);
        self.set_ttl(self.ttl().wrapping_sub(1));
    }

    /// Changes the source address and adjusts the header checksum.
    #[inline(always)]
    pub fn rewrite_src(&mut self, new: [u8; 4]) {
        let check = checksum::replace32(self.checksum(), self.src(), new);
        self.set_src(new);
        self.set_checksum(check);
    }

    /// Changes the destination address and adjusts the header checksum.
    #[inline(always)]
    pub fn rewrite_dst(&mut self, new: [u8; 4]) {
        let check = checksum::replace32(self.checksum(), self.dst(), new);
        self.set_dst(new);
        self.set_checksum(check);
    }

    /// Changes the type of service and adjusts the header checksum.
    pub fn rewrite_tos(&mut self, new: u8) {
        self.replace16(VERSION_IHL, u16::from_be_bytes([self.version_ihl(), new]));
    }

    /// Changes flags and fragment offset and adjusts the header checksum.
    pub fn rewrite_fragment(&mut self, new: u16) {
        self.replace16(FRAGMENT, new);
    }

    /// Changes the total length and adjusts the header checksum.
    pub fn rewrite_total_len(&mut self, new: u16) {
        self.replace16(TOTAL_LEN, new);
    }
}

/// Writes the checksum of the header (with its options) at the start of `packet`. Does nothing where the bytes are fewer
/// than the header says that it has.
pub fn fill_checksum(packet: &mut [u8]) {
    let Some(len) = Ipv4::new(packet).map(|h| h.header_len()) else {
        return;
    };
    if let Some(header) = packet.get_mut(..len) {
        if let Some(mut h) = Ipv4::new_mut(header) {
            h.set_checksum(0);
        }
        let check = Sum::of(header).checksum();
        if let Some(mut h) = Ipv4::new_mut(header) {
            h.set_checksum(check);
        }
    }
}

/// What a new header without options says; see [`build`].
#[derive(Clone, Copy, Debug)]
pub struct NewHeader {
    /// Type of service.
    pub tos: u8,
    /// Length of the packet with its header.
    pub total_len: u16,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset.
    pub fragment: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Source address.
    pub src: [u8; 4],
    /// Destination address.
    pub dst: [u8; 4],
}

/// The bytes of a header without options, its checksum filled in.
#[inline(always)]
pub fn build(new: &NewHeader) -> [u8; HEADER_LEN] {
    let [len, id, fragment] = [new.total_len, new.id, new.fragment].map(u16::to_be_bytes);
    // As words in registers: bytes that were written one by one would have to be waited for.
    let word = u32::from_ne_bytes;
    let mut words = [
        word([0x45, new.tos, len[0], len[1]]),
        word([id[0], id[1], fragment[0], fragment[1]]),
        word([new.ttl, new.protocol, 0, 0]),
        word(new.src),
        word(new.dst),
    ];
    let [high, low] = checksum::of_words(words).to_ne_bytes();
    words[2] |= word([0, 0, high, low]);
    let mut bytes = [0; HEADER_LEN];
    for (four, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *four = word.to_ne_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> [u8; HEADER_LEN] {
        build(&NewHeader {
            tos: 0x10,
            total_len: 60,
            id: 0x1c46,
            fragment: DF,
            ttl: 64,
            protocol: 6,
            src: [172, 16, 10, 99],
            dst: [172, 16, 10, 12],
        })
    }

    #[test]
    fn fields_read_back_and_the_checksum_is_the_known_one() {
        let bytes = header();
        let h = Ipv4::new(&bytes).unwrap();
        assert_eq!((h.version(), h.header_len(), h.tos()), (4, 20, 0x10));
        assert_eq!(
            (h.total_len(), h.id(), h.ttl(), h.protocol()),
            (60, 0x1c46, 64, 6)
        );
        assert!(h.dont_fragment() && !h.more_fragments());
        // The well-known example header of 172.16.10.99 -> 172.16.10.12 has 0xb1e6 with a type of service of 0.
        assert_eq!(h.checksum(), 0xb1e6 - 0x10);
        assert!(Ipv4::new(&bytes[..19]).is_none());
    }

    proptest! {
        #[test]
        fn rewrites_keep_a_right_checksum_right(
            ttl in 1u8.., tos: u8, src: [u8; 4], dst: [u8; 4], id: u16, fragment: u16, len: u16,
            new_src: [u8; 4], new_dst: [u8; 4], new_tos: u8, new_fragment: u16, new_len: u16,
        ) {
            let mut bytes = build(&NewHeader { tos, total_len: len, id, fragment, ttl, protocol: 17, src, dst });
            let mut h = Ipv4::new_mut(&mut bytes).unwrap();
            h.decrement_ttl();
            h.rewrite_src(new_src);
            h.rewrite_dst(new_dst);
            h.rewrite_tos(new_tos);
            h.rewrite_fragment(new_fragment);
            h.rewrite_total_len(new_len);
            let whole = build(&NewHeader {
                tos: new_tos, total_len: new_len, id, fragment: new_fragment, ttl: ttl - 1, protocol: 17,
                src: new_src, dst: new_dst,
            });
            prop_assert_eq!(bytes, whole);
        }
    }
}
