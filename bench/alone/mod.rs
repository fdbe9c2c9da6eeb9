//! A worker alone, in memory, where the rig can't do it: connections that begin at a rate, so that just so many are in the
//! table; every scheduler; how long a round takes at worst; what a connection takes of memory. Time is the
//! measurement's own: a second has passed when a second's packets are done, however long that took.

mod conn_memory;
mod fresh;
mod known;
mod rounds;

use std::fs;

use nix::time::{clock_gettime, ClockId};
use ripvs_core::SchedKind;

use crate::micro::Mode;
use crate::rig::{kept_in, say, NO_CASE};
use crate::stats::{median, spread};
use crate::traffic::{Proto, Traffic};
use rounds::Rounds;

/// Rounds of a whole run, where nobody wants more.
const ROUNDS: usize = 7;

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Only cases with this in their name; several words, separated by commas: with all of them.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    case: Vec<String>,
    /// Name the cases instead of measuring them.
    #[arg(long)]
    list: bool,
    /// Rounds of each kind.
    #[arg(long, default_value_t = ROUNDS)]
    rounds: usize,
    /// The directory where results are kept.
    #[arg(long)]
    results: Option<std::path::PathBuf>,
}

/// A kind of measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    /// Packets that begin connections, so many of which are there.
    New {
        live: u32,
        sched: SchedKind,
        dests: u32,
        persistent: bool,
    },
    /// Known connections, where the table is filled by so many besides.
    Full { flows: u32, others: u32 },
    /// Known connections of two workers, all packets at the right one or all at the other.
    Handed { over: bool },
    /// Memory of a connection.
    Memory { conns: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Case {
    mode: Mode,
    v6: bool,
    proto: Proto,
    what: What,
}

/// Room in the table that is filled more or less.
const TABLE: u32 = 1_000_000;

impl Case {
    fn all() -> Vec<Case> {
        let new = |mode, v6, proto, live| Case {
            mode,
            v6,
            proto,
            what: What::New {
                live,
                sched: SchedKind::Rr,
                dests: 10,
                persistent: false,
            },
        };
        let mut cases = Vec::new();
        for mode in [Mode::Dr, Mode::Nat, Mode::Tun] {
            cases.push(new(mode, false, Proto::Udp, 1_000_000));
            cases.push(new(mode, false, Proto::Udp, 8_000_000));
            cases.push(new(mode, true, Proto::Udp, 1_000_000));
            cases.push(new(mode, false, Proto::Syn, 1_000_000));
        }
        for (sched, _) in SchedKind::ALL {
            let most = if sched == SchedKind::Mh {
                4_000
            } else {
                10_000
            };
            for dests in [10, most] {
                let what = What::New {
                    live: 250_000,
                    sched,
                    dests,
                    persistent: false,
                };
                cases.push(Case {
                    what,
                    ..new(Mode::Dr, false, Proto::Udp, 0)
                });
            }
        }
        let what = What::New {
            live: 250_000,
            sched: SchedKind::Rr,
            dests: 10,
            persistent: true,
        };
        let usual = new(Mode::Dr, false, Proto::Udp, 0);
        cases.push(Case { what, ..usual });
        for others in [0, TABLE / 10 * 8] {
            let flows = TABLE / 10;
            let what = What::Full { flows, others };
            cases.push(Case { what, ..usual });
        }
        for over in [false, true] {
            let what = What::Handed { over };
            cases.push(Case { what, ..usual });
        }
        for v6 in [false, true] {
            let what = What::Memory { conns: 8_000_000 };
            cases.push(Case { what, v6, ..usual });
        }
        cases
    }

    fn name(&self) -> String {
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        let proto = match self.proto {
            Proto::Udp => "UDP",
            Proto::Tcp => "TCP",
            Proto::Syn => "SYN",
        };
        let way = format!("{} {family} {proto}", self.mode.name());
        match self.what {
            What::New {
                live,
                sched,
                dests,
                persistent,
            } => {
                let persistent = if persistent { " persistent" } else { "" };
                let sched = sched.name();
                format!("{way} new, {live} in table, {sched}{persistent}, {dests} dests")
            }
            What::Full { flows, others } => {
                let percent = (flows + others) / (TABLE / 100);
                format!("{way} {flows} flows, table {percent}% full")
            }
            What::Handed { over: true } => format!("{way} 2 workers, hand-over"),
            What::Handed { over: false } => format!("{way} 2 workers, no hand-over"),
            What::Memory { conns } => format!("{family} memory of {conns} connections"),
        }
    }

    fn target(&self) -> Option<f64> {
        match self.what {
            What::New {
                dests: 10,
                persistent: false,
                ..
            } => match self.mode {
                Mode::Dr => Some(200.0),
                Mode::Nat => Some(300.0),
                _ => None,
            },
            What::Memory { .. } => Some(if self.v6 { 144.0 } else { 96.0 }),
            _ => None,
        }
    }

    fn traffic(&self, flows: u32) -> Traffic {
        Traffic {
            v6: self.v6,
            proto: self.proto,
            flows,
            services: 1,
            by_port: false,
        }
    }
}

/// What came of a case.
struct Outcome {
    name: String,
    /// What is measured: nanoseconds, bytes.
    unit: &'static str,
    value: f64,
    spread: f64,
    target: Option<f64>,
    rounds: Option<Rounds>,
}

impl Outcome {
    /// Nanoseconds that packets of a case add, measured several times, and the times of the worker's rounds.
    fn added(case: &Case, added: &[f64], rounds: Rounds) -> Outcome {
        Outcome {
            name: case.name(),
            unit: "ns",
            value: median(added),
            spread: spread(added),
            target: case.target(),
            rounds: Some(rounds),
        }
    }
}

/// Nanoseconds of processor time of this thread: what the machine does besides does not count.
fn cpu() -> u64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(0, |t| {
        t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64
    })
}

