//! Our own subcommands: the network layer, settings, counters, and the daemon itself. Their grammar is clap's, and behind
//! a verb the words of ip(8).

mod show;
mod words;

use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use ripvs_api::client::DEFAULT_TIMEOUT;
use ripvs_api::ipvs::{Af, ServiceKey};
use ripvs_api::ripvs::{
    Addr, Advance, Divert, Mac, MarkRule, Neigh, NeighState, PortChange, Prefix, Reply, Request,
    Route, RouteKind, ServiceExact, ServiceName, Settle, SettlePort, Sysctl, SysctlName,
};
use ripvs_api::{ClientError, Reply as AnyReply};
use serde::Serialize;

use crate::app::{App, Exit, NO_LISTING, WRONG};
use words::Words;

/// Shows and changes what ripvsd knows beside services. For services, see `ripvsadm -h`.
#[derive(Debug, Parser)]
#[command(name = "ripvsadm", version, disable_help_subcommand = true)]
struct Cli {
    /// Print listings as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Where ripvsd listens [default: $RIPVS_SOCKET or /run/ripvs/ripvsd.sock].
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
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
enum ListVerb {
    /// List them.
    List,
}

#[derive(Debug, Subcommand)]
enum PortVerb {
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
enum AddrVerb {
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
enum RouteVerb {
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
enum NeighVerb {
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
enum MarkVerb {
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
enum ServiceVerb {
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
enum Exactness {
    On,
    Off,
    Default,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("one").required(true).args(["tcp", "udp", "sctp", "mark"]))]
#[group(skip)]
struct OneService {
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
    fn name(&self) -> ServiceName {
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
enum SysctlVerb {
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

/// Whether `word` is the name of a subcommand.
pub fn is_subcommand(word: &str) -> bool {
    Cli::command()
        .get_subcommands()
        .any(|sub| sub.get_name() == word)
}

/// Carries out a command line that begins with a subcommand, and gives the exit status.
pub fn run(app: &mut App<'_>, args: &[String]) -> Result<u8, Exit> {
    let line = std::iter::once(app.program.clone()).chain(args.iter().cloned());
    let cli = match Cli::try_parse_from(line) {
        Ok(cli) => cli,
        // Help and the version come as errors that are for standard output.
        Err(error) if !error.use_stderr() => {
            app.stdout.write_all(error.to_string().as_bytes())?;
            return Ok(0);
        }
        Err(error) => return Err(Exit::Failed(WRONG, error.to_string())),
    };
    if let Some(socket) = cli.socket {
        app.socket = Some(socket);
    }
    let mut session = Session {
        app,
        json: cli.json,
    };
    session.carry_out(cli.command)
}

/// Shows replies of one kind: as JSON, or as `table` makes text of them.
macro_rules! list {
    ($session:expr, $request:expr, $reply:path, $table:expr) => {{
        let replies = $session.call($request)?;
        let entries: Vec<_> = replies
            .into_iter()
            .filter_map(|reply| match reply {
                $reply(entry) => Some(entry),
                _ => None,
            })
            .collect();
        $session.show(&entries, || $table(&entries))
    }};
}

struct Session<'a, 'b> {
    app: &'a mut App<'b>,
    json: bool,
}

impl Session<'_, '_> {
    fn carry_out(&mut self, command: Sub) -> Result<u8, Exit> {
        match command {
            Sub::Status => self.one(Request::Status, |reply| match reply {
                Reply::Status(status) => Some((show::status(&status), status)),
                _ => None,
            }),
            Sub::Workers => list!(self, Request::Workers, Reply::Worker, show::workers),
            Sub::Drops { .. } => self.one(Request::Verdicts, |reply| match reply {
                Reply::Verdicts(verdicts) => Some((show::verdicts(&verdicts), verdicts)),
                _ => None,
            }),
            Sub::Port { verb } => self.port(verb.unwrap_or(PortVerb::List)),
            Sub::Addr { verb } => self.addr(verb.unwrap_or(AddrVerb::List)),
            Sub::Route { verb } => self.route(verb.unwrap_or(RouteVerb::List)),
            Sub::Neigh { verb } => self.neigh(verb.unwrap_or(NeighVerb::List)),
            Sub::Mark { verb } => self.mark(verb.unwrap_or(MarkVerb::List)),
            Sub::Service { verb } => match verb.unwrap_or(ServiceVerb::List) {
                ServiceVerb::List => {
                    let list = Request::ServiceExacts;
                    list!(self, list, Reply::ServiceExact, show::service_exacts)
                }
                ServiceVerb::Exact { value, service } => {
                    self.change(Request::SetServiceExact(ServiceExact {
                        service: service.name(),
                        exact: match value {
                            Exactness::On => Some(true),
                            Exactness::Off => Some(false),
                            Exactness::Default => None,
                        },
                    }))
                }
            },
            Sub::Sysctl { verb } => self.sysctl(verb.unwrap_or(SysctlVerb::List)),
            Sub::Advance { by } => {
                // A minute takes it a second or so.
                self.app
                    .client()?
                    .set_timeout(by.saturating_add(DEFAULT_TIMEOUT))?;
                let by_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
                self.change(Request::Advance(Advance { by_ms }))
            }
            Sub::Settle { ports, timeout } => self.settle(ports, timeout),
        }
    }

    fn port(&mut self, verb: PortVerb) -> Result<u8, Exit> {
        let (name, words) = match verb {
            PortVerb::List => return list!(self, Request::Ports, Reply::Port, show::ports),
            PortVerb::Set { name, words } => (name, words),
        };
        let mut words = self.words(words);
        let up = words.flag("up").then_some(true);
        let down = words.flag("down").then_some(false);
        let change = PortChange {
            name,
            up: up.or(down),
            mac: words.value("address")?,
            mtu: words.value("mtu")?,
        };
        words.end()?;
        self.change(Request::SetPort(change))
    }

    fn addr(&mut self, verb: AddrVerb) -> Result<u8, Exit> {
        let (addr, words, request): (_, _, fn(Addr) -> Request) = match verb {
            AddrVerb::List => return list!(self, Request::Addrs, Reply::Addr, show::addrs),
            AddrVerb::Add { addr, words } => (addr, words, Request::AddAddr),
            AddrVerb::Del { addr, words } => (addr, words, Request::DelAddr),
        };
        let mut words = self.words(words);
        let dev = words.needed("dev")?;
        words.end()?;
        self.change(request(Addr { addr, dev }))
    }

    fn route(&mut self, verb: RouteVerb) -> Result<u8, Exit> {
        let (prefix, words, request): (_, _, fn(Route) -> Request) = match verb {
            RouteVerb::List => return list!(self, Request::Routes, Reply::Route, show::routes),
            RouteVerb::Add { prefix, words } => (prefix, words, Request::AddRoute),
            RouteVerb::Del { prefix, words } => (prefix, words, Request::DelRoute),
        };
        let mut words = self.words(words);
        let route = Route {
            prefix,
            via: words.value("via")?,
            dev: words.value("dev")?,
            mtu: words.value("mtu")?,
            from: words.value("from")?,
            kind: RouteKind::Static,
        };
        words.end()?;
        self.change(request(route))
    }

    fn neigh(&mut self, verb: NeighVerb) -> Result<u8, Exit> {
        let (addr, words, adding) = match verb {
            NeighVerb::List => return list!(self, Request::Neighs, Reply::Neigh, show::neighs),
            NeighVerb::Add { addr, words } => (addr, words, true),
            NeighVerb::Del { addr, words } => (addr, words, false),
        };
        let mut words = self.words(words);
        let mac: Option<Mac> = if adding {
            Some(words.needed("lladdr")?)
        } else {
            None
        };
        let neigh = Neigh {
            addr,
            dev: words.needed("dev")?,
            mac,
            state: NeighState::Permanent,
            waiting: 0,
        };
        words.end()?;
        self.change(if adding {
            Request::AddNeigh(neigh)
        } else {
            Request::DelNeigh(neigh)
        })
    }

    fn mark(&mut self, verb: MarkVerb) -> Result<u8, Exit> {
        let (mark, words, request): (_, _, fn(MarkRule) -> Request) = match verb {
            MarkVerb::List => return self.list_marks(),
            MarkVerb::Divert { mark } => return self.change(Request::AddDivert(Divert { mark })),
            MarkVerb::Undivert { mark } => return self.change(Request::DelDivert(Divert { mark })),
            MarkVerb::Add { mark, words } => (mark, words, Request::AddMark),
            MarkVerb::Del { mark, words } => (mark, words, Request::DelMark),
        };
        let mut words = self.words(words);
        let rule = MarkRule {
            mark,
            protocol: words.protocol("proto")?,
            src: words.value("src")?,
            dst: words.value("dst")?,
            sports: words.ports("sport")?,
            dports: words.ports("dport")?,
            dev: words.value("dev")?,
        };
        words.end()?;
        self.change(request(rule))
    }

    fn list_marks(&mut self) -> Result<u8, Exit> {
        let mut marks = Marks::default();
        for request in [Request::Marks, Request::Diverts] {
            for reply in self.call(request)? {
                match reply {
                    Reply::Mark(rule) => marks.rules.push(rule),
                    Reply::Divert(divert) => marks.diverted.push(divert.mark),
                    _ => {}
                }
            }
        }
        self.show(&marks, || show::marks(&marks.rules, &marks.diverted))
    }

    fn sysctl(&mut self, verb: SysctlVerb) -> Result<u8, Exit> {
        match verb {
            SysctlVerb::List => list!(self, Request::Sysctls, Reply::Sysctl, show::sysctls),
            SysctlVerb::Get { name } => self.one(
                Request::GetSysctl(SysctlName { name }),
                |reply| match reply {
                    Reply::Sysctl(sysctl) => Some((show::sysctl(&sysctl), sysctl)),
                    _ => None,
                },
            ),
            SysctlVerb::Set { name, value } => self.change(Request::SetSysctl(Sysctl {
                name,
                value: value.join(" "),
            })),
        }
    }

    fn settle(&mut self, ports: Vec<SettlePort>, timeout: Duration) -> Result<u8, Exit> {
        self.app
            .client()?
            .set_timeout(timeout.saturating_add(DEFAULT_TIMEOUT))?;
        let request = Request::Settle(Settle {
            ports,
            timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
        });
        let mut complete = false;
        self.one(request, |reply| match reply {
            Reply::Settled(settled) => {
                complete = settled.complete;
                Some((show::settled(&settled), settled))
            }
            _ => None,
        })?;
        if complete {
            return Ok(0);
        }
        let message = format!("not all is done after {} s", timeout.as_secs_f64());
        Err(self.failed(&message))
    }

    fn words(&self, words: Vec<String>) -> Words {
        Words::new(words, &self.app.program)
    }

    fn failed(&self, message: &str) -> Exit {
        Exit::Failed(NO_LISTING, format!("{}: {message}\n", self.app.program))
    }

    /// The replies to a request.
    fn call(&mut self, request: Request) -> Result<Vec<Reply>, Exit> {
        let result = self.app.client()?.call(request);
        let replies = result.map_err(|error| match error {
            ClientError::Refused(refusal) => self.failed(&refusal.to_string()),
            error => Exit::Failed(WRONG, format!("{}: {error}\n", self.app.program)),
        })?;
        let ours = |reply| match reply {
            AnyReply::Ripvs(reply) => Some(reply),
            _ => None,
        };
        Ok(replies.into_iter().filter_map(ours).collect())
    }

    /// Has the server change something.
    fn change(&mut self, request: Request) -> Result<u8, Exit> {
        self.call(request)?;
        Ok(0)
    }

    /// Shows the one reply to a request, of which `pick` makes text.
    fn one<T: Serialize>(
        &mut self,
        request: Request,
        pick: impl FnMut(Reply) -> Option<(String, T)>,
    ) -> Result<u8, Exit> {
        let reply = self.call(request)?.into_iter().find_map(pick);
        let (text, value) = reply.ok_or_else(|| self.failed("ripvsd gave no answer"))?;
        self.show(&value, || text)
    }

    fn show(&mut self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<u8, Exit> {
        if self.json {
            self.app.show_json(value)?;
        } else {
            self.app.stdout.write_all(text().as_bytes())?;
        }
        Ok(0)
    }
}

/// The rules for marks, and the marks that are diverted.
#[derive(Default, Serialize)]
struct Marks {
    rules: Vec<MarkRule>,
    diverted: Vec<u32>,
}

#[cfg(test)]
mod tests;
