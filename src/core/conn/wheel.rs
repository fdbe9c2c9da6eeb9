//! Timers: two wheels of lists that run through the records themselves. The near one has a list for each tick of the coming
//! 22 minutes, so that what IPVS times out by default is put in its place once; the far one has lists of 11 minutes, up to 62
//! days. A far list is moved to the near wheel, a few records at a time, during the 11 minutes before it is needed: there is
//! no moment at which much is to be done. A clock that jumps passes over empty ticks 64 at a time.
//!
//! Putting off an end touches no list: a record whose list comes up early is put back. So a record may sit in an earlier
//! list than its `expires` asks for, and must never sit in a later one.

use std::io;

use ripvs_arch::{zeroable, HugeSlice};

use crate::types::Tick;

/// Ticks in the near wheel.
const NEAR: u32 = 1 << 17;
/// Ticks in a list of the far wheel, as a power of two: half the near wheel, so that the list after the one whose time is
/// now can always be moved.
const FAR_SHIFT: u32 = 16;
/// Lists in the far wheel.
const FAR: u32 = 1 << 13;
/// What lies further ahead waits in a list that comes before its time.
const MOST_AHEAD: u32 = (FAR - 4) << FAR_SHIFT;
/// Marks a link to a list's head.
const HEAD: u32 = 1 << 31;

zeroable! {
    /// Neighbours in a list.
    #[derive(Clone, Copy, Debug, Default)]
    pub(super) struct Links {
        /// The next record's number and 1, or 0.
        next: u32,
        /// The previous record's number, or the list's number and HEAD.
        prev: u32,
    }
}

impl Links {
    /// Links of a record in no list, which keeps a number for its owner.
    pub(super) fn parked(next: u32) -> Links {
        Links { next, prev: 0 }
    }

    /// That number.
    pub(super) fn parked_next(self) -> u32 {
        self.next
    }
}

/// What has a timer.
pub(super) trait Timed {
    /// When it is due.
    fn expires(&self) -> Tick;
    fn links(&self) -> Links;
    fn links_mut(&mut self) -> &mut Links;
}

/// Both wheels.
#[derive(Debug)]
pub(super) struct Wheel {
    /// First record's number and 1, or 0: the near lists, then the far ones.
    heads: HugeSlice<u32>,
    /// A bit for each near list that is not empty.
    occupied: HugeSlice<u64>,
    /// The tick whose list is the next to be emptied. All before are empty.
    current: Tick,
    /// The far list, counted from tick 0, that is to be moved next. All before are empty.
    far_next: u16,
}

impl Wheel {
    /// Wheels that begin at `now`.
    ///
    /// # Errors
    /// There is not enough memory.
    pub(super) fn new(now: Tick) -> io::Result<Wheel> {
        Ok(Wheel {
            heads: HugeSlice::zeroed((NEAR + FAR) as usize)?,
            occupied: HugeSlice::zeroed((NEAR / 64) as usize)?,
            current: now,
            far_next: (now.0 >> FAR_SHIFT) as u16,
        })
    }

    /// Puts a record that is in no list where its `expires` says.
    pub(super) fn start<T: Timed>(&mut self, records: &mut [T], id: u32) {
        let head = self.head_for(records[id as usize].expires());
        let first = self.heads[head as usize];
        *records[id as usize].links_mut() = Links {
            next: first,
            prev: HEAD | head,
        };
        if first != 0 {
            records[first as usize - 1].links_mut().prev = id;
        } else if head < NEAR {
            self.occupied[head as usize / 64] |= 1 << (head % 64);
        }
        self.heads[head as usize] = id + 1;
    }

    /// Takes a record out of its list.
    pub(super) fn stop<T: Timed>(&mut self, records: &mut [T], id: u32) {
        let Links { next, prev } = records[id as usize].links();
        if prev & HEAD != 0 {
            let head = prev & !HEAD;
            self.heads[head as usize] = next;
            if next == 0 && head < NEAR {
                self.occupied[head as usize / 64] &= !(1 << (head % 64));
            }
        } else {
            records[prev as usize].links_mut().next = next;
        }
        if next != 0 {
            records[next as usize - 1].links_mut().prev = prev;
        }
    }

    fn head_for(&self, expires: Tick) -> u32 {
        let ahead = expires.until(self.current);
        if ahead < NEAR {
            self.current.plus(ahead).0 % NEAR
        } else {
            NEAR + (self.current.plus(ahead.min(MOST_AHEAD)).0 >> FAR_SHIFT) % FAR
        }
    }

