//! The table against a slow model: a list of connections, newest last, that is searched from its end.

use super::*;
use crate::conn::Control;
use crate::family::{V4, V6};
use crate::types::{DestId, ServiceId, WorkerId};

/// SplitMix64, so that a failing seed can be run again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

fn table<F: Family>(limit: u32, now: Tick) -> ConnTable<F> {
    ConnTable::new(limit, now, FlowHash::new([1, 2])).unwrap()
}

fn addr<F: Family>(n: u8) -> F::Addr {
    let mut addr = F::Addr::default();
    addr.as_mut()[F::ADDR_LEN - 1] = n;
    addr
}

fn key<F: Family>(client: u8, cport: u16, service: u8, vport: u16) -> Key<F> {
    Key {
        proto: 6,
        caddr: addr::<F>(client),
        cport,
        vaddr: addr::<F>(service),
        vport,
    }
}

const MASQ: Flags = Flags::of_forward(Forward::Masq);
const ROUTE: Flags = Flags::of_forward(Forward::Route);

fn find_in<F: Family>(table: &ConnTable<F>, key: &Key<F>) -> Option<ConnId> {
    table.find_in(table.hash_in(key), key)
}

fn find_out<F: Family>(table: &ConnTable<F>, key: &OutKey<F>) -> Option<ConnId> {
    table.find_out(table.hash_out(key), key)
}

/// What the model keeps of a connection.
#[derive(Clone, Copy, Debug)]
struct Known<F: Family> {
    id: ConnId,
    generation: u16,
    new: NewConn<F>,
    expires: u64,
}

impl<F: Family> Known<F> {
    fn out(&self) -> OutKey<F> {
        let NewConn {
            key,
            daddr,
            dport,
            flags,
            ..
        } = self.new;
        let (saddr, sport) = if flags.forward() == Forward::Masq {
            (daddr, dport)
        } else {
            (key.vaddr, key.vport)
        };
        OutKey {
            proto: key.proto,
            saddr,
            sport,
            caddr: key.caddr,
            cport: key.cport,
        }
    }

    fn is_template(&self) -> bool {
        self.new.flags.has(Flags::TEMPLATE)
    }

    fn hidden(&self) -> bool {
        self.new.flags.has(Flags::ONE_PACKET)
    }
}

struct Model<F: Family> {
    table: ConnTable<F>,
    known: Vec<Known<F>>,
    random: Random,
    now: u64,
}

impl<F: Family> Model<F> {
    fn new(seed: u64) -> Model<F> {
        let mut random = Random(seed);
        // Anywhere in the 497 days of ticks, and often close before their wrap.
        let now = match seed % 3 {
            0 => random.below(1 << 32),
            1 => (1 << 32) - random.below(1 << 18),
            _ => (1 << 32) - random.below(1000),
        };
        Model {
            table: table(300, Tick(now as u32)),
            known: Vec::new(),
            random,
            now,
        }
    }

    fn tick(&self) -> Tick {
        Tick(self.now as u32)
    }

    fn key(&mut self) -> Key<F> {
        let random = &mut self.random;
        Key {
            proto: random.pick(&[6, 17]),
            caddr: addr::<F>(random.pick(&[1, 2, 3])),
            cport: random.pick(&[0, 0, 1000, 1001, 1002, 1003]),
            vaddr: addr::<F>(random.pick(&[100, 101])),
            vport: random.pick(&[80, 81, 65535]),
        }
    }

    fn timeout(&mut self) -> u32 {
        let longest = self
            .random
            .pick(&[10, 300, 90_000, 200_000, 500_000, 300_000_000]);
        self.random.below(longest) as u32
    }

