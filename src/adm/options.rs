//! The options of ipvsadm 1.31, and which of them go with which command.

use crate::popt::{Spec, Takes};

/// An option as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Flag {
    Add,
    Edit,
    Delete,
    Clear,
    List,
    Zero,
    AddServer,
    EditServer,
    DeleteServer,
    Set,
    Help,
    Version,
    Restore,
    Save,
    StartDaemon,
    StopDaemon,
    Tcp,
    Udp,
    Sctp,
    Fwmark,
    Ipv6,
    Scheduler,
    Pe,
    Persistent,
    Netmask,
    Server,
    Masquerading,
    Ipip,
    Gatewaying,
    Weight,
    Upper,
    Lower,
    Numeric,
    Connection,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    TunInfo,
    NoSort,
    Sort,
    Exact,
    Ops,
    SchedFlags,
    McastInterface,
    SyncId,
    McastGroup,
    McastPort,
    McastTtl,
    SyncMaxlen,
    TunType,
    TunPort,
    TunNocsum,
    TunCsum,
    TunRemcsum,
    Json,
    Socket,
}

use Flag as F;
use Takes::{Maybe, Nothing, Value};

const fn long(long: &'static str, takes: Takes, flag: Flag) -> Spec<Flag> {
    Spec {
        long,
        short: None,
        takes,
        flag,
    }
}

const fn both(name: &'static str, short: u8, takes: Takes, flag: Flag) -> Spec<Flag> {
    Spec {
        short: Some(short),
        ..long(name, takes, flag)
    }
}

/// Every option there is. The last two are ours.
pub const SPECS: &[Spec<Flag>] = &[
    both("add-service", b'A', Nothing, F::Add),
    both("edit-service", b'E', Nothing, F::Edit),
    both("delete-service", b'D', Nothing, F::Delete),
    both("clear", b'C', Nothing, F::Clear),
    both("list", b'L', Nothing, F::List),
    both("list", b'l', Nothing, F::List),
    both("zero", b'Z', Nothing, F::Zero),
    both("add-server", b'a', Nothing, F::AddServer),
    both("edit-server", b'e', Nothing, F::EditServer),
    both("delete-server", b'd', Nothing, F::DeleteServer),
    long("set", Nothing, F::Set),
    both("help", b'h', Nothing, F::Help),
    both("version", b'v', Nothing, F::Version),
    both("restore", b'R', Nothing, F::Restore),
    both("save", b'S', Nothing, F::Save),
    long("start-daemon", Value, F::StartDaemon),
    long("stop-daemon", Value, F::StopDaemon),
    both("tcp-service", b't', Value, F::Tcp),
    both("udp-service", b'u', Value, F::Udp),
    long("sctp-service", Value, F::Sctp),
    both("fwmark-service", b'f', Value, F::Fwmark),
    both("ipv6", b'6', Nothing, F::Ipv6),
    both("scheduler", b's', Value, F::Scheduler),
    long("pe", Value, F::Pe),
    both("persistent", b'p', Maybe, F::Persistent),
    both("netmask", b'M', Value, F::Netmask),
    both("real-server", b'r', Value, F::Server),
    both("masquerading", b'm', Nothing, F::Masquerading),
    both("ipip", b'i', Nothing, F::Ipip),
    both("gatewaying", b'g', Nothing, F::Gatewaying),
    both("weight", b'w', Value, F::Weight),
    both("u-threshold", b'x', Value, F::Upper),
    both("l-threshold", b'y', Value, F::Lower),
    both("numeric", b'n', Nothing, F::Numeric),
    both("connection", b'c', Nothing, F::Connection),
    long("timeout", Nothing, F::Timeout),
    long("daemon", Nothing, F::Daemon),
    long("stats", Nothing, F::Stats),
    long("rate", Nothing, F::Rate),
    long("thresholds", Nothing, F::Thresholds),
    long("persistent-conn", Nothing, F::PersistentConn),
    long("tun-info", Nothing, F::TunInfo),
    long("nosort", Nothing, F::NoSort),
    long("sort", Nothing, F::Sort),
    both("exact", b'X', Nothing, F::Exact),
    both("ops", b'o', Nothing, F::Ops),
    both("sched-flags", b'b', Value, F::SchedFlags),
    long("mcast-interface", Value, F::McastInterface),
    long("syncid", Value, F::SyncId),
    long("mcast-group", Value, F::McastGroup),
    long("mcast-port", Value, F::McastPort),
    long("mcast-ttl", Value, F::McastTtl),
    long("sync-maxlen", Value, F::SyncMaxlen),
    long("tun-type", Value, F::TunType),
    long("tun-port", Value, F::TunPort),
    long("tun-nocsum", Nothing, F::TunNocsum),
    long("tun-csum", Nothing, F::TunCsum),
    long("tun-remcsum", Nothing, F::TunRemcsum),
    long("json", Nothing, F::Json),
    long("socket", Value, F::Socket),
];

