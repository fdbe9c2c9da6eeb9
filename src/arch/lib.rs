//! What the machine offers beyond plain Rust, behind safe interfaces: prefetch, keyed hashing of flow keys, slices on huge
//! pages, bytes compared many at once, clocks. The unsafe code is in `bytes`, `prefetch`, `huge` and `clock`, each of which
//! says what keeps it sound.

pub mod bytes;
pub mod clock;
pub mod hash;
pub mod huge;
pub mod prefetch;

pub use bytes::equal_bytes;
pub use clock::{cycles, now_ns, pause};
pub use hash::FlowHash;
pub use huge::{HugeSlice, Pages, Zeroable};
pub use prefetch::{prefetch_index, prefetch_read, prefetch_write};
