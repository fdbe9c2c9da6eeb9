//! Least connections: the least overhead, whatever the weight.

use super::least::{ByRank, Rank, Ratio};
use super::pool::{Member, Pool};

#[derive(Clone, Copy, PartialEq)]
pub(super) struct Lc;

impl Rank for Lc {
    fn of(member: &Member) -> Option<Ratio> {
        let load = Ratio::whole(member.overhead());
        member.available().then_some(load)
    }
}

pub(super) fn new(pool: &Pool) -> ByRank<Lc> {
    ByRank::new(pool)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{compare, group, key, picks, Model};
    use super::super::PickKey;
    use super::*;
    use crate::spec::SchedKind;
    use crate::types::DestId;

    /// ip_vs_lc.c: `least` by strict comparison down the list.
    struct Loop;

    impl Model for Loop {
        fn pick(&mut self, list: &[Member], _key: &PickKey) -> Option<DestId> {
            let mut least: Option<(u32, &Member)> = None;
            for m in list {
                if m.overloaded || m.weight == 0 {
                    continue;
                }
                let load = (m.active << 8) + m.inactive;
                if least.is_none_or(|(least, _)| load < least) {
                    least = Some((load, m));
                }
            }
            least.map(|(_, m)| m.id)
        }
    }

    #[test]
    fn picks_as_the_kernels_loop_does() {
        compare(SchedKind::Lc, 0, |_, _| key(), || Loop, 2000);
    }

    #[test]
    fn picks_what_the_kernel_picked() {
        let mut group = group(SchedKind::Lc, 0, &[(11, 1), (12, 3), (13, 0), (14, 1)]);
        assert_eq!(
            picks(&mut group, [key(); 10]),
            [14, 12, 11, 14, 12, 11, 14, 12, 11, 14]
        );
        // After resets.
        group.set_load(DestId(14), 2, 2);
        assert_eq!(picks(&mut group, [key(); 6]), [14, 12, 11, 14, 12, 11]);
        group.set_load(DestId(12), 3, 2);
        group.set_load(DestId(11), 4, 1);
        group.remove(DestId(14));
        assert_eq!(
            picks(&mut group, [key(); 18]),
            [12, 11, 12, 11, 12, 11, 12, 11, 12, 11, 12, 11, 12, 11, 12, 11, 12, 11]
        );
    }
}
