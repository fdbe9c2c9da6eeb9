//! Devices: found or plugged in by name, planned and started. What a driver can't do is found out here (`plan`), so that
//! what runs afterwards never has to ask; the drivers' peculiarities are in `quirks`.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dpdk_sys::{rte_eth_conf, rte_eth_dev_info};

use crate::absent;
use crate::devargs::{self, BondMode};
use crate::eal::Eal;
use crate::error::{Errno, PortError};
use crate::handle::{check, Handle};
use crate::logs;
use crate::mempool::Mempool;
use crate::plan::{Limits, PortConfig, PortPlan};
use crate::port::{Mac, Port};
use crate::queue::{RxQueue, TxQueue};

/// Port numbers that have a handle. Held during every change of DPDK's device lists too, which are not safe to change from
/// two threads (a device is closed by whichever thread drops its last queue).
static ATTACHED: Mutex<Vec<u16>> = Mutex::new(Vec::new());

pub(crate) fn attached() -> MutexGuard<'static, Vec<u16>> {
    ATTACHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device that is there but not yet a port: nothing is configured. Dropping it takes it away again where attaching had
/// plugged it in.
#[derive(Debug)]
pub struct Device {
    handle: Handle,
    /// DPDK's functions on one port are not to be called from two threads at once.
    not_shared: PhantomData<Cell<()>>,
}

/// A started port, its queues, and what came of the wishes.
#[derive(Debug)]
pub struct Started {
    /// Its control side.
    pub port: Port,
    /// All its receive queues. Each must be polled by someone: a driver may put packets into any.
    pub rx: Vec<RxQueue>,
    /// All its transmit queues.
    pub tx: Vec<TxQueue>,
    /// What it was configured with.
    pub plan: PortPlan,
}

impl Device {
    /// Attaches a device by PCI address (`0000:01:00.0`), which must be bound to a driver that DPDK uses and allowed by
    /// [`Eal::device_args`], or a virtual one by driver, number and options (`net_tap0,iface=lb0`), which is plugged in
    /// unless the EAL arguments did so.
    ///
    /// A bond (`net_bonding0,mode=1,slave=0000:01:00.0,slave=0000:02:00.0`) takes its members over, which must be there or be
    /// pluggable by their names alone; for members with options of their own see [`Device::attach_bond`].
    ///
    /// # Errors
    /// [`PortError::NoDevice`] with cause and remedy; [`PortError::Attached`]; [`PortError::BadName`].
    pub fn attach(_eal: &Eal, device: &str) -> Result<Self, PortError> {
        let Some((members, options)) = devargs::bond_members(device) else {
            return Self::attach_with(device, Vec::new());
        };
        let members: Vec<Device> = members
            .into_iter()
            .map(|member| Self::attach_with(member, Vec::new()))
            .collect::<Result<_, _>>()?;
        Self::bond(devargs::name(device), &options, members)
    }

    /// Attaches a bond, named `net_bonding0` and so on, over devices that it takes over. Further options of the driver
    /// (`mac=…`, `xmit_policy=l34`, `lsc_poll_period_ms=…`) go in `options`, separated by commas.
    ///
    /// # Errors
    /// As [`Device::attach`].
    pub fn attach_bond(
        _eal: &Eal,
        name: &str,
        mode: BondMode,
        members: Vec<Device>,
        options: &str,
    ) -> Result<Self, PortError> {
        Self::bond(name, &[&format!("mode={}", mode as u8), options], members)
    }

    fn bond(name: &str, options: &[&str], members: Vec<Device>) -> Result<Self, PortError> {
        let names: Vec<&str> = members.iter().map(Device::name).collect();
        let bond = Self::attach_with(&devargs::bond(name, options, &names), members)?;
        // The driver takes its members in when it is first configured, and has no limits to tell before.
        // SAFETY: an all-zero rte_eth_conf is valid, and the port is alive.
        let status = unsafe {
            let conf = std::mem::zeroed::<rte_eth_conf>();
            logs::clear();
            dpdk_sys::rte_eth_dev_configure(bond.handle.id, 1, 1, &conf)
        };
        check(&bond.handle.name, "take its members in", status)?;
        Ok(bond)
    }

