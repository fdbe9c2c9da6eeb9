//! The way out: puts the Ethernet header of the next hop before an IP packet and sends it, or keeps the packet until the
//! neighbour is known. Also what happens when time passes, or news comes, for those that wait.

use std::collections::VecDeque;
use std::net::IpAddr;

use ripvs_packet::{Frame, PacketIo, PortId};

use super::control::NetMsg;
use super::icmp::{IcmpKind, Offender};
use super::neigh::{Ask, Heard, NeighId, Nud, Replace, Use, Waiting};
use super::route::RouteHit;
use super::{Net, Outcome};
use crate::types::{IfaceId, Time};
use crate::verdict::{Drop, Held, Verdict};

/// What became of a frame that was to be sent. It is counted already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is with the device, and was counted so.
    Transmitted(Verdict),
    /// It waits for the neighbour's MAC address.
    Held,
    /// It is gone.
    Dropped(Drop),
}

impl From<Sent> for Outcome {
    fn from(sent: Sent) -> Outcome {
        match sent {
            Sent::Transmitted(verdict) => Outcome::Done(verdict),
            Sent::Held => Outcome::Held,
            Sent::Dropped(reason) => Outcome::Done(Verdict::Dropped(reason)),
        }
    }
}

/// Neighbour timers handled in one tick.
const TIMERS_PER_TICK: usize = 64;

/// Length of an Ethernet header without its type.
pub(crate) const UNTAGGED: usize = 12;
/// The same with a VLAN tag.
const TAGGED: usize = 16;

/// The EtherType of the IP packet that begins with this byte.
fn ethertype(first: u8) -> [u8; 2] {
    match first >> 4 {
        6 => [0x86, 0xdd],
        _ => [0x08, 0x00],
    }
}

/// Makes the frame begin with this Ethernet header (without type), then the type, then what begins `l3` bytes into it now.
#[inline]
pub(crate) fn encapsulate<F: Frame>(frame: &mut F, l3: usize, l2: &[u8]) -> Result<(), Drop> {
    let Some(&first) = frame.head().get(l3) else {
        return Err(Drop::Runt);
    };
    let need = l2.len() + 2;
    let fits = match need.cmp(&l3) {
        std::cmp::Ordering::Equal => true,
        std::cmp::Ordering::Less => frame.trim_front(l3 - need),
        std::cmp::Ordering::Greater => frame.prepend(need - l3),
    };
    if !fits {
        return Err(Drop::NoHeadroom);
    }
    let head = frame.head_mut();
    // Lengths that the compiler knows make a copy a few instructions.
    match (l2.first_chunk::<TAGGED>(), l2.first_chunk::<UNTAGGED>()) {
        (Some(l2), _) => head[..TAGGED].copy_from_slice(l2),
        (None, Some(l2)) => head[..UNTAGGED].copy_from_slice(l2),
        (None, None) => return Err(Drop::Runt),
    }
    head[need - 2..need].copy_from_slice(&ethertype(first));
    Ok(())
}

