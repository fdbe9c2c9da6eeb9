//! Where packets are counted, found by a dest's number alone: its latest ones in a quarter of a cache line, which is all
//! that most of those of known connections touch, and the rest in a line of its own. The control thread opens the accounts, one
//! ledger for each worker, and reads them at any time; a worker gets the pages of its own with the dests. A service's packets
//! are those of its dests.

use std::ops::Deref;
use std::sync::Arc;

use ripvs_arch::prefetch_read;

use crate::recent::{InIp, Recent};
use crate::spec::DestSpec;
use crate::state::Direction;
use crate::tally::{Tally, TallySnapshot};
use crate::types::DestId;

/// Dests of a page.
const PAGE: usize = 64;

/// From so many dests on what changes with their connections is asked for before it is needed: fewer stay in the cache anyhow.
const MANY: usize = 1024;

/// From so many dests on, where their packets are counted is asked for too.
const VERY_MANY: usize = 16 * MANY;

#[derive(Debug)]
struct Page {
    recent: [Recent; PAGE],
    tallies: [Tally; PAGE],
}

impl Page {
    #[inline(always)]
    fn line(&self, place: usize) -> Line<'_> {
        Line {
            recent: &self.recent[place],
            tally: &self.tallies[place],
        }
    }
}

impl Default for Page {
    fn default() -> Page {
        Page {
            recent: std::array::from_fn(|_| Recent::default()),
            tallies: std::array::from_fn(|_| Tally::default()),
        }
    }
}

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
    fn line(&self) -> Line<'_> {
        self.page.line(place(self.dest).1)
    }

    /// All that was counted up to now.
    pub fn snapshot(&self) -> TallySnapshot {
        self.line().snapshot()
    }

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
        self.line().tally
    }
}

/// One dest's place in a ledger.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    /// The latest packets, and what packets need to know.
    pub recent: &'a Recent,
    /// All else.
    pub tally: &'a Tally,
}

