//! Ports out of the configuration: devices attached, bonds over them, companions beside them; one mempool for all; queues
//! given out to the workers.
//!
//! Ports are numbered in the order of the configuration: first the devices that are ports of their own, then the bonds, then
//! the companions.

use ripvs_nic::{
    devargs, BondMode, Device, Eal, Mempool, PortConfig, PortError, Rss, RxQueue, TxQueue,
};
use ripvs_packet::PortId;

use crate::config::values::{self, InterfaceName};
use crate::config::{At, Bond, Config, Port};
use crate::control::network::PortSetup;
use crate::worker::io::RING;

/// Mbufs that each worker's cache may hold.
const CACHE: u32 = 256;
/// Mbufs that a worker may hold in bursts, for neighbours, and in reassembly.
const HELD: u32 = 6144;

/// All ports, started.
pub struct Ports {
    /// For the network layer, in the order of their numbers.
    pub setups: Vec<PortSetup>,
    /// The receive queues of each worker.
    pub rx: Vec<Vec<(PortId, RxQueue)>>,
    /// The transmit queues of each port.
    pub tx: Vec<Vec<TxQueue>>,
    /// Where frames are.
    pub pool: Mempool,
    /// What of the wishes did not come true.
    pub notes: Vec<String>,
}

/// A port that is to be started.
struct Wanted {
    name: String,
    device: Device,
    config: PortConfig,
    companion: Option<String>,
    has_interface: bool,
}

fn value<T: Copy>(at: &Option<At<T>>) -> Option<T> {
    at.as_ref().map(|at| at.value)
}

/// Attaches and starts everything.
///
/// # Errors
/// What DPDK could not do, with cause and remedy.
pub fn start(eal: &Eal, config: &Config, workers: usize) -> Result<Ports, String> {
    let mut wanted = attach(eal, config, workers)?;
    let interfaces = wanted.len();
    attach_companions(eal, config, &mut wanted)?;
    let (pool, notes) = make_pool(eal, &wanted, workers, config)?;
    let mut ports = Ports {
        setups: Vec::new(),
        rx: (0..workers).map(|_| Vec::new()).collect(),
        tx: Vec::new(),
        pool,
        notes,
    };
    let mut next_companion = interfaces;
    for (number, port) in wanted.into_iter().enumerate() {
        let companion = port.companion.clone().map(|name| {
            next_companion += 1;
            (PortId(next_companion as u16 - 1), name)
        });
        start_one(number, port, companion, &mut ports)?;
    }
    Ok(ports)
}

fn start_one(
    number: usize,
    wanted: Wanted,
    companion: Option<(PortId, String)>,
    ports: &mut Ports,
) -> Result<(), String> {
    let fail = |error: PortError| format!("port {}: {error}", wanted.name);
    let (device_name, driver) = (
        wanted.device.name().to_string(),
        wanted.device.driver().to_string(),
    );
    let started = wanted
        .device
        .start(&wanted.config, &ports.pool)
        .map_err(fail)?;
    let notes = started.plan.notes.iter();
    ports
        .notes
        .extend(notes.map(|note| format!("port {}: {note}", wanted.name)));
    let queues = (started.rx.len() as u16, started.tx.len() as u16);
    let workers = ports.rx.len();
    for (queue, rx) in started.rx.into_iter().enumerate() {
        ports.rx[queue % workers].push((PortId(number as u16), rx));
    }
    ports.tx.push(started.tx);
    let mac = match wanted.config.mac {
        Some(mac) => mac,
        None => started.port.mac().map_err(fail)?,
    };
    ports.setups.push(PortSetup {
        mac,
        mtu: started.port.mtu(),
        queues,
        device_name,
        driver,
        companion,
        has_interface: wanted.has_interface,
        device: Some(started.port),
        name: wanted.name,
    });
    Ok(())
}

