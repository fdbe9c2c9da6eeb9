//! The ripvs command line.
fn main() {}
