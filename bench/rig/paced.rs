//! What is lost, and how long packets take, at a rate that leaves time: a generator of our own at the other end of a memif
//! link offers half of what ripvsd forwards there at most; dpdk-testpmd is offered the same.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::cases::Case;
use super::process::Process;
use super::ripvsd::Ripvsd;
use super::testpmd::Testpmd;
use super::{in_temp_dir, kept_in, Input};
use crate::machine::stolen;
use crate::micro::Mode;
use crate::stats::median;

/// What is measured, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Seconds for which nothing is to be lost, once quietly and once while the configuration changes.
    #[arg(long, default_value_t = SECONDS)]
    seconds: u64,
    /// Rounds of latency, in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where ripvsd and ripvsadm are.
    #[arg(long)]
    bin: PathBuf,
    /// The generator, built.
    #[arg(long)]
    generator: PathBuf,
    /// The directory where results are kept.
    #[arg(long)]
    results: Option<PathBuf>,
    /// Work without hugepages.
    #[arg(long)]
    no_huge: bool,
}

/// Seconds of a whole run, where nobody wants more.
const SECONDS: u64 = 20;

/// The core of what forwards.
const CORE: usize = 1;

/// Flows that are offered.
const FLOWS: u32 = 65_536;

/// What came of a run of the generator; times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Run {
    offered: u64,
    /// Packets for which the link had no room: the other end was not quick enough.
    refused: u64,
    received: u64,
    latency: [u64; 4],
    /// How long the generator itself was kept from working, at most.
    pause: u64,
    /// For how long the other end was kept from its core, all told: by other programs and by the host of the machine.
    away: [u64; 2],
}

impl Run {
    fn parse(line: &str) -> Option<Run> {
        let mut words = line.split(' ').skip_while(|word| *word != "offered");
        let mut field = |name: &str| {
            (words.next()? == name).then_some(())?;
            words.next()?.parse().ok()
        };
        Some(Run {
            offered: field("offered")?,
            refused: field("refused")?,
            received: field("received")?,
            latency: [
                field("p50")?,
                field("p99")?,
                field("p999")?,
                field("longest")?,
            ],
            pause: field("pause")?,
            away: [0; 2],
        })
    }

    fn lost(&self) -> u64 {
        self.offered.saturating_sub(self.received)
    }
}

/// The generator at one end, and what is measured at the other.
struct Link {
    generator: Process,
    input: Input,
}

impl Link {
    fn new(options: &Options, dir: &Path, name: &str) -> Result<Link, String> {
        let socket = dir.join(format!("{name}.memif"));
        let socket = socket.display();
        let input = Input {
            device: format!(
                "net_memif0,role=client,rsize=14,mac=02:70:63:61:70:00,socket={socket},socket-abstract=no"
            ),
            queues: 1,
            packets: 98_304,
            mbuf_size: 2048,
        };
        let mut args = input.eal(options.no_huge);
        args.extend(
            [
                "--no-pci",
                "--no-telemetry",
                "--lcores=0@0",
                &format!("--file-prefix=generator-{name}-{}", std::process::id()),
                "--vdev",
                &format!("net_memif0,role=server,rsize=14,socket={socket},socket-abstract=no"),
                "--",
                &FLOWS.to_string(),
            ]
            .map(str::to_string),
        );
        let mut generator = Process::start(&options.generator, &args)?;
        generator.wait_for("ready")?;
        Ok(Link { generator, input })
    }

    /// Has the generator offer packets.
    fn offer(&mut self, rate: u64, milliseconds: u64) -> Result<Run, String> {
        self.generator.say(&format!("{rate} {milliseconds}"))?;
        // It may say nothing for as long as it is at it.
        let mut line = Err(String::new());
        for _ in 0..=milliseconds / 60_000 {
            line = self.generator.wait_for("result");
            if line.is_ok() {
                break;
            }
        }
        let line = line?;
        Run::parse(&line).ok_or_else(|| format!("the generator said \"{line}\""))
    }

    /// The same, and for how long what forwards was kept from its core meanwhile.
    fn run(&mut self, to: &Process, rate: u64, milliseconds: u64) -> Result<Run, String> {
        watch(to, || self.offer(rate, milliseconds))
    }
}

