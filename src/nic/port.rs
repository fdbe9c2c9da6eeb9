//! A running port: what can be asked of it and changed on it while its queues are polled. Attaching and configuring is
//! `device`'s; packets go through `queue`.
//!
//! All this is for the control thread, seldom: none of it belongs on the packet path.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use dpdk_sys::SHIM_RETA_GROUP;

use crate::error::PortError;
use crate::handle::{check, Handle};
use crate::rss::Rss;

/// An Ethernet address, in the order of its bytes on the wire.
pub type Mac = [u8; 6];

/// A configured and started port. The device stops and closes when this and all its queues are dropped.
#[derive(Debug)]
pub struct Port {
    handle: Arc<Handle>,
    mtu: u16,
    /// DPDK's functions on one port are not to be called from two threads at once.
    not_shared: PhantomData<Cell<()>>,
}

/// What the driver says of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether it is up.
    pub up: bool,
    /// In Mbit/s; `None` where the driver doesn't know, or it is down.
    pub speed: Option<u32>,
    /// Both ways at once.
    pub full_duplex: bool,
}

/// What the device counted since it started or was reset. Frames without their FCS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames received and given to the program.
    pub ipackets: u64,
    /// Frames sent.
    pub opackets: u64,
    /// Bytes received.
    pub ibytes: u64,
    /// Bytes sent.
    pub obytes: u64,
    /// Frames that the device dropped because the queue was full: the program didn't poll fast enough.
    pub imissed: u64,
    /// Frames received broken.
    pub ierrors: u64,
    /// Frames that failed to be sent.
    pub oerrors: u64,
    /// Times that there was no mbuf to receive into: the pool is too small.
    pub rx_nombuf: u64,
}

impl Port {
    pub(crate) fn new(handle: Arc<Handle>, mtu: u16) -> Self {
        Self {
            handle,
            mtu,
            not_shared: PhantomData,
        }
    }

    /// DPDK's number of the port, as it stands in its log. Not the daemon's `PortId`.
    pub fn dpdk_port(&self) -> u16 {
        self.handle.id
    }

    /// DPDK's name of it: the PCI address, or the virtual device's name.
    pub fn name(&self) -> &str {
        &self.handle.name
    }

    /// The driver's name ("net_tap", "net_ixgbe").
    pub fn driver(&self) -> &str {
        &self.handle.driver
    }

    /// The NUMA node it hangs on, where known.
    pub fn socket(&self) -> Option<u16> {
        // SAFETY: the port is alive while `handle` is.
        u16::try_from(unsafe { dpdk_sys::rte_eth_dev_socket_id(self.handle.id) }).ok()
    }

    /// The kernel's index of the interface that the driver goes through, where there is one (tap, af_packet, af_xdp).
    pub fn kernel_index(&self) -> Option<u32> {
        self.handle
            .info()
            .ok()
            .map(|info| info.if_index)
            .filter(|index| *index != 0)
    }

    /// Its address.
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn mac(&self) -> Result<Mac, PortError> {
        self.handle.mac()
    }

    /// Changes its address. A port in a namespace of its own (a net_tap moved there) refuses: change it before.
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn set_mac(&self, mac: Mac) -> Result<(), PortError> {
        self.handle.set_mac(mac)
    }

    /// Receives frames for one more address (VRRP's virtual one, say).
    ///
    /// # Errors
    /// The driver's refusal; it may have room for one address only. Promiscuous mode is the way out.
    pub fn add_mac(&self, mac: Mac) -> Result<(), PortError> {
        let mut address = dpdk_sys::rte_ether_addr { addr_bytes: mac };
        // SAFETY: the port is alive, the address a valid one that DPDK copies.
        let status = unsafe { dpdk_sys::rte_eth_dev_mac_addr_add(self.handle.id, &mut address, 0) };
        check(&self.handle.name, "take another MAC address", status)
    }

    /// Undoes [`Port::add_mac`].
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn remove_mac(&self, mac: Mac) -> Result<(), PortError> {
        let mut address = dpdk_sys::rte_ether_addr { addr_bytes: mac };
        // SAFETY: as in `add_mac`.
        let status = unsafe { dpdk_sys::rte_eth_dev_mac_addr_remove(self.handle.id, &mut address) };
        check(&self.handle.name, "remove a MAC address", status)
    }

    /// Longest IP packet that it carries, in bytes, as it was started.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Receive all frames, whatever their destination. The program must then look at the address itself.
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn set_promiscuous(&self, on: bool) -> Result<(), PortError> {
        self.handle.set_promiscuous(on)
    }

    /// Receive all multicast frames, which IPv6 needs where the driver can't filter them by group.
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn set_all_multicast(&self, on: bool) -> Result<(), PortError> {
        self.handle.set_all_multicast(on)
    }

    /// The link as the driver last saw it; never waits.
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn link(&self) -> Result<Link, PortError> {
        let mut link = dpdk_sys::shim_link::default();
        // SAFETY: the port is alive and the result's place is valid.
        let status = unsafe { dpdk_sys::shim_link_get(self.handle.id, &mut link) };
        check(&self.handle.name, "tell its link status", status)?;
        let up = link.up != 0;
        let speed = Some(link.speed).filter(|speed| up && *speed != 0 && *speed != u32::MAX);
        Ok(Link {
            up,
            speed,
            full_duplex: link.full_duplex != 0,
        })
    }

