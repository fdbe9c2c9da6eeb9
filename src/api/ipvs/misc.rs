//! Synchronisation daemons, connection timeouts, and what the server says of itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::number::{attr, daemon, info, IFNAME_MAX};
use super::{nul_string, u16_of, u32_of};
use crate::errno::Errno;
use crate::nl::{u32_at, DecodeError, Table, Writer};

/// A synchronisation daemon, to be started or stopped, or shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncDaemon {
    /// One of [`sync_state`](super::number::sync_state).
    pub state: u32,
    /// The interface whose network the messages go to.
    pub mcast_ifn: Option<String>,
    /// The group of balancers it belongs to, 0 to 255.
    pub sync_id: Option<u32>,
    /// Longest message, bytes.
    pub sync_maxlen: Option<u16>,
    /// Multicast group.
    pub mcast_group: Option<IpAddr>,
    /// Port, host byte order.
    pub mcast_port: Option<u16>,
    /// Time to live.
    pub mcast_ttl: Option<u8>,
}

impl SyncDaemon {
    pub(super) fn decode(value: Option<&[u8]>) -> Result<SyncDaemon, Errno> {
        let table: Table<'_, { daemon::MCAST_TTL as usize + 1 }> =
            value.map(Table::new).ok_or(Errno::INVAL)?;
        let group4 = table.get(daemon::MCAST_GROUP);
        let group6 = table.get(daemon::MCAST_GROUP6);
        let mcast_group = match (group4, group6) {
            (Some(value), _) => Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(u32_of(value)?)))),
            (None, Some(value)) => {
                let bytes: [u8; 16] = *value.first_chunk().ok_or(Errno::INVAL)?;
                Some(IpAddr::V6(Ipv6Addr::from(bytes)))
            }
            (None, None) => None,
        };
        Ok(SyncDaemon {
            state: u32_of(table.get(daemon::STATE).ok_or(Errno::INVAL)?)?,
            mcast_ifn: table
                .get(daemon::MCAST_IFN)
                .map(|value| nul_string(value, IFNAME_MAX))
                .transpose()?,
            sync_id: table.get(daemon::SYNC_ID).map(u32_of).transpose()?,
            sync_maxlen: table.get(daemon::SYNC_MAXLEN).map(u16_of).transpose()?,
            mcast_group,
            // Alone among ports, the daemon's has host byte order on the wire.
            mcast_port: table.get(daemon::MCAST_PORT).map(u16_of).transpose()?,
            mcast_ttl: match table.get(daemon::MCAST_TTL) {
                Some(value) => Some(*value.first().ok_or(Errno::INVAL)?),
                None => None,
            },
        })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.u32(daemon::STATE, self.state);
        if let Some(name) = &self.mcast_ifn {
            w.string(daemon::MCAST_IFN, name);
        }
        if let Some(id) = self.sync_id {
            w.u32(daemon::SYNC_ID, id);
        }
        if let Some(length) = self.sync_maxlen {
            w.u16(daemon::SYNC_MAXLEN, length);
        }
        match self.mcast_group {
            Some(IpAddr::V4(group)) => w.attr(daemon::MCAST_GROUP, &group.octets()),
            Some(IpAddr::V6(group)) => w.attr(daemon::MCAST_GROUP6, &group.octets()),
            None => {}
        }
        if let Some(port) = self.mcast_port {
            w.u16(daemon::MCAST_PORT, port);
        }
        if let Some(ttl) = self.mcast_ttl {
            w.u8(daemon::MCAST_TTL, ttl);
        }
    }
}

/// Connection timeouts in seconds. To set: those that are there and not 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP, established.
    pub tcp: Option<u32>,
    /// TCP, after a FIN.
    pub tcp_fin: Option<u32>,
    /// UDP.
    pub udp: Option<u32>,
}

impl Timeouts {
    pub(super) fn decode<const N: usize>(table: &Table<'_, N>) -> Result<Timeouts, Errno> {
        // These stand at the top level, where the kernel's policy check answers ERANGE itself.
        let number = |kind| match table.get(kind) {
            Some(value) => u32_at(value, 0).map(Some).ok_or(Errno::RANGE),
            None => Ok(None),
        };
        Ok(Timeouts {
            tcp: number(attr::TIMEOUT_TCP)?,
            tcp_fin: number(attr::TIMEOUT_TCP_FIN)?,
            udp: number(attr::TIMEOUT_UDP)?,
        })
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        for (kind, value) in [
            (attr::TIMEOUT_TCP, self.tcp),
            (attr::TIMEOUT_TCP_FIN, self.tcp_fin),
            (attr::TIMEOUT_UDP, self.udp),
        ] {
            if let Some(value) = value {
                w.u32(kind, value);
            }
        }
    }
}

/// What the server says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Version of IPVS: 0x010201 for 1.2.1.
    pub version: u32,
    /// Buckets of the connection table.
    pub conn_tab_size: u32,
}

impl Info {
    pub(super) fn encode(&self, w: &mut Writer) {
        w.u32(info::VERSION, self.version);
        w.u32(info::CONN_TAB_SIZE, self.conn_tab_size);
    }

    pub(super) fn decode<const N: usize>(table: &Table<'_, N>) -> Result<Info, DecodeError> {
        let number = |kind, what| {
            table
                .get(kind)
                .and_then(|value| u32_at(value, 0))
                .ok_or(DecodeError::Missing(what))
        };
        Ok(Info {
            version: number(info::VERSION, "version")?,
            conn_tab_size: number(info::CONN_TAB_SIZE, "connection table size")?,
        })
    }
}
