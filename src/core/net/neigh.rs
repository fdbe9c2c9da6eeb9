//! Neighbours: which MAC address an IP address on a link has, by the states of the kernel's NUD (RFC 4861 section 7.3), and
//! the few packets that wait to learn it. Owns the table and its timers; what is sent to ask is `arp`'s and `nd`'s.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::IpAddr;

use hashbrown::HashMap;
use ripvs_arch::prefetch_read;
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

    /// Begins to fetch what it takes to send to a neighbour.
    #[inline]
    pub(super) fn prefetch(&self, id: NeighId) {
        if let Some(neigh) = self.slots.get(usize::from(id.index)) {
            prefetch_read(&neigh.version);
            prefetch_read(&neigh.good_until);
            prefetch_read(&neigh.l2);
        }
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
mod tests;
