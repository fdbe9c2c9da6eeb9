//! What a connection takes of memory.

use std::fs;

use ripvs_core::Time;

use super::{Case, Outcome};
use crate::worker::{Bench, Setup, BURST};

/// Bytes of memory that this process has.
fn resident() -> f64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        number.unwrap_or(0.0) * 1024.0
    };
    field("Rss:") + field("Private_Hugetlb:")
}

/// What a full table takes, all told, for each of its connections.
pub(super) fn measure(case: &Case, conns: u32) -> Result<Outcome, String> {
    let traffic = case.traffic(conns);
    let now = Time(1_000_000_000);
    let before = resident();
    let setup = Setup::new(case.mode.forward(), conns);
    let mut bench = Bench::new(&traffic, &setup, now).map_err(|error| error.to_string())?;
    let mut frames = Vec::with_capacity(BURST);
    for flow in 0..conns {
        frames.push(bench.pool.take(&traffic.request(flow)));
        if frames.len() == BURST || flow + 1 == conns {
            bench.round(now, &mut frames);
        }
    }
    match bench.conns() {
        count if count == conns => Ok(Outcome {
            name: case.name(),
            unit: "B",
            value: (resident() - before) / f64::from(conns),
            spread: 0.0,
            target: case.target(),
            rounds: None,
        }),
        count => Err(format!("{count} connections are in the table")),
    }
}
