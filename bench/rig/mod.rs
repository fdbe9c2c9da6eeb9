//! ripvsd beside dpdk-testpmd, on the same input and in turn: what balancing adds to forwarding. Each has one core and is fed
//! from memory by net_pcap. What counts is the processor time of the thread that forwards, so that neighbours on the
//! machine disturb little.

mod cases;
pub mod control;
mod floor;
pub mod paced;
mod plot;
mod process;
mod report;
mod ripvsd;
mod testpmd;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::distance::round_trip;
use crate::stats::{median, spread};
use crate::traffic::write_pcap;
use cases::Case;
use floor::Floor;
use process::{busiest, Process};
use ripvsd::Ripvsd;
use testpmd::Testpmd;

/// What is measured, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// A few cases and short rounds: about a minute.
    #[arg(long)]
    quick: bool,
    /// Rounds of each program.
    #[arg(long)]
    rounds: Option<usize>,
    /// Milliseconds of a round.
    #[arg(long)]
    length: Option<u64>,
    /// Only cases with this in their name; several words, separated by commas: with all of them.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    case: Vec<String>,
    /// Name the cases instead of measuring them.
    #[arg(long)]
    list: bool,
    /// Where ripvsd and ripvsadm are.
    #[arg(long)]
    bin: PathBuf,
    /// The bare loop, built; without it its column stays empty.
    #[arg(long)]
    floor: Option<PathBuf>,
    /// The directory where results are kept.
    #[arg(long)]
    results: Option<PathBuf>,
    /// Work without hugepages.
    #[arg(long)]
    no_huge: bool,
}

impl Options {
    fn cases(&self) -> Vec<Case> {
        let wanted = |case: &Case| {
            let name = format!(" {} ", case.name().to_lowercase());
            let words = self.case.iter().map(|word| word.to_lowercase());
            (case.quick || !self.quick) && words.into_iter().all(|word| name.contains(&word))
        };
        Case::all().into_iter().filter(wanted).collect()
    }

    /// Whether all cases are measured, as they are meant to be.
    fn whole(&self) -> bool {
        let long = !self.quick && self.length.is_none() && self.rounds() >= ROUNDS;
        self.case.is_empty() && long
    }

    fn length(&self) -> Duration {
        Duration::from_millis(self.length.unwrap_or(500))
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 5 } else { ROUNDS })
    }
}

/// Rounds of a whole run, where nobody wants more.
const ROUNDS: usize = 7;

/// Where packets come from.
struct Input {
    /// The device, as `--vdev` takes it.
    device: String,
    /// How many queues it has.
    queues: usize,
    /// How many packets the drivers keep for themselves.
    packets: u32,
    mbuf_size: u32,
}

impl Input {
    /// Files of packets, a queue each, that net_pcap gives out again and again.
    fn write(case: &Case, dir: &Path) -> Result<Input, String> {
        let mut packets = 0;
        let mut queues = Vec::new();
        for (queue, frames) in case.frames().into_iter().enumerate() {
            let path = dir.join(format!("input{queue}.pcap"));
            write_pcap(&path, frames.inspect(|_| packets += 1))
                .map_err(|error| format!("{}: {error}", path.display()))?;
            queues.push(format!("rx_pcap={}", path.display()));
        }
        Ok(Input {
            device: format!("net_pcap0,{},infinite_rx=1", queues.join(",")),
            queues: queues.len(),
            packets,
            mbuf_size: case.mbuf_size(),
        })
    }

    /// What DPDK's environment is to do about memory.
    fn eal(&self, no_huge: bool) -> Vec<String> {
        if !no_huge {
            return vec!["--in-memory".into()];
        }
        let megabytes = 512 + u64::from(self.mbufs()) * u64::from(self.mbuf_size + 450) / 1_000_000;
        vec!["--no-huge".into(), "-m".into(), megabytes.to_string()]
    }

    /// How many mbufs are wanted.
    fn mbufs(&self) -> u32 {
        self.packets + 16_384
    }
}

