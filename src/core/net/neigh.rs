//! Neighbours: which MAC address an IP address on a link has, by the states of the kernel's NUD (RFC 4861 section 7.3), and
//! the few packets that wait to learn it. Owns the table and its timers; what is sent to ask is `arp`'s and `nd`'s.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::IpAddr;

use hashbrown::HashMap;
use ripvs_packet::PortId;

use super::iface::{Iface, Mac};
use crate::types::{IfaceId, Time};
use crate::verdict::Verdict;

/// How long a confirmed neighbour counts as reachable (RFC 4861 REACHABLE_TIME).
pub const REACHABLE: Time = Time::from_secs(30);
/// How long a stale one in use may be confirmed by others before it is asked (DELAY_FIRST_PROBE_TIME).
pub const DELAY: Time = Time::from_secs(5);
/// The pause between questions (RETRANS_TIMER).
pub const RETRANS: Time = Time::from_secs(1);
/// How often is asked before giving up (MAX_MULTICAST_SOLICIT, MAX_UNICAST_SOLICIT).
pub const PROBES: u8 = 3;
/// An answer that contradicts one this fresh does not count, unless it is gratuitous (the kernel's `locktime`).
const LOCK: Time = Time::from_secs(1);
/// Entries looked at for one to give up when the table is full.
const EVICTION_SAMPLE: usize = 32;

/// The state of a neighbour, as `ip neigh` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Nud {
    /// Being asked for; no MAC address yet.
    Incomplete,
    /// Known, confirmed lately.
    Reachable,
    /// Known, not confirmed lately; asked again when used.
    Stale,
    /// Stale and in use, about to be asked.
    Delay,
    /// Being asked again.
    Probe,
    /// Did not answer.
    Failed,
    /// Set by an operator.
    Permanent,
}

impl Nud {
    /// Whether a MAC address is known.
    pub fn valid(self) -> bool {
        !matches!(self, Nud::Incomplete | Nud::Failed)
    }

    /// The name operators see.
    pub fn name(self) -> &'static str {
        match self {
            Nud::Incomplete => "INCOMPLETE",
            Nud::Reachable => "REACHABLE",
            Nud::Stale => "STALE",
            Nud::Delay => "DELAY",
            Nud::Probe => "PROBE",
            Nud::Failed => "FAILED",
            Nud::Permanent => "PERMANENT",
        }
    }
}

/// A neighbour entry, to be kept by who sends to it often: index and version, so that an entry used anew is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NeighId {
    index: u16,
    version: u16,
}

/// A neighbour as listings show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighEntry {
    /// The interface it is on.
    pub iface: IfaceId,
    /// Its IP address.
    pub addr: IpAddr,
    /// Its MAC address, where that is known.
    pub mac: Option<Mac>,
    /// Its state.
    pub state: Nud,
    /// When it was last sent to.
    pub used: Time,
    /// How many packets wait for it.
    pub waiting: usize,
}

/// What somebody said about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Heard {
    /// Its MAC address; `None` where the message had none (an NA without the option).
    pub mac: Option<Mac>,
    /// It answered a question of ours, so it is reachable.
    pub solicited: bool,
    /// How far it may replace another MAC address.
    pub replace: Replace,
    /// Makes an entry where there is none: it asked us, so we will need it.
    pub create: bool,
}

/// Whether news may replace a known MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Replace {
    /// At once (an NA with the override flag, gratuitous ARP, a request to us).
    Always,
    /// Unless the known one is fresher than a second (ARP replies).
    UnlessFresh,
    /// Never; a reachable entry becomes stale, so that it is asked (an NA without the override flag).
    MarkStale,
}

/// A packet that waits: its frame without Ethernet header, and what it counts as when it goes.
pub(super) struct Waiting<F> {
    pub frame: F,
    pub verdict: Verdict,
}