    fn insert(&mut self) {
        let key = self.key();
        let mut flags = self
            .random
            .pick(&[MASQ, MASQ, ROUTE, Flags::of_forward(Forward::Tunnel)]);
        match self.random.below(12) {
            0 | 1 => flags = flags.with(Flags::TEMPLATE),
            2 => flags = flags.with(Flags::ONE_PACKET),
            3 if key.cport == 0 => flags = flags.with(Flags::NO_CPORT),
            _ => {}
        }
        let new = NewConn {
            dest: Some(DestId(self.random.below(9) as u32)),
            service: Some(ServiceId(1)),
            timeout: self.timeout(),
            ..NewConn::new(
                key,
                addr::<F>(self.random.pick(&[10, 11, 100])),
                self.random.pick(&[80, 8080]),
                flags,
            )
        };
        // What the table keeps of equal ones is limited.
        if self
            .known
            .iter()
            .filter(|k| k.new.key == key || k.out() == Known { new, ..**k }.out())
            .count()
            > 12
        {
            return;
        }
        let (now, hash) = (self.tick(), self.table.hash_in(&key));
        let made = match self.random.below(3) {
            0 => self.table.insert(now, &new),
            _ => self.table.insert_late(now, &new, hash),
        };
        let id = made.unwrap();
        assert!(
            self.known.iter().all(|k| k.id != id),
            "the place was in use"
        );
        let generation = self.table[id].generation();
        self.known.push(Known {
            id,
            generation,
            new,
            expires: self.now + u64::from(new.timeout),
        });
    }

    fn some(&mut self) -> Option<usize> {
        (!self.known.is_empty()).then(|| self.random.below(self.known.len() as u64) as usize)
    }

    fn remove(&mut self) {
        if let Some(at) = self.some() {
            let gone = self.known.remove(at);
            let record = self.table.remove(gone.id).unwrap();
            assert_eq!(record.key(), gone.new.key);
            assert_eq!(record.dest(), gone.new.dest);
            assert!(self.table.get(gone.id).is_none());
            assert!(self.table.remove(gone.id).is_none());
        }
    }

    fn touch(&mut self) {
        if let Some(at) = self.some() {
            let timeout = if self.random.below(2) == 0 {
                self.timeout()
            } else {
                self.known[at].new.timeout
            };
            let (id, tick) = (self.known[at].id, self.tick());
            self.table[id].timeout = timeout;
            self.table.touch(id, tick);
            self.known[at].new.timeout = timeout;
            self.known[at].expires = self.now + u64::from(timeout);
        }
    }

    fn expire_now(&mut self) {
        if let Some(at) = self.some() {
            self.table.expire_now(self.known[at].id, self.tick());
            self.known[at].expires = self.known[at].expires.min(self.now);
        }
    }

    fn rekey(&mut self) {
        let Some(at) = self.some() else { return };
        let mut known = self.known[at];
        let (cport, vport) = (
            self.random.pick(&[0, 1000, 1001]),
            self.random.pick(&[80, 65535]),
        );
        let (daddr, dport) = (
            addr::<F>(self.random.pick(&[10, 11])),
            self.random.pick(&[80, 65535]),
        );
        let forward = self.random.pick(&[Forward::Masq, Forward::Route]);
        let mut seen = None;
        assert!(self.table.rekey(known.id, |ends| {
            seen = Some(*ends);
            *ends = Endpoints {
                cport,
                vport,
                daddr,
                dport,
                forward,
                dest: Some(DestId(77)),
            };
        }));
        let seen = seen.unwrap();
        assert_eq!(
            (seen.cport, seen.vport),
            (known.new.key.cport, known.new.key.vport)
        );
        assert_eq!((seen.daddr, seen.dport), (known.new.daddr, known.new.dport));
        known.new.key.cport = cport;
        known.new.key.vport = vport;
        known.new.daddr = daddr;
        known.new.dport = dport;
        known.new.dest = Some(DestId(77));
        known.new.flags = known.new.flags.with_forward(forward);
        if cport != 0 {
            known.new.flags = known.new.flags.without(Flags::NO_CPORT);
        }
        self.known.remove(at);
        self.known.push(known);
    }

    fn advance(&mut self) {
        let jump = self.random.pick(&[1, 5, 50, 1000, 100_000, 3_000_000]);
        // What is made due after its tick was done with comes with the next.
        self.now += 1 + self.random.below(jump);
        let now = self.tick();
        let (mut gone, mut again) = (Vec::new(), Vec::new());
        let budget = self.random.pick(&[1, 2, 7, 100_000]) as usize;
        let mut calls = 0u64;
        loop {
            let done = self.table.advance(now, budget, |record, id| {
                // A tenth goes on for some more ticks.
                if record.timeout % 10 == 9 {
                    again.push(id);
                    Expiry::Again(record.timeout / 2)
                } else {
                    gone.push(id);
                    Expiry::Remove
                }
            });
            if done {
                break;
            }
            calls += 1;
            assert!(calls < 1_000_000, "no end of it");
        }
        for known in &mut self.known {
            let due = known.expires <= self.now;
            assert_eq!(
                gone.contains(&known.id) || again.contains(&known.id),
                due,
                "{known:?} at {}",
                self.now
            );
            if again.contains(&known.id) {
                known.new.timeout /= 2;
                known.expires = self.now + u64::from(known.new.timeout.max(1));
            }
        }
        self.known.retain(|known| !gone.contains(&known.id));
    }

