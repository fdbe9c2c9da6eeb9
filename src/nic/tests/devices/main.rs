//! Checks of the device layer on DPDK's virtual drivers, without huge pages. All run in one process and on one thread, one
//! after the other, since EAL starts once; each gives back all its mbufs, which is checked after it.

#![allow(clippy::expect_used, clippy::panic)] // A check fails by panicking.

mod failures;
mod frames;
mod kernel_ports;
mod virtual_ports;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::ExitCode;

use ripvs_nic::{Eal, ShutdownError};

/// What every check gets.
pub struct Bed {
    /// Proof that DPDK runs.
    pub eal: Eal,
}

/// A claim, and what checks it.
pub type Check = (&'static str, fn(&Bed));

fn main() -> ExitCode {
    if let Some(said) = failures::try_if_told() {
        println!("{said}");
        return ExitCode::SUCCESS;
    }
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let wanted = |name: &str| {
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
    };
    let namespace = own_network_namespace();
    let eal = match Eal::init(&[
        "--no-huge",
        "--no-shconf",
        "-m",
        "256",
        "--no-pci",
        "--log-level=4",
    ]) {
        Ok(eal) => eal,
        Err(error) => {
            eprintln!("EAL: {error}");
            return ExitCode::FAILURE;
        }
    };
    let bed = Bed { eal };
    let mut checks: Vec<Check> = [failures::CHECKS, frames::CHECKS, virtual_ports::CHECKS].concat();
    if namespace {
        checks.extend(kernel_ports::CHECKS);
    } else {
        println!(
            "left out without root: {} checks of ports that face the kernel",
            kernel_ports::CHECKS.len()
        );
    }
    let mut failed = 0;
    for (name, check) in checks.iter().filter(|(name, _)| wanted(name)) {
        let passed = catch_unwind(AssertUnwindSafe(|| check(&bed))).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    // A failed check may leave what it held behind.
    if failed == 0 {
        match bed.eal.shutdown() {
            // That driver (22.11) never gives back what its rings held.
            Err(ShutdownError::Mbufs { pool, .. }) if pool == kernel_ports::AF_XDP_POOL => (),
            Err(error) => {
                println!("test everything_is_given_back_at_the_end ... FAILED: {error}");
                failed += 1;
            }
            Ok(()) => (),
        }
    }
    println!("{failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Moves this process, while it has one thread, into a network namespace that ends with it. False without the right to.
#[allow(unsafe_code)]
fn own_network_namespace() -> bool {
    // SAFETY: takes a flag and touches no memory.
    unsafe { libc::unshare(libc::CLONE_NEWNET) == 0 }
}
