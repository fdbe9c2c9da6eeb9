//! Sequence numbers of a TCP connection whose server's bytes became more or fewer on the way: the server's own shift by
//! what was put in, the client's acknowledgements and SACK blocks by as much back.
//!
//! Follows net/netfilter/nf_conntrack_seqadj.c, which does this for IPVS: what comes behind the last change has the new
//! shift, what is older keeps the one before, and of still older changes nothing is known. Numbers wrap (RFC 9293, 3.4).

use ripvs_packet::{checksum, tcp};

/// Kinds of TCP options (RFC 9293, 3.1; RFC 2018).
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_SACK: u8 = 5;
/// Bytes of the edges in a SACK block.
const SACK_BLOCK: usize = 8;

/// How far one side's numbers are shifted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shift {
    /// The sender's number of the last packet that was changed.
    at: u32,
    /// Added to numbers up to there.
    before: u32,
    /// Added to numbers behind.
    after: u32,
}

/// A packet whose options cannot be read; the kernel drops it where numbers are shifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadOptions;

/// Whether `a` comes after `b`.
fn is_after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

impl Shift {
    /// Whether nothing is shifted.
    pub fn is_none(&self) -> bool {
        self.before == 0 && self.after == 0
    }

    /// The packet that begins with the sender's number `seq` got `by` bytes longer. One that was seen before changes
    /// nothing.
    pub fn change(&mut self, seq: u32, by: i32) {
        if by != 0 && (self.before == self.after || is_after(seq, self.at)) {
            self.at = seq;
            self.before = self.after;
            self.after = self.after.wrapping_add_signed(by);
        }
    }

    /// Shifts the number of a packet of the sender's. `segment` begins with its TCP header, which is all there.
    pub fn sequence(&self, segment: &mut [u8]) {
        let seq = number(segment, tcp::SEQ);
        let by = if is_after(seq, self.at) {
            self.after
        } else {
            self.before
        };
        put(segment, tcp::SEQ, seq.wrapping_add(by));
    }

    /// Shifts back what a packet of the other side acknowledges. `segment` begins with its TCP header and has all its
    /// options.
    ///
    /// # Errors
    /// The options cannot be read.
    pub fn acknowledgement(&self, segment: &mut [u8]) -> Result<(), BadOptions> {
        if segment[tcp::FLAGS] & tcp::ACK == 0 {
            return Ok(());
        }
        self.shift_back(segment, tcp::ACK_SEQ);
        let end = usize::from(segment[tcp::DATA_OFFSET] >> 4) * 4;
        let end = end.min(segment.len());
        let mut at = tcp::HEADER_LEN;
        while at < end {
            match segment[at] {
                OPTION_END => break,
                OPTION_NOP => at += 1,
                kind => {
                    let len = match segment[..end].get(at + 1) {
                        Some(len) if *len >= 2 && at + usize::from(*len) <= end => {
                            usize::from(*len)
                        }
                        _ => return Err(BadOptions),
                    };
                    if kind == OPTION_SACK && (len - 2).is_multiple_of(SACK_BLOCK) {
                        for edge in (at + 2..at + len).step_by(4) {
                            self.shift_back(segment, edge);
                        }
                    }
                    at += len;
                }
            }
        }
        Ok(())
    }

    /// Turns a number that the receiver knows into the sender's.
    fn shift_back(&self, segment: &mut [u8], at: usize) {
        let seen = number(segment, at);
        let by = if is_after(seen.wrapping_sub(self.before), self.at) {
            self.after
        } else {
            self.before
        };
        put(segment, at, seen.wrapping_sub(by));
    }
}

fn number(segment: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([
        segment[at],
        segment[at + 1],
        segment[at + 2],
        segment[at + 3],
    ])
}

