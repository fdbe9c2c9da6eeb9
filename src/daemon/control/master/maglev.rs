//! Maglev tables: made here, once for all workers, for the services that are scheduled by `mh`, after each round of changes
//! to them. The last table is kept until every worker has the next, so that no worker has to free it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ripvs_api::Errno;
use ripvs_core::delta::Delta;
use ripvs_core::sched::mh::{Table, TableIndex};
use ripvs_core::sched::Member;
use ripvs_core::{SchedKind, ServiceId, ServiceSpec};

use super::super::fleet::Fleet;
use super::Master;

/// What is to be made, and what was made last.
pub struct Maglev {
    index: TableIndex,
    touched: HashSet<ServiceId>,
    tables: HashMap<ServiceId, Arc<Table>>,
}

impl Maglev {
    /// Tables of about two to the power of `bits` entries; the configuration has checked that there are such.
    pub fn new(bits: u8) -> Maglev {
        Maglev {
            index: TableIndex::new(bits).unwrap_or_default(),
            touched: HashSet::new(),
            tables: HashMap::new(),
        }
    }

    /// A service was added or changed.
    pub fn touch(&mut self, id: ServiceId, spec: &ServiceSpec) {
        if spec.sched == Some(SchedKind::Mh) {
            self.touched.insert(id);
        }
    }

    /// That so many dests fit, as the kernel wants when a service is set to mh (`ip_vs_mh_reassign`).
    ///
    /// # Errors
    /// EINVAL.
    pub fn check(&self, spec: &ServiceSpec, dests: usize) -> Result<(), Errno> {
        let fits = dests <= self.index.entries() as usize;
        if fits || spec.sched != Some(SchedKind::Mh) {
            Ok(())
        } else {
            Err(Errno::INVAL)
        }
    }
}

impl Master {
    /// The dests of a service are others.
    pub(super) fn touch_maglev(&mut self, id: ServiceId) {
        if let Some(service) = self.services.get(id.0) {
            self.maglev.touch(id, &service.spec);
        }
    }

    /// Makes the tables of the services that were changed in this round, and hands them out.
    pub fn make_tables(&mut self, fleet: &mut Fleet) {
        let touched: Vec<ServiceId> = self.maglev.touched.drain().collect();
        for id in touched {
            let Some(service) = self.services.get(id.0) else {
                continue;
            };
            // It may have got another scheduler in the same round.
            if service.spec.sched != Some(SchedKind::Mh) {
                continue;
            }
            let members: Vec<Member> = service
                .dests
                .iter()
                .rev()
                .filter_map(|id| self.dests.get(id.0))
                .map(|dest| Member {
                    last_weight: dest.last_weight,
                    ..Member::new(
                        dest.id,
                        dest.config.key.addr,
                        dest.config.key.port,
                        dest.config.weight,
                    )
                })
                .collect();
            let af = service.spec.key.af();
            match Table::build(af, members.iter(), self.maglev.index) {
                Ok(table) => {
                    let old = self.maglev.tables.insert(id, table.clone());
                    fleet.change(|_| Delta::MaglevTable {
                        id,
                        table: table.clone(),
                    });
                    if let Some(old) = old {
                        fleet.keep_until_applied(old);
                    }
                }
                Err(error) => log::warn!("{error}; the table of before stays in use"),
            }
        }
    }

    /// A service is gone, and its table with it.
    pub(super) fn drop_table(&mut self, id: ServiceId, fleet: &mut Fleet) {
        if let Some(old) = self.maglev.tables.remove(&id) {
            fleet.keep_until_applied(old);
        }
    }
}