/// An entry.
pub struct Neigh<F> {
    pub(super) iface: IfaceId,
    pub(super) addr: IpAddr,
    /// Before this moment it may be sent to without further thought.
    pub(super) good_until: Time,
    pub(super) port: PortId,
    /// The Ethernet header but for the type: destination, source, perhaps VLAN tag.
    pub(super) l2: [u8; 16],
    pub(super) l2_len: u8,
    pub(super) version: u16,
    pub(super) state: Nud,
    probes: u8,
    in_use: bool,
    pub(super) used: Time,
    updated: Time,
    confirmed: Time,
    /// When the state's time is up; `None` where it has none.
    deadline: Option<Time>,
    /// The earliest moment at which the timer heap brings the entry up.
    scheduled: Option<Time>,
    pub(super) queue: VecDeque<Waiting<F>>,
}

impl<F> Neigh<F> {
    /// The interface.
    pub fn iface(&self) -> IfaceId {
        self.iface
    }
    /// The IP address.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }
    /// The MAC address, where it is known.
    pub fn mac(&self) -> Option<Mac> {
        self.state.valid().then(|| self.raw_mac())
    }
    /// The state at `now`: reachable entries become stale by the clock alone.
    pub fn state(&self, now: Time) -> Nud {
        match self.state {
            Nud::Reachable if now >= self.good_until => Nud::Stale,
            state => state,
        }
    }
    /// When it was last used.
    pub fn used(&self) -> Time {
        self.used
    }
    /// How many packets wait for it.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The entry as listings show it.
    pub fn entry(&self, now: Time) -> NeighEntry {
        NeighEntry {
            iface: self.iface,
            addr: self.addr,
            mac: self.mac(),
            state: self.state(now),
            used: self.used,
            waiting: self.queue.len(),
        }
    }

    fn raw_mac(&self) -> Mac {
        let mut mac = [0; 6];
        mac.copy_from_slice(&self.l2[..6]);
        mac
    }

    /// Sets the state with all that depends on it.
    fn enter(&mut self, now: Time, state: Nud) {
        self.state = state;
        self.good_until = match state {
            Nud::Permanent => Time(u64::MAX),
            Nud::Reachable => after(self.confirmed, REACHABLE),
            _ => Time(0),
        };
        self.deadline = match state {
            Nud::Incomplete | Nud::Probe => Some(after(now, RETRANS)),
            Nud::Delay => Some(after(now, DELAY)),
            _ => None,
        };
    }
}

fn after(now: Time, span: Time) -> Time {
    Time(now.0.saturating_add(span.0))
}

/// What the owner of the table has to do next about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Ask everybody (ARP broadcast, NS to the solicited-node group).
    Multicast,
    /// Ask it directly at the MAC address known.
    Unicast,
    /// It was asked long enough: what waits is lost.
    GiveUp,
}

/// How a packet may go to a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Send it.
    Send,
    /// Send it; the entry just left `Stale` (other workers' resolver should hear of its use).
    SendStale,
    /// It has to wait; `true` where asking begins now.
    Wait(bool),
}

/// The table of one worker.
pub struct Neighbours<F> {
    slots: Vec<Neigh<F>>,
    index: HashMap<(IfaceId, IpAddr), u16>,
    free: Vec<u16>,
    timers: BinaryHeap<Reverse<(Time, u16)>>,
    max: usize,
    hand: usize,
    /// Packets that wait, at all entries.
    pub(super) waiting: usize,
}

