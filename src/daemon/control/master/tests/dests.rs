//! Dests: what is refused, and what is remembered of those that were deleted.

use super::*;

#[test]
fn dests_are_refused_with_the_kernel_s_numbers_in_its_order() {
    let mut world = World::new(1);
    let key = tcp("192.0.2.100:80");
    let good = dest("10.0.0.11");
    assert_eq!(world.add(&key, good), Err(Errno::SRCH));
    world.add_service(&key, &config("rr")).unwrap();
    // A dest that could not be read is complained of only now that the service is there.
    let unread = world
        .master
        .add_dest(&key, Err(Errno::AFNOSUPPORT), &Around, &mut world.fleet);
    assert_eq!(unread, Err(Errno::AFNOSUPPORT));
    let cases = [
        (DestConfig { weight: -1, ..good }, Errno::RANGE),
        (
            DestConfig {
                upper: 1,
                lower: 5,
                ..good
            },
            Errno::RANGE,
        ),
        (DestConfig { lower: 5, ..good }, Errno::RANGE),
        (
            DestConfig {
                tun_type: tunnel::GUE,
                ..good
            },
            Errno::INVAL,
        ),
        (DestConfig { forward: 7, ..good }, Errno::INVAL),
        (dest("2001:db8::1"), Errno::INVAL),
        (dest("224.0.0.1"), Errno::INVAL),
        (dest("0.0.0.0"), Errno::INVAL),
        (dest("255.255.255.255"), Errno::INVAL),
        (dest("10.0.0.255"), Errno::INVAL),
    ];
    for (config, errno) in cases {
        assert_eq!(world.add(&key, config), Err(errno), "{config:?}");
    }
    assert_eq!(world.edit(&key, good), Err(Errno::NOENT));
    assert_eq!(world.delete(&key, good), Err(Errno::NOENT));
    assert_eq!(world.add(&key, good), Ok(()));
    assert_eq!(world.add(&key, good), Err(Errno::EXIST));
    // A wrong weight comes before that it is there already.
    assert_eq!(
        world.add(&key, DestConfig { weight: -1, ..good }),
        Err(Errno::RANGE)
    );
    assert_eq!(
        world.edit(
            &key,
            DestConfig {
                upper: 3,
                lower: 4,
                ..good
            }
        ),
        Err(Errno::RANGE)
    );
    assert_eq!(world.edit(&key, DestConfig { weight: 5, ..good }), Ok(()));
    assert_eq!(world.dests(&key)[0].config.weight, 5);
}

#[test]
fn ipv6_dests_are_unicast_and_not_link_local_unless_our_own() {
    let mut world = World::new(1);
    let key = tcp("2001:db8:2::100:80");
    world.add_service(&key, &config6("rr")).unwrap();
    for wrong in ["::", "ff02::1", "fe80::2", "::ffff:10.0.0.1"] {
        assert_eq!(world.add(&key, dest(wrong)), Err(Errno::INVAL), "{wrong}");
    }
    for right in ["2001:db8::1", "::1", "fe80::1"] {
        assert_eq!(world.add(&key, dest(right)), Ok(()), "{right}");
    }
}

#[test]
fn only_tunnels_lead_to_the_other_family() {
    let mut world = World::new(1);
    let key = tcp("192.0.2.100:80");
    world.add_service(&key, &config("rr")).unwrap();
    let tunnelled = DestConfig {
        forward: forward::TUNNEL,
        ..dest("2001:db8::1")
    };
    assert_eq!(world.add(&key, tunnelled), Ok(()));
    // The synchronisation protocol cannot tell of such, nor be started with one there.
    let daemon = SyncDaemon {
        state: sync_state::MASTER,
        mcast_ifn: Some("eth1".into()),
        sync_id: Some(0),
        ..SyncDaemon::default()
    };
    assert_eq!(
        world.master.start_sync(daemon.clone(), &Around),
        Err(Errno::INVAL)
    );
    world.delete(&key, tunnelled).unwrap();
    assert_eq!(world.master.start_sync(daemon, &Around), Ok(()));
    assert_eq!(world.add(&key, tunnelled), Err(Errno::INVAL));
}

