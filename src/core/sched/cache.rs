//! What lblc and lblcr remember of each destination address, and how it is forgotten.
//!
//! As in the kernel, every minute the table is looked at: if it holds more than 16,384 entries, those unused for six
//! minutes go until it doesn't; and after half an hour without that, those unused for the expiration time
//! (`lblc_expiration`, `lblcr_expiration`). Unlike there, it has a bound: an address beyond it is scheduled each time as if
//! it were new. It is kept in shards, so that growing and looking through never take long at once, and both happen in
//! [`Cache::expire`], not in picking.

use std::hash::BuildHasher;
use std::net::IpAddr;

use hashbrown::{DefaultHashBuilder, HashMap};

use crate::types::Time;

const SHARDS: usize = 64;
/// The bound, for each shard.
const SHARD_LIMIT: usize = 1024;
/// Entries that a shard has room for at first.
const SHARD_START: usize = 14;
/// Above so many entries the ones unused for six minutes are dropped.
const MAX_SIZE: usize = 16_384;
const CHECK_INTERVAL: u64 = Time::from_secs(60).0;
const ENTRY_TIMEOUT: u64 = Time::from_secs(6 * 60).0;
/// So many checks make half an hour.
const FULL_CHECK: u32 = 30;

struct Entry<V> {
    value: V,
    used: Time,
}

/// A look through all shards under way.
struct Sweep {
    shards_left: usize,
    /// Entries unused for so long are dropped, in nanoseconds.
    age: u64,
    /// It ends when so many have been.
    goal: usize,
}

/// Values by destination address.
pub(super) struct Cache<V> {
    shards: Vec<HashMap<IpAddr, Entry<V>>>,
    hasher: DefaultHashBuilder,
    len: usize,
    /// Nanoseconds.
    expiration: u64,
    next_check: Option<Time>,
    checks: u32,
    sweep: Option<Sweep>,
    /// The shard looked through last.
    rover: usize,
    /// One bit for each shard that should get more room.
    cramped: u64,
}

impl<V> Cache<V> {
    pub(super) fn new() -> Cache<V> {
        let hasher = DefaultHashBuilder::default();
        Cache {
            shards: (0..SHARDS)
                .map(|_| HashMap::with_capacity_and_hasher(SHARD_START, hasher))
                .collect(),
            hasher,
            len: 0,
            expiration: Time::from_secs(24 * 60 * 60).0,
            next_check: None,
            checks: 1,
            sweep: None,
            rover: 0,
            cramped: 0,
        }
    }

    pub(super) fn set_expiration(&mut self, seconds: u32) {
        self.expiration = Time::from_secs(u64::from(seconds)).0;
    }

    /// In nanoseconds.
    pub(super) fn expiration(&self) -> u64 {
        self.expiration
    }

    fn shard(&self, addr: &IpAddr) -> usize {
        // Bits that the maps inside do not go by.
        (self.hasher.hash_one(addr) >> 40) as usize % SHARDS
    }

    /// The value of an address, which is thereby used.
    pub(super) fn get(&mut self, addr: &IpAddr, now: Time) -> Option<&mut V> {
        let shard = self.shard(addr);
        let entry = self.shards[shard].get_mut(addr)?;
        entry.used = now;
        Some(&mut entry.value)
    }

    /// Adds an address that isn't there; gives the value back if there is no room.
    pub(super) fn insert(&mut self, addr: IpAddr, value: V, now: Time) -> Result<(), V> {
        let number = self.shard(&addr);
        let shard = &mut self.shards[number];
        let room = shard.capacity() - shard.len();
        if room <= shard.len() {
            self.cramped |= 1 << number;
        }
        if room == 0 || shard.len() >= SHARD_LIMIT {
            return Err(value);
        }
        shard.insert(addr, Entry { value, used: now });
        self.len += 1;
        Ok(())
    }

    /// A step of growing and forgetting: one shard at most of each. Values forgotten go to `dropped`.
    pub(super) fn expire(&mut self, now: Time, dropped: impl FnMut(V)) {
        if self.cramped != 0 {
            let shard = &mut self.shards[self.cramped.trailing_zeros() as usize];
            self.cramped &= self.cramped - 1;
            shard.reserve((shard.len() + SHARD_START).min(SHARD_LIMIT));
        }
        match self.next_check {
            Some(due) if due <= now => self.check(now),
            Some(_) => {}
            None => self.next_check = Some(Time(now.0 + CHECK_INTERVAL)),
        }
        if self.sweep.is_some() {
            self.sweep_one(now, dropped);
        }
    }

