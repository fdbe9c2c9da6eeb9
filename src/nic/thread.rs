//! What a thread needs to do with DPDK: an lcore id, which gives it a cache in every mempool; its CPU affinity, which
//! `rte_eal_init` changes; and the signals of device drivers, which must reach a worker and should reach nobody else.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::sync::PoisonError;

use crate::eal::{self, Live, POOLS};
use crate::error::EalError;

/// A registered thread. It stays with its thread; dropping it gives the lcore id and the cached mbufs back.
#[derive(Debug)]
pub struct ThreadGuard {
    _live: Live,
    this_thread: PhantomData<*const ()>,
}

impl crate::Eal {
    /// Registers the calling thread, to be called once by each worker thread before it touches a queue or a pool. Lets the
    /// drivers' signals through to it, whatever mask it inherited.
    ///
    /// A thread that isn't registered may use pools and queues too, only slower: it has no cache. From the first
    /// registration on DPDK refuses secondary processes, dpdk-pdump and dpdk-proc-info among them.
    ///
    /// # Errors
    /// [`EalError::TooManyThreads`] past DPDK's limit (Debian: 128 lcores), [`EalError::ThreadRegistered`] on a second
    /// call or the thread that ran `Eal::init`, which has an lcore id; [`EalError::NotInitialised`].
    pub fn register_thread() -> Result<ThreadGuard, EalError> {
        // First: while it lives DPDK isn't shut down, so what is asked next stays true.
        let live = Live::new();
        if !eal::initialised() {
            return Err(EalError::NotInitialised);
        }
        // SAFETY: reads a thread-local integer.
        if unsafe { dpdk_sys::shim_lcore_id() } != dpdk_sys::SHIM_LCORE_ANY {
            return Err(EalError::ThreadRegistered);
        }
        // SAFETY: EAL is initialised (checked), and `live` keeps it so.
        if unsafe { dpdk_sys::rte_thread_register() } != 0 {
            return Err(EalError::TooManyThreads);
        }
        device_signals(libc::SIG_UNBLOCK);
        Ok(ThreadGuard {
            _live: live,
            this_thread: PhantomData,
        })
    }

    /// Keeps the drivers' signals from the calling thread. net_tap announces each packet by a real-time signal to the
    /// process; a control thread that takes them sees its system calls interrupted and its CPU taken. Threads that it
    /// starts inherit this; registered ones undo it. At least one thread must take them, or net_tap receives nothing.
    pub fn shield_thread() {
        device_signals(libc::SIG_BLOCK);
    }
}

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        for pool in POOLS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // SAFETY: this guard's `Live` keeps DPDK from being shut down.
            unsafe { pool.flush_cache() };
        }
        // SAFETY: this thread was registered by `register_thread`, which made this guard, and the guard can't move to
        // another thread.
        unsafe { dpdk_sys::rte_thread_unregister() };
    }
}

/// Blocks or unblocks the real-time signals, of which drivers take the first that is free.
fn device_signals(how: i32) {
    // SAFETY: the set is a plain value, made valid by sigemptyset before use; the mask is this thread's own.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut set);
        for signal in libc::SIGRTMIN()..=libc::SIGRTMAX() {
            libc::sigaddset(&mut set, signal);
        }
        libc::pthread_sigmask(how, &set, std::ptr::null_mut());
    }
}

/// The CPUs that a thread may run on.
pub(crate) struct Affinity(libc::cpu_set_t);

impl Affinity {
    /// Of the calling thread; `None` where the kernel has more CPUs than the fixed-size set holds (1,024).
    pub(crate) fn of_this_thread() -> Option<Self> {
        // SAFETY: an all-zero cpu_set_t is the empty set, and the size given is its own.
        unsafe {
            let mut set = std::mem::zeroed::<libc::cpu_set_t>();
            let status = libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set);
            (status == 0).then_some(Self(set))
        }
    }

    /// Makes it the calling thread's. Best effort: a CPU may have gone offline meanwhile.
    pub(crate) fn restore(&self) {
        // SAFETY: a valid set and its own size.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &self.0) };
    }

    /// As EAL's options take it: `0,1,5`. `None` where it is empty.
    pub(crate) fn list(&self) -> Option<String> {
        let cpus: Vec<String> = (0..libc::CPU_SETSIZE as usize)
            // SAFETY: the index is within the set.
            .filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &self.0) })
            .map(|cpu| cpu.to_string())
            .collect();
        (!cpus.is_empty()).then(|| cpus.join(","))
    }
}
