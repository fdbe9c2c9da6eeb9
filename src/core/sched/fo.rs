//! Weighted failover: the greatest weight takes all.

use super::least::{ByRank, Rank};
use super::pool::{Member, Pool};

#[derive(Clone, Copy, PartialEq)]
pub(super) struct Fo(i32);

impl Rank for Fo {
    const FIXED: bool = true;

    fn of(member: &Member) -> Option<Fo> {
        member.available().then_some(Fo(member.weight))
    }

    fn beats(&self, other: &Fo) -> bool {
        self.0 > other.0
    }
}

pub(super) fn new(pool: &Pool) -> ByRank<Fo> {
    ByRank::new(pool)
}
