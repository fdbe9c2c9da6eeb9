//! For tests: the fast schedulers against the kernel's loops over a list, through random operations on a group.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::mh::{Table, TableIndex};
use super::{Group, Member, PickKey};
use crate::spec::SchedKind;
use crate::types::{Af, DestId, Time};

/// A small generator with a seed (xorshift64*).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `n`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 20) % n
    }
}

/// A TCP packet from 198.18.0.1 to 192.0.2.100:80.
pub(super) fn key() -> PickKey {
    PickKey {
        saddr: IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)),
        daddr: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 100)),
        sport: 1000,
        dport: 80,
        proto: 6,
        inverse: false,
        now: Time(0),
    }
}

/// The same from that client.
pub(super) fn from(caddr: impl Into<IpAddr>, cport: u16) -> PickKey {
    PickKey {
        saddr: caddr.into(),
        sport: cport,
        ..key()
    }
}

/// The same to that virtual address.
pub(super) fn to(vaddr: impl Into<IpAddr>) -> PickKey {
    PickKey {
        daddr: vaddr.into(),
        ..key()
    }
}

/// A client out of a few thousand, of either family.
pub(super) fn any_client(random: &mut Random, _step: u32) -> PickKey {
    let n = random.below(5000) as u32 * 7919;
    let key = if random.below(4) == 0 {
        let n = u128::from(n) << random.below(96);
        from(Ipv6Addr::from(n), random.below(65536) as u16)
    } else {
        from(Ipv4Addr::from(n), random.below(65536) as u16)
    };
    PickKey {
        proto: [6, 17, 132, 50][random.below(4) as usize],
        inverse: random.below(8) == 0,
        ..key
    }
}

/// One of eight virtual addresses, most of an hour after the step before.
pub(super) fn any_vaddr(random: &mut Random, step: u32) -> PickKey {
    PickKey {
        now: Time::from_secs(3000 * u64::from(step)),
        ..to([203, 0, 113, random.below(8) as u8])
    }
}

/// The least overhead for its weight, among those of weight above 0, as the kernel's loops in wlc, lblc and lblcr find it.
pub(super) fn wlc<'a>(list: impl Iterator<Item = &'a Member>) -> Option<DestId> {
    let mut least: Option<&Member> = None;
    for m in list.filter(|m| m.weight > 0) {
        if least.is_none_or(|l| l.overhead() * m.weight as u64 > m.overhead() * l.weight as u64) {
            least = Some(m);
        }
    }
    least.map(|m| m.id)
}

/// The dest 10.0.0.`n`:80, with id `n`.
pub(super) fn member(n: u32, weight: i32) -> Member {
    let addr = Ipv4Addr::from(0x0a00_0000 + n);
    Member::new(DestId(n), IpAddr::V4(addr), 80, weight)
}

/// A group of dests `(n, weight)`, in the order in which an operator adds them.
pub(super) fn group(kind: SchedKind, flags: u32, dests: &[(u32, i32)]) -> Group {
    let mut group = Group::new(Some(kind), flags, 0, 1);
    for (n, weight) in dests {
        group.add(member(*n, *weight));
    }
    group
}

/// Picks for each packet, counting a new connection as active if TCP (which is in SYN_RECV then) and else as inactive. 0
/// where there is no dest.
pub(super) fn picks(group: &mut Group, keys: impl IntoIterator<Item = PickKey>) -> Vec<u32> {
    let mut picked = Vec::new();
    for key in keys {
        let Some(m) = group.pick(&key).copied() else {
            picked.push(0);
            continue;
        };
        let tcp = u32::from(key.proto == 6);
        group.set_load(m.id, m.active + tcp, m.inactive + 1 - tcp);
        picked.push(m.id.0);
    }
    picked
}

/// The kernel's loop, written over the list as it stands; `list[0]` is the head.
pub(super) trait Model {
    /// The list was changed; this is how it is now.
    fn changed(&mut self, _list: &[Member], _change: &ListChange) {}

    /// Which dest is picked.
    fn pick(&mut self, list: &[Member], key: &PickKey) -> Option<DestId>;
}

/// What happened to the list.
pub(super) enum ListChange {
    Added,
    Edited,
    /// One was taken out; it stood at that place.
    Removed(Member, usize),
}

/// Draws the packet for a step of a test.
pub(super) type Keys = fn(&mut Random, u32) -> PickKey;

/// Does what the control thread does after a change of the list.
pub(super) fn give_table(group: &mut Group, index: TableIndex) {
    let table = Table::build(Af::V4, group.pool().iter().map(|(_, m)| m), index);
    group.set_table(table.unwrap());
}

/// Holds a group against a model through `steps` random operations for each of many seeds.
pub(super) fn compare<M: Model>(
    kind: SchedKind,
    flags: u32,
    keys: Keys,
    model: impl Fn() -> M,
    steps: u32,
) {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let mut group = Group::new(Some(kind), flags, 0, 1);
        let mut model = model();
        let mut list: Vec<Member> = Vec::new();
        let most = [3, 8, 40][seed as usize % 3];
        let weights: &[i32] = [
            &[0, 1, 2, 3, 4, 5][..],
            &[1, 1, 1, 0][..],
            &[6, 12, 18, 0, 30][..],
            &[100, 1, 7, 65535][..],
        ][seed as usize / 3 % 4];
        let small = TableIndex::new(8).unwrap();
        give_table(&mut group, small);
        for step in 0..steps {
            let weight = weights[random.below(weights.len() as u64) as usize];
            let at = random.below(list.len().max(1) as u64) as usize;
            match random.below(20) {
                0 | 1 if list.len() < most => {
                    // Now and then one that was there before, as the control thread's numbers come again.
                    let id = random.below(most as u64 * 3) as u32;
                    if list.iter().all(|m| m.id.0 != id) {
                        let m = member(id, weight);
                        list.insert(0, m);
                        group.add(m);
                        give_table(&mut group, small);
                        model.changed(&list, &ListChange::Added);
                    }
                }
                2 if !list.is_empty() => {
                    let m = list.remove(at);
                    group.remove(m.id);
                    give_table(&mut group, small);
                    model.changed(&list, &ListChange::Removed(m, at));
                }
                3 if !list.is_empty() => {
                    let m = &mut list[at];
                    m.weight = weight;
                    if weight != 0 {
                        m.last_weight = weight;
                    }
                    group.edit(m.id, weight);
                    give_table(&mut group, small);
                    model.changed(&list, &ListChange::Edited);
                }
                4 if !list.is_empty() => {
                    let m = &mut list[at];
                    m.overloaded = random.below(2) == 0;
                    group.set_overloaded(m.id, m.overloaded);
                }
                5..=8 if !list.is_empty() => {
                    let m = &mut list[at];
                    m.active = random.below(4) as u32;
                    m.inactive = random.below(300) as u32;
                    group.set_load(m.id, m.active, m.inactive);
                }
                _ => {
                    let key = keys(&mut random, step);
                    let expected = model.pick(&list, &key);
                    let picked = group.pick(&key).map(|m| m.id);
                    if picked.is_none() && group.pool().has_available() {
                        assert_eq!(group.pick(&key), None, "asking changes nothing");
                    }
                    assert_eq!(
                        picked, expected,
                        "{kind:?}, seed {seed}, step {step}: {list:?}"
                    );
                    if let Some(m) = list.iter_mut().find(|m| Some(m.id) == picked) {
                        m.active += 1;
                        group.set_load(m.id, m.active, m.inactive);
                    }
                }
            }
        }
    }
}
