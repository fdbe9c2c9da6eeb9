//! Services: what names them, how they are configured, how they are shown.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::number::{svc, PE_NAME_MAX, SCHED_NAME_MAX};
use super::{nul_string, port_of, u16_of, u32_of, Stats};
use crate::errno::Errno;
use crate::nl::{u32_at, DecodeError, Table, Writer};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Af {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Af {
    /// The kernel's number (`AF_INET`, `AF_INET6`).
    pub fn number(self) -> u16 {
        match self {
            Af::V4 => 2,
            Af::V6 => 10,
        }
    }

    /// The family with that number.
    pub fn from_number(number: u16) -> Option<Af> {
        match number {
            2 => Some(Af::V4),
            10 => Some(Af::V6),
            _ => None,
        }
    }

    /// The family of an address.
    pub fn of(addr: IpAddr) -> Af {
        if addr.is_ipv4() {
            Af::V4
        } else {
            Af::V6
        }
    }

    /// Reads an address of this family from up to 16 bytes. Missing ones are 0, as in the kernel's nla_memcpy.
    pub(super) fn address(self, value: &[u8]) -> IpAddr {
        let mut bytes = [0u8; 16];
        for (byte, from) in bytes.iter_mut().zip(value) {
            *byte = *from;
        }
        match self {
            Af::V4 => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
            Af::V6 => IpAddr::V6(Ipv6Addr::from(bytes)),
        }
    }
}

/// An address in the 16 bytes that it has in messages.
pub(super) fn address_bytes(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// What makes a service that service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceKey {
    /// An address, a port and a protocol.
    Addr {
        /// IP protocol number, as it came: what is none of 6, 17, 132 is for the server to refuse.
        protocol: u16,
        /// The virtual address.
        addr: IpAddr,
        /// The virtual port, host byte order; 0 stands for all.
        port: u16,
    },
    /// A firewall mark.
    Mark {
        /// The mark. 0 is for the server to judge.
        mark: u32,
        /// The family of the packets it is for.
        af: Af,
    },
}

impl ServiceKey {
    /// The family of the service's clients.
    pub fn af(&self) -> Af {
        match self {
            ServiceKey::Addr { addr, .. } => Af::of(*addr),
            ServiceKey::Mark { af, .. } => *af,
        }
    }

    pub(super) fn decode(attr: Option<&[u8]>) -> Result<ServiceKey, Errno> {
        Self::from_table(&service_table(attr)?)
    }

    pub(super) fn decode_full(attr: Option<&[u8]>) -> Result<(ServiceKey, ServiceConfig), Errno> {
        let table = service_table(attr)?;
        let key = Self::from_table(&table)?;
        let config = ServiceConfig::from_table(&table, key.af())?;
        Ok((key, config))
    }

    fn from_table(table: &ServiceTable<'_>) -> Result<ServiceKey, Errno> {
        let af = table.get(svc::AF).ok_or(Errno::INVAL)?;
        let mark = table.get(svc::FWMARK);
        let address = (
            table.get(svc::PORT),
            table.get(svc::PROTOCOL),
            table.get(svc::ADDR),
        );
        let af = u16_of(af)?;
        let known = Af::from_number(af).ok_or(Errno::AFNOSUPPORT);
        match (mark, address) {
            (Some(mark), _) => Ok(ServiceKey::Mark {
                mark: u32_of(mark)?,
                af: known?,
            }),
            (None, (Some(port), Some(protocol), Some(addr))) => {
                let (port, protocol) = (port_of(port)?, u16_of(protocol)?);
                if addr.len() > 16 {
                    return Err(Errno::INVAL);
                }
                Ok(ServiceKey::Addr {
                    protocol,
                    addr: known?.address(addr),
                    port,
                })
            }
            _ => Err(Errno::INVAL),
        }
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.u16(svc::AF, self.af().number());
        match *self {
            ServiceKey::Addr {
                protocol,
                addr,
                port,
            } => {
                w.u16(svc::PROTOCOL, protocol);
                w.attr(svc::ADDR, &address_bytes(addr));
                w.be16(svc::PORT, port);
            }
            ServiceKey::Mark { mark, .. } => w.u32(svc::FWMARK, mark),
        }
    }
}

/// How a service is to work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// The scheduler's name.
    pub sched: String,
    /// The persistence engine's name, if there is to be one.
    pub pe: Option<String>,
    /// Bits of [`flag`](super::number::flag) to set, of those in `mask`.
    pub flags: u32,
    /// Which flags are meant; others stay.
    pub mask: u32,
    /// Length of the persistence window, seconds.
    pub timeout: u32,
    /// IPv4: the mask, host byte order. IPv6: the prefix length.
    pub netmask: u32,
}

