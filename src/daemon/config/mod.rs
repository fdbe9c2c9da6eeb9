//! What the operator wants of the daemon: the configuration file (TOML) with the command line's options over it, checked
//! as a whole. Reads text and decides nothing: devices, cores and permissions are looked at when the daemon boots.

mod check;
mod explain;
pub mod file;
mod mistake;
pub mod options;
pub mod values;

use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use log::LevelFilter;
use serde::Deserialize;

pub use explain::{explain, without_ports};
use ripvs_api::ripvs::ServiceName;
use values::{BondMode, Cidr, Device, FileMode, InterfaceName, Mac, PortRange, Prefix, Protocol};

/// Whether a worker without packets gives its core away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Idle {
    /// Polls for a while, then sleeps ever longer, up to half a millisecond.
    #[default]
    Adaptive,
    /// Polls always: for appliances whose cores are isolated.
    Poll,
}

/// What of a client decides which worker owns its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// Address and port.
    #[default]
    AddressPort,
    /// The address alone.
    Address,
}

/// Who schedules new connections where there are several workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Scheduling {
    /// Each worker for itself: no connection waits for another worker.
    #[default]
    Local,
    /// One worker for each service, in the order of one kernel.
    Exact,
}

/// How many workers there are, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One for each core the daemon may use but one, at least one.
    AllButOne,
    /// So many, wherever there is room; on the last of the cores the daemon may use where they poll without sleeping.
    Count(u16),
    /// One on each of these cores.
    Cores(At<Vec<u16>>),
}

/// Where in the configuration something was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In these bytes of the file.
    File(Range<usize>),
    /// With this option of the command line.
    Option(&'static str),
}

/// A value with the place where it was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it comes from.
    pub origin: Origin,
}

impl<T> At<T> {
    fn file(spanned: toml::Spanned<T>) -> At<T> {
        let origin = Origin::File(spanned.span());
        At {
            value: spanned.into_inner(),
            origin,
        }
    }

    fn option(value: T, option: &'static str) -> At<T> {
        At {
            value,
            origin: Origin::Option(option),
        }
    }
}

/// A NIC port and the interface of the same name on it.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Port {
    pub name: At<InterfaceName>,
    pub device: At<Device>,
    pub mac: Option<Mac>,
    pub mtu: Option<At<u16>>,
    pub rx_queues: Option<At<u16>>,
    pub tx_queues: Option<At<u16>>,
    pub rx_descriptors: Option<At<u16>>,
    pub tx_descriptors: Option<At<u16>>,
    pub promiscuous: bool,
    pub addresses: Vec<At<Cidr>>,
    /// Name of the kernel's interface that gets what is the host's own.
    pub companion: Option<At<InterfaceName>>,
}

/// A VLAN interface.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Vlan {
    pub name: At<InterfaceName>,
    pub on: At<InterfaceName>,
    pub id: At<u16>,
    pub mtu: Option<At<u16>>,
    pub addresses: Vec<At<Cidr>>,
}

/// Several ports as one interface.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Bond {
    pub name: At<InterfaceName>,
    pub members: At<Vec<InterfaceName>>,
    pub mode: BondMode,
    pub mac: Option<Mac>,
    pub mtu: Option<At<u16>>,
    pub addresses: Vec<At<Cidr>>,
    /// Name of the kernel's interface that gets what is the host's own.
    pub companion: Option<At<InterfaceName>>,
}

/// A route.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Route {
    pub prefix: At<Prefix>,
    pub via: Option<At<IpAddr>>,
    pub dev: Option<At<InterfaceName>>,
    pub mtu: Option<At<u16>>,
    pub from: Option<At<Prefix>>,
}

/// A neighbour that is never asked for.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Neighbour {
    pub interface: At<InterfaceName>,
    pub address: At<IpAddr>,
    pub mac: Mac,
}

/// A rule that gives packets a firewall mark.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Mark {
    pub mark: At<u32>,
    pub protocol: Option<Protocol>,
    pub source: Option<At<Prefix>>,
    pub destination: Option<At<Prefix>>,
    pub source_ports: Vec<PortRange>,
    pub destination_ports: Vec<PortRange>,
    pub interface: Option<At<InterfaceName>>,
    pub divert: bool,
}

