//! Listings of services and dests, timeouts and daemons, as the original prints them to the byte.

use std::fmt::Write;
use std::net::Ipv4Addr;

use ripvs_api::ipvs::number::{flag, forward, sync_state, tunnel};
use ripvs_api::ipvs::{
    Af, Dest, DestConfig, Info, Service, ServiceConfig, ServiceKey, Stats, SyncDaemon, Timeouts,
};

use crate::meaning::TUNNELS;
use crate::names::Names;
use crate::sched_flags;

/// Which columns a listing has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Columns {
    /// Forwarding method, weight, connections.
    #[default]
    Usual,
    /// Counters.
    Stats,
    /// Rates.
    Rate,
    /// Thresholds.
    Thresholds,
    /// Persistence templates.
    PersistentConn,
    /// The usual ones, and tunnels.
    TunInfo,
}

/// How a listing is to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// Which columns it has.
    pub columns: Columns,
    /// Whether addresses and ports are shown by number.
    pub numeric: bool,
    /// Whether great numbers are shown in full.
    pub exact: bool,
    /// Whether it is sorted.
    pub sorted: bool,
    /// Whether connections are listed with their persistence engines.
    pub persistence: bool,
}

/// The line above a listing of all services.
pub fn headline(info: &Info) -> String {
    let [_, major, minor, patch] = info.version.to_be_bytes();
    format!(
        "IP Virtual Server version {major}.{minor}.{patch} (size={})\n",
        info.conn_tab_size as i32
    )
}

/// The lines above the services.
pub fn title(columns: Columns) -> String {
    const ADDRESS: &str = "Prot LocalAddress:Port";
    const REMOTE: &str = "  -> RemoteAddress:Port";
    let numbers = |names: [&str; 5]| {
        let mut line = format!("{ADDRESS:<33}");
        for name in names {
            line += &format!(" {name:>8}");
        }
        format!("{line}\n{REMOTE}\n")
    };
    match columns {
        Columns::Usual => format!(
            "{ADDRESS} Scheduler Flags\n{REMOTE}           Forward Weight ActiveConn InActConn\n"
        ),
        Columns::Stats => numbers(["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"]),
        Columns::Rate => numbers(["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"]),
        Columns::Thresholds => format!(
            "{ADDRESS:<33} {:<10} {:<10} {:<10} {:<10}\n{REMOTE}\n",
            "Uthreshold", "Lthreshold", "ActiveConn", "InActConn"
        ),
        Columns::PersistentConn => format!(
            "{ADDRESS:<33} {:<9} {:<11} {:<10} {:<10}\n{REMOTE}\n",
            "Weight", "PersistConn", "ActiveConn", "InActConn"
        ),
        Columns::TunInfo => format!(
            "{ADDRESS} Scheduler Flags\n{REMOTE}           Forward TunnelInfo    Weight ActiveConn InActConn\n"
        ),
    }
}

/// The lines of a service and its dests.
pub fn service(
    out: &mut String,
    service: &Service,
    dests: &[Dest],
    format: Format,
    names: &dyn Names,
) {
    let protocol = protocol_of(&service.key);
    let name = service_name(&service.key, format.numeric, names);
    match format.columns {
        Columns::Stats | Columns::Rate => {
            let _ = write!(out, "{name:<33}");
            for number in counters(&service.stats, format.columns) {
                large(out, number, format.exact);
            }
            out.push('\n');
        }
        _ => {
            let config = &service.config;
            let _ = writeln!(out, "{name} {}", service_words(service.key.af(), config));
        }
    }
    for dest in dests {
        self::dest(out, dest, protocol, format, names);
    }
}

/// The protocol by which names of ports are found: none for marks.
pub fn protocol_of(key: &ServiceKey) -> u16 {
    match key {
        ServiceKey::Addr { protocol, .. } => *protocol,
        ServiceKey::Mark { .. } => 0,
    }
}

