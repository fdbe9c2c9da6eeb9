//! Deleted dests. They stay while connections refer to them and at least two minutes beyond, because one that was taken out
//! by a health check comes back soon; the kernel's `dest_trash` with its times. Ids are given free here, after the workers
//! have let go of what bore them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ripvs_api::ipvs::DestKey;
use ripvs_core::delta::Delta;
use ripvs_core::{DestId, ServiceId, ServiceKey};

use super::super::fleet::{Fleet, Progress, Ticket};
use super::super::stats::total;
use super::Master;

/// How long a dest without connections stays (`IP_VS_DEST_TRASH_PERIOD`).
const STAY: Duration = Duration::from_secs(120);
/// How often is looked.
const LOOK: Duration = Duration::from_secs(60);

struct Entry {
    id: DestId,
    service: ServiceId,
    /// When it was first seen without connections.
    idle_since: Option<Instant>,
}

/// The trash.
#[derive(Default)]
pub struct Trash {
    entries: HashMap<(ServiceKey, DestKey), Entry>,
    /// How many entries are of dests that a service had, by its id.
    of_service: HashMap<ServiceId, usize>,
    next_look: Option<Instant>,
    /// Dests that the workers are told to forget: their ids are free when the tickets are through.
    freed_dests: Vec<(Ticket, DestId)>,
    /// Removed services, whose ids are free when the tickets are through and no dest in the trash was theirs.
    retired: Vec<(Ticket, ServiceId)>,
}

impl Trash {
    /// A dest has been deleted.
    pub fn add(&mut self, service: ServiceKey, dest: DestKey, id: DestId, service_id: ServiceId) {
        let entry = Entry {
            id,
            service: service_id,
            idle_since: None,
        };
        *self.of_service.entry(service_id).or_default() += 1;
        if let Some(old) = self.entries.insert((service, dest), entry) {
            forget(&mut self.of_service, old.service);
        }
    }

    /// A dest is added: the one of that name that was deleted, if it is still here.
    pub fn take(&mut self, service: ServiceKey, dest: DestKey) -> Option<DestId> {
        let entry = self.entries.remove(&(service, dest))?;
        forget(&mut self.of_service, entry.service);
        Some(entry.id)
    }

    /// Dests that are remembered, and the sum of what is counted by service: the same.
    #[cfg(test)]
    pub fn remembered(&self) -> (usize, usize) {
        (self.entries.len(), self.of_service.values().sum())
    }

    /// A service has been deleted.
    pub fn retire_service(&mut self, id: ServiceId, ticket: Ticket) {
        self.retired.push((ticket, id));
    }
}

/// A dest of that service is remembered no more.
fn forget(of_service: &mut HashMap<ServiceId, usize>, service: ServiceId) {
    if let Some(count) = of_service.get_mut(&service) {
        *count -= 1;
        if *count == 0 {
            of_service.remove(&service);
        }
    }
}

impl Master {
    /// Lets go of what nobody refers to any more. To be called now and then; it looks once a minute, like the kernel.
    pub fn empty_trash(&mut self, now: Instant, fleet: &mut Fleet) {
        self.reuse_ids(fleet);
        if self.trash.entries.is_empty() {
            self.trash.next_look = None;
            return;
        }
        let due = *self.trash.next_look.get_or_insert(now + LOOK);
        if now < due {
            return;
        }
        self.trash.next_look = Some(now + LOOK);
        let dests = &self.dests;
        let mut gone = Vec::new();
        self.trash.entries.retain(|_, entry| {
            let refs = dests
                .get(entry.id.0)
                .map_or(0, |dest| total(&dest.tallies).refs);
            if refs > 0 {
                return true;
            }
            let since = *entry.idle_since.get_or_insert(now);
            let stays = now.duration_since(since) < STAY;
            if !stays {
                gone.push((entry.id, entry.service));
            }
            stays
        });
        for (id, service) in gone {
            forget(&mut self.trash.of_service, service);
            fleet.change(|_| Delta::DestFree { id });
            if let (Some(dest), Some(service)) =
                (self.dests.take(id.0), self.services.get_mut(service.0))
            {
                service.left.remove(&id);
                service.estimator.went(&total(&dest.tallies));
            }
            self.trash.freed_dests.push((fleet.ticket(), id));
        }
    }

    /// Gives ids free that no worker knows any more.
    fn reuse_ids(&mut self, fleet: &Fleet) {
        let applied = |ticket| fleet.progress(ticket) == Progress::Applied;
        let dests = &mut self.dests;
        self.trash.freed_dests.retain(|(ticket, id)| {
            let done = applied(*ticket);
            if done {
                dests.free(id.0);
            }
            !done
        });
        if self.trash.retired.is_empty() {
            return;
        }
        let of_service = &self.trash.of_service;
        let services = &mut self.services;
        self.trash.retired.retain(|(ticket, id)| {
            let done = applied(*ticket) && !of_service.contains_key(id);
            if done {
                services.free(id.0);
            }
            !done
        });
    }
}
