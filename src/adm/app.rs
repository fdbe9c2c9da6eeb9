//! One run of the program: its surroundings, and carrying out what a command line of ipvsadm means.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use ripvs_api::client::socket_path;
use ripvs_api::ipvs::{
    Dest, Info, Reply as IpvsReply, Request as IpvsRequest, Service, ServiceKey,
};
use ripvs_api::pipeline::Event;
use ripvs_api::ripvs::{self, ConnsFrom};
use ripvs_api::{Client, ClientError, Pipeline, Refusal, Reply, Request};
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

/// How many services' dests are asked for at once.
const DUMPS: usize = 512;
/// How many bytes of a listing are written together.
const PIECE: usize = 64 * 1024;

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
            Command::Change(request) => return self.change(request),
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

    /// Has the server carry out a request, says what it refuses, and gives the exit status.
    fn change(&mut self, request: IpvsRequest) -> Result<u8, Exit> {
        let result = match self.client()?.call(request.clone()) {
            Ok(_) => Ok(()),
            Err(ClientError::Refused(refusal)) => Err(refusal),
            Err(other) => return Err(other.into()),
        };
        self.told_of(&request.into(), result)
    }

    /// Says what the server refused, and gives the exit status.
    fn told_of(&mut self, request: &Request, result: Result<(), Refusal>) -> Result<u8, Exit> {
        let Err(refusal) = result else { return Ok(0) };
        let words = match request {
            Request::Ipvs(request) => strerror::message(request, &refusal),
            _ => refusal.to_string(),
        };
        writeln!(self.stderr, "{words}")?;
        Ok(REFUSED)
    }

    /// Carries out commands from standard input. What the server refuses, and options that are none, cost only their
    /// line; anything else that is wrong ends it. The status is that of the last line.
    fn restore(&mut self) -> Result<u8, Exit> {
        let mut text = Vec::new();
        self.stdin.read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let mut lines = restore::lines(&text);
        let mut status = 0;
        loop {
            // Messages and listings come in the order of the lines.
            match self.changes(&mut lines, &mut status)? {
                None => return Ok(status),
                Some(Ok(command @ (Command::Help | Command::Version))) => {
                    return self.carry_out(command);
                }
                Some(Ok(command)) => status = self.carry_out(command)?,
                Some(Err(Wrong::Option(message))) => {
                    writeln!(self.stderr, "{message}")?;
                    status = REFUSED;
                }
                Some(Err(wrong)) => return Err(self.told(wrong)),
            }
        }
    }

    /// Has the server carry out the changes that `lines` begin with, many under way at once, until all are through. What
    /// the first other line says is given back.
    fn changes(
        &mut self,
        lines: &mut impl Iterator<Item = Vec<String>>,
        status: &mut u8,
    ) -> Result<Option<Result<Command, Wrong>>, Exit> {
        let mut read = lines.map(|line| {
            let split = popt::split(specs_of_lines(), &line);
            meaning::read(&split, self.names).map(|(command, _)| command)
        });
        let first = match read.next() {
            Some(Ok(Command::Change(request))) => request,
            other => return Ok(other),
        };
        self.client()?;
        let Some(mut client) = self.client.take() else {
            return Err(nothing());
        };
        let mut pipeline = Pipeline::new(&mut client);
        pipeline.push(first)?;
        let other = loop {
            while pipeline.is_full() {
                if let Some(Event::End(request, result)) = pipeline.next()? {
                    *status = self.told_of(&request, result)?;
                }
            }
            match read.next() {
                Some(Ok(Command::Change(request))) => pipeline.push(request)?,
                other => break other,
            }
        };
        while let Some(event) = pipeline.next()? {
            if let Event::End(request, result) = event {
                *status = self.told_of(&request, result)?;
            }
        }
        self.client = Some(client);
        Ok(other)
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
        self.client()?;
        let Some(mut client) = self.client.take() else {
            return Err(nothing());
        };
        let mut pipeline = Pipeline::new(&mut client);
        let mut asked = services.iter();
        let mut answered = services.iter();
        let mut ahead = 0;
        let (mut dests, mut text) = (Vec::new(), String::new());
        loop {
            for service in asked.by_ref().take(DUMPS - ahead) {
                pipeline.push(IpvsRequest::DumpDests(Some(service.key)))?;
                ahead += 1;
            }
            match pipeline.next()? {
                None => break,
                Some(Event::Reply(Reply::Ipvs(IpvsReply::Dest(dest)))) => dests.push(dest),
                Some(Event::Reply(_)) => {}
                Some(Event::End(request, Err(refusal))) => {
                    let words = match &request {
                        Request::Ipvs(request) => strerror::message(request, &refusal),
                        _ => refusal.to_string(),
                    };
                    return Err(Exit::Failed(NO_LISTING, words + "\n"));
                }
                Some(Event::End(_, Ok(()))) => {
                    ahead -= 1;
                    let found = std::mem::take(&mut dests);
                    let found = if sorted { sort::dests(found) } else { found };
                    if let Some(service) = answered.next() {
                        show(&mut text, service, &found);
                    }
                    if text.len() >= PIECE {
                        self.stdout.write_all(text.as_bytes())?;
                        text.clear();
                    }
                }
            }
        }
        self.stdout.write_all(text.as_bytes())?;
        self.client = Some(client);
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
        let mut text = String::new();
        while let Some(from) = cursor.take() {
            let request = ripvs::Request::Conns(ConnsFrom {
                cursor: from,
                limit: u32::MAX,
            });
            self.client()?;
            let Some(mut client) = self.client.take() else {
                return Err(nothing());
            };
            for reply in client.replies(request)? {
                match reply? {
                    Reply::Ripvs(ripvs::Reply::Conn(conn)) if json => {
                        values.push(json::conn(&conn))
                    }
                    Reply::Ripvs(ripvs::Reply::Conn(conn)) => {
                        conns::line(&mut text, &conn, format, names);
                        if text.len() >= PIECE {
                            self.stdout.write_all(text.as_bytes())?;
                            text.clear();
                        }
                    }
                    Reply::Ripvs(ripvs::Reply::ConnsEnd(end)) => cursor = end.next,
                    _ => {}
                }
            }
            self.client = Some(client);
        }
        self.stdout.write_all(text.as_bytes())?;
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
