//! The dests of one service together with their scheduler: what a service holds. Sees to it that the scheduler hears of
//! every change.

use std::sync::Arc;

use super::{mh, new, Change, Expirations, Member, PickKey, Pool, Scheduler, Slot};
use crate::spec::SchedKind;
use crate::types::{DestId, Time};

/// The dests of one service and their scheduler, on one worker.
pub struct Group {
    pool: Pool,
    kind: Option<SchedKind>,
    scheduler: Box<dyn Scheduler>,
    worker: u16,
    workers: u16,
    expirations: Expirations,
}

impl Group {
    /// No dests yet. `flags` are the service's ([`service_flags`](crate::spec::service_flags)); this is `worker` of
    /// `workers` (from 0) that schedule for the service each for itself: 0 of 1 where one does it for all.
    pub fn new(kind: Option<SchedKind>, flags: u32, worker: u16, workers: u16) -> Group {
        let pool = Pool::new();
        let scheduler = new(kind, flags, &pool);
        let mut group = Group {
            pool,
            kind,
            scheduler,
            worker,
            workers,
            expirations: Expirations::default(),
        };
        group.set_up();
        group
    }

    fn set_up(&mut self) {
        self.scheduler.set_expiration(self.expirations);
        if self.workers > 1 {
            self.scheduler
                .stagger(&self.pool, self.worker, self.workers);
        }
    }

    /// Sets scheduler and flags, as `ipvsadm -E` does: the same scheduler goes on where it was, another begins anew.
    pub fn set_scheduler(&mut self, kind: Option<SchedKind>, flags: u32) {
        if kind == self.kind {
            self.scheduler.set_flags(flags);
        } else {
            self.kind = kind;
            self.scheduler = new(kind, flags, &self.pool);
            self.set_up();
        }
    }

    /// From now on this is `worker` of `workers` that schedule for the service; 0 of 1 picks in the kernel's order.
    pub fn set_share(&mut self, worker: u16, workers: u16) {
        (self.worker, self.workers) = (worker, workers);
        self.scheduler.stagger(&self.pool, worker, workers);
    }

    /// Adds a dest at the head of the list; one that is there already stays as it is.
    pub fn add(&mut self, member: Member) {
        if self.pool.slot_of(member.id).is_none() {
            let slot = self.pool.add(member);
            self.scheduler.update(&self.pool, &Change::Added(slot));
        }
    }

    /// Takes a dest out; `None` if it isn't there.
    pub fn remove(&mut self, id: DestId) -> Option<Member> {
        let slot = self.pool.slot_of(id)?;
        let removed = self.pool.remove(slot)?;
        self.scheduler.update(&self.pool, &Change::Removed(removed));
        Some(removed.member)
    }

    /// An operator's edit of a dest, whether or not it gives another weight.
    pub fn edit(&mut self, id: DestId, weight: i32) {
        if let Some(slot) = self.pool.slot_of(id) {
            self.pool.set_weight(slot, weight);
            self.scheduler.update(&self.pool, &Change::Edited(slot));
        }
    }

    /// Sets a dest's counts of connections.
    pub fn set_load(&mut self, id: DestId, active: u32, inactive: u32) {
        if let Some(slot) = self.pool.slot_of(id) {
            self.pool.set_load(slot, active, inactive);
            self.scheduler.update(&self.pool, &Change::Load(slot));
        }
    }

    /// As [`Group::set_load`], of a dest that was at that slot the last time, if not the slot of nobody in particular.
    pub fn set_load_at(&mut self, slot: &mut Slot, id: DestId, active: u32, inactive: u32) {
        if let Some(now) = self.pool.find(id, *slot) {
            *slot = now;
            self.pool.set_load(now, active, inactive);
            self.scheduler.update(&self.pool, &Change::Load(now));
        }
    }

