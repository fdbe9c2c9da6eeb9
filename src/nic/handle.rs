//! One DPDK port's number and the calls on it that `device` (before the start) and `port` (after it) make. Closes the
//! device when the last owner is gone; decides nothing.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::time::{Duration, Instant};

use dpdk_sys::{rte_eth_conf, rte_eth_dev_info};

use crate::device::{attached, Device};
use crate::eal::Live;
use crate::error::{Errno, PortError};
use crate::interrupts;
use crate::logs;
use crate::mempool::Mempool;
use crate::plan::{PortConfig, PortPlan};
use crate::port::Mac;
use crate::quirks::Quirks;
use crate::rss::Rss;

/// A Toeplitz key's length where the driver doesn't say another.
const USUAL_KEY: usize = 40;

/// How long members of a bond may take to have a link; the kernel tells of a tap's within a second.
const LINK_PATIENCE: Duration = Duration::from_secs(3);

/// What port and queues share; the last of them closes the device.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) id: u16,
    pub(crate) name: String,
    pub(crate) driver: String,
    /// As it was asked for, options included.
    pub(crate) args: String,
    device: *mut dpdk_sys::rte_device,
    plugged: bool,
    /// Members of a bond, which must be there as long as it is: dropped after the bond is closed.
    members: Vec<Device>,
    _live: Live,
}

// SAFETY: the device pointer is used only to unplug, under the lock, and the rest is plain data. DPDK's calls on one port
// may come from any thread, one at a time.
unsafe impl Send for Handle {}
// SAFETY: calls through a shared Handle are made by `Device` and `Port` only, one of which exists for it and neither of
// which is Sync; the queues call DPDK's burst functions alone.
unsafe impl Sync for Handle {}

/// An error of a step, from a status of DPDK's: 0 or more is fine.
pub(crate) fn check(device: &str, step: &'static str, status: i32) -> Result<(), PortError> {
    if status >= 0 {
        return Ok(());
    }
    let said = logs::complaints().join("; ");
    Err(PortError::Refused {
        device: device.to_owned(),
        step,
        errno: Errno(-status),
        said,
    })
}

impl Handle {
    /// Takes over a port that is entered as attached, also where this fails.
    pub(crate) fn new(
        id: u16,
        name: String,
        args: &str,
        plugged: bool,
        members: Vec<Device>,
    ) -> Result<Self, PortError> {
        let mut handle = Self {
            id,
            name,
            driver: String::new(),
            args: args.to_owned(),
            device: std::ptr::null_mut(),
            plugged,
            members,
            _live: Live::new(),
        };
        let info = handle.info()?;
        handle.device = info.device;
        if !info.driver_name.is_null() {
            // SAFETY: the driver's name is a static, terminated string.
            handle.driver = unsafe { CStr::from_ptr(info.driver_name) }
                .to_string_lossy()
                .into_owned();
        }
        if Quirks::of_driver(&handle.driver).leaves_interrupts {
            interrupts::leave_behind();
        }
        Ok(handle)
    }

