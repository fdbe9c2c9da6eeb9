//! The table: puts records, index and wheel together, and keeps them in agreement.

use std::io;

use arrayvec::ArrayVec;
use ripvs_arch::{FlowHash, HugeSlice};

use super::flags::Flags;
use super::index::Index;
use super::record::Record;
use super::wheel::{Links, Wheel};
use super::{ConnId, Endpoints, Key, NewConn, OutKey, Tuple};
use crate::family::Family;
use crate::spec::Forward;
use crate::types::Tick;

/// The timeout of a connection before its first packet sets another, in ticks (`ip_vs_conn_new`).
pub const INITIAL_TIMEOUT: u32 = 3 * Tick::HZ;
/// By how much a connection that controls others is put off when its time is up, in ticks (`ip_vs_conn_expire`).
pub const DELAYED: u32 = 60 * Tick::HZ;

/// Further ahead than this a tick cannot be told from one that has passed; far more than any timeout of IPVS's (31 days).
pub(crate) const LONGEST: u32 = 1 << 30;
/// Marks an index entry as that of a NAT connection's replies.
const OUT: u32 = 1 << 31;

/// Entries that may wait to be put into the index: a burst's.
const LATE: usize = 32;

/// The table holds as many connections as it was laid out for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFull;

/// What becomes of a connection whose time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It goes.
    Remove,
    /// So many ticks more, which is its timeout from now on.
    Again(u32),
}

/// The hashes by which a record is in the index: of what its client sends, and, under NAT, its server.
type Hashes = (Option<u64>, Option<u64>);

/// The connections of one worker and family.
#[derive(Debug)]
pub struct ConnTable<F: Family> {
    /// As many as there may be.
    records: HugeSlice<Record<F>>,
    /// So many of them have been used.
    used: u32,
    /// First free place's number and 1, or 0; the rest hang on it by their links.
    free: u32,
    len: u32,
    /// Connections with NO_CPORT.
    no_cport: u32,
    hash: FlowHash,
    index: Index,
    /// Entries of NAT connections' replies that are still to be put into the index, oldest first, with their hashes.
    late: ArrayVec<(u32, u64), LATE>,
    /// Whether any were put there since [`ConnTable::settle_late`] was asked the last time.
    late_entered: bool,
    wheel: Wheel,
}

impl<F: Family> ConnTable<F> {
    /// No connection's place.
    pub const NOBODY: ConnId = ConnId(u32::MAX);

