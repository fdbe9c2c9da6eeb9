//! Scheduling: which dest of a service a new connection goes to. The choice is the kernel's (Linux 6.1), at a cost that
//! does not grow with the number of dests, or as its logarithm.
//!
//! One scheduler is one file, named as operators type it; [`new`] is the table of them. They work on a [`Pool`], the
//! dests of one service in the kernel's list order; [`Group`] keeps a pool and its scheduler together, and is what a
//! service holds. Nothing here counts connections or thresholds: the caller says how they stand. Picking allocates
//! nothing.

mod cache;
#[cfg(test)]
mod cost;
mod dh;
mod fo;
mod group;
mod known;
mod lblc;
mod lblcr;
mod lc;
mod least;
pub mod mh;
mod nq;
mod ovf;
mod pool;
mod rr;
mod sed;
mod sh;
#[cfg(test)]
mod testing;
mod tree;
mod twos;
mod wlc;
mod wrr;

use std::net::IpAddr;
use std::sync::Arc;

use crate::spec::SchedKind;
use crate::types::{proto, Time};

pub use group::Group;
pub use pool::{Member, Pool, Removed, Slot};

/// What of a packet schedulers look at, in the packet's own terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PickKey {
    /// Source address: the client's.
    pub saddr: IpAddr,
    /// Destination address: the virtual one.
    pub daddr: IpAddr,
    /// Source port, host byte order; 0 where the protocol has none.
    pub sport: u16,
    /// Destination port, host byte order; 0 where the protocol has none.
    pub dport: u16,
    /// IP protocol number.
    pub proto: u8,
    /// Whether the packet goes the other way: it is quoted in an ICMP error, and the client is its destination.
    pub inverse: bool,
    /// The moment.
    pub now: Time,
}

impl PickKey {
    /// The client's address.
    pub fn caddr(&self) -> IpAddr {
        if self.inverse {
            self.daddr
        } else {
            self.saddr
        }
    }

    /// The client's port, of the protocols whose ports sh and mh hash; else 0.
    fn client_port(&self) -> u16 {
        match self.proto {
            proto::TCP | proto::UDP | proto::SCTP if self.inverse => self.dport,
            proto::TCP | proto::UDP | proto::SCTP => self.sport,
            _ => 0,
        }
    }
}

/// A change to a pool that has just been made.
#[derive(Clone, Debug)]
pub enum Change {
    /// A member was added at the head.
    Added(Slot),
    /// A member was taken out.
    Removed(Removed),
    /// An operator edited a member: its weight may be another, or the same.
    Edited(Slot),
    /// The counts of connections of a member are others.
    Load(Slot),
    /// A member became overloaded, or is no longer.
    Overload(Slot),
    /// The control thread made this table for the list as it is now. Only mh takes it.
    Table(Arc<mh::Table>),
}

/// How long lblc and lblcr remember an address that is not used, in seconds (the variables `lblc_expiration` and
/// `lblcr_expiration`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expirations {
    /// lblc's.
    pub lblc: u32,
    /// lblcr's; also how long a set of dests does not change before it loses one.
    pub lblcr: u32,
}

impl Default for Expirations {
    /// A day.
    fn default() -> Expirations {
        Expirations {
            lblc: 86_400,
            lblcr: 86_400,
        }
    }
}

impl Change {
    /// Whether the kernel tells schedulers of it: those that keep tables make them anew.
    fn is_of_list(&self) -> bool {
        matches!(
            self,
            Change::Added(_) | Change::Removed(_) | Change::Edited(_)
        )
    }
}

/// A scheduler of one service. It is told of every change to the pool right after it.
pub trait Scheduler: Send {
    /// Takes in a change to the pool.
    fn update(&mut self, pool: &Pool, change: &Change);

    /// The member that a new connection goes to.
    fn pick(&mut self, pool: &Pool, key: &PickKey) -> Option<Slot>;

    /// The member that will most likely be picked next, where there is one: for its memory to be asked for.
    fn guess(&self, _pool: &Pool) -> Option<Slot> {
        None
    }

    /// Begins to fetch what is kept of a member whose load changes.
    fn prefetch(&self, _slot: Slot) {}

    /// Sets the scheduler's flags, bits of [`service_flags`](crate::spec::service_flags).
    fn set_flags(&mut self, _flags: u32) {}

    /// Makes this worker's scheduler one of several that schedule for the service, each for itself, so that together they
    /// spread connections as one would. `worker` is below `workers`.
    fn stagger(&mut self, _pool: &Pool, _worker: u16, _workers: u16) {}

    /// Sets how long what is not used is remembered.
    fn set_expiration(&mut self, _expirations: Expirations) {}

    /// Lets go of what has not been used for long: a bounded step of it, at little cost if there is nothing to do.
    fn expire(&mut self, _now: Time) {}
}

/// The scheduler of that kind, which has just been set for a service with these members. `flags` are the service's.
pub fn new(kind: Option<SchedKind>, flags: u32, pool: &Pool) -> Box<dyn Scheduler> {
    let Some(kind) = kind else {
        return Box::new(NoScheduler);
    };
    match kind {
        SchedKind::Rr => Box::new(rr::Rr::new(pool)),
        SchedKind::Wrr => Box::new(wrr::Wrr::new(pool)),
        SchedKind::Lc => Box::new(lc::new(pool)),
        SchedKind::Wlc => Box::new(wlc::new(pool)),
        SchedKind::Fo => Box::new(fo::new(pool)),
        SchedKind::Ovf => Box::new(ovf::new(pool)),
        SchedKind::Lblc => Box::new(lblc::Lblc::new(pool)),
        SchedKind::Lblcr => Box::new(lblcr::Lblcr::new(pool)),
        SchedKind::Dh => Box::new(dh::Dh::new(pool)),
        SchedKind::Sh => Box::new(sh::Sh::new(pool, flags)),
        SchedKind::Sed => Box::new(sed::new(pool)),
        SchedKind::Nq => Box::new(nq::new(pool)),
        SchedKind::Mh => Box::new(mh::Mh::new(flags)),
        SchedKind::Twos => Box::new(twos::Twos::new(pool)),
    }
}

/// A service that was added without a scheduler has no server for anyone.
struct NoScheduler;

impl Scheduler for NoScheduler {
    fn update(&mut self, _pool: &Pool, _change: &Change) {}

    fn pick(&mut self, _pool: &Pool, _key: &PickKey) -> Option<Slot> {
        None
    }
}
