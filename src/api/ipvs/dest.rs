//! Dests (real servers): what names them, how they are configured, how they are shown.

use std::net::IpAddr;

use super::number::{dest, forward};
use super::service::{address_bytes, Af};
use super::{port_of, u16_of, u32_of, Stats};
use crate::errno::Errno;
use crate::nl::{DecodeError, Table, Writer};

/// What makes a dest that dest of its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DestKey {
    /// Its address.
    pub addr: IpAddr,
    /// Its port, host byte order.
    pub port: u16,
}

impl DestKey {
    /// Reads what names a dest; `af` is the family where the message tells none.
    pub(super) fn decode(attr: Option<&[u8]>, af: Af) -> Result<DestKey, Errno> {
        Self::from_table(&dest_table(attr)?, af)
    }

    fn from_table(table: &DestTable<'_>, af: Af) -> Result<DestKey, Errno> {
        let addr = table.get(dest::ADDR).ok_or(Errno::INVAL)?;
        let port = port_of(table.get(dest::PORT).ok_or(Errno::INVAL)?)?;
        let af = match table.get(dest::ADDR_FAMILY).map(u16_of).transpose()? {
            None | Some(0) => af,
            Some(number) => Af::from_number(number).ok_or(Errno::AFNOSUPPORT)?,
        };
        if addr.len() > 16 {
            return Err(Errno::INVAL);
        }
        Ok(DestKey {
            addr: af.address(addr),
            port,
        })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.u16(dest::ADDR_FAMILY, Af::of(self.addr).number());
        w.attr(dest::ADDR, &address_bytes(self.addr));
        w.be16(dest::PORT, self.port);
    }
}

/// How a dest is to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestConfig {
    /// What it is known by.
    pub key: DestKey,
    /// One of [`forward`], the other bits taken away.
    pub forward: u32,
    /// The weight; a negative one is for the server to refuse.
    pub weight: i32,
    /// Upper connection threshold, 0 for none.
    pub upper: u32,
    /// Lower connection threshold, 0 for none.
    pub lower: u32,
    /// One of [`tunnel`](super::number::tunnel)'s types.
    pub tun_type: u8,
    /// UDP port of a GUE tunnel, host byte order.
    pub tun_port: u16,
    /// Bits of [`tunnel`](super::number::tunnel)'s flags.
    pub tun_flags: u16,
}

impl DestConfig {
    /// Reads a whole dest; `af` is the family where the message tells none.
    pub(super) fn decode(attr: Option<&[u8]>, af: Af) -> Result<DestConfig, Errno> {
        Self::from_table(&dest_table(attr)?, af)
    }

    fn from_table(table: &DestTable<'_>, af: Af) -> Result<DestConfig, Errno> {
        let key = DestKey::from_table(table, af)?;
        let need = |kind| table.get(kind).ok_or(Errno::INVAL).and_then(u32_of);
        Ok(DestConfig {
            key,
            forward: need(dest::FWD_METHOD)? & forward::MASK,
            weight: need(dest::WEIGHT)? as i32,
            upper: need(dest::U_THRESH)?,
            lower: need(dest::L_THRESH)?,
            tun_type: match table.get(dest::TUN_TYPE) {
                Some(value) => *value.first().ok_or(Errno::INVAL)?,
                None => 0,
            },
            tun_port: table
                .get(dest::TUN_PORT)
                .map(port_of)
                .transpose()?
                .unwrap_or(0),
            tun_flags: table
                .get(dest::TUN_FLAGS)
                .map(u16_of)
                .transpose()?
                .unwrap_or(0),
        })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        self.key.encode(w);
        w.u32(dest::FWD_METHOD, self.forward);
        w.u32(dest::WEIGHT, self.weight as u32);
        w.u32(dest::U_THRESH, self.upper);
        w.u32(dest::L_THRESH, self.lower);
        w.u8(dest::TUN_TYPE, self.tun_type);
        w.be16(dest::TUN_PORT, self.tun_port);
        w.u16(dest::TUN_FLAGS, self.tun_flags);
    }
}

/// A dest as the server shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dest {
    /// Its configuration.
    pub config: DestConfig,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
    /// Persistence templates.
    pub persistent: u32,
    /// Its counters.
    pub stats: Stats,
}

impl Dest {
    pub(super) fn encode(&self, w: &mut Writer) {
        self.config.encode(w);
        w.u32(dest::ACTIVE_CONNS, self.active);
        w.u32(dest::INACT_CONNS, self.inactive);
        w.u32(dest::PERSIST_CONNS, self.persistent);
        w.nest(dest::STATS, |w| self.stats.encode32(w));
        w.nest(dest::STATS64, |w| self.stats.encode64(w));
    }

    pub(super) fn decode(attr: Option<&[u8]>) -> Result<Dest, DecodeError> {
        let table = dest_table(attr).map_err(|_| DecodeError::Missing("dest"))?;
        // A server older than IPVS_DEST_ATTR_ADDR_FAMILY knows dests of the service's family alone, and does not say
        // which that is; ours always tells.
        let config =
            DestConfig::from_table(&table, Af::V4).map_err(|_| DecodeError::Invalid("dest"))?;
        let number = |kind, what| {
            table
                .get(kind)
                .and_then(|value| u32_of(value).ok())
                .ok_or(DecodeError::Missing(what))
        };
        Ok(Dest {
            config,
            active: number(dest::ACTIVE_CONNS, "active connections")?,
            inactive: number(dest::INACT_CONNS, "inactive connections")?,
            persistent: number(dest::PERSIST_CONNS, "persistent connections")?,
            stats: Stats::decode(table.get(dest::STATS64), table.get(dest::STATS)),
        })
    }
}

type DestTable<'a> = Table<'a, { dest::TUN_FLAGS as usize + 1 }>;

fn dest_table(attr: Option<&[u8]>) -> Result<DestTable<'_>, Errno> {
    attr.map(Table::new).ok_or(Errno::INVAL)
}
