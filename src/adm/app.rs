//! One run of the program: its surroundings, and carrying out what a command line of ipvsadm means.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use ripvs_api::client::socket_path;
use ripvs_api::ipvs::{
    Dest, Info, Reply as IpvsReply, Request as IpvsRequest, Service, ServiceKey,
};
use ripvs_api::ripvs::{self, ConnsFrom};
use ripvs_api::{Client, ClientError, Reply, Request};
use serde_json::{json, Value};

use crate::list::Format;
use crate::meaning::{self, Command, What, Wrong};
use crate::names::Names;
use crate::options::{self, Flag};
use crate::popt;
use crate::{conns, json, list, restore, save, sort, strerror, usage};

/// Exit status where the server refuses, or options are wrong as such: -1.
pub const REFUSED: u8 = 255;
/// Exit status where the command line is wrong, or there is no server.
pub const WRONG: u8 = 2;
/// Exit status where a listing fails.
pub const NO_LISTING: u8 = 1;

/// How many requests at most wait to be sent together when commands are restored.
const BATCH: usize = 4096;
/// How many services' dests are asked for together.
const DUMPS: usize = 64;
/// How many connections are asked for together.
const CONNS: u32 = 4096;

/// The end of a run before its time.
#[derive(Debug)]
pub enum Exit {
    /// With this status and this on standard error.
    Failed(u8, String),
    /// As nobody reads the output any more.
    Unread,
}

impl From<ClientError> for Exit {
    fn from(error: ClientError) -> Exit {
        Exit::Failed(WRONG, format!("{error}\n"))
    }
}

impl From<io::Error> for Exit {
    fn from(error: io::Error) -> Exit {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Exit::Unread,
            _ => Exit::Failed(NO_LISTING, format!("writing failed: {error}\n")),
        }
    }
}

/// The surroundings of a run.
pub struct App<'a> {
    /// The program's name in messages.
    pub program: String,
    /// Where names come from.
    pub names: &'a dyn Names,
    /// Standard input.
    pub stdin: &'a mut dyn Read,
    /// Standard output.
    pub stdout: &'a mut dyn Write,
    /// Standard error.
    pub stderr: &'a mut dyn Write,
    /// The socket that the command line names.
    pub socket: Option<PathBuf>,
    /// The connection, once there is one.
    pub client: Option<Client>,
}

