//! Never queue: the first that has no active connection, whatever its weight; if there is none, as sed.

use super::least::{ByRank, Rank, Ratio};
use super::pool::{Member, Pool};

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Nq {
    Idle,
    Busy(Ratio),
}

impl Rank for Nq {
    fn of(member: &Member) -> Option<Nq> {
        let ratio = Ratio::of(member, u64::from(member.active) + 1)?;
        Some(if member.active == 0 {
            Nq::Idle
        } else {
            Nq::Busy(ratio)
        })
    }

    fn beats(&self, other: &Nq) -> bool {
        match (self, other) {
            (Nq::Idle, Nq::Busy(_)) => true,
            (Nq::Busy(a), Nq::Busy(b)) => a.less(b),
            (_, Nq::Idle) => false,
        }
    }
}

pub(super) fn new(pool: &Pool) -> ByRank<Nq> {
    ByRank::new(pool)
}
