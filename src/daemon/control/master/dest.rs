//! The dests of the master tables: `ipvsadm -a`, `-e` and `-d`, and their listing.

use std::net::IpAddr;
use std::sync::Arc;

use ripvs_api::ipvs::number::{forward, tunnel};
use ripvs_api::ipvs::{self, DestConfig, DestKey};
use ripvs_api::Errno;
use ripvs_core::delta::Delta;
use ripvs_core::ledger::{Account, Ledger};
use ripvs_core::{Af, DestId, ServiceId, ServiceKey};

use super::{convert, Master, Service, Surroundings};
use crate::control::fleet::Fleet;
use crate::control::stats::{total, Estimator};

/// A dest, in a service or in the trash.
pub(super) struct Dest {
    pub(super) id: DestId,
    pub(super) service: ServiceId,
    service_key: ServiceKey,
    pub(super) config: DestConfig,
    /// Its latest weight that was not 0 (the kernel's `last_weight`).
    pub(super) last_weight: i32,
    /// Each worker's counters.
    pub(super) tallies: Vec<Account>,
    pub(super) estimator: Estimator,
}

impl Master {
    /// `ipvsadm -a`.
    ///
    /// # Errors
    /// ESRCH without the service, then what the request's dest is wrong by; EINVAL, ERANGE, EEXIST, EINVAL by the kernel's
    /// order.
    pub fn add_dest(
        &mut self,
        key: &ipvs::ServiceKey,
        config: Result<DestConfig, Errno>,
        around: &dyn Surroundings,
        fleet: &mut Fleet,
    ) -> Result<(), Errno> {
        let service_id = self.need(key)?;
        let config = config?;
        let service = self.service(service_id)?;
        self.check_dest(service, &config)?;
        if service.by_key.contains_key(&config.key) {
            return Err(Errno::EXIST);
        }
        let service_key = service.spec.key;
        let spec = Arc::new(convert::dest_spec(&config)?);
        let kept = self.trash.take(service_key, config.key);
        let id = match kept {
            Some(id) => {
                // Its counters come back with it; under a new service of the same key they begin anew.
                let service = self.services.get_mut(service_id.0);
                if let (Some(dest), Some(service)) = (self.dests.get_mut(id.0), service) {
                    if dest.service != service_id {
                        let before = total(&dest.tallies);
                        dest.estimator.zero(&before);
                        service.estimator.came(&before);
                    }
                    service.left.remove(&id);
                    dest.service = service_id;
                    dest.config = config;
                    dest.last_weight = config.weight;
                }
                id
            }
            None => {
                if !may_be_dest(config.key.addr, around) {
                    return Err(Errno::INVAL);
                }
                let ledgers = &mut self.ledgers;
                let open = |ledger: &mut Ledger, id| ledger.open(DestId(id), &spec);
                DestId(self.dests.insert(|id| Dest {
                    id: DestId(id),
                    service: service_id,
                    service_key,
                    config,
                    last_weight: config.weight,
                    tallies: ledgers.iter_mut().map(|ledger| open(ledger, id)).collect(),
                    estimator: Estimator::default(),
                }))
            }
        };
        self.dest_count += 1;
        if is_mixed(&service_key, &config) {
            self.mixed += 1;
        }
        let service = self.service_mut(service_id)?;
        service.dests.push(id);
        service.by_key.insert(config.key, id);
        let tallies = self
            .dests
            .get(id.0)
            .map(|dest| dest.tallies.clone())
            .unwrap_or_default();
        fleet.change(|worker| Delta::DestAdd {
            service: service_id,
            id,
            spec: spec.clone(),
            tally: match kept {
                Some(_) => tallies[worker].again(),
                None => tallies[worker].clone(),
            },
        });
        self.touch_maglev(service_id);
        Ok(())
    }

    /// `ipvsadm -e`.
    ///
    /// # Errors
    /// As [`Master::add_dest`], with ENOENT where the dest is not there.
    pub fn edit_dest(
        &mut self,
        key: &ipvs::ServiceKey,
        config: Result<DestConfig, Errno>,
        fleet: &mut Fleet,
    ) -> Result<(), Errno> {
        let service_id = self.need(key)?;
        let service = self.service(service_id)?;
        let config = config?;
        self.check_dest(service, &config)?;
        let id = *service.by_key.get(&config.key).ok_or(Errno::NOENT)?;
        let spec = Arc::new(convert::dest_spec(&config)?);
        if let Some(dest) = self.dests.get_mut(id.0) {
            dest.config = config;
            if config.weight != 0 {
                dest.last_weight = config.weight;
            }
        }
        fleet.change(|_| Delta::DestEdit {
            id,
            spec: spec.clone(),
        });
        self.touch_maglev(service_id);
        Ok(())
    }