impl<F> Neighbours<F> {
    /// An empty table for at most `max` entries (65,535 at most).
    pub fn new(max: usize) -> Self {
        let max = max.clamp(1, usize::from(u16::MAX));
        Neighbours {
            slots: Vec::with_capacity(max),
            index: HashMap::with_capacity(max),
            free: Vec::with_capacity(max),
            timers: BinaryHeap::with_capacity(max),
            max,
            hand: 0,
            waiting: 0,
        }
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Neigh<F>> {
        self.slots.iter().filter(|n| n.in_use)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The entry's number, where there is one.
    #[inline]
    pub fn find(&self, iface: IfaceId, addr: IpAddr) -> Option<NeighId> {
        let index = *self.index.get(&(iface, addr))?;
        let version = self.slots[usize::from(index)].version;
        Some(NeighId { index, version })
    }

    /// Whether `id` still means the entry it was given for.
    #[inline]
    pub fn current(&self, id: NeighId) -> bool {
        self.slots
            .get(usize::from(id.index))
            .is_some_and(|n| n.version == id.version && n.in_use)
    }

    /// The entry, where `id` still means it.
    #[inline]
    pub fn get(&self, id: NeighId) -> Option<&Neigh<F>> {
        let neigh = self.slots.get(usize::from(id.index))?;
        (neigh.version == id.version && neigh.in_use).then_some(neigh)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: NeighId) -> Option<&mut Neigh<F>> {
        let neigh = self.slots.get_mut(usize::from(id.index))?;
        (neigh.version == id.version && neigh.in_use).then_some(neigh)
    }

    /// The entry for an address on an interface, made in state `Failed` (not asked yet) where there is none. With it what
    /// waited at an entry that had to give way. `None` where the table is full of permanent ones.
    pub(super) fn obtain(
        &mut self,
        iface: &Iface,
        addr: IpAddr,
        now: Time,
    ) -> Option<(NeighId, VecDeque<Waiting<F>>)> {
        if let Some(id) = self.find(iface.id, addr) {
            return Some((id, VecDeque::new()));
        }
        let port = iface.port?;
        let mut lost = VecDeque::new();
        if self.free.is_empty() && self.slots.len() == self.max {
            lost = self.evict(now)?;
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(Neigh {
                    iface: iface.id,
                    addr,
                    good_until: Time(0),
                    port,
                    l2: [0; 16],
                    l2_len: 0,
                    version: 0,
                    state: Nud::Failed,
                    probes: 0,
                    in_use: false,
                    used: now,
                    updated: now,
                    confirmed: now,
                    deadline: None,
                    scheduled: None,
                    queue: VecDeque::new(),
                });
                (self.slots.len() - 1) as u16
            }
        };
        let neigh = &mut self.slots[usize::from(index)];
        neigh.iface = iface.id;
        neigh.addr = addr;
        neigh.port = port;
        neigh.in_use = true;
        neigh.used = now;
        neigh.updated = now;
        neigh.confirmed = now;
        neigh.probes = 0;
        neigh.enter(now, Nud::Failed);
        neigh.l2 = [0; 16];
        neigh.l2[6..12].copy_from_slice(&iface.mac);
        neigh.l2_len = 12;
        if let Some(vid) = iface.vlan {
            neigh.l2[12..14].copy_from_slice(&[0x81, 0x00]);
            neigh.l2[14..16].copy_from_slice(&vid.to_be_bytes());
            neigh.l2_len = 16;
        }
        self.index.insert((iface.id, addr), index);
        let version = neigh.version;
        Some((NeighId { index, version }, lost))
    }

    /// Gives up the least useful of a sample of entries: failed and incomplete ones before valid ones, then by last use.
    /// Returns what waited there, or `None` where the table holds only permanent ones.
    fn evict(&mut self, now: Time) -> Option<VecDeque<Waiting<F>>> {
        let rank = |n: &Neigh<F>| match n.state(now) {
            Nud::Failed => 0,
            Nud::Incomplete => 1,
            Nud::Stale => 2,
            Nud::Reachable | Nud::Delay | Nud::Probe => 3,
            Nud::Permanent => 4,
        };
        let mut best: Option<(u8, Time, usize)> = None;
        for step in 0..self.slots.len() {
            if step >= EVICTION_SAMPLE && best.is_some() {
                break;
            }
            let at = (self.hand + step) % self.slots.len();
            let neigh = &self.slots[at];
            let key = (rank(neigh), neigh.used, at);
            if neigh.in_use && key.0 < 4 && best.is_none_or(|b| key < b) {
                best = Some(key);
            }
        }
        self.hand = (self.hand + EVICTION_SAMPLE) % self.slots.len();
        let (_, _, at) = best?;
        Some(self.release(at))
    }

    fn release(&mut self, at: usize) -> VecDeque<Waiting<F>> {
        let neigh = &mut self.slots[at];
        self.index.remove(&(neigh.iface, neigh.addr));
        neigh.in_use = false;
        neigh.version = neigh.version.wrapping_add(1);
        neigh.deadline = None;
        neigh.good_until = Time(0);
        let lost = std::mem::take(&mut neigh.queue);
        self.waiting -= lost.len();
        self.free.push(at as u16);
        lost
    }

    /// Removes an entry. Returns what waited there.
    pub(super) fn remove(&mut self, iface: IfaceId, addr: IpAddr) -> VecDeque<Waiting<F>> {
        match self.index.get(&(iface, addr)) {
            Some(&index) => self.release(usize::from(index)),
            None => VecDeque::new(),
        }
    }

    /// Removes all entries on an interface. Returns what waited there.
    pub(super) fn remove_iface(&mut self, iface: IfaceId) -> VecDeque<Waiting<F>> {
        let mut lost = VecDeque::new();
        for at in 0..self.slots.len() {
            if self.slots[at].in_use && self.slots[at].iface == iface {
                lost.append(&mut self.release(at));
            }
        }
        lost
    }

    /// Notes that a packet is for this entry, and says how it may go. The slow side of sending: the caller has seen that
    /// `good_until` has passed.
    pub(super) fn consult(&mut self, id: NeighId, now: Time) -> Option<Use> {
        let neigh = self.get_mut(id)?;
        neigh.used = now;
        let answer = match neigh.state {
            Nud::Permanent => Use::Send,
            Nud::Reachable if now < neigh.good_until => Use::Send,
            Nud::Reachable | Nud::Stale => {
                neigh.enter(now, Nud::Delay);
                Use::SendStale
            }
            Nud::Delay | Nud::Probe => Use::Send,
            Nud::Incomplete => Use::Wait(false),
            Nud::Failed => {
                neigh.probes = 1;
                neigh.enter(now, Nud::Incomplete);
                Use::Wait(true)
            }
        };
        self.schedule(id.index);
        Some(answer)
    }

    /// Takes news about a neighbour, by the rules of `neigh_update` (RFC 4861 section 7.2.5, RFC 826). Returns whether the
    /// entry changed or was confirmed.
    pub(super) fn update(&mut self, id: NeighId, now: Time, heard: &Heard) -> bool {
        let Some(neigh) = self.get_mut(id) else {
            return false;
        };
        if neigh.state == Nud::Permanent {
            return false;
        }
        let known = neigh.state.valid().then(|| neigh.raw_mac());
        let mac = match (heard.mac, known) {
            (Some(mac), None) => mac,
            // An NA without address confirms what is known, and means nothing to who knows none.
            (None, Some(known)) => known,
            (None, None) => return false,
            (Some(mac), Some(known)) if mac == known => mac,
            (Some(mac), Some(_)) => match heard.replace {
                Replace::Always => mac,
                Replace::UnlessFresh if now > after(neigh.updated, LOCK) => mac,
                Replace::UnlessFresh => return false,
                Replace::MarkStale => {
                    if neigh.state(now) == Nud::Reachable {
                        neigh.enter(now, Nud::Stale);
                    }
                    return false;
                }
            },
        };
        let moved = known != Some(mac);
        neigh.l2[..6].copy_from_slice(&mac);
        if moved {
            neigh.updated = now;
        }
        if heard.solicited {
            neigh.confirmed = now;
            neigh.enter(now, Nud::Reachable);
        } else if moved {
            neigh.enter(now, Nud::Stale);
        } else {
            // Unasked news that says what is known changes nothing (`neigh_update`: STALE does not replace a state in
            // which the same address counts as connected or is being asked).
            return false;
        }
        neigh.probes = 0;
        self.schedule(id.index);
        true
    }

    /// Sets an entry for good.
    pub(super) fn set_permanent(&mut self, id: NeighId, now: Time, mac: Mac) {
        if let Some(neigh) = self.get_mut(id) {
            neigh.l2[..6].copy_from_slice(&mac);
            neigh.updated = now;
            neigh.enter(now, Nud::Permanent);
        }
    }

    /// Ends asking: the neighbour does not answer.
    pub(super) fn fail(&mut self, id: NeighId, now: Time) -> VecDeque<Waiting<F>> {
        let lost = match self.get_mut(id) {
            Some(neigh) if neigh.state != Nud::Permanent => {
                neigh.enter(now, Nud::Failed);
                std::mem::take(&mut neigh.queue)
            }
            _ => VecDeque::new(),
        };
        self.waiting -= lost.len();
        lost
    }

    /// Whether any timer has run out; cheap enough for every burst.
    #[inline]
    pub(super) fn due(&self, now: Time) -> bool {
        self.timers
            .peek()
            .is_some_and(|Reverse((at, _))| *at <= now)
    }

    /// The next entry whose time is up, with what is to be done; its state has moved on already.
    pub(super) fn expire(&mut self, now: Time) -> Option<(NeighId, Ask)> {
        while self.due(now) {
            let Some(Reverse((at, index))) = self.timers.pop() else {
                break;
            };
            let neigh = &mut self.slots[usize::from(index)];
            if neigh.scheduled != Some(at) {
                continue; // an earlier or later one stands for it
            }
            neigh.scheduled = None;
            let Some(deadline) = neigh.deadline.filter(|_| neigh.in_use) else {
                continue;
            };
            if deadline > now {
                self.schedule(index);
                continue;
            }
            let ask = match neigh.state {
                Nud::Delay => {
                    neigh.probes = 1;
                    neigh.enter(now, Nud::Probe);
                    Ask::Unicast
                }
                Nud::Probe if neigh.probes < PROBES => {
                    neigh.probes += 1;
                    neigh.enter(now, Nud::Probe);
                    Ask::Unicast
                }
                Nud::Incomplete if neigh.probes < PROBES => {
                    neigh.probes += 1;
                    neigh.enter(now, Nud::Incomplete);
                    Ask::Multicast
                }
                _ => Ask::GiveUp,
            };
            let version = neigh.version;
            self.schedule(index);
            return Some((NeighId { index, version }, ask));
        }
        None
    }

    /// Sees to it that the timer heap brings an entry up no later than its deadline. An entry has one live item there.
    fn schedule(&mut self, index: u16) {
        let neigh = &mut self.slots[usize::from(index)];
        let Some(deadline) = neigh.deadline else {
            return;
        };
        if neigh.scheduled.is_none_or(|at| at > deadline) {
            neigh.scheduled = Some(deadline);
            self.timers.push(Reverse((deadline, index)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ip, mac, Bed, ETH0, ETH1};
    use super::super::{NetConfig, NetDelta, Sent};
    use super::*;
    use crate::verdict::{Drop, Held};

    const A: &str = "02:00:00:00:02:0a";
    const B: &str = "02:00:00:00:02:0b";

    fn state(bed: &Bed, addr: &str) -> Option<(Nud, Option<Mac>)> {
        let neigh = bed.net.neighbours().iter().find(|n| n.addr() == ip(addr))?;
        Some((neigh.state(bed.now), neigh.mac()))
    }

    fn hear(bed: &mut Bed, addr: &str, at: &str, solicited: bool, replace: Replace) {
        let heard = Heard {
            mac: Some(mac(at)),
            solicited,
            replace,
            create: false,
        };
        bed.net.hear(bed.now, ETH1, ip(addr), heard, &mut bed.io);
    }

    /// A neighbour that answered just now.
    fn known(addr: &str) -> Bed {
        let mut bed = Bed::new(NetConfig::default());
        assert_eq!(bed.send_to(addr), Sent::Held);
        hear(&mut bed, addr, A, true, Replace::UnlessFresh);
        bed.sent();
        bed
    }

    #[test]
    fn packets_wait_for_the_answer_and_then_go_in_order() {
        for (addr, l2) in [("10.0.0.11", 14 + 28), ("2001:db8:10::11", 14 + 72)] {
            let mut bed = Bed::new(NetConfig::default());
            for _ in 0..3 {
                assert_eq!(bed.send_to(addr), Sent::Held);
            }
            let asked = bed.sent();
            assert_eq!(asked.len(), 1, "one question, however many wait");
            assert_eq!((asked[0].0, asked[0].1.len()), (1, l2));
            assert_eq!(bed.net.counters.held[Held::Neighbour as usize], 3);
            hear(&mut bed, addr, A, true, Replace::UnlessFresh);
            let sent = bed.sent();
            assert_eq!(sent.len(), 3);
            for (port, frame) in sent {
                assert_eq!(port, 1);
                assert_eq!(frame[..12], [mac(A), [2, 0, 0, 0, 0, 2]].concat());
            }
            assert_eq!(state(&bed, addr), Some((Nud::Reachable, Some(mac(A)))));
            assert_eq!(bed.net.counters.held_total(), 0);
            assert!(bed.net.counters.balanced());
        }
    }

    #[test]
    fn the_oldest_of_too_many_waiting_gives_way() {
        let mut bed = Bed::new(NetConfig::default());
        for _ in 0..5 {
            assert_eq!(bed.send_to("10.0.0.11"), Sent::Held);
        }
        assert_eq!(bed.net.counters.held_total(), 3);
        assert_eq!(bed.net.counters.dropped_for(Drop::NeighQueueFull), 2);
    }

    #[test]
    fn all_that_wait_together_are_bounded() {
        let mut bed = Bed::new(NetConfig {
            neigh_waiting_max: 2,
            ..NetConfig::default()
        });
        assert_eq!(bed.send_to("10.0.0.11"), Sent::Held);
        assert_eq!(bed.send_to("10.0.0.12"), Sent::Held);
        assert_eq!(
            bed.send_to("10.0.0.13"),
            Sent::Dropped(Drop::NeighQueueFull)
        );
    }

    #[test]
    fn three_questions_a_second_apart_then_the_sender_hears_of_it() {
        for (addr, from, unreachable) in [
            ("10.0.0.11", "198.18.0.1", [3, 1]),
            ("2001:db8:10::11", "2001:db8:18::1", [1, 3]),
        ] {
            let mut bed = Bed::new(NetConfig::default());
            bed.neigh(ETH0, from, "02:00:00:00:01:01");
            bed.send_to(addr);
            for _ in 0..2 {
                assert_eq!(bed.sent().len(), 1);
                bed.sleep(1);
            }
            assert_eq!(bed.sent().len(), 1, "the third question");
            assert_eq!(state(&bed, addr).unwrap().0, Nud::Incomplete);
            bed.sleep(1);
            assert_eq!(state(&bed, addr), Some((Nud::Failed, None)));
            assert_eq!(bed.net.counters.dropped_for(Drop::NeighFailed), 1);
            let told = bed.sent();
            let icmp_at = if from.contains(':') { 14 + 40 } else { 14 + 20 };
            assert_eq!((told.len(), told[0].0), (1, 0));
            assert_eq!(told[0].1[icmp_at..icmp_at + 2], unreachable);
            assert!(bed.net.counters.balanced());
            bed.send_to(addr);
            assert_eq!(state(&bed, addr).unwrap().0, Nud::Incomplete, "asked anew");
        }
    }

    #[test]
    fn a_neighbour_not_heard_of_for_long_is_asked_itself_when_used() {
        let mut bed = known("10.0.0.11");
        bed.sleep(29);
        assert!(matches!(bed.send_to("10.0.0.11"), Sent::Transmitted(_)));
        assert_eq!(state(&bed, "10.0.0.11").unwrap().0, Nud::Reachable);
        bed.sleep(1);
        assert_eq!(state(&bed, "10.0.0.11").unwrap().0, Nud::Stale);
        bed.sleep(100);
        bed.sent();
        assert!(matches!(bed.send_to("10.0.0.11"), Sent::Transmitted(_)));
        assert_eq!(state(&bed, "10.0.0.11").unwrap().0, Nud::Delay);
        bed.sent();
        bed.sleep(4);
        assert_eq!(bed.sent(), [], "others may confirm it for five seconds");
        for _ in 0..3 {
            bed.sleep(1);
            let probe = bed.sent();
            assert_eq!(probe.len(), 1);
            assert_eq!(probe[0].1[..6], mac(A), "to itself, not to all");
            assert_eq!(state(&bed, "10.0.0.11").unwrap().0, Nud::Probe);
            assert!(matches!(bed.send_to("10.0.0.11"), Sent::Transmitted(_)));
            bed.sent();
        }
        bed.sleep(1);
        assert_eq!(state(&bed, "10.0.0.11"), Some((Nud::Failed, None)));
    }

    #[test]
    fn an_answer_to_a_probe_confirms() {
        let mut bed = known("2001:db8:10::11");
        bed.sleep(31);
        bed.send_to("2001:db8:10::11");
        bed.sleep(5);
        assert_eq!(state(&bed, "2001:db8:10::11").unwrap().0, Nud::Probe);
        let heard = Heard {
            mac: None,
            solicited: true,
            replace: Replace::MarkStale,
            create: false,
        };
        bed.net
            .hear(bed.now, ETH1, ip("2001:db8:10::11"), heard, &mut bed.io);
        let known = Some((Nud::Reachable, Some(mac(A))));
        assert_eq!(state(&bed, "2001:db8:10::11"), known);
        bed.sleep(20);
        assert_eq!(state(&bed, "2001:db8:10::11"), known);
    }

    #[test]
    fn a_moved_mac_address_is_noticed_by_the_rules() {
        struct Row(&'static str, u64, bool, Replace, Nud, &'static str);
        for Row(what, after, solicited, replace, state_then, mac_then) in [
            Row("gratuitous", 0, false, Replace::Always, Nud::Stale, B),
            Row("override", 0, true, Replace::Always, Nud::Reachable, B),
            Row(
                "reply, but fresh",
                1,
                true,
                Replace::UnlessFresh,
                Nud::Reachable,
                A,
            ),
            Row("reply", 2, true, Replace::UnlessFresh, Nud::Reachable, B),
            Row(
                "request of others",
                2,
                false,
                Replace::UnlessFresh,
                Nud::Stale,
                B,
            ),
            Row("no override", 9, true, Replace::MarkStale, Nud::Stale, A),
        ] {
            let mut bed = known("10.0.0.11");
            bed.sleep(after);
            hear(&mut bed, "10.0.0.11", B, solicited, replace);
            assert_eq!(
                state(&bed, "10.0.0.11"),
                Some((state_then, Some(mac(mac_then)))),
                "{what}"
            );
        }
    }

    #[test]
    fn unasked_news_that_is_none_changes_nothing() {
        let mut bed = known("10.0.0.11");
        hear(&mut bed, "10.0.0.11", A, false, Replace::Always);
        assert_eq!(state(&bed, "10.0.0.11").unwrap().0, Nud::Reachable);
        hear(&mut bed, "10.0.0.99", A, true, Replace::Always);
        assert_eq!(state(&bed, "10.0.0.99"), None);
    }

    #[test]
    fn permanent_ones_stay_whatever_is_said_and_however_long() {
        let mut bed = Bed::new(NetConfig::default());
        bed.send_to("10.0.0.11");
        bed.neigh(ETH1, "10.0.0.11", A);
        bed.sent();
        bed.sleep(0);
        assert_eq!(bed.sent().len(), 1, "what waited goes");
        bed.sleep(1_000_000);
        hear(&mut bed, "10.0.0.11", B, true, Replace::Always);
        assert_eq!(
            state(&bed, "10.0.0.11"),
            Some((Nud::Permanent, Some(mac(A))))
        );
        assert!(matches!(bed.send_to("10.0.0.11"), Sent::Transmitted(_)));
        let (iface, addr) = (ETH1, ip("10.0.0.11"));
        bed.net.apply(bed.now, NetDelta::NeighDel { iface, addr });
        assert_eq!(bed.send_to("10.0.0.11"), Sent::Held);
    }

    #[test]
    fn a_full_table_gives_up_the_least_useful_and_never_a_permanent_one() {
        let mut bed = Bed::new(NetConfig {
            neigh_max: 3,
            ..NetConfig::default()
        });
        bed.neigh(ETH1, "10.0.0.1", A);
        bed.send_to("10.0.0.2");
        hear(&mut bed, "10.0.0.2", A, true, Replace::Always);
        bed.send_to("10.0.0.3");
        let hit = bed.net.route(ip("10.0.0.3"), None).unwrap();
        let id = bed.net.neigh_for(bed.now, &hit).unwrap();
        assert!(bed.net.neigh_current(id));
        assert_eq!(bed.send_to("10.0.0.4"), Sent::Held);
        assert_eq!(bed.net.neighbours().len(), 3);
        assert_eq!(state(&bed, "10.0.0.3"), None, "was incomplete");
        assert!(!bed.net.neigh_current(id));
        assert_eq!(bed.net.counters.dropped_for(Drop::NeighGone), 1);
        assert!(state(&bed, "10.0.0.2").is_some() && state(&bed, "10.0.0.1").is_some());
        bed.neigh(ETH1, "10.0.0.5", A);
        bed.neigh(ETH1, "10.0.0.6", A);
        assert_eq!(bed.send_to("10.0.0.9"), Sent::Dropped(Drop::NeighTableFull));
        assert!(bed.net.counters.balanced());
    }

    #[test]
    fn a_cached_neighbour_is_sent_to_in_every_state() {
        use ripvs_packet::memory::MemFrame;
        let mut bed = known("10.0.0.11");
        let hit = bed.net.route(ip("10.0.0.11"), None).unwrap();
        let id = bed.net.neigh_for(bed.now, &hit).unwrap();
        let packet = super::super::testing::udp(ip("198.18.0.1"), ip("10.0.0.11"), 3);
        for wait in [0, 40, 6, 100] {
            bed.sleep(wait);
            bed.sent();
            bed.net.counters.received += 1;
            // Room before the packet for too much, and for too little.
            for l3 in [0, 14, 18, 60] {
                let bytes = [&vec![0; l3][..], &packet].concat();
                let frame = MemFrame::new(&bytes);
                bed.net.send_cached(bed.now, frame, l3, id, &mut bed.io);
            }
            for (_, frame) in bed.sent().iter().filter(|(_, f)| f[12] == 8 && f[13] == 0) {
                let l2 = [&mac(A)[..], &[2, 0, 0, 0, 0, 2, 8, 0]].concat();
                assert_eq!(*frame, [l2, packet.clone()].concat());
            }
        }
        let (iface, addr) = (ETH1, ip("10.0.0.11"));
        bed.net.apply(bed.now, NetDelta::NeighDel { iface, addr });
        let gone = bed
            .net
            .send_cached(bed.now, MemFrame::new(&packet), 0, id, &mut bed.io);
        assert_eq!(gone, Sent::Dropped(Drop::NeighGone));
    }

    #[test]
    fn timers_do_not_pile_up() {
        let mut bed = known("10.0.0.11");
        for _ in 0..1000 {
            bed.sleep(31);
            bed.send_to("10.0.0.11");
            hear(&mut bed, "10.0.0.11", A, true, Replace::Always);
        }
        assert!(bed.net.neighbours().timers.len() < 10);
    }
}
