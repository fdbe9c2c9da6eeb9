//! What routers said of the ways to servers: how long packets may be (`update_or_create_fnhe` in net/ipv4/route.c). A
//! router speaks of an address, so what it says holds for every dest there, and for those that come there later. The
//! errors that say it are read in `tunnel.rs`.

use std::net::IpAddr;

use hashbrown::HashMap;

use super::Services;
use crate::types::Time;

/// How long a router's word is believed (`ip_rt_mtu_expires`).
const EXPIRES: Time = Time::from_secs(600);

/// The least MTU that a router may tell of an IPv4 way (`ip_rt_min_pmtu`).
const LEAST: u16 = 552;

/// As many addresses are known of at once.
const MOST: usize = 4096;

/// A router's word, and until when it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    mtu: u16,
    until: Time,
}

/// What was told of each address.
#[derive(Debug, Default)]
pub(super) struct Ways {
    told: HashMap<IpAddr, Told>,
}

impl Ways {
    /// What is believed of the way to an address.
    #[inline]
    fn of(&self, now: Time, addr: IpAddr) -> Option<Told> {
        // As a rule nobody told anything.
        if self.told.is_empty() {
            return None;
        }
        self.told
            .get(&addr)
            .copied()
            .filter(|told| now < told.until)
    }

    /// Takes in that packets of more than `mtu` bytes do not pass on the way to an address. Returns whether that is news.
    fn learn(&mut self, now: Time, addr: IpAddr, mtu: u16) -> bool {
        let old = self.of(now, addr);
        let mtu = mtu.max(LEAST);
        // The same again counts once half the time is over.
        let fresh = old.is_none_or(|old| {
            mtu < old.mtu || mtu == old.mtu && old.until.0 - now.0 <= EXPIRES.0 / 2
        });
        if !fresh {
            return false;
        }
        if self.told.len() >= MOST {
            self.told.retain(|_, told| now < told.until);
        }
        if self.told.len() >= MOST && old.is_none() {
            return false;
        }
        let until = Time(now.0 + EXPIRES.0);
        self.told.insert(addr, Told { mtu, until });
        true
    }
}

impl Services {
    /// A router said that packets of more than `mtu` bytes do not pass on the way to an address. Returns whether that is news.
    pub fn learn_path_mtu(&mut self, now: Time, addr: IpAddr, mtu: u16) -> bool {
        self.ways.learn(now, addr, mtu)
    }

    /// Whether routers told anything of the kind, if only of other addresses.
    #[inline(always)]
    pub fn knows_path_mtus(&self) -> bool {
        !self.ways.told.is_empty()
    }

    /// How long packets to an address may be as routers told it; the greatest of all where they told nothing.
    #[inline]
    pub fn path_mtu(&self, now: Time, addr: IpAddr) -> u16 {
        self.ways.of(now, addr).map_or(u16::MAX, |told| told.mtu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_told_of_a_way_holds_until_its_time_is_up() {
        let mut ways = Ways::default();
        let addr: IpAddr = "10.0.0.11".parse().unwrap();
        let at = Time::from_secs;
        let mut learn = |seconds, mtu| {
            let news = ways.learn(at(seconds), addr, mtu);
            (news, ways.of(at(seconds), addr).map(|told| told.mtu))
        };
        assert_eq!(learn(0, 1400), (true, Some(1400)));
        assert_eq!(learn(1, 1450), (false, Some(1400)));
        assert_eq!(learn(2, 1300), (true, Some(1300)));
        assert_eq!(learn(3, 1300), (false, Some(1300)));
        assert_eq!(learn(303, 1300), (true, Some(1300)));
        assert_eq!(learn(902, 1350), (false, Some(1300)));
        assert_eq!(learn(903, 1350), (true, Some(1350)));
        assert_eq!(learn(904, 0), (true, Some(552)));
        assert_eq!(ways.of(at(904), "10.0.0.12".parse().unwrap()), None);
        assert_eq!(ways.of(at(1504), addr), None);
    }
}
