//! That no change of services and dests makes a worker's tables grow by leaps: packets would wait for it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use allocation_counter::measure;
use ripvs_core::delta::{Delta, Step};
use ripvs_core::ledger::{Account, Ledger};
use ripvs_core::net::NetConfig;
use ripvs_core::*;

use crate::memory::PoolFrame;

const SERVICES: u32 = 20_000;
const DESTS: u32 = 8;

/// Most bytes that one change may ask for: whatever is copied into new memory is in there, so it is a few microseconds'
/// work at most. Several tables may take a step at the same time.
const MOST: u64 = 96 << 10;

fn addr(first: u8, n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(u32::from(first) << 24 | n))
}

/// Services with dests of all kinds, each at an address of its own, and a client's network for some of the addresses.
fn changes(services: u32) -> impl Iterator<Item = Delta> {
    let mut ledger = Ledger::default();
    let dest = |n: u32| DestSpec {
        addr: addr(11, n),
        port: 80,
        forward: [Forward::Masq, Forward::Tunnel, Forward::Route][n as usize % 3],
        weight: 1,
        upper: 0,
        lower: 0,
        tunnel: TunnelKind::Ipip,
        tunnel_csum: TunnelCsum::None,
    };
    let mut accounts = (0..services * DESTS).map(move |n| ledger.open(DestId(n), &dest(n)));
    (0..services).flat_map(move |n| {
        let id = ServiceId(n);
        let spec = ServiceSpec {
            key: ServiceKey::Addr {
                proto: 6,
                addr: addr(10, n),
                port: 80,
            },
            sched: Some(SchedKind::Wlc),
            flags: 0,
            timeout: 0,
            netmask: u32::MAX,
            pe_sip: false,
            exact: false,
        };
        let service = Delta::ServiceAdd {
            id,
            spec: Arc::new(spec),
        };
        let accounts: Vec<Account> = accounts.by_ref().take(DESTS as usize).collect();
        let dests = (n * DESTS..(n + 1) * DESTS).zip(accounts);
        let dests = dests.map(move |(n, tally)| Delta::DestAdd {
            service: id,
            id: DestId(n),
            spec: Arc::new(dest(n)),
            tally,
        });
        std::iter::once(service).chain(dests)
    })
}

fn worker() -> Worker<PoolFrame> {
    let config = WorkerConfig {
        id: WorkerId(0),
        workers: 1,
        connections: 100,
        owner_by_address: false,
        seed: 1,
        net: NetConfig::default(),
        frag: ripvs_core::frag::Settings::default(),
    };
    Worker::new(config, Time(0), Arc::default()).unwrap()
}

#[test]
fn no_change_allocates_much_however_many_services_there_are() {
    let mut worker = worker();
    let (mut most, mut all) = (0, 0);
    let mut apply = |delta: Delta| {
        let during = measure(|| drop(worker.apply(Time(0), delta)));
        most = most.max(during.bytes_total);
        all += during.bytes_total;
    };
    changes(SERVICES).for_each(&mut apply);
    for n in 0..SERVICES {
        apply(Delta::ServiceRemove { id: ServiceId(n) });
    }
    for n in 0..SERVICES * DESTS {
        apply(Delta::DestFree { id: DestId(n) });
    }
    assert!(most <= MOST, "{most} bytes for one change");
    assert!(
        all > 500 * MOST,
        "{all} bytes altogether: not what is meant"
    );
}

#[test]
fn what_was_made_ready_is_taken_in_without_memory_but_where_a_table_grows() {
    let mut worker = worker();
    let plain = changes(SERVICES).map(|change| match change {
        Delta::DestAdd {
            service,
            id,
            spec,
            tally,
        } => Delta::DestAdd {
            service,
            id,
            // The ways to others are noted in a tree.
            spec: Arc::new(DestSpec {
                forward: Forward::Route,
                ..(*spec).clone()
            }),
            tally,
        },
        other => other,
    });
    let mut steps = Step::make(plain.collect(), WorkerId(0), 1);
    assert_eq!(steps.len(), SERVICES as usize);
    let mut growing = 0;
    for step in &mut steps {
        let during = measure(|| worker.carry_out(Time(0), step));
        growing += u32::from(during.count_total > 0);
    }
    // A page of dests for every eight, and now and then a table's part that is split.
    assert!(growing < SERVICES / 5, "{growing} of {SERVICES}");
    let removed = (0..SERVICES).map(|n| Delta::ServiceRemove { id: ServiceId(n) });
    let mut touching = 0;
    for mut step in Step::make(removed.collect(), WorkerId(0), 1) {
        let during = measure(|| worker.carry_out(Time(0), &mut step));
        touching += u32::from((during.count_total, during.bytes_current) != (0, 0));
    }
    assert!(
        touching < 10,
        "{touching}: the removed ones are left to others"
    );
}
