//! The tables against the kernel's answers (the errors-* and dest-* scenarios of the oracle), and what the workers are told.

#![allow(clippy::unwrap_used, clippy::panic)]

mod dests;

use std::time::{Duration, Instant};

use ripvs_api::ipvs::number::{flag, forward, sync_state, tunnel};
use ripvs_api::ipvs::{DestConfig, SyncDaemon};
use ripvs_core::delta::Step;
use ripvs_core::ledger::Account;

use super::super::fleet::Order;
use super::*;

/// A network with one interface, 10.0.0.254/24 on eth1, and the address fe80::1.
struct Around;

impl Surroundings for Around {
    fn is_local(&self, addr: IpAddr) -> bool {
        ["10.0.0.254", "fe80::1"]
            .iter()
            .any(|own| addr == own.parse::<IpAddr>().unwrap())
    }

    fn is_broadcast(&self, addr: IpAddr) -> bool {
        addr == "10.0.0.255".parse::<IpAddr>().unwrap()
    }

    fn mtu_of(&self, name: &str) -> Option<u32> {
        (name == "eth1").then_some(1500)
    }
}

/// Tables, and workers that do as they are told.
struct World {
    master: Master,
    fleet: Fleet,
    now: Instant,
    /// What worker 0 was told in the end.
    told: Vec<Delta>,
}

impl World {
    fn new(workers: usize) -> World {
        World {
            master: Master::new(workers, Exactness::default(), 12),
            fleet: Fleet::new(workers).unwrap(),
            now: Instant::now(),
            told: Vec::new(),
        }
    }

    /// Sends what was gathered, and has every worker apply it.
    fn deliver(&mut self) {
        self.master.make_tables(&mut self.fleet);
        self.fleet.send(self.now);
        for worker in 0..self.fleet.len() {
            while let Some(order) = self.fleet.mailbox(worker).order() {
                let Order::Apply(batch, steps) = order else {
                    panic!("a question?")
                };
                self.fleet.mailbox(worker).applied(batch, Vec::new());
                if worker == 0 {
                    self.told.extend(steps.into_iter().filter_map(change));
                }
            }
        }
        self.fleet.look(self.now);
    }

    fn told(&mut self) -> Vec<Delta> {
        self.deliver();
        std::mem::take(&mut self.told)
    }

    fn add_service(&mut self, key: &ipvs::ServiceKey, config: &ServiceConfig) -> Result<(), Errno> {
        self.master.add_service(key, config, &mut self.fleet)
    }

    fn add(&mut self, key: &ipvs::ServiceKey, dest: DestConfig) -> Result<(), Errno> {
        self.master
            .add_dest(key, Ok(dest), &Around, &mut self.fleet)
    }

    fn edit(&mut self, key: &ipvs::ServiceKey, dest: DestConfig) -> Result<(), Errno> {
        self.master.edit_dest(key, Ok(dest), &mut self.fleet)
    }

    fn delete(&mut self, key: &ipvs::ServiceKey, dest: DestConfig) -> Result<(), Errno> {
        self.master.delete_dest(key, Ok(dest.key), &mut self.fleet)
    }

    fn dests(&self, key: &ipvs::ServiceKey) -> Vec<ipvs::Dest> {
        self.master.dests_from(key, 0, 100).0
    }

    fn estimate(&mut self) {
        self.master.begin_estimate();
        while self.master.go_on_estimating() {}
    }

    /// Counters of worker 0 for the dest that was added last.
    fn last_tally(&mut self) -> Account {
        let told = self.told();
        let tally = told.iter().rev().find_map(|delta| match delta {
            Delta::DestAdd { tally, .. } => Some(tally.clone()),
            _ => None,
        });
        tally.unwrap()
    }
}

/// The change that a step makes which was sent as it was.
fn change(step: Step) -> Option<Delta> {
    match step {
        Step::Change(delta) => Some(delta),
        _ => None,
    }
}

fn tcp(text: &str) -> ipvs::ServiceKey {
    let (addr, port) = text.rsplit_once(':').unwrap();
    ipvs::ServiceKey::Addr {
        protocol: 6,
        addr: addr.parse().unwrap(),
        port: port.parse().unwrap(),
    }
}

fn config(sched: &str) -> ServiceConfig {
    ServiceConfig {
        sched: sched.into(),
        pe: None,
        flags: 0,
        mask: u32::MAX,
        timeout: 0,
        netmask: u32::MAX,
    }
}

