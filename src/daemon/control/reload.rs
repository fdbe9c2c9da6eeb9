//! SIGHUP: the configuration file is read again, and what it says otherwise than before is applied as far as that goes
//! without a restart. What was changed at run time by ripvsadm, and not in the file, stays.

use std::path::PathBuf;
use std::sync::Arc;

use ripvs_api::ripvs::Request;
use ripvs_api::{Errno, Refusal};
use ripvs_core::delta::Delta;

use super::network::Network;
use super::Control;
use crate::config::options::Options;
use crate::config::{self, Config};
use crate::logging;

/// Where the configuration came from, and what it said when it was last read.
pub struct Source {
    /// The file, where there is one.
    pub path: Option<PathBuf>,
    /// The options that lie over it.
    pub options: Options,
    /// What both said when they were last read.
    pub config: Config,
    /// What they said at the start.
    pub started_with: Config,
}

impl Control {
    /// Makes it possible to read the configuration again.
    pub fn configured_by(&mut self, source: Source) {
        self.source = Some(source);
    }

    /// Reads the configuration again and applies it; says in the log what became of it.
    pub(super) fn reload(&mut self) {
        let Some(mut source) = self.source.take() else {
            return;
        };
        match self.reload_from(&source) {
            Ok(config) => source.config = config,
            Err(why) => log::error!("SIGHUP: everything stays as it is: {why}"),
        }
        self.source = Some(source);
    }

    fn reload_from(&mut self, source: &Source) -> Result<Config, String> {
        let path = source
            .path
            .as_deref()
            .ok_or("ripvsd was started without a configuration file (--config)")?;
        let new = config::load(Some(path), &source.options).map_err(|error| error.to_string())?;
        self.fleet
            .ready()
            .map_err(|worker| format!("worker {worker} does not answer"))?;
        let old = &source.config;
        let mut changes = self.settings.reconfigure(old, &new, &mut self.fleet);
        if old.log_level != new.log_level {
            changes.push(match logging::set_level(new.log_level) {
                true => format!("log level is {}", new.log_level),
                false => "the log level is RUST_LOG's".into(),
            });
        }
        if old.ftp_ports != new.ftp_ports {
            let ports: Arc<[u16]> = new.ftp_ports.as_slice().into();
            self.fleet.change(|_| Delta::FtpPorts(ports.clone()));
            changes.push(format!("FTP helper: {} ports", new.ftp_ports.len()));
        }
        let exact = &new.exact_services;
        for said in self.master.reconfigure_exact(exact, &mut self.fleet) {
            let words = match said.exact {
                Some(_) => "is scheduled exactly",
                None => "is scheduled as all others",
            };
            changes.push(format!("{} {words}", said.service));
        }
        for request in Network::reconfiguration(old, &new) {
            let ended = self.replay(&ripvs_api::Request::Ripvs(request.clone()));
            if counts_as_configured(&request, &ended) {
                self.network.now_configured(&request);
            }
            match ended {
                Ok(()) => changes.push(words(&request)),
                Err(refusal) => {
                    log::warn!("SIGHUP: {} is not possible: {refusal}", words(&request));
                }
            }
        }
        // The journal's snapshot says what differs from the configuration, which is another one now.
        self.rewrite_journal();
        match changes.len() {
            0 => log::info!(
                "SIGHUP: {} has nothing new that can be applied now",
                path.display()
            ),
            count => log::info!(
                "SIGHUP: {}: {count} changes: {}",
                path.display(),
                changes.join("; ")
            ),
        }
        let later = waiting(&source.started_with, &new);
        if !later.is_empty() {
            log::warn!(
                "SIGHUP: changed in {}, but applied at the next start only: {}",
                path.display(),
                later.join(", ")
            );
        }
        Ok(new)
    }
}

/// Whether the next start will find it so, for the journal: what was removed; what was added, or was there already. What
/// cannot be added yet, as its interface is new, isn't there to be taken away either.
fn counts_as_configured(request: &Request, ended: &Result<(), Refusal>) -> bool {
    let adds = matches!(
        request,
        Request::AddAddr(_)
            | Request::AddRoute(_)
            | Request::AddNeigh(_)
            | Request::AddMark(_)
            | Request::AddDivert(_)
    );
    match ended {
        Ok(()) => true,
        Err(refusal) => !adds || refusal.errno == Errno::EXIST,
    }
}

fn words(request: &Request) -> String {
    match request {
        Request::AddAddr(addr) => format!("address {} on {}", addr.addr, addr.dev),
        Request::DelAddr(addr) => format!("no address {} on {}", addr.addr, addr.dev),
        Request::AddRoute(route) => format!("route to {}", route.prefix),
        Request::DelRoute(route) => format!("no route to {}", route.prefix),
        Request::AddNeigh(neigh) => format!("neighbour {} on {}", neigh.addr, neigh.dev),
        Request::DelNeigh(neigh) => format!("no neighbour {} on {}", neigh.addr, neigh.dev),
        Request::AddMark(rule) => format!("a rule for mark {}", rule.mark),
        Request::DelMark(rule) => format!("a rule less for mark {}", rule.mark),
        Request::AddDivert(divert) => format!("mark {} diverted", divert.mark),
        Request::DelDivert(divert) => format!("mark {} not diverted", divert.mark),
        other => format!("{other:?}"),
    }
}

