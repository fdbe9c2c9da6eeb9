//! What IPVS does when it is short of memory: drop a share of new connections' packets, give up connections that are hardly
//! used (how is in `thin.rs`), and be strict with TCP.
//!
//! Follows `update_defense_level` and `ip_vs_todrop` (net/netfilter/ipvs/ip_vs_ctl.c). Where the kernel looks at its free
//! pages, the measure here is how many connections may still be made, since their table is laid out beforehand.

use crate::settings::Settings;

/// The defences of one worker, as they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defence {
    secure_tcp: bool,
    drop_entries: bool,
    /// One packet in so many is dropped; 0: none.
    drop_rate: u32,
    drop_counter: u32,
}

impl Defence {
    /// Takes in the settings, with room for `free` more connections: at every change of them and once a second.
    pub fn update(&mut self, settings: &Settings, free: u32) {
        // A threshold below nought is never reached.
        let threshold = i64::from(settings.amemthresh);
        let short = i64::from(free) < threshold;
        self.secure_tcp = match settings.secure_tcp {
            0 => false,
            1 | 2 => short,
            _ => true,
        };
        self.drop_entries = match settings.drop_entry {
            0 => false,
            1 | 2 => short,
            _ => true,
        };
        let rate = match settings.drop_packet {
            1 | 2 if short => threshold / (threshold - i64::from(free)),
            // The counter of a rate below nought is always through: every packet is dropped.
            3 if settings.am_droprate < 0 => 1,
            3 => i64::from(settings.am_droprate),
            _ => 0,
        };
        self.drop_rate = u32::try_from(rate).unwrap_or(u32::MAX);
        if self.drop_rate == 0 || self.drop_counter == 0 {
            self.drop_counter = self.drop_rate;
        }
    }

    /// Whether TCP's strict states and timeouts are in force.
    pub fn secure_tcp(&self) -> bool {
        self.secure_tcp
    }

    /// Whether connections that are hardly used are given up.
    pub fn drops_entries(&self) -> bool {
        self.drop_entries
    }

    /// Whether any first packets of connections are dropped.
    pub fn drops_packets(&self) -> bool {
        self.drop_rate != 0
    }

    /// Whether this packet, the first of a connection, is one of those to be dropped.
    pub fn drops_packet(&mut self) -> bool {
        if self.drop_rate == 0 {
            return false;
        }
        self.drop_counter = self.drop_counter.saturating_sub(1);
        if self.drop_counter > 0 {
            return false;
        }
        self.drop_counter = self.drop_rate;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped(defence: &mut Defence, of: usize) -> usize {
        (0..of).filter(|_| defence.drops_packet()).count()
    }

    #[test]
    fn mode_3_drops_none_at_a_rate_of_nought_and_all_below() {
        for (am_droprate, all) in [(0, 0), (-5, 1000)] {
            let settings = Settings {
                drop_packet: 3,
                am_droprate,
                ..Settings::default()
            };
            let mut defence = Defence::default();
            defence.update(&settings, 1_000_000);
            assert_eq!(dropped(&mut defence, 1000), all);
        }
    }

    #[test]
    fn mode_3_drops_one_packet_in_am_droprate() {
        let settings = Settings {
            drop_packet: 3,
            am_droprate: 10,
            ..Settings::default()
        };
        let mut defence = Defence::default();
        defence.update(&settings, 1_000_000);
        assert_eq!(dropped(&mut defence, 1000), 100);
    }

    #[test]
    fn mode_1_defends_only_when_room_is_short_and_the_more_the_shorter() {
        let settings = Settings {
            drop_packet: 1,
            secure_tcp: 1,
            ..Settings::default()
        };
        let mut defence = Defence::default();
        defence.update(&settings, 1024);
        assert_eq!(
            (dropped(&mut defence, 100), defence.secure_tcp()),
            (0, false)
        );
        defence.update(&settings, 512);
        assert_eq!(
            (dropped(&mut defence, 100), defence.secure_tcp()),
            (50, true)
        );
        defence.update(&settings, 2048);
        assert_eq!(
            (dropped(&mut defence, 100), defence.secure_tcp()),
            (0, false)
        );
    }
}
