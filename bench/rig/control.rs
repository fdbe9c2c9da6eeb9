//! The control plane at size: 20,000 services with 8 real servers each restored, changed and listed, while packets pass; and
//! a listing of 8 million connections.

use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ripvs_api::client::Client;
use ripvs_api::ipvs::number::forward;
use ripvs_api::ipvs::{DestConfig, DestKey, Request, ServiceKey};

use super::cases::Case;
use super::process::busiest;
use super::ripvsd::Ripvsd;
use super::{in_temp_dir, kept_in, Input, Subject};
use crate::micro::Mode;
use crate::stats::{median, percentile, spread};

/// What is measured, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Rounds of each.
    #[arg(long, default_value_t = ROUNDS)]
    rounds: usize,
    /// Connections that are listed.
    #[arg(long, default_value_t = 8_000_000)]
    connections: u32,
    /// Where ripvsd, ripvsadm and ripvs-exec are.
    #[arg(long)]
    bin: PathBuf,
    /// The directory where results are kept.
    #[arg(long)]
    results: Option<PathBuf>,
    /// Work without hugepages.
    #[arg(long)]
    no_huge: bool,
}

/// Rounds of a whole run, where nobody wants more.
const ROUNDS: usize = 5;

const SERVICES: u32 = 20_000;
const DESTS: u32 = 8;

/// A line of the table.
struct Row {
    name: String,
    unit: &'static str,
    value: f64,
    spread: f64,
    target: &'static str,
}

impl Row {
    fn of(name: &str, unit: &'static str, values: &[f64], target: &'static str) -> Row {
        Row {
            name: name.to_string(),
            unit,
            value: median(values),
            spread: spread(values),
            target,
        }
    }
}

/// The services, as `ipvsadm -R` takes them.
fn whole() -> String {
    let mut text = String::new();
    for service in 0..SERVICES {
        let virt = virt(service);
        text += &format!("-A -t {virt} -s wlc\n");
        for n in 0..DESTS {
            text += &format!("-a -t {virt} -r {}:80 -g -w 1\n", server(n));
        }
    }
    text
}

fn virt(service: u32) -> String {
    format!("172.20.{}.{}:80", service >> 8, service & 0xff)
}

fn server(n: u32) -> IpAddr {
    crate::traffic::server(false, n)
}

/// Measures, prints a table and writes the results.
///
/// # Errors
/// A program cannot be run, or does not do what it is measured for.
pub fn run(options: &Options) -> Result<(), String> {
    println!(
        "The control plane; wall-clock time, with one worker forwarding at full rate meanwhile."
    );
    println!("{:62} {:>10} {:>8} {:>10}", "", "median", "±", "target");
    let mut rows = Vec::new();
    let mut note = |row: Row| {
        println!(
            "{:62} {:>7.2} {:2} {:>8.2} {:>10}",
            row.name, row.value, row.unit, row.spread, row.target
        );
        rows.push(row);
    };
    in_temp_dir(|dir| services(options, dir, &mut note))?;
    in_temp_dir(|dir| connections(options, dir, &mut note))?;
    let Some(results) = &options.results else {
        return Ok(());
    };
    let mut text = format!(
        "# {}\ncase,unit,median,spread,target\n",
        crate::machine::machine()
    );
    for row in rows {
        text += &format!(
            "\"{}\",{},{:.3},{:.3},{}\n",
            row.name, row.unit, row.value, row.spread, row.target
        );
    }
    let path = kept_in(results, options.rounds >= ROUNDS)?.join("control.csv");
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn start(options: &Options, case: &Case, dir: &Path) -> Result<Ripvsd, String> {
    let input = Input::write(case, dir)?;
    let eal = input.eal(options.no_huge);
    let ripvsd = Ripvsd::start(case, &input, &eal, &options.bin, dir)?;
    ripvsd.add_services(case)?;
    ripvsd.await_conns(case.flows)?;
    Ok(ripvsd)
}

/// Nanoseconds of processor time a packet while something is done, and the seconds that it took.
fn during(
    ripvsd: &mut Ripvsd,
    f: impl FnOnce(&Ripvsd) -> Result<(), String>,
) -> Result<(f64, f64), String> {
    let (cpu, packets) = (ripvsd.process().cpu()?, ripvsd.packets()?);
    let begun = Instant::now();
    f(ripvsd)?;
    let took = begun.elapsed().as_secs_f64();
    let (cpu_then, packets_then) = (ripvsd.process().cpu()?, ripvsd.packets()?);
    // The worker's, which is the busiest thread while packets pass.
    let spent = busiest(&cpu, &cpu_then, 1) as f64;
    Ok((spent / (packets_then - packets).max(1) as f64, took))
}

fn services(options: &Options, dir: &Path, note: &mut dyn FnMut(Row)) -> Result<(), String> {
    let mut ripvsd = start(options, &Case::new(Mode::Dr, 65_536), dir)?;
    let text = whole();
    note(one_add(&ripvsd, "-a over the socket, 1 service", "")?);
    let (mut quiet, mut busy, mut took) = (Vec::new(), Vec::new(), Vec::new());
    let (mut leaving, mut left) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let (ns, _) = during(&mut ripvsd, |_| {
            std::thread::sleep(Duration::from_secs(1));
            Ok(())
        })?;
        quiet.push(ns);
        let (ns, seconds) = during(&mut ripvsd, |ripvsd| ripvsd.adm(&["-R"], &text).map(drop))?;
        busy.push(ns);
        took.push(seconds);
        check(&ripvsd)?;
        let (ns, seconds) = during(&mut ripvsd, clear)?;
        leaving.push(ns);
        left.push(seconds);
    }
    let dearer = |busy: &[f64]| -> Vec<f64> {
        let pairs = busy.iter().zip(&quiet);
        pairs
            .map(|(busy, quiet)| (busy / quiet - 1.0) * 100.0)
            .collect()
    };
    let meanwhile = "a packet's processor time meanwhile, dearer by";
    let name = "ripvsadm -R of 20,000 services with 8 dests each";
    note(Row::of(name, "s", &took, "1"));
    note(Row::of(meanwhile, "%", &dearer(&busy), "5"));
    let name = "their removal, one after the other";
    note(Row::of(name, "s", &left, ""));
    let name = format!("{meanwhile} (removal)");
    note(Row::of(&name, "%", &dearer(&leaving), ""));
    let exec = options.bin.join("ripvs-exec");
    if exec.exists() {
        let mut took = Vec::new();
        for _ in 0..options.rounds.min(3) {
            let begun = Instant::now();
            feed(Command::new(&exec).args(["ipvsadm", "-R"]), &ripvsd, &text)?;
            took.push(begun.elapsed().as_secs_f64());
            check(&ripvsd)?;
            clear(&ripvsd)?;
        }
        note(Row::of(
            "unmodified ipvsadm -R of the same",
            "s",
            &took,
            "10",
        ));
    }
    ripvsd.adm(&["-R"], &text)?;
    let more = format!("-a over the socket, {SERVICES} services");
    note(one_add(&ripvsd, &more, "50")?);
    let mut took = Vec::new();
    for _ in 0..options.rounds {
        let begun = Instant::now();
        let lines = ripvsd.adm(&["-Ln"], "")?.lines().count();
        took.push(begun.elapsed().as_secs_f64());
        if lines < (SERVICES * (DESTS + 1)) as usize {
            return Err(format!("-Ln has {lines} lines"));
        }
    }
    note(Row::of("-Ln of all that", "s", &took, "1"));
    Ok(())
}

