//! The two ends of a port's queues, on the packet path: bursts of mbufs in and out.
//!
//! A queue handle belongs to one thread at a time: it is `Send`, not `Clone`, not `Sync`, and its bursts take `&mut`. That
//! is all the locking DPDK's burst functions need.
//!
//! ```compile_fail,E0382
//! fn use_after_transmit(tx: &mut ripvs_nic::TxQueue, mut frames: Vec<ripvs_nic::Mbuf>, mbuf: ripvs_nic::Mbuf) {
//!     frames.push(mbuf);
//!     tx.burst(&mut frames);
//!     drop(mbuf);
//! }
//! ```
//! ```compile_fail,E0277
//! fn two_threads_poll_one_queue(rx: &ripvs_nic::RxQueue) {
//!     std::thread::scope(|scope| {
//!         scope.spawn(|| rx.queue());
//!         scope.spawn(|| rx.queue());
//!     });
//! }
//! ```
//! ```compile_fail,E0599
//! fn two_owners(rx: ripvs_nic::RxQueue) -> (ripvs_nic::RxQueue, ripvs_nic::RxQueue) {
//!     (rx.clone(), rx)
//! }
//! ```
//! One owner may move it to another thread:
//! ```
//! fn handed_over(mut rx: ripvs_nic::RxQueue) {
//!     std::thread::spawn(move || rx.burst(&mut Vec::with_capacity(32)));
//! }
//! ```
#![allow(unsafe_code)]

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use dpdk_sys::rte_mbuf;
use ripvs_packet::Frame;

use crate::handle::Handle;
use crate::mbuf::Mbuf;
use crate::mempool::Mempool;
use crate::plan::PortPlan;

/// Times in a row that a device may take nothing before the rest of a burst is given up.
const STALLS: u32 = 3;

/// A receive queue.
#[derive(Debug)]
pub struct RxQueue {
    port: u16,
    queue: u16,
    /// Keeps the device running.
    handle: Arc<Handle>,
    not_shared: PhantomData<Cell<()>>,
}

impl RxQueue {
    pub(crate) fn new(handle: Arc<Handle>, queue: u16) -> Self {
        Self {
            port: handle.id,
            queue,
            handle,
            not_shared: PhantomData,
        }
    }

    /// Its number within the port.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// DPDK's name of the port it belongs to.
    pub fn port_name(&self) -> &str {
        &self.handle.name
    }

    /// Adds the frames that wait, as far as `frames` has capacity for them without growing; returns how many. Never waits.
    ///
    /// Leave room for 32 or more: some drivers give frames in fours or eights only, and each call costs some 5 ns.
    #[inline]
    pub fn burst(&mut self, frames: &mut Vec<Mbuf>) -> usize {
        let room = frames.spare_capacity_mut();
        let limit = u16::try_from(room.len()).unwrap_or(u16::MAX);
        // SAFETY: the queue exists and its port is started as long as `handle` lives, and `&mut self` of the only handle
        // keeps others off it. The array has place for `limit` pointers, and Mbuf has the layout of one.
        let got = unsafe {
            dpdk_sys::shim_rx_burst(
                self.port,
                self.queue,
                room.as_mut_ptr().cast::<*mut rte_mbuf>(),
                limit,
            )
        };
        let got = usize::from(got);
        // SAFETY: the driver wrote `got` mbufs, at most `limit`, behind the present ones and gave up their ownership.
        unsafe { frames.set_len(frames.len() + got) };
        got
    }
}

/// What became of the frames given to a transmit queue. Their sum is all that were given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxCounters {
    /// Taken by the device.
    pub sent: u64,
    /// Freed because the device's queue was full.
    pub full: u64,
    /// Freed because they can't be sent: too long, refused by the driver, or not to be copied into one buffer.
    pub unsendable: u64,
}

/// A transmit queue.
#[derive(Debug)]
pub struct TxQueue {
    port: u16,
    queue: u16,
    longest: u32,
    /// Whether the driver must not see a longer frame. Costs some 2 ns a frame, so only where it must.
    guard_length: bool,
    /// The driver looks at each frame before it is sent, since offloads are on.
    prepare: bool,
    /// Where the driver sends frames of one segment only: the pool to copy others into.
    one_segment: Option<Mempool>,
    counters: TxCounters,
    /// Keeps the device running.
    handle: Arc<Handle>,
    not_shared: PhantomData<Cell<()>>,
}

impl TxQueue {
    pub(crate) fn new(handle: Arc<Handle>, queue: u16, plan: &PortPlan, pool: Mempool) -> Self {
        Self {
            port: handle.id,
            queue,
            longest: plan.longest_frame(),
            guard_length: plan.guard_length || !plan.multi_segments,
            prepare: plan.ipv4_checksum,
            one_segment: (!plan.multi_segments).then_some(pool),
            counters: TxCounters::default(),
            handle,
            not_shared: PhantomData,
        }
    }

    /// Its number within the port.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// DPDK's name of the port it belongs to.
    pub fn port_name(&self) -> &str {
        &self.handle.name
    }

    /// What became of all frames so far.
    pub fn counters(&self) -> TxCounters {
        self.counters
    }

