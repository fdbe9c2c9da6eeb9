//! The command line of `ripvsd`, and how its options lie over the file: single values replace the file's, lists add to it.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;
use log::LevelFilter;

use super::file::{self, File};
use super::values::{Cidr, Device, FileMode, InterfaceName, Mac, Prefix};
use super::{
    At, Bond, Config, Idle, Mark, Neighbour, Origin, Owner, Port, Route, Scheduling, Vlan, Workers,
    CONNECTIONS, ICMP_RATELIMIT, MBUF_SIZE, MBUF_SIZE_MIN, MH_TABLE_BITS, SOCKET,
};
use crate::sysctl;

/// The ripvs daemon: an IPVS-compatible load balancer as a DPDK data plane.
#[derive(Debug, Default, Parser)]
#[command(name = "ripvsd", version, about)]
pub struct Options {
    /// Configuration file (TOML)
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check a configuration file, say what it means, and exit
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub check: Option<PathBuf>,

    /// Number of workers
    #[arg(long, value_name = "N", conflicts_with = "cores", value_parser = number::<u16>)]
    pub workers: Option<u16>,

    /// Cores of the workers, for example 1,2 or 4-7
    #[arg(long, value_name = "LIST")]
    pub cores: Option<CoreList>,

    /// Most connections the box keeps
    #[arg(long, value_name = "N", value_parser = number::<u32>)]
    pub connections: Option<u32>,

    /// Path of the control socket
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Permissions of the control socket, in octal
    #[arg(long, value_name = "MODE")]
    pub socket_mode: Option<FileMode>,

    /// Group of the control socket, whose members may use it
    #[arg(long, value_name = "GROUP")]
    pub socket_group: Option<String>,

    /// Where to keep what outlives a restart
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// error, warn, info, debug, trace or off
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    pub log_level: Option<LevelFilter>,

    /// What a worker without packets does
    #[arg(long)]
    pub idle: Option<Idle>,

    /// What of a client decides which worker owns its connections
    #[arg(long)]
    pub owner: Option<Owner>,

    /// Who schedules new connections where there are several workers
    #[arg(long)]
    pub scheduling: Option<Scheduling>,

    /// Port to drive, for example eth0=0000:03:00.0 or eth0=net_tap0,iface=dtap0
    #[arg(long = "port", value_name = "NAME=DEVICE")]
    pub ports: Vec<NamedDevice>,

    /// Address of an interface, for example eth0=198.18.0.254/24
    #[arg(long = "address", value_name = "INTERFACE=ADDRESS")]
    pub addresses: Vec<InterfaceAddress>,

    /// Route, for example 198.19.0.0/16,via=198.18.0.1 (also: dev=, mtu=, from=)
    #[arg(long = "route", value_name = "PREFIX,via=ADDRESS")]
    pub routes: Vec<RouteOption>,

    /// Static neighbour, for example eth0,198.18.0.1,02:00:00:00:01:01
    #[arg(
        long = "neighbour",
        alias = "neighbor",
        value_name = "INTERFACE,ADDRESS,MAC"
    )]
    pub neighbours: Vec<NeighbourOption>,

    /// Setting of net.ipv4.vs, for example sloppy_tcp=1
    #[arg(long = "sysctl", value_name = "NAME=VALUE")]
    pub sysctls: Vec<String>,

    /// Arguments for DPDK's EAL
    #[arg(last = true, value_name = "EAL ARGUMENT")]
    pub eal_args: Vec<String>,
}

fn number<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let number: Option<u64> = text.parse().ok();
    number
        .and_then(|number| number.try_into().ok())
        .ok_or_else(|| {
            format!(
                "a whole number of at most {} is wanted",
                u64::MAX >> (64 - 8 * size_of::<T>())
            )
        })
}

fn level(text: &str) -> Result<LevelFilter, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is no log level; there are off, error, warn, info, debug and trace")
    })
}

/// A list of cores such as `1,2` or `4-7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreList(pub Vec<u16>);

impl FromStr for CoreList {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut cores = Vec::new();
        for part in text.split(',') {
            let wrong = || format!("`{part}` is neither a core (2) nor a range of cores (4-7)");
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: u16 = first.parse().map_err(|_| wrong())?;
            let last: u16 = last.parse().map_err(|_| wrong())?;
            if first > last {
                return Err(wrong());
            }
            cores.extend(first..=last);
        }
        Ok(CoreList(cores))
    }
}

/// `NAME=DEVICE`
#[derive(Clone, Debug)]
pub struct NamedDevice(InterfaceName, Device);

impl FromStr for NamedDevice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, device) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not of the form NAME=DEVICE"))?;
        Ok(NamedDevice(name.parse()?, device.parse()?))
    }
}

