//! Overflow: the greatest weight takes all until its active connections exceed its weight, then the next.

use super::least::{ByRank, Rank, Ratio};
use super::pool::{Member, Pool};

#[derive(Clone, Copy, PartialEq)]
pub(super) struct Ovf;

impl Rank for Ovf {
    const FIXED: bool = true;

    fn of(member: &Member) -> Option<Ratio> {
        let room = i64::from(member.active) <= i64::from(member.weight);
        (member.available() && room).then_some(Ratio::heaviest(member))
    }
}

pub(super) fn new(pool: &Pool) -> ByRank<Ovf> {
    ByRank::new(pool)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{compare, group, key, picks, Model};
    use super::super::PickKey;
    use super::*;
    use crate::spec::SchedKind;
    use crate::types::DestId;

    /// ip_vs_ovf.c: the most by strict comparison down the list.
    struct Loop;

    impl Model for Loop {
        fn pick(&mut self, list: &[Member], _key: &PickKey) -> Option<DestId> {
            let mut most: Option<(i32, &Member)> = None;
            for m in list {
                if m.overloaded || m.active as i32 > m.weight || m.weight == 0 {
                    continue;
                }
                if most.is_none_or(|(w, _)| m.weight > w) {
                    most = Some((m.weight, m));
                }
            }
            most.map(|(_, m)| m.id)
        }
    }

    #[test]
    fn picks_as_the_kernels_loop_does() {
        compare(SchedKind::Ovf, 0, |_, _| key(), || Loop, 2000);
    }

    #[test]
    fn picks_what_the_kernel_picked() {
        let dests = [(11, 4), (12, 9), (13, 6), (14, 0)];
        let mut group = group(SchedKind::Ovf, 0, &dests);
        assert_eq!(
            picks(&mut group, [key(); 21]),
            [12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 13, 13, 13, 13, 13, 13, 13, 11, 11, 11, 11]
        );
        // Connections 1 to 3 were reset.
        group.set_load(DestId(12), 7, 3);
        assert_eq!(picks(&mut group, [key(); 4]), [12, 12, 12, 11]);
        group.edit(DestId(14), 12);
        assert_eq!(picks(&mut group, [key(); 10]), [14; 10]);
    }
}