/// Measures all cases, prints a table and writes the results.
///
/// # Errors
/// Memory is short, or packets were not forwarded.
pub fn run(options: &Options) -> Result<(), String> {
    let words: Vec<String> = options
        .case
        .iter()
        .map(|word| word.to_lowercase())
        .collect();
    let wanted = |case: &Case| {
        let name = format!(" {} ", case.name().to_lowercase());
        words.iter().all(|word| name.contains(word))
    };
    let cases: Vec<Case> = Case::all().into_iter().filter(wanted).collect();
    if options.list {
        return say(cases.iter().map(|case| case.name() + "\n").collect());
    }
    if options.rounds == 0 {
        return Err("--rounds: at least 1".into());
    }
    if cases.is_empty() {
        return Err(NO_CASE.into());
    }
    println!("A worker alone, in memory; added to a loop that swaps MAC addresses. Rounds of 32 packets, in µs: the least of");
    println!("three runs of each (the worker's own), and behind the second bar as they were, interrupted by the machine.");
    println!(
        "{:58} {:>8} {:>6} {:>7} | {:>6} {:>6} {:>6} {:>7} | {:>6} {:>7}",
        "", "added", "±", "target", "p50", "p99", "p99.9", "longest", "p99.9", "longest"
    );
    let mut csv = format!("# {}\n", crate::machine::machine());
    csv +=
        "case,unit,value,spread,target,round_p50_us,round_p99_us,round_p999_us,round_longest_us,seen_p999_us,seen_longest_us\n";
    for case in cases {
        let outcome = match case.what {
            What::New { .. } => fresh::measure(options, &case),
            What::Full { flows, others } => known::full(options, &case, flows, others),
            What::Handed { over } => known::handed(options, &case, over),
            What::Memory { conns } => conn_memory::measure(&case, conns),
        };
        match outcome {
            Ok(outcome) => {
                show(&outcome);
                csv += &line(&outcome);
            }
            Err(error) => println!("{:58} {error}", case.name()),
        }
    }
    match &options.results {
        None => Ok(()),
        Some(dir) => {
            let whole = words.is_empty() && options.rounds >= ROUNDS;
            let path = kept_in(dir, whole)?.join("alone.csv");
            fs::write(&path, csv).map_err(|error| format!("{}: {error}", path.display()))
        }
    }
}

fn show(outcome: &Outcome) {
    let target = outcome.target.map_or(String::new(), |t| format!("{t:.0}"));
    print!(
        "{:58} {:>5.1} {:2} {:>6.1} {target:>7} |",
        outcome.name, outcome.value, outcome.unit, outcome.spread
    );
    if let Some(Rounds { own, seen }) = &outcome.rounds {
        let [half, most, nearly, longest] = own;
        print!(" {half:>6.1} {most:>6.1} {nearly:>6.1} {longest:>7.1} |");
        print!(" {:>6.1} {:>7.1}", seen[2], seen[3]);
    }
    println!();
}

fn line(outcome: &Outcome) -> String {
    let target = outcome.target.map_or(String::new(), |t| t.to_string());
    let rounds = match &outcome.rounds {
        Some(Rounds { own, seen }) => own
            .iter()
            .chain(&seen[2..])
            .map(|us| format!(",{us:.2}"))
            .collect(),
        None => ",".repeat(6),
    };
    format!(
        "\"{}\",{},{:.2},{:.2},{target}{rounds}\n",
        outcome.name, outcome.unit, outcome.value, outcome.spread
    )
}
