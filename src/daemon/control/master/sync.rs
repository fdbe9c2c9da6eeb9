//! The synchronisation daemons' settings: kept, checked and listed as the kernel does (`start_sync_thread`,
//! net/netfilter/ipvs/ip_vs_sync.c, 6.1). Nothing is synchronised yet; the log says so when one is started.

use std::net::{IpAddr, Ipv4Addr};

use ripvs_api::ipvs::number::sync_state;
use ripvs_api::ipvs::{Request, SyncDaemon};
use ripvs_api::Errno;

use super::{Master, Surroundings};

/// The multicast group where none is given: 224.0.0.81.
const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 81));
const PORT: u16 = 8848;

/// The settings of both daemons, where they are started.
#[derive(Default)]
pub struct SyncDaemons {
    master: Option<SyncDaemon>,
    backup: Option<SyncDaemon>,
}

impl SyncDaemons {
    /// Whether either is started.
    pub fn is_running(&self) -> bool {
        self.master.is_some() || self.backup.is_some()
    }

    fn slot(&mut self, state: u32) -> Option<&mut Option<SyncDaemon>> {
        match state {
            sync_state::MASTER => Some(&mut self.master),
            sync_state::BACKUP => Some(&mut self.backup),
            _ => None,
        }
    }

    /// The requests that start what is started.
    pub fn requests(&self) -> Vec<Request> {
        let all = self.master.iter().chain(&self.backup);
        all.cloned().map(Request::NewDaemon).collect()
    }
}

impl Master {
    /// `ipvsadm --start-daemon`.
    ///
    /// # Errors
    /// EINVAL for a group that is none, for dests of another family than their service, and for a state that is none;
    /// ENODEV for an unknown interface; EEXIST where it is started already.
    pub fn start_sync(
        &mut self,
        asked: SyncDaemon,
        around: &dyn Surroundings,
    ) -> Result<(), Errno> {
        if asked.mcast_group.is_some_and(|group| !group.is_multicast()) || self.mixed > 0 {
            return Err(Errno::INVAL);
        }
        let name = asked.mcast_ifn.as_deref().unwrap_or_default();
        let mtu = around.mtu_of(name).ok_or(Errno::NODEV)?;
        let group = asked.mcast_group.unwrap_or(GROUP);
        let headers = if group.is_ipv6() { 48 } else { 28 };
        let is_backup = asked.state == sync_state::BACKUP;
        let slot = self.sync.slot(asked.state).ok_or(Errno::INVAL)?;
        if slot.is_some() {
            return Err(Errno::EXIST);
        }
        let (mtu, least) = if is_backup {
            (mtu.clamp(1500, 65535), 1024)
        } else {
            (1500, 1)
        };
        let longest = match asked.sync_maxlen.filter(|length| *length != 0) {
            Some(length) => u32::from(length).clamp(least, 65535 - headers),
            None => mtu - headers,
        };
        log::warn!(
            "the {} synchronisation daemon is noted and listed, but nothing is synchronised: the protocol is not in this version",
            if is_backup { "backup" } else { "master" }
        );
        *slot = Some(SyncDaemon {
            sync_maxlen: Some(longest as u16),
            mcast_group: Some(group),
            mcast_port: Some(asked.mcast_port.filter(|port| *port != 0).unwrap_or(PORT)),
            mcast_ttl: Some(asked.mcast_ttl.filter(|ttl| *ttl != 0).unwrap_or(1)),
            ..asked
        });
        Ok(())
    }

    /// `ipvsadm --stop-daemon`.
    ///
    /// # Errors
    /// EINVAL for a state that is none, ESRCH where it is not started.
    pub fn stop_sync(&mut self, asked: &SyncDaemon) -> Result<(), Errno> {
        let slot = self.sync.slot(asked.state).ok_or(Errno::INVAL)?;
        slot.take().map(|_| ()).ok_or(Errno::SRCH)
    }

    /// `ipvsadm -L --daemon`.
    pub fn sync_daemons(&self) -> impl Iterator<Item = &SyncDaemon> {
        self.sync.master.iter().chain(&self.sync.backup)
    }
}