/// What the first option may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CommandName {
    Add,
    Edit,
    Delete,
    Clear,
    List,
    AddServer,
    DeleteServer,
    EditServer,
    Set,
    StartDaemon,
    StopDaemon,
    Restore,
    Save,
    Zero,
}

impl CommandName {
    /// Its name in messages. Clearing is called by another name than the option's.
    pub fn name(self) -> &'static str {
        match self {
            CommandName::Add => "add-service",
            CommandName::Edit => "edit-service",
            CommandName::Delete => "delete-service",
            CommandName::Clear => "flush",
            CommandName::List => "list",
            CommandName::AddServer => "add-server",
            CommandName::DeleteServer => "delete-server",
            CommandName::EditServer => "edit-server",
            CommandName::Set => "set",
            CommandName::StartDaemon => "start-daemon",
            CommandName::StopDaemon => "stop-daemon",
            CommandName::Restore => "restore",
            CommandName::Save => "save",
            CommandName::Zero => "zero",
        }
    }
}

/// The options that are counted, in the order in which they are checked: a service or a method may be typed in several
/// ways, and `--sort` and `-6` count for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Opt {
    Numeric,
    Connection,
    Service,
    Scheduler,
    Persistent,
    Netmask,
    Server,
    Forward,
    Weight,
    Upper,
    Lower,
    McastInterface,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    NoSort,
    SyncId,
    Exact,
    Ops,
    Pe,
    SchedFlags,
    McastGroup,
    McastPort,
    McastTtl,
    SyncMaxlen,
    TunInfo,
    TunType,
    TunPort,
    TunNocsum,
    TunCsum,
    TunRemcsum,
    Json,
}

use Opt as O;

/// The options with their names in messages.
const NAMES: [(Opt, &str); 35] = [
    (O::Numeric, "numeric"),
    (O::Connection, "connection"),
    (O::Service, "service-address"),
    (O::Scheduler, "scheduler"),
    (O::Persistent, "persistent"),
    (O::Netmask, "netmask"),
    (O::Server, "real-server"),
    (O::Forward, "forwarding-method"),
    (O::Weight, "weight"),
    (O::Upper, "u-threshold"),
    (O::Lower, "l-threshold"),
    (O::McastInterface, "mcast-interface"),
    (O::Timeout, "timeout"),
    (O::Daemon, "daemon"),
    (O::Stats, "stats"),
    (O::Rate, "rate"),
    (O::Thresholds, "thresholds"),
    (O::PersistentConn, "persistent-conn"),
    (O::NoSort, "nosort"),
    (O::SyncId, "syncid"),
    (O::Exact, "exact"),
    (O::Ops, "ops"),
    (O::Pe, "pe"),
    (O::SchedFlags, "sched-flags"),
    (O::McastGroup, "mcast-group"),
    (O::McastPort, "mcast-port"),
    (O::McastTtl, "mcast-ttl"),
    (O::SyncMaxlen, "sync-maxlen"),
    (O::TunInfo, "tun-info"),
    (O::TunType, "tun-type"),
    (O::TunPort, "tun-port"),
    (O::TunNocsum, "tun-nocsum"),
    (O::TunCsum, "tun-csum"),
    (O::TunRemcsum, "tun-remcsum"),
    (O::Json, "json"),
];

/// Whether an option may stand with a command or tunnel type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Needed,
    Allowed,
    /// At most one of those.
    Exclusive,
    Illegal,
}