/// The device string that DPDK gets: with room for long frames where the driver has to be told.
fn device_string(device: &values::Device, mtu: u16) -> String {
    let text = device.to_string();
    if device.driver() != "net_af_packet" || mtu <= 1974 || text.contains("framesz=") {
        return text;
    }
    let number = device
        .name()
        .trim_start_matches("net_af_packet")
        .parse()
        .unwrap_or(0);
    let option = |name: &str| {
        text.split(',')
            .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
            .map(str::to_string)
    };
    let iface = option("iface").unwrap_or_default();
    let queues = option("qpairs")
        .and_then(|count| count.parse().ok())
        .unwrap_or(1);
    devargs::af_packet(number, &iface, mtu, queues)
}

fn attach(eal: &Eal, config: &Config, workers: usize) -> Result<Vec<Wanted>, String> {
    let is_member = |name: &InterfaceName| {
        config
            .bonds
            .iter()
            .any(|bond| bond.members.value.contains(name))
    };
    let mut wanted = Vec::new();
    for port in config
        .ports
        .iter()
        .filter(|port| !is_member(&port.name.value))
    {
        wanted.push(Wanted {
            name: port.name.value.0.clone(),
            device: attach_one(eal, port, value(&port.mtu).unwrap_or(1500))?,
            config: port_config(port, workers),
            companion: port.companion.as_ref().map(|at| at.value.0.clone()),
            has_interface: true,
        });
    }
    for (number, bond) in config.bonds.iter().enumerate() {
        wanted.push(attach_bond(eal, config, number, bond, workers)?);
    }
    for port in &mut wanted {
        let limits = port
            .device
            .limits()
            .map_err(|error| format!("port {}: {error}", port.name))?;
        // Which queue a packet comes by is of no matter; that all are used is.
        if port.config.rx_queues > 1 && limits.rss {
            port.config.rss = Some(Rss::default());
        }
    }
    Ok(wanted)
}

fn attach_one(eal: &Eal, port: &Port, mtu: u16) -> Result<Device, String> {
    let text = device_string(&port.device.value, mtu);
    Device::attach(eal, &text).map_err(|error| format!("port {}: {error}", port.name.value))
}

fn port_config(port: &Port, workers: usize) -> PortConfig {
    let default = PortConfig::default();
    let queues = u16::try_from(workers).unwrap_or(u16::MAX);
    PortConfig {
        rx_queues: value(&port.rx_queues).unwrap_or(queues),
        tx_queues: value(&port.tx_queues).unwrap_or(queues),
        rx_descriptors: value(&port.rx_descriptors).unwrap_or(default.rx_descriptors),
        tx_descriptors: value(&port.tx_descriptors).unwrap_or(default.tx_descriptors),
        mtu: value(&port.mtu).unwrap_or(default.mtu),
        promiscuous: port.promiscuous,
        // Neighbours ask by multicast.
        all_multicast: true,
        mac: port.mac.map(|mac| mac.0),
        ..default
    }
}

fn attach_bond(
    eal: &Eal,
    config: &Config,
    number: usize,
    bond: &Bond,
    workers: usize,
) -> Result<Wanted, String> {
    let mtu = value(&bond.mtu).unwrap_or(1500);
    let member = |name: &InterfaceName| config.ports.iter().find(|port| port.name.value == *name);
    let members = bond
        .members
        .value
        .iter()
        .filter_map(member)
        .map(|port| attach_one(eal, port, mtu))
        .collect::<Result<Vec<_>, _>>()?;
    let mode = match bond.mode.name() {
        "balance-rr" => BondMode::RoundRobin,
        "active-backup" => BondMode::ActiveBackup,
        "balance-xor" => BondMode::Balance,
        "broadcast" => BondMode::Broadcast,
        "802.3ad" => BondMode::Lacp,
        "balance-tlb" => BondMode::TransmitLoad,
        _ => BondMode::AdaptiveLoad,
    };
    let options = bond.mac.map(|mac| format!("mac={mac}")).unwrap_or_default();
    let name = format!("net_bonding{number}");
    let device = Device::attach_bond(eal, &name, mode, members, &options)
        .map_err(|error| format!("bond {}: {error}", bond.name.value))?;
    let queues = u16::try_from(workers).unwrap_or(u16::MAX);
    Ok(Wanted {
        name: bond.name.value.0.clone(),
        device,
        config: PortConfig {
            rx_queues: queues,
            tx_queues: queues,
            mtu,
            all_multicast: true,
            mac: bond.mac.map(|mac| mac.0),
            ..PortConfig::default()
        },
        companion: bond.companion.as_ref().map(|at| at.value.0.clone()),
        has_interface: true,
    })
}

