//! What is wished of a port, what its driver can do, and what comes of the two. The drivers'
//! peculiarities are in `quirks`.

use std::fmt;

use dpdk_sys::{
    rte_eth_dev_info, SHIM_RX_OFFLOAD_RSS_HASH, SHIM_RX_OFFLOAD_SCATTER,
    SHIM_TX_OFFLOAD_IPV4_CKSUM, SHIM_TX_OFFLOAD_MULTI_SEGS,
};

use crate::devargs::{self, ETHERNET_OVERHEAD};
use crate::device::Device;
use crate::error::{Errno, PortError};
use crate::handle::Handle;
use crate::mempool::HEADROOM;
use crate::port::Mac;
use crate::quirks::Quirks;
use crate::rss::{Rss, RssEnd};

/// What is wished of a port. Numbers are brought within what the driver has, and the plan says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Receive queues.
    pub rx_queues: u16,
    /// Transmit queues.
    pub tx_queues: u16,
    /// Descriptors of each receive queue.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue.
    pub tx_descriptors: u16,
    /// Longest IP packet, in bytes, up to 9,000.
    pub mtu: u16,
    /// Receive whatever the destination address.
    pub promiscuous: bool,
    /// Receive all multicast.
    pub all_multicast: bool,
    /// Another address than the device's own.
    pub mac: Option<Mac>,
    /// What to hash, for several receive queues; `None` leaves it to the device (usually all into the first queue).
    pub rss: Option<Rss>,
    /// Have the NIC fill in IPv4 header checksums where [`crate::Mbuf::offload_ipv4_checksum`] asks. There is no such wish
    /// for TCP and UDP.
    pub ipv4_checksum: bool,
}

impl Default for PortConfig {
    fn default() -> Self {
        Self {
            rx_queues: 1,
            tx_queues: 1,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: 1500,
            promiscuous: false,
            all_multicast: false,
            mac: None,
            rss: None,
            ipv4_checksum: false,
        }
    }
}

/// What a device can do at most, as its driver says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Receive queues.
    pub rx_queues: u16,
    /// Transmit queues.
    pub tx_queues: u16,
    /// Entries of the RSS redirection table, 0 for none.
    pub reta: u16,
    /// Bytes of the RSS key, 0 where the driver doesn't say.
    pub rss_key_len: u8,
    /// Whether it hashes flows at all.
    pub rss: bool,
    /// Whether it hashes by the source or the destination alone.
    pub rss_one_end: bool,
    /// Whether it fills in IPv4 header checksums.
    pub ipv4_checksum: bool,
}

impl Limits {
    pub(crate) fn of(info: &rte_eth_dev_info) -> Self {
        let ends = [RssEnd::Source, RssEnd::Destination];
        let one_end = |end| {
            Rss {
                end,
                addresses_only: true,
                key: Vec::new(),
            }
            .end_bits()
        };
        Self {
            rx_queues: info.max_rx_queues,
            tx_queues: info.max_tx_queues,
            reta: info.reta_size,
            rss_key_len: info.hash_key_size,
            rss: info.flow_type_rss_offloads != 0,
            rss_one_end: ends
                .iter()
                .all(|end| info.flow_type_rss_offloads & one_end(*end) != 0),
            ipv4_checksum: info.tx_offload_capa & SHIM_TX_OFFLOAD_IPV4_CKSUM != 0,
        }
    }
}

/// What a port is, or would be, configured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// Receive queues. May be more than wished where the driver spreads packets over all it has.
    pub rx_queues: u16,
    /// Transmit queues. Where they are fewer than the workers, some worker sends for another.
    pub tx_queues: u16,
    /// Descriptors of each receive queue.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue.
    pub tx_descriptors: u16,
    /// Longest IP packet, in bytes.
    pub mtu: u16,
    /// What is hashed, `None` for nothing.
    pub rss: Option<Rss>,
    /// Whether frames longer than a buffer arrive in several segments.
    pub scatter: bool,
    /// Whether the driver sends segmented frames; where not, the queue copies them into one buffer.
    pub multi_segments: bool,
    /// Whether [`crate::Mbuf::offload_ipv4_checksum`] may be used.
    pub ipv4_checksum: bool,
    /// Most mbufs that its queues hold at a time.
    pub mbufs: u32,
    /// What of the wishes did not come true, a sentence each.
    pub notes: Vec<String>,
    pub(crate) configured_mtu: u16,
    pub(crate) tell_mtu: bool,
    pub(crate) guard_length: bool,
    pub(crate) rx_offloads: u64,
    pub(crate) tx_offloads: u64,
}