/// The rule for `opt` with `command`.
fn rule(command: CommandName, opt: Opt) -> Rule {
    use CommandName as C;
    let is = |set: &[Opt]| set.contains(&opt);
    let (needed, allowed, exclusive): (&[Opt], &[Opt], &[Opt]) = match command {
        C::Add | C::Edit => (
            &[O::Service],
            &[
                O::Scheduler,
                O::Persistent,
                O::Netmask,
                O::Ops,
                O::Pe,
                O::SchedFlags,
            ],
            &[],
        ),
        C::Delete => (&[O::Service], &[], &[]),
        C::AddServer | C::EditServer => (
            &[O::Service, O::Server],
            &[
                O::Forward,
                O::Weight,
                O::Upper,
                O::Lower,
                O::TunType,
                O::TunPort,
                O::TunNocsum,
                O::TunCsum,
                O::TunRemcsum,
            ],
            &[],
        ),
        C::DeleteServer => (&[O::Service, O::Server], &[], &[]),
        C::List => (
            &[],
            &[
                O::Numeric,
                O::Stats,
                O::Rate,
                O::Thresholds,
                O::PersistentConn,
                O::NoSort,
                O::Exact,
                O::TunInfo,
                O::Json,
            ],
            &[O::Connection, O::Service, O::Timeout, O::Daemon],
        ),
        C::StartDaemon => (
            &[],
            &[
                O::McastInterface,
                O::SyncId,
                O::McastGroup,
                O::McastPort,
                O::McastTtl,
                O::SyncMaxlen,
            ],
            &[],
        ),
        C::StopDaemon => (&[], &[O::SyncId], &[]),
        C::Save => (&[], &[O::Numeric], &[]),
        C::Zero => (&[], &[O::Service], &[]),
        C::Clear | C::Set | C::Restore => (&[], &[], &[]),
    };
    if is(needed) {
        Rule::Needed
    } else if is(allowed) {
        Rule::Allowed
    } else if is(exclusive) {
        Rule::Exclusive
    } else {
        Rule::Illegal
    }
}

/// The rule for `opt`, one of [`TUNNEL_OPTIONS`], with the tunnel type called `kind`.
fn tunnel_rule(kind: &str, opt: Opt) -> Rule {
    match (kind, opt) {
        ("gue", O::TunPort) => Rule::Needed,
        ("gue", _) => Rule::Exclusive,
        ("gre", O::TunNocsum | O::TunCsum) => Rule::Exclusive,
        _ => Rule::Illegal,
    }
}

/// The options that tunnel types have a say in.
const TUNNEL_OPTIONS: [Opt; 4] = [O::TunPort, O::TunNocsum, O::TunCsum, O::TunRemcsum];

/// Which options a command line has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options(u64);

impl Options {
    /// Notes an option.
    ///
    /// # Errors
    /// The message, where it was there before.
    pub fn set(&mut self, opt: Opt) -> Result<(), String> {
        if self.has(opt) {
            return Err(format!("multiple '{}' options specified", name(opt)));
        }
        self.0 |= 1 << opt as u64;
        Ok(())
    }

    /// Whether the option is there.
    pub fn has(self, opt: Opt) -> bool {
        self.0 & (1 << opt as u64) != 0
    }

    /// Whether one of the options is there.
    pub fn any(self, opts: &[Opt]) -> bool {
        opts.iter().any(|opt| self.has(*opt))
    }

    /// Checks the options against a command.
    ///
    /// # Errors
    /// The message.
    pub fn check(self, command: CommandName) -> Result<(), String> {
        let all = NAMES.map(|(opt, _)| opt);
        self.check_rules(&all, "command", command.name(), |opt| rule(command, opt))
    }

    /// Checks the tunnel options against the tunnel type called `kind`.
    ///
    /// # Errors
    /// The message.
    pub fn check_tunnel(self, kind: &str) -> Result<(), String> {
        self.check_rules(&TUNNEL_OPTIONS, "tunnel type", kind, |opt| {
            tunnel_rule(kind, opt)
        })
    }

    fn check_rules(
        self,
        opts: &[Opt],
        what: &str,
        whose: &str,
        rule: impl Fn(Opt) -> Rule,
    ) -> Result<(), String> {
        let mut exclusive = None;
        for opt in opts {
            let this = name(*opt);
            match (self.has(*opt), rule(*opt)) {
                (false, Rule::Needed) => {
                    return Err(format!(
                        "You need to supply the '{this}' option for the '{whose}' {what}"
                    ));
                }
                (true, Rule::Illegal) => {
                    return Err(format!("Illegal '{this}' option with the '{whose}' {what}"));
                }
                (true, Rule::Exclusive) => {
                    if let Some(other) = exclusive {
                        return Err(format!(
                            "The option '{this}' conflicts with the '{other}' option in the '{whose}' {what}"
                        ));
                    }
                    exclusive = Some(this);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn name(opt: Opt) -> &'static str {
    NAMES
        .iter()
        .find(|(known, _)| *known == opt)
        .map_or("", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_in_their_order_and_each_has_its_bit() {
        for (number, (opt, _)) in NAMES.iter().enumerate() {
            assert_eq!(*opt as usize, number);
        }
    }

    #[test]
    fn no_two_options_share_a_spelling() {
        for (number, spec) in SPECS.iter().enumerate() {
            for other in &SPECS[..number] {
                assert!(spec.short.is_none() || spec.short != other.short);
                assert!(spec.long != other.long || spec.flag == other.flag);
            }
        }
    }
}
