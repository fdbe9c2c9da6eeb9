//! Ways out, looked up once and kept by number: a route and the neighbour it leads to. A connection's record keeps the
//! numbers of its two ways, so that its packets cost no route look-up. Any change of routes, addresses or interfaces makes
//! every number stale.

use std::net::IpAddr;

use hashbrown::HashMap;
use ripvs_packet::Frame;

use crate::net::{NeighId, RouteHit};
use crate::types::{IfaceId, Time};
use crate::worker::Worker;

/// A way out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hop {
    /// The route.
    pub hit: RouteHit,
    /// The neighbour; none where the way ends here, or there is no room for another neighbour.
    pub neigh: Option<NeighId>,
}

/// The number of a way, as records keep it; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HopNumber(pub u32);

/// The ways of one worker.
#[derive(Debug, Default)]
pub(crate) struct Hops {
    ways: Vec<Hop>,
    numbers: HashMap<(IfaceId, IpAddr, u16, bool), u16>,
    /// The network layer's generation that the ways are of.
    generation: u32,
    /// Distinguishes the numbers of different generations.
    epoch: u16,
}

impl Hops {
    /// Makes every number stale.
    pub fn clear(&mut self) {
        self.ways.clear();
        self.numbers.clear();
        self.epoch = self.epoch.wrapping_add(1);
    }

    #[inline]
    fn get(&self, number: HopNumber, generation: u32) -> Option<Hop> {
        let (epoch, place) = ((number.0 >> 16) as u16, number.0 & 0xffff);
        if epoch != self.epoch || generation != self.generation {
            return None;
        }
        self.ways.get((place as usize).checked_sub(1)?).copied()
    }

    fn insert(&mut self, hop: Hop) -> HopNumber {
        let key = (hop.hit.iface, hop.hit.next_hop, hop.hit.mtu, hop.hit.local);
        let place = match self.numbers.get(&key) {
            Some(place) => {
                self.ways[usize::from(*place) - 1] = hop;
                *place
            }
            None => {
                let Ok(place) = u16::try_from(self.ways.len() + 1) else {
                    return HopNumber(0);
                };
                self.ways.push(hop);
                self.numbers.insert(key, place);
                place
            }
        };
        HopNumber(u32::from(self.epoch) << 16 | u32::from(place))
    }
}

impl<F: Frame> Worker<F> {
    /// The way to `target`, for packets from `source` where routes may depend on that; by the number that is kept of it, if
    /// that is still good. Returns the number to keep as well. `None`: there is no way.
    #[inline]
    pub(crate) fn way(
        &mut self,
        now: Time,
        kept: HopNumber,
        target: IpAddr,
        source: Option<IpAddr>,
    ) -> Option<(HopNumber, Hop)> {
        if let Some(hop) = self.hops.get(kept, self.net.generation()) {
            if hop.neigh.is_some_and(|id| self.net.neigh_current(id)) {
                return Some((kept, hop));
            }
        }
        self.way_anew(now, target, source)
    }

    fn way_anew(
        &mut self,
        now: Time,
        target: IpAddr,
        source: Option<IpAddr>,
    ) -> Option<(HopNumber, Hop)> {
        let hit = self.net.route(target, source)?;
        let neigh = self.net.neigh_for(now, &hit);
        if self.hops.generation != self.net.generation() {
            self.hops.clear();
            self.hops.generation = self.net.generation();
        }
        let hop = Hop { hit, neigh };
        let number = if neigh.is_some() {
            self.hops.insert(hop)
        } else {
            HopNumber(0)
        };
        Some((number, hop))
    }
}