fn service_name(key: &ServiceKey, numeric: bool, names: &dyn Names) -> String {
    match *key {
        ServiceKey::Mark { mark, af } => {
            let family = if af == Af::V6 { " IPv6" } else { "" };
            // The original shows it as a signed number.
            format!("FWM  {}{family}", mark as i32)
        }
        ServiceKey::Addr {
            protocol,
            addr,
            port,
        } => {
            let protocol_name = match protocol {
                6 => "TCP",
                17 => "UDP",
                _ => "SCTP",
            };
            let name = names.show(addr, port, protocol, numeric);
            let name = format!("{protocol_name:<4} {name}");
            cut(name, addr.is_ipv4(), 33)
        }
    }
}

/// The scheduler, and the words behind it.
fn service_words(af: Af, config: &ServiceConfig) -> String {
    let mut words = config.sched.clone();
    if config.flags & sched_flags::ALL != 0 {
        let flags = sched_flags::show(&config.sched, config.flags);
        let _ = write!(words, " ({flags})");
    }
    if config.flags & flag::PERSISTENT != 0 {
        let _ = write!(words, " persistent {}", config.timeout);
        if let Some(mask) = netmask(af, config.netmask) {
            let _ = write!(words, " mask {mask}");
        }
        if let Some(pe) = &config.pe {
            let _ = write!(words, " pe {pe}");
        }
    }
    if config.flags & flag::ONE_PACKET != 0 {
        words += " ops";
    }
    words
}

/// The netmask, where it is not that of a single address.
pub fn netmask(af: Af, mask: u32) -> Option<String> {
    match af {
        Af::V4 => (mask != !0).then(|| Ipv4Addr::from(mask).to_string()),
        Af::V6 => (mask != 128).then(|| (mask as i32).to_string()),
    }
}

fn dest(out: &mut String, dest: &Dest, protocol: u16, format: Format, names: &dyn Names) {
    let config = &dest.config;
    let name = names.show(config.key.addr, config.key.port, protocol, format.numeric);
    let name = cut(name, config.key.addr.is_ipv4(), 28);
    let method = forward_name(config.forward);
    let (weight, active, inactive) = (config.weight, dest.active, dest.inactive);
    let _ = write!(out, "  -> {name:<28}");
    let _ = match format.columns {
        Columns::Usual => writeln!(out, " {method:<7} {weight:<6} {active:<10} {inactive:<10}"),
        Columns::TunInfo => {
            let tunnel = tunnel_info(config);
            writeln!(
                out,
                " {method:<7} {tunnel:<13} {weight:<6} {active:<10} {inactive:<10}"
            )
        }
        Columns::Thresholds => {
            let (upper, lower) = (config.upper, config.lower);
            writeln!(out, " {upper:<10} {lower:<10} {active:<10} {inactive:<10}")
        }
        Columns::PersistentConn => {
            let persistent = dest.persistent;
            writeln!(
                out,
                " {weight:<9} {persistent:<11} {active:<10} {inactive:<10}"
            )
        }
        Columns::Stats => {
            for number in counters(&dest.stats, format.columns) {
                large(out, number, format.exact);
            }
            writeln!(out)
        }
        Columns::Rate => {
            // Only the bytes of a dest are ever abbreviated.
            let [cps, inpps, outpps, inbps, outbps] = counters(&dest.stats, format.columns);
            let _ = write!(out, " {cps:>8} {inpps:>8} {outpps:>8}");
            large(out, inbps, format.exact);
            large(out, outbps, format.exact);
            writeln!(out)
        }
    };
}

/// The numbers in the columns for counters or rates.
fn counters(stats: &Stats, columns: Columns) -> [u64; 5] {
    if columns == Columns::Rate {
        [
            stats.cps,
            stats.inpps,
            stats.outpps,
            stats.inbps,
            stats.outbps,
        ]
    } else {
        [
            stats.conns,
            stats.inpkts,
            stats.outpkts,
            stats.inbytes,
            stats.outbytes,
        ]
    }
}

