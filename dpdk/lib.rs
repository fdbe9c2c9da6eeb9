//! Raw bindings to DPDK: an allow-listed part of libdpdk by bindgen, and a C shim for what is inline there.
