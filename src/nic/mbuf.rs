//! One packet buffer, or a chain of them: the frame of the DPDK device layer. Allocation is `mempool`'s.
//!
//! Sound because an [`Mbuf`] is the only owner of its chain: it comes from a pool or a receive queue, which have given it
//! up, is not `Clone`, and goes back by dropping or into a transmit queue, which takes it by value. Its fields are read in
//! place, at offsets that dpdk-sys takes from the installed headers; no C function is called but to free.
//!
//! ```compile_fail,E0599
//! fn two_owners(mbuf: ripvs_nic::Mbuf) -> (ripvs_nic::Mbuf, ripvs_nic::Mbuf) {
//!     (mbuf.clone(), mbuf)
//! }
//! ```
#![allow(unsafe_code)]

use std::fmt;
use std::ptr::NonNull;

use dpdk_sys::rte_mbuf;
use ripvs_packet::Frame;

use crate::mempool::{Mempool, HEADROOM};
use crate::segment::Segment;

/// One frame in DPDK's memory, in one segment or several; dropping it gives them back to their pool.
///
/// The same size as a pointer. A `Vec<Mbuf>` is what [`crate::RxQueue::burst`] fills and [`crate::TxQueue::burst`]
/// empties.
#[repr(transparent)]
pub struct Mbuf(Segment);

// SAFETY: an mbuf belongs to whoever holds it, not to a thread, and its pool may be given it back by any.
unsafe impl Send for Mbuf {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for Mbuf {}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf")
            .field("len", &self.len())
            .field("segments", &self.segments())
            .finish_non_exhaustive()
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        self.0.free_chain();
    }
}

impl Mbuf {
    /// # Safety
    /// `raw` is the first of a well-formed chain of mbufs that nobody else refers to.
    #[inline]
    pub(crate) unsafe fn from_raw(raw: NonNull<rte_mbuf>) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { Segment::new(raw) })
    }

    /// How many segments it has, at least one.
    #[inline]
    pub fn segments(&self) -> u16 {
        self.0.nb_segs()
    }

    /// Bytes free before the frame, for [`Frame::prepend`].
    #[inline]
    pub fn headroom(&self) -> u16 {
        self.0.data_off()
    }

    /// The hash that the NIC computed of the headers, where it did.
    #[inline]
    pub fn rss_hash(&self) -> Option<u32> {
        (self.0.ol_flags() & dpdk_sys::SHIM_RX_RSS_HASH != 0).then(|| self.0.rss_hash())
    }

    /// Asks the NIC to fill in the IPv4 header's checksum on transmit; the field must be 0. Only for a port whose plan
    /// says `ipv4_checksum`. `l2` is the length of all before the IP header (at most 127), `l3` that of the IP header.
    ///
    /// There is nothing of the kind for TCP and UDP: IPVS updates their checksums, so that a wrong one stays wrong.
    #[inline]
    pub fn offload_ipv4_checksum(&mut self, l2: u8, l3: u8) {
        let lengths = u64::from(l2 & 0x7f) | u64::from(l3) << dpdk_sys::SHIM_L2_LEN_BITS;
        self.0.set_tx_offload(lengths);
        self.0
            .set_ol_flags(self.0.ol_flags() | dpdk_sys::SHIM_TX_IPV4 | dpdk_sys::SHIM_TX_IP_CKSUM);
    }

    /// Fetches the mbuf's own fields into the cache, which `prefetch_data` needs at once.
    #[inline]
    pub fn prefetch(&self) {
        self.0.prefetch_header();
    }

    /// Fetches what is needed of a frame that another core had last into the cache: its own fields, and where nothing was
    /// put before or taken from its front the first bytes, all at once.
    #[inline]
    pub fn prefetch_all(&self) {
        self.0.prefetch_all();
    }

    /// Fetches the first bytes of the frame into the cache.
    #[inline]
    pub fn prefetch_data(&self) {
        self.0.prefetch_data();
    }

    /// Adds bytes at the end, in segments of `pool` where the last one is full. False, with an undefined part of them
    /// added, where the pool has no more.
    #[must_use]
    pub fn append(&mut self, mut bytes: &[u8], pool: &Mempool) -> bool {
        let mut last = self.0.last();
        loop {
            let room = usize::from(last.tailroom());
            let (now, later) = bytes.split_at(bytes.len().min(room));
            last.append(now);
            self.0.set_pkt_len(self.0.pkt_len() + now.len() as u32); // `now` fits a u16.
            if later.is_empty() {
                return true;
            }
            bytes = later;
            let Some(next) = pool.alloc_empty().filter(|_| self.segments() < u16::MAX) else {
                return false;
            };
            let next = next.into_segment();
            // A later segment needs no headroom, but keeping it costs little and a fragment may start there.
            last.set_next(Some(next));
            self.0.set_nb_segs(self.segments() + 1);
            last = next;
        }
    }

    /// Joins another frame's bytes to the end of this one without copying. Gives it back, with this one unchanged, where
    /// there would be more than 65,535 segments or 4 GiB.
    ///
    /// # Errors
    /// The frame that was not joined.
    pub fn chain(&mut self, other: Self) -> Result<(), Self> {
        let segments = self.segments().checked_add(other.segments());
        let len = self.0.pkt_len().checked_add(other.0.pkt_len());
        let (Some(segments), Some(len)) = (segments, len) else {
            return Err(other);
        };
        self.0.last().set_next(Some(other.into_segment()));
        self.0.set_nb_segs(segments);
        self.0.set_pkt_len(len);
        Ok(())
    }

    /// The same bytes in one segment of `pool`; `None` where it has none left or its buffers are too small.
    pub fn to_one_segment(&self, pool: &Mempool) -> Option<Self> {
        let copy = pool.alloc_empty()?;
        let room = usize::from(copy.0.tailroom());
        if self.len() > room {
            return None;
        }
        for segment in self.0.chain() {
            copy.0.append(segment.data());
        }
        copy.0.set_pkt_len(self.0.pkt_len());
        copy.0.copy_offload(self.0);
        Some(copy)
    }

    /// Gives up ownership: the chain is the caller's to free.
    fn into_segment(self) -> Segment {
        let segment = self.0;
        std::mem::forget(self);
        segment
    }

    /// Moves bytes of later segments into the first, until it has `want`. Segments emptied by it are freed.
    #[cold]
    fn pull_slow(&mut self, want: usize) -> bool {
        let want = want.min(self.len());
        let missing = want.saturating_sub(usize::from(self.0.data_len()));
        if missing > usize::from(self.0.tailroom()) {
            return false;
        }
        self.take_from_next(missing);
        true
    }

    /// Moves `missing` bytes of later segments to the end of the first, which has room for them.
    fn take_from_next(&mut self, mut missing: usize) {
        while let Some(next) = self.0.next() {
            let take = missing.min(usize::from(next.data_len()));
            self.0.append(&next.data()[..take]);
            next.advance(take as u16); // At most its data_len, a u16.
            missing -= take;
            if next.data_len() > 0 {
                break;
            }
            self.0.set_next(next.next());
            self.0.set_nb_segs(self.segments() - 1);
            next.set_next(None);
            next.free_chain();
        }
    }

    /// Cuts a chain after `len` bytes, fewer than it has.
    fn truncate_chain(&mut self, len: u32) {
        let mut rest = len;
        let mut kept = 0;
        let mut last = self.0;
        for segment in self.0.chain() {
            let take = rest.min(u32::from(segment.data_len()));
            segment.set_data_len(take as u16); // At most its data_len, a u16.
            rest -= take;
            kept += 1;
            last = segment;
            if rest == 0 {
                break;
            }
        }
        if let Some(tail) = last.next() {
            last.set_next(None);
            tail.set_nb_segs(self.segments() - kept);
            tail.free_chain();
        }
        self.0.set_nb_segs(kept);
        self.0.set_pkt_len(len);
    }

    /// The pieces of the chain from `offset` on, up to `len` bytes in all.
    fn pieces(
        &self,
        offset: usize,
        len: usize,
    ) -> impl Iterator<Item = (Segment, usize, usize)> + '_ {
        let (mut skip, mut left) = (offset, len);
        self.0.chain().map_while(move |segment| {
            let have = usize::from(segment.data_len());
            let start = skip.min(have);
            let take = (have - start).min(left);
            skip -= start;
            left -= take;
            (take > 0 || left > 0).then_some((segment, start, take))
        })
    }
}