    /// Whether everything due up to `now` has been given out.
    pub(super) fn is_past(&self, now: Tick) -> bool {
        !now.reached(self.current)
    }

    /// Whether records wait to be moved from the far wheel before the far list of `period` is done with.
    fn far_pending(&self, period: u16) -> bool {
        period.wrapping_sub(self.far_next) as i16 >= 0
    }

    fn period(&self) -> u16 {
        (self.current.0 >> FAR_SHIFT) as u16
    }

    /// Moves records that are near enough from the far wheel, one for each of `budget`; true if none is left.
    pub(super) fn draw_near<T: Timed>(&mut self, records: &mut [T], budget: &mut usize) -> bool {
        while self.far_pending(self.period().wrapping_add(1)) {
            let head = NEAR + u32::from(self.far_next) % FAR;
            while let Some(id) = self.heads[head as usize].checked_sub(1) {
                if *budget == 0 {
                    return false;
                }
                *budget -= 1;
                self.stop(records, id);
                self.start(records, id);
            }
            self.far_next = self.far_next.wrapping_add(1);
        }
        true
    }

    /// The next record that is due at `now`, out of its list, as long as `budget` lasts; each record looked at takes one
    /// of it. To be asked until there is none.
    pub(super) fn pop_due<T: Timed>(
        &mut self,
        records: &mut [T],
        now: Tick,
        budget: &mut usize,
    ) -> Option<u32> {
        while now.reached(self.current) {
            let head = self.current.0 % NEAR;
            while let Some(id) = self.heads[head as usize].checked_sub(1) {
                if *budget == 0 {
                    return None;
                }
                *budget -= 1;
                self.stop(records, id);
                if now.reached(records[id as usize].expires()) {
                    return Some(id);
                }
                self.start(records, id);
            }
            if !self.step(records, now, budget) {
                return None;
            }
        }
        None
    }

    /// Goes on to the next tick that has a list, to the first of the next far list's time, or to the one after `now`;
    /// false if budget does not allow it.
    fn step<T: Timed>(&mut self, records: &mut [T], now: Tick, budget: &mut usize) -> bool {
        let from = self.current.plus(1);
        let boundary = Tick(((self.current.0 >> FAR_SHIFT) + 1) << FAR_SHIFT);
        let end = if boundary.reached(now.plus(1)) {
            now.plus(1)
        } else {
            boundary
        };
        if let Some(tick) = self.next_occupied(from, end) {
            self.current = tick;
            return true;
        }
        if end == boundary {
            // What is due from then on must all be in the near wheel, and looking through it was work.
            if *budget == 0 || !self.draw_near(records, budget) {
                return false;
            }
            *budget = budget.saturating_sub(1);
        }
        self.current = end;
        true
    }

    /// The first tick from `from` on and before `end` whose list is not empty. The two lie within one far list's time.
    fn next_occupied(&self, from: Tick, end: Tick) -> Option<Tick> {
        let mut ahead = 0;
        let length = end.until(from);
        while ahead < length {
            let at = from.plus(ahead).0 % NEAR;
            let word = self.occupied[at as usize / 64] >> (at % 64);
            if word != 0 {
                let found = ahead + word.trailing_zeros();
                return (found < length).then(|| from.plus(found));
            }
            ahead += 64 - at % 64;
        }
        None
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val::<[u32]>(&self.heads) + size_of_val::<[u64]>(&self.occupied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Default)]
    struct Item {
        expires: Tick,
        links: Links,
    }

    impl Timed for Item {
        fn expires(&self) -> Tick {
            self.expires
        }

        fn links(&self) -> Links {
            self.links
        }

        fn links_mut(&mut self) -> &mut Links {
            &mut self.links
        }
    }

    const SECOND: u32 = Tick::HZ;
    const DAY: u32 = 86_400 * SECOND;

    fn items(count: usize, now: Tick, delay: impl Fn(u32) -> u32) -> (Wheel, Vec<Item>) {
        let mut wheel = Wheel::new(now).unwrap();
        let mut items = vec![Item::default(); count];
        for id in 0..count as u32 {
            items[id as usize].expires = now.plus(delay(id));
            wheel.start(&mut items, id);
        }
        (wheel, items)
    }

    fn scatter(n: u32) -> u32 {
        // Fibonacci hashing: spread, but the same every time.
        n.wrapping_mul(0x9e37_79b9) >> 4
    }

