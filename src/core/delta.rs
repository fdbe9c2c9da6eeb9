//! What the control thread tells a worker: changes, applied between bursts and never refused, and questions.

use std::net::IpAddr;
use std::sync::Arc;

use ripvs_arch::prefetch_read;

use crate::ledger::Account;
use crate::mark::MarkTable;
use crate::net::{NeighEntry, NetDelta};
use crate::sched::mh;
use crate::service::{Dest, Service};
use crate::settings::Settings;
use crate::spec::{DestSpec, ServiceSpec};
use crate::types::{DestId, ServiceId, WorkerId};

pub use crate::service::Ready;

/// One change of what a worker knows. Ids are the control thread's to give; a change about an id that the worker does not
/// know has no effect.
#[derive(Clone, Debug)]
pub enum Delta {
    /// A new service.
    ServiceAdd {
        /// Its id.
        id: ServiceId,
        /// Its settings.
        spec: Arc<ServiceSpec>,
    },
    /// Other settings for a service (`ipvsadm -E`).
    ServiceEdit {
        /// Its id.
        id: ServiceId,
        /// Its new settings.
        spec: Arc<ServiceSpec>,
    },
    /// A service is no more; its dests go with it, its connections stay.
    ServiceRemove {
        /// Its id.
        id: ServiceId,
    },
    /// A new dest of a service, or one that was removed and comes back.
    DestAdd {
        /// Its service.
        service: ServiceId,
        /// Its id; where it comes back, the old one, which goes with its address.
        id: DestId,
        /// Its settings.
        spec: Arc<DestSpec>,
        /// Where this worker counts its traffic: of the same number, in this worker's ledger.
        tally: Account,
    },
    /// Other settings for a dest (`ipvsadm -e`).
    DestEdit {
        /// Its id.
        id: DestId,
        /// Its new settings.
        spec: Arc<DestSpec>,
    },
    /// A dest leaves its service; its connections stay.
    DestRemove {
        /// Its id.
        id: DestId,
    },
    /// A removed dest to which no worker has a connection any more is forgotten.
    DestFree {
        /// Its id.
        id: DestId,
    },
    /// A new Maglev table for a service that is scheduled by `mh`.
    MaglevTable {
        /// The service.
        id: ServiceId,
        /// Its table.
        table: Arc<mh::Table>,
    },
    /// All sysctls.
    Settings(Settings),
    /// The timeouts of `ipvsadm --set`, in seconds; 0 leaves one as it is.
    Timeouts {
        /// TCP, ESTABLISHED.
        tcp: u32,
        /// TCP, FIN_WAIT.
        tcp_fin: u32,
        /// UDP.
        udp: u32,
    },
    /// The virtual ports on which the FTP helper looks into NAT connections; none: it is off.
    FtpPorts(Arc<[u16]>),
    /// All mark rules, compiled.
    Marks(Arc<MarkTable>),
    /// A change of the network layer.
    Net(NetDelta),
}

impl Delta {
    /// Asks for the memory that applying it will read first, which the control thread wrote.
    pub fn prefetch(&self) {
        match self {
            Delta::ServiceAdd { spec, .. } | Delta::ServiceEdit { spec, .. } => {
                prefetch_read(&**spec)
            }
            Delta::DestAdd { spec, .. } | Delta::DestEdit { spec, .. } => prefetch_read(&**spec),
            _ => {}
        }
    }
}

/// A piece of a worker's work on its tables, and what it leaves: memory is asked for and given back by the control thread,
/// not by those who have packets to forward.
pub enum Step {
    /// A change.
    Change(Delta),
    /// A new service with its first dests.
    Ready(Box<Ready>),
    /// It is done, and this is left of it.
    Done(Waste),
}

/// What a worker has no more use for: it is there to be dropped by somebody else.
#[derive(Default)]
pub struct Waste {
    _service: Option<Box<Service>>,
    _dest: Option<Dest>,
}

impl From<Option<Box<Service>>> for Waste {
    fn from(service: Option<Box<Service>>) -> Waste {
        Waste {
            _service: service,
            _dest: None,
        }
    }
}

impl From<Option<Dest>> for Waste {
    fn from(dest: Option<Dest>) -> Waste {
        Waste {
            _service: None,
            _dest: dest,
        }
    }
}

/// Most dests that are made ready with a service: as many are taken in at once.
const TOGETHER: usize = 16;

impl Step {
    /// Changes for this worker of so many, as it is given them: services are made ready with the dests that follow them.
    pub fn make(deltas: Vec<Delta>, worker: WorkerId, workers: u16) -> Vec<Step> {
        let share = (worker.0, workers);
        let mut steps: Vec<Step> = Vec::with_capacity(deltas.len());
        for delta in deltas {
            let step = match (delta, steps.last_mut()) {
                (Delta::ServiceAdd { id, spec }, _) => {
                    Step::Ready(Box::new(Ready::new(id, spec, share)))
                }
                (
                    Delta::DestAdd {
                        service,
                        id,
                        spec,
                        tally,
                    },
                    Some(Step::Ready(ready)),
                ) if ready.id() == service && ready.dests() < TOGETHER => {
                    ready.add(id, spec, tally, share);
                    continue;
                }
                (delta, _) => Step::Change(delta),
            };
            steps.push(step);
        }
        steps
    }

    /// As how many changes it counts, about. The dests that go with a service are not known here.
    pub fn weight(&self) -> usize {
        match self {
            Step::Ready(ready) => 1 + ready.dests(),
            Step::Change(Delta::ServiceRemove { .. }) => 8,
            Step::Change(_) | Step::Done(_) => 1,
        }
    }

    /// Asks for the memory that is read of it first, which the control thread wrote.
    pub fn prefetch(&self) {
        match self {
            Step::Change(delta) => delta.prefetch(),
            Step::Ready(ready) => ready.prefetch(),
            Step::Done(_) => {}
        }
    }

    /// Asks for more of it, when [`Step::prefetch`] has had its effect.
    pub fn prefetch_more(&self) {
        if let Step::Ready(ready) = self {
            ready.prefetch_dests();
        }
    }
}

/// What the control thread asks of a worker; answered between bursts, a bounded piece at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// A page of connections, from a cursor (0: the first page) on.
    Conns {
        /// Where the page before ended.
        cursor: u64,
        /// How many records to look at, at most.
        max: usize,
        /// Where they go; it comes back in the answer. So the worker needs no memory of its own for them.
        into: Vec<ConnEntry>,
    },
    /// The neighbour table.
    Neighbours,
}

/// The answer to a [`Query`].
#[derive(Clone, Debug)]
pub enum Answer {
    /// A page of connections and the cursor of the next, `None` after the last.
    Conns {
        /// The connections.
        entries: Vec<ConnEntry>,
        /// Where to go on.
        next: Option<u64>,
    },
    /// The neighbour table.
    Neighbours(Vec<NeighEntry>),
}

/// A connection as listings show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnEntry {
    /// IP protocol number; 0 for the template of a service by mark.
    pub proto: u8,
    /// The client.
    pub client: (IpAddr, u16),
    /// The virtual service.
    pub virt: (IpAddr, u16),
    /// The real server.
    pub dest: (IpAddr, u16),
    /// The state's name as `ipvsadm -c` prints it.
    pub state: &'static str,
    /// Hundredths of a second until it expires.
    pub expires: u32,
    /// Flags of `linux/ip_vs.h` (`IP_VS_CONN_F_*`).
    pub flags: u16,
    /// Name and data of the persistence engine, on templates of services that have one.
    pub pe: Option<(&'static str, Vec<u8>)>,
}
