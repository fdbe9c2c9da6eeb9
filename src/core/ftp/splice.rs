//! Changing bytes in the payload of a TCP packet to more or fewer, with the lengths in its headers.

use std::ops::Range;

use ripvs_packet::{tcp, Frame};

use crate::packet::Packet;
use crate::rewrite::{add_frame, Ip};
use crate::types::{proto, Af};
use crate::verdict::Drop;

/// The longest IPv4 packet, and the longest payload of an IPv6 one.
const LONGEST: usize = 65_535;

/// Where the payload of a TCP packet begins, from its transport header on; none where its header is none, or there is no
/// payload.
pub(super) fn payload_at<F: Frame>(pkt: &Packet<F>) -> Option<usize> {
    let header = usize::from(*pkt.transport().get(tcp::DATA_OFFSET)? >> 4) * 4;
    (header >= tcp::HEADER_LEN && header < pkt.info.l4_len()).then_some(header)
}

/// Puts `new` in the place of the bytes at `range` of what follows the IP header. Checksums are left to be made anew.
///
/// # Errors
/// The frame has no room for it, or the packet would be too long.
pub(super) fn replace<A: Ip, F: Frame>(
    pkt: &mut Packet<F>,
    range: Range<usize>,
    new: &[u8],
) -> Result<(), Drop> {
    let l4 = pkt.l3 + usize::from(pkt.info.l4_offset);
    let (from, to, old) = (l4 + range.start, l4 + range.end, range.len());
    let len = pkt.len() + new.len() - old;
    let bounded = match A::AF {
        Af::V4 => len,
        Af::V6 => len - A::HEADER,
    };
    if bounded > LONGEST {
        return Err(Drop::TooBig);
    }
    if !pkt.frame.pull(to) || pkt.frame.head().len() < to {
        return Err(Drop::Truncated);
    }
    // What is before the range is less than what is behind, and all in the first segment: that is what moves.
    if new.len() > old {
        let more = new.len() - old;
        if !pkt.frame.prepend(more) {
            return Err(Drop::NoHeadroom);
        }
        pkt.frame.head_mut().copy_within(more..more + from, 0);
    } else {
        let less = old - new.len();
        pkt.frame.head_mut().copy_within(0..from, less);
        if !pkt.frame.trim_front(less) {
            return Err(Drop::Truncated);
        }
    }
    let head = pkt.frame.head_mut();
    head[from..from + new.len()].copy_from_slice(new);
    let ip = &mut head[pkt.l3..];
    let field = match A::AF {
        Af::V4 => 2..4,
        Af::V6 => 4..6,
    };
    ip[field].copy_from_slice(&(bounded as u16).to_be_bytes());
    pkt.info.total_len = len as u32;
    Ok(())
}

/// Whether the checksum of a TCP packet is right.
pub(super) fn is_valid<A: Ip, F: Frame>(pkt: &Packet<F>) -> bool {
    sum::<A, F>(pkt).is_valid()
}

/// Makes the checksum of a TCP packet anew.
pub(super) fn seal<A: Ip, F: Frame>(pkt: &mut Packet<F>) {
    let at = pkt.l3 + usize::from(pkt.info.l4_offset) + tcp::CHECKSUM;
    pkt.frame.write_at(at, &[0, 0]);
    let checksum = sum::<A, F>(pkt).checksum();
    pkt.frame.write_at(at, &checksum.to_be_bytes());
}

fn sum<A: Ip, F: Frame>(pkt: &Packet<F>) -> ripvs_packet::checksum::Sum {
    let ip = pkt.ip();
    let (src, dst) = (A::addr(ip, A::SRC), A::addr(ip, A::DST));
    let pseudo = A::pseudo(src, dst, proto::TCP, pkt.info.l4_len());
    let at = pkt.l3 + usize::from(pkt.info.l4_offset);
    add_frame(pseudo, &pkt.frame, at)
}
