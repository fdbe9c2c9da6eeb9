//! Weighted least connections: the least overhead for its weight. The default scheduler.

use super::least::{ByRank, Rank, Ratio};
use super::pool::{Member, Pool};

/// Overhead by weight; lblc and lblcr rank by it too.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Wlc;

impl Rank for Wlc {
    fn of(member: &Member) -> Option<Ratio> {
        Ratio::of(member, member.overhead())
    }
}

pub(super) fn new(pool: &Pool) -> ByRank<Wlc> {
    ByRank::new(pool)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{compare, group, key, member, picks, Model};
    use super::super::{Group, PickKey};
    use super::*;
    use crate::spec::SchedKind;
    use crate::types::DestId;

    /// ip_vs_wlc.c: `least` by strict comparison down the list.
    struct Loop;

    impl Model for Loop {
        fn pick(&mut self, list: &[Member], _key: &PickKey) -> Option<DestId> {
            let mut least: Option<(u64, &Member)> = None;
            for m in list {
                if m.overloaded || m.weight == 0 {
                    continue;
                }
                let load = u64::from((m.active << 8) + m.inactive);
                if least.is_none_or(|(least, l)| least * m.weight as u64 > load * l.weight as u64) {
                    least = Some((load, m));
                }
            }
            least.map(|(_, m)| m.id)
        }
    }

    #[test]
    fn picks_as_the_kernels_loop_does() {
        compare(SchedKind::Wlc, 0, |_, _| key(), || Loop, 2000);
    }

    #[test]
    fn picks_what_the_kernel_picked() {
        let dests = [(11, 1), (12, 2), (13, 4), (14, 0)];
        let mut group = group(SchedKind::Wlc, 0, &dests);
        assert_eq!(
            picks(&mut group, [key(); 15]),
            [13, 12, 11, 13, 13, 12, 13, 13, 12, 11, 13, 13, 12, 13, 13]
        );
        // Connections 1 to 6 were reset.
        group.set_load(DestId(13), 6, 3);
        group.set_load(DestId(12), 2, 2);
        group.set_load(DestId(11), 1, 1);
        assert_eq!(
            picks(&mut group, [key(); 9]),
            [12, 11, 13, 12, 13, 13, 12, 11, 13]
        );
        group.edit(DestId(14), 3);
        assert_eq!(
            picks(&mut group, [key(); 12]),
            [14, 14, 14, 14, 14, 14, 14, 14, 13, 12, 14, 13]
        );
    }

    #[test]
    fn picks_what_the_kernel_picked_for_udp() {
        let mut group = group(SchedKind::Wlc, 0, &[(11, 1), (12, 1), (13, 2)]);
        let udp = PickKey { proto: 17, ..key() };
        assert_eq!(
            picks(&mut group, [udp; 20]),
            [13, 12, 11, 13, 13, 12, 11, 13, 13, 12, 11, 13, 13, 12, 11, 13, 13, 12, 11, 13]
        );
    }

    #[test]
    fn no_load_and_weight_are_too_great_to_compare() {
        let mut group = group(SchedKind::Wlc, 0, &[(1, i32::MAX), (2, i32::MAX - 1)]);
        group.set_load(DestId(1), u32::MAX - 1, 1);
        group.set_load(DestId(2), u32::MAX - 1, 1);
        assert_eq!(picks(&mut group, [key()]), [1]);
    }

    #[test]
    fn staggered_workers_break_ties_at_their_parts_of_the_list() {
        let first: Vec<Vec<u32>> = (0..3)
            .map(|worker| {
                let mut group = Group::new(Some(SchedKind::Wlc), 0, worker, 3);
                (0..6).for_each(|n| group.add(member(n, 1)));
                picks(&mut group, [key(); 7])
            })
            .collect();
        assert_eq!(first[0], [5, 4, 3, 2, 1, 0, 5]);
        assert_eq!(first[1], [3, 2, 1, 0, 5, 4, 3]);
        assert_eq!(first[2], [1, 0, 5, 4, 3, 2, 1]);
    }
}