    /// Sends all frames and leaves `frames` empty. Those that the device has no room for, after a few tries, are freed and
    /// counted, and so are those that can't be sent. Returns how many were sent. Never waits, but that net_af_packet may
    /// until the kernel has room. Frames within the port's MTU (Ethernet header and two VLAN tags on top) are the caller's
    /// duty; only where the driver needs it, longer ones are looked for and dropped.
    #[inline]
    pub fn burst(&mut self, frames: &mut Vec<Mbuf>) -> usize {
        if frames.is_empty() {
            return 0;
        }
        if self.guard_length
            && frames
                .iter()
                .any(|frame| frame.len() > self.longest as usize)
        {
            self.drop_too_long(frames);
        }
        if let Some(pool) = &self.one_segment {
            self.counters.unsendable += join_segments(frames, pool);
        }
        if self.prepare {
            self.drop_refused(frames);
        }
        let count = frames.len();
        let first = frames.as_mut_ptr().cast::<*mut rte_mbuf>();
        // SAFETY: 0 is within the capacity; the mbufs are owned by this function from here on, through `first`, which
        // stays valid since `frames` isn't touched.
        unsafe { frames.set_len(0) };
        // SAFETY: `first` leads to `count` mbufs that nobody else owns.
        let mut done = unsafe { self.send(first, count) };
        self.counters.sent += done as u64;
        if done < count {
            // SAFETY: as above; the first `done` of them are the driver's now, the others still ours.
            done = unsafe { self.send_rest(first, done, count) };
        }
        done
    }

    /// One call of the driver. Returns how many it took, from the front.
    ///
    /// # Safety
    /// `first` leads to `count` owned mbufs; those taken aren't the caller's any more.
    #[inline]
    unsafe fn send(&mut self, first: *mut *mut rte_mbuf, count: usize) -> usize {
        let limit = u16::try_from(count).unwrap_or(u16::MAX);
        // SAFETY: the queue exists and its port is started as long as `handle` lives, and `&mut self` of the only handle
        // keeps others off it; the array is the caller's promise.
        usize::from(unsafe { dpdk_sys::shim_tx_burst(self.port, self.queue, first, limit) })
    }

    /// Tries the rest again, a few times, and frees what is left. Returns how many were sent in all.
    ///
    /// # Safety
    /// `first` leads to `count` mbufs, of which those from `done` on are owned.
    #[cold]
    unsafe fn send_rest(
        &mut self,
        first: *mut *mut rte_mbuf,
        mut done: usize,
        count: usize,
    ) -> usize {
        let mut stalls = 0;
        while done < count && stalls < STALLS {
            // SAFETY: `done` is less than `count`, and those from there on are owned.
            let taken = unsafe { self.send(first.add(done), count - done) };
            self.counters.sent += taken as u64;
            done += taken;
            stalls = if taken == 0 { stalls + 1 } else { 0 };
        }
        let rest = count - done;
        self.counters.full += rest as u64;
        // SAFETY: those from `done` on are owned, and not used after this; a Vec of 2^32 would be needed for a longer rest.
        unsafe { dpdk_sys::rte_pktmbuf_free_bulk(first.add(done), rest as u32) };
        done
    }

    #[cold]
    fn drop_too_long(&mut self, frames: &mut Vec<Mbuf>) {
        let before = frames.len();
        frames.retain(|frame| frame.len() <= self.longest as usize);
        self.counters.unsendable += (before - frames.len()) as u64;
    }

    /// Has the driver prepare the frames, and drops those that it refuses.
    fn drop_refused(&mut self, frames: &mut Vec<Mbuf>) {
        let mut ready = 0;
        while ready < frames.len() {
            let limit = u16::try_from(frames.len() - ready).unwrap_or(u16::MAX);
            let rest = frames[ready..].as_mut_ptr().cast::<*mut rte_mbuf>();
            // SAFETY: as in `send`; the driver may change the frames but keeps none.
            let good = usize::from(unsafe {
                dpdk_sys::shim_tx_prepare(self.port, self.queue, rest, limit)
            });
            ready += good;
            if good < usize::from(limit) {
                frames.remove(ready);
                self.counters.unsendable += 1;
            }
        }
    }
}

/// Copies each frame of several segments into one, or drops it where that fails; returns how many were dropped.
fn join_segments(frames: &mut Vec<Mbuf>, pool: &Mempool) -> u64 {
    let before = frames.len();
    frames.retain_mut(|frame| {
        if frame.segments() == 1 {
            return true;
        }
        match frame.to_one_segment(pool) {
            Some(copy) => {
                *frame = copy;
                true
            }
            None => false,
        }
    });
    (before - frames.len()) as u64
}

/// Frees many frames at once, which costs less than one by one.
#[inline]
pub fn free_burst(frames: &mut Vec<Mbuf>) {
    let count = u32::try_from(frames.len()).unwrap_or(u32::MAX);
    let first = frames.as_mut_ptr().cast::<*mut rte_mbuf>();
    // SAFETY: 0 is within the capacity; the mbufs are freed below and not used after. (A burst of more than 2^32 would
    // leak the excess; there is no memory for that many.)
    unsafe {
        frames.set_len(0);
        dpdk_sys::rte_pktmbuf_free_bulk(first, count);
    }
}
