//! A packet on its way through the worker: the frame, where it came in, and what was read of it so far.

use ripvs_packet::parse::{self, L3Info};
use ripvs_packet::{ipv4_options, ipv6, sctp, tcp, udp, Frame};

use crate::frag::Pieces;
use crate::message::Parcel;
use crate::net::{DstKind, Ingress};
use crate::sip;
use crate::state::{self, Signal};
use crate::types::proto;

/// A packet under way.
pub(crate) struct Packet<F> {
    /// The frame.
    pub frame: F,
    /// How it came in.
    pub rx: Ingress,
    /// Where its IP header begins in the frame.
    pub l3: usize,
    /// What its headers said when it came; stale once it is rewritten.
    pub info: L3Info,
    /// Whose it is.
    pub dst: DstKind,
    /// What its IPv4 options asked for.
    pub options: ipv4_options::Received,
    /// Its mark, 0 for none.
    pub mark: u32,
    /// The hash that its connection is found by, where it was reckoned beforehand; 0 where it was not.
    pub hash: u64,
    /// The fragments that it was put together from, if it did not come whole.
    pub pieces: Option<Pieces>,
    /// Whether the router had a look at its TTL and length when it was in fragments.
    pub routed: bool,
    /// Whether IPVS sends it on for a client: then its size has been looked at, and it may be cut whatever its DF says.
    pub carried: bool,
}

impl<F: Frame> Packet<F> {
    /// The packet as another worker takes it.
    pub fn into_parcel(self) -> Parcel<F> {
        Parcel {
            frame: self.frame,
            rx: self.rx,
            pieces: self.pieces,
            routed: self.routed,
        }
    }

    /// Takes in what the headers say after rewriting, for whom they concern next.
    pub fn read_again(&mut self) {
        if let Ok(info) = parse::parse(self.rx.ethertype, self.ip(), self.len()) {
            self.info = info;
        }
    }

    /// Whether nothing is to be done with it on the way out: it came whole and its options ask for nothing.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.pieces.is_none() && self.options == ipv4_options::Received::default()
    }

    /// Takes what is before `end`, counted from the IP header on, into one piece, for rewriting it; see [`Pieces::pulled`].
    #[inline]
    pub fn pull_pieces(&mut self, end: usize) {
        if self.pieces.is_some() {
            let len = self.len();
            self.pieces = self.pieces.take().map(|pieces| pieces.pulled(len, end));
        }
    }

    /// Bytes of IP packet.
    pub fn len(&self) -> usize {
        self.info.total_len as usize
    }

    /// The packet from its IP header on, as far as the first segment holds it.
    pub fn ip(&self) -> &[u8] {
        let head = self.frame.head();
        &head[self.l3..head.len().min(self.l3 + self.len())]
    }

    /// The packet from its IP header on, for rewriting.
    pub fn ip_mut(&mut self) -> &mut [u8] {
        let (l3, end) = (self.l3, self.l3 + self.len());
        let head = self.frame.head_mut();
        let end = head.len().min(end);
        &mut head[l3..end]
    }

    /// The transport header and what follows, as far as the first segment holds it.
    pub fn transport(&self) -> &[u8] {
        self.ip()
            .get(usize::from(self.info.l4_offset)..)
            .unwrap_or_default()
    }

    /// What the packet is to its connection.
    pub fn signal(&self) -> Signal {
        let transport = self.transport();
        match self.info.protocol {
            proto::TCP => tcp_signal(transport),
            proto::UDP => Signal::Udp,
            proto::SCTP => Signal::Sctp(chunk_event(transport)),
            _ => Signal::Other,
        }
    }

    /// What the packet does to its connection's state. The kernel looks for the transport header of IPv6 right behind the fixed
    /// header (`tcp_state_transition`, `set_sctp_state`), extension headers or not.
    pub fn state_signal(&self) -> Signal {
        let plain = self.info.family == parse::Family::V4 || !self.info.has(parse::flags::OPTIONS);
        if plain {
            return self.signal();
        }
        let taken = self.ip().get(ipv6::HEADER_LEN..).unwrap_or_default();
        match self.info.protocol {
            proto::TCP => tcp_signal(taken),
            proto::SCTP => Signal::Sctp(chunk_event(taken)),
            _ => self.signal(),
        }
    }

    /// Whether the transport header is all there, for SCTP with the header of the first chunk.
    pub fn has_transport(&self) -> bool {
        let need = match self.info.protocol {
            proto::TCP => tcp::HEADER_LEN,
            proto::UDP => udp::HEADER_LEN,
            proto::SCTP => sctp::HEADER_LEN + 4,
            _ => 0,
        };
        self.transport().len() >= need
    }

    /// Whether this is a part of a datagram other than the first, where no transport header is.
    #[inline]
    pub fn is_later_fragment(&self) -> bool {
        self.info.frag_offset != 0
    }

    /// The type of the first chunk of an SCTP packet.
    pub fn sctp_chunk(&self) -> Option<u8> {
        self.transport()
            .get(sctp::HEADER_LEN..sctp::HEADER_LEN + 4)
            .map(|chunk| chunk[0])
    }

    /// Whether the packet ends its connection at once: RST or ABORT.
    pub fn is_reset(&self) -> bool {
        match self.signal() {
            Signal::Tcp(flags) => flags & tcp::RST != 0,
            Signal::Sctp(_) => self.sctp_chunk() == Some(sctp::chunk::ABORT),
            _ => false,
        }
    }

    /// The SIP Call-ID in a UDP datagram. Read through, the packet is one buffer (`skb_linearize`), Call-ID or not.
    pub fn call_id(&mut self) -> Option<Vec<u8>> {
        if self.info.protocol != proto::UDP {
            return None;
        }
        let from = self.l3 + usize::from(self.info.l4_offset) + udp::HEADER_LEN;
        let end = self.l3 + self.len();
        if from >= end {
            return None;
        }
        self.pieces = self.pieces.take().map(Pieces::merged);
        let mut message = vec![0; end - from];
        self.frame.copy_to(from, &mut message);
        sip::call_id(&message).map(<[u8]>::to_vec)
    }

    /// Source and destination port; `None` where the packet ends before them. ESP and AH have none and go by those of the
    /// client's ISAKMP connection (ip_vs_proto_ah_esp.c).
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self.info.protocol {
            proto::ESP | proto::AH => Some((ISAKMP_PORT, ISAKMP_PORT)),
            _ => ports(self.transport()),
        }
    }
}

/// What a TCP header says; nothing where it is not all there.
fn tcp_signal(transport: &[u8]) -> Signal {
    match transport.first_chunk::<{ tcp::HEADER_LEN }>() {
        Some(header) => Signal::Tcp(header[tcp::FLAGS]),
        None => Signal::Other,
    }
}

/// What the chunks of an SCTP packet say.
fn chunk_event(transport: &[u8]) -> Option<state::sctp::Event> {
    state::sctp::Event::of_chunks(transport.get(sctp::HEADER_LEN..)?)
}

/// The port of the key exchange that ESP and AH are negotiated by.
pub(crate) const ISAKMP_PORT: u16 = 500;

/// The two ports that TCP, UDP and SCTP begin with.
pub(crate) fn ports(transport: &[u8]) -> Option<(u16, u16)> {
    let bytes: &[u8; 4] = transport.first_chunk()?;
    Some((
        u16::from_be_bytes([bytes[0], bytes[1]]),
        u16::from_be_bytes([bytes[2], bytes[3]]),
    ))
}
