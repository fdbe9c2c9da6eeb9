//! Lets unmodified programs of the kernel's IPVS (ipvsadm, keepalived and their kind) drive ripvs: a library to be
//! preloaded, which `ripvs-exec` does.
//!
//! It stands between the program and the C library in a few functions. A generic netlink socket stays the kernel's until
//! a request on it asks for the family `IPVS`; then a connection to ripvsd takes its place, under the same number.
//! `/proc/net/ip_vs*` and the settings in `/proc/sys/net/ipv4/vs` are served from ripvsd. All else is passed on as it is.
//!
//! `hooks` are the functions that programs call, `next` the C library's own behind them. `table` knows which descriptors
//! are of interest, `link` is the connection that takes a socket's place, `proc` renders the files.

// Tests do not export them, so there nobody calls them.
#[cfg_attr(test, allow(dead_code))]
#[allow(unsafe_code)]
mod hooks;
mod link;
#[allow(unsafe_code)]
mod next;
mod proc;
mod request;
#[allow(unsafe_code)]
mod stream;
#[allow(unsafe_code)]
mod table;
mod tell;
