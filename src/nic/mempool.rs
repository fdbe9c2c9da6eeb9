//! Pools of packet buffers. A pool lives as long as DPDK does: its mbufs may be in any queue, ring or thread, and they
//! have no room to count who uses their pool.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fmt;
use std::ptr::NonNull;
use std::sync::PoisonError;

use dpdk_sys::{rte_mempool, SHIM_HEADROOM, SHIM_MAX_CACHE};

use crate::eal::{Eal, Live, POOLS};
use crate::error::{Errno, PoolError};
use crate::mbuf::Mbuf;

/// Data that a buffer holds by default, in bytes: any frame of the usual MTU, as most NICs' descriptors want it.
pub const DATA_ROOM: u16 = 2048;

/// Room before the data of a fresh mbuf, in bytes.
pub const HEADROOM: u16 = SHIM_HEADROOM as u16;

/// Most buffers in one pool. A bound of ours: 2^30 of the smallest need more memory than machines have.
const MAX_COUNT: u32 = 1 << 30;

/// A pool of mbufs: a handle, cloned cheaply. Any thread may take from it; a registered one does so from its own cache.
/// The pool itself stays when the last handle goes, since mbufs may be out.
#[derive(Clone)]
pub struct Mempool {
    pool: &'static Inner,
    _live: Live,
}

/// What is known of a pool without keeping DPDK from shutting down.
pub(crate) struct Inner {
    raw: NonNull<rte_mempool>,
    name: String,
    count: u32,
    data_room: u16,
}

// SAFETY: the pool's functions are safe to call from any thread (multi-producer, multi-consumer ring, caches per lcore),
// and the rest of the fields never change.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl fmt::Debug for Mempool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mempool")
            .field("name", &self.pool.name)
            .field("count", &self.pool.count)
            .finish_non_exhaustive()
    }
}

impl Mempool {
    /// Makes a pool of `count` mbufs (most compact where it is 2^n - 1), each with room for `data_room` bytes after a
    /// headroom of 128. Each registered thread caches up to `cache` of them (0 to 512, and at most count / 1.5).
    /// `socket` is the NUMA node whose memory to use, `None` for any.
    ///
    /// A pool must hold the descriptors of all its queues ([`crate::PortPlan::mbufs`]), `cache` for each thread, and
    /// what the program holds at most; one that is smaller starves a queue.
    ///
    /// # Errors
    /// [`PoolError`]; the name is DPDK's and must be new in this process.
    pub fn new(
        _eal: &Eal,
        name: &str,
        count: u32,
        cache: u32,
        data_room: u16,
        socket: Option<u16>,
    ) -> Result<Self, PoolError> {
        // DPDK prepends to the name up to 5 characters for its memory zones, within 32 and a terminator.
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if name.is_empty() || name.len() > 25 || !name.chars().all(plain) {
            return Err(PoolError::Name(name.to_owned()));
        }
        let c_name = CString::new(name).map_err(|_| PoolError::Name(name.to_owned()))?;
        let sizes = [
            ("count", count, 1, MAX_COUNT),
            ("cache", cache, 0, SHIM_MAX_CACHE.min(count * 2 / 3)),
            (
                "data room",
                u32::from(data_room),
                1,
                u32::from(u16::MAX - HEADROOM),
            ),
        ];
        for (what, given, least, limit) in sizes {
            if given < least || given > limit {
                return Err(PoolError::Size { what, given, limit });
            }
        }
        let socket = socket.map_or(dpdk_sys::SHIM_SOCKET_ANY, i32::from);
        // SAFETY: EAL is initialised, as `_eal` proves; the name is a terminated string that DPDK copies; a null ops name
        // means the platform's default.
        let raw = unsafe {
            dpdk_sys::rte_pktmbuf_pool_create_by_ops(
                c_name.as_ptr(),
                count,
                cache,
                0,
                data_room + HEADROOM,
                socket,
                std::ptr::null(),
            )
        };
        let Some(raw) = NonNull::new(raw) else {
            // SAFETY: reads a thread-local integer.
            let errno = unsafe { dpdk_sys::shim_errno() };
            return Err(match errno {
                libc::EEXIST => PoolError::Exists(name.to_owned()),
                // 64 bytes of mempool header and 128 of mbuf go with each buffer.
                libc::ENOMEM => PoolError::NoMemory {
                    name: name.to_owned(),
                    bytes: u64::from(count) * (u64::from(data_room) + u64::from(HEADROOM) + 192),
                },
                _ => PoolError::Other {
                    name: name.to_owned(),
                    errno: Errno(errno),
                },
            });
        };
        let pool: &'static Inner = Box::leak(Box::new(Inner {
            raw,
            name: name.to_owned(),
            count,
            data_room,
        }));
        POOLS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(pool);
        Ok(Self {
            pool,
            _live: Live::new(),
        })
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.pool.name
    }

    /// How many mbufs it has, in use or not.
    pub fn capacity(&self) -> u32 {
        self.pool.count
    }

    /// Bytes of data that one mbuf holds after its headroom.
    pub fn data_room(&self) -> u16 {
        self.pool.data_room
    }

    /// How many mbufs are out: held by the program or by a device. Those in caches are not. Walks all caches, so not for
    /// the packet path; while others use the pool it is an estimate.
    pub fn in_use(&self) -> u32 {
        // SAFETY: this handle keeps DPDK, and so the pool, alive.
        unsafe { self.pool.in_use() }
    }

    /// How many mbufs are free, those in caches among them, with the limits of [`Mempool::in_use`].
    pub fn available(&self) -> u32 {
        self.pool.count.saturating_sub(self.in_use())
    }

    /// An empty mbuf of one segment; `None` where the pool has none left.
    #[inline]
    pub fn alloc_empty(&self) -> Option<Mbuf> {
        // SAFETY: this handle keeps the pool alive; a non-null result is an mbuf that nobody else has.
        unsafe {
            NonNull::new(dpdk_sys::shim_mbuf_alloc(self.raw())).map(|raw| Mbuf::from_raw(raw))
        }
    }

    /// A frame with these bytes, after a headroom of 128, in as many segments as they need. `None` where the pool has too
    /// few left.
    pub fn alloc(&self, bytes: &[u8]) -> Option<Mbuf> {
        let mut mbuf = self.alloc_empty()?;
        mbuf.append(bytes, self).then_some(mbuf)
    }

    pub(crate) fn raw(&self) -> *mut rte_mempool {
        self.pool.raw.as_ptr()
    }
}

impl Inner {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// # Safety
    /// DPDK has not been shut down.
    pub(crate) unsafe fn in_use(&self) -> u32 {
        // SAFETY: pools are freed by shutting down only.
        unsafe { dpdk_sys::rte_mempool_in_use_count(self.raw.as_ptr()) }
    }

    /// Gives the mbufs in the calling thread's cache back to the pool.
    ///
    /// # Safety
    /// DPDK has not been shut down.
    pub(crate) unsafe fn flush_cache(&self) {
        // SAFETY: pools are freed by shutting down only; the cache is the calling thread's own.
        unsafe { dpdk_sys::shim_pool_flush(self.raw.as_ptr()) };
    }
}
