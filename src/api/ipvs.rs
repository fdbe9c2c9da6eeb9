//! The generic netlink family `IPVS` of `linux/ip_vs.h`, version 1: its requests and replies as types.
//!
//! Decoding requests is as tolerant, and refuses in the same order with the same error numbers, as the kernel's
//! net/netfilter/ipvs/ip_vs_ctl.c. What the kernel judges against its own state (names of schedulers, weights,
//! thresholds, forwarding methods) is passed on as it came.

mod dest;
mod misc;
pub mod number;
mod service;
mod stats;

pub use dest::{Dest, DestConfig, DestKey};
pub use misc::{Info, SyncDaemon, Timeouts};
pub use service::{Af, Service, ServiceConfig, ServiceKey};
pub use stats::Stats;

use crate::errno::Errno;
use crate::nl::{DecodeError, Header, Table, Writer};
use number::{attr, cmd};

/// The family's name.
pub const NAME: &str = "IPVS";
/// The family's version, sent and not checked.
pub const VERSION: u8 = 1;

/// The attributes of a command.
type CommandTable<'a> = Table<'a, { attr::TIMEOUT_UDP as usize + 1 }>;

/// What a client asks for.
///
/// Where a dest could not be read, the error is kept: the kernel reports it only after it has found the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Add a service.
    NewService(ServiceKey, ServiceConfig),
    /// Change a service.
    SetService(ServiceKey, ServiceConfig),
    /// Delete a service and its dests.
    DelService(ServiceKey),
    /// Show one service.
    GetService(ServiceKey),
    /// Show all services.
    DumpServices,
    /// Add a dest to a service.
    NewDest(ServiceKey, Result<DestConfig, Errno>),
    /// Change a dest.
    SetDest(ServiceKey, Result<DestConfig, Errno>),
    /// Delete a dest.
    DelDest(ServiceKey, Result<DestKey, Errno>),
    /// Show the dests of a service. Where the service could not be read (`None`) or is not there, the dump is empty.
    DumpDests(Option<ServiceKey>),
    /// Start a synchronisation daemon.
    NewDaemon(SyncDaemon),
    /// Stop a synchronisation daemon.
    DelDaemon(SyncDaemon),
    /// Show the synchronisation daemons.
    DumpDaemons,
    /// Set connection timeouts, those that are given and not 0.
    SetConfig(Timeouts),
    /// Show connection timeouts.
    GetConfig,
    /// Show the version and the connection table's size.
    GetInfo,
    /// Zero the counters of one service, or of all.
    Zero(Option<ServiceKey>),
    /// Delete all services.
    Flush,
}

impl Request {
    /// Reads a request: `command` and `attrs` as they follow the message's header.
    ///
    /// # Errors
    /// The error number that the kernel answers with.
    pub fn decode(command: u8, header: &Header, attrs: &[u8]) -> Result<Request, Errno> {
        let table = CommandTable::new(attrs);
        let service = || ServiceKey::decode(table.get(attr::SERVICE));
        let full_service = || ServiceKey::decode_full(table.get(attr::SERVICE));
        if header.is_dump() {
            return match command {
                cmd::GET_SERVICE => Ok(Request::DumpServices),
                cmd::GET_DEST => Ok(Request::DumpDests(service().ok())),
                cmd::GET_DAEMON => Ok(Request::DumpDaemons),
                _ => Err(Errno::OPNOTSUPP),
            };
        }
        Ok(match command {
            cmd::NEW_SERVICE => {
                let (key, config) = full_service()?;
                Request::NewService(key, config)
            }
            cmd::SET_SERVICE => {
                let (key, config) = full_service()?;
                Request::SetService(key, config)
            }
            cmd::DEL_SERVICE => Request::DelService(service()?),
            cmd::GET_SERVICE => Request::GetService(service()?),
            cmd::NEW_DEST => {
                let key = service()?;
                let dest = DestConfig::decode(table.get(attr::DEST), key.af());
                Request::NewDest(key, dest)
            }
            cmd::SET_DEST => {
                let key = service()?;
                let dest = DestConfig::decode(table.get(attr::DEST), key.af());
                Request::SetDest(key, dest)
            }
            cmd::DEL_DEST => {
                let key = service()?;
                let dest = DestKey::decode(table.get(attr::DEST), key.af());
                Request::DelDest(key, dest)
            }
            cmd::NEW_DAEMON => {
                let daemon = SyncDaemon::decode(table.get(attr::DAEMON))?;
                if daemon.mcast_ifn.is_none() || daemon.sync_id.is_none() {
                    return Err(Errno::INVAL);
                }
                Request::NewDaemon(daemon)
            }
            cmd::DEL_DAEMON => Request::DelDaemon(SyncDaemon::decode(table.get(attr::DAEMON))?),
            cmd::SET_CONFIG => Request::SetConfig(Timeouts::decode(&table)?),
            cmd::GET_CONFIG => Request::GetConfig,
            cmd::GET_INFO => Request::GetInfo,
            cmd::ZERO => match table.get(attr::SERVICE) {
                None => Request::Zero(None),
                Some(_) => Request::Zero(Some(service()?)),
            },
            cmd::FLUSH => Request::Flush,
            _ => return Err(Errno::OPNOTSUPP),
        })
    }