/// Sees whether all services are there.
fn check(ripvsd: &Ripvsd) -> Result<(), String> {
    let lines = ripvsd.adm(&["-Sn"], "")?.lines().count();
    match lines > (SERVICES * (DESTS + 1)) as usize {
        true => Ok(()),
        false => Err(format!("after the restore, -Sn has {lines} lines")),
    }
}

/// Takes away what was restored, but not what the packets go to.
fn clear(ripvsd: &Ripvsd) -> Result<(), String> {
    let text: String = (0..SERVICES)
        .map(|n| format!("-D -t {}\n", virt(n)))
        .collect();
    ripvsd.adm(&["-R"], &text).map(drop)
}

/// Runs a program with the daemon's socket in its environment and a text on its standard input.
fn feed(command: &mut Command, ripvsd: &Ripvsd, text: &str) -> Result<(), String> {
    use std::io::Write;
    let failed = |error: std::io::Error| format!("{error}");
    let mut child = command
        .env(ripvs_api::SOCKET_ENV, ripvsd.socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).map_err(failed)?;
    }
    match child.wait().map_err(failed)?.success() {
        true => Ok(()),
        false => Err("unmodified ipvsadm failed".into()),
    }
}

/// The time of one `-a` from the request to the answer.
fn one_add(ripvsd: &Ripvsd, name: &str, target: &'static str) -> Result<Row, String> {
    let failed = |error| format!("{error}");
    let mut client = Client::connect(ripvsd.socket()).map_err(failed)?;
    let service = ServiceKey::Addr {
        protocol: 17,
        addr: crate::traffic::vip(false, 0),
        port: crate::traffic::VPORT,
    };
    let mut times = Vec::new();
    for n in 0..1_000 {
        let key = DestKey {
            addr: server(100 + n),
            port: 80,
        };
        let dest = DestConfig {
            key,
            forward: forward::ROUTE,
            weight: 0,
            upper: 0,
            lower: 0,
            tun_type: 0,
            tun_port: 0,
            tun_flags: 0,
        };
        let begun = Instant::now();
        client
            .call(Request::NewDest(service, Ok(dest)))
            .map_err(failed)?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
        client
            .call(Request::DelDest(service, Ok(key)))
            .map_err(failed)?;
    }
    times.sort_by(f64::total_cmp);
    let p99 = percentile(&times, 0.99);
    Ok(Row::of(
        &format!("{name} (p99 {p99:.0})"),
        "µs",
        &times,
        target,
    ))
}

fn connections(options: &Options, dir: &Path, note: &mut dyn FnMut(Row)) -> Result<(), String> {
    let case = Case::new(Mode::Dr, options.connections);
    let ripvsd = start(options, &case, dir)?;
    let begun = Instant::now();
    let mut child = Command::new(options.bin.join("ripvsadm"))
        .arg("--socket")
        .arg(ripvsd.socket())
        .arg("-Lnc")
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("ripvsadm: {error}"))?;
    let mut lines = 0;
    let mut buffer = vec![0; 1 << 18];
    if let Some(mut stdout) = child.stdout.take() {
        while let Ok(count @ 1..) = stdout.read(&mut buffer) {
            lines += buffer[..count]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
        }
    }
    let took = begun.elapsed().as_secs_f64();
    // What it printed is what counts.
    let _ = child.wait();
    if lines < options.connections as usize {
        return Err(format!("-Lnc has {lines} lines"));
    }
    let name = format!(
        "-Lnc of {} connections, million lines a second",
        options.connections
    );
    note(Row::of(&name, "", &[lines as f64 / took / 1e6], "1"));
    Ok(())
}
