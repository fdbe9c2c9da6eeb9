//! The master tables of services and dests: what the operator set, checked in the kernel's order with the kernel's error
//! numbers (`ip_vs_genl_set_cmd` and what it calls, net/netfilter/ipvs/ip_vs_ctl.c, 6.1), and told to the workers as small
//! changes. Every command costs the same with ten services and with twenty thousand.
//!
//! Here are the services; dests are in `dest.rs`. A deleted dest goes to the trash (`trash.rs`): it keeps its id and
//! counters while connections may refer to it, and gets both back when it is added again.

mod convert;
mod dest;
mod exactness;
mod maglev;
mod slots;
mod sync;
mod trash;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ripvs_api::ipvs::{self, DestKey, ServiceConfig};
use ripvs_api::ripvs::{ServiceExact, ServiceName};
use ripvs_api::Errno;
use ripvs_core::delta::Delta;
use ripvs_core::ledger::Ledger;
use ripvs_core::tally::{Tally, TallySnapshot};
use ripvs_core::{DestId, ServiceId, ServiceKey, ServiceSpec};

use super::fleet::Fleet;
use super::stats::{total, Estimator};
use dest::Dest;
pub use exactness::Exactness;
use maglev::Maglev;
use slots::Slots;
use sync::SyncDaemons;
use trash::Trash;

/// What the checks of services and dests have to know of the network layer.
pub trait Surroundings {
    /// Whether an address is the balancer's own.
    fn is_local(&self, addr: IpAddr) -> bool;
    /// Whether an address is a connected network's broadcast address.
    fn is_broadcast(&self, addr: IpAddr) -> bool;
    /// The MTU of the interface of that name.
    fn mtu_of(&self, name: &str) -> Option<u32>;
}

/// A service.
struct Service {
    key: ipvs::ServiceKey,
    spec: Arc<ServiceSpec>,
    /// Its dests, the one added first at the front; the kernel's list is the other way round.
    dests: Vec<DestId>,
    by_key: HashMap<DestKey, DestId>,
    /// Dests that were deleted and are in the trash: what they counted is the service's.
    left: HashSet<DestId>,
    estimator: Estimator,
}

/// The master tables.
pub struct Master {
    /// Which services are scheduled at one worker.
    exactness: Exactness,
    maglev: Maglev,
    services: Slots<Service>,
    by_key: HashMap<ServiceKey, ServiceId>,
    dests: Slots<Dest>,
    /// Each worker's counters of dests.
    ledgers: Vec<Ledger>,
    trash: Trash,
    /// How many dests are of another family than their service.
    mixed: usize,
    /// How many dests are in services.
    dest_count: usize,
    sync: SyncDaemons,
    /// Each worker's counters of all traffic.
    totals: Vec<Arc<Tally>>,
    estimator: Estimator,
    /// The service that a sum of all counters goes on with, while one is under way.
    estimating: Option<u32>,
}

/// Services and dests that are summed up between two looks at what clients want.
const ESTIMATES: usize = 1000;

impl Service {
    /// What its dests have counted, each of which is shown to `each`.
    fn count(
        &self,
        dests: &mut Slots<Dest>,
        mut each: impl FnMut(&mut Dest, &TallySnapshot),
    ) -> TallySnapshot {
        let mut sum = TallySnapshot::default();
        for id in &self.dests {
            if let Some(dest) = dests.get_mut(id.0) {
                let now = total(&dest.tallies);
                each(dest, &now);
                sum += now;
            }
        }
        self.add_left(dests, sum)
    }

    /// What its dests have counted.
    fn counted(&self, dests: &Slots<Dest>) -> TallySnapshot {
        let mut sum = TallySnapshot::default();
        for dest in self.dests.iter().filter_map(|id| dests.get(id.0)) {
            sum += total(&dest.tallies);
        }
        self.add_left(dests, sum)
    }

    fn add_left(&self, dests: &Slots<Dest>, mut sum: TallySnapshot) -> TallySnapshot {
        for dest in self.left.iter().filter_map(|id| dests.get(id.0)) {
            sum += total(&dest.tallies);
        }
        sum
    }
}

impl Master {
    /// Empty tables for so many workers.
    pub fn new(workers: usize, exactness: Exactness, mh_table_bits: u8) -> Master {
        Master {
            exactness,
            maglev: Maglev::new(mh_table_bits),
            services: Slots::default(),
            by_key: HashMap::new(),
            dests: Slots::default(),
            ledgers: (0..workers).map(|_| Ledger::default()).collect(),
            trash: Trash::default(),
            mixed: 0,
            dest_count: 0,
            sync: SyncDaemons::default(),
            totals: (0..workers).map(|_| Arc::default()).collect(),
            estimator: Estimator::default(),
            estimating: None,
        }
    }

