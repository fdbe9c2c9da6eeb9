//! Traffic counters of one dest at one worker, or of all its traffic: a cache line that its worker alone writes and the
//! control thread reads at any time. Summing over workers, rates and zeroing are the control thread's business.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{fence, AtomicU32, AtomicU64};

use crate::hop::HopNumber;

/// What one worker counted for one dest or altogether. A dest's latest packets are not in it yet: see
/// [`Account::snapshot`](crate::ledger::Account::snapshot).
///
/// Writes are a load and a store, not a locked addition: there is one writer.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Tally {
    conns: AtomicU64,
    in_packets: AtomicU64,
    out_packets: AtomicU64,
    in_bytes: AtomicU64,
    out_bytes: AtomicU64,
    active: AtomicU32,
    inactive: AtomicU32,
    persistent: AtomicU32,
    refs: AtomicU32,
    /// The way to the dest that its last new connection found, for the next one.
    hop: AtomicU32,
    /// How often latest packets began to be carried here, and were: odd while they are.
    carries: AtomicU32,
}

/// The figures of a [`Tally`] at one moment; bytes are those of IP packets, headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TallySnapshot {
    /// Connections scheduled.
    pub conns: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets from servers.
    pub out_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes from servers.
    pub out_bytes: u64,
    /// Connections that count as active now.
    pub active: u32,
    /// Connections that count as inactive now.
    pub inactive: u32,
    /// Persistence templates now.
    pub persistent: u32,
    /// Connection records of any kind that refer to the dest now.
    pub refs: u32,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

fn change(gauge: &AtomicU32, by: i32) {
    gauge.store(gauge.load(Relaxed).wrapping_add_signed(by), Relaxed);
}

impl Tally {
    /// Counts a new connection.
    pub fn conn(&self) {
        add(&self.conns, 1);
    }

    /// Counts a packet of `bytes` from a client.
    pub fn inbound(&self, bytes: usize) {
        add(&self.in_packets, 1);
        add(&self.in_bytes, bytes as u64);
    }

    /// Counts a packet of `bytes` from a server.
    pub fn outbound(&self, bytes: usize) {
        add(&self.out_packets, 1);
        add(&self.out_bytes, bytes as u64);
    }

    /// Counts packets and bytes from clients, packets and bytes from servers.
    pub fn add(&self, counts: [u64; 4]) {
        let counters = [
            &self.in_packets,
            &self.in_bytes,
            &self.out_packets,
            &self.out_bytes,
        ];
        for (counter, n) in counters.into_iter().zip(counts) {
            add(counter, n);
        }
    }

    /// Changes the number of active connections.
    pub fn active(&self, by: i32) {
        change(&self.active, by);
    }

    /// Changes the number of inactive connections.
    pub fn inactive(&self, by: i32) {
        change(&self.inactive, by);
    }

    /// Changes the number of persistence templates.
    pub fn persistent(&self, by: i32) {
        change(&self.persistent, by);
    }

    /// Changes the number of records that refer to the dest.
    pub fn refs(&self, by: i32) {
        change(&self.refs, by);
    }

    /// Does something that moves counts from elsewhere to here, so that [`Tally::as_one`] sees all of it or nothing.
    pub(crate) fn carry(&self, moves: impl FnOnce()) {
        let carries = self.carries.load(Relaxed);
        self.carries.store(carries.wrapping_add(1), Relaxed);
        fence(Release);
        moves();
        self.carries.store(carries.wrapping_add(2), Release);
    }

    /// Reads something together with this, as of one moment with regard to what is carried from one to the other.
    pub(crate) fn as_one<T>(&self, read: impl Fn() -> T) -> T {
        loop {
            let before = self.carries.load(Acquire);
            let seen = read();
            fence(Acquire);
            if before.is_multiple_of(2) && self.carries.load(Relaxed) == before {
                return seen;
            }
            std::thread::yield_now();
        }
    }

    /// The way to the dest.
    #[inline]
    pub(crate) fn hop(&self) -> HopNumber {
        HopNumber(self.hop.load(Relaxed))
    }

    /// Notes the way to the dest.
    #[inline]
    pub(crate) fn set_hop(&self, hop: HopNumber) {
        self.hop.store(hop.0, Relaxed);
    }

    /// Sets all to nought, while no worker uses it.
    pub(crate) fn clear(&self) {
        for counter in [
            &self.conns,
            &self.in_packets,
            &self.out_packets,
            &self.in_bytes,
            &self.out_bytes,
        ] {
            counter.store(0, Relaxed);
        }
        for gauge in [
            &self.active,
            &self.inactive,
            &self.persistent,
            &self.refs,
            &self.hop,
        ] {
            gauge.store(0, Relaxed);
        }
    }

    /// The figures now.
    pub fn snapshot(&self) -> TallySnapshot {
        TallySnapshot {
            conns: self.conns.load(Relaxed),
            in_packets: self.in_packets.load(Relaxed),
            out_packets: self.out_packets.load(Relaxed),
            in_bytes: self.in_bytes.load(Relaxed),
            out_bytes: self.out_bytes.load(Relaxed),
            active: self.active.load(Relaxed),
            inactive: self.inactive.load(Relaxed),
            persistent: self.persistent.load(Relaxed),
            refs: self.refs.load(Relaxed),
        }
    }
}

impl std::iter::Sum for TallySnapshot {
    fn sum<I: Iterator<Item = TallySnapshot>>(snapshots: I) -> TallySnapshot {
        let mut sum = TallySnapshot::default();
        snapshots.for_each(|snapshot| sum += snapshot);
        sum
    }
}

impl std::ops::AddAssign for TallySnapshot {
    fn add_assign(&mut self, other: TallySnapshot) {
        self.conns += other.conns;
        self.in_packets += other.in_packets;
        self.out_packets += other.out_packets;
        self.in_bytes += other.in_bytes;
        self.out_bytes += other.out_bytes;
        self.active = self.active.wrapping_add(other.active);
        self.inactive = self.inactive.wrapping_add(other.inactive);
        self.persistent = self.persistent.wrapping_add(other.persistent);
        self.refs = self.refs.wrapping_add(other.refs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_is_one_cache_line_and_sums_over_workers() {
        assert_eq!(std::mem::size_of::<Tally>(), 64);
        let (one, two) = (Tally::default(), Tally::default());
        one.inbound(60);
        two.inbound(40);
        two.active(1);
        one.active(2);
        one.active(-1);
        let mut sum = one.snapshot();
        sum += two.snapshot();
        assert_eq!((sum.in_packets, sum.in_bytes, sum.active), (2, 100, 2));
    }
}