    /// Sets whether a dest is overloaded.
    pub fn set_overloaded(&mut self, id: DestId, overloaded: bool) {
        if let Some(slot) = self.pool.slot_of(id) {
            self.pool.set_overloaded(slot, overloaded);
            self.scheduler.update(&self.pool, &Change::Overload(slot));
        }
    }

    /// Hands mh the table made for the list as it is now. Until it has one, mh picks nobody.
    pub fn set_table(&mut self, table: Arc<mh::Table>) {
        self.scheduler.update(&self.pool, &Change::Table(table));
    }

    /// Sets how long lblc and lblcr remember.
    pub fn set_expirations(&mut self, expirations: Expirations) {
        self.expirations = expirations;
        self.scheduler.set_expiration(expirations);
    }

    /// The dest that a new connection goes to; `None` if there is none for it.
    pub fn pick(&mut self, key: &PickKey) -> Option<&Member> {
        let slot = self.scheduler.pick(&self.pool, key)?;
        self.pool.get(slot)
    }

    /// The dest that will most likely be picked next, where that can be said.
    pub fn guess(&self) -> Option<DestId> {
        let slot = self.scheduler.guess(&self.pool)?;
        self.scheduler.prefetch(slot);
        self.pool.get(slot).map(|member| member.id)
    }

    /// Begins to fetch what changes with the load of a dest that was at that slot the last time.
    pub fn prefetch(&self, slot: Slot) {
        self.pool.prefetch(slot);
        self.scheduler.prefetch(slot);
    }

    /// Lets the scheduler forget what it has not used for long, a bounded step a call. Cheap, for every round of a worker.
    pub fn expire(&mut self, now: Time) {
        self.scheduler.expire(now);
    }

    /// The dests.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The scheduler that is set.
    pub fn kind(&self) -> Option<SchedKind> {
        self.kind
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{key, member};
    use super::*;

    #[test]
    fn what_is_guessed_is_picked_next() {
        for kind in [
            SchedKind::Rr,
            SchedKind::Wrr,
            SchedKind::Lc,
            SchedKind::Wlc,
            SchedKind::Twos,
        ] {
            let mut group = Group::new(Some(kind), 0, 0, 1);
            (0..300).for_each(|n| group.add(member(n, 2)));
            let mut slot = Slot::default();
            for n in 0..1000 {
                let picked = *group.pick(&key()).unwrap();
                group.set_load_at(&mut slot, picked.id, picked.active + 1, n % 7);
                let now = group.pool().get(slot).unwrap();
                assert_eq!((now.id, now.active), (picked.id, picked.active + 1));
                let guess = group.guess();
                group.prefetch(slot);
                assert!(guess.is_some());
                assert_eq!(guess, group.pick(&key()).map(|m| m.id), "{kind:?} {n}");
            }
        }
    }

    #[test]
    fn what_was_drawn_beforehand_is_drawn_anew_when_weights_change() {
        let mut group = Group::new(Some(SchedKind::Twos), 0, 0, 1);
        (0..10).for_each(|n| group.add(member(n, 1)));
        for n in 0..10 {
            assert!(group.pick(&key()).is_some());
            (0..10).for_each(|other| group.edit(DestId(other), i32::from(other == n)));
            assert_eq!(group.pick(&key()).map(|m| m.id), Some(DestId(n)));
        }
    }

    #[test]
    fn a_staggered_worker_finds_the_last_of_sixteen() {
        let kinds = [
            SchedKind::Lc,
            SchedKind::Wlc,
            SchedKind::Lblc,
            SchedKind::Lblcr,
        ];
        for kind in kinds {
            let mut group = Group::new(Some(kind), 0, 1, 2);
            (0..16).for_each(|n| group.add(member(n, 1)));
            for n in 0..15 {
                group.remove(DestId(n));
            }
            let picked = group.pick(&key()).map(|member| member.id);
            assert_eq!(picked, Some(DestId(15)), "{kind:?}");
        }
    }
}