/// The keys whose values differ and are read at the start only.
fn waiting(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (fixed(old), fixed(new));
    let differs = |(name, value): &&(String, String)| !new.contains(&(name.clone(), value.clone()));
    let mut names: Vec<String> = old
        .iter()
        .filter(differs)
        .map(|(name, _)| name.clone())
        .collect();
    for (name, _) in &new {
        if !old.iter().any(|(known, _)| known == name) {
            names.push(name.clone());
        }
    }
    names
}

/// What is read at the start only, as names with values to be compared.
fn fixed(config: &Config) -> Vec<(String, String)> {
    let workers = match &config.workers {
        config::Workers::Cores(cores) => format!("{:?}", cores.value),
        other => format!("{other:?}"),
    };
    let named = |name: &str, value: String| (name.to_string(), value);
    let mut all = vec![
        named("workers", workers),
        named("connections", config.connections.to_string()),
        named("socket", config.socket.display().to_string()),
        named("socket_mode", format!("{:?}", config.socket_mode)),
        named("socket_group", format!("{:?}", config.socket_group)),
        named("state_dir", format!("{:?}", config.state_dir)),
        named("idle", format!("{:?}", config.idle)),
        named("owner", format!("{:?}", config.owner)),
        named("scheduling", format!("{:?}", config.scheduling)),
        named("mh_table_bits", config.mh_table_bits.to_string()),
        named("icmp_ratelimit", config.icmp_ratelimit.to_string()),
        named("clock", format!("{:?}", config.clock)),
        named("mbufs", config.mbufs.to_string()),
        named("mbuf_size", config.mbuf_size.to_string()),
        named("[eal] args", config.eal_args.join(" ")),
    ];
    let value = |at: &Option<config::At<u16>>| at.as_ref().map(|at| at.value);
    let companion = |at: &Option<config::At<config::values::InterfaceName>>| {
        at.as_ref().map(|at| at.value.0.clone())
    };
    for port in &config.ports {
        let numbers = [
            value(&port.mtu),
            value(&port.rx_queues),
            value(&port.tx_queues),
            value(&port.rx_descriptors),
            value(&port.tx_descriptors),
        ];
        let rest = (port.mac, port.promiscuous, companion(&port.companion));
        all.push((
            format!("port {}", port.name.value),
            format!("{} {numbers:?} {rest:?}", port.device.value),
        ));
    }
    for vlan in &config.vlans {
        let rest = (&vlan.on.value, vlan.id.value, value(&vlan.mtu));
        all.push((format!("vlan {}", vlan.name.value), format!("{rest:?}")));
    }
    for bond in &config.bonds {
        let rest = (&bond.members.value, bond.mode, bond.mac, value(&bond.mtu));
        all.push((
            format!("bond {}", bond.name.value),
            format!("{rest:?} {:?}", companion(&bond.companion)),
        ));
    }
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PORT: &str =
        "[[port]]\nname = \"eth0\"\ndevice = \"net_null0\"\naddresses = [\"198.18.0.254/24\"]\n";

    fn config(text: &str) -> Config {
        config::from_text("", text, &Options::default()).unwrap()
    }

    fn changes(old: &str, new: &str) -> Vec<String> {
        let requests = Network::reconfiguration(&config(old), &config(new));
        requests.iter().map(words).collect()
    }

    #[test]
    fn what_the_file_says_anew_is_asked_for_and_nothing_else() {
        let more = PORT.replace("/24\"]", "/24\", \"10.0.0.1/8\"]")
            + "[[route]]\nprefix = \"10.9.0.0/16\"\nvia = \"10.0.0.2\"\n\
               [[neighbour]]\ninterface = \"eth0\"\naddress = \"10.0.0.2\"\nmac = \"02:00:00:00:00:09\"\n\
               [[mark]]\nmark = 7\ndivert = true\n";
        assert_eq!(changes(PORT, PORT), Vec::<String>::new());
        assert_eq!(
            changes(PORT, &more),
            [
                "address 10.0.0.1/8 on eth0",
                "route to 10.9.0.0/16",
                "neighbour 10.0.0.2 on eth0",
                "a rule for mark 7",
                "mark 7 diverted"
            ]
        );
        assert_eq!(
            changes(&more, PORT),
            [
                "no neighbour 10.0.0.2 on eth0",
                "no route to 10.9.0.0/16",
                "no address 10.0.0.1/8 on eth0",
                "a rule less for mark 7",
                "mark 7 not diverted"
            ]
        );
    }

    #[test]
    fn what_waits_for_a_restart_is_named() {
        let old = config(&format!("workers = 1\n{PORT}"));
        assert_eq!(
            waiting(&old, &config(&format!("# moved\nworkers = 1\n{PORT}"))),
            Vec::<String>::new()
        );
        let new = config(&format!("workers = 2\nidle = \"poll\"\n{PORT}mtu = 1400\n[[vlan]]\nname = \"v\"\non = \"eth0\"\nid = 5\n"));
        assert_eq!(
            waiting(&old, &new),
            ["workers", "idle", "port eth0", "vlan v"]
        );
    }
}