impl fmt::Display for PortPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rx queues of {}, {} tx queues of {}, MTU {}",
            self.rx_queues, self.rx_descriptors, self.tx_queues, self.tx_descriptors, self.mtu
        )?;
        for note in &self.notes {
            write!(f, "; {note}")?;
        }
        Ok(())
    }
}

impl PortPlan {
    pub(crate) fn draft(
        handle: &Handle,
        config: &PortConfig,
        info: &rte_eth_dev_info,
        data_room: u16,
    ) -> Result<Self, PortError> {
        let quirks = Quirks::of(&handle.driver, handle.members().map(Device::driver));
        let mut notes = Vec::new();
        let (rx_queues, tx_queues) = queues(quirks, config, info, &mut notes);

        let longest = longest_mtu(info);
        let configured_mtu = config.mtu.min(longest);
        let mtu = if quirks.longer_than_said {
            config.mtu
        } else {
            configured_mtu
        };
        if mtu < config.mtu {
            notes.push(format!(
                "the driver carries an MTU of {mtu} at most, not {}",
                config.mtu
            ));
        }

        let needed = u32::from(mtu) + ETHERNET_OVERHEAD;
        let room = u32::from(data_room);
        let can = |capability: u64, offload: u64| capability & offload != 0;
        let asked_scatter = needed > room && can(info.rx_offload_capa, SHIM_RX_OFFLOAD_SCATTER);
        let scatter = needed > room && (asked_scatter || quirks.scatters_anyway);
        // What the driver fills without a look at the buffer's length, or refuses to begin with, goes before the MTU's needs.
        let filled = devargs::filled(&handle.driver, &handle.args).unwrap_or(0);
        let whole = filled.max(if scatter { 0 } else { needed });
        if whole > room {
            return Err(PortError::RoomTooSmall {
                device: handle.name.clone(),
                room,
                needed: whole,
            });
        }

        let said_gather = can(info.tx_offload_capa, SHIM_TX_OFFLOAD_MULTI_SEGS);
        let ipv4_checksum =
            config.ipv4_checksum && can(info.tx_offload_capa, SHIM_TX_OFFLOAD_IPV4_CKSUM);
        if config.ipv4_checksum && !ipv4_checksum {
            notes.push("the driver fills in no IPv4 header checksums".to_owned());
        }
        let rss = rss(quirks, config, info, rx_queues, &mut notes);
        let rss_hash = rss.is_some() && can(info.rx_offload_capa, SHIM_RX_OFFLOAD_RSS_HASH);
        let rx_descriptors = match quirks.fixed_descriptors {
            // Enough for the longest frame, and one more for what doesn't fill its buffer.
            None if quirks.few_descriptors => {
                u16::try_from(needed.div_ceil(room) + 1).unwrap_or(u16::MAX)
            }
            fixed => fixed.unwrap_or(config.rx_descriptors),
        };
        let offload = |on: bool, flag: u64| if on { flag } else { 0 };
        Ok(Self {
            rx_queues,
            tx_queues,
            rx_descriptors,
            tx_descriptors: quirks.fixed_descriptors.unwrap_or(config.tx_descriptors),
            mtu,
            rss,
            scatter,
            multi_segments: said_gather || quirks.gathers_anyway,
            ipv4_checksum,
            mbufs: 0,
            notes,
            configured_mtu,
            guard_length: quirks.stalls_at_long_frames,
            // 1,500 is what the kernel's side begins with.
            tell_mtu: quirks.tell_mtu && configured_mtu != 1500,
            rx_offloads: offload(asked_scatter, SHIM_RX_OFFLOAD_SCATTER)
                | offload(rss_hash, SHIM_RX_OFFLOAD_RSS_HASH),
            // Never MBUF_FAST_FREE: by it the driver frees into one pool whatever the mbuf's own is, and any mbuf may be sent.
            tx_offloads: offload(said_gather, SHIM_TX_OFFLOAD_MULTI_SEGS)
                | offload(ipv4_checksum, SHIM_TX_OFFLOAD_IPV4_CKSUM),
        })
    }

