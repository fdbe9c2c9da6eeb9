//! The network layer of one worker: interfaces, routes, neighbours, and what a router does with packets that are not IPVS's.
//! Shares nothing; with several workers, one of them (the resolver) asks for neighbours and tells the others by [`NetMsg`].
//!
//! A packet's way, as `datapath` walks it:
//!
//! | step | by |
//! |---|---|
//! | which interface, is the frame for us | [`Net::ingress`] |
//! | ARP | [`Net::arp_input`] |
//! | IP: ours, another's, or nobody's | [`Net::classify`] |
//! | ours, and not IPVS's: echo, neighbour discovery, the host's | [`Net::local_input`] |
//! | another's | [`Net::forward`] |
//! | a packet of our own making, or IPVS's after rewriting | [`Net::route`], [`Net::send_l3`] or [`Net::send_cached`] |
//! | an error to tell its sender | [`Net::icmp_error`] |
//! | from the host behind a port | [`Net::companion_input`] |
//! | time passes | [`Net::tick`] |
//!
//! **Counting.** Whatever takes a frame by value ends it: it counts the frame's verdict in [`Net::counters`], or counts it as
//! held and the verdict later. What returns an error leaves the frame and its verdict to the caller. Frames made here are
//! counted as generated here. The caller counts `received`.

mod announce;
mod arp;
mod control;
mod echo;
mod forward;
mod hints;
mod icmp;
mod iface;
mod ingress;
#[cfg(test)]
mod kernel;
mod limit;
mod lpm;
mod nd;
mod neigh;
mod route;
mod send;
#[cfg(test)]
mod testing;

use std::collections::VecDeque;
use std::net::IpAddr;

use ripvs_packet::Frame;

pub use control::{NetDelta, NetMsg};
pub use forward::{decrement_ttl, Outgoing};
pub use icmp::{IcmpKind, Offender, OwnError};
pub use iface::{IfAddr, Iface, Ifaces, Mac, MacKind, LO, MAC_BROADCAST};
pub use ingress::{DstKind, Ingress};
pub use limit::IcmpLimit;
pub use lpm::{common_prefix, Lpm, Prefix};
pub use neigh::{Heard, Neigh, NeighEntry, NeighId, Neighbours, Nud, Replace};
pub use route::{is_link_local, source_for, LocalKind, RouteError, RouteHit, RouteSpec, Routes};
pub use send::Sent;
pub(crate) use send::{encapsulate, UNTAGGED};

use crate::types::Time;
use crate::verdict::{Counters, Verdict};
use announce::Announcements;
use limit::Limiter;

/// Settings and bounds of the network layer.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Whether this worker asks for neighbours and announces addresses: true for one worker of all.
    pub resolver: bool,
    /// Most neighbour entries, up to 65,535.
    pub neigh_max: usize,
    /// Most packets that wait for one neighbour; the oldest gives way.
    pub neigh_queue: usize,
    /// Most packets that wait for all neighbours together.
    pub neigh_waiting_max: usize,
    /// The limit on ICMP errors, `None` for no limit.
    pub icmp_limit: Option<IcmpLimit>,
    /// Where the identifications of our own packets begin: a random number, another one for each worker.
    pub seed: u32,
}

impl Default for NetConfig {
    fn default() -> Self {
        NetConfig {
            resolver: true,
            neigh_max: 4096,
            neigh_queue: 3,
            neigh_waiting_max: 1024,
            icmp_limit: Some(IcmpLimit::default()),
            seed: 0,
        }
    }
}

/// What became of a frame that was taken in. It is counted already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has its verdict.
    Done(Verdict),
    /// It, or the answer it was made into, waits for a neighbour.
    Held,
}

/// The network layer of one worker.
pub struct Net<F: Frame> {
    /// Every packet's verdict.
    pub counters: Counters,
    ifaces: Ifaces,
    routes: Routes,
    neighs: Neighbours<F>,
    config: NetConfig,
    limiter: Limiter,
    outbox: VecDeque<NetMsg>,
    /// Messages that found no room in the outbox; their subjects are asked for again by timers.
    outbox_overflows: u64,
    /// Addresses to announce.
    announce: Announcements,
    /// Neighbours that an operator made known while packets may have waited for them.
    to_flush: Vec<NeighId>,
    /// Identification of the next IPv4 packet of our own.
    ip_id: u16,
    /// Counts IPv6 packets cut into fragments.
    frag_id: u32,
    /// Errors that IPVS is to have a look at.
    own_errors: VecDeque<icmp::OwnError<F>>,
    /// Where packets of our own are put together.
    scratch: Box<[u8; icmp::SCRATCH]>,
}

