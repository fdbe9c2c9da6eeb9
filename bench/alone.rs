//! A worker alone, in memory, where the rig can't do it: connections that begin at a rate, so that just so many are in the
//! table; every scheduler; how long a round takes at worst; what a connection takes of memory. Time is the
//! measurement's own: a second has passed when a second's packets are done, however long that took.

use std::fs;

use nix::time::{clock_gettime, ClockId};
use ripvs_core::{SchedKind, Time};

use crate::memory::PoolFrame;
use crate::micro::{reference, Mode, Source};
use crate::stats::{median, percentile, spread};
use crate::traffic::{Proto, Traffic};
use crate::worker::{Bench, Setup, BURST};

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
    #[arg(long, default_value_t = 7)]
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
            What::New { dests: 10, .. } if self.mode == Mode::Dr => Some(200.0),
            What::New { dests: 10, .. } if self.mode == Mode::Nat => Some(300.0),
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
    /// Processor time of a round of the worker: half, 99%, 99.9%, the longest, and the longest of a loop that does nothing;
    /// microseconds.
    rounds: Option<[f64; 5]>,
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
        cases.iter().for_each(|case| println!("{}", case.name()));
        return Ok(());
    }
    println!("A worker alone, in memory; added to a loop that swaps MAC addresses. Processor time of a round of 32 packets in µs.");
    println!(
        "{:58} {:>8} {:>6} {:>7} | {:>6} {:>6} {:>6} {:>7} {:>7}",
        "", "added", "±", "target", "p50", "p99", "p99.9", "longest", "machine"
    );
    let mut csv = format!("# {}\n", crate::machine::machine());
    csv +=
        "case,unit,value,spread,target,round_p50_us,round_p99_us,round_p999_us,round_longest_us,machine_longest_us\n";
    for case in cases {
        let outcome = match case.what {
            What::New { .. } => new(options, &case),
            What::Full { flows, others } => full(options, &case, flows, others),
            What::Handed { over } => handed(options, &case, over),
            What::Memory { conns } => memory(&case, conns),
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
            let path = dir.join("alone.csv");
            let written = fs::create_dir_all(dir).and_then(|()| fs::write(&path, csv));
            written.map_err(|error| format!("{}: {error}", path.display()))
        }
    }
}

fn show(outcome: &Outcome) {
    let target = outcome.target.map_or(String::new(), |t| format!("{t:.0}"));
    print!(
        "{:58} {:>5.1} {:2} {:>6.1} {target:>7} |",
        outcome.name, outcome.value, outcome.unit, outcome.spread
    );
    if let Some([half, most, nearly, longest, machine]) = outcome.rounds {
        print!(" {half:>6.1} {most:>6.1} {nearly:>6.1} {longest:>7.1} {machine:>7.1}");
    }
    println!();
}

fn line(outcome: &Outcome) -> String {
    let target = outcome.target.map_or(String::new(), |t| t.to_string());
    let rounds = match outcome.rounds {
        Some(rounds) => rounds.map(|us| format!(",{us:.2}")).concat(),
        None => ",,,,,".to_string(),
    };
    format!(
        "\"{}\",{},{:.2},{:.2},{target}{rounds}\n",
        outcome.name, outcome.unit, outcome.value, outcome.spread
    )
}

/// Frames of ever other clients, made on the way: a template of which address and port are set and sums put right.
struct Fresh {
    template: Vec<u8>,
    next: u32,
    /// The clients repeat after so many.
    count: u32,
}