impl ServiceConfig {
    fn from_table(table: &ServiceTable<'_>, af: Af) -> Result<ServiceConfig, Errno> {
        let need = |kind| table.get(kind).ok_or(Errno::INVAL);
        let (sched, flags) = (need(svc::SCHED_NAME)?, need(svc::FLAGS)?);
        let (timeout, netmask) = (need(svc::TIMEOUT)?, need(svc::NETMASK)?);
        let pe = table.get(svc::PE_NAME);
        // A flags attribute too short is padded with zeros by nla_memcpy.
        Ok(ServiceConfig {
            sched: nul_string(sched, SCHED_NAME_MAX)?,
            pe: pe.map(|pe| nul_string(pe, PE_NAME_MAX)).transpose()?,
            flags: u32_at(flags, 0).unwrap_or(0),
            mask: u32_at(flags, 4).unwrap_or(0),
            timeout: u32_of(timeout)?,
            netmask: netmask_of(u32_of(netmask)?, af),
        })
    }

    pub(super) fn encode(&self, af: Af, w: &mut Writer) {
        w.string(svc::SCHED_NAME, &self.sched);
        if let Some(pe) = &self.pe {
            w.string(svc::PE_NAME, pe);
        }
        let mut flags = [0; 8];
        flags[..4].copy_from_slice(&self.flags.to_ne_bytes());
        flags[4..].copy_from_slice(&self.mask.to_ne_bytes());
        w.attr(svc::FLAGS, &flags);
        w.u32(svc::TIMEOUT, self.timeout);
        w.u32(svc::NETMASK, netmask_of(self.netmask, af));
    }
}

/// Between the netmask of a message (IPv4: network byte order, IPv6: a number) and ours, in either direction.
fn netmask_of(value: u32, af: Af) -> u32 {
    match af {
        Af::V4 => u32::from_be(value),
        Af::V6 => value,
    }
}

/// A service as the server shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What it is known by.
    pub key: ServiceKey,
    /// Its configuration. The scheduler is `none` where there is none; the mask is all ones.
    pub config: ServiceConfig,
    /// Its counters.
    pub stats: Stats,
}

impl Service {
    pub(super) fn encode(&self, w: &mut Writer) {
        self.key.encode(w);
        self.config.encode(self.key.af(), w);
        w.nest(svc::STATS, |w| self.stats.encode32(w));
        w.nest(svc::STATS64, |w| self.stats.encode64(w));
    }

    pub(super) fn decode(attr: Option<&[u8]>) -> Result<Service, DecodeError> {
        let table = service_table(attr).map_err(|_| DecodeError::Missing("service"))?;
        let key =
            ServiceKey::from_table(&table).map_err(|_| DecodeError::Invalid("service key"))?;
        let config = ServiceConfig::from_table(&table, key.af())
            .map_err(|_| DecodeError::Invalid("service"))?;
        Ok(Service {
            key,
            config,
            stats: Stats::decode(table.get(svc::STATS64), table.get(svc::STATS)),
        })
    }
}

type ServiceTable<'a> = Table<'a, { svc::STATS64 as usize + 1 }>;

fn service_table(attr: Option<&[u8]>) -> Result<ServiceTable<'_>, Errno> {
    attr.map(Table::new).ok_or(Errno::INVAL)
}