/// A whole configuration.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Config {
    pub workers: Workers,
    pub connections: u32,
    pub socket: PathBuf,
    pub socket_mode: FileMode,
    pub socket_group: Option<String>,
    pub state_dir: Option<PathBuf>,
    pub log_level: LevelFilter,
    pub idle: Idle,
    pub clock: crate::clock::Mode,
    pub owner: Owner,
    pub scheduling: Scheduling,
    /// Services that are scheduled exactly whatever `scheduling` says.
    pub exact_services: Vec<ServiceName>,
    pub mh_table_bits: u8,
    /// ICMP errors per second, for the whole box; 0 for no limit.
    pub icmp_ratelimit: u32,
    /// Packet buffers that there are at least, whatever the ports need.
    pub mbufs: u32,
    /// Bytes of data in a packet buffer.
    pub mbuf_size: u16,
    /// Ports on which the FTP helper looks; none: it is off.
    pub ftp_ports: Vec<u16>,
    pub eal_args: Vec<String>,
    pub ports: Vec<Port>,
    pub vlans: Vec<Vlan>,
    pub bonds: Vec<Bond>,
    /// Addresses of `lo`.
    pub loopback: Vec<At<Cidr>>,
    pub routes: Vec<Route>,
    pub neighbours: Vec<Neighbour>,
    pub marks: Vec<Mark>,
    /// Names below `net.ipv4.vs.` with their values, known and in range.
    pub sysctls: Vec<(&'static str, Vec<i32>)>,
    /// Timeouts in seconds, 0 where the default stays: tcp, tcpfin, udp.
    pub timeouts: [u32; 3],
}

/// Default of `connections`: as many as fit a small machine.
pub const CONNECTIONS: u32 = 1 << 20;
/// Default of `socket`.
pub const SOCKET: &str = "/run/ripvs/ripvsd.sock";
/// Default of `mh_table_bits`, as `CONFIG_IP_VS_MH_TAB_INDEX` of the kernel.
pub const MH_TABLE_BITS: u8 = 12;
/// Default of `mbuf_size`: a frame of the usual MTU.
pub const MBUF_SIZE: u16 = ripvs_nic::DATA_ROOM;
/// Least `mbuf_size`: all headers of a packet in its first buffer.
pub const MBUF_SIZE_MIN: u16 = 256;
/// Default of `icmp_ratelimit`, as `net.ipv4.icmp_msgs_per_sec` of the kernel.
pub const ICMP_RATELIMIT: u32 = 1000;

/// Why a configuration cannot be used, in words for the operator, place included.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl std::fmt::Display for ConfigError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Reads `path`, if any, puts the options over it, and checks the whole.
///
/// # Errors
/// The file cannot be read, or the first mistake with its place.
pub fn load(path: Option<&Path>, options: &options::Options) -> Result<Config, ConfigError> {
    let text = match path {
        None => String::new(),
        Some(path) => read(path)?,
    };
    let name = path.map_or_else(String::new, |path| path.display().to_string());
    from_text(&name, &text, options)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "; write one, after docs/ripvsd.example.toml, or name another by --config"
            }
            std::io::ErrorKind::PermissionDenied => {
                "; run ripvsd as a user who may read it, as root for instance"
            }
            _ => "",
        };
        ConfigError(format!("cannot read {name}: {error}{remedy}"))
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        ConfigError(format!(
            "{name}:{line}: this is not UTF-8, as TOML has to be; save the file in that encoding"
        ))
    })
}

/// The same for a text that has been read already; `name` stands for it in messages.
///
/// # Errors
/// The first mistake with its place.
pub fn from_text(
    name: &str,
    text: &str,
    options: &options::Options,
) -> Result<Config, ConfigError> {
    let render =
        |message: &str, origin: Option<&Origin>| ConfigError(place(name, text, message, origin));
    let file = file::parse(text)
        .map_err(|mistake| render(&mistake.message, mistake.span.map(Origin::File).as_ref()))?;
    let assembled = options::assemble(file, options);
    assembled
        .and_then(|config| check::check(&config).map(|()| config))
        .map_err(|wrong| render(&wrong.message, Some(&wrong.origin)))
}

/// A mistake with the place it is in, as compilers write it.
fn place(name: &str, text: &str, message: &str, origin: Option<&Origin>) -> String {
    let span = match origin {
        None => return format!("{name}: {message}"),
        Some(Origin::Option(option)) => return format!("option {option}: {message}"),
        Some(Origin::File(span)) => span,
    };
    let start = span.start.min(text.len());
    let before = text.get(..start).unwrap_or("");
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let number = before.matches('\n').count() + 1;
    let column = before.get(line_start..).unwrap_or("").chars().count() + 1;
    let line = text.get(line_start..).unwrap_or("");
    let line = line.lines().next().unwrap_or("");
    let marked = text.get(start..span.end.min(text.len())).unwrap_or("");
    let width = marked.lines().next().unwrap_or("").chars().count().max(1);
    let gutter = " ".repeat(number.to_string().len());
    let pad = " ".repeat(column - 1);
    let carets = "^".repeat(width);
    format!(
        "{name}:{number}:{column}: {message}\n{gutter} |\n{number} | {line}\n{gutter} | {pad}{carets}"
    )
}

#[cfg(test)]
mod tests;