impl Line<'_> {
    /// All that was counted up to now.
    pub fn snapshot(self) -> TallySnapshot {
        self.tally.as_one(|| {
            let mut sum = self.tally.snapshot();
            self.recent.add_to(&mut sum);
            sum
        })
    }

    /// Counts a packet.
    pub fn count(self, direction: Direction, bytes: usize) {
        if self.recent.count(direction, bytes) {
            self.recent.carry(self.tally);
        }
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
            self.pages.push(Arc::default());
        }
        let page = self.pages[page].clone();
        let account = Account {
            page,
            dest,
            new: true,
        };
        account.clear();
        account.line().recent.begin(InIp::of(spec));
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

    /// The place of a dest. There may be some of dests that are not known.
    #[inline(always)]
    pub(crate) fn line(&self, dest: DestId) -> Option<Line<'_>> {
        let (page, place) = place(dest);
        Some(self.pages.get(page)?.line(place))
    }

    /// Where the latest packets of a dest are counted.
    #[inline(always)]
    pub(crate) fn recent(&self, dest: DestId) -> Option<&Recent> {
        self.line(dest).map(|line| line.recent)
    }

    /// Carries a dest's latest packets to its other counters.
    #[cold]
    pub(crate) fn carry(&self, dest: DestId) {
        if let Some(line) = self.line(dest) {
            line.recent.carry(line.tally);
        }
    }

    /// The counters of a dest, but for its latest packets.
    #[inline(always)]
    pub(crate) fn dest(&self, dest: DestId) -> Option<&Tally> {
        self.line(dest).map(|line| line.tally)
    }

    /// Whether there are so many dests that it pays to ask for memory beforehand.
    #[inline]
    pub(crate) fn is_large(&self) -> bool {
        self.pages.len() * PAGE >= MANY
    }

    /// Whether there are so many that it pays for known connections' packets, too.
    #[inline]
    pub(crate) fn is_very_large(&self) -> bool {
        self.pages.len() * PAGE >= VERY_MANY
    }

    /// Begins to fetch what changes with a dest's connections.
    #[inline]
    pub(crate) fn prefetch(&self, dest: DestId) {
        if let Some(tally) = self.dest(dest) {
            prefetch_read(tally);
        }
    }

    /// Begins to fetch where the packets of a dest's known connections are counted.
    #[inline]
    pub(crate) fn prefetch_recent(&self, dest: DestId) {
        if let Some(line) = self.line(dest) {
            prefetch_read(line.recent);
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
    /// Counts a packet.
    #[inline(always)]
    pub fn add(&mut self, direction: Direction, bytes: usize) {
        self.packets[direction as usize] += 1;
        self.bytes[direction as usize] += bytes as u64;
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
    use crate::types::{proto, Af};

    #[test]
    fn with_many_dests_each_packet_of_a_burst_is_counted_at_its_own() {
        let mut rig = Rig::new(1);
        let service = rig.service(proto::UDP, "192.0.2.100", 53, SchedKind::Rr);
        let dest = |n| rig.dest(service, "10.0.0.11", 1000 + n, Forward::Route);
        let dests: Vec<DestId> = (0..VERY_MANY as u16 + 1).map(dest).collect();
        assert!(rig.workers[0].services.ledger().is_very_large());
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
    fn packets_in_both_directions_are_carried_to_their_dest_s_account() {
        let mut rig = Rig::new(1);
        let service = rig.service(proto::UDP, "192.0.2.100", 53, SchedKind::Rr);
        let dests =
            ["10.0.0.11", "10.0.0.12"].map(|addr| rig.dest(service, addr, 53, Forward::Masq));
        let packet = |from: (&str, u16), to: (&str, u16)| {
            let header = Ip::new(from.0.parse().unwrap(), to.0.parse().unwrap());
            header.udp((from.1, to.1), &[7; 18])
        };
        let request = packet(("198.18.0.1", 1000), ("192.0.2.100", 53));
        let frame = ethernet(mac(0), [2, 0, 0, 0, 9, 9], &request);
        assert_eq!(rig.send(0, &frame).len(), 1);
        let server = usize::from(rig.tally(dests[1]).in_packets == 1);
        let addr = ["10.0.0.11", "10.0.0.12"][server];
        let answer = packet((addr, 53), ("198.18.0.1", 1000));
        let answer = ethernet(mac(1), [2, 0, 0, 0, 2, 1], &answer);
        for (direction, iface, frame) in [
            (Direction::Input, 0, &frame),
            (Direction::Output, 1, &answer),
        ] {
            let ledger = rig.workers[0].services.ledger();
            let line = ledger.line(dests[server]).unwrap();
            line.recent.carry(line.tally);
            // One byte less than is carried.
            (0..35_791).for_each(|_| line.count(direction, 60_000));
            line.count(direction, 23_647);
            let before = line.snapshot();
            let known = line.tally.snapshot();
            assert_eq!(rig.send(iface, frame).len(), 1);
            let ledger = rig.workers[0].services.ledger();
            let carried = ledger.dest(dests[server]).unwrap().snapshot();
            assert_eq!(carried, rig.tally(dests[server]));
            let counted = match direction {
                Direction::Input => [
                    before.in_packets,
                    before.in_bytes,
                    carried.in_packets,
                    carried.in_bytes,
                ],
                Direction::Output => [
                    before.out_packets,
                    before.out_bytes,
                    carried.out_packets,
                    carried.out_bytes,
                ],
            };
            assert_eq!(
                counted[2..],
                [counted[0] + 1, counted[1] + 46],
                "{direction:?}"
            );
            assert_ne!(known, carried);
        }
        assert_eq!(rig.tally(dests[1 - server]), TallySnapshot::default());
    }

    #[test]
    fn an_account_is_the_same_line_for_both_and_begins_from_nought() {
        let (mut control, mut worker) = (Ledger::default(), Ledger::default());
        let spec = Rig::dest_spec("10.0.0.1", 80, Forward::Tunnel);
        for dest in [DestId(130), DestId(0), DestId(131), DestId(63)] {
            let account = control.open(dest, &spec);
            worker.take(&account);
            let line = worker.line(dest).unwrap();
            line.tally.inbound(40);
            line.count(Direction::Input, 60);
            line.count(Direction::Output, 70);
            let seen = account.snapshot();
            assert_eq!((seen.in_bytes, seen.out_bytes), (100, 70));
            assert!(line.recent.available() && line.recent.is_in_ip(Af::V4));
            assert!(std::ptr::eq(line.tally, &*account));
        }
        assert_eq!(worker.line(DestId(131)).unwrap().snapshot().in_packets, 2);
        assert_eq!(
            control.open(DestId(131), &spec).snapshot(),
            Default::default()
        );
        assert_eq!(worker.line(DestId(130)).unwrap().snapshot().in_packets, 2);
        assert!(worker.dest(DestId(192)).is_none());
    }

    #[test]
    fn a_reader_sees_counters_that_never_go_back_while_they_are_carried() {
        const PACKETS: u64 = 20_000_000;
        let mut ledger = Ledger::default();
        let account = ledger.open(DestId(7), &Rig::dest_spec("10.0.0.1", 80, Forward::Route));
        let line = ledger.line(DestId(7)).unwrap();
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut last = (0, 0);
                while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                    let now = account.snapshot();
                    let now = (now.in_packets, now.in_bytes);
                    assert!(now.0 >= last.0 && now.1 >= last.1, "{now:?} after {last:?}");
                    assert!(now.0 <= PACKETS && now.1 <= 60 * PACKETS, "{now:?}");
                    last = now;
                }
            });
            for n in 0..PACKETS {
                line.count(Direction::Input, 60);
                if n % 64 == 0 {
                    line.recent.carry(line.tally);
                }
            }
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(account.snapshot().in_packets, PACKETS);
    }
}
