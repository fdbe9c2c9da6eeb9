//! Fragments to try, and what they are tried with.

use ripvs_arch::FlowHash;
use ripvs_packet::memory::{MemFrame, MemIo};
use ripvs_packet::parse::{parse_v4, parse_v6, L3Info};
use ripvs_packet::{ipv4, ipv6};

use super::super::*;
use crate::types::{IfaceId, Time};

pub(super) const L2: [u8; 14] = [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 8, 0];

pub(super) fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// A UDP packet over IPv4 with these options, as a frame.
pub(super) fn v4(id: u16, fragment: u16, tos: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    let mut bytes = L2.to_vec();
    bytes.extend(ipv4::build(&ipv4::NewHeader {
        tos,
        total_len: (header_len + data.len()) as u16,
        id,
        fragment,
        ttl: 63,
        protocol: 17,
        src: [198, 18, 0, 1],
        dst: [192, 0, 2, 100],
    }));
    bytes[14] = 0x40 | (header_len / 4) as u8;
    bytes.extend(options);
    ipv4::fill_checksum(&mut bytes[14..]);
    bytes.extend(data);
    bytes
}

/// The part of `data` from `offset` on as an IPv4 fragment.
pub(super) fn v4_part(id: u16, data: &[u8], offset: usize, len: usize, flags: u16) -> Vec<u8> {
    let end = (offset + len).min(data.len());
    let more = if end < data.len() { ipv4::MF } else { 0 };
    v4(
        id,
        (offset / 8) as u16 | more | flags,
        0,
        &[],
        &data[offset..end],
    )
}

/// A packet over IPv6 that begins with this header after the fixed one.
pub(super) fn v6(next_header: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = L2.to_vec();
    bytes[12..].copy_from_slice(&[0x86, 0xdd]);
    bytes.extend(ipv6::build(&ipv6::NewHeader {
        traffic_class: 0,
        flow_label: 0,
        payload_len: data.len() as u16,
        next_header,
        hop_limit: 63,
        src: [0x20; 16],
        dst: [0x30; 16],
    }));
    bytes.extend(data);
    bytes
}

/// An IPv6 fragment with this data.
pub(super) fn v6_part(id: u32, offset: usize, more: bool, data: &[u8]) -> Vec<u8> {
    let mut rest = vec![17, 0];
    rest.extend((offset as u16 | u16::from(more)).to_be_bytes());
    rest.extend(id.to_be_bytes());
    rest.extend(data);
    v6(44, &rest)
}

/// A reassembler, and where its frames come from.
pub(super) struct Bench {
    pub(super) reassembler: Reassembler<MemFrame>,
    pub(super) io: MemIo,
    pub(super) now: Time,
    /// Frames pushed, absorbed, dropped, gone on.
    pub(super) counts: [usize; 4],
}

impl Bench {
    pub(super) fn new() -> Bench {
        Bench::with(Settings::default())
    }

    pub(super) fn with(settings: Settings) -> Bench {
        Bench {
            reassembler: Reassembler::new(settings, FlowHash::new([1, 2])),
            io: MemIo::new(),
            now: Time::from_secs(1),
            counts: [0; 4],
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Gathered<MemFrame> {
        self.push_by(IfaceId(1), MemFrame::new(bytes))
    }

    pub(super) fn push_by(&mut self, iface: IfaceId, frame: MemFrame) -> Gathered<MemFrame> {
        let bytes = frame.to_vec();
        let info = info(&bytes);
        let gathered = self
            .reassembler
            .push(self.now, iface, frame, 14, &info, &mut self.io);
        self.counts[0] += 1;
        match &gathered {
            Gathered::Held { dropped } => self.counts[2] += dropped,
            Gathered::Complete(datagram) => {
                self.counts[1] += datagram.absorbed;
                self.counts[3] += 1;
            }
            Gathered::Ungathered { dropped, .. } => {
                self.counts[2] += dropped;
                self.counts[3] += 1;
            }
            Gathered::Dropped { frames, .. } => self.counts[2] += frames,
        }
        self.check();
        gathered
    }

    pub(super) fn expire(&mut self, limit: usize) -> Vec<Expired<MemFrame>> {
        let mut expired = Vec::new();
        let n = self
            .reassembler
            .expire(self.now, limit, |one| expired.push(one));
        assert_eq!(n, expired.len());
        self.counts[2] += expired
            .iter()
            .map(|e| e.dropped + usize::from(e.first.is_some()))
            .sum::<usize>();
        self.check();
        expired
    }

    /// The sum that every frame is in, and memory that goes back to nothing.
    pub(super) fn check(&self) {
        let held = self.reassembler.held();
        let [pushed, absorbed, dropped, gone_on] = self.counts;
        assert_eq!(pushed, absorbed + dropped + gone_on + held.frames);
        assert_eq!(held.frames == 0, held.v4_bytes + held.v6_bytes == 0);
    }

    pub(super) fn held(&self) -> (usize, usize) {
        let held = self.reassembler.held();
        (held.frames, held.datagrams)
    }
}

pub(super) fn info(bytes: &[u8]) -> L3Info {
    let l3 = &bytes[14..];
    match bytes[12] {
        8 => parse_v4(l3, l3.len()).unwrap(),
        _ => parse_v6(l3, l3.len()).unwrap(),
    }
}

#[track_caller]
pub(super) fn complete(gathered: Gathered<MemFrame>) -> (Vec<u8>, Pieces) {
    match gathered {
        Gathered::Complete(datagram) => (datagram.frame.to_vec(), datagram.pieces),
        other => panic!("not complete: {other:?}"),
    }
}

#[track_caller]
pub(super) fn dropped(gathered: Gathered<MemFrame>) -> (FragDrop, usize) {
    match gathered {
        Gathered::Dropped { reason, frames } => (reason, frames),
        other => panic!("not dropped: {other:?}"),
    }
}

#[track_caller]
pub(super) fn is_held(gathered: Gathered<MemFrame>) -> usize {
    match gathered {
        Gathered::Held { dropped } => dropped,
        other => panic!("not held: {other:?}"),
    }
}

pub(super) fn cut4(
    bytes: &[u8],
    mtu: usize,
    pieces: Option<&Pieces>,
    ignore_df: bool,
) -> Result<Vec<Vec<u8>>, CutError> {
    let mut out = Vec::new();
    let n = cut_v4(&MemFrame::new(bytes), 14, mtu, pieces, ignore_df, |f| {
        out.push(f.to_vec())
    })?;
    assert_eq!(n, out.len());
    Ok(out)
}

pub(super) fn cut6(
    bytes: &[u8],
    mtu: usize,
    pieces: Option<&Pieces>,
    may_cut: bool,
) -> Result<Vec<Vec<u8>>, CutError> {
    let mut out = Vec::new();
    let n = cut_v6(&MemFrame::new(bytes), 14, mtu, pieces, may_cut, 99, |f| {
        out.push(f.to_vec())
    })?;
    assert_eq!(n, out.len());
    Ok(out)
}

/// Offset, length and "more" of fragments.
pub(super) fn geometry(fragments: &[Vec<u8>]) -> Vec<(usize, usize, bool)> {
    fragments
        .iter()
        .map(|bytes| {
            let info = info(bytes);
            assert_eq!(
                bytes.len(),
                14 + info.total_len as usize,
                "frames hold one packet and nothing else"
            );
            let more = info.has(ripvs_packet::parse::flags::MORE_FRAGMENTS);
            (usize::from(info.frag_offset), info.l4_len(), more)
        })
        .collect()
}
