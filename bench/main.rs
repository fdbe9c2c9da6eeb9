//! Measures what a packet costs: the whole of ripvsd beside dpdk-testpmd, and a worker alone in memory.

#[cfg(test)]
mod allocations;
mod alone;
mod control;
mod count;
mod distance;
mod document;
#[cfg(test)]
mod growth;
mod machine;
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
    /// A worker alone: new connections, schedulers, full tables, memory, longest rounds.
    Alone(alone::Options),
    /// Puts results into a document's tables.
    Document(document::Options),
    /// Instructions that a worker needs for a packet, beside their budgets.
    Instructions(count::Options),
    /// What is counted, as callgrind runs it.
    #[command(hide = true)]
    Counted(count::Options),
    /// Restoring, single changes and listings over the control socket.
    Control(control::Options),
    /// ripvsd beside dpdk-testpmd.
    Rig(rig::Options),
    /// Losses and latency at a paced rate, over memif, beside dpdk-testpmd.
    Paced(rig::paced::Options),
    /// The control plane at size, while packets pass.
    ControlBusy(rig::control::Options),
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Micro(options) => micro::run(&options),
        Command::Alone(options) => alone::run(&options),
        Command::Document(options) => document::run(&options),
        Command::Instructions(options) => count::run(&options),
        Command::Counted(options) => count::run_counted(&options),
        Command::Control(options) => control::run(&options),
        Command::Rig(options) => rig::run(&options),
        Command::Paced(options) => rig::paced::run(&options),
        Command::ControlBusy(options) => rig::control::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ripvs-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