    fn attach_with(args: &str, members: Vec<Device>) -> Result<Self, PortError> {
        let bad = || PortError::BadName {
            device: args.to_owned(),
        };
        let name = devargs::pci_address(args).unwrap_or_else(|| devargs::name(args).to_owned());
        if name.is_empty() {
            return Err(bad());
        }
        let c_name = CString::new(name.as_str()).map_err(|_| bad())?;
        let c_args = CString::new(args).map_err(|_| bad())?;
        let mut attached = attached();
        logs::clear();
        let mut plugged = false;
        let mut id = port_by_name(&c_name);
        if id.is_none() {
            if let Some((cause, remedy)) = absent::find(args) {
                return Err(PortError::NoDevice {
                    device: args.to_owned(),
                    cause,
                    remedy,
                });
            }
            // SAFETY: a terminated string, which DPDK copies; an Eal exists in this process; the lock is held.
            let status = unsafe { dpdk_sys::rte_dev_probe(c_args.as_ptr()) };
            if status < 0 {
                return Err(no_device(args, Errno(-status)));
            }
            plugged = true;
            id = port_by_name(&c_name);
        }
        let Some(id) = id else {
            let (cause, remedy) = (
                "it makes no Ethernet port".to_owned(),
                "name a network device",
            );
            return Err(PortError::NoDevice {
                device: args.to_owned(),
                cause,
                remedy,
            });
        };
        if attached.contains(&id) {
            return Err(PortError::Attached {
                device: args.to_owned(),
            });
        }
        attached.push(id);
        // From here on dropping the handle undoes it all, for which it takes the lock.
        drop(attached);
        let handle = Handle::new(id, name, args, plugged, members)?;
        Ok(Self {
            handle,
            not_shared: PhantomData,
        })
    }

    /// DPDK's name of it: the full PCI address, or the virtual device's name.
    pub fn name(&self) -> &str {
        &self.handle.name
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Its driver's name ("net_tap", "net_ixgbe").
    pub fn driver(&self) -> &str {
        &self.handle.driver
    }

    /// Its address, until it is given another by [`PortConfig::mac`].
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn mac(&self) -> Result<Mac, PortError> {
        self.handle.mac()
    }

    /// What it can do at most.
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn limits(&self) -> Result<Limits, PortError> {
        Ok(Limits::of(&self.handle.info()?))
    }

    /// What it will be configured with, given these wishes and a mempool of this data room. Changes nothing; to be asked
    /// before making the pool, as it says how many mbufs its queues hold.
    ///
    /// # Errors
    /// [`PortError::RoomTooSmall`], and the driver's refusal.
    pub fn plan(&self, config: &PortConfig, data_room: u16) -> Result<PortPlan, PortError> {
        let (mut plan, _) = self.draft(config, data_room)?;
        self.handle.fit_descriptors(&mut plan)?;
        plan.count_mbufs(self.handle.members().count());
        Ok(plan)
    }

    fn draft(
        &self,
        config: &PortConfig,
        data_room: u16,
    ) -> Result<(PortPlan, rte_eth_dev_info), PortError> {
        let info = self.handle.info()?;
        let plan = PortPlan::draft(&self.handle, config, &info, data_room)?;
        Ok((plan, info))
    }

    /// Configures it and starts it. All receive queues take their mbufs from `pool`.
    ///
    /// # Errors
    /// [`PortError::RoomTooSmall`], and the driver's refusal of a step; the device is gone then.
    pub fn start(self, config: &PortConfig, pool: &Mempool) -> Result<Started, PortError> {
        let (mut plan, info) = self.draft(config, pool.data_room())?;
        let handle = self.handle;
        let lock = attached();
        logs::clear();
        handle.configure(config, &plan, &info)?;
        handle.fit_descriptors(&mut plan)?;
        plan.count_mbufs(handle.members().count());
        handle.set_up_queues(&plan, pool)?;
        if plan.tell_mtu {
            handle.set_mtu(plan.configured_mtu)?;
        }
        // Some drivers refuse even the address that they have.
        if let Some(mac) = config.mac.filter(|mac| handle.mac().ok() != Some(*mac)) {
            handle.set_mac(mac)?;
        }
        if config.promiscuous {
            plan.note_unsupported(handle.set_promiscuous(true), "promiscuous mode")?;
        }
        if config.all_multicast {
            plan.note_unsupported(handle.set_all_multicast(true), "receiving all multicast")?;
        }
        handle.raise_members();
        // SAFETY: the port is alive, configured, and has all its queues.
        handle.check("start", unsafe { dpdk_sys::rte_eth_dev_start(handle.id) })?;
        drop(lock);
        let handle = Arc::new(handle);
        let rx = (0..plan.rx_queues)
            .map(|queue| RxQueue::new(Arc::clone(&handle), queue))
            .collect();
        let tx = (0..plan.tx_queues)
            .map(|queue| TxQueue::new(Arc::clone(&handle), queue, &plan, pool.clone()))
            .collect();
        Ok(Started {
            port: Port::new(handle, plan.mtu),
            rx,
            tx,
            plan,
        })
    }
}

fn port_by_name(name: &CStr) -> Option<u16> {
    let mut id = 0;
    // SAFETY: a terminated string, and a valid place for the result.
    let status = unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut id) };
    (status == 0).then_some(id)
}