    /// Where a worker counts all its traffic.
    pub fn total_tally(&self, worker: usize) -> Arc<Tally> {
        self.totals[worker].clone()
    }

    /// How many services and dests there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.by_key.len(), self.dest_count)
    }

    fn find(&self, key: &ipvs::ServiceKey) -> Result<Option<ServiceId>, Errno> {
        let key = convert::service_key(key)?;
        Ok(self.by_key.get(&key).copied())
    }

    /// The service that a command is about.
    fn need(&self, key: &ipvs::ServiceKey) -> Result<ServiceId, Errno> {
        self.find(key)?.ok_or(Errno::SRCH)
    }

    fn service(&self, id: ServiceId) -> Result<&Service, Errno> {
        self.services.get(id.0).ok_or(Errno::SRCH)
    }

    fn service_mut(&mut self, id: ServiceId) -> Result<&mut Service, Errno> {
        self.services.get_mut(id.0).ok_or(Errno::SRCH)
    }

    /// `ipvsadm -A`.
    ///
    /// # Errors
    /// EEXIST, then as [`convert::service_spec`].
    pub fn add_service(
        &mut self,
        key: &ipvs::ServiceKey,
        config: &ServiceConfig,
        fleet: &mut Fleet,
    ) -> Result<(), Errno> {
        if self.find(key)?.is_some() {
            return Err(Errno::EXIST);
        }
        let core_key = convert::service_key(key)?;
        let flags = config.flags & config.mask;
        let spec = convert::service_spec(core_key, config, flags, self.exactness.of(key))?;
        let spec = Arc::new(spec);
        let id = ServiceId(self.services.insert(|_| Service {
            key: *key,
            spec: spec.clone(),
            dests: Vec::new(),
            by_key: HashMap::new(),
            left: HashSet::new(),
            estimator: Estimator::default(),
        }));
        self.by_key.insert(core_key, id);
        fleet.change(|_| Delta::ServiceAdd {
            id,
            spec: spec.clone(),
        });
        self.maglev.touch(id, &spec);
        Ok(())
    }

    /// `ipvsadm -E`.
    ///
    /// # Errors
    /// ESRCH, then as [`convert::service_spec`].
    pub fn edit_service(
        &mut self,
        key: &ipvs::ServiceKey,
        config: &ServiceConfig,
        fleet: &mut Fleet,
    ) -> Result<(), Errno> {
        let id = self.need(key)?;
        let service = self.service(id)?;
        let flags = (service.spec.flags & !config.mask) | (config.flags & config.mask);
        let spec = convert::service_spec(service.spec.key, config, flags, self.exactness.of(key))?;
        self.maglev.check(&spec, service.dests.len())?;
        let spec = Arc::new(spec);
        self.service_mut(id)?.spec = spec.clone();
        fleet.change(|_| Delta::ServiceEdit {
            id,
            spec: spec.clone(),
        });
        self.maglev.touch(id, &spec);
        Ok(())
    }

    /// `ripvsadm service exact`.
    ///
    /// # Errors
    /// EINVAL for a protocol that no IP packet can have.
    pub fn set_exact(&mut self, said: &ServiceExact, fleet: &mut Fleet) -> Result<(), Errno> {
        let key = said.service.0;
        let there = self.find(&key)?;
        self.exactness.say(&key, said.exact);
        let exact = self.exactness.of(&key);
        let Some(id) = there else { return Ok(()) };
        let service = self.service_mut(id)?;
        if service.spec.exact != exact {
            let spec = Arc::new(ServiceSpec {
                exact,
                ..(*service.spec).clone()
            });
            service.spec = spec.clone();
            fleet.change(|_| Delta::ServiceEdit {
                id,
                spec: spec.clone(),
            });
        }
        Ok(())
    }

    /// Another configuration says that these services are exact. Returns those that are so, or no longer, by it.
    pub fn reconfigure_exact(
        &mut self,
        exact: &[ServiceName],
        fleet: &mut Fleet,
    ) -> Vec<ServiceExact> {
        let changes = self.exactness.reconfigure(exact);
        for said in &changes {
            // Only a key that no configuration can hold is refused.
            let _ = self.set_exact(said, fleet);
        }
        changes
    }

    /// What is said of the scheduling of single services.
    pub fn exactness(&self) -> &Exactness {
        &self.exactness
    }

    /// `ipvsadm -D`.
    ///
    /// # Errors
    /// ESRCH.
    pub fn delete_service(
        &mut self,
        key: &ipvs::ServiceKey,
        fleet: &mut Fleet,
    ) -> Result<(), Errno> {
        let id = self.need(key)?;
        self.remove(id, fleet);
        Ok(())
    }

    /// `ipvsadm -C`.
    pub fn flush(&mut self, fleet: &mut Fleet) {
        let all: Vec<ServiceId> = self.by_key.values().copied().collect();
        for id in all {
            self.remove(id, fleet);
        }
    }

    fn remove(&mut self, id: ServiceId, fleet: &mut Fleet) {
        let Some(service) = self.services.take(id.0) else {
            return;
        };
        self.by_key.remove(&service.spec.key);
        for dest in service.dests.iter().rev() {
            self.unlink(*dest);
        }
        // The workers take the dests out with their service.
        fleet.change(|_| Delta::ServiceRemove { id });
        self.drop_table(id, fleet);
        self.trash.retire_service(id, fleet.ticket());
    }

    /// `ipvsadm -Z`.
    ///
    /// # Errors
    /// ESRCH.
    pub fn zero(&mut self, key: Option<&ipvs::ServiceKey>) -> Result<(), Errno> {
        let ids: Vec<ServiceId> = match key {
            Some(key) => vec![self.need(key)?],
            None => {
                self.estimator.zero(&self.traffic());
                self.by_key.values().copied().collect()
            }
        };
        for id in ids {
            if let Some(service) = self.services.get_mut(id.0) {
                let now = service.count(&mut self.dests, |dest, now| dest.estimator.zero(now));
                service.estimator.zero(&now);
            }
        }
        Ok(())
    }

    /// Begins to sum all counters up, every [`super::stats::PERIOD`]. Dests in the trash are left alone, as in the kernel.
    /// [`Master::go_on_estimating`] does it: with many services it is not the work of a moment.
    pub fn begin_estimate(&mut self) {
        self.estimator.tick(&self.traffic());
        self.estimating = Some(0);
    }

    /// Whether a sum is under way.
    pub fn is_estimating(&self) -> bool {
        self.estimating.is_some()
    }

    /// Sums the next services up. Whether more are left.
    pub fn go_on_estimating(&mut self) -> bool {
        let Some(from) = self.estimating else {
            return false;
        };
        let mut budget = ESTIMATES;
        for at in from.. {
            let Some(place) = self.services.place_mut(at) else {
                self.estimating = None;
                return false;
            };
            budget = budget.saturating_sub(1);
            if let Some(service) = place {
                let now = service.count(&mut self.dests, |dest, now| dest.estimator.tick(now));
                service.estimator.tick(&now);
                budget = budget.saturating_sub(service.dests.len());
            }
            if budget == 0 {
                self.estimating = Some(at + 1);
                return true;
            }
        }
        false
    }

    /// What all workers counted altogether.
    fn traffic(&self) -> TallySnapshot {
        self.totals.iter().map(|total| total.snapshot()).sum()
    }

    /// All traffic, as `/proc/net/ip_vs_stats` has it.
    pub fn total_stats(&self) -> ipvs::Stats {
        self.estimator.stats(&self.traffic())
    }

    /// One worker's traffic as counted up to now, as a line of `/proc/net/ip_vs_stats_percpu`.
    pub fn worker_stats(&self, worker: usize) -> ipvs::Stats {
        let now = self.totals[worker].snapshot();
        ipvs::Stats {
            conns: now.conns,
            inpkts: now.in_packets,
            outpkts: now.out_packets,
            inbytes: now.in_bytes,
            outbytes: now.out_bytes,
            ..ipvs::Stats::default()
        }
    }

    /// One service as listings show it.
    ///
    /// # Errors
    /// ESRCH.
    pub fn show_service(&self, key: &ipvs::ServiceKey) -> Result<ipvs::Service, Errno> {
        let id = self.need(key)?;
        let service = self.service(id)?;
        Ok(self.shown_service(service))
    }

    /// At most `max` services from a cursor on, and the cursor of those that follow.
    pub fn services_from(&self, cursor: u32, max: usize) -> (Vec<ipvs::Service>, Option<u32>) {
        let (mut page, mut summed) = (Vec::new(), 0);
        for (id, service) in self.services.iter_from(cursor) {
            if page.len() == max || summed >= ESTIMATES {
                return (page, Some(id));
            }
            page.push(self.shown_service(service));
            summed += service.dests.len();
        }
        (page, None)
    }

    fn shown_service(&self, service: &Service) -> ipvs::Service {
        ipvs::Service {
            key: service.key,
            config: convert::service_config(&service.spec),
            stats: service.estimator.stats(&service.counted(&self.dests)),
        }
    }

    /// The requests that make these tables out of empty ones.
    pub fn requests(&self) -> Vec<ipvs::Request> {
        let mut requests = Vec::new();
        for (_, service) in self.services.iter_from(0) {
            let config = convert::service_config(&service.spec);
            requests.push(ipvs::Request::NewService(service.key, config));
            for id in &service.dests {
                if let Some(dest) = self.dests.get(id.0) {
                    requests.push(ipvs::Request::NewDest(service.key, Ok(dest.config)));
                }
            }
        }
        requests.extend(self.sync.requests());
        requests
    }
}

#[cfg(test)]
mod tests;
