//! The fragments of one datagram, kept in order, with the kernel's rules on ends, overlaps and duplicates
//! (`ip_frag_queue`, `nf_ct_frag6_queue`, `inet_frag_queue_insert`). Knows nothing of other datagrams, time or memory.

use ripvs_packet::Frame;

use super::{FragDrop, Pieces};

/// One fragment's place and where its data lies in its frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Where in the datagram the data belongs.
    pub offset: usize,
    /// Length of the data.
    pub len: usize,
    /// Whether more fragments follow.
    pub more: bool,
    /// Where the data begins in the frame.
    pub data_at: usize,
}

#[derive(Debug)]
struct Piece<F> {
    offset: usize,
    len: usize,
    data_at: usize,
    /// Whether this is the first of a run. Fragments that follow one another at the datagram's end as they come make one
    /// run, and a duplicate is what lies within a run; any other overlap ends the datagram.
    starts_run: bool,
    frame: F,
}

impl<F> Piece<F> {
    fn end(&self) -> usize {
        self.offset + self.len
    }
}

/// What became of a fragment.
pub(super) enum Queued<F> {
    /// It is held, and others are missing.
    Waiting,
    /// It was the last one missing.
    Complete,
    /// It is not wanted, the others still are.
    Refused(FragDrop, F),
    /// The datagram can come to nothing.
    Hopeless(FragDrop, F),
    /// An IPv6 fragment that isn't the last one and whose length is no multiple of eight: the datagram can come to nothing,
    /// and the fragment goes on as it is, so that its receiver can tell the sender.
    BadLength(F),
}

/// The fragments of one datagram.
#[derive(Debug)]
pub(super) struct Queue<F> {
    pieces: Vec<Piece<F>>,
    v6: bool,
    first_in: bool,
    last_in: bool,
    /// Length of the datagram's payload as far as known.
    len: usize,
    /// How many bytes of it are here.
    meat: usize,
    /// For each of the four ECN values whether it occurred.
    ecn: u8,
    /// Length of the largest fragment's packet.
    largest: usize,
    /// The same of those that forbid fragmenting.
    largest_df: usize,
}

impl<F: Frame> Queue<F> {
    pub fn new(v6: bool) -> Queue<F> {
        Queue {
            pieces: Vec::new(),
            v6,
            first_in: false,
            last_in: false,
            len: 0,
            meat: 0,
            ecn: 0,
            largest: 0,
            largest_df: 0,
        }
    }

    pub fn frames(&self) -> usize {
        self.pieces.len()
    }

    /// Drops what came so far.
    pub fn clear(&mut self) {
        *self = Queue::new(self.v6);
    }

    /// The frame of the first fragment, if that is here, and how many others there are.
    pub fn into_first(self) -> (Option<F>, usize) {
        let frames = self.pieces.len();
        let first_in = self.first_in;
        match self.pieces.into_iter().next() {
            Some(piece) if first_in => (Some(piece.frame), frames - 1),
            _ => (None, frames),
        }
    }

    /// Length of the datagram's payload; final once it is complete.
    pub fn payload_len(&self) -> usize {
        self.len
    }

    /// The ECN bits to be added to the datagram's: those of "congestion experienced" where one fragment had them (RFC 3168
    /// 5.3, `ip_frag_ecn_table`). `None` where some fragments are ECN-capable and others not.
    pub fn ecn(&self) -> Option<u8> {
        const NOT_ECT: u8 = 1 << 0;
        const CE: u8 = 1 << 3;
        match self.ecn {
            NOT_ECT => Some(0),
            ecn if ecn & NOT_ECT != 0 => None,
            CE => Some(0),
            ecn if ecn & CE != 0 => Some(3),
            _ => Some(0),
        }
    }

    /// How the fragments were cut.
    pub fn pieces(&self) -> Pieces {
        Pieces {
            largest: self.largest.max(self.largest_df) as u32,
            df: self.largest_df != 0 && self.largest_df == self.largest,
            later: self
                .pieces
                .iter()
                .skip(1)
                .map(|piece| piece.len as u16)
                .collect(),
        }
    }