/// Notes for how long the process was kept from its core during a run.
fn watch(process: &Process, run: impl FnOnce() -> Result<Run, String>) -> Result<Run, String> {
    let away = || Ok::<_, String>([process.waited()?, stolen(CORE)]);
    let before = away()?;
    let run = run()?;
    let after = away()?;
    Ok(Run {
        away: [0, 1].map(|at| after[at].saturating_sub(before[at])),
        ..run
    })
}

/// A line of the table.
struct Row {
    name: String,
    rate: u64,
    run: Run,
}

/// Measures, prints a table and writes the results.
///
/// # Errors
/// A program cannot be run, or does not do what it is measured for.
pub fn run(options: &Options) -> Result<(), String> {
    if options.rounds == 0 || options.seconds == 0 {
        return Err("--rounds and --seconds: at least 1".into());
    }
    in_temp_dir(|dir| run_in(options, dir))
}

fn run_in(options: &Options, dir: &Path) -> Result<(), String> {
    let case = Case::new(Mode::Dr, FLOWS);
    let mut to_testpmd = Link::new(options, dir, "testpmd")?;
    let eal = to_testpmd.input.eal(options.no_huge);
    let testpmd = Testpmd::start(&case, &to_testpmd.input, &eal)?;
    let mut to_ripvsd = Link::new(options, dir, "ripvsd")?;
    let ripvsd = Ripvsd::start(&case, &to_ripvsd.input, &eal, &options.bin, dir)?;
    ripvsd.add_services(&case)?;
    let turn = |on: &Process, off: &Process| {
        off.pause();
        on.resume();
    };

    println!("Paced, over memif: packets offered a second, lost, and how long they took there and back, µs.");
    println!(
        "{:34} {:>6} {:>10} {:>8} {:>8} {:>8} {:>8} {:>9}",
        "", "Mpps", "offered", "lost", "p50", "p99", "p99.9", "longest"
    );
    let mut rows = Vec::new();
    let mut note = |name: &str, rate: u64, run: Run| {
        show(name, rate, &run);
        rows.push(Row {
            name: name.to_string(),
            rate,
            run,
        });
    };
    turn(ripvsd.running(), testpmd.running());
    // The first packets find the link and make the connections.
    to_ripvsd.run(ripvsd.running(), 100_000, 1_500)?;
    let full = to_ripvsd.run(ripvsd.running(), 0, 2_000)?;
    let most = full.received / 2;
    note("ripvsd, as fast as it goes", most, full);
    turn(testpmd.running(), ripvsd.running());
    to_testpmd.run(testpmd.running(), 100_000, 500)?;
    let full = to_testpmd.run(testpmd.running(), 0, 2_000)?;
    note("testpmd, as fast as it goes", full.received / 2, full);
    let half = most / 2;
    let (mut plain, mut own) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        turn(testpmd.running(), ripvsd.running());
        plain.push(to_testpmd.run(testpmd.running(), half, 1_000)?);
        turn(ripvsd.running(), testpmd.running());
        own.push(to_ripvsd.run(ripvsd.running(), half, 1_000)?);
    }
    note("testpmd, half of ripvsd's rate", half, medians(&plain));
    note("ripvsd, half of its rate", half, medians(&own));
    let run = to_ripvsd.run(ripvsd.running(), half, options.seconds * 1_000)?;
    note(&format!("ripvsd, half, {} s", options.seconds), half, run);
    let over = AtomicBool::new(false);
    let mut changes = Ok(0);
    let run = watch(ripvsd.running(), || {
        std::thread::scope(|scope| {
            let (link, over) = (&mut to_ripvsd, &over);
            let paced = scope.spawn(move || {
                let run = link.offer(half, options.seconds * 1_000);
                over.store(true, Ordering::Relaxed);
                run
            });
            changes = churn(&ripvsd, over);
            paced
                .join()
                .map_err(|_| "the generator's thread panicked")?
        })
    })?;
    let changes = changes?;
    note(
        &format!("ripvsd, half, {} s, {changes} changes", options.seconds),
        half,
        run,
    );
    testpmd.running().resume();
    match &options.results {
        Some(results) => write(&kept_in(results, options.seconds >= SECONDS)?, &rows),
        None => Ok(()),
    }
}