impl Fresh {
    /// The next frame's bytes.
    #[inline]
    fn frame(&mut self) -> &[u8] {
        let flow = self.next;
        self.next = if flow + 1 == self.count { 0 } else { flow + 1 };
        // Clients in an order that no hardware foresees: an odd factor permutes the numbers below a power of two.
        let host = flow.wrapping_mul(0x9e37_79b1) & 0x003f_ffff;
        let port = 1024 + (flow >> 22) as u16 + (flow as u16 & 0x1fff);
        let v6 = self.template[12] == 0x86;
        let (addr, l4) = if v6 { (14 + 20, 54) } else { (14 + 12 + 1, 34) };
        let host = host.to_be_bytes();
        // UDP's and TCP's checksums are not right any more; nobody on the way looks at them.
        match v6 {
            false => {
                self.template[addr] = 0x40 | host[1];
                self.template[addr + 1..addr + 3].copy_from_slice(&host[2..]);
            }
            true => self.template[addr..addr + 4].copy_from_slice(&host),
        }
        self.template[l4..l4 + 2].copy_from_slice(&port.to_be_bytes());
        if !v6 {
            self.template[24..26].fill(0);
            let sum = ripvs_packet::checksum::Sum::of(&self.template[14..34]).checksum();
            self.template[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        &self.template
    }

    fn burst(&mut self, bench: &mut Bench, frames: &mut Vec<PoolFrame>) {
        for _ in 0..BURST {
            let bytes = self.frame();
            frames.push(bench.pool.take(bytes));
        }
    }
}

/// Packets that each begin a connection, at such a rate that `live` of them are in the table.
fn new(options: &Options, case: &Case) -> Result<Outcome, String> {
    let What::New {
        live,
        sched,
        dests,
        persistent,
    } = case.what
    else {
        return Err("nothing new".into());
    };
    let traffic = case.traffic(1);
    // SYN's connections last a minute, UDP's a second.
    let lasts: u64 = if case.proto == Proto::Syn { 60 } else { 1 };
    let setup = Setup {
        sched,
        dests,
        udp_timeout: 1,
        persistent: if persistent { 300 } else { 0 },
        ..Setup::new(
            case.mode.forward(),
            live / 2 * if persistent { 8 } else { 4 } + 100_000,
        )
    };
    let mut now = Time(1_000_000_000);
    let mut bench = Bench::new(&traffic, &setup, now).map_err(|error| error.to_string())?;
    let mut fresh = Fresh {
        template: traffic.request(0),
        next: 0,
        // With persistence, clients come again when their connection has ended; their templates stay.
        count: if persistent { live / 2 * 3 } else { 1 << 25 },
    };
    let step = lasts * 1_000_000_000 * BURST as u64 / u64::from(live);
    let mut frames = Vec::with_capacity(BURST);
    // Until as many end as begin.
    for _ in 0..(live as usize * 3 / 2) / BURST {
        fresh.burst(&mut bench, &mut frames);
        now.0 += step;
        bench.round(now, &mut frames);
    }
    let conns = bench.conns();
    let within = f64::from(live) * 0.9..f64::from(live) * 1.6 + 100_000.0;
    if !persistent && !within.contains(&f64::from(conns)) {
        return Err(format!("{conns} connections are in the table"));
    }
    let bursts = (live as usize / BURST / options.rounds.max(1)).max(5_000);
    let (mut added, mut rounds) = (Vec::new(), Vec::with_capacity(bursts * options.rounds));
    for _ in 0..options.rounds {
        let start = cpu();
        for _ in 0..bursts {
            fresh.burst(&mut bench, &mut frames);
            for mut frame in frames.drain(..) {
                crate::micro::swap_macs(&mut frame);
                bench.pool.sent.push(frame);
            }
            bench.pool.recycle();
        }
        let plain = cpu() - start;
        let start = cpu();
        for _ in 0..bursts {
            fresh.burst(&mut bench, &mut frames);
            now.0 += step;
            if bench.round(now, &mut frames) < BURST {
                return Err("not all packets were sent".into());
            }
        }
        let whole = cpu() - start;
        added.push((whole as f64 - plain as f64) / (bursts * BURST) as f64);
        // Once more with the clock read for each round, which would be too much for the above.
        for _ in 0..bursts {
            fresh.burst(&mut bench, &mut frames);
            now.0 += step;
            let start = cpu();
            bench.round(now, &mut frames);
            rounds.push((cpu() - start) as f64 / 1000.0);
        }
    }
    Ok(Outcome {
        name: case.name(),
        unit: "ns",
        value: median(&added),
        spread: spread(&added),
        target: case.target(),
        rounds: Some(percentiles(&mut rounds)),
    })
}

fn percentiles(rounds: &mut [f64]) -> [f64; 5] {
    let machine = disturbance(rounds.iter().sum());
    rounds.sort_by(f64::total_cmp);
    let [half, most, nearly, longest] =
        [0.5, 0.99, 0.999, 1.0].map(|part| percentile(rounds, part));
    [half, most, nearly, longest, machine]
}

/// The longest time between two readings of the clock by a loop that does nothing else, for so many microseconds: interrupts
/// and the machine's neighbours, which lengthen a worker's rounds just so.
fn disturbance(micros: f64) -> f64 {
    let start = cpu();
    let (mut last, mut longest) = (start, 0);
    while ((last - start) as f64) < micros * 1000.0 {
        let now = cpu();
        longest = longest.max(now - last);
        last = now;
    }
    longest as f64 / 1000.0
}

/// What packets of known connections add, and the times of rounds.
fn known(
    options: &Options,
    bench: &mut Bench,
    source: &mut Source,
    now: Time,
) -> Result<(Vec<f64>, Vec<f64>), String> {
    let packets = 1_000_000;
    let mut frames = Vec::with_capacity(BURST);
    let (mut added, mut rounds) = (Vec::new(), Vec::new());
    let mut now = now;
    for round in 0..=options.rounds {
        let plain = reference(source, &mut bench.pool, packets);
        let start = cpu();
        for _ in 0..packets / BURST {
            source.burst(&mut bench.pool, &mut frames);
            now.0 += 1_000;
            if bench.round(now, &mut frames) < BURST {
                return Err("not all packets were sent".into());
            }
        }
        let whole = (cpu() - start) as f64 / (packets / BURST * BURST) as f64;
        for _ in 0..packets / BURST / 4 {
            source.burst(&mut bench.pool, &mut frames);
            now.0 += 1_000;
            let start = cpu();
            bench.round(now, &mut frames);
            rounds.push((cpu() - start) as f64 / 1000.0);
        }
        if round > 0 {
            added.push(whole - plain);
        }
    }
    Ok((added, rounds))
}

/// The same flows in a table that is filled by others, or not.
fn full(options: &Options, case: &Case, flows: u32, others: u32) -> Result<Outcome, String> {
    let traffic = case.traffic(flows + others);
    let now = Time(1_000_000_000);
    let setup = Setup::new(case.mode.forward(), TABLE);
    let mut bench = Bench::new(&traffic, &setup, now).map_err(|error| error.to_string())?;
    bench.establish(&traffic, now)?;
    // Every so many are offered.
    let each = (flows + others) / flows;
    let order = crate::traffic::shuffled(flows);
    let packets = order.into_iter().map(|flow| traffic.request(flow * each));
    let mut source = Source::new(traffic.frame_len(), packets);
    let (added, mut rounds) = known(options, &mut bench, &mut source, now)?;
    Ok(Outcome {
        name: case.name(),
        unit: "ns",
        value: median(&added),
        spread: spread(&added),
        target: case.target(),
        rounds: Some(percentiles(&mut rounds)),
    })
}

/// Two workers on one core, in turn: what handing over takes of both, without what the way between two cores takes.
fn handed(options: &Options, case: &Case, over: bool) -> Result<Outcome, String> {
    use ripvs_core::owner_of_client;
    let traffic = case.traffic(65_536);
    let now = Time(1_000_000_000);
    let setup = Setup {
        workers: 2,
        ..Setup::new(case.mode.forward(), 1 << 17)
    };
    let mut bench = Bench::new(&traffic, &setup, now).map_err(|error| error.to_string())?;
    bench.establish(&traffic, now)?;
    let strange = |flow: &u32| {
        let (addr, port) = crate::traffic::client(case.v6, *flow);
        (owner_of_client(2, crate::worker::SEED, addr, port).0 != 0) == over
    };
    let order = crate::traffic::shuffled(traffic.flows);
    let packets = order.into_iter().filter(strange);
    let packets = packets.map(|flow| traffic.request(flow));
    let mut source = Source::new(traffic.frame_len(), packets);
    let (added, mut rounds) = known(options, &mut bench, &mut source, now)?;
    Ok(Outcome {
        name: case.name(),
        unit: "ns",
        value: median(&added),
        spread: spread(&added),
        target: None,
        rounds: Some(percentiles(&mut rounds)),
    })
}

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
fn memory(case: &Case, conns: u32) -> Result<Outcome, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_comes_twice() {
        let traffic = Case::all()[0].traffic(1);
        for v6 in [false, true] {
            let mut fresh = Fresh {
                template: Traffic { v6, ..traffic }.request(0),
                next: (1 << 22) - 50_000,
                count: 1 << 25,
            };
            let clients: std::collections::HashSet<Vec<u8>> = (0..100_000)
                .map(|_| fresh.frame()[22..58].to_vec())
                .collect();
            assert_eq!(clients.len(), 100_000);
        }
    }
}