fn config6(sched: &str) -> ServiceConfig {
    ServiceConfig {
        netmask: 128,
        ..config(sched)
    }
}

fn dest(addr: &str) -> DestConfig {
    DestConfig {
        key: DestKey {
            addr: addr.parse().unwrap(),
            port: 80,
        },
        forward: forward::ROUTE,
        weight: 1,
        upper: 0,
        lower: 0,
        tun_type: 0,
        tun_port: 0,
        tun_flags: 0,
    }
}

#[test]
fn services_are_refused_with_the_kernel_s_numbers() {
    let mut world = World::new(1);
    let key = tcp("192.0.2.100:80");
    assert_eq!(
        world.add_service(&key, &config("nosuch")),
        Err(Errno::NOENT)
    );
    let pe = ServiceConfig {
        pe: Some("nosuch".into()),
        ..config("rr")
    };
    assert_eq!(world.add_service(&key, &pe), Err(Errno::NOENT));
    assert_eq!(world.add_service(&key, &config("rr")), Ok(()));
    // That it is there already comes before what is wrong with it.
    assert_eq!(
        world.add_service(&key, &config("nosuch")),
        Err(Errno::EXIST)
    );
    let other = tcp("192.0.2.101:80");
    assert_eq!(
        world
            .master
            .edit_service(&other, &config("rr"), &mut world.fleet),
        Err(Errno::SRCH)
    );
    assert_eq!(
        world
            .master
            .edit_service(&key, &config("nosuch"), &mut world.fleet),
        Err(Errno::NOENT)
    );
    assert_eq!(
        world.master.delete_service(&other, &mut world.fleet),
        Err(Errno::SRCH)
    );
    assert_eq!(world.master.zero(Some(&other)), Err(Errno::SRCH));
    assert_eq!(world.master.show_service(&other), Err(Errno::SRCH));
    for plen in [0, 129] {
        let config = ServiceConfig {
            netmask: plen,
            ..config6("rr")
        };
        assert_eq!(
            world.add_service(&tcp("2001:db8::1:80"), &config),
            Err(Errno::INVAL)
        );
    }
    assert_eq!(world.master.delete_service(&key, &mut world.fleet), Ok(()));
    assert_eq!(
        world.master.delete_service(&key, &mut world.fleet),
        Err(Errno::SRCH)
    );
}

#[test]
fn a_listing_shows_what_was_set_and_the_newest_dest_first() {
    let mut world = World::new(2);
    let key = tcp("192.0.2.100:80");
    let persistent = ServiceConfig {
        flags: flag::PERSISTENT,
        timeout: 300,
        ..config("wlc")
    };
    world.add_service(&key, &persistent).unwrap();
    world.add(&key, dest("10.0.0.11")).unwrap();
    world
        .add(
            &key,
            DestConfig {
                upper: 10,
                lower: 5,
                ..dest("10.0.0.12")
            },
        )
        .unwrap();
    let shown = world.master.show_service(&key).unwrap();
    assert_eq!(
        (shown.config.sched.as_str(), shown.config.timeout),
        ("wlc", 300)
    );
    assert_eq!(shown.config.flags, flag::PERSISTENT | flag::HASHED);
    let dests = world.dests(&key);
    let addrs: Vec<String> = dests
        .iter()
        .map(|dest| dest.config.key.addr.to_string())
        .collect();
    assert_eq!(addrs, ["10.0.0.12", "10.0.0.11"]);
    assert_eq!((dests[0].config.upper, dests[0].config.lower), (10, 5));
    // A dump goes on where a page ended.
    let (page, next) = world.master.dests_from(&key, 0, 1);
    assert_eq!((page.len(), next), (1, Some(1)));
    let (page, next) = world.master.dests_from(&key, 1, 1);
    assert_eq!((page.len(), next), (1, None));
}

#[test]
fn flags_that_a_request_does_not_name_stay() {
    let mut world = World::new(1);
    let key = tcp("192.0.2.100:80");
    let sched = ServiceConfig {
        flags: flag::SCHED1,
        ..config("sh")
    };
    world.add_service(&key, &sched).unwrap();
    let edit = ServiceConfig {
        flags: flag::PERSISTENT,
        mask: flag::PERSISTENT,
        ..config("sh")
    };
    world
        .master
        .edit_service(&key, &edit, &mut world.fleet)
        .unwrap();
    let shown = world.master.show_service(&key).unwrap().config.flags;
    assert_eq!(shown, flag::SCHED1 | flag::PERSISTENT | flag::HASHED);
}