/// Companions: a net_tap each, whose kernel side has the port's own MAC address, so that the host takes what was sent to
/// the port for its own.
fn attach_companions(eal: &Eal, config: &Config, wanted: &mut Vec<Wanted>) -> Result<(), String> {
    let used: Vec<&str> = config
        .ports
        .iter()
        .map(|port| port.device.value.name())
        .collect();
    let mut numbers = (0..).filter(|number| !used.contains(&format!("net_tap{number}").as_str()));
    let mut companions = Vec::new();
    for port in wanted.iter() {
        let Some(name) = &port.companion else {
            continue;
        };
        let number: u16 = numbers.next().unwrap_or(0);
        let fail = |error: PortError| format!("companion {name} of port {}: {error}", port.name);
        let mac = match port.config.mac {
            Some(mac) => mac,
            None => port.device.mac().map_err(fail)?,
        };
        let device = Device::attach(eal, &devargs::tap(number, name, None)).map_err(fail)?;
        companions.push(Wanted {
            name: name.clone(),
            device,
            config: PortConfig {
                mtu: port.config.mtu,
                mac: Some(mac),
                promiscuous: true,
                ..PortConfig::default()
            },
            companion: None,
            has_interface: false,
        });
    }
    wanted.append(&mut companions);
    Ok(())
}

/// A pool that is large enough for all that may hold mbufs at a time, of mbufs that are large enough for all ports.
fn make_pool(
    eal: &Eal,
    wanted: &[Wanted],
    workers: usize,
    config: &Config,
) -> Result<(Mempool, Vec<String>), String> {
    let mut room = config.mbuf_size;
    let mut mbufs = 0u32;
    for port in wanted {
        let fail = |error: PortError| format!("port {}: {error}", port.name);
        let plan = match port.device.plan(&port.config, room) {
            Err(PortError::RoomTooSmall { needed, .. }) => {
                room = u16::try_from(needed).unwrap_or(u16::MAX).max(room);
                port.device.plan(&port.config, room).map_err(fail)?
            }
            other => other.map_err(fail)?,
        };
        mbufs += plan.mbufs;
    }
    let workers = workers as u32;
    let rings = workers * (workers - 1) * RING as u32;
    let count = (mbufs + rings + workers * (CACHE + HELD)).max(config.mbufs);
    let pool = Mempool::new(eal, "frames", count, CACHE, room, None)
        .map_err(|error| format!("no memory for {count} frames of {room} bytes: {error}"))?;
    Ok((pool, Vec::new()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn long_frames_of_af_packet_get_larger_slots_unless_the_operator_says_otherwise() {
        let plain: values::Device = "net_af_packet3,iface=veth1,qpairs=2".parse().unwrap();
        assert_eq!(device_string(&plain, 1500), plain.to_string());
        let large = device_string(&plain, 9000);
        assert!(
            large.starts_with("net_af_packet3,iface=veth1,qpairs=2,"),
            "{large}"
        );
        assert!(large.contains("framesz="), "{large}");
        let said: values::Device = "net_af_packet3,iface=veth1,framesz=16384".parse().unwrap();
        assert_eq!(device_string(&said, 9000), said.to_string());
    }
}
