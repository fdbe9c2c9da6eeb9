//! Finds candidates by hash: buckets of one cache line with twelve entries, each an 8-bit tag and a 32-bit number. Knows
//! nothing of records: who asks compares them. A look-up reads one bucket, seldom a neighbour, and those records only whose
//! tag fits (a wrong one in 255).
//!
//! Laid out once for the most entries there can be, at half load for IPv4 and seven tenths for IPv6, so that it never grows.
//! A full bucket's entries go to the next ones; each bucket counts the entries that passed it by, and a search goes on only
//! where that is not 0. So removing leaves nothing behind (the scheme of folly's F14, with neighbours instead of a second
//! hash, since the neighbouring line is the one that hardware fetches along).
//!
//! Entries of equal keys are found newest first, as the kernel's chains have them.

use std::io;

use ripvs_arch::{equal_bytes, prefetch_read, HugeSlice};

/// Entries in a bucket.
const SLOTS: usize = 12;
/// Of equal entries, so many are kept. More come only of clients that reuse a tuple whose connection cannot go (the kernel
/// gives such a packet another connection each time); what falls off is not found any more, and ends by its time.
const MOST_EQUAL: usize = 16;

/// Buckets of a page of the smallest kind.
const PAGE: usize = 4096 / size_of::<Bucket>();
/// Buckets whose pages are put in place in one step: one huge page at most, or 64 small ones.
const WARM_STEP: usize = 64 * PAGE;

/// Words 0 to 2: tags, 0 where free. Word 3: entries that passed by. Words 4 to 15: entries.
type Bucket = [u32; 16];

const PASSED: usize = 3;
const ENTRIES: usize = 4;

/// A bit for each slot with this tag.
#[inline(always)]
fn slots_with(bucket: &Bucket, tag: u8) -> u32 {
    let [a, b, c, d, ..] = *bucket;
    u32::from(equal_bytes([a, b, c, d], tag)) & 0xfff
}

#[inline(always)]
fn entry(bucket: &Bucket, slot: usize) -> u32 {
    bucket[ENTRIES + slot]
}

fn set(bucket: &mut Bucket, slot: usize, tag: u8, entry: u32) {
    let shift = 8 * (slot % 4);
    let tags = &mut bucket[slot / 4];
    *tags = *tags & !(0xff << shift) | u32::from(tag) << shift;
    bucket[ENTRIES + slot] = entry;
}

#[inline]
fn passed(bucket: &Bucket) -> u32 {
    bucket[PASSED]
}

/// The first slot of a set of them.
fn first(slots: u32) -> usize {
    slots.trailing_zeros() as usize
}

#[inline(always)]
fn tag(hash: u64) -> u8 {
    (hash as u8).max(1)
}

/// The buckets.
#[derive(Debug)]
pub(super) struct Index {
    buckets: HugeSlice<Bucket>,
    /// All before have had their pages put in place.
    warm: usize,
}

impl Index {
    /// An index with room for `slots` entries. For good speed there should be no more than three for four slots.
    ///
    /// # Errors
    /// There is not enough memory.
    pub(super) fn new(slots: u64) -> io::Result<Index> {
        let count = slots.div_ceil(SLOTS as u64).clamp(1, u64::from(u32::MAX));
        Ok(Index {
            buckets: HugeSlice::zeroed(count as usize)?,
            warm: 0,
        })
    }

    /// Has some more of the memory put in place, of which entries would otherwise have the kernel clear a page each, at first.
    /// To be called now and then.
    pub(super) fn warm_up(&mut self) {
        let end = self.buckets.len().min(self.warm + WARM_STEP);
        for at in (self.warm..end).step_by(PAGE) {
            self.buckets.touch(at);
        }
        self.warm = end;
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        (((hash >> 32) * self.buckets.len() as u64) >> 32) as usize
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.buckets.len() {
            0
        } else {
            at + 1
        }
    }

