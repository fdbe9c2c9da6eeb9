//! Frames in ordinary memory, for tests and for whatever runs without a device.

use crate::{Frame, PacketIo, PortId};

/// Headroom of a new frame: that of DPDK's mbufs.
const HEADROOM: usize = 128;

/// A frame in ordinary memory, in one or several segments.
#[derive(Clone, Debug)]
pub struct MemFrame {
    /// Headroom, then the bytes of the first segment.
    first: Vec<u8>,
    /// How much of `first` is headroom.
    start: usize,
    /// The segments after the first one.
    rest: Vec<Vec<u8>>,
    /// How many bytes the first segment can hold.
    room: usize,
}

impl MemFrame {
    /// A frame in one segment with 128 bytes of headroom.
    pub fn new(bytes: &[u8]) -> MemFrame {
        MemFrame::with_segments(&[bytes], HEADROOM)
    }

    /// A frame in these segments, with this much headroom. The first segment can be made to hold the whole frame by
    /// [`Frame::pull`] unless [`MemFrame::limit_first`] says otherwise.
    pub fn with_segments(segments: &[&[u8]], headroom: usize) -> MemFrame {
        let mut first = vec![0; headroom];
        first.extend_from_slice(segments.first().unwrap_or(&&[][..]));
        MemFrame {
            first,
            start: headroom,
            rest: segments.iter().skip(1).map(|s| s.to_vec()).collect(),
            room: usize::MAX,
        }
    }

    /// Lets the first segment hold no more than `room` bytes, so that [`Frame::pull`] beyond it fails.
    pub fn limit_first(&mut self, room: usize) {
        self.room = room;
    }

    /// All bytes of the frame.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = self.head().to_vec();
        for segment in &self.rest {
            all.extend_from_slice(segment);
        }
        all
    }

    /// How many segments it lies in.
    pub fn segments(&self) -> usize {
        1 + self.rest.len()
    }

    /// The segments from the first on, for rewriting.
    fn segments_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        core::iter::once(&mut self.first[self.start..])
            .chain(self.rest.iter_mut().map(Vec::as_mut_slice))
    }
}

impl Frame for MemFrame {
    fn len(&self) -> usize {
        self.first.len() - self.start + self.rest.iter().map(Vec::len).sum::<usize>()
    }

    fn head(&self) -> &[u8] {
        &self.first[self.start..]
    }

    fn head_mut(&mut self) -> &mut [u8] {
        &mut self.first[self.start..]
    }

    fn pull(&mut self, n: usize) -> bool {
        let n = n.min(self.len());
        if n <= self.head().len() {
            return true;
        }
        if n > self.room {
            return false;
        }
        let mut missing = n - self.head().len();
        for segment in &mut self.rest {
            let take = missing.min(segment.len());
            self.first.extend(segment.drain(..take));
            missing -= take;
        }
        self.rest.retain(|segment| !segment.is_empty());
        true
    }

    fn prepend(&mut self, n: usize) -> bool {
        if n > self.start {
            return false;
        }
        self.start -= n;
        true
    }

    fn trim_front(&mut self, n: usize) -> bool {
        if n > self.head().len() {
            return false;
        }
        self.start += n;
        true
    }

    fn truncate(&mut self, len: usize) {
        let mut left = len;
        let keep = left.min(self.first.len() - self.start);
        self.first.truncate(self.start + keep);
        left -= keep;
        for segment in &mut self.rest {
            let keep = left.min(segment.len());
            segment.truncate(keep);
            left -= keep;
        }
        self.rest.retain(|segment| !segment.is_empty());
    }

    fn copy_to(&self, offset: usize, to: &mut [u8]) -> usize {
        let mut skip = offset;
        let mut done = 0;
        for segment in core::iter::once(self.head()).chain(self.rest.iter().map(Vec::as_slice)) {
            let from = &segment[skip.min(segment.len())..];
            skip -= segment.len() - from.len();
            let n = from.len().min(to.len() - done);
            to[done..done + n].copy_from_slice(&from[..n]);
            done += n;
        }
        done
    }

    fn write_at(&mut self, offset: usize, from: &[u8]) -> usize {
        let mut skip = offset;
        let mut done = 0;
        for segment in self.segments_mut() {
            let len = segment.len();
            let to = &mut segment[skip.min(len)..];
            skip -= len - to.len();
            let n = to.len().min(from.len() - done);
            to[..n].copy_from_slice(&from[done..done + n]);
            done += n;
        }
        done
    }
}

