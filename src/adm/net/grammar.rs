//! The command line of our own subcommands, as clap reads it. The words behind a verb, ip(8)'s, are read in `words`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use ripvs_api::ipvs::{Af, ServiceKey};
use ripvs_api::ripvs::{Prefix, ServiceName, SettlePort};

/// Shows and changes what ripvsd knows beside services. For services, see `ripvsadm -h`.
#[derive(Debug, Parser)]
#[command(name = "ripvsadm", version, disable_help_subcommand = true)]
pub struct Cli {
    /// Print listings as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// Where ripvsd listens [default: $RIPVS_SOCKET or /run/ripvs/ripvsd.sock].
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Sub,
}

#[derive(Debug, Subcommand)]
pub enum Sub {
    /// How the daemon is.
    Status,
    /// The workers and what they did.
    Workers,
    /// The interfaces.
    Port {
        #[command(subcommand)]
        verb: Option<PortVerb>,
    },
    /// The balancer's addresses.
    Addr {
        #[command(subcommand)]
        verb: Option<AddrVerb>,
    },
    /// The routes.
    Route {
        #[command(subcommand)]
        verb: Option<RouteVerb>,
    },
    /// The neighbours and their Ethernet addresses.
    Neigh {
        #[command(subcommand)]
        verb: Option<NeighVerb>,
    },
    /// The rules that give packets a firewall mark.
    Mark {
        #[command(subcommand)]
        verb: Option<MarkVerb>,
    },
    /// The settings.
    Sysctl {
        #[command(subcommand)]
        verb: Option<SysctlVerb>,
    },
    /// How single services are scheduled where there are several workers.
    Service {
        #[command(subcommand)]
        verb: Option<ServiceVerb>,
    },
    /// What became of packets, and why some were dropped.
    Drops {
        #[command(subcommand)]
        verb: Option<ListVerb>,
    },
    /// Wait until packets are done: so many received by each interface since the start, and each with its verdict.
    Settle {
        /// An interface and how many frames it is to have received.
        #[arg(value_name = "NAME=FRAMES", value_parser = settle_port)]
        ports: Vec<SettlePort>,
        /// Seconds to wait at most.
        #[arg(long, default_value = "5", value_parser = seconds)]
        timeout: Duration,
    },
    /// Move the clock of a daemon that runs with `clock = "held"`, for tests.
    Advance {
        /// By how many seconds.
        #[arg(value_name = "SECONDS", value_parser = seconds)]
        by: Duration,
    },
}

#[derive(Debug, Subcommand)]
pub enum ListVerb {
    /// List them.
    List,
}