    /// `ipvsadm -d`.
    ///
    /// # Errors
    /// ESRCH without the service, what the request's dest is wrong by, ENOENT.
    pub fn delete_dest(
        &mut self,
        key: &ipvs::ServiceKey,
        dest: Result<DestKey, Errno>,
        fleet: &mut Fleet,
    ) -> Result<(), Errno> {
        let service_id = self.need(key)?;
        let dest = dest?;
        let service = self.service_mut(service_id)?;
        let id = service.by_key.remove(&dest).ok_or(Errno::NOENT)?;
        service.dests.retain(|other| *other != id);
        service.left.insert(id);
        self.unlink(id);
        fleet.change(|_| Delta::DestRemove { id });
        self.touch_maglev(service_id);
        Ok(())
    }

    /// At most `max` dests of a service from a place in the kernel's list on, and the place of those that follow. None
    /// where the service is not there.
    pub fn dests_from(
        &self,
        key: &ipvs::ServiceKey,
        from: usize,
        max: usize,
    ) -> (Vec<ipvs::Dest>, Option<usize>) {
        let service = self
            .find(key)
            .ok()
            .flatten()
            .and_then(|id| self.services.get(id.0));
        let Some(service) = service else {
            return (Vec::new(), None);
        };
        let page: Vec<ipvs::Dest> = service
            .dests
            .iter()
            .rev()
            .skip(from)
            .take(max)
            .filter_map(|id| self.dests.get(id.0))
            .map(shown_dest)
            .collect();
        let next = from.saturating_add(page.len());
        (page, (next < service.dests.len()).then_some(next))
    }

    /// Puts a dest of a service into the trash.
    pub(super) fn unlink(&mut self, id: DestId) {
        let Some(dest) = self.dests.get(id.0) else {
            return;
        };
        self.dest_count -= 1;
        if is_mixed(&dest.service_key, &dest.config) {
            self.mixed -= 1;
        }
        self.trash
            .add(dest.service_key, dest.config.key, id, dest.service);
    }

    /// The checks that adding and changing a dest have in common, before the dest is looked for.
    fn check_dest(&self, service: &Service, config: &DestConfig) -> Result<(), Errno> {
        if is_mixed(&service.spec.key, config) {
            // The synchronisation protocol has no words for such.
            let tunnelled = config.forward == forward::TUNNEL;
            if self.sync.is_running() || !tunnelled {
                return Err(Errno::INVAL);
            }
        }
        if config.weight < 0 || config.lower > config.upper {
            return Err(Errno::RANGE);
        }
        if config.tun_type == tunnel::GUE && config.tun_port == 0 {
            return Err(Errno::INVAL);
        }
        Ok(())
    }
}

fn shown_dest(dest: &Dest) -> ipvs::Dest {
    let now = total(&dest.tallies);
    ipvs::Dest {
        config: dest.config,
        active: now.active,
        inactive: now.inactive,
        persistent: now.persistent,
        stats: dest.estimator.stats(&now),
    }
}

/// Whether a dest is of another address family than its service.
fn is_mixed(service: &ServiceKey, config: &DestConfig) -> bool {
    Af::of(config.key.addr) != service.af()
}

/// Whether an address may be a dest's (`ip_vs_new_dest`): unicast, and in IPv6 not link-local; or the balancer's own.
fn may_be_dest(addr: IpAddr, around: &dyn Surroundings) -> bool {
    match addr {
        IpAddr::V4(v4) => {
            !v4.is_unspecified()
                && !v4.is_broadcast()
                && !v4.is_multicast()
                && !around.is_broadcast(addr)
        }
        IpAddr::V6(v6) => {
            let unicast =
                !v6.is_unspecified() && !v6.is_multicast() && v6.to_ipv4_mapped().is_none();
            let link_local = v6.segments()[0] & 0xffc0 == 0xfe80;
            (unicast && !link_local) || around.is_local(addr)
        }
    }
}
