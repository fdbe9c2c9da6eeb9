//! Weighted least connections: the least overhead for its weight. The default scheduler.

use super::least::{ByRank, Rank, Ratio};
use super::pool::{Member, Pool};

/// Overhead by weight; lblc and lblcr rank by it too.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Wlc(Ratio);

impl Rank for Wlc {
    fn of(member: &Member) -> Option<Wlc> {
        Ratio::of(member, member.overhead()).map(Wlc)
    }

    fn beats(&self, other: &Wlc) -> bool {
        self.0.less(&other.0)
    }
}

pub(super) fn new(pool: &Pool) -> ByRank<Wlc> {
    ByRank::new(pool)
}
