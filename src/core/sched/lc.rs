//! Least connections: the least overhead, whatever the weight.

use super::least::{ByRank, Rank};
use super::pool::{Member, Pool};

#[derive(Clone, Copy, PartialEq)]
pub(super) struct Lc(u64);

impl Rank for Lc {
    fn of(member: &Member) -> Option<Lc> {
        member.available().then_some(Lc(member.overhead()))
    }

    fn beats(&self, other: &Lc) -> bool {
        self.0 < other.0
    }
}

pub(super) fn new(pool: &Pool) -> ByRank<Lc> {
    ByRank::new(pool)
}
