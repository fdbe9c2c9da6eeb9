//! What a split command line of ipvsadm means: values are read and checked in the order, and with the words, of the
//! original. Nothing is asked of the server here.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ripvs_api::ipvs::number::{flag, forward, sync_state, tunnel, IFNAME_MAX, SCHED_NAME_MAX};
use ripvs_api::ipvs::{
    Af, DestConfig, DestKey, Request, ServiceConfig, ServiceKey, SyncDaemon, Timeouts,
};

use crate::address;
use crate::cnum::{atoi, inet_aton, number};
use crate::list::{Columns, Format};
use crate::names::Names;
use crate::options::{CommandName, Flag, Opt, Options};
use crate::popt::{Found, Split};
use crate::sched_flags;

/// The longest timeout: 31 days.
const MAX_TIMEOUT: i64 = 86_400 * 31;
/// The timeout of `-p` without a value.
const DEFAULT_PERSISTENCE: u32 = 360;
/// The scheduler where none is told.
const DEFAULT_SCHEDULER: &str = "wlc";
/// The interface of a synchronisation daemon where none is told.
const DEFAULT_MCAST_INTERFACE: &str = "eth0";
/// The longest message of a synchronisation daemon: what UDP in IPv4 carries.
const MAX_SYNC_MAXLEN: i64 = 65_535 - 20 - 8;

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Show how the program is used.
    Help,
    /// Show the program's version.
    Version,
    /// Have the server change something.
    Change(Request),
    /// List something.
    List {
        /// What.
        what: What,
        /// How.
        format: Format,
        /// As JSON.
        json: bool,
    },
    /// Print the commands that make what there is.
    Save {
        /// With numbers instead of names.
        numeric: bool,
    },
    /// Read commands and carry them out.
    Restore,
}

/// What is to be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// All services.
    Services,
    /// One service.
    Service(ServiceKey),
    /// Connections.
    Connections,
    /// Timeouts.
    Timeouts,
    /// Synchronisation daemons.
    Daemons,
}

/// What is wrong with a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It does not begin with a command; where to find help is all that is said.
    NoCommand,
    /// An option is wrong as such: only that line of what is restored is lost.
    Option(String),
    /// Anything else.
    Usage(String),
}

/// Ends with a usage error, where a value is none.
fn wrong<T>(message: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong::Usage(message.into()))
}

/// What a command line says, gathered option by option.
struct Draft<'a> {
    names: &'a dyn Names,
    options: Options,
    af: Option<Af>,
    protocol: u16,
    addr: IpAddr,
    port: u16,
    fwmark: u32,
    sched: String,
    sched_flags: String,
    flags: u32,
    timeout: u32,
    netmask: u32,
    pe: String,
    dest_af: Option<Af>,
    dest: DestConfig,
    daemon: SyncDaemon,
    socket: Option<PathBuf>,
}

/// Reads a split command line. With it comes the socket that it names.
///
/// # Errors
/// [`Wrong`].
pub fn read(split: &Split<Flag>, names: &dyn Names) -> Result<(Command, Option<PathBuf>), Wrong> {
    let (first, others) = split.found.split_first().ok_or(Wrong::NoCommand)?;
    let mut draft = Draft::new(names);
    let command = match first.flag {
        Flag::Help => return Ok((Command::Help, None)),
        Flag::Version => return Ok((Command::Version, None)),
        _ => draft.command(first)?,
    };
    for found in others {
        draft.option(found)?;
    }
    if let Some((fault, argument)) = &split.fault {
        return Err(Wrong::Option(format!("{argument}: {}", fault.text())));
    }
    let mut rest = split.rest.iter();
    let mut timeouts = Timeouts::default();
    if command == CommandName::Set {
        let (Some(tcp), Some(tcp_fin), Some(udp)) = (rest.next(), rest.next(), rest.next()) else {
            return wrong("--set option requires 3 timeout values");
        };
        timeouts.tcp = Some(timeout(tcp, 0)?);
        timeouts.tcp_fin = Some(timeout(tcp_fin, 0)?);
        timeouts.udp = Some(timeout(udp, 0)?);
    }
    if let Some(argument) = rest.next() {
        return wrong(format!("unexpected argument {argument}"));
    }
    draft.flags |= sched_flags::parse(&draft.sched, &draft.sched_flags).map_err(Wrong::Usage)?;
    draft.options.check(command).map_err(Wrong::Usage)?;
    let socket = draft.socket.take();
    Ok((draft.finish(command, timeouts)?, socket))
}