#[derive(Debug, Subcommand)]
pub enum PortVerb {
    /// List them.
    List,
    /// Change one.
    Set {
        /// The interface.
        name: String,
        /// What to change.
        #[arg(value_name = "up|down|mtu BYTES|address MAC", required = true)]
        words: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum AddrVerb {
    /// List them.
    List,
    /// Add one.
    Add {
        /// The address, with the length of its network's prefix.
        addr: Prefix,
        /// The interface.
        #[arg(value_name = "dev NAME", required = true)]
        words: Vec<String>,
    },
    /// Delete one.
    Del {
        /// The address, with the length of its network's prefix.
        addr: Prefix,
        /// The interface.
        #[arg(value_name = "dev NAME", required = true)]
        words: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum RouteVerb {
    /// List them.
    List,
    /// Add one.
    Add {
        /// Where to: a prefix, or `default` (IPv4) or `default6`.
        prefix: Prefix,
        /// Which way, and for which sources.
        #[arg(
            value_name = "via ADDRESS|dev NAME|mtu BYTES|from PREFIX",
            required = true
        )]
        words: Vec<String>,
    },
    /// Delete one.
    Del {
        /// Where to: a prefix, or `default` (IPv4) or `default6`.
        prefix: Prefix,
        /// Which of several.
        #[arg(value_name = "via ADDRESS|dev NAME|mtu BYTES|from PREFIX")]
        words: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum NeighVerb {
    /// List them.
    List,
    /// Add one that stays, or make one stay.
    Add {
        /// Its address.
        addr: IpAddr,
        /// Its Ethernet address and interface.
        #[arg(value_name = "lladdr MAC dev NAME", required = true)]
        words: Vec<String>,
    },
    /// Delete one.
    Del {
        /// Its address.
        addr: IpAddr,
        /// Its interface.
        #[arg(value_name = "dev NAME", required = true)]
        words: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum MarkVerb {
    /// List the rules, and the marks that are diverted.
    List,
    /// Add a rule.
    Add {
        /// The mark.
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        mark: u32,
        /// Which packets get it; all that come in where nothing is told.
        #[arg(value_name = MARK_WORDS)]
        words: Vec<String>,
    },
    /// Delete a rule.
    Del {
        /// The mark.
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        mark: u32,
        /// Which packets get it, as the rule was added.
        #[arg(value_name = MARK_WORDS)]
        words: Vec<String>,
    },
    /// Take packets with a mark for the balancer's own, whatever their address.
    Divert {
        /// The mark.
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        mark: u32,
    },
    /// Undo that.
    Undivert {
        /// The mark.
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        mark: u32,
    },
}

const MARK_WORDS: &str = "proto NAME|src PREFIX|dst PREFIX|sport PORTS|dport PORTS|dev NAME";

#[derive(Debug, Subcommand)]
pub enum ServiceVerb {
    /// List those of which something is said.
    List,
    /// Schedule one at one worker, in the order of one kernel (on), by each worker for itself (off), or as all others
    /// (default); whether or not it is there.
    Exact {
        /// on, off or default.
        value: Exactness,
        #[command(flatten)]
        service: OneService,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Exactness {
    On,
    Off,
    Default,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("one").required(true).args(["tcp", "udp", "sctp", "mark"]))]
#[group(skip)]
pub struct OneService {
    /// A TCP service, such as `192.0.2.100:80` or `[2001:db8::1]:80`.
    #[arg(short = 't', long = "tcp-service", value_name = "ADDRESS:PORT")]
    tcp: Option<SocketAddr>,
    /// A UDP service.
    #[arg(short = 'u', long = "udp-service", value_name = "ADDRESS:PORT")]
    udp: Option<SocketAddr>,
    /// An SCTP service.
    #[arg(long = "sctp-service", value_name = "ADDRESS:PORT")]
    sctp: Option<SocketAddr>,
    /// A service by mark.
    #[arg(short = 'f', long = "fwmark-service", value_name = "MARK", value_parser = clap::value_parser!(u32).range(1..))]
    mark: Option<u32>,
    /// Of IPv6, where it is a service by mark.
    #[arg(short = '6', long = "ipv6", requires = "mark", conflicts_with_all = ["tcp", "udp", "sctp"])]
    v6: bool,
}

impl OneService {
    /// As the control channel names it.
    pub fn name(&self) -> ServiceName {
        let at = [(6, self.tcp), (17, self.udp), (132, self.sctp)];
        let at = at
            .into_iter()
            .find_map(|(protocol, at)| Some((protocol, at?)));
        ServiceName(match at {
            Some((protocol, at)) => ServiceKey::Addr {
                protocol,
                addr: at.ip(),
                port: at.port(),
            },
            None => ServiceKey::Mark {
                mark: self.mark.unwrap_or_default(),
                af: if self.v6 { Af::V6 } else { Af::V4 },
            },
        })
    }
}

#[derive(Debug, Subcommand)]
pub enum SysctlVerb {
    /// List them.
    List,
    /// Show one.
    Get {
        /// Its name, such as net.ipv4.vs.sloppy_tcp.
        name: String,
    },
    /// Change one.
    Set {
        /// Its name, such as net.ipv4.vs.sloppy_tcp.
        name: String,
        /// Its value.
        #[arg(required = true, allow_hyphen_values = true)]
        value: Vec<String>,
    },
}

fn settle_port(text: &str) -> Result<SettlePort, String> {
    let (name, received) = text
        .rsplit_once('=')
        .ok_or_else(|| format!("`{text}` is not NAME=FRAMES (such as eth0=5)"))?;
    let received = received
        .parse()
        .map_err(|_| format!("`{received}` is no number of frames"))?;
    Ok(SettlePort {
        name: name.to_owned(),
        received,
    })
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok();
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| duration.as_millis() <= u32::MAX.into())
        .ok_or_else(|| format!("`{text}` is no number of seconds"))
}
