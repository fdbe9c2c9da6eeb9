//! What picking and changes cost at 10, 1,000 and 10,000 dests:
//! `cargo test --release -p ripvs-core cost -- --ignored --nocapture`

use std::time::Instant;

use super::mh::TableIndex;
use super::testing::{from, give_table, key, member, Random};
use super::{Group, PickKey};
use crate::spec::SchedKind;
use crate::types::{DestId, Time};

/// Nanoseconds that each of `times` calls takes, in the best of twenty parts: others use the machine too.
fn each(times: u32, mut call: impl FnMut(u32)) -> u128 {
    let part = times / 20;
    let parts = (0..20).map(|i| {
        let start = Instant::now();
        (i * part..(i + 1) * part).for_each(&mut call);
        start.elapsed().as_nanos() / u128::from(part)
    });
    parts.min().unwrap()
}

#[test]
#[ignore = "prints times, for a release build"]
fn cost() {
    println!("ns for each           dests     pick  + load     edit  add+remove");
    for (kind, name) in SchedKind::ALL {
        for dests in [10, 1000, 10_000] {
            let mut random = Random::new(1);
            let mut group = Group::new(Some(kind), 0, 0, 1);
            (0..dests).for_each(|n| group.add(member(n, 1 + random.below(100) as i32)));
            if kind == SchedKind::Mh {
                let index = if dests < 4000 { 12 } else { 17 };
                give_table(&mut group, TableIndex::new(index).unwrap());
            }
            let keys: Vec<PickKey> = (0..4096u32)
                .map(|n| PickKey {
                    daddr: [203, 0, 113, n as u8].into(),
                    ..from(n.to_be_bytes(), n as u16)
                })
                .collect();
            let mut picked = 0;
            let pick = each(200_000, |n| {
                picked += group.pick(&keys[n as usize % 4096]).map_or(0, |m| m.id.0);
            });
            let load = each(200_000, |n| {
                if let Some(m) = group.pick(&keys[n as usize % 4096]).copied() {
                    group.set_load(m.id, m.active + 1, m.inactive);
                }
                group.expire(Time(u64::from(n)));
            });
            let edit = each(20_000, |n| {
                group.edit(DestId(n * 7 % dests), 1 + (n % 90) as i32);
            });
            let add = each(20_000, |n| {
                group.remove(DestId(n % dests));
                group.add(member(n % dests, 50));
            });
            assert!(picked > 0 && group.pick(&key()).is_some() || kind == SchedKind::Mh);
            println!("{name:20} {dests:6} {pick:8} {load:8} {edit:8} {add:11}");
        }
    }
}

#[test]
#[ignore = "prints times, for a release build"]
fn cost_worst() {
    for (kind, name) in SchedKind::ALL {
        let mut worst = u128::MAX;
        for _ in 0..20 {
            let mut group = Group::new(Some(kind), 0, 0, 1);
            let mut most = 0;
            for n in 0..10_000 {
                let start = Instant::now();
                group.add(member(n, 50));
                most = most.max(start.elapsed().as_nanos());
            }
            worst = worst.min(most);
        }
        println!("{name:10} {worst}");
    }
}
