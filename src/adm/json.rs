//! Listings as JSON. Addresses and ports are always numbers; what does not apply to an entry is left out.

use std::net::IpAddr;

use ripvs_api::ipvs::number::{flag, forward, sync_state, tunnel};
use ripvs_api::ipvs::{
    Af, Dest, DestConfig, Info, Service, ServiceKey, Stats, SyncDaemon, Timeouts,
};
use ripvs_api::ripvs::Conn;
use serde::Serialize;
use serde_json::{json, Value};

use crate::conns::protocol_name;
use crate::list::{forward_name, netmask};
use crate::meaning::TUNNELS;
use crate::sched_flags;

/// A listing of services: all of them with what the server is, or one.
#[derive(Serialize)]
pub struct Table {
    /// The version of IPVS.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// Buckets of the connection table.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u32>,
    services: Vec<ServiceEntry>,
}

impl Table {
    /// An empty listing.
    pub fn new(info: Option<&Info>) -> Table {
        let version = |info: &Info| {
            let [_, major, minor, patch] = info.version.to_be_bytes();
            format!("{major}.{minor}.{patch}")
        };
        Table {
            version: info.map(version),
            size: info.map(|info| info.conn_tab_size),
            services: Vec::new(),
        }
    }

    /// Adds a service.
    pub fn add(&mut self, service: &Service, dests: &[Dest]) {
        self.services.push(ServiceEntry::new(service, dests));
    }
}

#[derive(Serialize)]
struct ServiceEntry {
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fwmark: Option<u32>,
    family: &'static str,
    scheduler: String,
    scheduler_flags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    persistence: Option<Persistence>,
    one_packet: bool,
    stats: Stats,
    dests: Vec<DestEntry>,
}

#[derive(Serialize)]
struct Persistence {
    timeout: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    netmask: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<String>,
}

impl ServiceEntry {
    fn new(service: &Service, dests: &[Dest]) -> ServiceEntry {
        let (config, af) = (&service.config, service.key.af());
        let (protocol, address, port, fwmark) = match service.key {
            ServiceKey::Addr {
                protocol,
                addr,
                port,
            } => {
                let protocol = protocol_name(u8::try_from(protocol).unwrap_or(0));
                (Some(protocol), Some(addr), Some(port), None)
            }
            ServiceKey::Mark { mark, .. } => (None, None, None, Some(mark)),
        };
        let flags = sched_flags::show(&config.sched, config.flags);
        let words = flags.split(',').filter(|word| !word.is_empty());
        let persistent = config.flags & flag::PERSISTENT != 0;
        ServiceEntry {
            protocol,
            address,
            port,
            fwmark,
            family: if af == Af::V6 { "ipv6" } else { "ipv4" },
            scheduler: config.sched.clone(),
            scheduler_flags: words.map(str::to_owned).collect(),
            persistence: persistent.then(|| Persistence {
                timeout: config.timeout,
                netmask: netmask(af, config.netmask),
                engine: config.pe.clone(),
            }),
            one_packet: config.flags & flag::ONE_PACKET != 0,
            stats: service.stats,
            dests: dests.iter().map(DestEntry::new).collect(),
        }
    }
}

#[derive(Serialize)]
struct DestEntry {
    address: IpAddr,
    port: u16,
    forward: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<Tunnel>,
    weight: i32,
    upper_threshold: u32,
    lower_threshold: u32,
    active_connections: u32,
    inactive_connections: u32,
    persistent_connections: u32,
    stats: Stats,
}

#[derive(Serialize)]
struct Tunnel {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum: Option<&'static str>,
}

impl DestEntry {
    fn new(dest: &Dest) -> DestEntry {
        let config = &dest.config;
        DestEntry {
            address: config.key.addr,
            port: config.key.port,
            forward: forward_name(config.forward).to_lowercase(),
            tunnel: tunnel_of(config),
            weight: config.weight,
            upper_threshold: config.upper,
            lower_threshold: config.lower,
            active_connections: dest.active,
            inactive_connections: dest.inactive,
            persistent_connections: dest.persistent,
            stats: dest.stats,
        }
    }
}

fn tunnel_of(config: &DestConfig) -> Option<Tunnel> {
    if config.forward != forward::TUNNEL {
        return None;
    }
    let checksum = match config.tun_flags {
        tunnel::NOCSUM => "none",
        tunnel::CSUM => "full",
        _ => "remote",
    };
    Some(Tunnel {
        kind: TUNNELS.get(usize::from(config.tun_type)).copied()?,
        port: (config.tun_type == tunnel::GUE).then_some(config.tun_port),
        checksum: (config.tun_type != tunnel::IPIP).then_some(checksum),
    })
}

/// A connection.
pub fn conn(conn: &Conn) -> Value {
    let end = |addr: IpAddr, port: u16| json!({ "address": addr, "port": port });
    let mut value = json!({
        "protocol": protocol_name(conn.protocol),
        "state": conn.state,
        "expires_ms": conn.expires_ms,
        "client": end(conn.caddr, conn.cport),
        "virtual": end(conn.vaddr, conn.vport),
        "dest": end(conn.daddr, conn.dport),
        "flags": conn.flags,
        "worker": conn.worker,
    });
    if let (Some(name), Some(data)) = (&conn.pe_name, &conn.pe_data) {
        value["engine"] = json!({ "name": name, "data": data });
    }
    value
}

/// Timeouts.
pub fn timeouts(timeouts: &Timeouts) -> Value {
    json!({
        "tcp": timeouts.tcp,
        "tcp_fin": timeouts.tcp_fin,
        "udp": timeouts.udp,
    })
}

/// A synchronisation daemon.
pub fn daemon(daemon: &SyncDaemon) -> Value {
    json!({
        "state": if daemon.state == sync_state::MASTER { "master" } else { "backup" },
        "interface": daemon.mcast_ifn,
        "syncid": daemon.sync_id,
        "maxlen": daemon.sync_maxlen,
        "group": daemon.mcast_group,
        "port": daemon.mcast_port,
        "ttl": daemon.mcast_ttl,
    })
}
