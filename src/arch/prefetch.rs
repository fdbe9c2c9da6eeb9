//! Hints to the cache. Sound because a prefetch neither reads nor writes as the program sees it: it cannot fault, whatever
//! the address. No-ops on processors other than x86-64 and AArch64.
#![allow(unsafe_code)]

/// Brings the cache line at the start of `value` near, for reading.
#[inline(always)]
pub fn prefetch_read<T>(value: &T) {
    read(core::ptr::from_ref(value));
}

/// Brings the cache line at the start of `value` near, for writing.
#[inline(always)]
pub fn prefetch_write<T>(value: &T) {
    write(core::ptr::from_ref(value));
}

/// Brings the start of `slice[index]` near, for reading. Does no harm where there is no such element.
#[inline(always)]
pub fn prefetch_index<T>(slice: &[T], index: usize) {
    read(slice.as_ptr().wrapping_add(index));
}

#[inline(always)]
fn read<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: PREFETCHT0 is part of SSE, which every x86-64 has, and may be given any address.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: PRFM may be given any address, and changes neither memory nor flags nor the stack.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{0}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}

#[inline(always)]
fn write<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: PREFETCHW is a no-op on processors that lack it, and may be given any address.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_ET0 }>(at.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as in `read`.
    unsafe {
        core::arch::asm!("prfm pstl1keep, [{0}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_change_nothing_and_take_any_index() {
        let values = [1u64, 2, 3];
        prefetch_read(&values[0]);
        prefetch_write(&values[1]);
        prefetch_index(&values, 2);
        prefetch_index(&values, usize::MAX);
        prefetch_index::<u64>(&[], 1 << 40);
        assert_eq!(values, [1, 2, 3]);
    }
}
