//! What routers said of the ways to servers: how long packets may be (`update_or_create_fnhe` in net/ipv4/route.c). A
//! router speaks of an address, so what it says holds for every dest there, and for those that come there later. The
//! errors that say it are read in `tunnel.rs`.

use std::net::IpAddr;

use hashbrown::HashMap;

use super::{Dest, Services};
use crate::types::Time;

/// How long a router's word is believed (`ip_rt_mtu_expires`).
const EXPIRES: Time = Time::from_secs(600);

/// The least MTU that a router may tell of an IPv4 way (`ip_rt_min_pmtu`).
const LEAST: u16 = 552;

/// As many addresses are known of at once.
const MOST: usize = 4096;

/// A router's word, and until when it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    mtu: u16,
    until: Time,
}

/// What was told of each address.
#[derive(Debug, Default)]
pub(super) struct Ways {
    told: HashMap<IpAddr, Told>,
}

impl Ways {
    /// What is known of the way to an address.
    pub fn of(&self, addr: IpAddr) -> Option<Told> {
        self.told.get(&addr).copied()
    }

    /// Takes in that packets of more than `mtu` bytes do not pass on the way to an address. Returns what is new by that.
    fn learn(&mut self, now: Time, addr: IpAddr, mtu: u16) -> Option<Told> {
        let old = self.of(addr).filter(|old| now < old.until);
        let mtu = mtu.max(LEAST);
        // The same again counts once half the time is over.
        let fresh = old.is_none_or(|old| {
            mtu < old.mtu || mtu == old.mtu && old.until.0 - now.0 <= EXPIRES.0 / 2
        });
        if !fresh {
            return None;
        }
        if self.told.len() >= MOST {
            self.told.retain(|_, told| now < told.until);
        }
        if self.told.len() >= MOST && old.is_none() {
            return None;
        }
        let until = Time(now.0 + EXPIRES.0);
        self.told.insert(addr, Told { mtu, until });
        Some(Told { mtu, until })
    }
}

impl Dest {
    /// The MTU of the way to it as routers told it; the greatest of all where they told none.
    pub fn path_mtu(&self, now: Time) -> u16 {
        self.way
            .filter(|told| now < told.until)
            .map_or(u16::MAX, |told| told.mtu)
    }
}

impl Services {
    /// A router said that packets of more than `mtu` bytes do not pass on the way to an address. Returns whether that is news.
    pub fn learn_path_mtu(&mut self, now: Time, addr: IpAddr, mtu: u16) -> bool {
        let Some(told) = self.ways.learn(now, addr, mtu) else {
            return false;
        };
        let there = self.dests.iter_mut();
        for dest in there.filter(|dest| dest.spec.addr == addr) {
            dest.way = Some(told);
        }
        true
    }

    /// How long packets to an address may be, as routers told it.
    pub fn path_mtu(&self, now: Time, addr: IpAddr) -> u16 {
        self.ways
            .of(addr)
            .filter(|told| now < told.until)
            .map_or(u16::MAX, |told| told.mtu)
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
        let mtu = |told: Option<Told>| told.map(|told| told.mtu);
        assert_eq!(mtu(ways.learn(at(0), addr, 1400)), Some(1400));
        assert_eq!(ways.learn(at(1), addr, 1450), None);
        assert_eq!(mtu(ways.learn(at(2), addr, 1300)), Some(1300));
        assert_eq!(ways.learn(at(3), addr, 1300), None);
        assert_eq!(mtu(ways.learn(at(303), addr, 1300)), Some(1300));
        assert_eq!(ways.learn(at(902), addr, 1350), None);
        assert_eq!(mtu(ways.learn(at(903), addr, 1350)), Some(1350));
        assert_eq!(mtu(ways.learn(at(904), addr, 0)), Some(552));
        assert_eq!(ways.of("10.0.0.12".parse().unwrap()), None);
    }
}
