//! The ripvs daemon.
fn main() {}
