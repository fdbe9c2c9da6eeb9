//! The headers of a datagram that is put together, and of an IPv6 fragment before it is taken.

use ripvs_packet::parse::{flags, Family, L3Info};
use ripvs_packet::{ipv4, ipv6, Frame};

use super::queue::Queue;
use super::{FragDrop, UngatheredReason};
use crate::types::proto;

/// Writes a complete datagram to `to`: what the first fragment has before its data, adjusted, then all data.
pub(super) fn build<F: Frame>(
    queue: &Queue<F>,
    family: Family,
    l3_offset: usize,
    to: &mut Vec<u8>,
) -> Result<(), FragDrop> {
    let ecn = queue.ecn().ok_or(FragDrop::MixedEcn)?;
    let (first, data_at) = queue.first().ok_or(FragDrop::Truncated)?;
    to.resize(data_at, 0);
    if first.copy_to(0, to) != data_at {
        return Err(FragDrop::Truncated);
    }
    let payload_len = queue.payload_len();
    if family == Family::V6 {
        let fragment_at = data_at - ipv6::FRAGMENT_LEN;
        let next_header = to[fragment_at];
        to.truncate(fragment_at);
        adjust_v6(&mut to[l3_offset..], payload_len, next_header, ecn)?;
    } else {
        let df = queue.pieces().df;
        adjust_v4(&mut to[l3_offset..], payload_len, df, ecn)?;
    }
    if !queue.copy_payload(to) {
        return Err(FragDrop::Truncated);
    }
    Ok(())
}

fn adjust_v4(header: &mut [u8], payload_len: usize, df: bool, ecn: u8) -> Result<(), FragDrop> {
    let total = u16::try_from(header.len() + payload_len).map_err(|_| FragDrop::TooLong)?;
    let mut h = ipv4::Ipv4::new_mut(header).ok_or(FragDrop::Truncated)?;
    h.set_total_len(total);
    h.set_fragment(if df { ipv4::DF } else { 0 });
    h.set_tos(h.tos() | ecn);
    ipv4::fill_checksum(header);
    Ok(())
}

/// `header` is everything up to where the fragment header was.
fn adjust_v6(
    header: &mut [u8],
    payload_len: usize,
    next_header: u8,
    ecn: u8,
) -> Result<(), FragDrop> {
    let named_at = fragment_named_at(header).ok_or(FragDrop::Truncated)?;
    let extensions = header.len().saturating_sub(ipv6::HEADER_LEN);
    let payload_len = u16::try_from(extensions + payload_len).map_err(|_| FragDrop::TooLong)?;
    header[named_at] = next_header;
    let mut h = ipv6::Ipv6::new_mut(header).ok_or(FragDrop::Truncated)?;
    h.set_payload_len(payload_len);
    h.set_traffic_class(h.traffic_class() | ecn);
    Ok(())
}

/// Where the next header field lies that names the fragment header which follows right after `header`.
fn fragment_named_at(header: &[u8]) -> Option<usize> {
    let mut named_at = ipv6::NEXT_HEADER;
    let mut at = ipv6::HEADER_LEN;
    while at < header.len() {
        let len = ext_header_len(*header.get(named_at)?, *header.get(at + 1)?);
        named_at = at;
        at += len;
    }
    (at == header.len()).then_some(named_at)
}

fn ext_header_len(kind: u8, len_field: u8) -> usize {
    match kind {
        ipv6::next_header::FRAGMENT => ipv6::FRAGMENT_LEN,
        ipv6::next_header::AUTH => (usize::from(len_field) + 2) * 4,
        _ => (usize::from(len_field) + 1) * 8,
    }
}

/// Why an IPv6 fragment is left as it is before anything is looked up, if it is (`nf_ct_frag6_gather`).
pub(super) fn ungathered<F: Frame>(
    frame: &F,
    l3_offset: usize,
    info: &L3Info,
) -> Option<UngatheredReason> {
    let gathered = flags::FRAGMENT | flags::ATOMIC_FRAGMENT;
    if info.flags & gathered == 0
        || read::<F, 2>(frame, l3_offset + ipv6::PAYLOAD_LEN) == Some([0, 0])
    {
        return Some(UngatheredReason::NotAFragment);
    }
    if info.frag_offset == 0 && headers_incomplete(frame, l3_offset, info) {
        return Some(UngatheredReason::IncompleteHeaders);
    }
    None
}

/// Whether the first fragment ends within the header of TCP, UDP or ICMPv6, or before the first byte of another protocol
/// (`ipv6frag_thdr_truncated`). A chain of extension headers that is cut short doesn't count, as in the kernel.
fn headers_incomplete<F: Frame>(frame: &F, l3_offset: usize, info: &L3Info) -> bool {
    let total_len = info.total_len as usize;
    let mut next = ipv6::next_header::FRAGMENT;
    let mut at = usize::from(info.frag_header);
    for _ in 0..ipv6::MAX_EXT_HEADERS {
        if !ipv6::is_ext_header(next) {
            let need = match next {
                proto::TCP => 20,
                proto::UDP | proto::ICMPV6 => 8,
                _ => 1,
            };
            return at + need > total_len;
        }
        let within = at + 2 <= total_len;
        let Some([following, len]) = read::<F, 2>(frame, l3_offset + at).filter(|_| within) else {
            return false;
        };
        if next == ipv6::next_header::NONE {
            return false;
        }
        at += ext_header_len(next, len);
        next = following;
    }
    false
}

fn read<F: Frame, const N: usize>(frame: &F, at: usize) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    (frame.copy_to(at, &mut bytes) == N).then_some(bytes)
}
