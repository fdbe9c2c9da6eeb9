//! ripvsd with its services, as an operator sets it up: a configuration file, ripvsadm, its counters.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cases::{Case, SEED};
use super::process::Process;
use super::{Input, Subject};
use crate::micro::Mode;
use crate::traffic::{self, Proto};

/// How long it may take until each flow has its connection.
const PATIENCE: Duration = Duration::from_secs(60);

/// It, at work.
pub struct Ripvsd {
    process: Process,
    adm: PathBuf,
    socket: PathBuf,
    workers: usize,
    /// What of a worker's counters counts as a packet done.
    done: &'static str,
}

/// What it counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Frames that came in.
    pub received: u64,
    /// Frames that were sent on.
    pub forwarded: u64,
    /// Packets of connections, both ways, by the counters of the real servers.
    pub balanced: u64,
}

impl Ripvsd {
    /// Starts it, without services so far.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(
        case: &Case,
        input: &Input,
        eal: &[String],
        bin: &Path,
        dir: &Path,
    ) -> Result<Ripvsd, String> {
        let (config, socket) = (dir.join("ripvsd.toml"), dir.join("ripvsd.sock"));
        std::fs::write(&config, configuration(case, input, eal, &socket))
            .map_err(|error| format!("{}: {error}", config.display()))?;
        let args = ["--config".to_string(), config.display().to_string()];
        let seed = [("RIPVS_SEED", SEED.to_string())];
        let mut process = Process::start_with(&bin.join("ripvsd"), &args, &seed)?;
        process.wait_for(" ready after ")?;
        Ok(Ripvsd {
            process,
            adm: bin.join("ripvsadm"),
            socket,
            workers: case.workers(),
            done: if case.hands_over() {
                "sent"
            } else {
                "received"
            },
        })
    }

    /// Adds the case's services.
    ///
    /// # Errors
    /// ripvsadm fails.
    pub fn add_services(&self, case: &Case) -> Result<(), String> {
        if case.new {
            self.adm(&["--set", "0", "0", "1"], "")?;
        }
        self.adm(&["-R"], &services(case)).map(drop)
    }

    /// Waits until it has so many connections.
    ///
    /// # Errors
    /// That does not come to pass.
    pub fn await_conns(&self, count: u32) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let conns = self.number(&["status", "--json"], "/conns")?;
            if conns >= u64::from(count) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("{conns} of {count} flows have a connection"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Its process, to pause it by.
    pub fn running(&self) -> &Process {
        &self.process
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs ripvsadm, and returns what it printed.
    ///
    /// # Errors
    /// It fails.
    pub fn adm(&self, args: &[&str], input: &str) -> Result<String, String> {
        let failed = |error: std::io::Error| format!("ripvsadm: {error}");
        let mut child = Command::new(&self.adm)
            .arg("--socket")
            .arg(&self.socket)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).map_err(failed)?;
        }
        let output = child.wait_with_output().map_err(failed)?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(format!("ripvsadm {} failed", args.join(" "))),
        }
    }

    fn json(&self, args: &[&str]) -> Result<Value, String> {
        serde_json::from_str(&self.adm(args, "")?).map_err(|error| error.to_string())
    }

    fn number(&self, args: &[&str], at: &str) -> Result<u64, String> {
        let json = self.json(args)?;
        let number = json.pointer(at).and_then(Value::as_u64);
        number.ok_or_else(|| format!("ripvsadm {} shows no {at}", args.join(" ")))
    }

    /// What it counted so far.
    ///
    /// # Errors
    /// It does not say.
    pub fn counts(&self) -> Result<Counts, String> {
        let drops = self.json(&["drops", "--json"])?;
        let count = |key: &str| drops[key].as_u64().unwrap_or(0);
        let listing = self.json(&["-L", "-n", "--stats", "--json"])?;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let mut balanced = 0;
        for service in list(&listing["services"]) {
            for dest in list(&service["dests"]) {
                let stats = &dest["stats"];
                for key in ["inpkts", "outpkts"] {
                    balanced += stats[key].as_u64().unwrap_or(0);
                }
            }
        }
        Ok(Counts {
            received: count("received"),
            forwarded: count("forwarded"),
            balanced,
        })
    }
}

impl Subject for Ripvsd {
    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn packets(&mut self) -> Result<u64, String> {
        let json = self.json(&["workers", "--json"])?;
        let mut sum = 0;
        for worker in 0..self.workers {
            let count = json[worker][self.done].as_u64();
            sum += count.ok_or("ripvsadm workers shows not all of them")?;
        }
        Ok(sum)
    }
}

fn configuration(case: &Case, input: &Input, eal: &[String], socket: &Path) -> String {
    let v6 = case.v6;
    let addresses = match v6 {
        false => "\"198.18.0.254/16\", \"10.0.255.254/16\"",
        true => "\"2001:db8:18::fe/64\", \"2001:db8:10::fffe/64\"",
    };
    let mut text = format!(
        "cores = {:?}\nidle = \"poll\"\nconnections = {}\nmbufs = {}\nmbuf_size = {}\nsocket = \"{}\"\n\
         [sysctl]\nsloppy_tcp = 1\n[eal]\nargs = {:?}\n\
         [[port]]\nname = \"eth0\"\ndevice = \"{}\"\nrx_queues = {}\ntx_queues = {}\naddresses = [{addresses}]\n\
         [[route]]\nprefix = \"{}\"\nvia = \"{}\"\n",
        case.cores(),
        case.connections(),
        input.mbufs(),
        input.mbuf_size,
        socket.display(),
        eal,
        input.device,
        input.queues,
        case.workers(),
        if v6 { "::/0" } else { "0.0.0.0/0" },
        traffic::router(v6),
    );
    let mut neighbour = |addr: std::net::IpAddr, mac: [u8; 6]| {
        let mac: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        text += &format!(
            "[[neighbour]]\ninterface = \"eth0\"\naddress = \"{addr}\"\nmac = \"{}\"\n",
            mac.join(":")
        );
    };
    neighbour(traffic::router(v6), traffic::ROUTER_MAC);
    for n in 0..case.dests {
        neighbour(traffic::server(v6, n), traffic::server_mac(n));
    }
    text
}

fn services(case: &Case) -> String {
    let kind = if case.proto == Proto::Udp { "-u" } else { "-t" };
    let end = |addr: std::net::IpAddr, port: u16| std::net::SocketAddr::new(addr, port);
    let persistent = if case.persistent { " -p 300" } else { "" };
    let mut text = String::new();
    for service in 0..case.services {
        let (addr, vport) = case.traffic().service(service);
        let virt = end(addr, vport);
        text += &format!("-A {kind} {virt} -s {}{persistent}\n", case.sched.name());
        for n in 0..case.dests {
            let (method, port) = match case.mode {
                Mode::Dr => ("-g", vport),
                Mode::Tun => ("-i", vport),
                Mode::Nat | Mode::NatOut => ("-m", traffic::DPORT),
            };
            let dest = end(traffic::server(case.v6, n), port);
            text += &format!("-a {kind} {virt} -r {dest} {method} -w 1\n");
        }
    }
    text
}
