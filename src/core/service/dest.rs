//! Real servers at one worker: joining and leaving a service, the connections they are charged with, what is known of the way
//! to them. Which service a packet belongs to is `mod.rs`'s.

use std::net::IpAddr;
use std::sync::Arc;

use ripvs_arch::prefetch_read;

use super::ready::NewDest;
use super::{forget, protocol, Services};
use crate::hop::HopNumber;
use crate::ledger::Account;
use crate::message::Load;
use crate::recent::InIp;
use crate::sched::{Member, Slot};
use crate::spec::{DestSpec, Forward, ServiceKey};
use crate::types::{DestId, ServiceId, WorkerId};

#[cfg_attr(test, derive(Debug))]
/// A real server at one worker: a cache line. It outlives its removal for as long as connections refer to it.
#[repr(align(64))]
pub struct Dest {
    /// What the operator said.
    pub spec: Arc<DestSpec>,
    /// The service it is or last was in.
    pub service: ServiceId,
    /// The address of that service; none where it is one by mark.
    pub(crate) vaddr: Option<IpAddr>,
    /// Whether it is in its service at present (the kernel's flag AVAILABLE).
    pub available: bool,
    /// The kernel's flag OVERLOAD: reached the upper threshold and has not come below the lower one since.
    pub overloaded: bool,
    /// Connections it is charged with here: those that this worker scheduled, and what others told of theirs.
    pub loads: Loads,
    /// Where it is, or was, among its service's dests.
    slot: Slot,
    /// How packets reach it; the same in `spec`.
    pub forward: Forward,
    /// Whether it has a threshold.
    limited: bool,
    /// Who else counts them: was told how many there are, and is told of each change.
    told: Option<WorkerId>,
    /// When it was added to the dests under NAT, in their order.
    added: u64,
}

/// How many connections a dest is charged with, as schedulers and thresholds see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loads {
    /// Active ones.
    pub active: u32,
    /// The others.
    pub inactive: u32,
}

/// What a dest was when it came.
#[derive(Default)]
pub(super) struct Entered {
    /// Whether its addresses were not counted yet.
    pub(super) new: bool,
    pub(super) loads: Loads,
    pub(super) overloaded: bool,
    pub(super) told: Option<WorkerId>,
}

impl Services {
    /// Adds a dest to a service, at the head of the kernel's list. One that was removed and is still referred to comes
    /// back under its old id with its connections.
    pub fn add_dest(
        &mut self,
        service: ServiceId,
        id: DestId,
        spec: Arc<DestSpec>,
        account: Account,
    ) {
        let share = self.share;
        let key = self.get(service).map(|service| service.spec.key);
        let mut dest = NewDest::new(id, spec.clone(), &account);
        self.ledger.take(&account);
        let entered = self.enter(service, key.as_ref(), &mut dest);
        let vaddr = key.and_then(|key| key.addr());
        self.hold(vaddr, 0, isize::from(entered.new));
        let Some(entry) = self.get_mut(service) else {
            return;
        };
        entry.group.add(Member {
            active: entered.loads.active,
            inactive: entered.loads.inactive,
            overloaded: entered.overloaded,
            ..Member::new(id, spec.addr, spec.port, spec.weight)
        });
        entry.limited += usize::from(spec.upper > 0);
        entry.set_share(share);
        if spec.forward == Forward::Masq {
            self.track(service);
        }
        self.recount(service);
        self.tell(id);
    }

    /// Enters a dest of a service, whose account is taken in, into the tables, in place of the one that it was, of which the
    /// settings are left in `new`. To count it with those who know the virtual address, and to put it into its service, is the caller's part.
    pub(super) fn enter(
        &mut self,
        service: ServiceId,
        key: Option<&ServiceKey>,
        new: &mut NewDest,
    ) -> Entered {
        let mut entered = Entered::default();
        let Some(spec) = new.spec.take() else {
            return entered;
        };
        self.v6_met |= new.addr.is_ipv6();
        let vaddr = key.and_then(ServiceKey::addr);
        if let Some(old) = self.dests.get(new.id.0) {
            entered.loads = old.loads;
            entered.overloaded = old.overloaded && new.upper != 0;
            entered.told = old.told;
            let was_in = old.service;
            if let Some(line) = self.ledger.line(new.id) {
                line.recent.set_available(true);
                line.recent.set_tunnel(new.tunnel);
                line.tally.set_hop(HopNumber::default());
            }
            // One that comes back has the address that it had, which is counted already.
            if old.vaddr == vaddr {
                if let Some(service) = self.get_mut(was_in) {
                    service.left.remove(&new.id);
                }
            } else {
                self.forget_dest(new.id);
                entered.new = true;
            }
        } else {
            entered.new = true;
        }
        if entered.new {
            self.dest_addrs.change(new.addr, |count| *count += 1);
        }
        let way = matches!(new.forward, Forward::Masq | Forward::Tunnel).then(|| spec.clone());
        let dest = Dest {
            spec,
            service,
            vaddr,
            available: true,
            overloaded: entered.overloaded,
            loads: entered.loads,
            slot: Slot::default(),
            forward: new.forward,
            limited: new.limited,
            told: entered.told,
            added: 0,
        };
        new.spec = self.dests.put(new.id.0, dest).map(|old| old.spec);
        if let (Some(key), Some(spec)) = (key, way) {
            self.note_way(key, new.id, &spec);
        }
        entered
    }

