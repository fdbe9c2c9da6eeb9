//! Fragments: putting datagrams together ([`Reassembler`]) and cutting them up again ([`cut_v4`], [`cut_v6`]), as the
//! kernel does around IPVS. Decides nothing about what is gathered or where errors go; the network layer does that.
//!
//! What the kernel gathers: an IPv4 fragment that is for one of its own addresses, and one that passes through while IPVS
//! has services; any IPv6 fragment (`nf_defrag_ipv6`, which comes with the first IPv6 service), atomic ones included, which
//! thereby lose their fragment header.
//!
//! How a datagram came decides how it leaves: in no pieces larger than the largest that came ([`Pieces`]).
//!
//! Every frame handed to [`Reassembler::push`] is held, or comes back, or is dropped and counted in the outcome. Of a
//! datagram that came in N frames, one goes on and N − 1 are absorbed ([`Datagram::absorbed`]), so that
//! received = going on + absorbed + dropped + [`Reassembler::held`] at any time.

mod cut;
mod headers;
mod queue;
mod reassembler;
#[cfg(test)]
mod tests;

pub use cut::{cut_v4, cut_v6, must_cut_v4, must_cut_v6, CutError};
pub use reassembler::{Datagram, Expired, Gathered, Held, Reassembler, Settings, UngatheredReason};

/// How a datagram came: what the kernel keeps as `frag_max_size`, `IPSKB_FRAG_PMTU` and the fragment list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// Length of the largest fragment's packet, IP header included.
    pub largest: u32,
    /// Whether the largest IPv4 fragment forbade fragmenting: the datagram then has DF set, and so have its new fragments.
    pub df: bool,
    /// Lengths of the payloads of all fragments but the first. New fragments keep these boundaries where they can.
    pub later: Box<[u16]>,
}

impl Pieces {
    /// Forgets the boundaries. The kernel merges the buffers of IPv4 fragments for its own addresses (but not of those that
    /// pass through, nor of IPv6, nor where it tracks connections), so that they leave in fragments as large as the largest.
    #[must_use]
    pub fn merged(mut self) -> Pieces {
        self.later = Box::default();
        self
    }

    /// Has the packet's first `need` bytes in one piece, of `len` that it has in all, IP header included. What the kernel
    /// rewrites or reads in place it first moves into the first fragment's buffer (`skb_ensure_writable`), at the expense of
    /// the fragments behind.
    #[must_use]
    pub fn pulled(mut self, len: usize, need: usize) -> Pieces {
        let behind: usize = self.later.iter().map(|piece| usize::from(*piece)).sum();
        let mut missing = need.min(len).saturating_sub(len.saturating_sub(behind));
        if missing > 0 {
            let left = self.later.iter().filter_map(|piece| {
                let taken = missing.min(usize::from(*piece));
                missing -= taken;
                Some(piece - taken as u16).filter(|left| *left > 0)
            });
            self.later = left.collect();
        }
        self
    }
}

/// Why fragments were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FragDrop {
    /// The memory for fragments, or the number of datagrams, is at its bound.
    NoRoom,
    /// The frame holds less than its headers say.
    Truncated,
    /// Ends of the datagram that contradict each other, or data beyond its end.
    BadEnd,
    /// A fragment without data.
    Empty,
    /// Fragments that overlap (RFC 5722).
    Overlap,
    /// A fragment of which everything had come before; the datagram is still waited for.
    Duplicate,
    /// A datagram longer than 65535 bytes.
    TooLong,
    /// Fragments whose ECN bits do not go together (RFC 3168 5.3).
    MixedEcn,
    /// No frame was to be had for the datagram.
    NoFrame,
}

impl FragDrop {
    /// Every reason.
    pub const ALL: [FragDrop; 9] = [
        FragDrop::NoRoom,
        FragDrop::Truncated,
        FragDrop::BadEnd,
        FragDrop::Empty,
        FragDrop::Overlap,
        FragDrop::Duplicate,
        FragDrop::TooLong,
        FragDrop::MixedEcn,
        FragDrop::NoFrame,
    ];

    /// A short name, for counters of drop reasons.
    pub fn name(self) -> &'static str {
        match self {
            FragDrop::NoRoom => "frag_no_room",
            FragDrop::Truncated => "frag_truncated",
            FragDrop::BadEnd => "frag_bad_end",
            FragDrop::Empty => "frag_empty",
            FragDrop::Overlap => "frag_overlap",
            FragDrop::Duplicate => "frag_duplicate",
            FragDrop::TooLong => "frag_too_long",
            FragDrop::MixedEcn => "frag_mixed_ecn",
            FragDrop::NoFrame => "frag_no_frame",
        }
    }
}
