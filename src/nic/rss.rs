//! What a NIC with several receive queues hashes, to choose the queue.

use dpdk_sys::{
    rte_eth_rss_conf, SHIM_RSS_IP, SHIM_RSS_L3_DST_ONLY_HIGH, SHIM_RSS_L3_SRC_ONLY_HIGH,
    SHIM_RSS_L4, SHIM_RSS_L4_DST_ONLY_HIGH, SHIM_RSS_L4_SRC_ONLY_HIGH,
};

/// Which end of a flow is hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RssEnd {
    /// Both ends, as every NIC with RSS can.
    #[default]
    Both,
    /// The source only: all packets from one client (or client port) go to one queue.
    Source,
    /// The destination only: the same for what real servers send back to the client.
    Destination,
}

/// What is hashed, and by which key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rss {
    /// Which end of the flow.
    pub end: RssEnd,
    /// Addresses alone, without the ports of TCP, UDP and SCTP.
    pub addresses_only: bool,
    /// The Toeplitz key, of the length that the device wants ([`crate::Limits::rss_key_len`]); empty for the driver's own.
    pub key: Vec<u8>,
}

impl Rss {
    /// The bits that choose one end.
    pub(crate) fn end_bits(&self) -> u64 {
        let (l3, l4) = match self.end {
            RssEnd::Both => (0, 0),
            RssEnd::Source => (SHIM_RSS_L3_SRC_ONLY_HIGH, SHIM_RSS_L4_SRC_ONLY_HIGH),
            RssEnd::Destination => (SHIM_RSS_L3_DST_ONLY_HIGH, SHIM_RSS_L4_DST_ONLY_HIGH),
        };
        u64::from(if self.addresses_only { l3 } else { l3 | l4 }) << 32
    }

    /// DPDK's form of it, of the packet types that the device can hash. `key` must outlive the result.
    pub(crate) fn conf(&self, key: &mut [u8], device: u64) -> rte_eth_rss_conf {
        let types = if self.addresses_only {
            SHIM_RSS_IP
        } else {
            SHIM_RSS_IP | SHIM_RSS_L4
        };
        #[allow(clippy::needless_update)] // 23.11 has one field more.
        rte_eth_rss_conf {
            rss_key: if key.is_empty() {
                std::ptr::null_mut()
            } else {
                key.as_mut_ptr()
            },
            rss_key_len: u8::try_from(key.len()).unwrap_or(u8::MAX),
            rss_hf: (types & device) | self.end_bits(),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_end_is_chosen_by_the_bits_that_dpdk_gives_it() {
        let rss = |end, addresses_only| {
            Rss {
                end,
                addresses_only,
                key: vec![],
            }
            .end_bits()
        };
        assert_eq!(rss(RssEnd::Both, false), 0);
        assert_eq!(rss(RssEnd::Source, true), 1 << 63);
        assert_eq!(rss(RssEnd::Source, false), 1 << 63 | 1 << 61);
        assert_eq!(rss(RssEnd::Destination, false), 1 << 62 | 1 << 60);
    }

    #[test]
    fn only_types_that_the_device_hashes_are_asked_for() {
        let conf = Rss::default().conf(&mut [], SHIM_RSS_IP);
        assert_eq!(conf.rss_hf, SHIM_RSS_IP);
        assert!(conf.rss_key.is_null());
    }
}