    /// Changes weight, thresholds, forwarding and tunnel of a dest. Its connections keep their way of forwarding.
    pub fn edit_dest(&mut self, id: DestId, spec: Arc<DestSpec>) {
        let share = self.share;
        let Some(dest) = self.dest_mut(id) else {
            return;
        };
        let old = std::mem::replace(&mut dest.spec, spec.clone());
        dest.forward = spec.forward;
        dest.limited = spec.upper > 0 || spec.lower > 0;
        // As the kernel: a threshold raised or taken away ends the overload at once.
        if spec.upper == 0 || spec.upper > old.upper {
            dest.overloaded = false;
        }
        let (service, overloaded) = (dest.service, dest.overloaded);
        if let Some(line) = self.ledger.line(id) {
            line.recent.set_tunnel(InIp::of(&spec));
        }
        let Some(entry) = self.get_mut(service) else {
            return;
        };
        entry.limited = entry.limited + usize::from(spec.upper > 0) - usize::from(old.upper > 0);
        entry.set_share(share);
        entry.group.edit(id, spec.weight);
        entry.group.set_overloaded(id, overloaded);
        let key = entry.spec.key;
        // One that stays what it was keeps its place.
        if (old.forward, old.tunnel) != (spec.forward, spec.tunnel) {
            self.forget_way(id, &old);
            self.note_way(&key, id, &spec);
        }
        if spec.forward == Forward::Masq {
            self.track(service);
        }
        self.recount(service);
    }

    /// Takes a dest out of its service. Its record stays for the connections that refer to it.
    pub fn remove_dest(&mut self, id: DestId) {
        let share = self.share;
        let Some(service) = self.suspend(id) else {
            return;
        };
        let limited = self.dest(id).is_some_and(|dest| dest.spec.upper > 0);
        let Some(entry) = self.get_mut(service) else {
            return;
        };
        entry.limited -= usize::from(limited);
        entry.set_share(share);
        entry.group.remove(id);
        entry.left.insert(id, ());
        self.recount(service);
    }

    /// Notes that a dest is in its service no more, which is returned.
    pub(super) fn suspend(&mut self, id: DestId) -> Option<ServiceId> {
        let dest = self.dest_mut(id).filter(|dest| dest.available)?;
        dest.available = false;
        let noted = matches!(dest.forward, Forward::Masq | Forward::Tunnel);
        let (service, spec) = (dest.service, noted.then(|| dest.spec.clone()));
        if let Some(line) = self.ledger.line(id) {
            line.recent.set_available(false);
        }
        if let Some(spec) = spec {
            self.forget_way(id, &spec);
        }
        Some(service)
    }

    /// Finds out anew who counts a service's connections; where that is another worker now, its dests' are told there.
    pub(super) fn recount(&mut self, id: ServiceId) {
        let Some(service) = self.get(id) else { return };
        let counted_at = self
            .owners
            .filter(|_| service.central())
            .map(|owners| owners.of_service(&service.spec.key))
            .filter(|chooser| chooser.0 != self.share.0);
        let Some(service) = self.get_mut(id) else {
            return;
        };
        let before = std::mem::replace(&mut service.counted_at, counted_at);
        service.see_whether_plain();
        if before == counted_at {
            return;
        }
        let members = service.group.pool().iter().map(|(_, member)| member.id);
        let dests: Vec<DestId> = members
            .chain(service.left.iter().map(|(id, ())| *id))
            .collect();
        for dest in dests {
            self.tell(dest);
        }
    }

    /// Lets the connections of a dest count where its service's do.
    pub(super) fn tell(&mut self, id: DestId) {
        let Some(dest) = self.dest(id) else { return };
        let Some(service) = self.get(dest.service) else {
            return;
        };
        let (told, wanted, loads) = (dest.told, service.counted_at, dest.loads);
        if told == wanted {
            return;
        }
        let (active, inactive) = (loads.active as i32, loads.inactive as i32);
        for (to, sign) in [(told, -1), (wanted, 1)] {
            if let Some(to) = to {
                let load = Load {
                    dest: id,
                    active: sign * active,
                    inactive: sign * inactive,
                    bound: None,
                };
                self.reports.push_back((to, load));
            }
        }
        if let Some(dest) = self.dest_mut(id) {
            dest.told = wanted;
        }
    }

