//! Weighted failover: the greatest weight takes all.

use super::least::{ByRank, Rank, Ratio};
use super::pool::{Member, Pool};

#[derive(Clone, Copy, PartialEq)]
pub(super) struct Fo;

impl Rank for Fo {
    const FIXED: bool = true;

    fn of(member: &Member) -> Option<Ratio> {
        member.available().then_some(Ratio::heaviest(member))
    }
}

pub(super) fn new(pool: &Pool) -> ByRank<Fo> {
    ByRank::new(pool)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{compare, group, key, picks, Model};
    use super::super::PickKey;
    use super::*;
    use crate::spec::SchedKind;
    use crate::types::DestId;

    /// ip_vs_fo.c: the most by strict comparison down the list.
    struct Loop;

    impl Model for Loop {
        fn pick(&mut self, list: &[Member], _key: &PickKey) -> Option<DestId> {
            let mut most: Option<(i32, &Member)> = None;
            for m in list {
                if !m.overloaded && m.weight > most.map_or(0, |(w, _)| w) {
                    most = Some((m.weight, m));
                }
            }
            most.map(|(_, m)| m.id)
        }
    }

    #[test]
    fn picks_as_the_kernels_loop_does() {
        compare(SchedKind::Fo, 0, |_, _| key(), || Loop, 2000);
    }

    #[test]
    fn picks_what_the_kernel_picked() {
        let mut group = group(SchedKind::Fo, 0, &[(11, 10), (12, 30), (13, 20)]);
        assert_eq!(picks(&mut group, [key(); 10]), [12; 10]);
        group.edit(DestId(12), 0);
        assert_eq!(picks(&mut group, [key(); 10]), [13; 10]);
        group.edit(DestId(11), 20);
        assert_eq!(picks(&mut group, [key(); 6]), [13; 6]);
        group.set_overloaded(DestId(13), true);
        assert_eq!(picks(&mut group, [key(); 3]), [11; 3]);
        group.set_overloaded(DestId(11), true);
        assert_eq!(picks(&mut group, [key(); 2]), [0; 2]);
        group.edit(DestId(12), 1);
        assert_eq!(picks(&mut group, [key(); 2]), [12; 2]);
    }
}