#[test]
fn a_deleted_dest_comes_back_under_its_id_with_its_counters() {
    let mut world = World::new(1);
    let key = tcp("192.0.2.100:80");
    world.add_service(&key, &config("rr")).unwrap();
    world.add(&key, dest("10.0.0.11")).unwrap();
    let tally = world.last_tally();
    tally.conn();
    tally.refs(1);
    world.estimate();
    world.delete(&key, dest("10.0.0.11")).unwrap();
    assert!(matches!(
        world.told()[..],
        [Delta::DestRemove { id: DestId(0) }]
    ));
    assert!(world.dests(&key).is_empty());
    world
        .add(
            &key,
            DestConfig {
                weight: 5,
                ..dest("10.0.0.11")
            },
        )
        .unwrap();
    let told = world.told();
    assert!(
        matches!(&told[..], [Delta::DestAdd { id: DestId(0), tally: again, .. }] if std::ptr::eq(&**again, &*tally))
    );
    assert_eq!(world.dests(&key)[0].stats.conns, 1);
}

#[test]
fn under_a_new_service_of_the_same_address_the_counters_begin_anew_but_connections_are_kept() {
    let mut world = World::new(1);
    let key = tcp("192.0.2.100:80");
    world.add_service(&key, &config("rr")).unwrap();
    world.add(&key, dest("10.0.0.11")).unwrap();
    let tally = world.last_tally();
    tally.conn();
    tally.active(1);
    tally.refs(1);
    world.estimate();
    world.master.delete_service(&key, &mut world.fleet).unwrap();
    world.add_service(&key, &config("wlc")).unwrap();
    assert!(world.dests(&key).is_empty());
    world.add(&key, dest("10.0.0.11")).unwrap();
    let shown = &world.dests(&key)[0];
    assert_eq!((shown.active, shown.stats.conns), (1, 0));
}

#[test]
fn a_service_has_counted_what_its_dests_have_whatever_became_of_them() {
    let mut world = World::new(1);
    let key = tcp("192.0.2.100:80");
    world.add_service(&key, &config("rr")).unwrap();
    let [one, other] = ["10.0.0.11", "10.0.0.12"].map(|addr| {
        world.add(&key, dest(addr)).unwrap();
        world.last_tally()
    });
    let conns = |world: &World| world.master.show_service(&key).unwrap().stats.conns;
    one.conn();
    other.conn();
    assert_eq!(conns(&world), 2);
    // Workers go on until they are told.
    world.delete(&key, dest("10.0.0.11")).unwrap();
    one.conn();
    assert_eq!(conns(&world), 3);
    world.add(&key, dest("10.0.0.11")).unwrap();
    assert_eq!(conns(&world), 3);
    world.master.zero(Some(&key)).unwrap();
    assert_eq!(conns(&world), 0);
    one.conn();
    world.estimate();
    assert_eq!(world.master.show_service(&key).unwrap().stats.cps, 0);
    (0..20).for_each(|_| one.conn());
    world.estimate();
    let rate = world.master.show_service(&key).unwrap().stats.cps;
    assert!(rate > 0);
    // It is forgotten, and its number another's.
    world.delete(&key, dest("10.0.0.11")).unwrap();
    for _ in 0..40 {
        world.now += Duration::from_secs(10);
        world.master.empty_trash(world.now, &mut world.fleet);
        world.deliver();
    }
    assert_eq!(conns(&world), 21);
    world.add(&key, dest("10.0.0.13")).unwrap();
    assert_eq!(conns(&world), 21);
    let third = world.last_tally();
    assert!(std::ptr::eq(&*third, &*one), "the number of the first one");
    third.conn();
    assert_eq!(conns(&world), 22);
    // What a dest counted for a service that is gone is not its successor's.
    world.master.delete_service(&key, &mut world.fleet).unwrap();
    world.add_service(&key, &config("rr")).unwrap();
    world.add(&key, dest("10.0.0.13")).unwrap();
    assert_eq!(conns(&world), 0);
    third.conn();
    assert_eq!(conns(&world), 1);
}

