//! ripvsd beside dpdk-testpmd, on the same input and in turn: what balancing adds to forwarding. Each has one core and is fed
//! from memory by net_pcap. What counts is the processor time of the thread that forwards, so that neighbours on the
//! machine disturb little.

mod process;
mod report;
mod ripvsd;
mod testpmd;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ripvs_core::SchedKind;

use crate::micro::Mode;
use crate::stats::{median, spread};
use crate::traffic::{shuffled, write_pcap, Proto, Traffic};
use process::{busiest, Process};
use ripvsd::Ripvsd;
use testpmd::Testpmd;

/// What is measured, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// A few cases and short rounds: about a minute.
    #[arg(long)]
    quick: bool,
    /// Rounds of each.
    #[arg(long)]
    rounds: Option<usize>,
    /// Only cases with all of these words in their name.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where ripvsd and ripvsadm are.
    #[arg(long)]
    bin: PathBuf,
    /// Where results are kept.
    #[arg(long)]
    results: Option<PathBuf>,
    /// Work without hugepages.
    #[arg(long)]
    no_huge: bool,
}

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    mode: Mode,
    v6: bool,
    proto: Proto,
    flows: u32,
    dests: u32,
    services: u32,
    sched: SchedKind,
}

impl fmt::Display for Case {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Dr => "DR",
            Mode::Nat => "NAT",
            Mode::NatOut => "NAT both ways",
            Mode::Tun => "TUN",
        };
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        let proto = match self.proto {
            Proto::Udp => "UDP",
            Proto::Tcp => "TCP",
            Proto::Syn => "SYN",
        };
        write!(out, "{mode} {family} {proto}")?;
        if self.services > 1 {
            write!(out, " {} services", self.services)?;
        }
        if self.dests != DESTS && self.mode != Mode::NatOut {
            write!(out, " {} dests", self.dests)?;
        }
        Ok(())
    }
}

const DESTS: u32 = 10;

impl Case {
    fn new(mode: Mode, flows: u32) -> Case {
        Case {
            mode,
            v6: false,
            proto: Proto::Udp,
            flows,
            // Replies come from the one server that every flow is known to have.
            dests: if mode == Mode::NatOut { 1 } else { DESTS },
            services: 1,
            sched: SchedKind::Rr,
        }
    }

    fn traffic(&self) -> Traffic {
        Traffic {
            v6: self.v6,
            proto: self.proto,
            flows: self.flows,
            services: self.services,
        }
    }

    fn connections(&self) -> u32 {
        (self.flows + self.flows / 20).max(1 << 20)
    }

    /// The packets, in the order in which they come.
    fn frames(&self) -> impl Iterator<Item = Vec<u8>> {
        let traffic = self.traffic();
        let requests = shuffled(self.flows)
            .into_iter()
            .map(move |flow| traffic.request(flow));
        let both = self.mode == Mode::NatOut;
        let answered = if both {
            shuffled(self.flows)
        } else {
            Vec::new()
        };
        let replies = answered
            .into_iter()
            .rev()
            .map(move |flow| traffic.reply(flow, 0));
        requests.chain(replies)
    }

    /// What the added cost is to be, in nanoseconds, where that is said.
    fn target(&self) -> Option<f64> {
        let by_flows = match self.mode {
            Mode::Dr => [24.0, 50.0, 80.0],
            Mode::Nat | Mode::NatOut => [27.0, 55.0, 95.0],
            Mode::Tun => [32.0, 75.0, 100.0],
        };
        let column = match self.flows {
            1_000 => 0,
            65_536 => 1,
            1_000_000 => 2,
            _ => return None,
        };
        let usual = self.proto == Proto::Udp && self.services == 1;
        let more = if self.v6 { [5.0, 10.0, 15.0] } else { [0.0; 3] };
        usual.then(|| by_flows[column] + more[column])
    }
}

fn cases(quick: bool) -> Vec<Case> {
    let flows: &[u32] = match quick {
        true => &[1_000, 1_000_000],
        false => &[1_000, 65_536, 1_000_000],
    };
    let mut cases = Vec::new();
    let modes = [Mode::Dr, Mode::Nat, Mode::NatOut, Mode::Tun];
    for mode in modes {
        if quick && mode == Mode::NatOut {
            continue;
        }
        cases.extend(flows.iter().map(|flows| Case::new(mode, *flows)));
    }
    if quick {
        return cases;
    }
    let usual = cases.clone();
    cases.extend(usual.iter().map(|case| Case { v6: true, ..*case }));
    let tcp = |case: &Case| Case {
        proto: Proto::Tcp,
        ..*case
    };
    cases.extend(usual.iter().filter(|case| case.flows != 65_536).map(tcp));
    for dests in [1, 1_000] {
        let case = Case::new(Mode::Dr, 65_536);
        cases.push(Case { dests, ..case });
    }
    for services in [1_000, 20_000] {
        let case = Case::new(Mode::Dr, 65_536);
        cases.push(Case {
            services,
            dests: 2,
            ..case
        });
    }
    cases
}