    fn all_due(wheel: &mut Wheel, items: &mut [Item], now: Tick) -> Vec<u32> {
        let mut due = Vec::new();
        while let Some(id) = wheel.pop_due(items, now, &mut 1_000_000) {
            due.push(id);
        }
        assert!(wheel.is_past(now));
        due
    }

    #[test]
    fn everything_comes_at_its_tick_for_days_and_across_the_wrap() {
        let start = Tick(0u32.wrapping_sub(2 * DAY));
        let longest = [SECOND, 15 * 60 * SECOND, 2 * 3600 * SECOND, DAY, 31 * DAY];
        let delay = |n: u32| 1 + scatter(n) % longest[n as usize % longest.len()];
        let (mut wheel, mut items) = items(3000, start, delay);
        let (mut now, mut fired, mut n) = (start, 0u32, 3000);
        while now.until(start) < 4 * DAY {
            // Mostly single ticks, with pauses of up to 40 minutes.
            let before = now;
            n += 1;
            now = now.plus(if n % 64 == 0 {
                1 + scatter(n) % (40 * 60 * SECOND)
            } else {
                1
            });
            for id in all_due(&mut wheel, &mut items, now) {
                let expires = items[id as usize].expires;
                assert!(now.reached(expires), "early by {}", expires.until(now));
                assert!(!before.reached(expires), "late by {}", now.until(expires));
                fired += 1;
                items[id as usize].expires = now.plus(delay(fired));
                wheel.start(&mut items, id);
            }
        }
        assert!(fired > 10_000, "{fired}");
        assert!(now.0 < 3 * DAY, "the clock has wrapped");
    }

    #[test]
    fn what_is_put_off_waits_and_what_is_taken_out_never_comes() {
        let now = Tick(1000);
        let (mut wheel, mut items) = items(300, now, |n| 10 + n % 3);
        for id in 0..300 {
            match id % 3 {
                0 => items[id as usize].expires = now.plus(400_000 + id),
                1 => wheel.stop(&mut items, id),
                _ => {}
            }
        }
        let mut first = all_due(&mut wheel, &mut items, now.plus(100));
        first.sort_unstable();
        assert_eq!(first, (0..300).filter(|id| id % 3 == 2).collect::<Vec<_>>());
        assert_eq!(all_due(&mut wheel, &mut items, now.plus(399_999)), []);
        for id in (0..300).step_by(3) {
            assert_eq!(
                all_due(&mut wheel, &mut items, now.plus(400_000 + id)),
                [id]
            );
        }
    }

    #[test]
    fn a_budget_is_kept_to_and_nothing_forgotten_in_between() {
        let now = Tick(77);
        let (mut wheel, mut items) = items(1000, now, |n| if n < 900 { 5 } else { 6 });
        let (mut seen, mut calls) = (0, 0);
        while !wheel.is_past(now.plus(10)) {
            let mut budget = 10;
            let mut got = 0;
            while wheel
                .pop_due(&mut items, now.plus(10), &mut budget)
                .is_some()
            {
                got += 1;
            }
            assert!(got <= 10);
            seen += got;
            calls += 1;
        }
        assert_eq!(seen, 1000);
        assert!((100..110).contains(&calls), "{calls}");
    }

    #[test]
    fn a_hundred_thousand_far_timers_come_on_time_with_little_work_each_tick() {
        // All due within one far list's time, an hour ahead: 1.5 a tick.
        let now = Tick(123);
        let from = 6 << FAR_SHIFT;
        let (mut wheel, mut items) =
            items(100_000, now, |n| from - 123 + scatter(n) % (1 << FAR_SHIFT));
        let (mut seen, mut late) = (0, 0);
        for ahead in 0..(7 << FAR_SHIFT) + 100 {
            let at = now.plus(ahead);
            wheel.draw_near(&mut items, &mut 3);
            let mut budget = 12;
            while let Some(id) = wheel.pop_due(&mut items, at, &mut budget) {
                seen += 1;
                late = at.until(items[id as usize].expires).max(late);
            }
        }
        assert_eq!((seen, late), (100_000, 0));
    }

    #[test]
    fn a_delay_beyond_the_far_wheel_is_kept() {
        let now = Tick(5);
        let (mut wheel, mut items) = items(1, now, |_| 200 * DAY);
        for day in 1..200 {
            assert_eq!(all_due(&mut wheel, &mut items, now.plus(day * DAY)), []);
        }
        assert_eq!(all_due(&mut wheel, &mut items, now.plus(200 * DAY - 1)), []);
        assert_eq!(all_due(&mut wheel, &mut items, now.plus(200 * DAY)), [0]);
    }
}
