//! What drivers do that their limits, as DPDK tells them, don't say: found in the sources of 22.11 and by running it.
//! `plan` heeds it.

/// What a driver does that its limits don't tell.
#[derive(Clone, Copy, Default)]
pub(crate) struct Quirks {
    /// Packets are spread over all queues that exist, so all must be taken (the kernel's fanout or hash does it).
    pub(crate) all_queues: bool,
    /// As many receive as transmit queues: each pair is one file descriptor, or one ring.
    pub(crate) paired_queues: bool,
    /// Spreads long frames over buffers without being asked, or without saying that it can.
    pub(crate) scatters_anyway: bool,
    /// Sends segmented frames, or reads none of the bytes, without saying so.
    pub(crate) gathers_anyway: bool,
    /// Carries longer frames than the length it names.
    pub(crate) longer_than_said: bool,
    /// Passes the MTU on to the kernel only when told it by itself.
    pub(crate) tell_mtu: bool,
    /// Says that it tells of changes of its link, and doesn't: a bond neither hears of them nor looks for itself.
    pub(crate) silent_link: bool,
    /// Neither sends a frame that is too long nor steps over it.
    pub(crate) stalls_at_long_frames: bool,
    /// Offers hashing and does none.
    pub(crate) no_rss: bool,
    /// Passes one vector of all descriptors to the kernel with each packet: only as many as a frame needs.
    pub(crate) few_descriptors: bool,
    /// Talks to its other end on DPDK's interrupt thread, and leaves a source with it when it is closed (the listening
    /// socket's, which lies in DPDK's memory).
    pub(crate) leaves_interrupts: bool,
    /// Has rings of this length, whatever is asked for.
    pub(crate) fixed_descriptors: Option<u16>,
}

impl Quirks {
    pub(crate) fn of_driver(driver: &str) -> Self {
        let none = Self::default();
        match driver {
            "net_tap" => Self {
                paired_queues: true,
                tell_mtu: true,
                silent_link: true,
                stalls_at_long_frames: true,
                no_rss: true,
                few_descriptors: true,
                ..none
            },
            "net_af_packet" => Self {
                all_queues: true,
                longer_than_said: true,
                ..none
            },
            "net_af_xdp" => Self {
                all_queues: true,
                fixed_descriptors: Some(2048),
                ..none
            },
            "net_memif" => Self {
                leaves_interrupts: true,
                scatters_anyway: true,
                longer_than_said: true,
                ..none
            },
            "net_pcap" => Self {
                all_queues: true,
                scatters_anyway: true,
                gathers_anyway: true,
                ..none
            },
            "net_null" => Self {
                scatters_anyway: true,
                gathers_anyway: true,
                ..none
            },
            "net_ring" => Self {
                paired_queues: true,
                ..none
            },
            _ => none,
        }
    }

    /// Those of a device: its driver's, and where it is a bond those of all its members' drivers, since it hands them on.
    pub(crate) fn of<'a>(driver: &str, members: impl Iterator<Item = &'a str>) -> Self {
        members
            .map(Self::of_driver)
            .fold(Self::of_driver(driver), |a, b| Self {
                all_queues: a.all_queues || b.all_queues,
                paired_queues: a.paired_queues || b.paired_queues,
                // What not all members are known to do, a bond doesn't.
                scatters_anyway: false,
                gathers_anyway: false,
                longer_than_said: false,
                tell_mtu: a.tell_mtu || b.tell_mtu,
                silent_link: a.silent_link || b.silent_link,
                stalls_at_long_frames: a.stalls_at_long_frames || b.stalls_at_long_frames,
                no_rss: a.no_rss || b.no_rss,
                few_descriptors: a.few_descriptors || b.few_descriptors,
                leaves_interrupts: a.leaves_interrupts || b.leaves_interrupts,
                fixed_descriptors: a.fixed_descriptors.or(b.fixed_descriptors),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bond_has_the_peculiarities_of_its_members() {
        let bond = Quirks::of("net_bonding", ["net_tap", "net_af_xdp"].into_iter());
        assert!(bond.paired_queues && bond.all_queues && bond.few_descriptors && bond.tell_mtu);
        assert_eq!(bond.fixed_descriptors, Some(2048));
        let plain = Quirks::of("net_bonding", ["net_ixgbe"].into_iter());
        assert!(!plain.paired_queues && !plain.all_queues && !plain.no_rss);
    }
}
