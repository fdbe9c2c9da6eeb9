//! Where packets are counted: by dest, its counters, its service, and whether it is in it; by service, its counters. Kept
//! apart from what `service` knows of them, so that with thousands of dests a packet waits for as little memory as can be.

use std::sync::Arc;

use ripvs_arch::prefetch_read;

use crate::growing::Numbered;
use crate::hop::HopNumber;
use crate::state::Direction;
use crate::tally::Tally;
use crate::types::{DestId, ServiceId};

/// From so many dests on their counters are asked for before they are needed: fewer stay in the cache anyhow.
const MANY: usize = 1024;

/// What a packet needs to know of its dest to be counted: half a cache line, so that it is never in two.
#[derive(Debug)]
#[repr(align(32))]
pub(crate) struct Account {
    /// The dest's counters.
    pub tally: Arc<Tally>,
    /// The service it is or last was in.
    pub service: ServiceId,
    /// Whether it is in it at present.
    pub available: bool,
    /// The way to it that its last new connection found, for the next one.
    pub hop: HopNumber,
}

/// The accounts of one worker.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    dests: Numbered<Account>,
    services: Numbered<Arc<Tally>>,
}

impl Ledger {
    /// The account of a dest.
    #[inline(always)]
    pub fn dest(&self, id: DestId) -> Option<&Account> {
        self.dests.get(id.0)
    }

    /// The counters of a service.
    #[inline(always)]
    pub fn service(&self, id: ServiceId) -> Option<&Tally> {
        self.services.get(id.0).map(|tally| &**tally)
    }

    /// Whether there are so many dests that it pays to ask for memory beforehand.
    #[inline]
    pub fn is_large(&self) -> bool {
        self.dests.places() >= MANY
    }

    /// Begins to fetch a dest's account.
    #[inline]
    pub fn prefetch(&self, id: DestId) {
        if let Some(place) = self.dests.place(id.0) {
            prefetch_read(place);
        }
    }

    /// Begins to fetch a dest's counters, and where its service's are, when its account has come.
    #[inline]
    pub fn prefetch_dest(&self, id: DestId) {
        if let Some(account) = self.dest(id) {
            prefetch_read(&*account.tally);
            if let Some(place) = self.services.place(account.service.0) {
                prefetch_read(place);
            }
        }
    }

    /// Begins to fetch the counters of a dest's service, when [`Ledger::prefetch_dest`] has had its effect.
    #[inline]
    pub fn prefetch_service(&self, id: DestId) {
        if let Some(tally) = self.dest(id).and_then(|dest| self.service(dest.service)) {
            prefetch_read(tally);
        }
    }

    /// Opens a dest's account.
    pub fn open_dest(&mut self, id: DestId, account: Account) {
        self.dests.put(id.0, account);
    }

    /// Closes a dest's account.
    pub fn close_dest(&mut self, id: DestId) {
        self.dests.take(id.0);
    }

    /// Notes the way to a dest.
    #[inline]
    pub fn set_hop(&mut self, id: DestId, hop: HopNumber) {
        if let Some(account) = self.dests.get_mut(id.0) {
            account.hop = hop;
        }
    }

    /// Notes that a dest has left its service.
    pub fn suspend(&mut self, id: DestId) {
        if let Some(account) = self.dests.get_mut(id.0) {
            account.available = false;
        }
    }

    /// Opens a service's account.
    pub fn open_service(&mut self, id: ServiceId, tally: Arc<Tally>) {
        self.services.put(id.0, tally);
    }

    /// Closes a service's account.
    pub fn close_service(&mut self, id: ServiceId) {
        self.services.take(id.0);
    }
}

/// What packets add to the counters of their service and of all traffic: written when another service comes, and when the
/// burst ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    service: ServiceId,
    /// Packets and bytes from clients, packets and bytes from servers: the service's.
    counts: [u64; 4],
    /// The same of the services before it.
    earlier: [u64; 4],
}

impl Sums {
    /// Counts a packet for a dest and its service.
    #[inline(always)]
    pub fn add(&mut self, dest: &Account, direction: Direction, bytes: usize, ledger: &Ledger) {
        if dest.service != self.service {
            self.write(ledger);
            self.service = dest.service;
        }
        match direction {
            Direction::Input => {
                dest.tally.inbound(bytes);
                self.counts[0] += 1;
                self.counts[1] += bytes as u64;
            }
            Direction::Output => {
                dest.tally.outbound(bytes);
                self.counts[2] += 1;
                self.counts[3] += bytes as u64;
            }
        }
    }

    #[inline(never)]
    fn write(&mut self, ledger: &Ledger) {
        let counts = std::mem::take(&mut self.counts);
        if counts == [0; 4] {
            return;
        }
        for (sum, n) in self.earlier.iter_mut().zip(counts) {
            *sum += n;
        }
        if let Some(tally) = ledger.service(self.service) {
            tally.add(counts);
        }
    }

    /// Writes what is left, at the end of a burst.
    pub fn end(&mut self, ledger: &Ledger, total: &Tally) {
        self.write(ledger);
        total.add(std::mem::take(&mut self.earlier));
    }
}
