//! What a worker's packet path does with the world: memory for frames, ports to send on, rings to the other workers. Frames
//! to a port gather until the end of the round and leave in one burst. A port with fewer transmit queues than there are
//! workers is served by those that have one; the others hand their finished frames to them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use ripvs_core::message::Msg;
use ripvs_core::{Post, WorkerId};
use ripvs_nic::{free_burst, Mbuf, Mempool, TxQueue};
use ripvs_packet::{Frame, PacketIo, PortId};

use crate::board::PortCount;
use crate::control::fleet::Mailbox;

/// Messages that a ring between two workers holds, and frames in them.
pub const RING: usize = 1024;
/// Frames for one port that may gather before they are sent at once.
const GATHER: usize = 256;

/// A ring from one worker to another. It holds no more frames than messages: the pool has that many to spare.
pub struct Ring<F = Mbuf> {
    messages: ArrayQueue<Msg<F>>,
    /// What all messages weighed that were put in, and what those taken out weighed when who puts in last looked: the
    /// putting worker's alone.
    put: CachePadded<(AtomicUsize, AtomicUsize)>,
    /// What all messages weighed that were taken out, written by the taking worker alone.
    taken: CachePadded<AtomicUsize>,
}

impl<F> Ring<F> {
    /// An empty one.
    pub fn new() -> Ring<F> {
        Ring {
            messages: ArrayQueue::new(RING),
            put: CachePadded::default(),
            taken: CachePadded::default(),
        }
    }

    /// Puts a message in. One worker alone does that.
    ///
    /// # Errors
    /// The message, where there is no room for it.
    #[allow(clippy::result_large_err)] // It is given back as it came.
    pub fn push(&self, msg: Msg<F>) -> Result<(), Msg<F>> {
        let (put, seen) = &*self.put;
        let before = put.load(Ordering::Relaxed);
        let after = before.wrapping_add(weight(&msg));
        if after.wrapping_sub(seen.load(Ordering::Relaxed)) > RING {
            // The other worker's line is read only where there might be no room.
            seen.store(self.taken.load(Ordering::Relaxed), Ordering::Relaxed);
            if after.wrapping_sub(seen.load(Ordering::Relaxed)) > RING {
                return Err(msg);
            }
        }
        self.messages.push(msg)?;
        put.store(after, Ordering::Relaxed);
        Ok(())
    }

