//! One segment of an mbuf chain: its fields, read and written in place. Private to the crate; `mbuf` decides who owns
//! what.
//!
//! A [`Segment`] exists only for a live mbuf that some [`crate::Mbuf`] owns (made by the one unsafe constructor), which is
//! what makes its methods sound to call; `mbuf` keeps none past the owner.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use dpdk_sys::rte_mbuf;

use crate::mempool::HEADROOM;

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Segment(NonNull<rte_mbuf>);

macro_rules! fields {
    ($($get:ident $set:ident $type:ty = $offset:ident;)*) => {$(
        #[inline(always)]
        pub(crate) fn $get(self) -> $type {
            // SAFETY: the mbuf is alive, and a field of this type lies at this offset (shim.c asserts the widths).
            unsafe { self.0.as_ptr().byte_add(dpdk_sys::$offset).cast::<$type>().read() }
        }

        #[inline(always)]
        #[allow(dead_code)] // Not every field is written.
        pub(crate) fn $set(self, value: $type) {
            // SAFETY: as above, and the mbuf has one owner.
            unsafe { self.0.as_ptr().byte_add(dpdk_sys::$offset).cast::<$type>().write(value) }
        }
    )*};
}

impl Segment {
    /// # Safety
    /// The mbuf is alive, belongs to the caller, and its chain is well-formed: lengths and offsets within the buffers, each
    /// segment once, the last one's `next` null.
    #[inline(always)]
    pub(crate) unsafe fn new(raw: NonNull<rte_mbuf>) -> Self {
        Self(raw)
    }

    fields! {
        buf_addr set_buf_addr *mut u8 = SHIM_MBUF_BUF_ADDR;
        data_off set_data_off u16 = SHIM_MBUF_DATA_OFF;
        nb_segs set_nb_segs u16 = SHIM_MBUF_NB_SEGS;
        ol_flags set_ol_flags u64 = SHIM_MBUF_OL_FLAGS;
        pkt_len set_pkt_len u32 = SHIM_MBUF_PKT_LEN;
        data_len set_data_len u16 = SHIM_MBUF_DATA_LEN;
        rss_hash set_rss_hash u32 = SHIM_MBUF_RSS_HASH;
        buf_len set_buf_len u16 = SHIM_MBUF_BUF_LEN;
        tx_offload set_tx_offload u64 = SHIM_MBUF_TX_OFFLOAD;
        next_raw set_next_raw *mut rte_mbuf = SHIM_MBUF_NEXT;
    }

    #[inline]
    pub(crate) fn next(self) -> Option<Self> {
        NonNull::new(self.next_raw()).map(Self)
    }

    #[inline]
    pub(crate) fn set_next(self, next: Option<Self>) {
        self.set_next_raw(next.map_or(std::ptr::null_mut(), |next| next.0.as_ptr()));
    }

    /// This segment and those after it.
    pub(crate) fn chain(self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self), |segment| segment.next())
    }

    pub(crate) fn last(self) -> Self {
        self.chain().last().unwrap_or(self)
    }

    #[inline]
    pub(crate) fn tailroom(self) -> u16 {
        // Within the buffer in a well-formed mbuf; saturating costs nothing and a driver's mistake then shows as no room.
        self.buf_len()
            .saturating_sub(self.data_off())
            .saturating_sub(self.data_len())
    }

    /// The segment's bytes. The caller holds the owner borrowed for `'a`.
    #[inline(always)]
    pub(crate) fn data<'a>(self) -> &'a [u8] {
        // SAFETY: data_off and data_len lie within the buffer at buf_addr, which is DPDK's and was initialised by it; the
        // owner is borrowed, so nobody writes.
        unsafe {
            let start = self.buf_addr().add(usize::from(self.data_off()));
            std::slice::from_raw_parts(start, usize::from(self.data_len()))
        }
    }

    /// As [`Segment::data`], with the owner borrowed mutably.
    #[inline(always)]
    pub(crate) fn data_mut<'a>(&mut self) -> &'a mut [u8] {
        // SAFETY: as in `data`, and the owner is borrowed mutably, so nobody else refers to the bytes.
        unsafe {
            let start = self.buf_addr().add(usize::from(self.data_off()));
            std::slice::from_raw_parts_mut(start, usize::from(self.data_len()))
        }
    }

    /// Copies bytes behind the data; at most the tailroom of them.
    pub(crate) fn append(mut self, bytes: &[u8]) {
        let old = self.data_len();
        let take = bytes.len().min(usize::from(self.tailroom()));
        self.set_data_len(old + take as u16); // Within the buffer, whose length is a u16.
        self.data_mut()[usize::from(old)..].copy_from_slice(&bytes[..take]);
    }

    /// Drops `n` bytes, at most all, at the front of this segment; pkt_len is the caller's.
    #[inline]
    pub(crate) fn advance(self, n: u16) {
        self.set_data_off(self.data_off() + n);
        self.set_data_len(self.data_len() - n);
    }

    /// Takes over what was asked of the NIC for another frame.
    pub(crate) fn copy_offload(self, from: Self) {
        self.set_ol_flags(from.ol_flags());
        self.set_tx_offload(from.tx_offload());
    }

    /// Gives this segment and those after it back to their pools. The caller forgets them.
    #[inline]
    pub(crate) fn free_chain(self) {
        // SAFETY: the mbufs are alive and the caller, their only owner, uses them no more.
        unsafe { dpdk_sys::shim_mbuf_free(self.0.as_ptr()) };
    }

    #[inline(always)]
    pub(crate) fn prefetch_header(self) {
        prefetch(self.0.as_ptr().cast());
    }

    /// Fetches all of the mbuf's own fields and, since its pool has set it right behind them, most likely the start of the
    /// frame as well, without a look at where that is.
    #[inline(always)]
    pub(crate) fn prefetch_all(self) {
        const LINE: usize = 64;
        let start = self.0.as_ptr().cast::<u8>();
        for at in [0, LINE, dpdk_sys::SHIM_MBUF_SIZE + usize::from(HEADROOM)] {
            // wrapping_add: as below.
            prefetch(start.wrapping_add(at));
        }
    }

    #[inline(always)]
    pub(crate) fn prefetch_data(self) {
        // wrapping_add: the address is only a hint, and needs no check.
        prefetch(self.buf_addr().wrapping_add(usize::from(self.data_off())));
    }
}

#[inline(always)]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect that the program can see, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