    /// The first entry, newest first, of this hash that `fits`.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut fits: impl FnMut(u32) -> bool) -> Option<u32> {
        let (tag, mut at) = (tag(hash), self.home(hash));
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            let mut slots = slots_with(bucket, tag);
            while slots != 0 {
                let found = entry(bucket, first(slots));
                if fits(found) {
                    return Some(found);
                }
                slots &= slots - 1;
            }
            if passed(bucket) == 0 {
                return None;
            }
            at = self.after(at);
        }
        None
    }

    /// The entry that is most likely looked for, judged by tag alone, in the home bucket.
    #[inline]
    pub(super) fn candidate(&self, hash: u64) -> Option<u32> {
        let bucket = &self.buckets[self.home(hash)];
        let slots = slots_with(bucket, tag(hash));
        (slots != 0).then(|| entry(bucket, first(slots)))
    }

    /// Begins to fetch the home bucket.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        prefetch_read(&self.buckets[self.home(hash)]);
    }

    /// Puts an entry before all equal ones (those that `same` is true of), if there are any.
    pub(super) fn insert(&mut self, hash: u64, new: u32, mut same: impl FnMut(u32) -> bool) {
        let (tag, home) = (tag(hash), self.home(hash));
        let (mut at, mut carried, mut equal) = (home, new, 0);
        loop {
            let next = self.after(at);
            let bucket = &mut self.buckets[at];
            let free = slots_with(bucket, 0);
            let mut slots = slots_with(bucket, tag);
            // Each equal entry makes way for the newer one, as long as no free slot comes before it.
            while slots != 0 && (free == 0 || first(slots) < first(free)) {
                let slot = first(slots);
                let older = entry(bucket, slot);
                if same(older) {
                    set(bucket, slot, tag, carried);
                    carried = older;
                    equal += 1;
                    if equal == MOST_EQUAL {
                        self.unpass(home, at);
                        return;
                    }
                }
                slots &= slots - 1;
            }
            if free != 0 {
                set(bucket, first(free), tag, carried);
                return;
            }
            bucket[PASSED] += 1;
            at = next;
        }
    }

    /// Takes an entry out; false if it is not there.
    pub(super) fn remove(&mut self, hash: u64, old: u32) -> bool {
        let (tag, home) = (tag(hash), self.home(hash));
        let mut at = home;
        for _ in 0..self.buckets.len() {
            let bucket = &mut self.buckets[at];
            let mut slots = slots_with(bucket, tag);
            while slots != 0 {
                let slot = first(slots);
                if entry(bucket, slot) == old {
                    set(bucket, slot, 0, 0);
                    self.unpass(home, at);
                    return true;
                }
                slots &= slots - 1;
            }
            if passed(bucket) == 0 {
                return false;
            }
            at = self.after(at);
        }
        false
    }

    /// Counts one entry less that passed by the buckets from `home` up to the one before `at`.
    fn unpass(&mut self, home: usize, at: usize) {
        let mut b = home;
        while b != at {
            self.buckets[b][PASSED] -= 1;
            b = self.after(b);
        }
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val::<[Bucket]>(&self.buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hash with this home among `buckets` and this tag.
    fn hash(index: &Index, home: usize, tag: u8) -> u64 {
        let hash =
            ((home as u64) << 32).div_ceil(index.buckets.len() as u64) << 32 | u64::from(tag);
        assert_eq!(index.home(hash), home);
        hash
    }

    fn empty(index: &Index) -> bool {
        index.buckets.iter().all(|bucket| *bucket == [0; 16])
    }

    #[test]
    fn a_bucket_that_runs_over_loses_nothing_and_leaves_nothing_behind() {
        let mut index = Index::new(5 * SLOTS as u64).unwrap();
        // All at home in the last bucket, so that they go round the end.
        let entries: Vec<(u64, u32)> = (0..40)
            .map(|n| (hash(&index, 4, 1 + n % 7), 1000 + u32::from(n)))
            .collect();
        for &(hash, entry) in &entries {
            index.insert(hash, entry, |_| false);
        }
        for &(hash, entry) in &entries {
            assert_eq!(index.find(hash, |found| found == entry), Some(entry));
        }
        assert_eq!(index.find(hash(&index, 4, 1), |_| false), None);
        // From the middle outwards, so that full and half-empty buckets are searched through.
        for n in 0..40 {
            let at = if n % 2 == 0 { 20 + n / 2 } else { 19 - n / 2 };
            let (hash, entry) = entries[at];
            assert!(index.remove(hash, entry));
            assert!(!index.remove(hash, entry), "once is enough");
            assert_eq!(index.find(hash, |found| found == entry), None);
        }
        assert!(empty(&index));
    }

    #[test]
    fn equal_entries_are_found_newest_first_whatever_was_removed() {
        let mut index = Index::new(4 * SLOTS as u64).unwrap();
        let hash = hash(&index, 1, 9);
        // Others of the same bucket and tag, so that equal ones are pushed on.
        for other in 100..110 {
            index.insert(hash, other, |_| false);
        }
        let same = |entry: u32| entry < 100;
        for entry in 0..10 {
            index.insert(hash, entry, same);
            assert_eq!(index.find(hash, same), Some(entry));
        }
        assert!(index.remove(hash, 5) && index.remove(hash, 9) && index.remove(hash, 102));
        index.insert(hash, 10, same);
        for newest in [10, 8, 7, 6, 4, 3, 2, 1, 0] {
            assert_eq!(index.find(hash, same), Some(newest));
            assert!(index.remove(hash, newest));
        }
        for other in (100..110).filter(|other| *other != 102) {
            assert!(index.remove(hash, other));
        }
        assert!(empty(&index));
    }

    #[test]
    fn of_very_many_equal_entries_the_oldest_fall_off() {
        let mut index = Index::new(40 * SLOTS as u64).unwrap();
        let hash = hash(&index, 3, 200);
        for entry in 0..100 {
            index.insert(hash, entry, |_| true);
        }
        let mut kept = Vec::new();
        index.find(hash, |entry| {
            kept.push(entry);
            false
        });
        assert_eq!(
            kept,
            (100 - MOST_EQUAL as u32..100).rev().collect::<Vec<_>>()
        );
        for entry in 0..100 {
            assert_eq!(index.remove(hash, entry), kept.contains(&entry));
        }
        assert!(empty(&index));
    }

    #[test]
    fn warming_up_takes_bounded_steps_and_changes_nothing() {
        let mut index = Index::new(3 * (WARM_STEP * SLOTS) as u64 - 100).unwrap();
        let entries: Vec<(u64, u32)> = (0..4000)
            .map(|n| (u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15), n))
            .collect();
        for &(hash, entry) in &entries {
            index.insert(hash, entry, |_| false);
        }
        for step in 1..5 {
            index.warm_up();
            assert_eq!(index.warm, (step * WARM_STEP).min(index.buckets.len()));
        }
        assert_eq!(index.warm, index.buckets.len());
        for &(hash, entry) in &entries {
            assert!(index.remove(hash, entry));
        }
        assert!(empty(&index));
    }

    #[test]
    fn the_candidate_is_an_entry_of_that_tag_in_the_home_bucket() {
        let mut index = Index::new(4 * SLOTS as u64).unwrap();
        let (one, two) = (hash(&index, 2, 50), hash(&index, 2, 51));
        index.insert(one, 7, |_| false);
        assert_eq!(index.candidate(one), Some(7));
        assert_eq!(index.candidate(two), None);
        assert_eq!(index.candidate(hash(&index, 0, 50)), None);
    }
}