impl<F: Frame> Net<F> {
    /// Sends the IP packet that begins `l3` bytes into the frame by this way; what is before it is replaced. No length is
    /// checked against the MTU and no TTL touched here. Counts the frame as forwarded, held or dropped.
    pub fn send_l3<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        frame: F,
        l3: usize,
        hit: &RouteHit,
        io: &mut IO,
    ) -> Sent {
        self.send_as(now, frame, l3, hit, Verdict::Forwarded, io)
    }

    /// The neighbour to send to by this way, for [`Net::send_cached`]: to be looked up again when [`Net::neigh_current`] or
    /// [`Net::generation`] says so. `None` where the destination is local or there is no room for another neighbour.
    pub fn neigh_for(&mut self, now: Time, hit: &RouteHit) -> Option<NeighId> {
        if let Some(id) = self.neighs.find(hit.iface, hit.next_hop) {
            return Some(id);
        }
        let iface = self.ifaces.get(hit.iface).filter(|_| !hit.local)?;
        let (id, lost) = self.neighs.obtain(iface, hit.next_hop, now)?;
        self.lose(lost, Drop::NeighGone);
        Some(id)
    }

    /// Whether a neighbour kept from before may still be sent to by that number.
    #[inline]
    pub fn neigh_current(&self, id: NeighId) -> bool {
        self.neighs.current(id)
    }

    /// Begins to fetch what [`Net::neigh_usual`] needs.
    #[inline]
    pub(crate) fn prefetch_neigh(&self, id: NeighId) {
        self.neighs.prefetch(id);
    }

    /// The port and the Ethernet header, but for the type, of a neighbour that may be sent to without further thought; it
    /// counts as used then.
    pub(crate) fn neigh_usual(&mut self, id: NeighId, now: Time) -> Option<(PortId, &[u8])> {
        let neigh = self.neighs.get_mut(id).filter(|n| now < n.good_until)?;
        neigh.used = now;
        Some((neigh.port, &neigh.l2[..usize::from(neigh.l2_len)]))
    }

    /// As [`Net::send_l3`], to a neighbour looked up before: one comparison where it is reachable. Where the number is no
    /// longer current the frame is dropped (`neigh-gone`), so ask [`Net::neigh_current`] first.
    #[inline]
    pub fn send_cached<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        mut frame: F,
        l3: usize,
        id: NeighId,
        io: &mut IO,
    ) -> Sent {
        match self.neighs.get_mut(id) {
            Some(neigh) if now < neigh.good_until => {
                neigh.used = now;
                let l2 = &neigh.l2[..usize::from(neigh.l2_len)];
                match encapsulate(&mut frame, l3, l2) {
                    Ok(()) => {
                        self.counters.forwarded += 1;
                        io.transmit(neigh.port, frame);
                        Sent::Transmitted(Verdict::Forwarded)
                    }
                    Err(reason) => self.drop_sent(frame, reason),
                }
            }
            _ => self.send_slowly(now, frame, l3, id, Verdict::Forwarded, io),
        }
    }

    /// As [`Net::send_l3`], counted as `verdict` when it goes.
    pub(super) fn send_as<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        frame: F,
        l3: usize,
        hit: &RouteHit,
        verdict: Verdict,
        io: &mut IO,
    ) -> Sent {
        if hit.local {
            return self.drop_sent(frame, Drop::HostNoCompanion);
        }
        match self.ifaces.get(hit.iface) {
            Some(iface) if iface.up => {}
            _ => return self.drop_sent(frame, Drop::IfaceDown),
        }
        match self.neigh_for(now, hit) {
            Some(id) => self.send_slowly(now, frame, l3, id, verdict, io),
            None => self.drop_sent(frame, Drop::NeighTableFull),
        }
    }

    fn drop_sent(&mut self, frame: F, reason: Drop) -> Sent {
        drop(frame);
        self.counters.done(Verdict::Dropped(reason));
        Sent::Dropped(reason)
    }

    fn send_slowly<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        mut frame: F,
        l3: usize,
        id: NeighId,
        verdict: Verdict,
        io: &mut IO,
    ) -> Sent {
        let Some(way) = self.neighs.consult(id, now) else {
            return self.drop_sent(frame, Drop::NeighGone);
        };
        if let Use::Wait(begin) = way {
            let sent = self.wait(frame, l3, id, verdict);
            if begin {
                self.ask(id, Ask::Multicast, io);
            }
            return sent;
        }
        let Some(neigh) = self.neighs.get(id) else {
            return self.drop_sent(frame, Drop::NeighGone);
        };
        let (port, iface, addr) = (neigh.port, neigh.iface, neigh.addr);
        let sent = match encapsulate(&mut frame, l3, &neigh.l2[..usize::from(neigh.l2_len)]) {
            Ok(()) => {
                self.counters.done(verdict);
                io.transmit(port, frame);
                Sent::Transmitted(verdict)
            }
            Err(reason) => self.drop_sent(frame, reason),
        };
        if way == Use::SendStale && !self.config.resolver {
            self.post(NetMsg::Resolve { iface, addr });
        }
        sent
    }

    /// Keeps a frame until its neighbour is known. The oldest one there gives way where the neighbour's queue is full.
    fn wait(&mut self, mut frame: F, l3: usize, id: NeighId, verdict: Verdict) -> Sent {
        let full = self.neighs.waiting >= self.config.neigh_waiting_max;
        let most = self.config.neigh_queue;
        let room = !full && most > 0 && frame.trim_front(l3);
        let Some(neigh) = self.neighs.get_mut(id).filter(|_| room) else {
            return self.drop_sent(frame, Drop::NeighQueueFull);
        };
        let mut oldest = None;
        if neigh.queue.len() >= most {
            oldest = neigh.queue.pop_front();
        }
        neigh.queue.push_back(Waiting { frame, verdict });
        self.neighs.waiting += 1;
        self.counters.hold(Held::Neighbour);
        if oldest.is_some() {
            self.neighs.waiting -= 1;
            self.counters.release(Held::Neighbour);
            self.counters.done(Verdict::Dropped(Drop::NeighQueueFull));
        }
        Sent::Held
    }

    /// Sends what waited for a neighbour that is known now.
    pub(super) fn flush<IO: PacketIo<Frame = F>>(&mut self, id: NeighId, io: &mut IO) {
        let Some(neigh) = self.neighs.get_mut(id).filter(|n| n.state.valid()) else {
            return;
        };
        let (port, l2, l2_len) = (neigh.port, neigh.l2, usize::from(neigh.l2_len));
        let mut queue = std::mem::take(&mut neigh.queue);
        self.neighs.waiting -= queue.len();
        for mut waiting in queue.drain(..) {
            self.counters.release(Held::Neighbour);
            match encapsulate(&mut waiting.frame, 0, &l2[..l2_len]) {
                Ok(()) => {
                    self.counters.done(waiting.verdict);
                    io.transmit(port, waiting.frame);
                }
                Err(reason) => self.counters.done(Verdict::Dropped(reason)),
            }
        }
    }

    /// Drops what waited at an entry that is gone.
    pub(super) fn lose(&mut self, lost: VecDeque<Waiting<F>>, reason: Drop) {
        for _ in lost {
            self.counters.release(Held::Neighbour);
            self.counters.done(Verdict::Dropped(reason));
        }
    }

    /// Drops what waited for a neighbour that did not answer, and tells the senders of what was to be forwarded.
    fn give_up<IO: PacketIo<Frame = F>>(&mut self, now: Time, id: NeighId, io: &mut IO) {
        for waiting in self.neighs.fail(id, now) {
            self.counters.release(Held::Neighbour);
            self.counters.done(Verdict::Dropped(Drop::NeighFailed));
            if waiting.verdict == Verdict::Forwarded {
                let about = Offender::new(&waiting.frame, 0).rewritten();
                self.icmp_error(now, about, IcmpKind::HostUnreachable, io);
            }
        }
    }

    /// Takes news about a neighbour: the resolver into its table and on to the others, another worker to the resolver.
    pub(super) fn hear<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        iface: IfaceId,
        addr: IpAddr,
        heard: Heard,
        io: &mut IO,
    ) {
        if !self.config.resolver {
            self.post(NetMsg::Heard { iface, addr, heard });
            return;
        }
        let id = match self.neighs.find(iface, addr) {
            Some(id) => id,
            None if heard.create => {
                let Some((id, lost)) = self
                    .ifaces
                    .get(iface)
                    .and_then(|iface| self.neighs.obtain(iface, addr, now))
                else {
                    return;
                };
                self.lose(lost, Drop::NeighGone);
                id
            }
            None => return,
        };
        if self.neighs.update(id, now, &heard) {
            self.flush(id, io);
            self.tell(now, id);
        }
    }

    /// Tells the other workers what is known of a neighbour.
    fn tell(&mut self, now: Time, id: NeighId) {
        let Some(neigh) = self.neighs.get(id) else {
            return;
        };
        if let Some(mac) = neigh.mac() {
            let msg = NetMsg::Learned {
                iface: neigh.iface,
                addr: neigh.addr,
                mac,
                reachable: neigh.state(now) == Nud::Reachable,
            };
            self.post(msg);
        }
    }

    /// Takes a message of another worker's.
    pub fn handle<IO: PacketIo<Frame = F>>(&mut self, now: Time, msg: NetMsg, io: &mut IO) {
        match msg {
            NetMsg::Resolve { iface, addr } => {
                let hit = RouteHit {
                    iface,
                    next_hop: addr,
                    mtu: 0,
                    local: false,
                };
                let Some(id) = self.neigh_for(now, &hit) else {
                    return;
                };
                match self.neighs.consult(id, now) {
                    Some(Use::Wait(true)) => self.ask(id, Ask::Multicast, io),
                    Some(Use::Send | Use::SendStale) => self.tell(now, id),
                    Some(Use::Wait(false)) | None => {}
                }
            }
            NetMsg::Heard { iface, addr, heard } => self.hear(now, iface, addr, heard, io),
            NetMsg::Learned {
                iface,
                addr,
                mac,
                reachable,
            } => {
                let heard = Heard {
                    mac: Some(mac),
                    solicited: reachable,
                    replace: Replace::Always,
                    create: false,
                };
                if let Some(id) = self.neighs.find(iface, addr) {
                    if self.neighs.update(id, now, &heard) {
                        self.flush(id, io);
                    }
                }
            }
            NetMsg::Failed { iface, addr } => {
                if let Some(id) = self.neighs.find(iface, addr) {
                    self.give_up(now, id, io);
                }
            }
        }
    }

    /// Does what is due: asks for neighbours again or gives them up, announces addresses. Bounded work; costs two
    /// comparisons where nothing is due.
    pub fn tick<IO: PacketIo<Frame = F>>(&mut self, now: Time, io: &mut IO) {
        while let Some(id) = self.to_flush.pop() {
            self.flush(id, io);
        }
        for _ in 0..TIMERS_PER_TICK {
            match self.neighs.expire(now) {
                None => break,
                Some((id, Ask::GiveUp)) => {
                    if let Some(neigh) = self.neighs.get(id).filter(|_| self.config.resolver) {
                        let (iface, addr) = (neigh.iface, neigh.addr);
                        self.post(NetMsg::Failed { iface, addr });
                    }
                    self.give_up(now, id, io);
                }
                Some((id, ask)) => self.ask(id, ask, io),
            }
        }
        self.announce_due(now, io);
    }

    /// Asks for a neighbour, or has the resolver do it.
    fn ask<IO: PacketIo<Frame = F>>(&mut self, id: NeighId, ask: Ask, io: &mut IO) {
        let Some(neigh) = self.neighs.get(id) else {
            return;
        };
        let (iface, addr) = (neigh.iface, neigh.addr);
        if !self.config.resolver {
            self.post(NetMsg::Resolve { iface, addr });
            return;
        }
        let at = neigh.mac().filter(|_| ask == Ask::Unicast);
        match addr {
            IpAddr::V4(addr) => self.arp_ask(iface, addr, at, io),
            IpAddr::V6(addr) => self.nd_ask(iface, addr, at, io),
        }
    }

    /// Sends a frame of our own making that has its Ethernet header already.
    pub(super) fn emit<IO: PacketIo<Frame = F>>(
        &mut self,
        port: PortId,
        frame: &[u8],
        io: &mut IO,
    ) {
        self.counters.generated += 1;
        match io.alloc(frame) {
            Some(frame) => {
                self.counters.forwarded += 1;
                io.transmit(port, frame);
            }
            None => self.counters.done(Verdict::Dropped(Drop::NoMemory)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ip, mac, Bed, ETH1};
    use super::super::NetConfig;
    use super::*;

    /// A resolver and another worker, with what they have to say to each other.
    fn two() -> [Bed; 2] {
        [true, false].map(|resolver| {
            Bed::new(NetConfig {
                resolver,
                ..NetConfig::default()
            })
        })
    }

    /// Carries messages until there are none. Returns how many there were.
    fn talk([resolver, other]: &mut [Bed; 2]) -> usize {
        let mut count = 0;
        loop {
            let (from, to) = match (resolver.net.take_msg(), other.net.take_msg()) {
                (None, None) => return count,
                (Some(msg), _) => {
                    assert!(!msg.for_resolver());
                    (msg, &mut *other)
                }
                (_, Some(msg)) => {
                    assert!(msg.for_resolver());
                    (msg, &mut *resolver)
                }
            };
            to.net.handle(to.now, from, &mut to.io);
            to.pass_own_errors();
            count += 1;
        }
    }

    fn answer(bed: &mut Bed, addr: &str) {
        let heard = Heard {
            mac: Some(mac("02:00:00:00:02:0a")),
            solicited: true,
            replace: Replace::UnlessFresh,
            create: false,
        };
        bed.net.hear(bed.now, ETH1, ip(addr), heard, &mut bed.io);
    }

    #[test]
    fn with_several_workers_one_asks_and_all_learn() {
        for heard_by in [0, 1] {
            let mut beds = two();
            assert_eq!(beds[1].send_to("10.0.0.11"), Sent::Held);
            assert_eq!(beds[1].sent(), [], "another than the resolver asks nobody");
            assert_eq!(talk(&mut beds), 1);
            assert_eq!(beds[0].sent().len(), 1);
            answer(&mut beds[heard_by], "10.0.0.11");
            talk(&mut beds);
            assert_eq!(beds[1].sent().len(), 1);
            assert!(matches!(beds[1].send_to("10.0.0.11"), Sent::Transmitted(_)));
            assert!(matches!(beds[0].send_to("10.0.0.11"), Sent::Transmitted(_)));
            assert_eq!(talk(&mut beds), 0);
        }
    }

    #[test]
    fn use_by_another_worker_keeps_a_neighbour_confirmed() {
        let mut beds = two();
        beds[1].send_to("10.0.0.11");
        talk(&mut beds);
        answer(&mut beds[0], "10.0.0.11");
        talk(&mut beds);
        beds.iter_mut().for_each(|bed| bed.sleep(31));
        beds[0].sent();
        assert!(matches!(beds[1].send_to("10.0.0.11"), Sent::Transmitted(_)));
        talk(&mut beds);
        beds.iter_mut().for_each(|bed| bed.sleep(5));
        talk(&mut beds);
        assert_eq!(beds[0].sent().len(), 1, "the resolver probes");
        answer(&mut beds[0], "10.0.0.11");
        talk(&mut beds);
        let entry = beds[1].net.neigh_entries(beds[1].now)[0];
        assert_eq!(entry.state, Nud::Reachable);
    }

    #[test]
    fn all_give_up_a_neighbour_that_does_not_answer() {
        let mut beds = two();
        beds[1].send_to("10.0.0.11");
        for _ in 0..4 {
            talk(&mut beds);
            beds.iter_mut().for_each(|bed| bed.sleep(1));
        }
        talk(&mut beds);
        let counters = &beds[1].net.counters;
        assert_eq!(counters.dropped_for(Drop::NeighFailed), 1);
        assert!(counters.balanced());
        assert_eq!(beds[0].net.neigh_entries(beds[0].now)[0].state, Nud::Failed);
    }

    #[test]
    fn no_memory_and_no_headroom_are_counted_drops() {
        use ripvs_packet::memory::MemFrame;
        let mut bed = Bed::new(NetConfig::default());
        bed.io.allocs_left = Some(0);
        assert_eq!(bed.send_to("10.0.0.11"), Sent::Held);
        assert_eq!(bed.net.counters.dropped_for(Drop::NoMemory), 1);
        assert!(bed.net.counters.balanced());
        bed.neigh(ETH1, "10.0.0.12", "02:00:00:00:02:0a");
        let packet = super::super::testing::udp(ip("198.18.0.1"), ip("10.0.0.12"), 3);
        let hit = bed.net.route(ip("10.0.0.12"), None).unwrap();
        for (frame, reason) in [
            (MemFrame::with_segments(&[&packet], 13), Drop::NoHeadroom),
            (MemFrame::new(&[]), Drop::Runt),
        ] {
            let sent = bed.net.send_l3(bed.now, frame, 0, &hit, &mut bed.io);
            assert_eq!(sent, Sent::Dropped(reason));
        }
    }
}