#[test]
fn a_dest_without_connections_is_forgotten_after_two_minutes_and_not_before() {
    let mut world = World::new(1);
    let key = tcp("192.0.2.100:80");
    world.add_service(&key, &config("rr")).unwrap();
    world.add(&key, dest("10.0.0.11")).unwrap();
    let tally = world.last_tally();
    tally.refs(1);
    world.delete(&key, dest("10.0.0.11")).unwrap();
    world.told();
    let mut seconds = 0;
    let mut until = |world: &mut World, end: u64| {
        while seconds < end {
            seconds += 10;
            world.now += Duration::from_secs(10);
            world.master.empty_trash(world.now, &mut world.fleet);
            world.deliver();
        }
        world.told()
    };
    assert!(
        until(&mut world, 600).is_empty(),
        "a connection refers to it"
    );
    tally.refs(-1);
    assert!(until(&mut world, 720).is_empty());
    assert!(matches!(
        until(&mut world, 800)[..],
        [Delta::DestFree { id: DestId(0) }]
    ));
    // Its number is another's now; nothing of it comes back.
    until(&mut world, 900);
    world.add(&key, dest("10.0.0.12")).unwrap();
    assert!(
        matches!(&world.told()[..], [Delta::DestAdd { id: DestId(0), tally: new, .. }] if new.snapshot() == TallySnapshot::default())
    );
}

#[test]
fn a_service_s_number_is_used_again_only_when_none_of_its_dests_is_remembered() {
    let mut world = World::new(1);
    let (one, two, three) = (
        tcp("192.0.2.1:80"),
        tcp("192.0.2.2:80"),
        tcp("192.0.2.3:80"),
    );
    world.add_service(&one, &config("rr")).unwrap();
    world.add(&one, dest("10.0.0.11")).unwrap();
    world.master.delete_service(&one, &mut world.fleet).unwrap();
    world.deliver();
    world.master.empty_trash(world.now, &mut world.fleet);
    world.told();
    world.add_service(&two, &config("rr")).unwrap();
    assert!(matches!(
        world.told()[..],
        [Delta::ServiceAdd {
            id: ServiceId(1),
            ..
        }]
    ));
    world.master.delete_service(&two, &mut world.fleet).unwrap();
    world.deliver();
    world.master.empty_trash(world.now, &mut world.fleet);
    world.told();
    world.add_service(&three, &config("rr")).unwrap();
    assert!(matches!(
        world.told()[..],
        [Delta::ServiceAdd {
            id: ServiceId(1),
            ..
        }]
    ));
}

#[test]
fn what_the_trash_counts_by_service_goes_with_its_dests() {
    let mut world = World::new(1);
    let keys: Vec<_> = (1..=20)
        .map(|port| tcp(&format!("192.0.2.1:{port}")))
        .collect();
    for _ in 0..3 {
        for key in &keys {
            world.add_service(key, &config("rr")).unwrap();
            world.add(key, dest("10.0.0.11")).unwrap();
            world.add(key, dest("10.0.0.12")).unwrap();
        }
        world.master.flush(&mut world.fleet);
        assert_eq!(world.master.trash.remembered(), (40, 40));
        world.deliver();
    }
    for _ in 0..40 {
        world.now += Duration::from_secs(10);
        world.master.empty_trash(world.now, &mut world.fleet);
        world.deliver();
    }
    assert_eq!(world.master.trash.remembered(), (0, 0));
    world.add_service(&keys[0], &config("rr")).unwrap();
    let told = world.told();
    let [Delta::ServiceAdd { id, .. }] = told[told.len() - 1..] else {
        panic!("{told:?}")
    };
    assert!(id.0 < 60, "numbers are used again");
}