    /// Its counters.
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn stats(&self) -> Result<PortStats, PortError> {
        let mut stats = dpdk_sys::rte_eth_stats::default();
        // SAFETY: the port is alive and the result's place is valid.
        let status = unsafe { dpdk_sys::rte_eth_stats_get(self.handle.id, &mut stats) };
        check(&self.handle.name, "tell its counters", status)?;
        Ok(PortStats {
            ipackets: stats.ipackets,
            opackets: stats.opackets,
            ibytes: stats.ibytes,
            obytes: stats.obytes,
            imissed: stats.imissed,
            ierrors: stats.ierrors,
            oerrors: stats.oerrors,
            rx_nombuf: stats.rx_nombuf,
        })
    }

    /// All counters that the driver has, by its own names.
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn extended_stats(&self) -> Result<Vec<(String, u64)>, PortError> {
        const STEP: &str = "tell its extended counters";
        // SAFETY: asked with no room, the function only says how many there are.
        let count =
            unsafe { dpdk_sys::rte_eth_xstats_get_names(self.handle.id, std::ptr::null_mut(), 0) };
        check(&self.handle.name, STEP, count.min(0))?;
        let room = count.max(0) as usize; // Not negative.
        let mut names = vec![dpdk_sys::rte_eth_xstat_name { name: [0; 64] }; room];
        let mut values = vec![dpdk_sys::rte_eth_xstat::default(); room];
        // SAFETY: both arrays have `count` elements, as said.
        let (named, valued) = unsafe {
            (
                dpdk_sys::rte_eth_xstats_get_names(
                    self.handle.id,
                    names.as_mut_ptr(),
                    count as u32,
                ),
                dpdk_sys::rte_eth_xstats_get(self.handle.id, values.as_mut_ptr(), count as u32),
            )
        };
        check(&self.handle.name, STEP, named.min(valued).min(0))?;
        let filled = &values[..room.min(valued.max(0) as usize)];
        let pairs = filled.iter().filter_map(|value| {
            let name = names.get(value.id as usize)?;
            // The array holds a terminated string; c_char is i8 or u8 by the machine.
            let bytes: Vec<u8> = name
                .name
                .iter()
                .map(|c| *c as u8)
                .take_while(|byte| *byte != 0)
                .collect();
            Some((String::from_utf8_lossy(&bytes).into_owned(), value.value))
        });
        Ok(pairs.collect())
    }

    /// Sets all counters to 0, where the driver can.
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn reset_stats(&self) -> Result<(), PortError> {
        // SAFETY: the port is alive.
        check(&self.handle.name, "reset its counters", unsafe {
            dpdk_sys::rte_eth_stats_reset(self.handle.id)
        })
    }

    /// How many entries the RSS redirection table has; 0 where the device has none.
    pub fn reta_size(&self) -> u16 {
        self.handle.info().map_or(0, |info| info.reta_size)
    }

    /// Fills the RSS redirection table: entry i, by the low bits of the hash, names the receive queue.
    ///
    /// # Errors
    /// The driver's refusal, for instance where `queues` is not as long as the table.
    pub fn set_reta(&self, queues: &[u16]) -> Result<(), PortError> {
        let group = SHIM_RETA_GROUP as usize;
        let mut table: Vec<dpdk_sys::rte_eth_rss_reta_entry64> = queues
            .chunks(group)
            .map(|chunk| {
                let mut entry = dpdk_sys::rte_eth_rss_reta_entry64::default();
                for (index, queue) in chunk.iter().enumerate() {
                    entry.mask |= 1 << index;
                    entry.reta[index] = *queue;
                }
                entry
            })
            .collect();
        let size = u16::try_from(queues.len()).unwrap_or(u16::MAX);
        // DPDK reads as many groups as `size` needs; a longer slice than 65,535 only has more.
        // SAFETY: the port is alive, and the table has at least size / 64 groups, rounded up.
        let status = unsafe {
            dpdk_sys::rte_eth_dev_rss_reta_update(self.handle.id, table.as_mut_ptr(), size)
        };
        check(&self.handle.name, "fill its RSS table", status)
    }

    /// The RSS redirection table.
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn reta(&self) -> Result<Vec<u16>, PortError> {
        let (size, group) = (usize::from(self.reta_size()), SHIM_RETA_GROUP as usize);
        let ask = dpdk_sys::rte_eth_rss_reta_entry64 {
            mask: u64::MAX,
            ..Default::default()
        };
        let mut table = vec![ask; size.div_ceil(group)];
        // SAFETY: the port is alive, and the table has the groups that `size` entries need.
        let status = unsafe {
            dpdk_sys::rte_eth_dev_rss_reta_query(self.handle.id, table.as_mut_ptr(), size as u16)
        };
        check(&self.handle.name, "tell its RSS table", status)?;
        Ok(table
            .iter()
            .flat_map(|entry| entry.reta)
            .take(size)
            .collect())
    }

    /// Changes what the NIC hashes, and by which key, while it runs.
    ///
    /// # Errors
    /// The driver's refusal: many hash by the whole flow only.
    pub fn set_rss(&self, rss: &Rss) -> Result<(), PortError> {
        let info = self.handle.info()?;
        let mut key = self.handle.rss_key(rss, &info)?;
        let mut conf = rss.conf(&mut key, info.flow_type_rss_offloads);
        // SAFETY: the port is alive; the key outlives the call, which copies it.
        let status = unsafe { dpdk_sys::rte_eth_dev_rss_hash_update(self.handle.id, &mut conf) };
        check(&self.handle.name, "change its RSS hash", status)
    }
}