    /// An empty table for up to `limit` (below 2^31) connections and templates. The key of `hash` should be random: it
    /// keeps clients from choosing tuples of one hash.
    ///
    /// Where the tables of both families share a limit, each is laid out for all of it, and who inserts compares the sum
    /// of their lengths: memory that is never used is never touched.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn new(limit: u32, now: Tick, hash: FlowHash) -> io::Result<ConnTable<F>> {
        let limit = limit.min(OUT - 1);
        Ok(ConnTable {
            records: HugeSlice::zeroed(limit as usize)?,
            used: 0,
            free: 0,
            len: 0,
            no_cport: 0,
            hash,
            index: Index::new(u64::from(limit) * F::INDEX_SLOTS_PERCENT / 100)?,
            late: ArrayVec::new(),
            late_entered: false,
            wheel: Wheel::new(now)?,
        })
    }

    /// Whether clients' packets are found by their keys alone: no connection waits for its client's port.
    #[inline]
    pub(crate) fn all_exact(&self) -> bool {
        self.no_cport == 0
    }

    /// Connections and templates now.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The most there can be.
    pub fn limit(&self) -> u32 {
        self.records.len() as u32
    }

    /// Places that have been used so far, which [`Self::dump`] goes through.
    pub fn places(&self) -> u32 {
        self.used
    }

    /// Memory that a full table takes, in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val::<[Record<F>]>(&self.records) + self.index.bytes() + self.wheel.bytes()
    }

    /// The hash for [`Self::find_in`] and [`Self::find_template`].
    #[inline]
    pub fn hash_in(&self, key: &Key<F>) -> u64 {
        self.hash_of(&key.tuple())
    }

    /// The hash for [`Self::find_out`].
    #[inline]
    pub fn hash_out(&self, key: &OutKey<F>) -> u64 {
        self.hash_of(&key.tuple())
    }

    /// The hash of a client's or server's packet.
    #[inline(always)]
    pub(crate) fn hash_of(&self, tuple: &Tuple<F>) -> u64 {
        tuple.hash(&self.hash)
    }

    /// The hash for [`Self::find_template_by`] and [`NewConn::pe_hash`] of what a persistence engine goes by.
    pub fn hash_data(&self, data: &[u8]) -> u64 {
        self.hash.bytes(data)
    }

    /// Begins to fetch the part of the index where this hash is: for a whole burst, before anything is found.
    #[inline]
    pub fn prefetch_index(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// The connection that will most likely be found by this hash, when the index has come; [`Self::NOBODY`] where there is
    /// none. Its record begins to be fetched.
    #[inline(always)]
    pub fn suggest(&self, hash: u64) -> ConnId {
        let Some(entry) = self.index.candidate(hash) else {
            return Self::NOBODY;
        };
        let id = entry & !OUT;
        self.records[id as usize].prefetch();
        ConnId(id)
    }

    /// The connection of a client's packet, as [`Self::find_in`] finds it: the one that was suggested, if it is that.
    #[inline(always)]
    pub(crate) fn known_in(
        &mut self,
        suggested: ConnId,
        hash: u64,
        tuple: &Tuple<F>,
    ) -> Option<(ConnId, &mut Record<F>)> {
        let id = match self.records.get(suggested.0 as usize) {
            Some(record) if record.request() == *tuple => suggested,
            _ => self.in_anew(hash, *tuple)?,
        };
        Some((id, self.records.get_mut(id.0 as usize)?))
    }

    /// The connection of a server's packet, as [`Self::find_out`] finds it: the one that was suggested, if it is that.
    #[inline(always)]
    pub(crate) fn known_out(
        &mut self,
        suggested: ConnId,
        hash: u64,
        tuple: &Tuple<F>,
    ) -> Option<(ConnId, &mut Record<F>)> {
        let id = match self.records.get(suggested.0 as usize) {
            Some(record) if record.answer() == *tuple => suggested,
            _ => self.out_anew(suggested, hash, *tuple)?,
        };
        Some((id, self.records.get_mut(id.0 as usize)?))
    }

    /// Where several entries of a bucket look alike, the one meant may not be the first; and it may have been made since.
    #[inline(never)]
    fn in_anew(&self, hash: u64, tuple: Tuple<F>) -> Option<ConnId> {
        self.find_in_exact(hash, &tuple)
    }

    #[inline(never)]
    fn out_anew(&self, suggested: ConnId, hash: u64, tuple: Tuple<F>) -> Option<ConnId> {
        let any = suggested != Self::NOBODY;
        any.then(|| self.find_out_exact(hash, &tuple))?
    }

    /// The newest connection that a client's packet belongs to: of exactly this key, or of a client's port that is not
    /// known yet (`ip_vs_conn_in_get`).
    #[inline]
    pub fn find_in(&self, hash: u64, key: &Key<F>) -> Option<ConnId> {
        let found = self.find_in_exact(hash, &key.tuple());
        if found.is_none() && self.no_cport != 0 && key.cport != 0 {
            let open = Key { cport: 0, ..*key };
            return self.find_in_exact(self.hash_in(&open), &open.tuple());
        }
        found
    }

    #[inline]
    fn find_in_exact(&self, hash: u64, tuple: &Tuple<F>) -> Option<ConnId> {
        self.index
            .find(hash, |entry| {
                entry & OUT == 0 && self.records[entry as usize].is_in(tuple)
            })
            .map(ConnId)
    }

    /// The newest connection that a server's packet belongs to (`ip_vs_conn_out_get`).
    #[inline]
    pub fn find_out(&self, hash: u64, key: &OutKey<F>) -> Option<ConnId> {
        self.find_out_exact(hash, &key.tuple())
    }

    #[inline]
    fn find_out_exact(&self, hash: u64, tuple: &Tuple<F>) -> Option<ConnId> {
        debug_assert!(self.late.is_empty(), "entries are late");
        // Under NAT it is what the server sends that leads here, otherwise what the client does.
        self.index
            .find(hash, |entry| {
                self.records[(entry & !OUT) as usize].is_out(tuple)
            })
            .map(|entry| ConnId(entry & !OUT))
    }

    /// The newest template of this key (`ip_vs_ct_in_get`), other than persistence engines'.
    pub fn find_template(&self, hash: u64, key: &Key<F>) -> Option<ConnId> {
        let tuple = key.tuple();
        self.template(hash, |_, record| {
            !record.has(Flags::PE) && record.request() == tuple
        })
    }

    /// The newest template of a persistence engine with this hash that `fits`.
    pub fn find_template_by(
        &self,
        hash: u64,
        fits: impl Fn(ConnId, &Record<F>) -> bool,
    ) -> Option<ConnId> {
        self.template(hash, |id, record| record.has(Flags::PE) && fits(id, record))
    }

    fn template(&self, hash: u64, fits: impl Fn(ConnId, &Record<F>) -> bool) -> Option<ConnId> {
        self.index
            .find(hash, |entry| {
                let record = &self.records[(entry & !OUT) as usize];
                entry & OUT == 0 && record.has(Flags::TEMPLATE) && fits(ConnId(entry), record)
            })
            .map(ConnId)
    }

    /// Adds a connection, found before older ones of the same key. It ends `timeout` after `now`.
    ///
    /// # Errors
    /// The table is full.
    pub fn insert(&mut self, now: Tick, new: &NewConn<F>) -> Result<ConnId, TableFull> {
        let hash = self.hash_in(&new.key);
        let id = self.insert_late(now, new, hash)?;
        self.admit_late();
        Ok(id)
    }

    /// As [`Self::insert`], where the hash of its key is known; but replies of a NAT connection's server find it only after
    /// [`Self::admit_late`], so that the memory for that may come meanwhile.
    ///
    /// # Errors
    /// The table is full.
    #[inline(always)]
    pub(crate) fn insert_late(
        &mut self,
        now: Tick,
        new: &NewConn<F>,
        hash: u64,
    ) -> Result<ConnId, TableFull> {
        let id = match self.free.checked_sub(1) {
            Some(id) => {
                self.free = self.records[id as usize].links.parked_next();
                id
            }
            None if self.used < self.limit() => {
                self.used += 1;
                self.used - 1
            }
            None => return Err(TableFull),
        };
        let place = &mut self.records[id as usize];
        let expires = now.plus(new.timeout.min(LONGEST));
        *place = Record::of(new, place.generation().wrapping_add(1), expires);
        let (inbound, outbound) = self.hashes(&self.records[id as usize], hash);
        if outbound.is_none() || self.late.is_full() {
            // Of entries that look alike to a reply the newest is to be the first.
            self.admit_late();
        }
        if let Some(hash) = outbound {
            self.index.prefetch(hash);
            self.late.push((id | OUT, hash));
        }
        self.len += 1;
        self.no_cport += u32::from(new.flags.has(Flags::NO_CPORT));
        self.wheel.start(&mut self.records, id);
        if let Some(hash) = inbound {
            self.enter(id, hash);
        }
        Ok(ConnId(id))
    }

    /// Lets servers' replies find what [`Self::insert_late`] added. Due before anything is looked for or changed but by
    /// clients' packets.
    #[inline(always)]
    pub(crate) fn admit_late(&mut self) {
        if !self.late.is_empty() {
            self.enter_late();
        }
    }

    /// The same. Returns whether there was any since the last time, so that what was suggested to a reply may be out of date.
    #[inline(always)]
    pub(crate) fn settle_late(&mut self) -> bool {
        self.admit_late();
        std::mem::take(&mut self.late_entered)
    }

    #[inline(never)]
    fn enter_late(&mut self) {
        for n in 0..self.late.len() {
            let (entry, hash) = self.late[n];
            self.enter(entry, hash);
        }
        self.late.clear();
        self.late_entered = true;
    }

    /// Takes a connection out, and returns what it was.
    pub fn remove(&mut self, id: ConnId) -> Option<Record<F>> {
        let record = *self.get(id)?;
        self.wheel.stop(&mut self.records, id.0);
        self.release(id.0);
        Some(record)
    }

    /// The connection in this place.
    #[inline(always)]
    pub fn get(&self, id: ConnId) -> Option<&Record<F>> {
        self.records
            .get(id.0 as usize)
            .filter(|record| record.is_live())
    }

    /// The connection in this place.
    #[inline(always)]
    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut Record<F>> {
        self.records
            .get_mut(id.0 as usize)
            .filter(|record| record.is_live())
    }

    /// Whether the connection in this place is still the one of that generation.
    pub fn holds(&self, id: ConnId, generation: u16) -> bool {
        self.get(id)
            .is_some_and(|record| record.generation() == generation)
    }

    /// Starts the connection's time anew: it ends its `timeout` after `now`.
    #[inline(always)]
    pub fn touch(&mut self, id: ConnId, now: Tick) {
        let Some(record) = self.get_mut(id) else {
            return;
        };
        if !record.renew(now) {
            let expires = now.plus(record.timeout.min(LONGEST));
            self.sooner(id, expires);
        }
    }

    /// Lets the connection end as soon as possible, by way of [`Self::advance`] (`ip_vs_conn_expire_now`).
    pub fn expire_now(&mut self, id: ConnId, now: Tick) {
        if self
            .get(id)
            .is_some_and(|record| !now.reached(record.expires()))
        {
            self.sooner(id, now);
        }
    }

    #[cold]
    fn sooner(&mut self, id: ConnId, expires: Tick) {
        self.wheel.stop(&mut self.records, id.0);
        self.records[id.0 as usize].set_expires(expires);
        self.wheel.start(&mut self.records, id.0);
    }

    /// Changes what a connection is found by, which makes it the newest of its new keys. False if there is none in this
    /// place.
    pub fn rekey(&mut self, id: ConnId, change: impl FnOnce(&mut Endpoints<F>)) -> bool {
        let Some(record) = self.get(id) else {
            return false;
        };
        let mut ends = record.endpoints();
        change(&mut ends);
        self.admit_late();
        self.leave(id.0);
        let record = &mut self.records[id.0 as usize];
        let open = record.has(Flags::NO_CPORT);
        record.set_endpoints(&ends);
        if open && !record.has(Flags::NO_CPORT) {
            self.no_cport -= 1;
        }
        let (inbound, outbound) = self.hashes_anew(id.0);
        if let Some(hash) = inbound {
            self.enter(id.0, hash);
        }
        if let Some(hash) = outbound {
            self.enter(id.0 | OUT, hash);
        }
        true
    }

    /// Has some more of the index's memory put in place: a bounded step, for every now and then.
    pub(crate) fn warm_up(&mut self) {
        self.index.warm_up();
    }

    /// Hands each connection whose time is up to `f`, which decides. Looks at no more than `budget` records, and goes on
    /// from there the next time; true when everything due at `now` is done. To be called often, also if little is due:
    /// far timers are brought nearer meanwhile.
    pub fn advance(
        &mut self,
        now: Tick,
        budget: usize,
        mut f: impl FnMut(&mut Record<F>, ConnId) -> Expiry,
    ) -> bool {
        // A quarter for what is not due yet, so that much of that does not put off what is, nor the other way round.
        let mut aside = budget / 4 + 1;
        self.wheel.draw_near(&mut self.records, &mut aside);
        let mut budget = budget;
        // A few at a time, so that what the index has of them can come while others are dealt with.
        let mut due = [0; 16];
        loop {
            let mut count = 0;
            while count < due.len() {
                let Some(id) = self.wheel.pop_due(&mut self.records, now, &mut budget) else {
                    break;
                };
                self.prefetch_hashes(self.hashes_anew(id));
                due[count] = id;
                count += 1;
            }
            for &id in &due[..count] {
                let record = &mut self.records[id as usize];
                match f(record, ConnId(id)) {
                    Expiry::Remove => self.release(id),
                    Expiry::Again(ticks) => {
                        record.timeout = ticks;
                        // Not now again: that would never end.
                        record.set_expires(now.plus(ticks.clamp(1, LONGEST)));
                        self.wheel.start(&mut self.records, id);
                    }
                }
            }
            if count < due.len() {
                break;
            }
        }
        self.wheel.is_past(now)
    }

    /// Shows connections from `cursor` (0 at first) on, looking at no more than `max` places, and returns the cursor to
    /// go on with, or none at the end. A connection that is there all the while is shown once, whatever comes and goes.
    pub fn dump(
        &self,
        cursor: u64,
        max: usize,
        mut f: impl FnMut(ConnId, &Record<F>),
    ) -> Option<u64> {
        let used = &self.records[..self.used as usize];
        let from = cursor.min(used.len() as u64) as usize;
        let to = from.saturating_add(max.max(1)).min(used.len());
        for (id, record) in (from..).zip(&used[from..to]) {
            if record.is_live() {
                f(ConnId(id as u32), record);
            }
        }
        (to < used.len()).then_some(to as u64)
    }

    /// What a record is found by; `hash` is that of its key.
    #[inline(always)]
    fn hashes(&self, record: &Record<F>, hash: u64) -> Hashes {
        let flags = record.flags();
        if flags.has(Flags::ONE_PACKET) {
            return (None, None);
        }
        if flags.has(Flags::TEMPLATE) {
            let by_engine = flags.has(Flags::PE);
            return (Some(if by_engine { record.pe_hash() } else { hash }), None);
        }
        let out = (record.forward() == Forward::Masq).then(|| self.hash_of(&record.answer()));
        (Some(hash), out)
    }

    fn hashes_anew(&self, id: u32) -> Hashes {
        let record = &self.records[id as usize];
        self.hashes(record, self.hash_of(&record.request()))
    }

    #[inline]
    fn prefetch_hashes(&self, hashes: Hashes) {
        for hash in [hashes.0, hashes.1].into_iter().flatten() {
            self.index.prefetch(hash);
        }
    }

    /// Puts an entry into the index.
    fn enter(&mut self, entry: u32, hash: u64) {
        let records = &self.records;
        // Equal is what one look-up of either kind could take for the other: same client, same other end.
        let end = |entry: u32| {
            let record = &records[(entry & !OUT) as usize];
            if record.has(Flags::TEMPLATE.with(Flags::PE)) {
                return (None, true, record.pe_hash());
            }
            let tuple = match entry & OUT {
                0 => record.request(),
                _ => record.answer(),
            };
            (Some(tuple), record.has(Flags::TEMPLATE), 0)
        };
        self.index
            .insert(hash, entry, |other| end(other) == end(entry));
    }

    /// Takes a record out of the index.
    fn leave(&mut self, id: u32) {
        debug_assert!(self.late.is_empty(), "entries are late");
        let (inbound, outbound) = self.hashes_anew(id);
        if let Some(hash) = inbound {
            self.index.remove(hash, id);
        }
        if let Some(hash) = outbound {
            self.index.remove(hash, id | OUT);
        }
    }

    /// Frees the place of a record that is out of the wheel already.
    fn release(&mut self, id: u32) {
        self.leave(id);
        let record = &mut self.records[id as usize];
        self.no_cport -= u32::from(record.has(Flags::NO_CPORT));
        record.retire();
        record.links = Links::parked(self.free);
        self.free = id + 1;
        self.len -= 1;
    }
}

impl<F: Family> std::ops::Index<ConnId> for ConnTable<F> {
    type Output = Record<F>;

    /// The record of an id that this table has given out. Where it may be stale, [`ConnTable::get`] tells.
    #[inline]
    fn index(&self, id: ConnId) -> &Record<F> {
        &self.records[id.0 as usize]
    }
}

impl<F: Family> std::ops::IndexMut<ConnId> for ConnTable<F> {
    #[inline]
    fn index_mut(&mut self, id: ConnId) -> &mut Record<F> {
        &mut self.records[id.0 as usize]
    }
}

#[cfg(test)]
mod tests;
