//! Large zeroed slices straight from the kernel, on huge pages where there are any: a table of millions of connections
//! then costs few TLB misses. Memory is touched only when used, by the thread that uses it, so that it lies on that
//! thread's node and a table sized for the worst case costs nothing beforehand (with huge pages of the reserved pool, the
//! pool must have room for all of it).
//!
//! Sound because a slice owns its mapping alone, the mapping is as long as the slice, page-aligned (more than any element
//! asks for), and all zeros, which [`Zeroable`] promises to be a value.
#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Huge page size that mappings are aligned to: that of x86-64, and of AArch64 with 4 KiB pages.
const HUGE: usize = 2 << 20;

/// Types of which all bytes zero are a value. Structs get it by [`zeroable!`](crate::zeroable).
///
/// # Safety
/// A value whose bytes are all 0 must be valid.
pub unsafe trait Zeroable {}

macro_rules! zeroable_types {
    ($($t:ty),*) => {
        $(
            // SAFETY: an integer of zeros is 0; an `Option` of a non-zero integer of zeros is `None`, as std documents.
            unsafe impl Zeroable for $t {}
        )*
    };
}
zeroable_types!(
    u8,
    u16,
    u32,
    u64,
    u128,
    usize,
    i8,
    i16,
    i32,
    i64,
    i128,
    isize,
    bool,
    f32,
    f64,
    (),
    Option<core::num::NonZeroU8>,
    Option<core::num::NonZeroU16>,
    Option<core::num::NonZeroU32>,
    Option<core::num::NonZeroU64>,
    Option<core::num::NonZeroUsize>
);

// SAFETY: an array is its elements, one after the other.
unsafe impl<T: Zeroable, const N: usize> Zeroable for [T; N] {}