    /// Members, where this is a bond.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Device> {
        self.members.iter()
    }

    pub(crate) fn check(&self, step: &'static str, status: i32) -> Result<(), PortError> {
        check(&self.name, step, status)
    }

    pub(crate) fn info(&self) -> Result<rte_eth_dev_info, PortError> {
        // SAFETY: an all-zero rte_eth_dev_info is valid, and the port is alive.
        let (info, status) = unsafe {
            let mut info = std::mem::zeroed::<rte_eth_dev_info>();
            let status = dpdk_sys::rte_eth_dev_info_get(self.id, &mut info);
            (info, status)
        };
        self.check("describe itself", status)?;
        Ok(info)
    }

    pub(crate) fn socket(&self) -> Option<u16> {
        // SAFETY: the port is alive.
        u16::try_from(unsafe { dpdk_sys::rte_eth_dev_socket_id(self.id) }).ok()
    }

    /// The key to hand to the driver, which reads as many bytes of it as it has, whatever length it is told.
    pub(crate) fn rss_key(&self, rss: &Rss, info: &rte_eth_dev_info) -> Result<Vec<u8>, PortError> {
        let wanted = match usize::from(info.hash_key_size) {
            0 => USUAL_KEY,
            size => size,
        };
        if !rss.key.is_empty() && rss.key.len() != wanted {
            let said = format!("the key has {} bytes, the device's {wanted}", rss.key.len());
            return Err(PortError::Refused {
                device: self.name.clone(),
                step: "take the RSS key",
                errno: Errno(libc::EINVAL),
                said,
            });
        }
        Ok(rss.key.clone())
    }

    pub(crate) fn configure(
        &self,
        config: &PortConfig,
        plan: &PortPlan,
        info: &rte_eth_dev_info,
    ) -> Result<(), PortError> {
        // SAFETY: an all-zero rte_eth_conf is valid: it asks for nothing.
        let mut conf = unsafe { std::mem::zeroed::<rte_eth_conf>() };
        conf.rxmode.mtu = u32::from(plan.configured_mtu);
        conf.rxmode.offloads = plan.rx_offloads;
        conf.txmode.offloads = plan.tx_offloads;
        let rss = config.rss.as_ref().filter(|_| plan.rss.is_some());
        let mut key = rss
            .map(|rss| self.rss_key(rss, info))
            .transpose()?
            .unwrap_or_default();
        if let Some(planned) = &plan.rss {
            conf.rxmode.mq_mode = dpdk_sys::SHIM_MQ_RX_RSS;
            conf.rx_adv_conf.rss_conf = planned.conf(&mut key, info.flow_type_rss_offloads);
        }
        // SAFETY: the port is alive and stopped; DPDK copies the configuration, and drivers the key, within the call.
        let status = unsafe {
            dpdk_sys::rte_eth_dev_configure(self.id, plan.rx_queues, plan.tx_queues, &conf)
        };
        self.check("be configured", status)
    }

    /// Brings the descriptor counts within what the driver takes.
    pub(crate) fn fit_descriptors(&self, plan: &mut PortPlan) -> Result<(), PortError> {
        let (mut rx, mut tx) = (plan.rx_descriptors, plan.tx_descriptors);
        // SAFETY: the port is alive and the places are valid.
        let status =
            unsafe { dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &mut rx, &mut tx) };
        self.check("take the numbers of descriptors", status)?;
        (plan.rx_descriptors, plan.tx_descriptors) = (rx, tx);
        Ok(())
    }

    pub(crate) fn set_up_queues(&self, plan: &PortPlan, pool: &Mempool) -> Result<(), PortError> {
        let socket = self.socket().map_or(dpdk_sys::SHIM_SOCKET_ANY, i32::from) as u32; // -1 is DPDK's "any", unsigned.
        for queue in 0..plan.rx_queues {
            // SAFETY: the port is configured with this queue; a null configuration is the driver's own; the pool lives as
            // long as DPDK.
            let status = unsafe {
                dpdk_sys::rte_eth_rx_queue_setup(
                    self.id,
                    queue,
                    plan.rx_descriptors,
                    socket,
                    std::ptr::null(),
                    pool.raw(),
                )
            };
            self.check("set up a receive queue", status)?;
        }
        for queue in 0..plan.tx_queues {
            // SAFETY: as above.
            let status = unsafe {
                dpdk_sys::rte_eth_tx_queue_setup(
                    self.id,
                    queue,
                    plan.tx_descriptors,
                    socket,
                    std::ptr::null(),
                )
            };
            self.check("set up a transmit queue", status)?;
        }
        Ok(())
    }

    /// Tells the driver the MTU again, for those that pass it to the kernel only this way.
    pub(crate) fn set_mtu(&self, mtu: u16) -> Result<(), PortError> {
        // SAFETY: the port is alive and configured.
        self.check("take the MTU", unsafe {
            dpdk_sys::rte_eth_dev_set_mtu(self.id, mtu)
        })
    }

    pub(crate) fn mac(&self) -> Result<Mac, PortError> {
        let mut address = dpdk_sys::rte_ether_addr { addr_bytes: [0; 6] };
        // SAFETY: the port is alive and the place is valid.
        let status = unsafe { dpdk_sys::rte_eth_macaddr_get(self.id, &mut address) };
        self.check("tell its MAC address", status)?;
        Ok(address.addr_bytes)
    }

    pub(crate) fn set_mac(&self, mac: Mac) -> Result<(), PortError> {
        let mut address = dpdk_sys::rte_ether_addr { addr_bytes: mac };
        // SAFETY: the port is alive, and DPDK copies the address.
        let status = unsafe { dpdk_sys::rte_eth_dev_default_mac_addr_set(self.id, &mut address) };
        self.check("take the MAC address", status)
    }

    /// Brings up those members of a bond whose drivers never tell it of their links, and waits for these, but not for long:
    /// the bond takes a member to be dead for good that has no link when the bond starts.
    pub(crate) fn raise_members(&self) {
        let deadline = Instant::now() + LINK_PATIENCE;
        let silent = |member: &&Device| Quirks::of_driver(member.driver()).silent_link;
        for member in self.members().filter(silent) {
            let member = member.handle();
            // SAFETY: the member's port is alive as long as the bond.
            let status = unsafe { dpdk_sys::rte_eth_dev_set_link_up(member.id) };
            while status == 0 && !member.has_link() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn has_link(&self) -> bool {
        let mut link = dpdk_sys::shim_link::default();
        // SAFETY: the port is alive and the result's place is valid.
        let status = unsafe { dpdk_sys::shim_link_get(self.id, &mut link) };
        status == 0 && link.up != 0
    }

    pub(crate) fn set_promiscuous(&self, on: bool) -> Result<(), PortError> {
        // SAFETY: the port is alive.
        let status = unsafe {
            match on {
                true => dpdk_sys::rte_eth_promiscuous_enable(self.id),
                false => dpdk_sys::rte_eth_promiscuous_disable(self.id),
            }
        };
        self.check("change promiscuous mode", status)
    }

    pub(crate) fn set_all_multicast(&self, on: bool) -> Result<(), PortError> {
        // SAFETY: the port is alive.
        let status = unsafe {
            match on {
                true => dpdk_sys::rte_eth_allmulticast_enable(self.id),
                false => dpdk_sys::rte_eth_allmulticast_disable(self.id),
            }
        };
        self.check("change the receiving of all multicast", status)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut attached = attached();
        // SAFETY: nobody else has a handle on the port or its queues, so nothing runs on it; the lock keeps others from
        // changing the device lists. The device pointer is DPDK's own, valid until removed here.
        unsafe {
            // Fails where it was never started, which is fine.
            dpdk_sys::rte_eth_dev_stop(self.id);
            if Quirks::of_driver(&self.driver).leaves_interrupts {
                // What the other end said may be being dealt with right now.
                interrupts::settle();
            }
            let removed = self.plugged
                && !self.device.is_null()
                && dpdk_sys::rte_dev_remove(self.device) == 0;
            if !removed && dpdk_sys::rte_eth_dev_close(self.id) != 0 {
                log::warn!("port {} could not be closed", self.name);
            }
        }
        attached.retain(|id| *id != self.id);
    }
}
