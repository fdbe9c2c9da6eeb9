//! Which step of a packet's way an instruction belongs to: by the source file that it was written in, inlined or not. What the
//! compiler brought along (copies, comparisons, iterators) belongs to the innermost of our own functions around it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::callgrind::Dump;

/// Steps in the order of a packet's way.
pub const STEPS: [&str; 11] = [
    "parse", "classify", "owner", "lookup", "schedule", "state", "count", "rewrite", "next hop",
    "timers", "frames",
];

/// Where a source file, or some of its functions, belong; the first line that fits decides.
const FILES: [(&str, &str, usize); 50] = [
    ("packet/parse.rs", "", 0),
    ("core/glance.rs", "", 0),
    ("core/ledger.rs", "", 6),
    ("core/recent.rs", "", 6),
    ("core/plain.rs", "", 0),
    ("core/packet.rs", "", 0),
    ("core/express.rs", "glance_ip", 0),
    ("core/express.rs", "least_len", 0),
    ("core/express.rs", "lacks_checksum", 0),
    ("core/express.rs", "signal", 5),
    ("core/express.rs", "suggest", 3),
    ("core/express.rs", "Sums", 6),
    ("core/express.rs", "", 1),
    ("core/input.rs", "", 1),
    ("core/net/ingress.rs", "", 1),
    ("core/net/iface.rs", "", 1),
    ("core/net/", "classify", 1),
    ("core/datapath.rs", "account", 6),
    ("core/datapath.rs", "foresee", 3),
    ("core/datapath.rs", "", 1),
    ("core/family.rs", "", 1),
    ("core/mark.rs", "", 1),
    ("core/owner.rs", "", 2),
    ("core/over.rs", "", 2),
    ("core/message.rs", "", 2),
    ("bench/worker.rs", "deliver", 2),
    ("core/conn/wheel.rs", "", 9),
    ("core/conn/", "", 3),
    ("core/service/", "", 4),
    ("core/choose.rs", "", 4),
    ("core/first.rs", "", 4),
    ("core/sched/", "", 4),
    ("core/flow.rs", "expire", 9),
    ("core/flow.rs", "", 4),
    ("core/defence.rs", "", 4),
    ("core/thin.rs", "", 9),
    ("core/state/", "", 5),
    ("core/tally.rs", "", 6),
    ("core/verdict.rs", "", 6),
    ("core/rewrite.rs", "", 7),
    ("core/forward.rs", "", 7),
    ("core/tunnel.rs", "", 7),
    ("core/seq.rs", "", 7),
    ("packet/checksum.rs", "", 7),
    ("core/hop.rs", "", 8),
    ("core/net/", "", 8),
    ("core/worker.rs", "tick", 9),
    ("core/sweep.rs", "", 9),
    ("core/worker.rs", "", 10),
    ("bench/memory.rs", "", 10),
];

/// The step of a source file's function.
fn step(file: &str, function: &str) -> Option<usize> {
    let fits = |(part, name, _): &&(&str, &str, usize)| {
        file.contains(part) && (name.is_empty() || function.contains(name))
    };
    FILES.iter().find(fits).map(|(_, _, step)| *step)
}

/// Instructions by step; what no step is known for comes last.
pub type Sums = [u64; STEPS.len() + 1];

/// Shares a dump out among the steps.
///
/// # Errors
/// binutils' `addr2line` cannot be run.
pub fn share(dump: &Dump, program: &Path) -> Result<Sums, String> {
    let mut sums = [0; STEPS.len() + 1];
    let places = places(dump, program)?;
    for (address, cost) in &dump.own {
        let known = places.get(address).copied();
        sums[known.unwrap_or(STEPS.len())] += cost;
    }
    sums[STEPS.len()] += dump.others;
    Ok(sums)
}

/// The step of each address.
fn places(dump: &Dump, program: &Path) -> Result<BTreeMap<u64, usize>, String> {
    let failed = |error: std::io::Error| format!("addr2line: {error}");
    let mut child = Command::new("addr2line")
        .args(["--addresses", "--inlines", "--functions", "--exe"])
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let list: String = dump
        .own
        .keys()
        .map(|address| format!("{address:#x}\n"))
        .collect();
    let stdin = child.stdin.take();
    let writer = std::thread::spawn(move || match stdin {
        Some(mut stdin) => stdin.write_all(list.as_bytes()),
        None => Ok(()),
    });
    let output = child.wait_with_output().map_err(failed)?;
    // It ends when it has read all.
    let _ = writer.join();
    let text = String::from_utf8_lossy(&output.stdout);
    let mut places = BTreeMap::new();
    let (mut address, mut function) = (0, "");
    for line in text.lines() {
        if let Some(number) = line.strip_prefix("0x") {
            address = u64::from_str_radix(number, 16).unwrap_or(0);
            function = "";
        } else if function.is_empty() {
            function = line;
        } else {
            // The innermost comes first.
            if let Some(step) = step(line, function) {
                places.entry(address).or_insert(step);
            }
            function = "";
        }
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_files() {
        for (index, name) in STEPS.iter().enumerate() {
            assert!(FILES.iter().any(|(_, _, step)| *step == index), "{name}");
        }
    }

    #[test]
    fn a_function_may_belong_elsewhere_than_its_file() {
        assert_eq!(step("/x/src/core/datapath.rs:9", "account"), Some(6));
        assert_eq!(step("/x/src/core/datapath.rs:9", "request"), Some(1));
        assert_eq!(step("/rustc/library/core/src/iter.rs:9", "next"), None);
    }
}