/// Defines a struct whose fields are all [`Zeroable`], and makes it so itself: the safe way for crates without unsafe code.
///
/// ```
/// ripvs_arch::zeroable! {
///     /// A bucket.
///     #[derive(Clone, Copy)]
///     pub struct Bucket {
///         /// Tags.
///         pub tags: [u16; 8],
///     }
/// }
/// let table = ripvs_arch::HugeSlice::<Bucket>::zeroed(1000)?;
/// assert_eq!(table[999].tags, [0; 8]);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// A field of which zeros are no value is refused:
///
/// ```compile_fail
/// ripvs_arch::zeroable! {
///     struct Bad {
///         name: &'static str,
///     }
/// }
/// ```
#[macro_export]
macro_rules! zeroable {
    (
        $(#[$attr:meta])*
        $vis:vis struct $name:ident {
            $($(#[$field_attr:meta])* $field_vis:vis $field:ident: $type:ty),* $(,)?
        }
    ) => {
        $(#[$attr])*
        $vis struct $name {
            $($(#[$field_attr])* $field_vis $field: $type),*
        }

        #[allow(unsafe_code)]
        // SAFETY: the struct has the fields listed, and the bound below makes the compiler check each.
        unsafe impl $crate::Zeroable for $name where $($type: $crate::Zeroable),* {}
    };
    (
        $(#[$attr:meta])*
        $vis:vis struct $name:ident<$param:ident: $bound:path> {
            $($(#[$field_attr:meta])* $field_vis:vis $field:ident: $type:ty),* $(,)?
        }
    ) => {
        $(#[$attr])*
        $vis struct $name<$param: $bound> {
            $($(#[$field_attr])* $field_vis $field: $type),*
        }

        #[allow(unsafe_code)]
        // SAFETY: the struct has the fields listed, and the bound below makes the compiler check each.
        unsafe impl<$param: $bound> $crate::Zeroable for $name<$param> where $($type: $crate::Zeroable),* {}
    };
    (
        $(#[$attr:meta])*
        $vis:vis struct $name:ident($($field_vis:vis $type:ty),* $(,)?);
    ) => {
        $(#[$attr])*
        $vis struct $name($($field_vis $type),*);

        #[allow(unsafe_code)]
        // SAFETY: the struct has the fields listed, and the bound below makes the compiler check each.
        unsafe impl $crate::Zeroable for $name where $($type: $crate::Zeroable),* {}
    };
}

/// What kind of pages a slice lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Huge pages of the reserved pool.
    HugeTlb,
    /// Ordinary pages that the kernel was asked to make huge ones (transparent huge pages).
    Transparent,
    /// Ordinary pages: too small a slice for huge ones, or the kernel has no transparent ones.
    Small,
}

/// A slice of fixed length on pages of its own, all zeros at first.
pub struct HugeSlice<T> {
    start: NonNull<T>,
    len: usize,
    /// Length of the mapping in bytes; 0 where there is none.
    mapped: usize,
    pages: Pages,
    owns: PhantomData<T>,
}

// SAFETY: the slice owns its elements, like a `Vec`.
unsafe impl<T: Send> Send for HugeSlice<T> {}
// SAFETY: sharing the slice shares its elements, nothing else.
unsafe impl<T: Sync> Sync for HugeSlice<T> {}

impl<T: Zeroable> HugeSlice<T> {
    /// `len` elements, all zeros.
    ///
    /// # Errors
    /// What `mmap` says where memory is short, and `InvalidInput` where the length in bytes overflows.
    pub fn zeroed(len: usize) -> io::Result<HugeSlice<T>> {
        const {
            assert!(!std::mem::needs_drop::<T>(), "elements are not dropped");
            assert!(align_of::<T>() <= 4096, "alignment is a page's at most");
        }
        let bytes = len
            .checked_mul(size_of::<T>())
            .filter(|bytes| *bytes <= isize::MAX as usize - 2 * HUGE)
            .ok_or(io::ErrorKind::InvalidInput)?;
        if bytes == 0 {
            return Ok(HugeSlice {
                start: NonNull::dangling(),
                len,
                mapped: 0,
                pages: Pages::Small,
                owns: PhantomData,
            });
        }
        let (start, mapped, pages) = if bytes < HUGE {
            let mapped = bytes.next_multiple_of(4096);
            (map(mapped, 0)?, mapped, Pages::Small)
        } else {
            map_large(bytes.next_multiple_of(HUGE))?
        };
        Ok(HugeSlice {
            start: start.cast(),
            len,
            mapped,
            pages,
            owns: PhantomData,
        })
    }

    /// Writes to the place of an element, and leaves it as it is. The first time somebody writes to a page the kernel
    /// clears it, which takes some 100 µs for a huge one: to be done when nobody waits.
    pub fn touch(&mut self, at: usize) {
        const { assert!(size_of::<T>() > 0, "there is something to touch") };
        let place = std::ptr::from_mut(&mut self[at]).cast::<MaybeUninit<u8>>();
        // SAFETY: the element has a first byte, which is borrowed alone.
        unsafe { place.write_volatile(place.read_volatile()) };
    }
}

impl<T> HugeSlice<T> {
    /// What kind of pages it lies on.
    pub fn pages(&self) -> Pages {
        self.pages
    }
}

fn map(bytes: usize, flags: libc::c_int) -> io::Result<NonNull<u8>> {
    // SAFETY: a new private mapping at an address that the kernel chooses touches no memory in use.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// Huge pages of the pool if it has room, else ordinary pages aligned so that the kernel can make them huge.
fn map_large(bytes: usize) -> io::Result<(NonNull<u8>, usize, Pages)> {
    let two_mib = 21 << libc::MAP_HUGE_SHIFT;
    if let Ok(start) = map(bytes, libc::MAP_HUGETLB | two_mib) {
        return Ok((start, bytes, Pages::HugeTlb));
    }
    let start = map(bytes + HUGE, 0)?;
    let before = start.as_ptr().align_offset(HUGE).min(HUGE);
    // SAFETY: the mapping is `bytes + HUGE` long, and `before` at most HUGE.
    let aligned = unsafe { start.add(before) };
    // SAFETY: both ranges lie in the mapping just made, outside the part that is kept; lengths of 0 are left out.
    unsafe {
        if before > 0 {
            libc::munmap(start.as_ptr().cast(), before);
        }
        if before < HUGE {
            libc::munmap(aligned.add(bytes).as_ptr().cast(), HUGE - before);
        }
    }
    // SAFETY: advice about a mapping that is ours and as long as said.
    let advised = unsafe { libc::madvise(aligned.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
    let pages = if advised == 0 {
        Pages::Transparent
    } else {
        Pages::Small
    };
    Ok((aligned, bytes, pages))
}

impl<T> Deref for HugeSlice<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements lie at `start`, valid since they were mapped, and are borrowed with `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for HugeSlice<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T> Drop for HugeSlice<T> {
    fn drop(&mut self) {
        if self.mapped > 0 {
            // SAFETY: the mapping is ours, as long as said, and no borrow of it outlives `self`.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.mapped) };
        }
    }
}

impl<T> std::fmt::Debug for HugeSlice<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HugeSlice")
            .field("len", &self.len)
            .field("pages", &self.pages)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    zeroable! {
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[repr(align(64))]
        struct Line {
            words: [u64; 8],
        }
    }

    zeroable! {
        struct Pair(u32, Option<core::num::NonZeroU16>);
    }

    trait Width: Copy {
        type Word: Zeroable + Copy;
    }

    #[derive(Clone, Copy)]
    struct Wide;

    impl Width for Wide {
        type Word = u64;
    }

    zeroable! {
        struct Of<W: Width> {
            word: W::Word,
            flag: bool,
        }
    }

    #[test]
    fn structs_may_have_a_type_parameter() {
        let slice = HugeSlice::<Of<Wide>>::zeroed(2).unwrap();
        assert_eq!((slice[1].word, slice[1].flag), (0, false));
    }

    #[test]
    fn small_and_large_slices_are_zeros_and_hold_what_is_written() {
        for len in [1, 100, 100_000] {
            let mut lines = HugeSlice::<Line>::zeroed(len).unwrap();
            assert_eq!(lines.len(), len);
            assert!(lines.iter().all(|line| line.words == [0; 8]));
            lines[len - 1].words = [5; 8];
            lines.touch(len - 1);
            assert_eq!(lines[len - 1].words, [5; 8]);
        }
    }

    #[test]
    fn large_slices_are_aligned_to_huge_pages() {
        let large = HugeSlice::<u8>::zeroed(5 << 20).unwrap();
        assert_eq!(large.as_ptr() as usize % HUGE, 0);
        assert_eq!(HugeSlice::<u8>::zeroed(10).unwrap().pages(), Pages::Small);
    }

    #[test]
    fn slices_without_bytes_need_no_memory() {
        assert!(HugeSlice::<u64>::zeroed(0).unwrap().is_empty());
        assert_eq!(HugeSlice::<()>::zeroed(7).unwrap().len(), 7);
    }

    #[test]
    fn impossible_lengths_are_errors() {
        assert!(HugeSlice::<u64>::zeroed(usize::MAX).is_err());
        assert!(HugeSlice::<u64>::zeroed(1 << 59).is_err());
    }

    #[test]
    fn slices_move_between_threads() {
        let mut slice = HugeSlice::<Pair>::zeroed(3).unwrap();
        slice[2].0 = 9;
        let seen = std::thread::spawn(move || (slice[2].0, slice[2].1))
            .join()
            .unwrap();
        assert_eq!(seen, (9, None));
    }
}
