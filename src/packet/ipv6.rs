//! IPv6 headers (RFC 8200) and the walk over extension headers.

use crate::bytes::{fields, view};

/// Length of the fixed header.
pub const HEADER_LEN: usize = 40;
/// Where the payload length lies.
pub const PAYLOAD_LEN: usize = 4;
/// Where the next header lies.
pub const NEXT_HEADER: usize = 6;
/// Where the hop limit lies.
pub const HOP_LIMIT: usize = 7;
/// Where the source address lies.
pub const SRC: usize = 8;
/// Where the destination address lies.
pub const DST: usize = 24;
/// Length of a fragment header.
pub const FRAGMENT_LEN: usize = 8;
/// The smallest MTU of an IPv6 link.
pub const MIN_MTU: usize = 1280;

/// Next header numbers of extension headers.
pub mod next_header {
    /// Hop-by-hop options; first after the fixed header, if at all.
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing.
    pub const ROUTING: u8 = 43;
    /// Fragment.
    pub const FRAGMENT: u8 = 44;
    /// Authentication.
    pub const AUTH: u8 = 51;
    /// Nothing follows.
    pub const NONE: u8 = 59;
    /// Destination options.
    pub const DEST_OPTIONS: u8 = 60;
}

view!(
    /// The fixed 40 bytes of an IPv6 header.
    Ipv6,
    HEADER_LEN
);
fields!(Ipv6, HEADER_LEN;
    first_word set_first_word: u32 @ 0, "Version (4 bits), traffic class (8), flow label (20).";
    payload_len set_payload_len: u16 @ PAYLOAD_LEN, "Length of what follows the fixed header.";
    next_header set_next_header: u8 @ NEXT_HEADER, "What follows the fixed header.";
    hop_limit set_hop_limit: u8 @ HOP_LIMIT, "Hop limit.";
    src set_src: [16] @ SRC, "Source address.";
    dst set_dst: [16] @ DST, "Destination address.";
);

impl<T: core::ops::Deref<Target = [u8; HEADER_LEN]>> Ipv6<T> {
    /// Version, 6 in a right header.
    #[inline(always)]
    pub fn version(&self) -> u8 {
        self.0[0] >> 4
    }

    /// Traffic class: DSCP and ECN.
    #[inline(always)]
    pub fn traffic_class(&self) -> u8 {
        (self.first_word() >> 20) as u8
    }

    /// Flow label.
    #[inline(always)]
    pub fn flow_label(&self) -> u32 {
        self.first_word() & 0xf_ffff
    }
}

impl<T: core::ops::DerefMut<Target = [u8; HEADER_LEN]>> Ipv6<T> {
    /// Writes the traffic class.
    #[inline(always)]
    pub fn set_traffic_class(&mut self, class: u8) {
        let word = self.first_word() & !(0xff << 20) | u32::from(class) << 20;
        self.set_first_word(word);
    }
}

/// What a new header says; see [`build`].
#[derive(Clone, Copy, Debug)]
pub struct NewHeader {
    /// Traffic class.
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Length of what follows.
    pub payload_len: u16,
    /// What follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub src: [u8; 16],
    /// Destination address.
    pub dst: [u8; 16],
}

/// The bytes of a fixed header.
pub fn build(new: &NewHeader) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    let mut h = Ipv6(&mut bytes);
    h.set_first_word(6 << 28 | u32::from(new.traffic_class) << 20 | new.flow_label & 0xf_ffff);
    h.set_payload_len(new.payload_len);
    h.set_next_header(new.next_header);
    h.set_hop_limit(new.hop_limit);
    h.set_src(new.src);
    h.set_dst(new.dst);
    bytes
}