/// `INTERFACE=ADDRESS/LENGTH`
#[derive(Clone, Debug)]
pub struct InterfaceAddress(InterfaceName, Cidr);

impl FromStr for InterfaceAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not of the form INTERFACE=ADDRESS/LENGTH"))?;
        Ok(InterfaceAddress(name.parse()?, address.parse()?))
    }
}

/// `PREFIX[,via=ADDRESS][,dev=INTERFACE][,mtu=N][,from=PREFIX]`
#[derive(Clone, Debug)]
pub struct RouteOption(Route);

impl FromStr for RouteOption {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const OPTION: &str = "--route";
        let mut parts = text.split(',');
        let prefix: Prefix = parts.next().unwrap_or("").parse()?;
        let mut route = Route {
            prefix: At::option(prefix, OPTION),
            via: None,
            dev: None,
            mtu: None,
            from: None,
        };
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            match key {
                "via" => {
                    let via = value
                        .parse()
                        .map_err(|_| format!("`{value}` is no address"))?;
                    route.via = Some(At::option(via, OPTION));
                }
                "dev" => route.dev = Some(At::option(value.parse()?, OPTION)),
                "mtu" => {
                    let mtu = value.parse().map_err(|_| format!("`{value}` is no MTU"))?;
                    route.mtu = Some(At::option(mtu, OPTION));
                }
                "from" => route.from = Some(At::option(value.parse()?, OPTION)),
                _ => return Err(format!("`{key}` is none of via, dev, mtu and from")),
            }
        }
        Ok(RouteOption(route))
    }
}

/// `INTERFACE,ADDRESS,MAC`
#[derive(Clone, Debug)]
pub struct NeighbourOption(Neighbour);

impl FromStr for NeighbourOption {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const OPTION: &str = "--neighbour";
        let parts: Vec<&str> = text.split(',').collect();
        let [interface, address, mac] = parts.as_slice() else {
            return Err(format!("`{text}` is not of the form INTERFACE,ADDRESS,MAC"));
        };
        let address = address
            .parse()
            .map_err(|_| format!("`{address}` is no address"))?;
        Ok(NeighbourOption(Neighbour {
            interface: At::option(interface.parse()?, OPTION),
            address: At::option(address, OPTION),
            mac: mac.parse::<Mac>()?,
        }))
    }
}

/// A mistake together with where it was made.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong and what would be right.
    pub message: String,
    /// Where.
    pub origin: Origin,
}

impl Wrong {
    /// A mistake at the place where a value was said.
    pub fn at<T>(place: &At<T>, message: impl Into<String>) -> Wrong {
        Wrong {
            message: message.into(),
            origin: place.origin.clone(),
        }
    }
}

/// The file's values with the options over them; ranges of single values are checked, references between them are not.
pub fn assemble(file: File, options: &Options) -> Result<Config, Wrong> {
    let workers = workers(&file, options)?;
    let connections = connections(&file, options)?;
    let log_level = log_level(&file, options)?;
    let mh_table_bits = mh_table_bits(&file)?;
    let mbuf_size = mbuf_size(&file)?;
    let ftp_ports = file
        .ftp_ports
        .into_iter()
        .map(|port| match port.get_ref() {
            0 => Err(Wrong::at(&At::file(port), "0 is no port; FTP's is 21")),
            _ => Ok(port.into_inner()),
        })
        .collect::<Result<_, _>>()?;
    let sysctls = sysctls(file.sysctl, &options.sysctls)?;
    let timeouts = timeouts(file.timeouts)?;
    let mut config = Config {
        workers,
        connections,
        socket: options
            .socket
            .clone()
            .or(file.socket)
            .unwrap_or_else(|| PathBuf::from(SOCKET)),
        socket_mode: options
            .socket_mode
            .or(file.socket_mode)
            .unwrap_or(FileMode(0o600)),
        socket_group: options.socket_group.clone().or(file.socket_group),
        state_dir: options.state_dir.clone().or(file.state_dir),
        log_level,
        idle: options.idle.or(file.idle).unwrap_or_default(),
        clock: file.clock.unwrap_or_default(),
        owner: options.owner.or(file.owner).unwrap_or_default(),
        scheduling: options.scheduling.or(file.scheduling).unwrap_or_default(),
        exact_services: file.exact_services.into_iter().map(|name| name.0).collect(),
        mh_table_bits,
        icmp_ratelimit: file.icmp_ratelimit.unwrap_or(ICMP_RATELIMIT),
        mbufs: file.mbufs.unwrap_or(0),
        mbuf_size,
        ftp_ports,
        eal_args: file
            .eal
            .args
            .iter()
            .chain(&options.eal_args)
            .cloned()
            .collect(),
        ports: file.port.into_iter().map(port).collect(),
        vlans: file.vlan.into_iter().map(vlan).collect(),
        bonds: file.bond.into_iter().map(bond).collect(),
        loopback: file.loopback.addresses.into_iter().map(At::file).collect(),
        routes: file.route.into_iter().map(route).collect(),
        neighbours: file.neighbour.into_iter().map(neighbour).collect(),
        marks: file.mark.into_iter().map(mark).collect(),
        sysctls,
        timeouts,
    };
    add_lists(&mut config, options)?;
    Ok(config)
}

