//! Raw bindings to DPDK: an allow-listed part of libdpdk by bindgen, and a C shim for what is inline there.
//!
//! Nothing here is safe or checked; crate `ripvs-nic` is the only user. Functions named `rte_…` are DPDK's own and its
//! manual describes them; those named `shim_…` and constants named `SHIM_…` are in `shim.h`.
//!
//! # Linking
//! The shared libraries of the distribution are linked. Drivers (and the mempool back-ends) are plug-ins: `librte_eal`
//! loads all that lie in the folder it was built with (Debian: `/usr/lib/<arch>/dpdk/pmds-<abi>`), which it only does
//! in a shared build. So the linker's `--as-needed`, which drops every driver library given to it, does no harm, and a
//! container image needs the packages that hold the plug-ins. A static build would need `--whole-archive` and is not
//! supported.
//!
//! # Releases
//! Built and run with 22.11 (Debian 12). Written for 23.11 and 24.11 too, which are untried: types whose layout changed
//! between them are opaque here, and mbuf fields are found by offsets taken from the installed headers.
#![allow(unsafe_code)] // Nothing but foreign functions.

#[allow(
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    non_snake_case
)]
#[allow(clippy::all, clippy::undocumented_unsafe_blocks)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub use bindings::*;
