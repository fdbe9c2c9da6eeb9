//! Where packets are counted: a cache line for each dest, found by its number alone, so that with thousands of them a packet
//! waits for one line. The control thread opens the accounts, one ledger for each worker, and reads them at any time; a
//! worker gets the pages of its own with the dests. A service's packets are those of its dests.

use std::ops::Deref;
use std::sync::Arc;

use ripvs_arch::prefetch_read;

use crate::spec::DestSpec;
use crate::state::Direction;
use crate::tally::Tally;
use crate::types::DestId;

/// Dests of a page.
const PAGE: usize = 64;

/// From so many dests on their counters are asked for before they are needed: fewer stay in the cache anyhow.
const MANY: usize = 1024;

type Page = [Tally; PAGE];

/// One worker's counters of all dests, by number: in pages, so that none is moved when more come.
#[derive(Debug, Default)]
pub struct Ledger {
    pages: Vec<Arc<Page>>,
}

/// One worker's counters of a dest, with the page that they are on.
#[derive(Clone, Debug)]
pub struct Account {
    page: Arc<Page>,
    dest: DestId,
    /// Whether it has just been opened, and is as the dest's worker wants it.
    new: bool,
}

impl Account {
    /// It, where the worker may know its dest already.
    pub fn again(&self) -> Account {
        Account {
            new: false,
            ..self.clone()
        }
    }

    /// Whether no worker has known it so far.
    pub(crate) fn is_new(&self) -> bool {
        self.new
    }

    /// Whether a ledger that took the other in has no need of this one.
    pub(crate) fn goes_with(&self, other: &Account) -> bool {
        Arc::ptr_eq(&self.page, &other.page) && place(self.dest).0 == place(other.dest).0
    }
}

impl Deref for Account {
    type Target = Tally;

    fn deref(&self) -> &Tally {
        &self.page[place(self.dest).1]
    }
}

/// Which page a dest is on, and where there.
#[inline(always)]
fn place(dest: DestId) -> (usize, usize) {
    let number = dest.0 as usize;
    (number / PAGE, number % PAGE)
}

impl Ledger {
    /// Opens the account of a new dest of a service, from nought. No worker may know a dest of that number.
    pub fn open(&mut self, dest: DestId, spec: &DestSpec) -> Account {
        let (page, _) = place(dest);
        while self.pages.len() <= page {
            self.pages
                .push(Arc::new(std::array::from_fn(|_| Tally::default())));
        }
        let page = self.pages[page].clone();
        let account = Account {
            page,
            dest,
            new: true,
        };
        account.begin(spec);
        account
    }

    /// Takes an account in, which another ledger opened.
    pub(crate) fn take(&mut self, account: &Account) {
        let (page, _) = place(account.dest);
        // The page's count is the control thread's to touch.
        if self
            .pages
            .get(page)
            .is_some_and(|known| Arc::ptr_eq(known, &account.page))
        {
            return;
        }
        if self.pages.len() <= page {
            // Those between, if any, come with their own dests.
            self.pages.resize(page + 1, account.page.clone());
        }
        self.pages[page] = account.page.clone();
    }

    /// The counters of a dest. There may be some of dests that are not known.
    #[inline(always)]
    pub(crate) fn dest(&self, dest: DestId) -> Option<&Tally> {
        let (page, place) = place(dest);
        Some(&self.pages.get(page)?[place])
    }

    /// Whether there are so many dests that it pays to ask for memory beforehand.
    #[inline]
    pub(crate) fn is_large(&self) -> bool {
        self.pages.len() * PAGE >= MANY
    }

    /// Begins to fetch a dest's counters.
    #[inline]
    pub(crate) fn prefetch(&self, dest: DestId) {
        if let Some(tally) = self.dest(dest) {
            prefetch_read(tally);
        }
    }
}

/// What packets of a burst add to the counters of all traffic, written when it ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    /// Packets from clients, from servers.
    packets: [u64; 2],
    /// Bytes likewise.
    bytes: [u64; 2],
}

impl Sums {
    /// Counts a packet for a dest.
    #[inline(always)]
    pub fn add(&mut self, dest: &Tally, direction: Direction, bytes: usize) {
        let at = match direction {
            Direction::Input => {
                dest.inbound(bytes);
                0
            }
            Direction::Output => {
                dest.outbound(bytes);
                1
            }
        };
        self.packets[at] += 1;
        self.bytes[at] += bytes as u64;
    }

    /// Writes them, at the end of a burst.
    pub fn end(&mut self, total: &Tally) {
        let Sums { packets, bytes } = std::mem::take(self);
        total.add([packets[0], bytes[0], packets[1], bytes[1]]);
    }
}

#[cfg(test)]
mod tests {
    use ripvs_packet::memory::MemFrame;
    use ripvs_packet::testing::build::{ethernet, Ip};

    use super::*;
    use crate::spec::{Forward, SchedKind};
    use crate::testing::{mac, Rig};
    use crate::types::proto;

    #[test]
    fn with_many_dests_each_packet_of_a_burst_is_counted_at_its_own() {
        let mut rig = Rig::new(1);
        let service = rig.service(proto::UDP, "192.0.2.100", 53, SchedKind::Rr);
        let dest = |n| rig.dest(service, "10.0.0.11", 1000 + n, Forward::Route);
        let dests: Vec<DestId> = (0..MANY as u16 + 1).map(dest).collect();
        let burst = |clients: std::ops::Range<u16>| {
            let frame = |client| {
                let header = Ip::new(
                    "198.18.0.1".parse().unwrap(),
                    "192.0.2.100".parse().unwrap(),
                );
                let packet = header.udp((client, 53), &[7; 18]);
                MemFrame::new(&ethernet(mac(0), [2, 0, 0, 0, 9, 9], &packet))
            };
            clients.map(frame).collect()
        };
        // First packets, then those of known connections, then some of each.
        for (clients, wanted) in [
            (1001..1021, (20, 20, 1)),
            (1001..1021, (20, 40, 2)),
            (1011..1031, (30, 60, 3)),
        ] {
            assert_eq!(rig.send_burst(0, burst(clients)).len(), 20);
            let tallies = dests.iter().map(|dest| rig.tally(*dest));
            let packets: Vec<u64> = tallies.map(|tally| tally.in_packets).collect();
            let used = packets.iter().filter(|packets| **packets > 0).count();
            let most = packets.iter().copied().max().unwrap_or(0);
            assert_eq!((used, packets.iter().sum::<u64>(), most), wanted);
        }
    }

    #[test]
    fn an_account_is_the_same_line_for_both_and_begins_from_nought() {
        let (mut control, mut worker) = (Ledger::default(), Ledger::default());
        let spec = Rig::dest_spec("10.0.0.1", 80, Forward::Tunnel);
        for dest in [DestId(130), DestId(0), DestId(131), DestId(63)] {
            let account = control.open(dest, &spec);
            worker.take(&account);
            let line = worker.dest(dest).unwrap();
            line.inbound(40);
            assert_eq!(account.snapshot().in_bytes, 40);
            assert!(std::ptr::eq(line, &*account));
        }
        assert_eq!(worker.dest(DestId(131)).unwrap().snapshot().in_packets, 1);
        assert_eq!(
            control.open(DestId(131), &spec).snapshot(),
            Default::default()
        );
        assert_eq!(worker.dest(DestId(130)).unwrap().snapshot().in_packets, 1);
        assert!(worker.dest(DestId(192)).is_none());
    }
}