    /// Counts the mbufs that its queues hold, once the numbers of descriptors stand. Each member of a bond has the queues
    /// of the bond.
    pub(crate) fn count_mbufs(&mut self, members: usize) {
        let held = |queues: u16, descriptors: u16| u32::from(queues) * u32::from(descriptors);
        let each =
            held(self.rx_queues, self.rx_descriptors) + held(self.tx_queues, self.tx_descriptors);
        self.mbufs = each.saturating_mul(u32::try_from(members.max(1)).unwrap_or(u32::MAX));
    }

    /// Longest frame that may be sent, both VLAN tags included, without FCS.
    pub(crate) fn longest_frame(&self) -> u32 {
        u32::from(self.mtu) + ETHERNET_OVERHEAD - 4
    }

    /// Turns "not supported" into a note: the port works without.
    pub(crate) fn note_unsupported(
        &mut self,
        result: Result<(), PortError>,
        what: &str,
    ) -> Result<(), PortError> {
        match result {
            Err(PortError::Refused {
                errno: Errno(libc::ENOTSUP),
                ..
            }) => {
                self.notes.push(format!("the driver has no {what}"));
                Ok(())
            }
            other => other,
        }
    }
}

/// How many queues of each kind there will be.
fn queues(
    quirks: Quirks,
    config: &PortConfig,
    info: &rte_eth_dev_info,
    notes: &mut Vec<String>,
) -> (u16, u16) {
    let mut rx = config.rx_queues.min(info.max_rx_queues);
    let mut tx = config.tx_queues.min(info.max_tx_queues);
    if quirks.paired_queues {
        let pairs = rx.max(tx);
        (rx, tx) = (pairs.min(info.max_rx_queues), pairs.min(info.max_tx_queues));
    }
    if quirks.all_queues {
        rx = info.max_rx_queues;
    }
    for (what, got, wished) in [
        ("receive", rx, config.rx_queues),
        ("transmit", tx, config.tx_queues),
    ] {
        if got != wished {
            notes.push(format!("{got} {what} queues, not {wished}"));
        }
    }
    (rx, tx)
}

/// The longest MTU that DPDK lets the driver be configured with.
fn longest_mtu(info: &rte_eth_dev_info) -> u16 {
    // As DPDK computes it (eth_dev_get_overhead_len): a driver that names both limits names the overhead by them.
    if info.max_mtu != u16::MAX && info.max_rx_pktlen > u32::from(info.max_mtu) {
        return info.max_mtu;
    }
    u16::try_from(info.max_rx_pktlen.saturating_sub(14 + 4))
        .unwrap_or(u16::MAX)
        .min(info.max_mtu)
}

/// What will be hashed: as wished, or by both ends where the device can't choose one.
fn rss(
    quirks: Quirks,
    config: &PortConfig,
    info: &rte_eth_dev_info,
    rx_queues: u16,
    notes: &mut Vec<String>,
) -> Option<Rss> {
    let wished = config.rss.as_ref().filter(|_| rx_queues > 1)?;
    let device = info.flow_type_rss_offloads;
    if quirks.no_rss || device & (dpdk_sys::SHIM_RSS_IP | dpdk_sys::SHIM_RSS_L4) == 0 {
        notes.push(
            "the driver has no RSS, whoever spreads the packets over its queues chooses how"
                .to_owned(),
        );
        return None;
    }
    let mut rss = wished.clone();
    if device & rss.end_bits() != rss.end_bits() {
        rss.end = RssEnd::Both;
        notes.push("the driver hashes both ends of a flow, not one".to_owned());
    }
    Some(rss)
}

/// Room that a pool's buffers must have for frames of an MTU to arrive whole, in bytes; smaller ones do where the driver
/// scatters.
pub const fn data_room_for(mtu: u16) -> u16 {
    let needed = mtu as u32 + ETHERNET_OVERHEAD;
    let most = (u16::MAX - HEADROOM) as u32;
    if needed > most {
        most as u16
    } else {
        needed as u16 // Within a u16, as just seen.
    }
}