view!(
    /// A fragment extension header.
    Fragment,
    FRAGMENT_LEN
);
fields!(Fragment, FRAGMENT_LEN;
    next_header set_next_header: u8 @ 0, "What the fragmentable part begins with.";
    offset_more set_offset_more: u16 @ 2, "Offset in bytes in the upper 13 bits, \"more fragments\" in the lowest.";
    id set_id: u32 @ 4, "Identification, common to a datagram's fragments.";
);

impl<T: core::ops::Deref<Target = [u8; FRAGMENT_LEN]>> Fragment<T> {
    /// Where in the datagram's fragmentable part this fragment belongs, in bytes.
    #[inline]
    pub fn offset(&self) -> usize {
        usize::from(self.offset_more() & 0xfff8)
    }

    /// Whether this is not the last fragment.
    #[inline]
    pub fn more(&self) -> bool {
        self.offset_more() & 1 != 0
    }
}

/// Where the walk over the extension headers ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// The upper protocol: the first next header number that is no extension header's (ESP counts as upper), or 59 where
    /// nothing follows. For a fragment that isn't the whole datagram, what its fragment header names.
    pub protocol: u8,
    /// Where that begins, from the start of the fixed header.
    pub offset: usize,
    /// Where the next header number that names it lies: in the fixed header or in the last extension header.
    pub named_at: usize,
    /// Where the fragment header lies, the last one walked over if there are several.
    pub fragment: Option<usize>,
}

/// Why a walk over extension headers didn't reach the upper protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkError {
    /// The packet ends within an extension header.
    Truncated,
    /// More headers than [`MAX_EXT_HEADERS`].
    TooMany,
    /// The given bytes end within an extension header, but the packet doesn't: this many bytes are needed to go on.
    HeadShort(usize),
}

/// How many extension headers are walked over. The kernel has no such bound; 128 fill an ordinary 1500-byte packet to two
/// thirds, where no sender in good faith gets near ten.
pub const MAX_EXT_HEADERS: usize = 128;

/// Whether the number is that of an extension header, as the kernel's `ipv6_ext_hdr` has it: ESP isn't.
#[inline(always)]
pub fn is_ext_header(number: u8) -> bool {
    use next_header::*;
    matches!(
        number,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTH | NONE | DEST_OPTIONS
    )
}

/// Walks over the extension headers of the packet that starts at `packet[0]` and is `total_len` bytes long, of which
/// `packet` may hold only the first ones. Follows the kernel's `ipv6_find_hdr`, but stops at a fragment header that isn't
/// an atomic fragment's, because what comes after it is to be read after reassembly.
///
/// # Errors
/// See [`WalkError`].
#[inline]
pub fn walk(packet: &[u8], total_len: usize) -> Result<Upper, WalkError> {
    let Some(header) = Ipv6::new(packet) else {
        return Err(if total_len < HEADER_LEN {
            WalkError::Truncated
        } else {
            WalkError::HeadShort(HEADER_LEN)
        });
    };
    let upper = Upper {
        protocol: header.next_header(),
        offset: HEADER_LEN,
        named_at: NEXT_HEADER,
        fragment: None,
    };
    if !is_ext_header(upper.protocol) {
        return Ok(upper);
    }
    walk_chain(packet, total_len, upper)
}