/// Writes a number and updates the checksum by the difference. A SACK edge may lie at an odd offset, which swaps the bytes
/// that the sum sees.
fn put(segment: &mut [u8], at: usize, value: u32) {
    let (mut old, mut new) = (number(segment, at).to_be_bytes(), value.to_be_bytes());
    segment[at..at + 4].copy_from_slice(&new);
    if at % 2 == 1 {
        old = [old[1], old[0], old[3], old[2]];
        new = [new[1], new[0], new[3], new[2]];
    }
    let sum = u16::from_be_bytes([segment[tcp::CHECKSUM], segment[tcp::CHECKSUM + 1]]);
    let sum = checksum::replace32(sum, old, new);
    segment[tcp::CHECKSUM..tcp::CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use ripvs_packet::checksum::Sum;

    fn segment(seq: u32, ack: u32, options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; tcp::HEADER_LEN];
        bytes[tcp::SEQ..tcp::SEQ + 4].copy_from_slice(&seq.to_be_bytes());
        bytes[tcp::ACK_SEQ..tcp::ACK_SEQ + 4].copy_from_slice(&ack.to_be_bytes());
        bytes.extend(options);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes[tcp::DATA_OFFSET] = (bytes.len() as u8 / 4) << 4;
        bytes[tcp::FLAGS] = tcp::ACK;
        let sum = Sum::of(&bytes).checksum();
        bytes[tcp::CHECKSUM..tcp::CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn sent(shift: &Shift, seq: u32) -> u32 {
        let mut bytes = segment(seq, 0, &[]);
        shift.sequence(&mut bytes);
        assert!(Sum::of(&bytes).is_valid());
        number(&bytes, tcp::SEQ)
    }

    fn acknowledged(shift: &Shift, ack: u32) -> u32 {
        let mut bytes = segment(0, ack, &[]);
        shift.acknowledgement(&mut bytes).unwrap();
        assert!(Sum::of(&bytes).is_valid());
        number(&bytes, tcp::ACK_SEQ)
    }

    #[test]
    fn what_is_behind_the_change_is_shifted_and_what_is_older_keeps_the_earlier_shift() {
        let mut shift = Shift::default();
        shift.change(512, 2);
        assert_eq!((sent(&shift, 512), sent(&shift, 513)), (512, 515));
        assert_eq!(
            (acknowledged(&shift, 512), acknowledged(&shift, 561)),
            (512, 559)
        );
        shift.change(577, 2);
        assert_eq!((sent(&shift, 567), sent(&shift, 597)), (569, 601));
        assert_eq!(
            (acknowledged(&shift, 579), acknowledged(&shift, 601)),
            (577, 597)
        );
    }

    #[test]
    fn a_packet_sent_again_counts_once_and_numbers_wrap() {
        let mut shift = Shift::default();
        shift.change(0xffff_ffe1, -3);
        shift.change(0xffff_ffe1, -3);
        assert_eq!(sent(&shift, 0x13), 0x10);
        assert_eq!(acknowledged(&shift, 0x10), 0x13);
        assert!(!shift.is_none());
        shift.change(0x13, 3);
        assert_eq!(sent(&shift, 0x20), 0x20);
    }

    #[test]
    fn sack_blocks_are_shifted_wherever_they_lie_and_the_checksum_with_them() {
        let mut shift = Shift::default();
        shift.change(500, 4);
        let edges = [0u8, 0, 2, 0x60, 0, 0, 2, 0x67];
        for before in [&[1, 1][..], &[1]] {
            let mut bytes = segment(1, 601, &[before, &[5, 10], &edges].concat());
            shift.acknowledgement(&mut bytes).unwrap();
            let at = tcp::HEADER_LEN + before.len() + 2;
            assert_eq!(number(&bytes, at), 0x25c);
            assert_eq!(number(&bytes, at + 4), 0x263);
            assert!(Sum::of(&bytes).is_valid());
        }
    }

    #[test]
    fn options_that_cannot_be_read_are_an_error_and_an_end_ends_them() {
        let mut shift = Shift::default();
        shift.change(500, 4);
        for bad in [&[5, 255, 1, 1][..], &[1, 1, 1, 2], &[2, 1, 0, 0]] {
            let mut bytes = segment(1, 1, bad);
            assert_eq!(
                shift.acknowledgement(&mut bytes),
                Err(BadOptions),
                "{bad:?}"
            );
        }
        let mut bytes = segment(1, 1, &[0, 255, 255, 255]);
        assert_eq!(shift.acknowledgement(&mut bytes), Ok(()));
    }
}
