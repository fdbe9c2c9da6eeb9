//! Time and cycles. The clock is `CLOCK_MONOTONIC` by way of the vDSO: some 20 ns, which once a burst is nothing, and it
//! agrees between cores without calibration. Cycles are for measuring short stretches only.
#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::time::Instant;

/// Nanoseconds since this function was first called in the process. Never goes back.
#[inline]
pub fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// The processor's time stamp counter; its rate is the processor's own. Nanoseconds where there is none.
#[inline(always)]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: RDTSC is part of x86-64; where an operating system forbids it, the process ends with a signal.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(target_arch = "aarch64")]
    {
        let ticks: u64;
        // SAFETY: Linux lets programs read the virtual counter, which has no side effect.
        unsafe {
            core::arch::asm!("mrs {0}, cntvct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags));
        }
        ticks
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    now_ns()
}

/// Tells the processor that this is a waiting loop, so that it leaves power and its sibling thread alone.
#[inline(always)]
pub fn pause() {
    core::hint::spin_loop();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back() {
        let mut last = now_ns();
        for _ in 0..1000 {
            let now = now_ns();
            assert!(now >= last);
            last = now;
        }
        pause();
    }

    #[test]
    fn the_counter_counts() {
        let first = cycles();
        assert!((0..1_000_000).any(|_| cycles() != first));
    }
}