fn workers(file: &File, options: &Options) -> Result<Workers, Wrong> {
    if let Some(cores) = &options.cores {
        return Ok(Workers::Cores(At::option(cores.0.clone(), "--cores")));
    }
    if let Some(count) = options.workers {
        return match count {
            0 => Err(Wrong::at(
                &At::option((), "--workers"),
                "at least one worker is needed",
            )),
            _ => Ok(Workers::Count(count)),
        };
    }
    match (&file.workers, &file.cores) {
        (Some(workers), Some(cores))
            if usize::from(*workers.get_ref()) != cores.get_ref().len() =>
        {
            let message = format!(
                "{} workers on {} cores; say either, the other follows",
                workers.get_ref(),
                cores.get_ref().len()
            );
            Err(Wrong {
                message,
                origin: Origin::File(workers.span()),
            })
        }
        (_, Some(cores)) if cores.get_ref().is_empty() => Err(Wrong {
            message: "no core for any worker; [1] would be one".into(),
            origin: Origin::File(cores.span()),
        }),
        (_, Some(cores)) => Ok(Workers::Cores(At::file(cores.clone()))),
        (Some(workers), None) if *workers.get_ref() == 0 => Err(Wrong {
            message: "at least one worker is needed".into(),
            origin: Origin::File(workers.span()),
        }),
        (Some(workers), None) => Ok(Workers::Count(*workers.get_ref())),
        (None, None) => Ok(Workers::AllButOne),
    }
}

fn connections(file: &File, options: &Options) -> Result<u32, Wrong> {
    let said = match (options.connections, &file.connections) {
        (Some(count), _) => At::option(count, "--connections"),
        (None, Some(count)) => At::file(count.clone()),
        (None, None) => return Ok(CONNECTIONS),
    };
    if (1024..=1 << 30).contains(&said.value) {
        Ok(said.value)
    } else {
        Err(Wrong::at(
            &said,
            format!(
                "a limit of {} connections; 1024 to {} would do",
                said.value,
                1 << 30
            ),
        ))
    }
}

fn log_level(file: &File, options: &Options) -> Result<LevelFilter, Wrong> {
    match (options.log_level, &file.log_level) {
        (Some(level), _) => Ok(level),
        (None, None) => Ok(LevelFilter::Info),
        (None, Some(text)) => level(text.get_ref()).map_err(|message| Wrong {
            message,
            origin: Origin::File(text.span()),
        }),
    }
}

fn mh_table_bits(file: &File) -> Result<u8, Wrong> {
    let Some(bits) = file.mh_table_bits.clone() else {
        return Ok(MH_TABLE_BITS);
    };
    // The range of CONFIG_IP_VS_MH_TAB_INDEX.
    if (8..=17).contains(bits.get_ref()) {
        Ok(bits.into_inner())
    } else {
        let message = format!("{} bits; 8 to 17 would do", bits.get_ref());
        Err(Wrong::at(&At::file(bits), message))
    }
}

fn mbuf_size(file: &File) -> Result<u16, Wrong> {
    let Some(size) = file.mbuf_size.clone() else {
        return Ok(MBUF_SIZE);
    };
    if *size.get_ref() >= MBUF_SIZE_MIN {
        Ok(size.into_inner())
    } else {
        let message = format!(
            "buffers of {} bytes; {MBUF_SIZE_MIN} to {} would do",
            size.get_ref(),
            u16::MAX
        );
        Err(Wrong::at(&At::file(size), message))
    }
}

fn sysctls(
    file: std::collections::BTreeMap<toml::Spanned<String>, toml::Spanned<file::Numbers>>,
    options: &[String],
) -> Result<Vec<(&'static str, Vec<i32>)>, Wrong> {
    let mut all = Vec::new();
    for (name, value) in file {
        let known = sysctl::find(name.get_ref()).map_err(|message| Wrong {
            message,
            origin: Origin::File(name.span()),
        })?;
        let value_at = At::file(value);
        let value = known
            .read(&value_at.value.to_string())
            .map_err(|message| Wrong::at(&value_at, message))?;
        all.push((known.name, value));
    }
    for text in options {
        let wrong = |message| Wrong::at(&At::option((), "--sysctl"), message);
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| wrong(format!("`{text}` is not of the form NAME=VALUE")))?;
        let known = sysctl::find(name).map_err(wrong)?;
        all.push((known.name, known.read(value).map_err(wrong)?));
    }
    Ok(all)
}

