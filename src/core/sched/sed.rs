//! Shortest expected delay: the least (active connections + 1) for its weight.

use super::least::{ByRank, Rank, Ratio};
use super::pool::{Member, Pool};

#[derive(Clone, Copy, PartialEq)]
pub(super) struct Sed;

impl Rank for Sed {
    // Connections without states, UDP's, are never active: one dest then has them all.
    const FIXED: bool = true;

    fn of(member: &Member) -> Option<Ratio> {
        Ratio::of(member, u64::from(member.active) + 1)
    }
}

pub(super) fn new(pool: &Pool) -> ByRank<Sed> {
    ByRank::new(pool)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{compare, group, key, picks, Model};
    use super::super::PickKey;
    use super::*;
    use crate::spec::SchedKind;
    use crate::types::DestId;

    /// ip_vs_sed.c: `least` by strict comparison down the list.
    struct Loop;

    impl Model for Loop {
        fn pick(&mut self, list: &[Member], _key: &PickKey) -> Option<DestId> {
            let mut least: Option<(u64, &Member)> = None;
            for m in list {
                if m.overloaded || m.weight == 0 {
                    continue;
                }
                let load = u64::from(m.active + 1);
                if least.is_none_or(|(least, l)| least * m.weight as u64 > load * l.weight as u64) {
                    least = Some((load, m));
                }
            }
            least.map(|(_, m)| m.id)
        }
    }

    #[test]
    fn picks_as_the_kernels_loop_does() {
        compare(SchedKind::Sed, 0, |_, _| key(), || Loop, 2000);
    }

    #[test]
    fn picks_what_the_kernel_picked() {
        let dests = [(11, 1), (12, 2), (13, 5), (14, 0)];
        let mut group = group(SchedKind::Sed, 0, &dests);
        assert_eq!(
            picks(&mut group, [key(); 20]),
            [13, 13, 12, 13, 13, 13, 12, 11, 13, 13, 12, 13, 13, 13, 12, 11, 13, 13, 12, 13]
        );
        // Connections 1 to 8 were reset.
        group.set_load(DestId(13), 8, 5);
        group.set_load(DestId(12), 3, 2);
        group.set_load(DestId(11), 1, 1);
        assert_eq!(
            picks(&mut group, [key(); 14]),
            [13, 13, 12, 11, 13, 13, 12, 13, 13, 13, 12, 11, 13, 13]
        );
    }
}