impl Frame for Mbuf {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.pkt_len() as usize
    }

    #[inline(always)]
    fn head(&self) -> &[u8] {
        self.0.data()
    }

    #[inline(always)]
    fn head_mut(&mut self) -> &mut [u8] {
        self.0.data_mut()
    }

    #[inline(always)]
    fn pull(&mut self, n: usize) -> bool {
        usize::from(self.0.data_len()) >= n || self.pull_slow(n)
    }

    #[inline(always)]
    fn prepend(&mut self, n: usize) -> bool {
        let headroom = self.0.data_off();
        if n > usize::from(headroom) {
            return false;
        }
        let n = n as u16; // At most the headroom, a u16; data_len stays within the buffer's length, also a u16.
        self.0.set_data_off(headroom - n);
        self.0.set_data_len(self.0.data_len() + n);
        self.0.set_pkt_len(self.0.pkt_len() + u32::from(n));
        true
    }

    #[inline(always)]
    fn trim_front(&mut self, n: usize) -> bool {
        if n > usize::from(self.0.data_len()) {
            return false;
        }
        let n = n as u16; // At most data_len.
        self.0.advance(n);
        self.0.set_pkt_len(self.0.pkt_len() - u32::from(n));
        // A NIC may hang on an empty segment.
        if self.0.data_len() == 0 && self.segments() > 1 {
            self.0.set_data_off(HEADROOM.min(self.0.buf_len()));
            self.take_from_next(usize::from(self.0.tailroom()).min(64));
        }
        true
    }

    #[inline(always)]
    fn truncate(&mut self, len: usize) {
        let Ok(len) = u32::try_from(len) else { return };
        if len >= self.0.pkt_len() {
            return;
        }
        if self.segments() == 1 {
            self.0.set_data_len(len as u16); // Less than data_len.
            self.0.set_pkt_len(len);
        } else {
            self.truncate_chain(len);
        }
    }

    fn copy_to(&self, offset: usize, to: &mut [u8]) -> usize {
        let mut done = 0;
        for (segment, start, take) in self.pieces(offset, to.len()) {
            to[done..done + take].copy_from_slice(&segment.data()[start..start + take]);
            done += take;
        }
        done
    }

    fn write_at(&mut self, offset: usize, from: &[u8]) -> usize {
        let mut done = 0;
        for (mut segment, start, take) in self.pieces(offset, from.len()) {
            segment.data_mut()[start..start + take].copy_from_slice(&from[done..done + take]);
            done += take;
        }
        done
    }
}