    /// The frame of the first fragment and where its data begins there, once the datagram is complete.
    pub fn first(&self) -> Option<(&F, usize)> {
        self.pieces
            .first()
            .map(|piece| (&piece.frame, piece.data_at))
    }

    /// Appends the datagram's payload to `to`. False where a frame holds less than was said.
    pub fn copy_payload(&self, to: &mut Vec<u8>) -> bool {
        self.pieces.iter().all(|piece| {
            let start = to.len();
            to.resize(start + piece.len, 0);
            piece.frame.copy_to(piece.data_at, &mut to[start..]) == piece.len
        })
    }

    /// Takes a fragment. `header_len` is what its packet has before the data, `packet_len` the length that counts for
    /// [`Pieces::largest`] before any trimming (IPv6), `tos` its traffic class, `df` whether it forbids fragmenting.
    pub fn push(
        &mut self,
        frame: F,
        place: Place,
        header_len: usize,
        packet_len: usize,
        tos: u8,
        df: bool,
    ) -> Queued<F> {
        let Place {
            offset,
            mut len,
            more,
            data_at,
        } = place;
        let mut end = offset + len;
        if self.v6 && end > 0xffff {
            return Queued::Refused(FragDrop::TooLong, frame);
        }
        // In IPv6 a fragment that contradicts is dropped alone, in IPv4 it ends the datagram.
        let contradiction = |reason, frame| match self.v6 {
            true => Queued::Refused(reason, frame),
            false => Queued::Hopeless(reason, frame),
        };
        if more {
            if !end.is_multiple_of(8) {
                if self.v6 {
                    return Queued::BadLength(frame);
                }
                end &= !7;
            }
            if end > self.len {
                if self.last_in {
                    return contradiction(FragDrop::BadEnd, frame);
                }
                self.len = end;
            }
        } else {
            if end < self.len || (self.last_in && end != self.len) {
                return contradiction(FragDrop::BadEnd, frame);
            }
            self.last_in = true;
            self.len = end;
        }
        if end <= offset {
            let contradiction = if self.v6 {
                Queued::Refused
            } else {
                Queued::Hopeless
            };
            return contradiction(FragDrop::Empty, frame);
        }
        len = end - offset;
        let (index, starts_run) = match self.find_place(offset, end) {
            Ok(found) => found,
            Err(FragDrop::Duplicate) => return Queued::Refused(FragDrop::Duplicate, frame),
            Err(reason) => return Queued::Hopeless(reason, frame),
        };
        self.pieces.insert(
            index,
            Piece {
                offset,
                len,
                data_at,
                starts_run,
                frame,
            },
        );
        self.meat += len;
        self.ecn |= 1 << (tos & 3);
        let size = if self.v6 {
            packet_len
        } else {
            header_len + len
        };
        self.largest = self.largest.max(size);
        if df {
            self.largest_df = self.largest_df.max(size);
        }
        self.first_in |= offset == 0;
        if self.first_in && self.last_in && self.meat == self.len {
            Queued::Complete
        } else {
            Queued::Waiting
        }
    }

    /// Where among the pieces one from `offset` to `end` goes, and whether it starts a run.
    fn find_place(&self, offset: usize, end: usize) -> Result<(usize, bool), FragDrop> {
        let Some(last) = self.pieces.last() else {
            return Ok((0, true));
        };
        if last.end() < end {
            if offset < last.end() {
                return Err(FragDrop::Overlap);
            }
            return Ok((self.pieces.len(), offset != last.end()));
        }
        let index = self.pieces.partition_point(|piece| piece.offset <= offset);
        if let Some(before) = index.checked_sub(1).map(|i| &self.pieces[i]) {
            if before.end() > offset {
                let run_end = self.pieces[index..]
                    .iter()
                    .take_while(|piece| !piece.starts_run)
                    .last()
                    .unwrap_or(before)
                    .end();
                return Err(if end <= run_end {
                    FragDrop::Duplicate
                } else {
                    FragDrop::Overlap
                });
            }
        }
        match self.pieces.get(index) {
            Some(after) if after.offset < end => Err(FragDrop::Overlap),
            _ => Ok((index, true)),
        }
    }
}