    /// Takes the next message out. One worker alone does that.
    pub fn pop(&self) -> Option<Msg<F>> {
        let msg = self.messages.pop()?;
        let taken = self.taken.load(Ordering::Relaxed);
        self.taken
            .store(taken.wrapping_add(weight(&msg)), Ordering::Relaxed);
        Some(msg)
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

/// What a message weighs in a ring, and as a piece of work: as many as its frames, one at least.
pub fn weight<F>(msg: &Msg<F>) -> usize {
    match msg {
        Msg::Burst { frames, .. } => frames.len().max(1),
        _ => 1,
    }
}

/// Asks for the frames of a burst, which are in another core's cache: all at once, not one after the other as they are read.
pub fn prefetch(msg: &Msg<Mbuf>) {
    if let Msg::Burst { frames, .. } = msg {
        for frame in frames {
            frame.prefetch_all();
        }
    }
}

/// A way to another worker.
pub struct Peer {
    /// The ring that leads there.
    pub ring: Arc<Ring>,
    /// For waking it.
    pub mailbox: Arc<Mailbox>,
    /// Whether something was put into the ring in this round.
    pub posted: bool,
}

/// How a worker sends on a port.
pub enum Sender {
    /// By a queue of its own.
    Queue(TxQueue),
    /// By way of this worker.
    Via(WorkerId),
}

/// A port as a worker sees it.
pub struct PortOut {
    /// How it sends there.
    pub sender: Sender,
    gathered: Vec<Mbuf>,
    /// Its VLAN interfaces, by the ids of their tags, and where each is counted.
    vlans: Vec<(u16, usize)>,
}

impl PortOut {
    /// Nothing gathered yet.
    pub fn new(sender: Sender, vlans: Vec<(u16, usize)>) -> PortOut {
        PortOut {
            sender,
            gathered: Vec::with_capacity(GATHER),
            vlans,
        }
    }
}

/// Where a frame of a port with VLANs is counted besides the port.
fn vlan_of(vlans: &[(u16, usize)], frame: &Mbuf) -> Option<usize> {
    const TAGGED: [u8; 2] = [0x81, 0x00];
    let head = frame.head();
    if head.get(12..14)? != TAGGED {
        return None;
    }
    let tag = u16::from_be_bytes([*head.get(14)?, *head.get(15)?]);
    let is_it = |(id, _): &&(u16, usize)| *id == tag & 0xfff;
    vlans.iter().find(is_it).map(|(_, index)| *index)
}

/// All of it.
pub struct WorkerIo {
    /// Where frames of our own making come from.
    pub pool: Mempool,
    /// By port.
    pub ports: Vec<PortOut>,
    /// By worker; none for the worker itself.
    pub peers: Vec<Option<Peer>>,
    /// What came and went, by port, and behind the ports by VLAN.
    pub counts: Vec<PortCount>,
    /// Packets handed to other workers.
    pub handed_over: u64,
    /// Packets for which a ring had no room.
    pub ring_full: u64,
}

impl WorkerIo {
    /// Sends what has gathered, and wakes those who got something. True where there was anything.
    pub fn flush(&mut self) -> bool {
        let mut any = false;
        for port in 0..self.ports.len() {
            if !self.ports[port].gathered.is_empty() {
                any = true;
                self.send(port);
            }
        }
        for peer in self.peers.iter_mut().flatten().filter(|peer| peer.posted) {
            peer.posted = false;
            any = true;
            peer.mailbox.rouse();
        }
        any
    }

    /// Counts what was received by a port.
    pub fn count_received(&mut self, port: PortId, frames: &[Mbuf]) {
        let port = usize::from(port.0);
        let count = &mut self.counts[port];
        count.rx_packets += frames.len() as u64;
        count.rx_bytes += frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
        let vlans = &self.ports[port].vlans;
        if vlans.is_empty() {
            return;
        }
        for frame in frames {
            if let Some(index) = vlan_of(vlans, frame) {
                self.counts[index].rx_packets += 1;
                self.counts[index].rx_bytes += frame.len() as u64;
            }
        }
    }

    /// Sends what has gathered for a port.
    fn send(&mut self, port: usize) {
        let out = &mut self.ports[port];
        if !out.vlans.is_empty() && matches!(out.sender, Sender::Queue(_)) {
            for frame in &out.gathered {
                if let Some(index) = vlan_of(&out.vlans, frame) {
                    self.counts[index].tx_packets += 1;
                    self.counts[index].tx_bytes += frame.len() as u64;
                }
            }
        }
        let count = &mut self.counts[port];
        match &mut out.sender {
            Sender::Queue(queue) => {
                let offered = out.gathered.len() as u64;
                let bytes: u64 = out.gathered.iter().map(|frame| frame.len() as u64).sum();
                let sent = queue.burst(&mut out.gathered) as u64;
                count.tx_packets += sent;
                count.tx_dropped += offered - sent;
                // What is not sent is the exception; its bytes are told by the average.
                count.tx_bytes += if sent == offered {
                    bytes
                } else {
                    bytes * sent / offered
                };
            }
            Sender::Via(worker) => {
                let to = usize::from(worker.0);
                let mut frames = std::mem::take(&mut out.gathered);
                let peer = self.peers.get_mut(to).and_then(Option::as_mut);
                if let Some(peer) = peer {
                    for frame in frames.drain(..) {
                        let port = PortId(port as u16);
                        peer.posted = true;
                        if peer.ring.push(Msg::Transmit { port, frame }).is_err() {
                            count.tx_dropped += 1;
                        }
                    }
                }
                free_burst(&mut frames);
                self.ports[port].gathered = frames;
            }
        }
    }
}

impl PacketIo for WorkerIo {
    type Frame = Mbuf;

    fn alloc(&mut self, bytes: &[u8]) -> Option<Mbuf> {
        self.pool.alloc(bytes)
    }

    #[inline(always)]
    fn transmit(&mut self, port: PortId, frame: Mbuf) {
        let port = usize::from(port.0);
        let Some(out) = self.ports.get_mut(port) else {
            return;
        };
        out.gathered.push(frame);
        if out.gathered.len() == GATHER {
            self.send(port);
        }
    }
}

impl Post<Mbuf> for WorkerIo {
    fn post(&mut self, to: WorkerId, msg: Msg<Mbuf>) -> Result<(), Msg<Mbuf>> {
        let packets = match &msg {
            Msg::Packet(_) => 1,
            Msg::Burst { frames, .. } => frames.len() as u64,
            _ => 0,
        };
        let Some(peer) = self
            .peers
            .get_mut(usize::from(to.0))
            .and_then(Option::as_mut)
        else {
            return Err(msg);
        };
        let pushed = peer.ring.push(msg);
        peer.posted = true;
        match pushed {
            Ok(()) => {
                self.handed_over += packets;
                Ok(())
            }
            Err(msg) => {
                self.ring_full += packets;
                Err(msg)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burst(frames: usize) -> Msg<u8> {
        Msg::Burst {
            port: PortId(0),
            frames: (0..frames).map(|_| 0).collect(),
        }
    }

    #[test]
    fn a_ring_holds_no_more_frames_than_the_pool_has_for_it() {
        let ring = Ring::new();
        let taken = (0..RING).take_while(|_| ring.push(burst(32)).is_ok());
        assert_eq!(taken.count(), RING / 32);
        assert!(ring.push(burst(1)).is_err());
        assert!(ring.pop().is_some());
        assert!(ring.push(burst(31)).is_ok() && ring.push(burst(1)).is_ok());
        assert!(ring.push(burst(1)).is_err());
        while ring.pop().is_some() {}
        assert!(ring.is_empty() && ring.push(burst(32)).is_ok());
    }

    #[test]
    fn a_ring_s_room_comes_back_however_often_it_was_full() {
        let ring = Ring::new();
        for _ in 0..10 {
            let put = (0..2 * RING).take_while(|_| ring.push(burst(3)).is_ok());
            assert_eq!(put.count(), RING / 3);
            let taken = (0..).take_while(|_| ring.pop().is_some());
            assert_eq!(taken.count(), RING / 3);
        }
    }
}