/// Where below the results those go that are not of a whole run.
const PART: &str = "part";

/// What there is to say where no case is wanted.
pub const NO_CASE: &str = "no case has all of that in its name; --list names them";

/// Time between two sums of ripvsd's counters for listings, and a little more.
const SUMS: Duration = Duration::from_millis(2300);

/// Something that forwards.
trait Subject {
    /// Its process.
    fn process(&mut self) -> &mut Process;

    /// Packets received so far.
    ///
    /// # Errors
    /// It does not say.
    fn packets(&mut self) -> Result<u64, String>;
}

/// Nanoseconds of processor time for a packet, over a while, of the threads that forward.
fn measure(
    subject: &mut dyn Subject,
    threads: usize,
    settle: Duration,
    length: Duration,
) -> Result<f64, String> {
    subject.process().resume();
    // The caches were another's meanwhile.
    std::thread::sleep(settle);
    let mut read = || -> Result<_, String> {
        let before = subject.process().cpu()?;
        let packets = subject.packets()?;
        let after = subject.process().cpu()?;
        Ok((before, packets, after))
    };
    let first = read()?;
    std::thread::sleep(length);
    let last = read()?;
    subject.process().pause();
    let time = busiest(&first.0, &last.0, threads) + busiest(&first.2, &last.2, threads);
    match last.1 - first.1 {
        0 => Err("no packets".into()),
        packets => Ok(time as f64 / 2.0 / packets as f64),
    }
}

/// What came of a case: nanoseconds a packet, a round each.
struct Outcome {
    case: Case,
    testpmd: Vec<f64>,
    /// Of the bare loop; empty where there is none for the case.
    floor: Vec<f64>,
    ripvsd: Vec<f64>,
    /// With hand-over, nanoseconds that a cache line takes from one worker's core to the other's and back.
    apart: Option<f64>,
}

impl Outcome {
    /// What ripvsd adds to testpmd.
    fn added(&self) -> Vec<f64> {
        let pairs = self.ripvsd.iter().zip(&self.testpmd);
        pairs.map(|(full, plain)| full - plain).collect()
    }

    /// What the bare loop adds to testpmd.
    fn floor_added(&self) -> Vec<f64> {
        let pairs = self.floor.iter().zip(&self.testpmd);
        pairs.map(|(full, plain)| full - plain).collect()
    }
}

/// Measures all cases, prints a table and writes the results.
///
/// # Errors
/// A program cannot be run, or does not do what it is measured for.
pub fn run(options: &Options) -> Result<(), String> {
    if options.list {
        let names = options
            .cases()
            .iter()
            .map(|case| case.name() + "\n")
            .collect();
        return say(names);
    }
    in_temp_dir(|dir| run_in(options, dir))
}

