//! Round robin: the next of the list after the last one picked.

use super::pool::{Member, Pool, Slot};
use super::tree::{Share, Sum, Tree};
use super::{Change, PickKey, Scheduler};

/// Whether one of the members may be chosen.
impl Sum for bool {
    const NONE: bool = false;

    fn of(_slot: Slot, member: &Member) -> bool {
        member.available()
    }

    fn join(first: &bool, second: &bool) -> bool {
        *first || *second
    }
}

/// Edits leave the cursor where it is; if its dest is taken out, it goes back to the one before, or before the head: then
/// a dest added at the head is next.
pub(super) struct Rr {
    tree: Tree<bool>,
    cursor: Option<Slot>,
}

impl Rr {
    pub(super) fn new(pool: &Pool) -> Rr {
        Rr {
            tree: Tree::new(pool),
            cursor: None,
        }
    }
}

impl Scheduler for Rr {
    fn update(&mut self, pool: &Pool, change: &Change) {
        if matches!(change, Change::Load(_)) {
            return;
        }
        self.tree.update(pool, change);
        match change {
            Change::Added(_) => {
                let moved = pool
                    .moves()
                    .iter()
                    .find(|(from, _)| Some(*from) == self.cursor);
                if let Some((_, to)) = moved {
                    self.cursor = Some(*to);
                }
            }
            Change::Removed(removed) if self.cursor == Some(removed.slot) => {
                self.cursor = removed.ahead;
            }
            _ => {}
        }
    }

    fn pick(&mut self, pool: &Pool, _key: &PickKey) -> Option<Slot> {
        // Mostly it is simply the next of the list, wherever a staggered worker began.
        let next = self.cursor.and_then(|cursor| pool.after(cursor));
        if next.is_some_and(|slot| pool.get(slot).is_some_and(Member::available)) {
            self.cursor = next;
            return next;
        }
        let available = |available: &bool| *available;
        let next = self.tree.next(self.cursor, available);
        self.cursor = Some(next.or_else(|| self.tree.next(None, available))?);
        self.cursor
    }

    fn guess(&self, pool: &Pool) -> Option<Slot> {
        let next = pool.after(self.cursor?)?;
        // Of the one behind it nothing can be said before this has come.
        pool.prefetch(pool.after(next)?);
        Some(next)
    }

    fn stagger(&mut self, pool: &Pool, worker: u16, workers: u16) {
        self.tree.share(Share { worker, workers }, pool);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{compare, group, key, member, picks, ListChange, Model};
    use super::super::Group;
    use super::*;
    use crate::spec::SchedKind;
    use crate::types::DestId;

    /// ip_vs_rr.c: `cursor` is the place of the last one picked.
    #[derive(Default)]
    struct Loop(Option<usize>);

    impl Model for Loop {
        fn changed(&mut self, _list: &[Member], change: &ListChange) {
            match (change, self.0) {
                (ListChange::Added, Some(cursor)) => self.0 = Some(cursor + 1),
                (ListChange::Removed(_, at), Some(cursor)) if *at <= cursor => {
                    self.0 = cursor.checked_sub(1);
                }
                _ => {}
            }
        }

        fn pick(&mut self, list: &[Member], _key: &PickKey) -> Option<DestId> {
            let first = self.0.map_or(0, |cursor| cursor + 1);
            for i in (first..list.len()).chain(0..first) {
                if list[i].weight > 0 && !list[i].overloaded {
                    self.0 = Some(i);
                    return Some(list[i].id);
                }
            }
            None
        }
    }

    #[test]
    fn picks_as_the_kernels_loop_does() {
        compare(SchedKind::Rr, 0, |_, _| key(), Loop::default, 3000);
    }

    #[test]
    fn picks_what_the_kernel_picked() {
        let mut group = group(SchedKind::Rr, 0, &[(11, 1), (12, 1), (13, 1)]);
        assert_eq!(
            picks(&mut group, [key(); 10]),
            [13, 12, 11, 13, 12, 11, 13, 12, 11, 13]
        );
        group.edit(DestId(12), 0);
        group.edit(DestId(13), 5);
        assert_eq!(picks(&mut group, [key(); 6]), [11, 13, 11, 13, 11, 13]);
        group.add(member(14, 1));
        assert_eq!(picks(&mut group, [key(); 7]), [11, 14, 13, 11, 14, 13, 11]);
        group.remove(DestId(11));
        group.edit(DestId(12), 1);
        assert_eq!(
            picks(&mut group, [key(); 9]),
            [14, 13, 12, 14, 13, 12, 14, 13, 12]
        );
    }

    #[test]
    fn staggered_workers_begin_at_their_parts_of_the_list() {
        let mut first = Vec::new();
        for worker in 0..4 {
            let mut group = Group::new(Some(SchedKind::Rr), 0, worker, 4);
            (0..8).for_each(|n| group.add(member(n, 1)));
            first.push(picks(&mut group, [key(); 9]));
        }
        assert_eq!(first[0], [7, 6, 5, 4, 3, 2, 1, 0, 7]);
        assert_eq!(first[1], [5, 4, 3, 2, 1, 0, 7, 6, 5]);
        assert_eq!(first[3][..3], [1, 0, 7]);
    }

    #[test]
    fn a_dest_added_after_the_head_was_taken_out_is_next_as_with_the_kernel() {
        let mut group = group(SchedKind::Rr, 0, &[(11, 1), (12, 1), (13, 1)]);
        assert_eq!(picks(&mut group, [key()]), [13]);
        group.remove(DestId(13));
        group.add(member(14, 1));
        assert_eq!(picks(&mut group, [key(); 5]), [14, 12, 11, 14, 12]);
        group.remove(DestId(12));
        group.add(member(15, 1));
        assert_eq!(picks(&mut group, [key(); 5]), [11, 15, 14, 11, 15]);
    }

    #[test]
    fn a_worker_that_schedules_alone_again_keeps_the_kernels_order() {
        let mut group = Group::new(Some(SchedKind::Rr), 0, 2, 4);
        group.set_share(0, 1);
        (0..8).for_each(|n| group.add(member(n, 1)));
        assert_eq!(picks(&mut group, [key(); 9]), [7, 6, 5, 4, 3, 2, 1, 0, 7]);
    }
}