    /// The command's number.
    pub fn command(&self) -> u8 {
        match self {
            Request::NewService(..) => cmd::NEW_SERVICE,
            Request::SetService(..) => cmd::SET_SERVICE,
            Request::DelService(_) => cmd::DEL_SERVICE,
            Request::GetService(_) | Request::DumpServices => cmd::GET_SERVICE,
            Request::NewDest(..) => cmd::NEW_DEST,
            Request::SetDest(..) => cmd::SET_DEST,
            Request::DelDest(..) => cmd::DEL_DEST,
            Request::DumpDests(_) => cmd::GET_DEST,
            Request::NewDaemon(_) => cmd::NEW_DAEMON,
            Request::DelDaemon(_) => cmd::DEL_DAEMON,
            Request::DumpDaemons => cmd::GET_DAEMON,
            Request::SetConfig(_) => cmd::SET_CONFIG,
            Request::GetConfig => cmd::GET_CONFIG,
            Request::GetInfo => cmd::GET_INFO,
            Request::Zero(_) => cmd::ZERO,
            Request::Flush => cmd::FLUSH,
        }
    }

    /// Whether it asks for several entries, which a done message ends.
    pub fn is_dump(&self) -> bool {
        matches!(
            self,
            Request::DumpServices | Request::DumpDests(_) | Request::DumpDaemons
        )
    }

    /// Writes the attributes.
    pub fn encode(&self, w: &mut Writer) {
        match self {
            Request::NewService(key, config) | Request::SetService(key, config) => {
                w.nest(attr::SERVICE, |w| {
                    key.encode(w);
                    config.encode(key.af(), w);
                });
            }
            Request::DelService(key) | Request::GetService(key) => {
                w.nest(attr::SERVICE, |w| key.encode(w));
            }
            Request::NewDest(key, dest) | Request::SetDest(key, dest) => {
                w.nest(attr::SERVICE, |w| key.encode(w));
                if let Ok(dest) = dest {
                    w.nest(attr::DEST, |w| dest.encode(w));
                }
            }
            Request::DelDest(key, dest) => {
                w.nest(attr::SERVICE, |w| key.encode(w));
                if let Ok(dest) = dest {
                    w.nest(attr::DEST, |w| dest.encode(w));
                }
            }
            Request::DumpDests(key) | Request::Zero(key) => {
                if let Some(key) = key {
                    w.nest(attr::SERVICE, |w| key.encode(w));
                }
            }
            Request::NewDaemon(daemon) | Request::DelDaemon(daemon) => {
                w.nest(attr::DAEMON, |w| daemon.encode(w));
            }
            Request::SetConfig(timeouts) => timeouts.encode(w),
            Request::DumpServices
            | Request::DumpDaemons
            | Request::GetConfig
            | Request::GetInfo
            | Request::Flush => {}
        }
    }
}

/// What the server shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A service.
    Service(Service),
    /// A dest.
    Dest(Dest),
    /// A synchronisation daemon.
    Daemon(SyncDaemon),
    /// The connection timeouts.
    Config(Timeouts),
    /// The version and the connection table's size.
    Info(Info),
}

impl Reply {
    /// The command's number: that which would set what is shown.
    pub fn command(&self) -> u8 {
        match self {
            Reply::Service(_) => cmd::NEW_SERVICE,
            Reply::Dest(_) => cmd::NEW_DEST,
            Reply::Daemon(_) => cmd::NEW_DAEMON,
            Reply::Config(_) => cmd::SET_CONFIG,
            Reply::Info(_) => cmd::SET_INFO,
        }
    }

    /// Writes the attributes.
    pub fn encode(&self, w: &mut Writer) {
        match self {
            Reply::Service(service) => w.nest(attr::SERVICE, |w| service.encode(w)),
            Reply::Dest(dest) => w.nest(attr::DEST, |w| dest.encode(w)),
            Reply::Daemon(daemon) => w.nest(attr::DAEMON, |w| daemon.encode(w)),
            Reply::Config(timeouts) => timeouts.encode(w),
            Reply::Info(info) => info.encode(w),
        }
    }

    /// Reads a reply: `command` and `attrs` as they follow the message's header.
    ///
    /// # Errors
    /// [`DecodeError`] where something is missing or the command is none of replies.
    pub fn decode(command: u8, attrs: &[u8]) -> Result<Reply, DecodeError> {
        let table = CommandTable::new(attrs);
        Ok(match command {
            cmd::NEW_SERVICE => Reply::Service(Service::decode(table.get(attr::SERVICE))?),
            cmd::NEW_DEST => Reply::Dest(Dest::decode(table.get(attr::DEST))?),
            cmd::NEW_DAEMON => Reply::Daemon(
                SyncDaemon::decode(table.get(attr::DAEMON))
                    .map_err(|_| DecodeError::Invalid("daemon"))?,
            ),
            cmd::SET_CONFIG => Reply::Config(
                Timeouts::decode(&table).map_err(|_| DecodeError::Invalid("timeouts"))?,
            ),
            cmd::SET_INFO => Reply::Info(Info::decode(&table)?),
            _ => return Err(DecodeError::Unknown(command.into())),
        })
    }
}

/// A string of at most `max` bytes with the zero byte that ends it, as the kernel's NLA_NUL_STRING asks for.
fn nul_string(value: &[u8], max: usize) -> Result<String, Errno> {
    let end = value
        .iter()
        .take(max + 1)
        .position(|byte| *byte == 0)
        .ok_or(Errno::INVAL)?;
    Ok(String::from_utf8_lossy(&value[..end]).into_owned())
}

/// The number in an attribute of 2 bytes or more; too short a one is what the kernel's policy calls out of range, which
/// for nested attributes ends as EINVAL.
fn u16_of(value: &[u8]) -> Result<u16, Errno> {
    crate::nl::u16_at(value, 0).ok_or(Errno::INVAL)
}

/// The number in an attribute of 4 bytes or more.
fn u32_of(value: &[u8]) -> Result<u32, Errno> {
    crate::nl::u32_at(value, 0).ok_or(Errno::INVAL)
}

/// A port in network byte order.
fn port_of(value: &[u8]) -> Result<u16, Errno> {
    u16_of(value).map(u16::from_be)
}

#[cfg(test)]
mod tests;