#[test]
fn each_worker_counts_apart_and_listings_show_the_sum() {
    let mut world = World::new(3);
    let key = tcp("192.0.2.100:80");
    world.add_service(&key, &config("rr")).unwrap();
    world.add(&key, dest("10.0.0.11")).unwrap();
    world.master.make_tables(&mut world.fleet);
    world.fleet.send(world.now);
    for worker in 0..3 {
        let Some(Order::Apply(_, steps)) = world.fleet.mailbox(worker).order() else {
            panic!()
        };
        for delta in steps.into_iter().filter_map(change) {
            if let Delta::DestAdd { tally, .. } = delta {
                tally.active(2);
                tally.conn();
            }
        }
    }
    assert_eq!(world.dests(&key)[0].active, 6);
    assert_eq!(world.dests(&key)[0].stats.conns, 3);
    world.master.zero(None).unwrap();
    assert_eq!(world.dests(&key)[0].stats.conns, 0);
    assert_eq!(world.dests(&key)[0].active, 6);
}

#[test]
fn a_command_tells_the_workers_as_much_with_a_thousand_services_as_with_one() {
    let told_by_each = |services: u16| {
        let mut world = World::new(1);
        for port in 1..=services {
            let key = tcp(&format!("192.0.2.100:{port}"));
            world.add_service(&key, &config("wrr")).unwrap();
            world.add(&key, dest("10.0.0.11")).unwrap();
        }
        world.told();
        let key = tcp("192.0.2.100:1");
        let mut told = Vec::new();
        world.add(&key, dest("10.0.0.12")).unwrap();
        told.push(world.told().len());
        world.edit(&key, dest("10.0.0.12")).unwrap();
        told.push(world.told().len());
        world.delete(&key, dest("10.0.0.12")).unwrap();
        told.push(world.told().len());
        world
            .add_service(&tcp("192.0.2.101:1"), &config("rr"))
            .unwrap();
        told.push(world.told().len());
        world.master.delete_service(&key, &mut world.fleet).unwrap();
        told.push(world.told().len());
        told
    };
    assert_eq!(told_by_each(1), [1; 5]);
    assert_eq!(told_by_each(1000), [1; 5]);
}

#[test]
fn counters_of_thousands_of_services_are_summed_up_in_pieces() {
    let mut world = World::new(1);
    let keys: Vec<_> = (1..=800)
        .map(|port| tcp(&format!("192.0.2.1:{port}")))
        .collect();
    for key in &keys {
        world.add_service(key, &config("rr")).unwrap();
        world.add(key, dest("10.0.0.11")).unwrap();
    }
    for delta in world.told() {
        if let Delta::DestAdd { tally, .. } = delta {
            (0..100).for_each(|_| tally.conn());
        }
    }
    world.master.begin_estimate();
    let rates = |world: &World| {
        let rate = |key| world.dests(key)[0].stats.cps;
        keys.iter().filter(|key| rate(key) > 0).count()
    };
    assert!(world.master.go_on_estimating());
    assert_eq!(rates(&world), 500);
    assert!(!world.master.go_on_estimating());
    assert_eq!(rates(&world), 800);
    assert!(!world.master.is_estimating());
}

#[test]
fn mh_gets_one_table_for_all_changes_of_a_round() {
    let mut world = World::new(2);
    let key = tcp("192.0.2.100:80");
    world.add_service(&key, &config("mh")).unwrap();
    for n in 11..19 {
        world.add(&key, dest(&format!("10.0.0.{n}"))).unwrap();
    }
    let tables = |told: &[Delta]| {
        let is_table = |delta: &&Delta| matches!(delta, Delta::MaglevTable { .. });
        told.iter().filter(is_table).count()
    };
    assert_eq!(tables(&world.told()), 1);
    world
        .edit(
            &key,
            DestConfig {
                weight: 0,
                ..dest("10.0.0.11")
            },
        )
        .unwrap();
    assert_eq!(tables(&world.told()), 1);
    world
        .master
        .edit_service(&key, &config("rr"), &mut world.fleet)
        .unwrap();
    world.edit(&key, dest("10.0.0.11")).unwrap();
    assert_eq!(tables(&world.told()), 0);
}