impl<'a> Draft<'a> {
    fn new(names: &'a dyn Names) -> Draft<'a> {
        Draft {
            names,
            options: Options::default(),
            af: None,
            protocol: 0,
            addr: Ipv4Addr::UNSPECIFIED.into(),
            port: 0,
            fwmark: 0,
            sched: String::new(),
            sched_flags: String::new(),
            flags: 0,
            timeout: 0,
            netmask: !0,
            pe: String::new(),
            dest_af: None,
            dest: DestConfig {
                key: DestKey {
                    addr: Ipv4Addr::UNSPECIFIED.into(),
                    port: 0,
                },
                forward: forward::ROUTE,
                weight: 1,
                upper: 0,
                lower: 0,
                tun_type: tunnel::IPIP,
                tun_port: 0,
                tun_flags: tunnel::NOCSUM,
            },
            daemon: SyncDaemon::default(),
            socket: None,
        }
    }

    /// Reads the first option, which is the command.
    fn command(&mut self, found: &Found<Flag>) -> Result<CommandName, Wrong> {
        let state = match found.value.as_deref() {
            Some("master") => Some(sync_state::MASTER),
            Some("backup") => Some(sync_state::BACKUP),
            _ => None,
        };
        Ok(match found.flag {
            Flag::Add => CommandName::Add,
            Flag::Edit => CommandName::Edit,
            Flag::Delete => CommandName::Delete,
            Flag::Clear => CommandName::Clear,
            Flag::List => CommandName::List,
            Flag::Zero => CommandName::Zero,
            Flag::AddServer => CommandName::AddServer,
            Flag::EditServer => CommandName::EditServer,
            Flag::DeleteServer => CommandName::DeleteServer,
            Flag::Set => CommandName::Set,
            Flag::Restore => CommandName::Restore,
            Flag::Save => CommandName::Save,
            Flag::StartDaemon => match state {
                Some(state) => {
                    self.daemon.state = state;
                    CommandName::StartDaemon
                }
                None => return wrong("illegal start-daemon parameter specified"),
            },
            Flag::StopDaemon => match state {
                Some(state) => {
                    self.daemon.state = state;
                    CommandName::StopDaemon
                }
                None => return wrong("illegal start_daemon specified"),
            },
            _ => return Err(Wrong::NoCommand),
        })
    }

    /// Reads one of the other options.
    fn option(&mut self, found: &Found<Flag>) -> Result<(), Wrong> {
        let value = found.value.as_deref().unwrap_or_default();
        match found.flag {
            Flag::Tcp => self.service(6, value)?,
            Flag::Udp => self.service(17, value)?,
            Flag::Sctp => self.service(132, value)?,
            Flag::Fwmark => self.fwmark(value)?,
            Flag::Ipv6 => {
                if self.fwmark == 0 {
                    return wrong("-6 used before -f\n");
                }
                (self.af, self.netmask) = (Some(Af::V6), 128);
            }
            Flag::Scheduler => {
                self.set(Opt::Scheduler)?;
                self.sched = cut(value, SCHED_NAME_MAX);
            }
            Flag::SchedFlags => {
                self.set(Opt::SchedFlags)?;
                self.sched_flags = value.to_owned();
            }
            Flag::Pe => {
                self.set(Opt::Pe)?;
                self.pe = cut(value, SCHED_NAME_MAX);
            }
            Flag::Persistent => {
                self.set(Opt::Persistent)?;
                self.flags |= flag::PERSISTENT;
                self.timeout = match &found.value {
                    Some(value) => timeout(value, 1)?,
                    None => DEFAULT_PERSISTENCE,
                };
            }
            Flag::Netmask => self.netmask(value)?,
            Flag::Ops => {
                self.set(Opt::Ops)?;
                self.flags |= flag::ONE_PACKET;
            }
            Flag::Server => self.server(value)?,
            Flag::Masquerading => self.forward(forward::MASQ)?,
            Flag::Ipip => self.forward(forward::TUNNEL)?,
            Flag::Gatewaying => self.forward(forward::ROUTE)?,
            Flag::Weight => {
                self.set(Opt::Weight)?;
                self.dest.weight = at_most_int(value, "illegal weight specified")?;
            }
            Flag::Upper => {
                self.set(Opt::Upper)?;
                self.dest.upper = at_most_int(value, "illegal u_threshold specified")? as u32;
            }
            Flag::Lower => {
                self.set(Opt::Lower)?;
                self.dest.lower = at_most_int(value, "illegal l_threshold specified")? as u32;
            }
            Flag::TunType | Flag::TunPort | Flag::TunNocsum | Flag::TunCsum | Flag::TunRemcsum => {
                self.tunnel(found.flag, value)?
            }
            Flag::McastInterface
            | Flag::SyncId
            | Flag::McastGroup
            | Flag::McastPort
            | Flag::McastTtl
            | Flag::SyncMaxlen => self.daemon(found.flag, value)?,
            Flag::Sort => {}
            Flag::Socket => self.socket = Some(value.into()),
            _ => return self.listing(found),
        }
        Ok(())
    }

    /// Reads an option of listings; what is none either is an option that has no place there: a second command.
    fn listing(&mut self, found: &Found<Flag>) -> Result<(), Wrong> {
        let opt = match found.flag {
            Flag::Numeric => Opt::Numeric,
            Flag::Connection => Opt::Connection,
            Flag::Timeout => Opt::Timeout,
            Flag::Daemon => Opt::Daemon,
            Flag::Stats => Opt::Stats,
            Flag::Rate => Opt::Rate,
            Flag::Thresholds => Opt::Thresholds,
            Flag::PersistentConn => Opt::PersistentConn,
            Flag::TunInfo => Opt::TunInfo,
            Flag::NoSort => Opt::NoSort,
            Flag::Exact => Opt::Exact,
            Flag::Json => Opt::Json,
            _ => return wrong(format!("invalid option `{}'", found.argument)),
        };
        self.set(opt)
    }

    fn set(&mut self, opt: Opt) -> Result<(), Wrong> {
        self.options.set(opt).map_err(Wrong::Usage)
    }

    fn service(&mut self, protocol: u16, value: &str) -> Result<(), Wrong> {
        self.set(Opt::Service)?;
        self.protocol = protocol;
        let Some((addr, port)) = address::parse(self.names, value, protocol) else {
            return wrong("illegal virtual server address[:port] specified");
        };
        (self.addr, self.af) = (addr, Some(Af::of(addr)));
        self.port = port.unwrap_or(self.port);
        if addr.is_ipv6() {
            self.netmask = 128;
        }
        Ok(())
    }

    fn fwmark(&mut self, value: &str) -> Result<(), Wrong> {
        self.set(Opt::Service)?;
        // A protocol that names no mark's packets, but by which names of its dests' ports are found.
        (self.af, self.protocol) = (Some(Af::V4), 6);
        match number(value, 1, u32::MAX.into()) {
            Some(mark) => self.fwmark = mark as u32,
            None => return wrong(format!("invalid fwmark value `{value}' specified")),
        }
        Ok(())
    }

    fn netmask(&mut self, value: &str) -> Result<(), Wrong> {
        self.set(Opt::Netmask)?;
        if self.af == Some(Af::V6) {
            match atoi(value) {
                length @ 1..=128 => self.netmask = length as u32,
                _ => return wrong("illegal ipv6 netmask specified"),
            }
        } else {
            match inet_aton(value).or_else(|| self.names.host(value)) {
                Some(mask) => self.netmask = mask.into(),
                None => return wrong("illegal virtual server persistent mask specified"),
            }
        }
        Ok(())
    }

    fn server(&mut self, value: &str) -> Result<(), Wrong> {
        self.set(Opt::Server)?;
        let Some((addr, port)) = address::parse(self.names, value, self.protocol) else {
            return wrong("illegal real server address[:port] specified");
        };
        self.dest_af = Some(Af::of(addr));
        self.dest.key = DestKey {
            addr,
            port: port.unwrap_or(self.port),
        };
        Ok(())
    }

    fn forward(&mut self, method: u32) -> Result<(), Wrong> {
        self.set(Opt::Forward)?;
        self.dest.forward = method;
        Ok(())
    }

    fn tunnel(&mut self, flag: Flag, value: &str) -> Result<(), Wrong> {
        match flag {
            Flag::TunType => {
                self.set(Opt::TunType)?;
                self.dest.tun_type = match TUNNELS.iter().position(|name| *name == value) {
                    Some(kind) => kind as u8,
                    None => return wrong("illegal tunnel type specified"),
                };
            }
            Flag::TunPort => {
                self.set(Opt::TunPort)?;
                self.dest.tun_port = match number(value, 1, 65_535) {
                    Some(port) => port as u16,
                    None => return wrong("illegal tunnel port specified"),
                };
            }
            Flag::TunCsum => {
                self.set(Opt::TunCsum)?;
                self.dest.tun_flags |= tunnel::CSUM;
            }
            Flag::TunRemcsum => {
                self.set(Opt::TunRemcsum)?;
                self.dest.tun_flags |= tunnel::REMCSUM;
            }
            _ => self.set(Opt::TunNocsum)?,
        }
        Ok(())
    }

    fn daemon(&mut self, flag: Flag, value: &str) -> Result<(), Wrong> {
        let bounded = |min, max, message: &str| number(value, min, max).ok_or(message.to_owned());
        let result = match flag {
            Flag::McastInterface => {
                self.set(Opt::McastInterface)?;
                self.daemon.mcast_ifn = Some(cut(value, IFNAME_MAX));
                Ok(())
            }
            Flag::SyncId => {
                self.set(Opt::SyncId)?;
                bounded(0, 255, "illegal syncid specified")
                    .map(|id| self.daemon.sync_id = Some(id as u32))
            }
            Flag::McastGroup => {
                self.set(Opt::McastGroup)?;
                address::multicast(value).map(|group| self.daemon.mcast_group = Some(group))
            }
            Flag::McastPort => {
                self.set(Opt::McastPort)?;
                bounded(1, 65_535, "illegal mcast-port specified")
                    .map(|port| self.daemon.mcast_port = Some(port as u16))
            }
            Flag::McastTtl => {
                self.set(Opt::McastTtl)?;
                bounded(1, 255, "illegal mcast-ttl specified")
                    .map(|ttl| self.daemon.mcast_ttl = Some(ttl as u8))
            }
            _ => {
                self.set(Opt::SyncMaxlen)?;
                bounded(1, MAX_SYNC_MAXLEN, "illegal sync-maxlen specified")
                    .map(|length| self.daemon.sync_maxlen = Some(length as u16))
            }
        };
        result.map_err(Wrong::Usage)
    }

    /// What names the service.
    fn key(&self) -> ServiceKey {
        match self.fwmark {
            0 => ServiceKey::Addr {
                protocol: self.protocol,
                addr: self.addr,
                port: self.port,
            },
            mark => ServiceKey::Mark {
                mark,
                af: self.af.unwrap_or(Af::V4),
            },
        }
    }

    /// Puts the command together, when all options are read and go with one another.
    fn finish(mut self, command: CommandName, timeouts: Timeouts) -> Result<Command, Wrong> {
        let key = self.key();
        Ok(Command::Change(match command {
            CommandName::Add => Request::NewService(key, self.service_config()?),
            CommandName::Edit => Request::SetService(key, self.service_config()?),
            CommandName::Delete => Request::DelService(key),
            CommandName::AddServer => Request::NewDest(key, Ok(self.dest_config()?)),
            CommandName::EditServer => Request::SetDest(key, Ok(self.dest_config()?)),
            CommandName::DeleteServer => Request::DelDest(key, Ok(self.dest.key)),
            CommandName::Zero => Request::Zero(self.options.has(Opt::Service).then_some(key)),
            CommandName::Clear => Request::Flush,
            CommandName::Set => Request::SetConfig(timeouts),
            CommandName::StartDaemon => {
                let name = self.daemon.mcast_ifn.filter(|name| !name.is_empty());
                self.daemon.mcast_ifn = name.or_else(|| Some(DEFAULT_MCAST_INTERFACE.into()));
                self.daemon.sync_id.get_or_insert(0);
                Request::NewDaemon(self.daemon)
            }
            CommandName::StopDaemon => Request::DelDaemon(self.daemon),
            CommandName::Restore => return Ok(Command::Restore),
            CommandName::Save => {
                let numeric = self.options.has(Opt::Numeric);
                return Ok(Command::Save { numeric });
            }
            CommandName::List => return self.list(),
        }))
    }

    fn service_config(&mut self) -> Result<ServiceConfig, Wrong> {
        if self.fwmark == 0 && self.port == 0 && self.flags & flag::PERSISTENT == 0 {
            return wrong("Zero port specified for non-persistent service");
        }
        if self.flags & flag::ONE_PACKET != 0 && self.fwmark == 0 && self.protocol != 17 {
            return wrong("One-Packet Scheduling is only for UDP virtual services");
        }
        let sched = match self.sched.as_str() {
            "" => DEFAULT_SCHEDULER,
            sched => sched,
        };
        Ok(ServiceConfig {
            sched: sched.to_owned(),
            pe: Some(self.pe.clone()).filter(|pe| !pe.is_empty()),
            flags: self.flags,
            mask: !0,
            timeout: self.timeout,
            netmask: self.netmask,
        })
    }

    fn dest_config(&mut self) -> Result<DestConfig, Wrong> {
        let is_tunnel = self.dest.forward == forward::TUNNEL;
        // Only NAT can change a port. With a mark there is no port that the dest's could have to be.
        if self.fwmark == 0 && self.dest.forward != forward::MASQ {
            self.dest.key.port = self.port;
        }
        if self.dest_af != self.af && !is_tunnel {
            return wrong("Different address family is allowed only for tunneling servers");
        }
        let tunnel_options = [
            Opt::TunType,
            Opt::TunPort,
            Opt::TunNocsum,
            Opt::TunCsum,
            Opt::TunRemcsum,
        ];
        if self.options.any(&tunnel_options) && !is_tunnel {
            return wrong("Tunnel options conflict with forward method");
        }
        let kind = TUNNELS.get(usize::from(self.dest.tun_type)).copied();
        self.options
            .check_tunnel(kind.unwrap_or_default())
            .map_err(Wrong::Usage)?;
        Ok(self.dest)
    }

    fn list(self) -> Result<Command, Wrong> {
        let options = self.options;
        let whole = [Opt::Timeout, Opt::Daemon];
        if (options.has(Opt::Connection) || options.any(&whole))
            && options.any(&[Opt::Stats, Opt::Rate, Opt::Thresholds])
            || options.any(&whole) && options.has(Opt::PersistentConn)
        {
            return wrong("options conflicts in the list command");
        }
        let what = if options.has(Opt::Connection) {
            What::Connections
        } else if options.has(Opt::Service) {
            What::Service(self.key())
        } else if options.has(Opt::Timeout) {
            What::Timeouts
        } else if options.has(Opt::Daemon) {
            What::Daemons
        } else {
            What::Services
        };
        // Of several, the first in this order is shown.
        let columns = [
            (Opt::Stats, Columns::Stats),
            (Opt::Rate, Columns::Rate),
            (Opt::Thresholds, Columns::Thresholds),
            (Opt::PersistentConn, Columns::PersistentConn),
            (Opt::TunInfo, Columns::TunInfo),
        ];
        let columns = columns.iter().find(|(opt, _)| options.has(*opt));
        Ok(Command::List {
            what,
            format: Format {
                columns: columns.map_or(Columns::Usual, |(_, columns)| *columns),
                numeric: options.has(Opt::Numeric),
                exact: options.has(Opt::Exact),
                sorted: !options.has(Opt::NoSort),
                persistence: options.has(Opt::PersistentConn),
            },
            json: options.has(Opt::Json),
        })
    }
}

/// Names of tunnel types, by their numbers.
pub const TUNNELS: [&str; 3] = ["ipip", "gue", "gre"];

/// The first `length` bytes of a name, or a little less where a character ends beyond.
fn cut(name: &str, length: usize) -> String {
    let mut end = name.len().min(length);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}

/// A timeout in seconds.
fn timeout(value: &str, min: i64) -> Result<u32, Wrong> {
    match number(value, min, MAX_TIMEOUT) {
        Some(seconds) => Ok(seconds as u32),
        None => wrong(format!("invalid timeout value `{value}' specified")),
    }
}

/// A number that is not negative and fits a C int.
fn at_most_int(value: &str, message: &str) -> Result<i32, Wrong> {
    match number(value, 0, i32::MAX.into()) {
        Some(value) => Ok(value as i32),
        None => wrong(message),
    }
}
