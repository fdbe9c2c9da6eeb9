//! Cutting a packet into fragments as `ip_do_fragment` and `ip6_fragment` do: along the boundaries at which it came, where
//! these fit, else into fragments as large as allowed.

use ripvs_packet::ipv6::next_header;
use ripvs_packet::{ipv4, ipv6, Frame};

use super::Pieces;

/// Why a packet is not cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutError {
    /// It may not be: the sender is told of this MTU (ICMP fragmentation needed, ICMPv6 packet too big).
    TooBig {
        /// The MTU.
        mtu: usize,
    },
    /// Its headers make no sense: it is dropped.
    Malformed,
}

/// Whether an IPv4 packet of this length is to be cut, or told of, before it is sent by an interface or route with this
/// MTU: one that came in pieces never leaves whole (`ip_finish_output`).
#[inline]
pub fn must_cut_v4(len: usize, mtu: usize, pieces: Option<&Pieces>) -> bool {
    len > mtu || pieces.is_some()
}

/// The same for IPv6: one that came in pieces leaves whole where it is no longer than the largest (`ip6_finish_output`).
#[inline]
pub fn must_cut_v6(len: usize, mtu: usize, pieces: Option<&Pieces>) -> bool {
    len > mtu || pieces.is_some_and(|pieces| len > pieces.largest as usize)
}

/// Cuts the IPv4 packet at `l3_offset` in the frame, and hands each fragment to `emit` as a frame: what is before
/// `l3_offset` is copied to each. A fragment that is too big is cut further. Returns how many there were.
///
/// `ignore_df`: IPVS sends client packets on whatever their DF says, having compared them with the MTU itself; packets
/// that are only routed, NAT replies among them, are not cut where DF is set, be they ever so small.
///
/// # Errors
/// [`CutError::TooBig`] where DF forbids it, [`CutError::Malformed`] where the frame holds no IPv4 packet.
pub fn cut_v4<F: Frame>(
    frame: &F,
    l3_offset: usize,
    mtu: usize,
    pieces: Option<&Pieces>,
    ignore_df: bool,
    mut emit: impl FnMut(&[u8]),
) -> Result<usize, CutError> {
    let mut buffer = vec![0; l3_offset + ipv4::MAX_HEADER_LEN];
    let head = frame.copy_to(0, &mut buffer);
    let h = ipv4::Ipv4::at(&buffer[..head], l3_offset).ok_or(CutError::Malformed)?;
    let header_len = h.header_len();
    let total_len = usize::from(h.total_len());
    if header_len < ipv4::HEADER_LEN
        || header_len > total_len
        || l3_offset + total_len > frame.len()
    {
        return Err(CutError::Malformed);
    }
    let largest = pieces.map_or(usize::MAX, |pieces| pieces.largest as usize);
    let came_larger = pieces.is_some() && largest > mtu;
    if h.dont_fragment() && (!ignore_df || came_larger) {
        return Err(CutError::TooBig { mtu });
    }
    let room = mtu.min(largest).saturating_sub(header_len);
    if room < 8 {
        return Err(CutError::TooBig { mtu });
    }
    let (own_offset, own_more) = (h.fragment_offset(), h.more_fragments());
    let payload_len = total_len - header_len;
    let lengths = match pieces {
        Some(pieces) if own_offset == 0 && !own_more => {
            Lengths::new(payload_len, room, &pieces.later)
        }
        _ => Lengths::even(payload_len, room),
    };
    let df = match lengths {
        Lengths::Even { .. } if pieces.is_some_and(|pieces| pieces.df) => ipv4::DF,
        _ => 0,
    };
    let data_at = l3_offset + header_len;
    let mut at = 0;
    let mut count = 0;
    buffer.truncate(data_at);
    for len in lengths {
        buffer.truncate(data_at);
        if at > 0 && own_offset == 0 && count == 1 {
            blank_uncopied_options(&mut buffer[l3_offset + ipv4::HEADER_LEN..]);
        }
        buffer.resize(data_at + len, 0);
        if frame.copy_to(data_at + at, &mut buffer[data_at..]) != len {
            return Err(CutError::Malformed);
        }
        let more = own_more || at + len < payload_len;
        if let Some(mut h) = ipv4::Ipv4::at_mut(&mut buffer, l3_offset) {
            h.set_total_len((header_len + len) as u16);
            let offset = ((own_offset + at) / 8) as u16 & ipv4::OFFSET_MASK;
            h.set_fragment(offset | df | if more { ipv4::MF } else { 0 });
        }
        ipv4::fill_checksum(&mut buffer[l3_offset..]);
        emit(&buffer);
        at += len;
        count += 1;
    }
    Ok(count)
}

/// Overwrites options that only the first fragment has (RFC 791: those without the copied flag) by "no operation".
fn blank_uncopied_options(options: &mut [u8]) {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const COPIED: u8 = 0x80;
    let mut at = 0;
    while at < options.len() {
        let kind = options[at];
        if kind == END {
            return;
        }
        if kind == NOP {
            at += 1;
            continue;
        }
        let len = options.get(at + 1).map_or(0, |len| usize::from(*len));
        if len < 2 || at + len > options.len() {
            return;
        }
        if kind & COPIED == 0 {
            options[at..at + len].fill(NOP);
        }
        at += len;
    }
}

