//! Checks of the device layer on DPDK's virtual drivers, without huge pages. All run in one process and on one thread, one
//! after the other, since EAL starts once; each gives back all its mbufs, which is checked after it.

#![allow(clippy::expect_used, clippy::panic)] // A check fails by panicking.

mod frames;
mod virtual_ports;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::ExitCode;

use ripvs_nic::Eal;

/// What every check gets.
pub struct Bed {
    /// Proof that DPDK runs.
    pub eal: Eal,
}

/// A claim, and what checks it.
pub type Check = (&'static str, fn(&Bed));

fn main() -> ExitCode {
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let wanted = |name: &str| {
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
    };
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
    let checks: Vec<Check> = [frames::CHECKS, virtual_ports::CHECKS].concat();
    let mut failed = 0;
    for (name, check) in checks.iter().filter(|(name, _)| wanted(name)) {
        let passed = catch_unwind(AssertUnwindSafe(|| check(&bed))).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    // A failed check may leave what it held behind.
    if failed == 0 {
        if let Err(error) = bed.eal.shutdown() {
            println!("test everything_is_given_back_at_the_end ... FAILED: {error}");
            failed += 1;
        }
    }
    println!("{failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
