//! Frames in ordinary memory that are used again and again, and the device that takes them: what a worker is measured with
//! where there is no DPDK. A frame is laid out as an mbuf is: its own fields in one cache line, its bytes in others.

use std::collections::VecDeque;

use ripvs_core::message::Msg;
use ripvs_core::{Post, WorkerId};
use ripvs_packet::{Frame, PacketIo, PortId};

const HEADROOM: usize = 128;
const ROOM: usize = 384;

#[repr(align(64))]
struct Header {
    start: usize,
    len: usize,
}

#[repr(align(64))]
struct Bytes([u8; ROOM]);

struct Buffer {
    header: Header,
    bytes: Bytes,
}

/// A frame in one segment. As big as a pointer, like DPDK's.
pub struct PoolFrame(Box<Buffer>);

impl PoolFrame {
    fn new() -> PoolFrame {
        PoolFrame(Box::new(Buffer {
            header: Header {
                start: HEADROOM,
                len: 0,
            },
            bytes: Bytes([0; ROOM]),
        }))
    }

    /// Fills it with a frame's bytes, as net_pcap does with what it read beforehand.
    #[inline]
    pub fn fill(&mut self, bytes: &[u8]) {
        self.0.header.start = HEADROOM;
        self.0.header.len = bytes.len();
        self.0.bytes.0[HEADROOM..HEADROOM + bytes.len()].copy_from_slice(bytes);
    }
}

impl Frame for PoolFrame {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.header.len
    }

    #[inline(always)]
    fn head(&self) -> &[u8] {
        let Header { start, len } = self.0.header;
        &self.0.bytes.0[start..start + len]
    }

    #[inline(always)]
    fn head_mut(&mut self) -> &mut [u8] {
        let Header { start, len } = self.0.header;
        &mut self.0.bytes.0[start..start + len]
    }

    #[inline(always)]
    fn pull(&mut self, _: usize) -> bool {
        true
    }

    #[inline(always)]
    fn prepend(&mut self, n: usize) -> bool {
        if n > self.0.header.start {
            return false;
        }
        self.0.header.start -= n;
        self.0.header.len += n;
        true
    }

    #[inline(always)]
    fn trim_front(&mut self, n: usize) -> bool {
        if n > self.0.header.len {
            return false;
        }
        self.0.header.start += n;
        self.0.header.len -= n;
        true
    }

    #[inline(always)]
    fn truncate(&mut self, len: usize) {
        self.0.header.len = self.0.header.len.min(len);
    }

    fn copy_to(&self, offset: usize, to: &mut [u8]) -> usize {
        let from = self.head().get(offset..).unwrap_or_default();
        let n = from.len().min(to.len());
        to[..n].copy_from_slice(&from[..n]);
        n
    }

    fn write_at(&mut self, offset: usize, from: &[u8]) -> usize {
        let to = self.head_mut().get_mut(offset..).unwrap_or_default();
        let n = to.len().min(from.len());
        to[..n].copy_from_slice(&from[..n]);
        n
    }
}

/// Where frames come from and go to.
pub struct Pool {
    free: Vec<PoolFrame>,
    /// Frames that were sent since it was last looked at.
    pub sent: Vec<PoolFrame>,
    /// What workers have for each other.
    pub posted: VecDeque<(WorkerId, Msg<PoolFrame>)>,
    /// Whether there are several workers.
    several: bool,
}

impl Pool {
    /// A pool of that many frames, for one worker or several.
    pub fn new(frames: usize, several: bool) -> Pool {
        Pool {
            free: (0..frames).map(|_| PoolFrame::new()).collect(),
            sent: Vec::with_capacity(frames),
            posted: VecDeque::with_capacity(frames),
            several,
        }
    }

    /// A frame with these bytes.
    ///
    /// # Panics
    /// Where none is left: frames were lost, and the measurement is void.
    #[inline]
    #[allow(clippy::expect_used)]
    pub fn take(&mut self, bytes: &[u8]) -> PoolFrame {
        let mut frame = self.free.pop().expect("the worker dropped frames");
        frame.fill(bytes);
        frame
    }

    /// Takes back what was sent; returns how many there were.
    #[inline]
    pub fn recycle(&mut self) -> usize {
        let count = self.sent.len();
        self.free.append(&mut self.sent);
        count
    }
}

impl PacketIo for Pool {
    type Frame = PoolFrame;

    fn alloc(&mut self, bytes: &[u8]) -> Option<PoolFrame> {
        let mut frame = self.free.pop()?;
        frame.fill(bytes);
        Some(frame)
    }

    #[inline(always)]
    fn transmit(&mut self, _: PortId, frame: PoolFrame) {
        self.sent.push(frame);
    }
}

impl Post<PoolFrame> for Pool {
    fn post(&mut self, to: WorkerId, msg: Msg<PoolFrame>) -> Result<(), Msg<PoolFrame>> {
        if !self.several {
            return Err(msg);
        }
        self.posted.push_back((to, msg));
        Ok(())
    }
}
