//! ripvsd with its services, as an operator sets it up: a configuration file, ripvsadm, its counters.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::process::Process;
use super::{Case, Input, Subject};
use crate::micro::Mode;
use crate::traffic::{self, Proto};

/// How long it may take until each flow has its connection.
const PATIENCE: Duration = Duration::from_secs(60);

/// It, at work.
pub struct Ripvsd {
    process: Process,
    adm: PathBuf,
    socket: PathBuf,
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
    /// Starts it, adds the case's services, and waits until every flow is known.
    ///
    /// # Errors
    /// It does not start, or does not come to know the flows.
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
        let mut process = Process::start(&bin.join("ripvsd"), &args)?;
        process.wait_for(" ready after ")?;
        let ripvsd = Ripvsd {
            process,
            adm: bin.join("ripvsadm"),
            socket,
        };
        ripvsd.adm(&["-R"], &services(case))?;
        let until = Instant::now() + PATIENCE;
        while ripvsd.number(&["status", "--json"], "/conns")? < u64::from(case.flows) {
            if Instant::now() > until {
                return Err(format!("{case}: not all flows have a connection"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(ripvsd)
    }

    /// Runs ripvsadm, and returns what it printed.
    fn adm(&self, args: &[&str], input: &str) -> Result<String, String> {
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
        self.number(&["workers", "--json"], "/0/received")
    }
}

fn configuration(case: &Case, input: &Input, eal: &[String], socket: &Path) -> String {
    let v6 = case.v6;
    let addresses = match v6 {
        false => "\"198.18.0.254/16\", \"10.0.255.254/16\"",
        true => "\"2001:db8:18::fe/64\", \"2001:db8:10::fffe/64\"",
    };
    let mut text = format!(
        "workers = 1\nidle = \"poll\"\nconnections = {}\nmbufs = {}\nmbuf_size = {}\nsocket = \"{}\"\n\
         [sysctl]\nsloppy_tcp = 1\n[eal]\nargs = {:?}\n\
         [[port]]\nname = \"eth0\"\ndevice = \"{}\"\naddresses = [{addresses}]\n\
         [[route]]\nprefix = \"{}\"\nvia = \"{}\"\n",
        case.connections(),
        input.mbufs(),
        input.mbuf_size(),
        socket.display(),
        eal,
        input.vdev(),
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
    let mut text = String::new();
    for service in 0..case.services {
        let vport = case.traffic().vport(service);
        let virt = end(traffic::vip(case.v6), vport);
        text += &format!("-A {kind} {virt} -s {}\n", case.sched.name());
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