/// The medians of the times of several runs, and the sums of the packets.
fn medians(runs: &[Run]) -> Run {
    let middle = |field: &dyn Fn(&Run) -> u64| {
        let values: Vec<f64> = runs.iter().map(|run| field(run) as f64).collect();
        median(&values) as u64
    };
    Run {
        offered: runs.iter().map(|run| run.offered).sum(),
        refused: runs.iter().map(|run| run.refused).sum(),
        received: runs.iter().map(|run| run.received).sum(),
        latency: [0, 1, 2, 3].map(|at| middle(&|run| run.latency[at])),
        pause: middle(&|run| run.pause),
        away: [0, 1].map(|at| runs.iter().map(|run| run.away[at]).sum()),
    }
}

/// Changes services and real servers that the traffic does not go to, and weights of those that it goes to, until it is over;
/// says how many changes that were.
fn churn(ripvsd: &Ripvsd, over: &AtomicBool) -> Result<u64, String> {
    let mut changes = 0;
    while !over.load(Ordering::Relaxed) {
        let mut text = String::new();
        for service in 0..50 {
            let virt = format!("198.51.100.{service}:80");
            text += &format!("-A -u {virt} -s wrr\n");
            for n in 1..5 {
                text += &format!("-a -u {virt} -r 10.0.1.{n}:80 -g -w {n}\n");
            }
            text += &format!("-E -u {virt} -s wlc\n-e -u {virt} -r 10.0.1.1:80 -g -w 7\n");
            text += &format!("-D -u {virt}\n");
        }
        for weight in [2, 1] {
            text += &format!("-e -u 192.0.2.1:80 -r 10.0.1.1:80 -g -w {weight}\n");
        }
        changes += text.lines().count() as u64;
        ripvsd.adm(&["-R"], &text)?;
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Ok(changes)
}

fn show(name: &str, rate: u64, run: &Run) {
    let [half, most, nearly, longest] = run.latency.map(|ns| ns as f64 / 1000.0);
    println!(
        "{name:34} {:>6.2} {:>10} {:>8} {half:>8.1} {most:>8.1} {nearly:>8.1} {longest:>9.1}",
        rate as f64 / 1e6,
        run.offered,
        run.lost(),
    );
    if run.lost() > 0 {
        let [waited, stolen] = run.away.map(|ns| ns as f64 / 1e6);
        println!(
            "{:34} of them {} found the link full; the core was with other programs for {waited:.1} ms, with the host for \
             {stolen:.0} ms; the generator itself stood still for up to {:.1} ms",
            "",
            run.refused,
            run.pause as f64 / 1e6
        );
    }
}

fn write(dir: &Path, rows: &[Row]) -> Result<(), String> {
    let mut text = format!("# {}\n", crate::machine::machine());
    text += "case,offered_pps,offered,lost,link_full,p50_ns,p99_ns,p999_ns,longest_ns,generator_pause_ns,others_ms,host_ms\n";
    for Row { name, rate, run } in rows {
        let [half, most, nearly, longest] = run.latency;
        text += &format!(
            "\"{name}\",{rate},{},{},{},{half},{most},{nearly},{longest},{},{:.1},{:.0}\n",
            run.offered,
            run.lost(),
            run.refused,
            run.pause,
            run.away[0] as f64 / 1e6,
            run.away[1] as f64 / 1e6,
        );
    }
    let path = dir.join("paced.csv");
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_and_no_round_are_no_run() {
        for (seconds, rounds) in [(0, 1), (1, 0)] {
            let options = Options {
                seconds,
                rounds,
                bin: PathBuf::new(),
                generator: PathBuf::new(),
                results: None,
                no_huge: true,
            };
            assert!(run(&options).unwrap_err().contains("at least 1"));
        }
    }

    #[test]
    fn what_the_generator_says_is_read() {
        let line = "result offered 10 refused 1 received 8 p50 5 p99 6 p999 7 longest 9 pause 3";
        let run = Run::parse(line).unwrap();
        assert_eq!((run.lost(), run.refused), (2, 1));
        assert_eq!((run.latency, run.pause), ([5, 6, 7, 9], 3));
        assert_eq!(Run::parse("result offered 10"), None);
    }
}