    fn check(&mut self) {
        assert_eq!(self.table.len() as usize, self.known.len());
        let open = self
            .known
            .iter()
            .filter(|k| k.new.flags.has(Flags::NO_CPORT))
            .count();
        assert_eq!(self.table.no_cport as usize, open);
        let newest = |fits: &dyn Fn(&Known<F>) -> bool| {
            self.known.iter().rev().find(|k| fits(k)).map(|k| k.id)
        };
        let mut keys: Vec<Key<F>> = self.known.iter().map(|k| k.new.key).collect();
        let outs: Vec<OutKey<F>> = self.known.iter().map(Known::out).collect();
        keys.push(Key {
            vport: 9999,
            ..key(1, 1000, 100, 80)
        });
        for key in keys {
            let exact = |key: Key<F>| {
                newest(&move |k| {
                    let open = k.new.flags.has(Flags::NO_CPORT);
                    k.new.key == key && !k.is_template() && !k.hidden() && (key.cport == 0) == open
                })
            };
            let want = exact(key).or_else(|| exact(Key { cport: 0, ..key }));
            assert_eq!(find_in(&self.table, &key), want, "{key:?}");
            // A client's port that nobody knows finds the open ones only.
            let other = Key { cport: 7777, ..key };
            assert_eq!(find_in(&self.table, &other), exact(Key { cport: 0, ..key }));
            let want = newest(&|k| k.new.key == key && k.is_template() && !k.hidden());
            assert_eq!(
                self.table.find_template(self.table.hash_in(&key), &key),
                want
            );
        }
        for out in outs {
            let want = newest(&|k| k.out() == out && !k.is_template() && !k.hidden());
            assert_eq!(find_out(&self.table, &out), want, "{out:?}");
        }
        for known in &self.known {
            assert!(self.table.holds(known.id, known.generation));
            let record = self.table.get(known.id).unwrap();
            assert_eq!(record.expires(), Tick(known.expires as u32));
            assert_eq!(record.forward(), known.new.flags.forward());
        }
    }
}

fn run<F: Family>(seed: u64) {
    let mut model = Model::<F>::new(seed);
    for step in 0..400 {
        let what = model.random.below(20);
        if what > 8 {
            model.table.admit_late();
        }
        match what {
            0..=8 => model.insert(),
            9 => model.remove(),
            10..=13 => model.touch(),
            14 => model.expire_now(),
            15..=16 => model.rekey(),
            _ => model.advance(),
        }
        if step % 8 == 0 {
            model.table.admit_late();
            model.check();
        }
    }
    model.table.admit_late();
    model.check();
}

#[test]
fn the_table_agrees_with_a_list_searched_from_its_newest_end() {
    for seed in 0..60 {
        run::<V4>(seed);
        run::<V6>(1000 + seed);
    }
}

#[test]
fn a_full_table_refuses_and_goes_on_with_what_it_has() {
    let now = Tick(5);
    let mut table = table::<V4>(1000, now);
    let keys: Vec<_> = (0..1000).map(|n| key::<V4>(1, 1000 + n, 100, 80)).collect();
    let ids: Vec<_> = keys
        .iter()
        .map(|&key| {
            table
                .insert(now, &NewConn::new(key, [10, 0, 0, 1], 80, MASQ))
                .unwrap()
        })
        .collect();
    let more = NewConn::new(key(2, 1, 100, 80), [10, 0, 0, 1], 80, MASQ);
    assert_eq!(table.insert(now, &more), Err(TableFull));
    assert_eq!(table.len(), table.limit());
    for (key, id) in keys.iter().zip(&ids) {
        assert_eq!(find_in(&table, key), Some(*id));
        let answer = table[*id].answer();
        let hash = table.hash_of(&answer);
        assert_eq!(table.find_out_exact(hash, &answer), Some(*id));
    }
    assert!(table.remove(ids[500]).is_some());
    let id = table.insert(now, &more).unwrap();
    assert_eq!(find_in(&table, &more.key), Some(id));
    assert_eq!(table.insert(now, &more), Err(TableFull));
    for (n, (key, id)) in keys.iter().zip(&ids).enumerate() {
        assert_eq!(find_in(&table, key), (n != 500).then_some(*id));
    }
}