/// Cuts the IPv6 packet at `l3_offset` in the frame, and hands each fragment to `emit` as a frame: what is before
/// `l3_offset`, and the headers that every hop reads, are copied to each, and a fragment header with identification `id` is
/// put in. Returns how many there were.
///
/// `may_cut`: a router doesn't cut what is larger than the MTU, except what came in pieces (they are checked against the
/// MTU by their largest), and what IPVS sends.
///
/// # Errors
/// [`CutError::TooBig`] where it may not be cut, [`CutError::Malformed`] where the frame holds no IPv6 packet.
pub fn cut_v6<F: Frame>(
    frame: &F,
    l3_offset: usize,
    mtu: usize,
    pieces: Option<&Pieces>,
    may_cut: bool,
    id: u32,
    mut emit: impl FnMut(&[u8]),
) -> Result<usize, CutError> {
    let mut fixed = vec![0; l3_offset + ipv6::HEADER_LEN];
    let head = frame.copy_to(0, &mut fixed);
    let h = ipv6::Ipv6::at(&fixed[..head], l3_offset).ok_or(CutError::Malformed)?;
    let total_len = ipv6::HEADER_LEN + usize::from(h.payload_len());
    if l3_offset + total_len > frame.len() {
        return Err(CutError::Malformed);
    }
    let too_big = CutError::TooBig { mtu };
    if !may_cut && total_len > mtu {
        return Err(too_big);
    }
    let mut limit = mtu;
    if let Some(pieces) = pieces {
        if pieces.largest as usize > mtu {
            return Err(too_big);
        }
        limit = (pieces.largest as usize).max(ipv6::MIN_MTU);
    }
    let (header_len, named_at) = unfragmentable_part(frame, l3_offset, total_len, h.next_header())
        .ok_or(CutError::Malformed)?;
    let room = limit.saturating_sub(header_len + ipv6::FRAGMENT_LEN);
    if room < 8 {
        return Err(too_big);
    }
    let payload_len = total_len - header_len;
    let fragment_at = l3_offset + header_len;
    let mut headers = vec![0; fragment_at + ipv6::FRAGMENT_LEN];
    if frame.copy_to(0, &mut headers[..fragment_at]) != fragment_at {
        return Err(CutError::Malformed);
    }
    let inner = std::mem::replace(&mut headers[l3_offset + named_at], next_header::FRAGMENT);
    let lengths = match pieces {
        Some(pieces) => Lengths::new(payload_len, room, &pieces.later),
        None => Lengths::even(payload_len, room),
    };
    let mut buffer = headers;
    let data_at = buffer.len();
    let mut at = 0;
    let mut count = 0;
    for len in lengths {
        buffer.resize(data_at + len, 0);
        if frame.copy_to(fragment_at + at, &mut buffer[data_at..]) != len {
            return Err(CutError::Malformed);
        }
        if let Some(mut h) = ipv6::Ipv6::at_mut(&mut buffer, l3_offset) {
            h.set_payload_len((header_len - ipv6::HEADER_LEN + ipv6::FRAGMENT_LEN + len) as u16);
        }
        if let Some(mut f) = ipv6::Fragment::at_mut(&mut buffer, fragment_at) {
            f.set_next_header(inner);
            f.set_offset_more(at as u16 | u16::from(at + len < payload_len));
            f.set_id(id);
        }
        emit(&buffer);
        at += len;
        count += 1;
    }
    Ok(count)
}

/// How long the part is that every fragment has, and where in it the field lies that names what follows
/// (`ip6_find_1stfragopt`: hop-by-hop, routing, and destination options other than those behind a routing header).
fn unfragmentable_part<F: Frame>(
    frame: &F,
    l3_offset: usize,
    total_len: usize,
    first: u8,
) -> Option<(usize, usize)> {
    let mut next = first;
    let mut named_at = ipv6::NEXT_HEADER;
    let mut at = ipv6::HEADER_LEN;
    let mut routing = false;
    loop {
        match next {
            next_header::HOP_BY_HOP => {}
            next_header::ROUTING => routing = true,
            next_header::DEST_OPTIONS if !routing => {}
            _ => return Some((at, named_at)),
        }
        let mut header = [0; 2];
        if at + 2 > total_len || frame.copy_to(l3_offset + at, &mut header) != 2 {
            return None;
        }
        next = header[0];
        named_at = at;
        at += (usize::from(header[1]) + 1) * 8;
        if at > total_len {
            return None;
        }
    }
}

/// The lengths of the fragments' payloads, one after the other.
enum Lengths<'a> {
    /// As they came.
    Kept {
        first: Option<usize>,
        later: std::slice::Iter<'a, u16>,
    },
    /// As large as may be.
    Even { left: usize, room: usize },
}

impl Lengths<'_> {
    /// The boundaries of before, counted from the end of the packet, because headers may have been put in front since. They
    /// hold where every fragment fits and all but the last are multiples of eight.
    fn new(payload_len: usize, room: usize, later: &[u16]) -> Lengths<'_> {
        let Some((last, middle)) = later.split_last() else {
            return Lengths::even(payload_len, room);
        };
        let behind: usize = later.iter().map(|len| usize::from(*len)).sum();
        let fits = |len: usize| len > 0 && len <= room;
        match payload_len.checked_sub(behind) {
            Some(first)
                if fits(first)
                    && first.is_multiple_of(8)
                    && fits(usize::from(*last))
                    && middle
                        .iter()
                        .all(|len| fits(usize::from(*len)) && len.is_multiple_of(8)) =>
            {
                Lengths::Kept {
                    first: Some(first),
                    later: later.iter(),
                }
            }
            _ => Lengths::even(payload_len, room),
        }
    }

    fn even(payload_len: usize, room: usize) -> Lengths<'static> {
        Lengths::Even {
            left: payload_len,
            room,
        }
    }
}

impl Iterator for Lengths<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        match self {
            Lengths::Kept { first, later } => first
                .take()
                .or_else(|| later.next().map(|len| usize::from(*len))),
            Lengths::Even { left: 0, .. } => None,
            Lengths::Even { left, room } => {
                let len = if *left <= *room { *left } else { *room & !7 };
                *left -= len;
                Some(len)
            }
        }
    }
}