/// Prints a list, of which a reader may have seen enough before its end.
pub fn say(names: Vec<String>) -> Result<(), String> {
    match std::io::stdout().write_all(names.concat().as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// The directory for results of a suite, those of a part of it apart, so that they do not take the place of whole ones.
///
/// # Errors
/// It cannot be made.
pub fn kept_in(results: &Path, whole: bool) -> Result<PathBuf, String> {
    let dir = match whole {
        true => results.to_path_buf(),
        false => results.join(PART),
    };
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    Ok(dir)
}

/// Does something with a directory for its files, which go afterwards.
fn in_temp_dir<T>(f: impl FnOnce(&Path) -> Result<T, String>) -> Result<T, String> {
    let dir = std::env::temp_dir().join(format!("ripvs-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let done = f(&dir);
    // What cannot be removed is a temporary file.
    let _ = std::fs::remove_dir_all(&dir);
    done
}

fn run_in(options: &Options, dir: &Path) -> Result<(), String> {
    if options.rounds() == 0 {
        return Err("--rounds: at least 1".into());
    }
    if options.cases().is_empty() {
        return Err(NO_CASE.into());
    }
    report::heading();
    let mut outcomes = Vec::new();
    let mut failed = Vec::new();
    for case in options.cases() {
        match compare(options, &case, dir) {
            Ok(outcome) => {
                report::row(&outcome);
                outcomes.push(outcome);
            }
            Err(error) => {
                println!("{:36} {:>9} | {error}", case.to_string(), case.flows);
                failed.push(case.name());
            }
        }
        // A long table is not lost with its end, nor does a part of it take the place of a whole one.
        if let Some(results) = &options.results {
            report::write(&kept_in(results, false)?, &outcomes)?;
        }
    }
    let whole = options.whole() && failed.is_empty();
    if let Some(results) = options.results.as_ref().filter(|_| whole) {
        report::write(&kept_in(results, true)?, &outcomes)?;
    }
    match &failed[..] {
        [] => Ok(()),
        failed => Err(format!("not measured: {}", failed.join("; "))),
    }
}

fn compare(options: &Options, case: &Case, dir: &Path) -> Result<Outcome, String> {
    let input = Input::write(case, dir)?;
    let eal = input.eal(options.no_huge);
    let length = options.length();
    // Where connections end, those of before the pause have to go first.
    let settle = match case.new {
        true => Duration::from_millis(2500),
        false => length / 4,
    };
    let threads = case.workers();
    let mut testpmd = Testpmd::start(case, &input, &eal)?;
    testpmd.process().pause();
    let mut floor = match &options.floor {
        Some(program) if case.has_floor() => Some(Floor::start(program, case, &input, &eal)?),
        _ => None,
    };
    if let Some(floor) = &mut floor {
        // Its table fills meanwhile.
        std::thread::sleep(length);
        floor.process().pause();
    }
    let mut ripvsd = Ripvsd::start(case, &input, &eal, &options.bin, dir)?;
    ripvsd.add_services(case)?;
    // With two workers, some flows are left out; where connections end, they are never all there.
    ripvsd.await_conns(match (case.new, case.two) {
        (true, _) => 100_000,
        (false, None) => case.flows,
        (false, Some(_)) => input.packets,
    })?;
    let before = ripvsd.counts()?;
    ripvsd.process().pause();
    let mut outcome = Outcome {
        case: *case,
        testpmd: Vec::new(),
        floor: Vec::new(),
        ripvsd: Vec::new(),
        apart: None,
    };
    for _ in 0..options.rounds() {
        let plain = measure(&mut testpmd, threads, length / 4, length)?;
        outcome.testpmd.push(plain);
        if let Some(floor) = &mut floor {
            let bare = measure(floor, threads, length / 4, length)?;
            outcome.floor.push(bare);
        }
        let full = measure(&mut ripvsd, threads, settle, length)?;
        outcome.ripvsd.push(full);
    }
    if case.hands_over() {
        outcome.apart = round_trip([0, 1]);
    }
    if let Some(floor) = &mut floor {
        floor.process().resume();
        floor.check()?;
        floor.process().pause();
    }
    ripvsd.process().resume();
    let after = ripvsd.counts()?;
    // Counters of real servers are summed up now and then: what is shown later was counted at `after` or since.
    std::thread::sleep(SUMS);
    let balanced = ripvsd.counts()?.balanced;
    let received = after.received - before.received;
    let forwarded = after.forwarded - before.forwarded;
    // What finds a ring full on its way to the other worker is not counted as done, neither here nor for the time.
    let due = if case.hands_over() {
        forwarded
    } else {
        received
    };
    let all = |count: u64| count as f64 > due as f64 * 0.999;
    if !all(forwarded) || !all(balanced - before.balanced) {
        return Err(format!(
            "not all was balanced: {before:?}, {after:?}, {balanced}"
        ));
    }
    Ok(outcome)
}

/// The middle and the spread of some measurements.
fn summary(values: &[f64]) -> (f64, f64) {
    (median(values), spread(values))
}