    /// A change that another worker is to be told of.
    pub(crate) fn take_report(&mut self) -> Option<(WorkerId, Load)> {
        self.reports.pop_front()
    }

    /// Lets go of a removed dest that nothing refers to any more, which is returned.
    pub fn free_dest(&mut self, id: DestId) -> Option<Dest> {
        if self.dest(id).is_none_or(|dest| dest.available) {
            return None;
        }
        self.forget_dest(id)
    }

    /// Takes a dest out of the table, and out of what is known of addresses.
    fn forget_dest(&mut self, id: DestId) -> Option<Dest> {
        let dest = self.dests.take(id.0)?;
        self.hold(dest.vaddr, 0, -1);
        forget(&mut self.dest_addrs, &dest.spec.addr);
        if let Some(service) = self.get_mut(dest.service) {
            service.left.remove(&id);
        }
        Some(dest)
    }

    /// Begins to fetch what it takes to charge these dests, or to take back a charge.
    pub(crate) fn foresee_charges(&self, dests: impl Iterator<Item = DestId> + Clone) {
        for id in dests.clone() {
            if let Some(place) = self.dests.place(id.0) {
                prefetch_read(place);
            }
            self.ledger.prefetch(id);
        }
        for dest in dests.filter_map(|id| self.dest(id)) {
            if let Some(service) = self.get(dest.service) {
                service.group.prefetch(dest.slot);
            }
        }
    }

    /// Begins to fetch what the next connection of a service will most likely need of its dest.
    #[inline]
    pub(crate) fn foresee_pick(&self, service: ServiceId) {
        if !self.ledger.is_large() {
            return;
        }
        let guess = self.get(service).and_then(|service| service.group.guess());
        if let Some(id) = guess {
            if let Some(place) = self.dests.place(id.0) {
                prefetch_read(place);
            }
            self.ledger.prefetch(id);
        }
    }

    /// Changes the number of connections that a dest is charged with, and tells the scheduler, here and where else they are
    /// counted. The kernel's rules for the
    /// overload flag (`ip_vs_bind_dest`, `ip_vs_unbind_dest`) apply where `bound` says that a connection was added
    /// (`Some(true)`) or has gone (`Some(false)`); a change between active and inactive has no effect on it.
    pub fn charge(&mut self, load: Load) {
        let Load {
            dest: id,
            active,
            inactive,
            bound,
        } = load;
        let Some(dest) = self.dests.get_mut(id.0) else {
            return;
        };
        if let Some(to) = dest.told {
            self.reports.push_back((to, load));
        }
        dest.loads.active = dest.loads.active.saturating_add_signed(active);
        dest.loads.inactive = dest.loads.inactive.saturating_add_signed(inactive);
        let total = u64::from(dest.loads.active) + u64::from(dest.loads.inactive);
        let (upper, lower) = match dest.limited {
            true => (u64::from(dest.spec.upper), u64::from(dest.spec.lower)),
            false => (0, 0),
        };
        let was = dest.overloaded;
        match bound {
            None => {}
            Some(true) => dest.overloaded |= upper != 0 && total >= upper,
            Some(false) if lower != 0 => dest.overloaded &= total >= lower,
            Some(false) if upper != 0 => dest.overloaded &= total * 4 >= upper * 3,
            Some(false) => dest.overloaded = false,
        }
        let Some(entry) = self.services.get_mut(dest.service.0) else {
            return;
        };
        let Loads { active, inactive } = dest.loads;
        entry
            .group
            .set_load_at(&mut dest.slot, id, active, inactive);
        if was != dest.overloaded {
            entry.group.set_overloaded(id, dest.overloaded);
        }
    }

    fn note_way(&mut self, service: &ServiceKey, id: DestId, spec: &DestSpec) {
        match spec.forward {
            Forward::Masq => {
                self.added += 1;
                let added = self.added;
                let server = (protocol(service), id);
                self.real_servers
                    .insert((spec.addr, spec.port, added), server);
                if let Some(dest) = self.dest_mut(id) {
                    dest.added = added;
                }
            }
            Forward::Tunnel => {
                let end = (spec.addr, spec.tunnel);
                self.tunnels.change(end, |count| *count += 1);
            }
            _ => {}
        }
    }

    fn forget_way(&mut self, id: DestId, spec: &DestSpec) {
        match spec.forward {
            Forward::Masq => {
                let added = self.dest(id).map_or(0, |dest| dest.added);
                self.real_servers.remove(&(spec.addr, spec.port, added));
            }
            Forward::Tunnel => forget(&mut self.tunnels, &(spec.addr, spec.tunnel)),
            _ => {}
        }
    }
}