impl App<'_> {
    /// The connection to the server.
    pub fn client(&mut self) -> Result<&mut Client, Exit> {
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&socket_path(self.socket.as_deref()))
                .map_err(|error| Exit::Failed(WRONG, format!("{}: {error}\n", self.program)))?,
        };
        Ok(self.client.insert(client))
    }

    /// Carries out a command line of ipvsadm, and gives the exit status.
    pub fn ipvsadm(&mut self, args: &[String]) -> Result<u8, Exit> {
        let split = popt::split(options::SPECS, args);
        let (command, socket) =
            meaning::read(&split, self.names).map_err(|wrong| self.told(wrong))?;
        if let Some(socket) = socket {
            self.socket = Some(socket);
        }
        match command {
            Command::Restore => self.restore(),
            command => self.carry_out(command),
        }
    }

    /// How a wrong command line ends the program.
    fn told(&self, wrong: Wrong) -> Exit {
        match wrong {
            Wrong::NoCommand => Exit::Failed(REFUSED, usage::try_help(&self.program)),
            Wrong::Option(message) => Exit::Failed(REFUSED, message + "\n"),
            Wrong::Usage(message) => Exit::Failed(WRONG, message + "\n"),
        }
    }

    fn carry_out(&mut self, command: Command) -> Result<u8, Exit> {
        match command {
            Command::Help => {
                let text = usage::help(&self.program);
                self.stdout.write_all(text.as_bytes())?;
            }
            Command::Version => {
                let text = usage::version(&self.program);
                self.stdout.write_all(text.as_bytes())?;
            }
            Command::Change(request) => return self.change(&[request]),
            Command::Save { numeric } => self.save(numeric)?,
            Command::List { what, format, json } => match what {
                What::Services => self.list_services(format, json)?,
                What::Service(key) => self.list_service(key, format, json)?,
                What::Connections => self.list_conns(format, json)?,
                What::Timeouts => self.list_timeouts(json)?,
                What::Daemons => self.list_daemons(json)?,
            },
            Command::Restore => return Err(self.told(Wrong::NoCommand)),
        }
        Ok(0)
    }

    /// Has the server carry out requests, says what it refuses, and gives the exit status of the last one.
    fn change(&mut self, requests: &[IpvsRequest]) -> Result<u8, Exit> {
        let wrapped: Vec<Request> = requests.iter().cloned().map(Request::Ipvs).collect();
        let results = self.client()?.call_all(&wrapped)?;
        let mut status = 0;
        for (request, result) in requests.iter().zip(results) {
            status = match result {
                Ok(()) => 0,
                Err(refusal) => {
                    writeln!(self.stderr, "{}", strerror::message(request, &refusal))?;
                    REFUSED
                }
            };
        }
        Ok(status)
    }

    /// Carries out commands from standard input. What the server refuses, and options that are none, cost only their
    /// line; anything else that is wrong ends it. The status is that of the last line.
    fn restore(&mut self) -> Result<u8, Exit> {
        let mut text = Vec::new();
        self.stdin.read_to_end(&mut text)?;
        let (mut status, mut batch) = (0, Vec::new());
        for args in restore::lines(&String::from_utf8_lossy(&text)) {
            let split = popt::split(specs_of_lines(), &args);
            match meaning::read(&split, self.names) {
                Ok((Command::Change(request), _)) => {
                    batch.push(request);
                    if batch.len() == BATCH {
                        status = self.change(&std::mem::take(&mut batch))?;
                    }
                }
                other => {
                    // Messages and listings come in the order of the lines.
                    if !batch.is_empty() {
                        self.change(&std::mem::take(&mut batch))?;
                    }
                    match other {
                        Ok((command @ (Command::Help | Command::Version), _)) => {
                            return self.carry_out(command);
                        }
                        Ok((command, _)) => status = self.carry_out(command)?,
                        Err(Wrong::Option(message)) => {
                            writeln!(self.stderr, "{message}")?;
                            status = REFUSED;
                        }
                        Err(wrong) => return Err(self.told(wrong)),
                    }
                }
            }
        }
        if !batch.is_empty() {
            status = self.change(&batch)?;
        }
        Ok(status)
    }

    /// Asks for a dump or for one entry, which fails as listings do.
    fn ask(&mut self, request: IpvsRequest) -> Result<Vec<IpvsReply>, Exit> {
        let replies = match self.client()?.call(request.clone()) {
            Err(ClientError::Refused(refusal)) => {
                let message = strerror::message(&request, &refusal);
                return Err(Exit::Failed(NO_LISTING, message + "\n"));
            }
            other => other?,
        };
        let ours = |reply| match reply {
            Reply::Ipvs(reply) => Some(reply),
            _ => None,
        };
        Ok(replies.into_iter().filter_map(ours).collect())
    }

    fn info(&mut self) -> Result<Info, Exit> {
        let replies = self.ask(IpvsRequest::GetInfo)?;
        let info = replies.into_iter().find_map(|reply| match reply {
            IpvsReply::Info(info) => Some(info),
            _ => None,
        });
        info.ok_or_else(nothing)
    }

    fn services(&mut self, sorted: bool) -> Result<Vec<Service>, Exit> {
        let replies = self.ask(IpvsRequest::DumpServices)?;
        let service = |reply| match reply {
            IpvsReply::Service(service) => Some(service),
            _ => None,
        };
        let services: Vec<Service> = replies.into_iter().filter_map(service).collect();
        Ok(if sorted {
            sort::services(services)
        } else {
            services
        })
    }

    /// Hands each service with its dests to `show`, and writes what that makes of them.
    fn each(
        &mut self,
        services: &[Service],
        sorted: bool,
        mut show: impl FnMut(&mut String, &Service, &[Dest]),
    ) -> Result<(), Exit> {
        for some in services.chunks(DUMPS) {
            let requests: Vec<Request> = some
                .iter()
                .map(|service| IpvsRequest::DumpDests(Some(service.key)).into())
                .collect();
            let mut dests: Vec<Vec<Dest>> = vec![Vec::new(); some.len()];
            let results = self.client()?.replies_all(&requests, |number, reply| {
                if let Reply::Ipvs(IpvsReply::Dest(dest)) = reply {
                    dests[number].push(dest);
                }
            })?;
            let mut text = String::new();
            for ((service, dests), result) in some.iter().zip(dests).zip(results) {
                if let Err(refusal) = result {
                    let request = IpvsRequest::DumpDests(Some(service.key));
                    let message = strerror::message(&request, &refusal);
                    return Err(Exit::Failed(NO_LISTING, message + "\n"));
                }
                let dests = if sorted { sort::dests(dests) } else { dests };
                show(&mut text, service, &dests);
            }
            self.stdout.write_all(text.as_bytes())?;
        }
        Ok(())
    }

    fn list_services(&mut self, format: Format, json: bool) -> Result<(), Exit> {
        let info = self.info()?;
        if json {
            let services = self.services(format.sorted)?;
            return self.show_table(json::Table::new(Some(&info)), &services, format);
        }
        let names = self.names;
        self.stdout.write_all(list::headline(&info).as_bytes())?;
        let services = self.services(format.sorted)?;
        self.stdout
            .write_all(list::title(format.columns).as_bytes())?;
        self.each(&services, format.sorted, |out, service, dests| {
            list::service(out, service, dests, format, names);
        })
    }

    fn list_service(&mut self, key: ServiceKey, format: Format, json: bool) -> Result<(), Exit> {
        let replies = self.ask(IpvsRequest::GetService(key))?;
        let service = replies.into_iter().find_map(|reply| match reply {
            IpvsReply::Service(service) => Some(service),
            _ => None,
        });
        let services = [service.ok_or_else(nothing)?];
        if json {
            return self.show_table(json::Table::new(None), &services, format);
        }
        let names = self.names;
        self.stdout
            .write_all(list::title(format.columns).as_bytes())?;
        self.each(&services, format.sorted, |out, service, dests| {
            list::service(out, service, dests, format, names);
        })
    }

    fn show_table(
        &mut self,
        mut table: json::Table,
        services: &[Service],
        format: Format,
    ) -> Result<(), Exit> {
        self.each(services, format.sorted, |_, service, dests| {
            table.add(service, dests);
        })?;
        self.show_json(&table)
    }

    fn save(&mut self, numeric: bool) -> Result<(), Exit> {
        let names = self.names;
        let services = self.services(true)?;
        self.each(&services, true, |out, service, dests| {
            save::service(out, service, dests, numeric, names);
        })
    }

    fn list_conns(&mut self, format: Format, json: bool) -> Result<(), Exit> {
        let names = self.names;
        let mut values = Vec::new();
        // Asked for before anything is written, so that a server that is not there leaves no half listing.
        self.client()?;
        if !json {
            self.stdout.write_all(conns::title(format).as_bytes())?;
        }
        let mut cursor = Some(0);
        while let Some(from) = cursor.take() {
            let request = ripvs::Request::Conns(ConnsFrom {
                cursor: from,
                limit: CONNS,
            });
            let mut text = String::new();
            for reply in self.client()?.call(request)? {
                match reply {
                    Reply::Ripvs(ripvs::Reply::Conn(conn)) if json => {
                        values.push(json::conn(&conn))
                    }
                    Reply::Ripvs(ripvs::Reply::Conn(conn)) => {
                        text += &conns::line(&conn, format, names);
                    }
                    Reply::Ripvs(ripvs::Reply::ConnsEnd(end)) => cursor = end.next,
                    _ => {}
                }
            }
            self.stdout.write_all(text.as_bytes())?;
        }
        if json {
            self.show_json(&json!({ "connections": values }))?;
        }
        Ok(())
    }

    fn list_timeouts(&mut self, json: bool) -> Result<(), Exit> {
        for reply in self.ask(IpvsRequest::GetConfig)? {
            if let IpvsReply::Config(timeouts) = reply {
                if json {
                    self.show_json(&json::timeouts(&timeouts))?;
                } else {
                    self.stdout
                        .write_all(list::timeouts(&timeouts).as_bytes())?;
                }
            }
        }
        Ok(())
    }

    fn list_daemons(&mut self, json: bool) -> Result<(), Exit> {
        let replies = self.ask(IpvsRequest::DumpDaemons)?;
        let daemon = |reply| match reply {
            IpvsReply::Daemon(daemon) => Some(daemon),
            _ => None,
        };
        let daemons = replies.into_iter().filter_map(daemon);
        if json {
            let daemons: Vec<Value> = daemons.map(|daemon| json::daemon(&daemon)).collect();
            return self.show_json(&json!({ "daemons": daemons }));
        }
        for daemon in daemons {
            self.stdout.write_all(list::daemon(&daemon).as_bytes())?;
        }
        Ok(())
    }

    /// Writes a value as JSON, indented.
    pub fn show_json(&mut self, value: &impl serde::Serialize) -> Result<(), Exit> {
        serde_json::to_writer_pretty(&mut *self.stdout, value).map_err(io::Error::from)?;
        Ok(self.stdout.write_all(b"\n")?)
    }
}

/// The options of lines that are restored: all but ours, which are for the whole run.
fn specs_of_lines() -> &'static [popt::Spec<Flag>] {
    let ours = options::SPECS
        .iter()
        .position(|spec| spec.flag == Flag::Json)
        .unwrap_or(options::SPECS.len());
    &options::SPECS[..ours]
}

/// The server answered a question with nothing.
fn nothing() -> Exit {
    Exit::Failed(NO_LISTING, "ripvsd gave no answer\n".into())
}

#[cfg(test)]
pub mod tests;