/// A number nine columns wide; a great one is cut to thousands, millions and so on, unless all of it is asked for.
fn large(out: &mut String, number: u64, exact: bool) {
    const K: u64 = 1000;
    let _ = if exact {
        let digits = number.to_string();
        let width = (digits.len() + 1).max(9);
        write!(out, "{digits:>width$}")
    } else if number < 100 * K * K {
        write!(out, "{number:>9}")
    } else if number < K * K * K {
        write!(out, "{:>8}K", number / K)
    } else if number < 100 * K * K * K {
        write!(out, "{:>8}M", number / (K * K))
    } else if number < 100 * K * K * K * K {
        write!(out, "{:>8}G", number / (K * K * K))
    } else {
        write!(out, "{:>8}T", number / (K * K * K * K))
    };
}

/// The forwarding method's name.
pub fn forward_name(method: u32) -> &'static str {
    match method {
        forward::MASQ => "Masq",
        forward::LOCAL => "Local",
        forward::TUNNEL => "Tunnel",
        forward::ROUTE => "Route",
        // What printf makes of a name that is not there.
        _ => "(null)",
    }
}

fn tunnel_info(config: &DestConfig) -> String {
    if config.forward != forward::TUNNEL {
        return "n/a".into();
    }
    let checksum = match config.tun_flags {
        tunnel::NOCSUM => "-c",
        tunnel::CSUM => "+c",
        _ => "r+c",
    };
    match TUNNELS.get(usize::from(config.tun_type)).copied() {
        Some("gue") => format!("gue:{}:{checksum}", config.tun_port),
        Some("gre") => format!("gre:{checksum}"),
        Some(other) => other.into(),
        None => "n/a".into(),
    }
}

/// Names of hosts may be long: with an IPv4 address, where it is not the address itself that is long, they are cut.
fn cut(name: String, may: bool, width: usize) -> String {
    if may {
        name.chars().take(width).collect()
    } else {
        name
    }
}

/// The listing of timeouts.
pub fn timeouts(timeouts: &Timeouts) -> String {
    let [tcp, tcp_fin, udp] =
        [timeouts.tcp, timeouts.tcp_fin, timeouts.udp].map(|value| value.unwrap_or(0) as i32);
    format!("Timeout (tcp tcpfin udp): {tcp} {tcp_fin} {udp}\n")
}

/// The listing of a synchronisation daemon.
pub fn daemon(daemon: &SyncDaemon) -> String {
    let state = match daemon.state {
        sync_state::MASTER => "master",
        _ => "backup",
    };
    let interface = daemon.mcast_ifn.as_deref().unwrap_or_default();
    let id = daemon.sync_id.unwrap_or(0);
    let mut line = format!("{state} sync daemon (mcast={interface}, syncid={id}");
    if let Some(length) = daemon.sync_maxlen {
        let _ = write!(line, ", maxlen={length}");
    }
    if let Some(group) = daemon.mcast_group {
        let _ = write!(line, ", group={group}");
    }
    if let Some(port) = daemon.mcast_port {
        let _ = write!(line, ", port={port}");
    }
    if let Some(ttl) = daemon.mcast_ttl {
        let _ = write!(line, ", ttl={ttl}");
    }
    line + ")\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_shown_with_what_is_known_of_it() {
        let short = SyncDaemon {
            state: sync_state::MASTER,
            mcast_ifn: Some("eth1".into()),
            sync_id: Some(5),
            ..SyncDaemon::default()
        };
        let long = SyncDaemon {
            state: sync_state::BACKUP,
            sync_maxlen: Some(1400),
            mcast_group: "ff02::51".parse().ok(),
            mcast_port: Some(9000),
            mcast_ttl: Some(2),
            ..short.clone()
        };
        assert_eq!(
            daemon(&short),
            "master sync daemon (mcast=eth1, syncid=5)\n"
        );
        assert_eq!(
            daemon(&long),
            "backup sync daemon (mcast=eth1, syncid=5, maxlen=1400, group=ff02::51, port=9000, ttl=2)\n"
        );
    }

    #[test]
    fn long_names_of_hosts_are_cut_and_ipv6_addresses_are_not() {
        let name = "a-host-with-a-very-long-name.example.org:http";
        assert_eq!(cut(name.into(), true, 28), "a-host-with-a-very-long-name");
        assert_eq!(cut(name.into(), false, 28), name);
    }
}
