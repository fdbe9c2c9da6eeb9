//! Our own subcommands: the network layer, settings, counters, and the daemon itself. `grammar` is their command line,
//! `words` what stands behind a verb, `show` what the listings look like.

mod grammar;
mod show;
mod words;

use std::time::Duration;

use clap::{CommandFactory, Parser};
use ripvs_api::client::DEFAULT_TIMEOUT;
use ripvs_api::ripvs::{
    Addr, Advance, Divert, Mac, MarkRule, Neigh, NeighState, PortChange, Reply, Request, Route,
    RouteKind, ServiceExact, Settle, SettlePort, Sysctl, SysctlName,
};
use ripvs_api::{ClientError, Reply as AnyReply};
use serde::Serialize;

use crate::app::{App, Exit, NO_LISTING, WRONG};
use grammar::{
    AddrVerb, Cli, Exactness, MarkVerb, NeighVerb, PortVerb, RouteVerb, ServiceVerb, Sub,
    SysctlVerb,
};
use words::Words;

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