fn walk_chain(packet: &[u8], total_len: usize, mut upper: Upper) -> Result<Upper, WalkError> {
    for _ in 0..MAX_EXT_HEADERS {
        if !is_ext_header(upper.protocol) || upper.protocol == next_header::NONE {
            return Ok(upper);
        }
        let need = match upper.protocol {
            next_header::FRAGMENT => FRAGMENT_LEN,
            next_header::ROUTING => 4,
            _ => 2,
        };
        let end = upper.offset + need;
        if end > total_len {
            return Err(WalkError::Truncated);
        }
        let Some(header) = packet.get(upper.offset..end) else {
            return Err(WalkError::HeadShort(end));
        };
        let len = match upper.protocol {
            next_header::FRAGMENT => FRAGMENT_LEN,
            next_header::AUTH => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        let stop = if let Some(fragment) =
            Fragment::new(header).filter(|_| upper.protocol == next_header::FRAGMENT)
        {
            upper.fragment = Some(upper.offset);
            fragment.offset_more() & 0xfff9 != 0
        } else {
            false
        };
        upper.protocol = header[0];
        upper.named_at = upper.offset;
        upper.offset += len;
        if stop {
            return Ok(upper);
        }
    }
    Err(WalkError::TooMany)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = build(&NewHeader {
            traffic_class: 0x12,
            flow_label: 0x34567,
            payload_len: rest.len() as u16,
            next_header: first,
            hop_limit: 64,
            src: [1; 16],
            dst: [2; 16],
        })
        .to_vec();
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn fields_read_back() {
        let mut bytes = packet(6, &[0; 20]);
        let h = Ipv6::new(&bytes).unwrap();
        assert_eq!(
            (h.version(), h.traffic_class(), h.flow_label()),
            (6, 0x12, 0x34567)
        );
        assert_eq!(
            (h.payload_len(), h.next_header(), h.hop_limit()),
            (20, 6, 64)
        );
        assert_eq!((h.src(), h.dst()), ([1; 16], [2; 16]));
        Ipv6::new_mut(&mut bytes).unwrap().set_traffic_class(0xff);
        assert_eq!(Ipv6::new(&bytes).unwrap().first_word(), 0x6ff3_4567);
    }

    #[test]
    fn a_plain_packet_needs_no_walk() {
        let bytes = packet(6, &[0; 20]);
        assert_eq!(
            walk(&bytes, 60),
            Ok(Upper {
                protocol: 6,
                offset: 40,
                named_at: 6,
                fragment: None
            })
        );
    }

    #[test]
    fn every_kind_of_header_is_walked_over() {
        let mut rest = vec![43, 0, 1, 4, 0, 0, 0, 0]; // hop by hop, 8 bytes
        rest.extend([44, 1, 0, 0].iter().chain(&[0; 12])); // routing, 16 bytes
        rest.extend([51, 0, 0, 0, 0, 0, 0, 1]); // atomic fragment
        rest.extend([60, 4].iter().chain(&[0; 22])); // AH, (4 + 2) * 4 = 24 bytes
        rest.extend([17, 0, 1, 4, 0, 0, 0, 0]); // destination options
        rest.extend([0; 8]);
        let bytes = packet(0, &rest);
        let upper = walk(&bytes, bytes.len()).unwrap();
        assert_eq!(
            upper,
            Upper {
                protocol: 17,
                offset: 40 + 64,
                named_at: 40 + 56,
                fragment: Some(40 + 24)
            }
        );
        for len in 40..40 + 58 {
            let cut = walk(&bytes[..len], bytes.len());
            assert!(
                matches!(cut, Err(WalkError::HeadShort(n)) if n > len),
                "{len}: {cut:?}"
            );
            let cut = walk(&bytes[..len], len);
            assert!(cut == Err(WalkError::Truncated), "{len}: {cut:?}");
        }
    }

    #[test]
    fn the_walk_stops_at_a_real_fragment() {
        let bytes = packet(44, &[60, 0, 0, 8, 0, 0, 0, 1, 1, 2, 3]);
        let upper = walk(&bytes, bytes.len()).unwrap();
        assert_eq!(
            (upper.protocol, upper.offset, upper.fragment),
            (60, 48, Some(40))
        );
        let f = Fragment::at(&bytes, 40).unwrap();
        assert_eq!((f.offset(), f.more(), f.id()), (8, false, 1));
    }

    #[test]
    fn a_chain_without_end_is_given_up() {
        let rest: Vec<u8> = [60, 0, 1, 4, 0, 0, 0, 0].repeat(200);
        let bytes = packet(60, &rest);
        assert_eq!(walk(&bytes, bytes.len()), Err(WalkError::TooMany));
    }
}