/// Puts a failed probe in the operator's words.
fn no_device(args: &str, errno: Errno) -> PortError {
    let log = logs::complaints();
    let mut cause = if log.is_empty() {
        errno.to_string()
    } else {
        format!("{errno} ({})", log.join("; "))
    };
    if let Some(found) = devargs::pci_address(args).and_then(|address| absent::pci(&address)) {
        cause = format!("{found} ({cause})");
    }
    let driver = devargs::name(args).trim_end_matches(|c: char| c.is_ascii_digit());
    if driver == "net_tap" {
        if let Some(taken) = absent::taken(args) {
            cause = format!("{taken} ({cause})");
        }
    }
    // Two processes' groups are told apart by their numbers exclusive-or that of the interface.
    if driver == "net_af_packet" && log.iter().any(|line| line.contains("PACKET_FANOUT")) {
        return PortError::NoDevice {
            device: args.to_owned(),
            cause,
            remedy: "another process's af_packet port in this network namespace has the same group by chance; start ripvsd again",
        };
    }
    let remedy = match driver {
        _ if devargs::is_pci(args) => {
            "check the address (`lspci`), bind the device to vfio-pci (`dpdk-devbind.py -b vfio-pci ADDRESS`; Mellanox \
             devices keep their kernel driver), and let EAL see it (`-a ADDRESS`, no `--no-pci`)"
        }
        "net_tap" => "net_tap needs /dev/net/tun, CAP_NET_ADMIN, and an interface name of at most 15 characters that is free",
        "net_af_packet" | "net_af_xdp" => {
            "the interface must exist in this network namespace; the process needs CAP_NET_RAW and CAP_NET_ADMIN (for \
             AF_XDP CAP_BPF too, and locked memory: `ulimit -l unlimited`)"
        }
        "net_pcap" => "the file must exist, be readable and be in pcap format",
        "net_memif" => "the socket's folder must exist; one end is the server, the other the client, with the same id",
        _ => {
            "check the driver's name (net_tap, net_af_packet, net_af_xdp, net_memif, net_pcap, net_null, net_ring), its \
             options, and that its plug-in is installed"
        }
    };
    PortError::NoDevice {
        device: args.to_owned(),
        cause,
        remedy,
    }
}
