//! Counters and rates. Counters are those of the moment, where the kernel shows those of its last sum; rates are a moving
//! average over sums of every two seconds, by the kernel's arithmetic (net/netfilter/ipvs/ip_vs_est.c, 6.1), its roundings
//! included. Zeroing moves a baseline; the workers' counters never go back.

use std::time::Duration;

use ripvs_api::ipvs::Stats;
use ripvs_core::ledger::Account;
use ripvs_core::tally::TallySnapshot;

/// Time between two sums.
pub const PERIOD: Duration = Duration::from_secs(2);

/// Packets and connections are averaged in 1024ths, bytes in 32nds; both per two seconds.
const SCALES: [(u32, u64, u32); 5] = [
    (9, 0x1ff, 10),
    (9, 0x1ff, 10),
    (9, 0x1ff, 10),
    (4, 0xf, 5),
    (4, 0xf, 5),
];

/// The counters and rates of one service, one dest, or all traffic.
#[derive(Clone, Debug, Default)]
pub struct Estimator {
    /// What counts as zero.
    baseline: [u64; 5],
    /// At the sum before, for the rates.
    last: [u64; 5],
    /// Scaled averages.
    averages: [u64; 5],
}

/// What all workers counted for a dest.
pub fn total(accounts: &[Account]) -> TallySnapshot {
    accounts.iter().map(Account::snapshot).sum()
}

/// Connections, packets in and out, bytes in and out.
fn counts(now: &TallySnapshot) -> [u64; 5] {
    [
        now.conns,
        now.in_packets,
        now.out_packets,
        now.in_bytes,
        now.out_bytes,
    ]
}

impl Estimator {
    /// Takes the present counters in, every [`PERIOD`].
    pub fn tick(&mut self, now: &TallySnapshot) {
        let sums = counts(now);
        for (i, (shift, _, _)) in SCALES.iter().enumerate() {
            let rate = sums[i].wrapping_sub(self.last[i]) << shift;
            self.last[i] = sums[i];
            let step = (rate as i64).wrapping_sub(self.averages[i] as i64) >> 2;
            self.averages[i] = self.averages[i].wrapping_add_signed(step);
        }
    }

    /// Makes the present counters the new zero, and the rates nought.
    pub fn zero(&mut self, now: &TallySnapshot) {
        self.baseline = counts(now);
        self.last = self.baseline;
        self.averages = [0; 5];
    }

    /// What is counted by the present counters comes in besides, with what it has counted before.
    pub fn came(&mut self, before: &TallySnapshot) {
        self.shift(before, u64::wrapping_add);
    }

    /// What is counted by the present counters goes, and what it has counted stays.
    pub fn went(&mut self, counted: &TallySnapshot) {
        self.shift(counted, u64::wrapping_sub);
    }

    fn shift(&mut self, by: &TallySnapshot, change: fn(u64, u64) -> u64) {
        for (i, by) in counts(by).into_iter().enumerate() {
            self.baseline[i] = change(self.baseline[i], by);
            self.last[i] = change(self.last[i], by);
        }
    }

    /// What listings show.
    pub fn stats(&self, now: &TallySnapshot) -> Stats {
        let sums = counts(now);
        let count = |i: usize| sums[i].wrapping_sub(self.baseline[i]);
        let rate = |i: usize| {
            let (_, round, shift) = SCALES[i];
            self.averages[i].wrapping_add(round) >> shift
        };
        Stats {
            conns: count(0),
            inpkts: count(1),
            outpkts: count(2),
            inbytes: count(3),
            outbytes: count(4),
            cps: rate(0),
            inpps: rate(1),
            outpps: rate(2),
            inbps: rate(3),
            outbps: rate(4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(conns: u64, in_bytes: u64) -> TallySnapshot {
        TallySnapshot {
            conns,
            in_bytes,
            ..TallySnapshot::default()
        }
    }

    #[test]
    fn counters_are_those_of_the_moment() {
        let mut estimator = Estimator::default();
        estimator.tick(&snapshot(7, 100));
        let stats = estimator.stats(&snapshot(9, 130));
        assert_eq!((stats.conns, stats.inbytes), (9, 130));
    }

    #[test]
    fn a_rate_rises_and_falls_by_a_quarter_of_the_difference() {
        // 100 connections in the first two seconds: 50 a second, a quarter of which is 12.5, shown with the kernel's
        // rounding; then nothing more.
        let mut estimator = Estimator::default();
        let now = snapshot(100, 0);
        estimator.tick(&now);
        assert_eq!(estimator.stats(&now).cps, 12);
        estimator.tick(&now);
        assert_eq!(estimator.stats(&now).cps, 9);
        for _ in 0..40 {
            estimator.tick(&now);
        }
        assert_eq!(estimator.stats(&now).cps, 0);
    }

    #[test]
    fn a_steady_rate_is_reached() {
        let mut estimator = Estimator::default();
        for n in 1..60 {
            estimator.tick(&snapshot(20 * n, 3000 * n));
        }
        let stats = estimator.stats(&TallySnapshot::default());
        assert_eq!((stats.cps, stats.inbps), (10, 1500));
    }

    #[test]
    fn zeroing_moves_the_baseline_to_the_moment() {
        let mut estimator = Estimator::default();
        estimator.tick(&snapshot(90, 1));
        estimator.zero(&snapshot(100, 1));
        assert_eq!(estimator.stats(&snapshot(100, 1)), Stats::default());
        estimator.tick(&snapshot(103, 1));
        let stats = estimator.stats(&snapshot(103, 1));
        assert_eq!((stats.conns, stats.cps), (3, 0));
    }
}