    fn check(&mut self, now: Time) {
        self.next_check = Some(Time(now.0 + CHECK_INTERVAL));
        if self.sweep.is_some() {
            return;
        }
        if self.checks.is_multiple_of(FULL_CHECK) {
            self.checks = 1;
            self.sweep = Some(Sweep {
                shards_left: SHARDS,
                age: self.expiration,
                goal: usize::MAX,
            });
        } else if self.len <= MAX_SIZE {
            self.checks += 1;
        } else {
            let goal = (self.len - MAX_SIZE) * 4 / 3;
            self.sweep = Some(Sweep {
                shards_left: SHARDS,
                age: ENTRY_TIMEOUT,
                goal: goal.min(MAX_SIZE / 2),
            });
        }
    }

    fn sweep_one(&mut self, now: Time, mut dropped: impl FnMut(V)) {
        let Some(sweep) = &mut self.sweep else {
            return;
        };
        self.rover = (self.rover + 1) % SHARDS;
        let age = sweep.age;
        let mut count = 0;
        for (_, entry) in
            self.shards[self.rover].extract_if(|_, entry| now.0 >= entry.used.0.saturating_add(age))
        {
            count += 1;
            dropped(entry.value);
        }
        self.len -= count;
        sweep.goal = sweep.goal.saturating_sub(count);
        sweep.shards_left -= 1;
        if sweep.shards_left == 0 || sweep.goal == 0 {
            self.sweep = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn addr(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(n))
    }

    /// Calls `expire` until everything due at that moment is done; how many were dropped.
    fn expire(cache: &mut Cache<u32>, now: Time) -> usize {
        let mut dropped = 0;
        (0..200).for_each(|_| cache.expire(now, |_| dropped += 1));
        dropped
    }

    fn fill(cache: &mut Cache<u32>, from: u32, to: u32, now: Time) {
        for n in from..to {
            // A shard waits for more room while others get some.
            let entered = (0..=SHARDS).any(|_| {
                let entered = cache.insert(addr(n), n, now).is_ok();
                cache.expire(now, |_| panic!("dropped too early"));
                entered
            });
            assert!(entered, "{n}");
        }
    }

    #[test]
    fn an_entry_unused_for_the_expiration_time_goes_at_the_next_half_hour() {
        let mut cache = Cache::new();
        cache.set_expiration(3600);
        fill(&mut cache, 0, 100, Time(0));
        let minute = |n: u64| Time::from_secs(60 * n);
        let mut dropped = vec![];
        for n in 0..=90 {
            if n == 40 {
                assert_eq!(cache.get(&addr(7), minute(n)), Some(&mut 7));
            }
            if expire(&mut cache, minute(n)) > 0 {
                dropped.push((n, 100 - cache.len));
            }
        }
        assert_eq!(dropped, [(60, 99)]);
        assert_eq!(cache.get(&addr(7), minute(90)), Some(&mut 7));
        assert_eq!(cache.get(&addr(8), minute(90)), None);
    }

    #[test]
    fn above_its_size_entries_unused_for_six_minutes_go() {
        let mut cache = Cache::new();
        fill(&mut cache, 0, MAX_SIZE as u32 + 300, Time(0));
        assert_eq!(expire(&mut cache, Time::from_secs(60)), 0);
        let dropped = expire(&mut cache, Time::from_secs(6 * 60));
        // Four thirds of what is too much, and the rest of the last shard.
        assert!((400..400 + SHARD_LIMIT).contains(&dropped), "{dropped}");
        assert_eq!(expire(&mut cache, Time::from_secs(7 * 60)), 0);
    }

    #[test]
    fn it_has_a_bound_and_goes_on_at_it() {
        let mut cache = Cache::new();
        let mut refused = 0;
        for n in 0..200_000 {
            refused += usize::from(cache.insert(addr(n), n, Time(0)).is_err());
            cache.expire(Time(0), |_| panic!("dropped too early"));
        }
        assert_eq!(cache.len, SHARDS * SHARD_LIMIT);
        assert_eq!(refused, 200_000 - cache.len);
        assert!(cache.shards.iter().all(|s| s.capacity() < 4 * SHARD_LIMIT));
        assert_eq!(cache.get(&addr(0), Time(0)), Some(&mut 0));
    }

    #[test]
    fn picking_never_makes_a_shard_grow() {
        let mut cache = Cache::new();
        let before: usize = cache.shards.iter().map(HashMap::capacity).sum();
        for n in 0..10_000 {
            let _ = cache.insert(addr(n), n, Time(0));
        }
        assert_eq!(cache.len, before);
        let after: usize = cache.shards.iter().map(HashMap::capacity).sum();
        assert_eq!(after, before);
    }
}