#[test]
fn the_requests_of_a_snapshot_make_the_same_tables() {
    let mut world = World::new(1);
    let key = tcp("192.0.2.100:80");
    let mark = ipvs::ServiceKey::Mark {
        mark: 7,
        af: ipvs::Af::V6,
    };
    world
        .add_service(
            &key,
            &ServiceConfig {
                flags: flag::PERSISTENT,
                timeout: 60,
                ..config("sh")
            },
        )
        .unwrap();
    world
        .add_service(
            &mark,
            &ServiceConfig {
                pe: Some("sip".into()),
                ..config6("none")
            },
        )
        .unwrap();
    for n in [11, 12, 13] {
        world
            .add(
                &key,
                DestConfig {
                    weight: n,
                    ..dest(&format!("10.0.0.{n}"))
                },
            )
            .unwrap();
    }
    let mut again = World::new(1);
    for request in world.master.requests() {
        match request {
            ipvs::Request::NewService(key, config) => again.add_service(&key, &config).unwrap(),
            ipvs::Request::NewDest(key, dest) => again.add(&key, dest.unwrap()).unwrap(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        again.master.services_from(0, 10),
        world.master.services_from(0, 10)
    );
    assert_eq!(again.dests(&key), world.dests(&key));
}

#[test]
fn synchronisation_settings_are_kept_as_the_kernel_keeps_them() {
    let mut world = World::new(1);
    let asked = |state: u32, ifn: &str| SyncDaemon {
        state,
        mcast_ifn: Some(ifn.into()),
        sync_id: Some(20),
        ..SyncDaemon::default()
    };
    let start = |world: &mut World, daemon| world.master.start_sync(daemon, &Around);
    assert_eq!(
        start(&mut world, asked(sync_state::BACKUP, "eth9")),
        Err(Errno::NODEV)
    );
    assert_eq!(start(&mut world, asked(3, "eth1")), Err(Errno::INVAL));
    assert_eq!(start(&mut world, asked(sync_state::BACKUP, "eth1")), Ok(()));
    assert_eq!(
        start(&mut world, asked(sync_state::BACKUP, "eth1")),
        Err(Errno::EXIST)
    );
    let unicast = SyncDaemon {
        mcast_group: Some("10.0.0.1".parse().unwrap()),
        ..asked(sync_state::MASTER, "eth1")
    };
    assert_eq!(start(&mut world, unicast), Err(Errno::INVAL));
    let shown: Vec<SyncDaemon> = world.master.sync_daemons().cloned().collect();
    assert_eq!(shown.len(), 1);
    assert_eq!(
        (
            shown[0].sync_maxlen,
            shown[0].mcast_port,
            shown[0].mcast_ttl
        ),
        (Some(1472), Some(8848), Some(1))
    );
    assert_eq!(shown[0].mcast_group, Some("224.0.0.81".parse().unwrap()));
    assert_eq!(
        world.master.stop_sync(&asked(sync_state::MASTER, "")),
        Err(Errno::SRCH)
    );
    assert_eq!(
        world.master.stop_sync(&asked(sync_state::BACKUP, "")),
        Ok(())
    );
}

#[test]
fn a_service_is_exact_as_is_said_of_it_before_and_after_it_is_made() {
    let mut world = World::new(1);
    let key = tcp("192.0.2.100:80");
    let said = |exact| ripvs_api::ripvs::ServiceExact {
        service: ripvs_api::ripvs::ServiceName(key),
        exact,
    };
    let exact = |world: &World| {
        let id = world.master.find(&key).unwrap().unwrap();
        world.master.service(id).unwrap().spec.exact
    };
    world
        .master
        .set_exact(&said(Some(true)), &mut world.fleet)
        .unwrap();
    world.add_service(&key, &config("rr")).unwrap();
    assert!(exact(&world));
    world
        .master
        .set_exact(&said(Some(false)), &mut world.fleet)
        .unwrap();
    assert!(!exact(&world));
    world
        .master
        .set_exact(&said(Some(true)), &mut world.fleet)
        .unwrap();
    // Other settings leave it as it is.
    world
        .master
        .edit_service(&key, &config("wlc"), &mut world.fleet)
        .unwrap();
    assert!(exact(&world));
    world
        .master
        .set_exact(&said(None), &mut world.fleet)
        .unwrap();
    assert!(!exact(&world));
}