/// A file of packets for net_pcap.
struct Input {
    path: PathBuf,
    packets: u32,
}

impl Input {
    fn vdev(&self) -> String {
        format!("net_pcap0,rx_pcap={},infinite_rx=1", self.path.display())
    }

    /// The driver keeps the file's packets in mbufs of their own.
    fn mbufs(&self) -> u32 {
        self.packets + 16_384
    }

    fn mbuf_size(&self) -> u32 {
        2048
    }
}

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

/// Nanoseconds of processor time for a packet, over a while.
fn measure(subject: &mut dyn Subject, length: Duration) -> Result<f64, String> {
    subject.process().resume();
    // The caches were another's meanwhile.
    std::thread::sleep(length / 4);
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
    let time = (busiest(&first.0, &last.0) + busiest(&first.2, &last.2)) as f64 / 2.0;
    match last.1 - first.1 {
        0 => Err("no packets".into()),
        packets => Ok(time / packets as f64),
    }
}

/// What came of a case.
struct Outcome {
    case: Case,
    testpmd: Vec<f64>,
    ripvsd: Vec<f64>,
}

impl Outcome {
    fn added(&self) -> Vec<f64> {
        let pairs = self.ripvsd.iter().zip(&self.testpmd);
        pairs.map(|(full, plain)| full - plain).collect()
    }
}

/// Measures all cases, prints a table and writes the results.
///
/// # Errors
/// A program cannot be run, or does not do what it is measured for.
pub fn run(options: &Options) -> Result<(), String> {
    let dir = std::env::temp_dir().join(format!("ripvs-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let done = run_in(options, &dir);
    // What cannot be removed is a temporary file.
    let _ = std::fs::remove_dir_all(&dir);
    done
}

fn run_in(options: &Options, dir: &Path) -> Result<(), String> {
    report::heading();
    let mut outcomes = Vec::new();
    for case in cases(options.quick) {
        let name = format!("{case} {}", case.flows);
        if !options
            .only
            .iter()
            .all(|word| name.split(' ').any(|own| own == word))
        {
            continue;
        }
        let outcome = compare(options, &case, dir)?;
        report::row(&outcome);
        outcomes.push(outcome);
    }
    match &options.results {
        Some(path) => report::write_csv(path, &outcomes),
        None => Ok(()),
    }
}

fn compare(options: &Options, case: &Case, dir: &Path) -> Result<Outcome, String> {
    let path = dir.join("input.pcap");
    write_pcap(&path, case.frames()).map_err(|error| format!("{}: {error}", path.display()))?;
    let both = if case.mode == Mode::NatOut { 2 } else { 1 };
    let packets = case.flows * both;
    let input = Input { path, packets };
    let eal: Vec<String> = match options.no_huge {
        true => {
            let megabytes = 512 + u64::from(input.mbufs()) * 2500 / 1_000_000;
            vec!["--no-huge".into(), "-m".into(), megabytes.to_string()]
        }
        false => vec!["--in-memory".into()],
    };
    let (length, rounds) = match options.quick {
        true => (Duration::from_millis(500), 5),
        false => (Duration::from_secs(1), 9),
    };
    let rounds = options.rounds.unwrap_or(rounds);
    let mut testpmd = Testpmd::start(&input, &eal)?;
    testpmd.process().pause();
    let mut ripvsd = Ripvsd::start(case, &input, &eal, &options.bin, dir)?;
    let before = ripvsd.counts()?;
    ripvsd.process().pause();
    let mut outcome = Outcome {
        case: *case,
        testpmd: Vec::new(),
        ripvsd: Vec::new(),
    };
    for _ in 0..rounds {
        outcome.testpmd.push(measure(&mut testpmd, length)?);
        outcome.ripvsd.push(measure(&mut ripvsd, length)?);
    }
    ripvsd.process().resume();
    let after = ripvsd.counts()?;
    // Counters of real servers are summed up now and then: what is shown later was counted at `after` or since.
    std::thread::sleep(SUMS);
    let balanced = ripvsd.counts()?.balanced;
    let received = after.received - before.received;
    let all = |count: u64| count as f64 > received as f64 * 0.999;
    if !all(after.forwarded - before.forwarded) || !all(balanced - before.balanced) {
        return Err(format!(
            "{case}: not all was balanced: {before:?}, {after:?}, {balanced}"
        ));
    }
    Ok(outcome)
}

/// The middle and the spread of some measurements.
fn summary(values: &[f64]) -> (f64, f64) {
    (median(values), spread(values))
}
