//! Measures what a packet costs: the whole of ripvsd beside dpdk-testpmd, and a worker alone in memory.

#[cfg(test)]
mod allocations;
mod control;
mod count;
mod memory;
mod micro;
mod rig;
mod stats;
mod traffic;
mod worker;

use std::process::ExitCode;

use clap::Parser;

/// What is to be done.
#[derive(Debug, Parser)]
#[command(name = "ripvs-bench", about = "Measures what a packet costs")]
enum Command {
    /// A worker alone, in memory.
    Micro(micro::Options),
    /// Instructions that a worker needs for a packet, beside their budgets.
    Instructions(count::Options),
    /// What is counted, as callgrind runs it.
    #[command(hide = true)]
    Counted(count::Options),
    /// Restoring, single changes and listings over the control socket.
    Control(control::Options),
    /// ripvsd beside dpdk-testpmd.
    Rig(rig::Options),
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Micro(options) => micro::run(&options),
        Command::Instructions(options) => count::run(&options),
        Command::Counted(options) => count::run_counted(&options),
        Command::Control(options) => control::run(&options),
        Command::Rig(options) => rig::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ripvs-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
