//! The machine that results are from.

use std::fs;

/// The machine, as far as it matters, in a line.
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let field = |name: &str| {
        let value = |line: &str| {
            Some(
                line.strip_prefix(name)?
                    .split(':')
                    .nth(1)?
                    .trim()
                    .to_string(),
            )
        };
        cpuinfo.lines().find_map(value).unwrap_or_default()
    };
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let meminfo = read("/proc/meminfo");
    let memory = |name: &str| {
        let value = |line: &str| {
            line.strip_prefix(name)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        };
        meminfo.lines().find_map(value).unwrap_or(0u64)
    };
    format!(
        "{} (family {}, model {}) at {:.0} MHz, {cores} cores, {} of cache, {:.0} GiB of memory, {} hugepages of {} MiB, Linux {}",
        field("model name"),
        field("cpu family"),
        field("model\t"),
        field("cpu MHz").parse::<f64>().unwrap_or(0.0),
        field("cache size"),
        memory("MemTotal:") as f64 / (1 << 20) as f64,
        memory("HugePages_Total:"),
        memory("Hugepagesize:") >> 10,
        kernel.trim()
    )
}

/// For how long the host had this processor otherwise engaged so far, in nanoseconds, in steps of ten milliseconds.
pub fn stolen(core: usize) -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let name = format!("cpu{core} ");
    let line = text.lines().find(|line| line.starts_with(&name));
    let ticks = line.and_then(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok());
    ticks.unwrap_or(0) * 10_000_000
}