#[test]
fn a_stale_id_is_known_by_its_generation() {
    let mut table = table::<V4>(10, Tick(0));
    let new = NewConn::new(key(1, 1, 100, 80), [10, 0, 0, 1], 80, MASQ);
    let id = table.insert(Tick(0), &new).unwrap();
    let generation = table[id].generation();
    assert!(table.holds(id, generation));
    table.remove(id);
    assert!(!table.holds(id, generation));
    assert_eq!(
        table.insert(Tick(0), &new),
        Ok(id),
        "the place is used again"
    );
    assert!(!table.holds(id, generation));
}

#[test]
fn a_dump_shows_what_stays_exactly_once_while_others_come_and_go() {
    let mut random = Random(3);
    let now = Tick(0);
    let mut table = table::<V6>(2000, now);
    let insert = |table: &mut ConnTable<V6>, n: u16| {
        table
            .insert(
                now,
                &NewConn::new(key(1, n, 100, 80), addr::<V6>(10), 80, MASQ),
            )
            .unwrap()
    };
    let all: Vec<_> = (1..1000).map(|n| insert(&mut table, n)).collect();
    let (stay, mut go): (Vec<_>, Vec<_>) = all.into_iter().partition(|id| id.0 % 3 == 0);
    let mut seen = std::collections::HashMap::new();
    let (mut cursor, mut port) = (Some(0), 1000);
    while let Some(from) = cursor {
        let mut shown = 0;
        cursor = table.dump(from, 7, |id, _| {
            *seen.entry(id).or_insert(0) += 1;
            shown += 1;
        });
        assert!(shown <= 7);
        for _ in 0..3 {
            let at = random.below(go.len() as u64) as usize;
            table.remove(go.swap_remove(at));
            go.push(insert(&mut table, port));
            port += 1;
        }
    }
    for id in stay {
        assert_eq!(seen.get(&id), Some(&1), "{id:?}");
    }
    assert_eq!(table.dump(u64::MAX, 5, |_, _| ()), None);
}

#[test]
fn a_persistence_engines_template_is_found_by_its_data_alone() {
    let mut table = table::<V4>(10, Tick(0));
    let flags = MASQ.with(Flags::TEMPLATE).with(Flags::PE);
    let [alpha, beta] = [&b"alpha@x"[..], b"beta@x"].map(|data| table.hash_data(data));
    let new = |client, pe_hash| NewConn {
        pe_hash,
        control: Some(Control {
            worker: WorkerId(1),
            id: ConnId(1),
        }),
        ..NewConn::new(key(client, 0, 100, 5060), [10, 0, 0, 1], 5060, flags)
    };
    let first = table.insert(Tick(0), &new(1, alpha)).unwrap();
    let other = table.insert(Tick(0), &new(1, beta)).unwrap();
    assert_eq!(table.find_template_by(alpha, |_, _| true), Some(first));
    assert_eq!(table.find_template_by(beta, |_, _| true), Some(other));
    assert_eq!(table.find_template_by(beta, |id, _| id != other), None);
    let plain = key(1, 0, 100, 5060);
    assert_eq!(
        table.find_template(table.hash_in(&plain), &plain),
        None,
        "not by its key"
    );
    // The next one of that data is found before it, and leaves it where it was.
    let second = table.insert(Tick(0), &new(2, alpha)).unwrap();
    assert_eq!(table.find_template_by(alpha, |_, _| true), Some(second));
    table.remove(second);
    assert_eq!(table.find_template_by(alpha, |_, _| true), Some(first));
    assert!(table.rekey(first, |ends| ends.vport = 65535));
    assert_eq!(
        table.find_template_by(alpha, |_, record| record.vport() == 65535),
        Some(first)
    );
}

#[test]
fn eight_million_connections_take_no_more_memory_than_promised() {
    // Laid out, but not touched.
    let four = table::<V4>(8_000_000, Tick(0));
    let six = table::<V6>(8_000_000, Tick(0));
    assert!(
        four.bytes() <= 96 * 8_000_000,
        "{}",
        four.bytes() / 8_000_000
    );
    assert!(
        six.bytes() <= 144 * 8_000_000,
        "{}",
        six.bytes() / 8_000_000
    );
}
