//! Ethernet II headers (IEEE 802.3) and VLAN tags (IEEE 802.1Q, 802.1ad).

use crate::bytes::{fields, view};
use crate::Frame;

/// A MAC address.
pub type Mac = [u8; 6];

/// Length of the untagged header.
pub const HEADER_LEN: usize = 14;
/// Length of one VLAN tag.
pub const TAG_LEN: usize = 4;
/// Shortest frame on a wire, without FCS: shorter ones are padded.
pub const MIN_FRAME_LEN: usize = 60;
/// The broadcast address.
pub const BROADCAST: Mac = [0xff; 6];
/// Where the destination address lies.
pub const DST: usize = 0;
/// Where the source address lies.
pub const SRC: usize = 6;
/// Where the type (or the outermost tag's) lies.
pub const TYPE: usize = 12;

/// EtherType numbers.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// A customer VLAN tag.
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// A service VLAN tag.
    pub const QINQ: u16 = 0x88a8;
    /// Slow protocols (LACP among them).
    pub const SLOW: u16 = 0x8809;
    /// LLDP.
    pub const LLDP: u16 = 0x88cc;
}

view!(
    /// The 14 bytes before any tag.
    Eth,
    HEADER_LEN
);
fields!(Eth, HEADER_LEN;
    dst set_dst: [6] @ DST, "The destination address.";
    src set_src: [6] @ SRC, "The source address.";
    ethertype set_ethertype: u16 @ TYPE, "The type of what follows, a tag's where the frame is tagged.";
);

/// Whether the address is a group address: multicast or broadcast.
#[inline]
pub fn is_multicast(mac: Mac) -> bool {
    mac[0] & 1 != 0
}

/// What lies between the start of a frame and its network layer packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L2Info {
    /// Type of the network layer packet. Below 0x600 it is a length: an 802.3 frame with LLC.
    pub ethertype: u16,
    /// Where that packet begins.
    pub l3_offset: u16,
    /// How many tags there are: 0, 1 or 2. Of a third one `ethertype` tells.
    pub tags: u8,
    /// VLAN number of the outermost tag, 0 where there is none (0 in a tag means priority only: no VLAN).
    pub vlan: u16,
    /// VLAN number of the inner tag, 0 where there is none.
    pub inner_vlan: u16,
}

/// Reads the Ethernet header and up to two tags. `None` where the frame ends within them.
#[inline]
pub fn parse(frame: &[u8]) -> Option<L2Info> {
    let ethertype = Eth::new(frame)?.ethertype();
    let mut info = L2Info {
        ethertype,
        l3_offset: HEADER_LEN as u16,
        tags: 0,
        vlan: 0,
        inner_vlan: 0,
    };
    if ethertype != ethertype::VLAN && ethertype != ethertype::QINQ {
        return Some(info);
    }
    let (vlan, ethertype) = tag_at(frame, HEADER_LEN)?;
    info.vlan = vlan;
    info.ethertype = ethertype;
    info.tags = 1;
    info.l3_offset += TAG_LEN as u16;
    if ethertype != ethertype::VLAN && ethertype != ethertype::QINQ {
        return Some(info);
    }
    let (vlan, ethertype) = tag_at(frame, HEADER_LEN + TAG_LEN)?;
    info.inner_vlan = vlan;
    info.ethertype = ethertype;
    info.tags = 2;
    info.l3_offset += TAG_LEN as u16;
    Some(info)
}

/// The VLAN number of the tag whose last four bytes begin at `at`, and the type that follows it.
#[inline]
fn tag_at(frame: &[u8], at: usize) -> Option<(u16, u16)> {
    let tag: &[u8; 4] = frame.get(at..)?.first_chunk()?;
    Some((
        u16::from_be_bytes([tag[0], tag[1]]) & 0x0fff,
        u16::from_be_bytes([tag[2], tag[3]]),
    ))
}

/// Puts an 802.1Q tag in front of the frame's type. False, and the frame unchanged, where it has no headroom for it.
#[must_use]
pub fn push_vlan<F: Frame>(frame: &mut F, vlan: u16) -> bool {
    if frame.head().len() < HEADER_LEN || !frame.prepend(TAG_LEN) {
        return false;
    }
    let head = frame.head_mut();
    head.copy_within(TAG_LEN..TAG_LEN + TYPE, 0);
    if let Some(tag) = head.get_mut(TYPE..).and_then(|b| b.first_chunk_mut()) {
        let [type_hi, type_lo] = ethertype::VLAN.to_be_bytes();
        let [tci_hi, tci_lo] = (vlan & 0x0fff).to_be_bytes();
        *tag = [type_hi, type_lo, tci_hi, tci_lo];
    }
    true
}

/// Takes the outermost tag away. False, and the frame unchanged, where it has none.
#[must_use]
pub fn pop_vlan<F: Frame>(frame: &mut F) -> bool {
    match parse(frame.head()) {
        Some(l2) if l2.tags > 0 => {
            frame.head_mut().copy_within(0..TYPE, TAG_LEN);
            frame.trim_front(TAG_LEN)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemFrame;

    fn frame(tags: &[(u16, u16)], ethertype: u16) -> Vec<u8> {
        let mut bytes = vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        for (tpid, vlan) in tags {
            bytes.extend(tpid.to_be_bytes());
            bytes.extend(vlan.to_be_bytes());
        }
        bytes.extend(ethertype.to_be_bytes());
        bytes.extend([0x45, 0]);
        bytes
    }

    #[test]
    fn tags_are_found_and_skipped() {
        let plain = parse(&frame(&[], 0x0800)).unwrap();
        assert_eq!(
            (plain.ethertype, plain.l3_offset, plain.tags),
            (0x0800, 14, 0)
        );
        let one = parse(&frame(&[(0x8100, 0x6064)], 0x86dd)).unwrap();
        assert_eq!(
            (one.ethertype, one.l3_offset, one.vlan),
            (0x86dd, 18, 0x064)
        );
        let two = parse(&frame(&[(0x88a8, 7), (0x8100, 9)], 0x0806)).unwrap();
        assert_eq!((two.ethertype, two.l3_offset), (0x0806, 22));
        assert_eq!((two.vlan, two.inner_vlan, two.tags), (7, 9, 2));
    }

    #[test]
    fn headers_cut_short_are_refused() {
        let bytes = frame(&[(0x88a8, 7), (0x8100, 9)], 0x0806);
        for len in 0..22 {
            assert_eq!(parse(&bytes[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn pushing_then_popping_a_tag_gives_the_frame_back() {
        let bytes = frame(&[], 0x0800);
        let mut f = MemFrame::new(&bytes);
        assert!(push_vlan(&mut f, 100));
        assert_eq!(f.head(), frame(&[(0x8100, 100)], 0x0800));
        assert!(pop_vlan(&mut f));
        assert_eq!(f.head(), bytes);
        assert!(!pop_vlan(&mut f));
    }
}
