//! What the control plane takes: restoring a great many services by both programs, one change at a time over the socket,
//! listings, and the daemon's memory. Each figure is the best of several, with the processor time it took beside it: the
//! machine may have other work.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use ripvs_api::ipvs::{DestConfig, DestKey, Request, ServiceKey};
use ripvs_api::Client;

/// What to measure.
#[derive(Debug, Args)]
pub struct Options {
    /// Where ripvsd, ripvsadm and ripvs-exec are.
    #[arg(long)]
    bin: PathBuf,
    /// Services to restore.
    #[arg(long, default_value_t = 20_000)]
    services: u32,
    /// Dests of each.
    #[arg(long, default_value_t = 8)]
    dests: u32,
    /// Times that each thing is done.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
}

/// How long the daemon may take to be there.
const PATIENCE: Duration = Duration::from_secs(60);
/// Changes of which the time of one is taken.
const CHANGES: u32 = 2000;

/// A daemon without packets, in a directory of its own. Both end with their owner.
struct Daemon {
    child: Child,
    dir: PathBuf,
    bin: PathBuf,
}

/// What one thing took.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    /// Processor time of the daemon, all threads.
    daemon: Duration,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Daemon {
    fn start(bin: &Path) -> Result<Daemon, String> {
        let dir = std::env::temp_dir().join(format!("ripvs-bench-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(text)?;
        let config = format!(
            "workers = 1\nidle = \"adaptive\"\nconnections = 2000\nsocket = \"{0}/sock\"\nstate_dir = \"{0}/state\"\n\
             [eal]\nargs = [\"--no-huge\"]\n\
             [[port]]\nname = \"eth0\"\ndevice = \"net_null0,no-rx=1\"\naddresses = [\"198.18.0.254/16\"]\n",
            dir.display()
        );
        fs::write(dir.join("ripvsd.toml"), config).map_err(text)?;
        let log = File::create(dir.join("log")).map_err(text)?;
        let child = Command::new(bin.join("ripvsd"))
            .arg("--config")
            .arg(dir.join("ripvsd.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(text)?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("ripvsd cannot be started: {error}"))?;
        let mut daemon = Daemon {
            child,
            dir,
            bin: bin.to_path_buf(),
        };
        let until = Instant::now() + PATIENCE;
        while Client::connect(&daemon.socket()).is_err() {
            let ended = daemon.child.try_wait().map_err(text)?.is_some();
            if ended || Instant::now() > until {
                let said = fs::read_to_string(daemon.dir.join("log")).unwrap_or_default();
                return Err(format!("ripvsd does not come up:\n{said}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let time = |path: PathBuf| -> Option<u64> {
            let text = fs::read_to_string(path.join("schedstat")).ok()?;
            text.split(' ').next()?.parse().ok()
        };
        let tasks = tasks.into_iter().flatten().flatten();
        Duration::from_nanos(tasks.filter_map(|task| time(task.path())).sum())
    }

    /// Anonymous memory that is resident, in megabytes.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kilobytes.unwrap_or(0u64) / 1024
    }

    /// Runs ripvsadm.
    fn adm(&self, args: &[&str], input: Option<&Path>) -> Result<Cost, String> {
        let mut command = Command::new(self.bin.join("ripvsadm"));
        command.arg("--socket").arg(self.socket()).args(args);
        self.run(command, input)
    }

    /// Runs the unmodified ipvsadm.
    fn ipvsadm(&self, args: &[&str], input: Option<&Path>) -> Result<Cost, String> {
        let mut command = Command::new(self.bin.join("ripvs-exec"));
        command.arg("ipvsadm").args(args);
        command.env("RIPVS_SOCKET", self.socket());
        self.run(command, input)
    }

    fn run(&self, mut command: Command, input: Option<&Path>) -> Result<Cost, String> {
        let input = match input {
            Some(path) => File::open(path).map_err(text)?.into(),
            None => Stdio::null(),
        };
        let output = File::create(self.dir.join("output")).map_err(text)?;
        let (cpu, start) = (self.cpu(), Instant::now());
        let status = command.stdin(input).stdout(output).status().map_err(text)?;
        let wall = start.elapsed();
        match status.success() {
            true => Ok(Cost {
                wall,
                daemon: self.cpu() - cpu,
            }),
            false => Err(format!("{command:?} failed")),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has nothing to lose but what goes with the directory.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The virtual service of a number.
fn virt(service: u32) -> String {
    let host = service / 20;
    format!(
        "10.100.{}.{}:{}",
        host / 250,
        host % 250 + 1,
        1000 + service % 20
    )
}

/// As many services with as many dests, as `-S -n` shows them.
fn rules(services: u32, dests: u32) -> String {
    let mut text = String::new();
    for service in 0..services {
        let virt = virt(service);
        let _ = writeln!(text, "-A -t {virt} -s wlc");
        for dest in 0..dests {
            let n = service * dests + dest;
            let (a, b, c) = (1 + n / 62_500 % 90, n / 250 % 250, n % 250 + 1);
            let _ = writeln!(text, "-a -t {virt} -r 10.{a}.{b}.{c}:80 -g -w {}", dest + 1);
        }
    }
    text
}

/// The best time and the median of one `-a` of many, each waited for.
fn one_change(daemon: &Daemon) -> Result<(Duration, Duration), String> {
    let mut client = Client::connect(&daemon.socket()).map_err(text)?;
    let key = ServiceKey::Addr {
        protocol: 6,
        addr: "10.100.0.1".parse().map_err(text)?,
        port: 1000,
    };
    let mut times = Vec::new();
    for n in 0..CHANGES {
        let dest = DestConfig {
            key: DestKey {
                addr: "10.99.0.1".parse().map_err(text)?,
                port: 1 + n as u16,
            },
            forward: ripvs_api::ipvs::number::forward::ROUTE,
            weight: 1,
            upper: 0,
            lower: 0,
            tun_type: 0,
            tun_port: 0,
            tun_flags: 0,
        };
        let start = Instant::now();
        client.call(Request::NewDest(key, Ok(dest))).map_err(text)?;
        times.push(start.elapsed());
        client
            .call(Request::DelDest(key, Ok(dest.key)))
            .map_err(text)?;
    }
    times.sort_unstable();
    Ok((times[0], times[times.len() / 2]))
}

/// Whether there is a program of that name where programs are.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The best of several runs.
fn best(rounds: u32, mut run: impl FnMut() -> Result<Cost, String>) -> Result<Cost, String> {
    let mut best = run()?;
    for _ in 1..rounds {
        let cost = run()?;
        if cost.wall < best.wall {
            best = cost;
        }
    }
    Ok(best)
}

fn show(what: &str, cost: Cost) {
    println!(
        "{what:<42} {:>9.1} ms, {:>7.1} ms of ripvsd's processor time",
        cost.wall.as_secs_f64() * 1e3,
        cost.daemon.as_secs_f64() * 1e3
    );
}

/// Measures, and prints a table.
///
/// # Errors
/// A program is not there or fails, in words.
pub fn run(options: &Options) -> Result<(), String> {
    let daemon = Daemon::start(&options.bin)?;
    let file = |name: &str, services: u32| {
        let path = daemon.dir.join(name);
        let written = fs::write(&path, rules(services, options.dests));
        written.map(|()| path).map_err(text)
    };
    let (few, many) = (file("few", 10)?, file("many", options.services)?);
    let empty = daemon.memory();
    daemon.adm(&["-R"], Some(&few))?;
    let change = |(least, median): (Duration, Duration), services: u32| {
        println!(
            "one -a of {services} services over the socket {:>9.1} us at best, {:.1} us in the median",
            least.as_secs_f64() * 1e6,
            median.as_secs_f64() * 1e6
        );
    };
    change(one_change(&daemon)?, 10);
    daemon.adm(&["-C"], None)?;
    let lines = options.services * (1 + options.dests);
    let restore = best(options.rounds, || {
        daemon.adm(&["-C"], None)?;
        daemon.adm(&["-R"], Some(&many))
    })?;
    show(&format!("ripvsadm -R of {lines} lines"), restore);
    change(one_change(&daemon)?, options.services);
    show(
        "ripvsadm -Ln",
        best(options.rounds, || daemon.adm(&["-Ln"], None))?,
    );
    println!(
        "memory of ripvsd: {empty} MB without services, {} MB with them",
        daemon.memory()
    );
    if is_installed("ipvsadm") {
        daemon.adm(&["-C"], None)?;
        show(
            &format!("ipvsadm -R of {lines} lines"),
            daemon.ipvsadm(&["-R"], Some(&many))?,
        );
        show("ipvsadm -Ln", daemon.ipvsadm(&["-Ln"], None)?);
        let again = daemon.ipvsadm(&["-a", "-t", &virt(0), "-r", "10.98.0.1:80"], None)?;
        show("ipvsadm -a, the whole program", again);
    }
    Ok(())
}