/// A device layer in memory: keeps what is sent, and gives out frames until told to fail.
#[derive(Debug, Default)]
pub struct MemIo {
    /// The frames that were sent, in order, with the ports they were sent by.
    pub sent: Vec<(PortId, MemFrame)>,
    /// How many more frames [`PacketIo::alloc`] gives; no bound where `None`.
    pub allocs_left: Option<usize>,
    /// How many frames [`PacketIo::alloc`] gave.
    pub allocated: usize,
    /// Size of the segments of new frames; one segment where 0.
    pub segment_size: usize,
}

impl MemIo {
    /// A device layer without bounds.
    pub fn new() -> MemIo {
        MemIo::default()
    }

    /// Takes what was sent so far, as port number and bytes.
    pub fn take_sent(&mut self) -> Vec<(u16, Vec<u8>)> {
        self.sent
            .drain(..)
            .map(|(port, frame)| (port.0, frame.to_vec()))
            .collect()
    }
}

impl PacketIo for MemIo {
    type Frame = MemFrame;

    fn alloc(&mut self, bytes: &[u8]) -> Option<MemFrame> {
        if let Some(left) = &mut self.allocs_left {
            *left = left.checked_sub(1)?;
        }
        self.allocated += 1;
        if self.segment_size == 0 {
            return Some(MemFrame::new(bytes));
        }
        let segments: Vec<&[u8]> = bytes.chunks(self.segment_size).collect();
        Some(MemFrame::with_segments(&segments, HEADROOM))
    }

    fn transmit(&mut self, port: PortId, frame: MemFrame) {
        self.sent.push((port, frame));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segmented() -> MemFrame {
        MemFrame::with_segments(&[&[0, 1, 2], &[3, 4], &[5, 6, 7, 8]], 4)
    }

    #[test]
    fn pull_joins_segments_up_to_what_is_asked() {
        let mut f = segmented();
        assert!(f.pull(4));
        assert_eq!(f.head(), [0, 1, 2, 3]);
        assert_eq!((f.len(), f.segments()), (9, 3));
        assert!(f.pull(100));
        assert_eq!((f.head().len(), f.segments()), (9, 1));
        let mut f = segmented();
        f.limit_first(5);
        assert!(f.pull(5));
        assert!(!f.pull(6));
        assert_eq!(f.to_vec(), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn the_front_grows_and_shrinks_within_bounds() {
        let mut f = segmented();
        assert!(f.trim_front(2));
        assert!(!f.trim_front(2));
        assert_eq!(f.head(), [2]);
        assert!(f.prepend(6));
        assert!(!f.prepend(1));
        assert_eq!(f.len(), 13);
    }

    #[test]
    fn copies_and_writes_cross_segments() {
        let mut f = segmented();
        let mut to = [0; 5];
        assert_eq!(f.copy_to(2, &mut to), 5);
        assert_eq!(to, [2, 3, 4, 5, 6]);
        assert_eq!(f.copy_to(7, &mut to), 2);
        assert_eq!(f.copy_to(20, &mut to), 0);
        assert_eq!(f.write_at(1, &[9, 9, 9, 9, 9, 9]), 6);
        assert_eq!(f.to_vec(), [0, 9, 9, 9, 9, 9, 9, 7, 8]);
        assert_eq!(f.write_at(8, &[1, 1]), 1);
    }

    #[test]
    fn truncation_takes_whole_segments_off() {
        let mut f = segmented();
        f.truncate(50);
        assert_eq!(f.len(), 9);
        f.truncate(4);
        assert_eq!((f.to_vec(), f.segments()), (vec![0, 1, 2, 3], 2));
        f.truncate(2);
        assert_eq!((f.to_vec(), f.segments()), (vec![0, 1], 1));
    }

    #[test]
    fn memory_can_run_out() {
        let mut io = MemIo {
            allocs_left: Some(1),
            segment_size: 2,
            ..MemIo::new()
        };
        let frame = io.alloc(&[1, 2, 3]).unwrap();
        assert_eq!(frame.segments(), 2);
        assert!(io.alloc(&[1]).is_none());
        io.transmit(PortId(3), frame);
        assert_eq!(io.take_sent(), [(3, vec![1, 2, 3])]);
        assert!(io.sent.is_empty());
    }
}
