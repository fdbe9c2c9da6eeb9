//! The family `RIPVS`: what IPVS has no words for. Interfaces, addresses, routes, neighbours, marks, settings,
//! connections, counters, and waiting for packets to be done.
//!
//! Each message carries [`VERSION`] in its generic netlink header, and either end refuses another one. Errors come with
//! a sentence (see [`crate::Refusal`]). Attributes that are not known are passed over, so a field may be added within
//! a version if it is optional; anything else makes a new version.

pub mod field;
mod service_name;
mod value;

pub mod net;
pub mod state;

pub use net::{
    Addr, Divert, MarkRule, Neigh, NeighState, Port, PortChange, PortKind, Route, RouteKind,
};
pub use service_name::ServiceName;
pub use state::{
    Advance, Conn, ConnsEnd, ConnsFrom, Count, ServiceExact, Settle, SettlePort, Settled,
    SettledPort, Status, Sysctl, SysctlName, Traffic, Verdicts, Worker,
};
pub use value::{Bytes, Mac, PortRange, Prefix};

use crate::errno::Errno;
use crate::nl::{DecodeError, Header, Writer};

/// The family's name.
pub const NAME: &str = "RIPVS";
/// The version of this protocol. Both ends compare it.
pub const VERSION: u8 = 1;

/// Declares an enum of messages with their command numbers, and its encoding.
macro_rules! commands {
    ($(#[$doc:meta])* pub enum $name:ident {
        $($(#[$vdoc:meta])* $number:literal $variant:ident $(($record:ty))?,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $name {
            $($(#[$vdoc])* $variant $(($record))?,)*
        }

        impl $name {
            /// The command's number.
            pub fn command(&self) -> u8 {
                match self {
                    $(commands!(@pattern $name $variant $(($record))? _record) => $number,)*
                }
            }

            /// Writes the attributes.
            pub fn encode(&self, w: &mut Writer) {
                match self {
                    $(commands!(@pattern $name $variant $(($record))? record) => {
                        commands!(@encode $(($record))? record w)
                    })*
                }
            }

            /// Reads the attributes of command `command`.
            ///
            /// # Errors
            /// [`DecodeError`] where the command is not known, or something is missing or makes no sense.
            pub fn decode(command: u8, attrs: &[u8]) -> Result<$name, DecodeError> {
                match command {
                    $($number => commands!(@decode $name $variant $(($record))? attrs),)*
                    _ => Err(DecodeError::Unknown(command.into())),
                }
            }
        }
    };
    (@pattern $name:ident $variant:ident ($record:ty) $bind:ident) => { $name::$variant($bind) };
    (@pattern $name:ident $variant:ident $bind:ident) => { $name::$variant };
    (@encode ($record:ty) $bind:ident $w:ident) => { $bind.put_fields($w) };
    (@encode $bind:ident $w:ident) => { { let _ = &$w; } };
    (@decode $name:ident $variant:ident ($record:ty) $attrs:ident) => {
        <$record>::from_fields($attrs).map($name::$variant)
    };
    (@decode $name:ident $variant:ident $attrs:ident) => { { let _ = $attrs; Ok($name::$variant) } };
}

commands! {
    /// What a client asks for. Those marked as dumps are answered with any number of replies and a done message, the
    /// others with at most one reply and an acknowledgement.
    pub enum Request {
        /// How the daemon is: [`Reply::Status`].
        1 Status,
        /// Dump of the workers: [`Reply::Worker`].
        2 Workers,
        /// The verdict counters: [`Reply::Verdicts`].
        3 Verdicts,
        /// Dump of the interfaces: [`Reply::Port`].
        4 Ports,
        /// Change an interface.
        5 SetPort(PortChange),
        /// Dump of the addresses: [`Reply::Addr`].
        6 Addrs,
        /// Add an address. EEXIST if it is there.
        7 AddAddr(Addr),
        /// Delete an address. EADDRNOTAVAIL if it is not there.
        8 DelAddr(Addr),
        /// Dump of the routes: [`Reply::Route`].
        9 Routes,
        /// Add a route. EEXIST if one to that prefix (and source) is there.
        10 AddRoute(Route),
        /// Delete a route. ESRCH if it is not there. Only what is given has to match.
        11 DelRoute(Route),
        /// Dump of the neighbours: [`Reply::Neigh`].
        12 Neighs,
        /// Add a permanent neighbour, or make one permanent. EINVAL without a MAC address.
        13 AddNeigh(Neigh),
        /// Delete a neighbour. ENOENT if it is not there.
        14 DelNeigh(Neigh),
        /// Dump of the mark rules, in the order they are tried: [`Reply::Mark`].
        15 Marks,
        /// Add a mark rule behind the others. EEXIST if it is there.
        16 AddMark(MarkRule),
        /// Delete a mark rule. ENOENT if it is not there.
        17 DelMark(MarkRule),
        /// Dump of the diverted marks: [`Reply::Divert`].
        18 Diverts,
        /// Take what has a mark for the balancer's own, whatever its address. EEXIST if it is so.
        19 AddDivert(Divert),
        /// Undo that. ENOENT if it is not so.
        20 DelDivert(Divert),
        /// Dump of the settings: [`Reply::Sysctl`].
        21 Sysctls,
        /// One setting: [`Reply::Sysctl`]. ENOENT if there is none of that name.
        22 GetSysctl(SysctlName),
        /// Change a setting. ENOENT if there is none of that name, EINVAL if the value is none for it.
        23 SetSysctl(Sysctl),
        /// Some connections, from a cursor on: a dump of [`Reply::Conn`] and at its end [`Reply::ConnsEnd`].
        24 Conns(ConnsFrom),
        /// Wait until packets are done: [`Reply::Settled`], in the end or when the time is up.
        25 Settle(Settle),
        /// Dump of all traffic, each worker's and then the sum: [`Reply::Traffic`].
        27 Traffic,
        /// Move a held clock on; acknowledged when all that becomes due has been done. EOPNOTSUPP if it is not held.
        28 Advance(Advance),
        /// Dump of the services of which is said whether they are scheduled exactly: [`Reply::ServiceExact`].
        29 ServiceExacts,
        /// Say so of one, whether or not it is there, or say no more of it.
        30 SetServiceExact(ServiceExact),
    }
}

commands! {
    /// What the server shows.
    pub enum Reply {
        /// How the daemon is.
        1 Status(Status),
        /// A worker.
        2 Worker(Worker),
        /// The verdict counters.
        3 Verdicts(Verdicts),
        /// An interface.
        4 Port(Port),
        /// An address.
        6 Addr(Addr),
        /// A route.
        9 Route(Route),
        /// A neighbour.
        12 Neigh(Neigh),
        /// A mark rule.
        15 Mark(MarkRule),
        /// A diverted mark.
        18 Divert(Divert),
        /// A setting.
        21 Sysctl(Sysctl),
        /// A connection.
        24 Conn(Conn),
        /// Where the next part of the connections begins.
        26 ConnsEnd(ConnsEnd),
        /// What had come and gone when the waiting was over.
        25 Settled(Settled),
        /// Traffic.
        27 Traffic(Traffic),
        /// Whether a service is scheduled exactly.
        29 ServiceExact(ServiceExact),
    }
}

impl Request {
    /// Whether it asks for several entries, which a done message ends.
    pub fn is_dump(&self) -> bool {
        matches!(
            self,
            Request::Workers
                | Request::Ports
                | Request::Addrs
                | Request::Routes
                | Request::Neighs
                | Request::Marks
                | Request::Diverts
                | Request::Sysctls
                | Request::Conns(_)
                | Request::Traffic
                | Request::ServiceExacts
        )
    }

    /// Reads a request as the server gets it.
    ///
    /// # Errors
    /// EPROTO where the versions differ, EOPNOTSUPP for an unknown command or a dump of what cannot be dumped, EINVAL
    /// for the rest.
    pub fn accept(
        command: u8,
        version: u8,
        header: &Header,
        attrs: &[u8],
    ) -> Result<Request, Errno> {
        if version != VERSION {
            return Err(Errno::PROTO);
        }
        let request = Request::decode(command, attrs).map_err(|error| match error {
            DecodeError::Unknown(_) => Errno::OPNOTSUPP,
            _ => Errno::INVAL,
        })?;
        if request.is_dump() != header.is_dump() {
            return Err(Errno::OPNOTSUPP);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests;
