//! A hash map of which no addition moves more than a few hundred entries, whatever its size.
//!
//! Extendible hashing (Fagin and others, 1979): the entries are in small tables, and a directory says by some bits of the
//! hash which. A table that is full is split in two, by one bit more; when no bit is left the directory doubles, which
//! costs four bytes for some hundred entries. A map that has never been large is one table without a directory.

use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::Chunked;

/// Most entries of a table, which then has 256 places.
const FULL: usize = 224;

/// Most bits of the hash that choose a table. Beyond 2^24 tables they grow.
const MOST_BITS: u8 = 24;

/// What the hash says about the table. Mixed once more: the hasher's bits need not be as evenly spread as a directory wants
/// them (of numbers that follow each other they are not, now and then), and `hashbrown` uses them as they are.
fn chooser(hash: u64) -> usize {
    let once = (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let twice = (once ^ once >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (twice >> (64 - MOST_BITS)) as usize
}

/// A table, and how many bits of [`chooser`] all hashes in it have in common.
#[derive(Clone, Debug)]
struct Shard<K, V> {
    table: HashTable<(K, V)>,
    bits: u8,
}

/// Values by key.
#[derive(Clone, Debug)]
pub(crate) struct GrowMap<K, V> {
    hasher: DefaultHashBuilder,
    /// All entries, while there is no directory.
    only: HashTable<(K, V)>,
    /// The table for each combination of the lowest bits of [`chooser`]; its length is a power of two, or 0.
    directory: Vec<u32>,
    shards: Chunked<Shard<K, V>>,
    len: usize,
}

impl<K, V> Default for GrowMap<K, V> {
    fn default() -> GrowMap<K, V> {
        GrowMap {
            hasher: DefaultHashBuilder::default(),
            only: HashTable::new(),
            directory: Vec::new(),
            shards: Chunked::default(),
            len: 0,
        }
    }
}

impl<K: Hash + Eq, V> GrowMap<K, V> {
    /// How many entries there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Which shard is for that hash; `None`: it is `only`.
    #[inline]
    fn shard_of(&self, hash: u64) -> Option<usize> {
        // Without a directory nothing is mixed.
        let mask = self.directory.len().checked_sub(1)?;
        Some(*self.directory.get(chooser(hash) & mask)? as usize)
    }

    #[inline]
    fn table(&self, hash: u64) -> &HashTable<(K, V)> {
        self.shard_of(hash)
            .map_or(&self.only, |at| &self.shards[at].table)
    }

    #[inline]
    fn table_mut(&mut self, hash: u64) -> &mut HashTable<(K, V)> {
        match self.shard_of(hash) {
            Some(at) => &mut self.shards[at].table,
            None => &mut self.only,
        }
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: &K) -> Option<&V> {
        let hash = self.hasher.hash_one(key);
        let found = self.table(hash).find(hash, |(other, _)| other == key);
        found.map(|(_, value)| value)
    }

    /// The value of a key.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let hash = self.hasher.hash_one(key);
        let table = self.table_mut(hash);
        let found = table.find_mut(hash, |(other, _)| other == key);
        found.map(|(_, value)| value)
    }

    /// Whether there is a value of that key.
    #[inline]
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Sets the value of a key. Returns the one that it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(old) = self.get_mut(&key) {
            return Some(std::mem::replace(old, value));
        }
        self.add(key, value);
        None
    }

    /// Changes the value of a key, which is put there where it has none.
    pub fn change(&mut self, key: K, change: impl FnOnce(&mut V))
    where
        V: Default,
    {
        match self.get_mut(&key) {
            Some(value) => change(value),
            None => change(self.add(key, V::default())),
        }
    }

    /// The value of a key, put there where it has none.
    pub fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        // Taken out and put back: the borrow of one that is found would last where none is.
        let value = self.remove(&key).unwrap_or_default();
        self.add(key, value)
    }

    /// Adds an entry of which the key is not there.
    fn add(&mut self, key: K, value: V) -> &mut V {
        let hash = self.hasher.hash_one(&key);
        if self.table(hash).len() >= FULL {
            self.split(hash);
        }
        self.len += 1;
        let hasher = self.hasher;
        let entry = self
            .table_mut(hash)
            .insert_unique(hash, (key, value), |(key, _)| hasher.hash_one(key));
        &mut entry.into_mut().1
    }

    /// Removes the entry of a key. Returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let hash = self.hasher.hash_one(key);
        let table = self.table_mut(hash);
        let entry = table.find_entry(hash, |(other, _)| other == key).ok()?;
        let ((_, value), _) = entry.remove();
        self.len -= 1;
        Some(value)
    }

    /// Splits the table for that hash in two.
    fn split(&mut self, hash: u64) {
        let at = match self.shard_of(hash) {
            Some(at) => at,
            None => {
                let table = std::mem::take(&mut self.only);
                self.shards.push(Shard { table, bits: 0 });
                self.directory.push(0);
                0
            }
        };
        let bits = self.shards[at].bits;
        if bits == MOST_BITS {
            return;
        }
        let (mut low, mut high) = (
            HashTable::with_capacity(FULL),
            HashTable::with_capacity(FULL),
        );
        for entry in std::mem::take(&mut self.shards[at].table) {
            let hash = self.hasher.hash_one(&entry.0);
            let half = match chooser(hash) >> bits & 1 {
                0 => &mut low,
                _ => &mut high,
            };
            half.insert_unique(hash, entry, |(key, _)| self.hasher.hash_one(key));
        }
        if self.directory.len() == 1 << bits {
            self.directory.extend_from_within(..);
        }
        let bits_now = bits + 1;
        let first = chooser(hash) & ((1 << bits) - 1) | 1 << bits;
        for place in (first..self.directory.len()).step_by(1 << bits_now) {
            self.directory[place] = self.shards.len() as u32;
        }
        self.shards[at] = Shard {
            table: low,
            bits: bits_now,
        };
        self.shards.push(Shard {
            table: high,
            bits: bits_now,
        });
    }

    /// Removes all entries; their memory is kept.
    pub fn clear(&mut self) {
        self.only.clear();
        self.shards.iter_mut().for_each(|shard| shard.table.clear());
        self.len = 0;
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let shards = self.shards.iter().flat_map(|shard| &shard.table);
        self.only
            .iter()
            .chain(shards)
            .map(|(key, value)| (key, value))
    }

    /// All values, for changing.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let shards = self.shards.iter_mut().flat_map(|shard| &mut shard.table);
        self.only.iter_mut().chain(shards).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::HashMap;
    use std::hash::Hasher;

    use proptest::prelude::*;

    use super::*;

    thread_local! {
        static HASHED: Cell<usize> = const { Cell::new(0) };
    }

    /// A key that counts how often a key is hashed: once for each look-up, and once for each entry that is moved.
    #[derive(PartialEq, Eq)]
    struct Counted(u32);

    impl Hash for Counted {
        fn hash<H: Hasher>(&self, state: &mut H) {
            HASHED.set(HASHED.get() + 1);
            self.0.hash(state);
        }
    }

    #[test]
    fn no_addition_moves_more_than_a_full_table() {
        let mut map = GrowMap::default();
        let mut most = 0;
        for n in 0..300_000 {
            HASHED.set(0);
            map.insert(Counted(n), n);
            most = most.max(HASHED.get());
        }
        assert!(most > FULL / 2, "{most}: nothing was moved at all?");
        assert!(most <= FULL + 8, "{most}");
        // Nor do additions among removals, when places that were used are made good again.
        for n in 0..600_000 {
            map.remove(&Counted(n));
            HASHED.set(0);
            map.insert(Counted(n + 300_000), n);
            assert!(HASHED.get() <= FULL + 8, "{}", HASHED.get());
        }
        assert_eq!(map.len(), 300_000);
    }

    #[test]
    fn the_directory_has_few_bytes_for_an_entry() {
        let mut map = GrowMap::default();
        for n in 0..300_000 {
            map.insert(n, ());
        }
        assert!(
            map.directory.len() <= 4 * 300_000 / FULL,
            "{}",
            map.directory.len()
        );
        assert!(
            map.shards.len() <= 2 * 300_000 / FULL,
            "{}",
            map.shards.len()
        );
    }

    #[test]
    fn a_small_map_is_one_table() {
        let mut map = GrowMap::default();
        for n in 0..FULL {
            map.insert(n, n);
        }
        assert_eq!(map.shards.len(), 0);
        map.insert(FULL, FULL);
        assert_eq!(map.shards.len(), 2);
        assert!((0..=FULL).all(|n| map.get(&n) == Some(&n)));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Insert(u16, u32),
        Raise(u16),
        Remove(u16),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            600 => (0u16..1500, any::<u32>()).prop_map(|(key, value)| Step::Insert(key, value)),
            200 => (0u16..1500).prop_map(Step::Raise),
            300 => (0u16..1500).prop_map(Step::Remove),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn it_agrees_with_the_standard_map(steps in proptest::collection::vec(step(), 0..4000)) {
            let (mut map, mut model) = (GrowMap::default(), HashMap::new());
            for step in steps {
                match step {
                    Step::Insert(key, value) => {
                        prop_assert_eq!(map.insert(key, value), model.insert(key, value));
                    }
                    Step::Raise(key) => {
                        *map.or_default(key) ^= 1;
                        map.change(key, |value| *value ^= 6);
                        *model.entry(key).or_default() ^= 7;
                    }
                    Step::Remove(key) => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                    Step::Clear => {
                        map.clear();
                        model.clear();
                    }
                }
                prop_assert_eq!(map.len(), model.len());
            }
            prop_assert_eq!(map.is_empty(), model.is_empty());
            for key in 0..1500 {
                prop_assert_eq!(map.get(&key), model.get(&key));
                prop_assert_eq!(map.get_mut(&key), model.get_mut(&key));
                prop_assert_eq!(map.contains_key(&key), model.contains_key(&key));
            }
            let all: HashMap<u16, u32> = map.iter().map(|(key, value)| (*key, *value)).collect();
            prop_assert_eq!(all.len(), map.iter().count());
            prop_assert_eq!(&all, &model);
            map.values_mut().for_each(|value| *value = 7);
            prop_assert!(map.iter().all(|(_, value)| *value == 7));
        }
    }
}
