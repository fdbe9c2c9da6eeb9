//! Reading and writing big-endian fields of fixed-size headers, and the macro that makes a header view.
//!
//! A view holds a reference to an array of exactly the header's fixed length, so that the length is checked once, when
//! the view is made, and the compiler knows every field to be inside: accessors neither fail nor check.

#[inline(always)]
pub(crate) fn u16_at<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline(always)]
pub(crate) fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// `L` bytes from `at` on, as an array.
#[inline(always)]
pub(crate) fn array_at<const N: usize, const L: usize>(bytes: &[u8; N], at: usize) -> [u8; L] {
    let mut out = [0; L];
    out.copy_from_slice(&bytes[at..at + L]);
    out
}

#[inline(always)]
pub(crate) fn put<const N: usize, const L: usize>(bytes: &mut [u8; N], at: usize, value: [u8; L]) {
    bytes[at..at + L].copy_from_slice(&value);
}

/// Defines a header view `$name<T>` over `$len` bytes with its constructors.
macro_rules! view {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name<T>(T);

        impl<'a> $name<&'a [u8; $len]> {
            /// The header at the start of `bytes`; `None` where they are fewer than its fixed part.
            #[inline(always)]
            pub fn new(bytes: &'a [u8]) -> Option<Self> {
                bytes.first_chunk().map(Self)
            }

            /// The header `offset` bytes into `bytes`; `None` where its fixed part isn't all there.
            #[inline(always)]
            pub fn at(bytes: &'a [u8], offset: usize) -> Option<Self> {
                bytes.get(offset..)?.first_chunk().map(Self)
            }
        }

        impl<'a> $name<&'a mut [u8; $len]> {
            /// The header at the start of `bytes`, for rewriting; `None` where they are fewer than its fixed part.
            #[inline(always)]
            pub fn new_mut(bytes: &'a mut [u8]) -> Option<Self> {
                bytes.first_chunk_mut().map(Self)
            }

            /// The header `offset` bytes into `bytes`, for rewriting; `None` where its fixed part isn't all there.
            #[inline(always)]
            pub fn at_mut(bytes: &'a mut [u8], offset: usize) -> Option<Self> {
                bytes.get_mut(offset..)?.first_chunk_mut().map(Self)
            }
        }

        impl<T: core::ops::Deref<Target = [u8; $len]>> $name<T> {
            /// The bytes of the fixed part.
            #[inline(always)]
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }
    };
}

/// Defines accessors of 8- and 16-bit and array fields: `name set_name: kind @ offset, "what it is"`.
macro_rules! fields {
    ($view:ident, $len:expr; $($get:ident $set:ident: $kind:tt @ $at:expr, $doc:literal;)*) => {
        impl<T: core::ops::Deref<Target = [u8; $len]>> $view<T> {
            $(fields!(@get $get $kind $at, $doc);)*
        }
        impl<T: core::ops::DerefMut<Target = [u8; $len]>> $view<T> {
            $(fields!(@set $set $kind $at, $doc);)*
        }
    };
    (@get $get:ident u8 $at:expr, $doc:literal) => {
        #[doc = $doc]
        #[inline(always)]
        pub fn $get(&self) -> u8 { self.0[$at] }
    };
    (@get $get:ident u16 $at:expr, $doc:literal) => {
        #[doc = $doc]
        #[inline(always)]
        pub fn $get(&self) -> u16 { $crate::bytes::u16_at(&self.0, $at) }
    };
    (@get $get:ident u32 $at:expr, $doc:literal) => {
        #[doc = $doc]
        #[inline(always)]
        pub fn $get(&self) -> u32 { $crate::bytes::u32_at(&self.0, $at) }
    };
    (@get $get:ident [$n:literal] $at:expr, $doc:literal) => {
        #[doc = $doc]
        #[inline(always)]
        pub fn $get(&self) -> [u8; $n] { $crate::bytes::array_at(&self.0, $at) }
    };
    (@set $set:ident u8 $at:expr, $doc:literal) => {
        #[doc = concat!("Writes: ", $doc)]
        #[inline(always)]
        pub fn $set(&mut self, value: u8) { self.0[$at] = value; }
    };
    (@set $set:ident u16 $at:expr, $doc:literal) => {
        #[doc = concat!("Writes: ", $doc)]
        #[inline(always)]
        pub fn $set(&mut self, value: u16) { $crate::bytes::put(&mut self.0, $at, value.to_be_bytes()); }
    };
    (@set $set:ident u32 $at:expr, $doc:literal) => {
        #[doc = concat!("Writes: ", $doc)]
        #[inline(always)]
        pub fn $set(&mut self, value: u32) { $crate::bytes::put(&mut self.0, $at, value.to_be_bytes()); }
    };
    (@set $set:ident [$n:literal] $at:expr, $doc:literal) => {
        #[doc = concat!("Writes: ", $doc)]
        #[inline(always)]
        pub fn $set(&mut self, value: [u8; $n]) { $crate::bytes::put(&mut self.0, $at, value); }
    };
}

pub(crate) use {fields, view};
