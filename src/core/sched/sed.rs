//! Shortest expected delay: the least (active connections + 1) for its weight.

use super::least::{ByRank, Rank, Ratio};
use super::pool::{Member, Pool};

#[derive(Clone, Copy, PartialEq)]
pub(super) struct Sed(Ratio);

impl Rank for Sed {
    fn of(member: &Member) -> Option<Sed> {
        Ratio::of(member, u64::from(member.active) + 1).map(Sed)
    }

    fn beats(&self, other: &Sed) -> bool {
        self.0.less(&other.0)
    }
}

pub(super) fn new(pool: &Pool) -> ByRank<Sed> {
    ByRank::new(pool)
}
