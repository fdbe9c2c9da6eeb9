//! The configuration file as it is written: one serde structure for each of its tables, unknown keys refused. What spans
//! several tables is checked in [`super::check`], not here.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::mistake;
use super::values::{
    BondMode, Cidr, Device, FileMode, InterfaceName, Mac, PortRange, Prefix, Protocol, Service,
};
use super::{Idle, Owner, Scheduling};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub workers: Option<Spanned<u16>>,
    pub cores: Option<Spanned<Vec<u16>>>,
    pub connections: Option<Spanned<u32>>,
    pub socket: Option<PathBuf>,
    pub socket_mode: Option<FileMode>,
    pub socket_group: Option<String>,
    pub state_dir: Option<PathBuf>,
    pub log_level: Option<Spanned<String>>,
    pub idle: Option<Idle>,
    pub clock: Option<crate::clock::Mode>,
    pub owner: Option<Owner>,
    pub scheduling: Option<Scheduling>,
    #[serde(default)]
    pub exact_services: Vec<Service>,
    pub mh_table_bits: Option<Spanned<u8>>,
    pub icmp_ratelimit: Option<u32>,
    pub mbufs: Option<u32>,
    pub mbuf_size: Option<Spanned<u16>>,
    #[serde(default)]
    pub ftp_ports: Vec<Spanned<u16>>,
    #[serde(default)]
    pub eal: Eal,
    #[serde(default)]
    pub port: Vec<Port>,
    #[serde(default)]
    pub vlan: Vec<Vlan>,
    #[serde(default)]
    pub bond: Vec<Bond>,
    #[serde(default)]
    pub loopback: Loopback,
    #[serde(default)]
    pub route: Vec<Route>,
    #[serde(default)]
    pub neighbour: Vec<Neighbour>,
    #[serde(default)]
    pub mark: Vec<Mark>,
    #[serde(default)]
    pub sysctl: BTreeMap<Spanned<String>, Spanned<Numbers>>,
    #[serde(default)]
    pub timeouts: Timeouts,
}

/// The value of a setting: a number, or several.
#[derive(Debug)]
pub struct Numbers(Vec<i64>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader)
    }
}

/// Reads either.
struct Reader;

impl<'de> serde::de::Visitor<'de> for Reader {
    type Value = Numbers;

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("i64")
    }

    fn visit_i64<E>(self, number: i64) -> Result<Numbers, E> {
        Ok(Numbers(vec![number]))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut from: A) -> Result<Numbers, A::Error> {
        let mut numbers = Vec::new();
        while let Some(number) = from.next_element()? {
            numbers.push(number);
        }
        Ok(Numbers(numbers))
    }
}

impl std::fmt::Display for Numbers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut numbers = self.0.iter();
        numbers.try_for_each(|number| write!(out, "{number} "))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Eal {
    #[serde(default)]
    pub args: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    pub name: Spanned<InterfaceName>,
    pub device: Spanned<Device>,
    pub mac: Option<Mac>,
    pub mtu: Option<Spanned<u16>>,
    pub rx_queues: Option<Spanned<u16>>,
    pub tx_queues: Option<Spanned<u16>>,
    pub rx_descriptors: Option<Spanned<u16>>,
    pub tx_descriptors: Option<Spanned<u16>>,
    #[serde(default)]
    pub promiscuous: bool,
    #[serde(default)]
    pub addresses: Vec<Spanned<Cidr>>,
    pub companion: Option<Spanned<InterfaceName>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vlan {
    pub name: Spanned<InterfaceName>,
    pub on: Spanned<InterfaceName>,
    pub id: Spanned<u16>,
    pub mtu: Option<Spanned<u16>>,
    #[serde(default)]
    pub addresses: Vec<Spanned<Cidr>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bond {
    pub name: Spanned<InterfaceName>,
    pub members: Spanned<Vec<InterfaceName>>,
    pub mode: BondMode,
    pub mac: Option<Mac>,
    pub mtu: Option<Spanned<u16>>,
    #[serde(default)]
    pub addresses: Vec<Spanned<Cidr>>,
    pub companion: Option<Spanned<InterfaceName>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loopback {
    #[serde(default)]
    pub addresses: Vec<Spanned<Cidr>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    pub prefix: Spanned<Prefix>,
    pub via: Option<Spanned<std::net::IpAddr>>,
    pub dev: Option<Spanned<InterfaceName>>,
    pub mtu: Option<Spanned<u16>>,
    pub from: Option<Spanned<Prefix>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbour {
    pub interface: Spanned<InterfaceName>,
    pub address: Spanned<std::net::IpAddr>,
    pub mac: Mac,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    pub mark: Spanned<u32>,
    pub protocol: Option<Protocol>,
    pub source: Option<Spanned<Prefix>>,
    pub destination: Option<Spanned<Prefix>>,
    #[serde(default)]
    pub source_ports: Vec<PortRange>,
    #[serde(default)]
    pub destination_ports: Vec<PortRange>,
    pub interface: Option<Spanned<InterfaceName>>,
    #[serde(default)]
    pub divert: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    pub tcp: Option<Spanned<u32>>,
    pub tcpfin: Option<Spanned<u32>>,
    pub udp: Option<Spanned<u32>>,
}

/// A mistake in the text of a file: what is wrong, and where where that is known.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    /// What is wrong and what would be right.
    pub message: String,
    /// The bytes of the file it is about.
    pub span: Option<Range<usize>>,
}

/// Reads the text of a file.
///
/// # Errors
/// The first thing that is no TOML, unknown, of the wrong type or out of range.
pub fn parse(text: &str) -> Result<File, Mistake> {
    toml::from_str(text).map_err(|error| Mistake {
        message: mistake::explain(error.message(), text, error.span().map(|span| span.start)),
        span: error.span(),
    })
}

/// The candidate that is most like `word`, if any is like it at all.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