fn timeouts(file: file::Timeouts) -> Result<[u32; 3], Wrong> {
    // The bound of ipvsadm, 31 days.
    const MOST: u32 = 31 * 24 * 60 * 60;
    let check = |timeout: Option<toml::Spanned<u32>>| match timeout {
        None => Ok(0),
        Some(seconds) if *seconds.get_ref() > MOST => {
            let message = format!(
                "{} seconds are more than 31 days ({MOST})",
                seconds.get_ref()
            );
            Err(Wrong::at(&At::file(seconds), message))
        }
        Some(seconds) => Ok(seconds.into_inner()),
    };
    Ok([check(file.tcp)?, check(file.tcpfin)?, check(file.udp)?])
}

fn add_lists(config: &mut Config, options: &Options) -> Result<(), Wrong> {
    for NamedDevice(name, device) in &options.ports {
        let device = At::option(device.clone(), "--port");
        match config.ports.iter_mut().find(|p| p.name.value == *name) {
            Some(port) => port.device = device,
            None => config.ports.push(Port {
                name: At::option(name.clone(), "--port"),
                device,
                mac: None,
                mtu: None,
                rx_queues: None,
                tx_queues: None,
                rx_descriptors: None,
                tx_descriptors: None,
                promiscuous: false,
                addresses: Vec::new(),
                companion: None,
            }),
        }
    }
    for InterfaceAddress(name, address) in &options.addresses {
        let address = At::option(*address, "--address");
        let list = if name.0 == "lo" {
            Some(&mut config.loopback)
        } else {
            let ports = config.ports.iter_mut().map(|p| (&p.name, &mut p.addresses));
            let vlans = config.vlans.iter_mut().map(|v| (&v.name, &mut v.addresses));
            let bonds = config.bonds.iter_mut().map(|b| (&b.name, &mut b.addresses));
            ports
                .chain(vlans)
                .chain(bonds)
                .find(|(known, _)| known.value == *name)
                .map(|(_, list)| list)
        };
        match list {
            Some(list) => list.push(address),
            None => {
                return Err(Wrong::at(
                    &address,
                    format!("there is no interface `{name}`"),
                ))
            }
        }
    }
    config
        .routes
        .extend(options.routes.iter().map(|r| r.0.clone()));
    config
        .neighbours
        .extend(options.neighbours.iter().map(|n| n.0.clone()));
    Ok(())
}

fn port(port: file::Port) -> Port {
    Port {
        name: At::file(port.name),
        device: At::file(port.device),
        mac: port.mac,
        mtu: port.mtu.map(At::file),
        rx_queues: port.rx_queues.map(At::file),
        tx_queues: port.tx_queues.map(At::file),
        rx_descriptors: port.rx_descriptors.map(At::file),
        tx_descriptors: port.tx_descriptors.map(At::file),
        promiscuous: port.promiscuous,
        addresses: port.addresses.into_iter().map(At::file).collect(),
        companion: port.companion.map(At::file),
    }
}

fn vlan(vlan: file::Vlan) -> Vlan {
    Vlan {
        name: At::file(vlan.name),
        on: At::file(vlan.on),
        id: At::file(vlan.id),
        mtu: vlan.mtu.map(At::file),
        addresses: vlan.addresses.into_iter().map(At::file).collect(),
    }
}

fn bond(bond: file::Bond) -> Bond {
    Bond {
        name: At::file(bond.name),
        members: At::file(bond.members),
        mode: bond.mode,
        mac: bond.mac,
        mtu: bond.mtu.map(At::file),
        addresses: bond.addresses.into_iter().map(At::file).collect(),
        companion: bond.companion.map(At::file),
    }
}

fn route(route: file::Route) -> Route {
    Route {
        prefix: At::file(route.prefix),
        via: route.via.map(At::file),
        dev: route.dev.map(At::file),
        mtu: route.mtu.map(At::file),
        from: route.from.map(At::file),
    }
}

fn neighbour(neighbour: file::Neighbour) -> Neighbour {
    Neighbour {
        interface: At::file(neighbour.interface),
        address: At::file(neighbour.address),
        mac: neighbour.mac,
    }
}

fn mark(mark: file::Mark) -> Mark {
    Mark {
        mark: At::file(mark.mark),
        protocol: mark.protocol,
        source: mark.source.map(At::file),
        destination: mark.destination.map(At::file),
        source_ports: mark.source_ports,
        destination_ports: mark.destination_ports,
        interface: mark.interface.map(At::file),
        divert: mark.divert,
    }
}
