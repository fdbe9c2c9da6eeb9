//! Overflow: the greatest weight takes all until its active connections exceed its weight, then the next.

use super::least::{ByRank, Rank};
use super::pool::{Member, Pool};

#[derive(Clone, Copy, PartialEq)]
pub(super) struct Ovf(i32);

impl Rank for Ovf {
    const FIXED: bool = true;

    fn of(member: &Member) -> Option<Ovf> {
        let room = i64::from(member.active) <= i64::from(member.weight);
        (member.available() && room).then_some(Ovf(member.weight))
    }

    fn beats(&self, other: &Ovf) -> bool {
        self.0 > other.0
    }
}

pub(super) fn new(pool: &Pool) -> ByRank<Ovf> {
    ByRank::new(pool)
}
