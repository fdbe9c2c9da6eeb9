//! The table and the files that results are shown in.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::{plot, summary, Outcome};
use crate::machine::machine;

/// Prints the heading of the table.
pub fn heading() {
    println!("{}", machine());
    println!("One core each; ns of processor time a packet, medians; ± half the distance of the quartiles.");
    println!(
        "{:36} {:>9} | {:>13} | {:>13} {:>6} | {:>13} {:>7} {:>5} | {:>6}",
        "", "flows", "testpmd ns", "ripvsd ns", "Mpps", "added ns", "target", "floor", "ratio"
    );
}

/// Prints a row of the table.
pub fn row(outcome: &Outcome) {
    let (plain, plain_spread) = summary(&outcome.testpmd);
    let (full, full_spread) = summary(&outcome.ripvsd);
    let (added, added_spread) = summary(&outcome.added());
    let target = outcome.case.target();
    let floor = match outcome.floor[..] {
        [] => String::new(),
        _ => format!("{:.0}", summary(&outcome.floor_added()).0),
    };
    println!(
        "{:36} {:>9} | {plain:>7.1} ±{plain_spread:>4.1} | {full:>7.1} ±{full_spread:>4.1} {:>6.2} | {added:>7.1} ±{added_spread:>4.1} {:>7} {floor:>5} | {:>6.2}",
        outcome.case.to_string(),
        outcome.case.flows,
        1000.0 / full,
        target.map_or(String::new(), |target| format!("{target:.0}")),
        full / plain,
    );
    if let Some(apart) = outcome.apart {
        println!(
            "{:46} | a cache line goes from one core to the other and back in {apart:.0} ns",
            ""
        );
    }
}

/// Writes the results: a CSV file with a line a case, and a plot.
///
/// # Errors
/// A file cannot be written.
pub fn write(dir: &Path, outcomes: &[Outcome]) -> Result<(), String> {
    let path = dir.join("packets.csv");
    let mut text = format!("# {}\n", machine());
    text += "case,flows,dests,services,testpmd_ns,testpmd_spread,floor_ns,floor_added_ns,ripvsd_ns,ripvsd_spread,ripvsd_mpps,added_ns,added_spread,target_ns,ratio,rounds,cores_apart_ns\n";
    for outcome in outcomes {
        let (plain, plain_spread) = summary(&outcome.testpmd);
        let (full, full_spread) = summary(&outcome.ripvsd);
        let (added, added_spread) = summary(&outcome.added());
        let case = &outcome.case;
        let target = case.target().map_or(String::new(), |t| t.to_string());
        let apart = outcome
            .apart
            .map_or(String::new(), |apart| format!("{apart:.0}"));
        let floor = match outcome.floor[..] {
            [] => ",".to_string(),
            _ => format!(
                "{:.2},{:.2}",
                summary(&outcome.floor).0,
                summary(&outcome.floor_added()).0
            ),
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "\"{case}\",{},{},{},{plain:.2},{plain_spread:.2},{floor},{full:.2},{full_spread:.2},{:.3},{added:.2},{added_spread:.2},{target},{:.3},{},{apart}",
            case.flows,
            case.dests,
            case.services,
            1000.0 / full,
            full / plain,
            outcome.ripvsd.len(),
        );
    }
    fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    plot::added_by_flows(&dir.join("added.svg"), outcomes)
}
