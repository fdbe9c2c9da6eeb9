//! The table and the files that results are shown in.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::{summary, Outcome};

/// Prints the heading of the table.
pub fn heading() {
    println!("One core each; ns of processor time a packet, medians; ± half the distance of the quartiles.");
    println!(
        "{:28} {:>9} | {:>14} | {:>14} {:>6} | {:>14} {:>7} | {:>6}",
        "", "flows", "testpmd ns", "ripvsd ns", "Mpps", "added ns", "target", "ratio"
    );
}

/// Prints a row of the table.
pub fn row(outcome: &Outcome) {
    let (plain, plain_spread) = summary(&outcome.testpmd);
    let (full, full_spread) = summary(&outcome.ripvsd);
    let (added, added_spread) = summary(&outcome.added());
    let target = outcome.case.target();
    println!(
        "{:28} {:>9} | {plain:>8.1} ±{plain_spread:>4.1} | {full:>8.1} ±{full_spread:>4.1} {:>6.2} | {added:>8.1} ±{added_spread:>4.1} {:>7} | {:>6.2}",
        outcome.case.to_string(),
        outcome.case.flows,
        1000.0 / full,
        target.map_or(String::new(), |target| format!("{target:.0}")),
        full / plain,
    );
}

/// The machine, as far as it matters.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(':').nth(1))
        .unwrap_or("unknown")
        .trim();
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let meminfo = read("/proc/meminfo");
    let memory = meminfo.lines().next().unwrap_or_default();
    let memory: String = memory
        .split_whitespace()
        .skip(1)
        .collect::<Vec<_>>()
        .join(" ");
    format!("{model}, {cores} cores, {memory}, Linux {}", kernel.trim())
}

/// Writes the results, a line a case.
///
/// # Errors
/// The file cannot be written.
pub fn write_csv(path: &Path, outcomes: &[Outcome]) -> Result<(), String> {
    let mut text = format!("# {}\n", machine());
    text += "case,flows,dests,services,testpmd_ns,testpmd_spread,ripvsd_ns,ripvsd_spread,ripvsd_mpps,added_ns,added_spread,target_ns,ratio,rounds\n";
    for outcome in outcomes {
        let (plain, plain_spread) = summary(&outcome.testpmd);
        let (full, full_spread) = summary(&outcome.ripvsd);
        let (added, added_spread) = summary(&outcome.added());
        let case = &outcome.case;
        let target = case.target().map_or(String::new(), |t| t.to_string());
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{case},{},{},{},{plain:.2},{plain_spread:.2},{full:.2},{full_spread:.2},{:.3},{added:.2},{added_spread:.2},{target},{:.3},{}",
            case.flows,
            case.dests,
            case.services,
            1000.0 / full,
            full / plain,
            outcome.ripvsd.len(),
        );
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