/// Most messages that wait to be taken by [`Net::take_msg`].
const OUTBOX_MAX: usize = 1024;

impl<F: Frame> Net<F> {
    /// A network layer with lo alone.
    pub fn new(config: NetConfig) -> Self {
        let config_seed = config.seed;
        Net {
            counters: Counters::default(),
            ifaces: Ifaces::default(),
            routes: Routes::default(),
            neighs: Neighbours::new(config.neigh_max),
            limiter: Limiter::new(config.icmp_limit),
            config,
            outbox: VecDeque::with_capacity(OUTBOX_MAX),
            outbox_overflows: 0,
            announce: Announcements::default(),
            to_flush: Vec::new(),
            ip_id: config_seed as u16,
            frag_id: 0,
            own_errors: VecDeque::new(),
            scratch: Box::new([0; icmp::SCRATCH]),
        }
    }

    /// The interfaces.
    pub fn ifaces(&self) -> &Ifaces {
        &self.ifaces
    }

    /// The routes.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// The neighbours.
    pub fn neighbours(&self) -> &Neighbours<F> {
        &self.neighs
    }

    /// The neighbours as listings show them.
    pub fn neigh_entries(&self, now: Time) -> Vec<NeighEntry> {
        self.neighs.iter().map(|n| n.entry(now)).collect()
    }

    /// Changes whenever interfaces, addresses or routes do, but for services' addresses that nobody had (see
    /// [`Net::vip_add`]): a [`RouteHit`] or [`NeighId`] kept from another generation must be looked up again.
    #[inline]
    pub fn generation(&self) -> u32 {
        self.routes.generation()
    }

    /// The way to `dst`, for packets from `src` where that is known (routes with `from`). `None`: no route, or `dst` is a
    /// connected network's broadcast address.
    #[inline]
    pub fn route(&self, dst: IpAddr, src: Option<IpAddr>) -> Option<RouteHit> {
        self.routes.lookup(dst, src)
    }

    /// Whether `addr` is ours: an interface's address, in a prefix on lo, or a VIP.
    #[inline]
    pub fn is_local(&self, addr: IpAddr) -> bool {
        self.routes.local(addr) == Some(LocalKind::Unicast)
    }

    /// Whether `addr` is a service's.
    #[inline]
    pub fn is_vip(&self, addr: IpAddr) -> bool {
        self.routes.is_vip(addr)
    }

    /// Addresses of services, as guesses.
    #[inline(always)]
    pub(crate) fn vip_hints(&self) -> &hints::Hints {
        self.routes.vip_hints()
    }

    /// The source address of a packet that we send to `dst` by this way; `None` where we have none of its family.
    pub fn source_for(&self, dst: IpAddr, hit: &RouteHit) -> Option<IpAddr> {
        source_for(&self.ifaces, dst, hit)
    }

    /// The identification for another IPv4 packet of our own making.
    pub fn next_ip_id(&mut self) -> u16 {
        self.ip_id = self.ip_id.wrapping_add(1);
        self.ip_id
    }

    /// The identification for another IPv6 packet that is cut into fragments: all of them once, in no order that an outsider
    /// could guess from having seen a few (RFC 7739 section 5.3, a permutation of a counter).
    pub fn next_frag_id(&mut self) -> u32 {
        self.frag_id = self.frag_id.wrapping_add(1);
        let mut id = self.frag_id ^ self.config.seed;
        id = (id ^ (id >> 16)).wrapping_mul(0x21f0_aaad);
        id = (id ^ (id >> 15)).wrapping_mul(0x735a_2d97);
        id ^ (id >> 15)
    }

    /// The next message for other workers. Where it goes: [`NetMsg::for_resolver`].
    pub fn take_msg(&mut self) -> Option<NetMsg> {
        self.outbox.pop_front()
    }

    /// Messages lost because nobody took them in time.
    pub fn outbox_overflows(&self) -> u64 {
        self.outbox_overflows
    }

    fn post(&mut self, msg: NetMsg) {
        if self.outbox.len() < OUTBOX_MAX {
            self.outbox.push_back(msg);
        } else {
            self.outbox_overflows += 1;
        }
    }
}
