//! Packets through whole workers, in memory: one and several workers alike.

use ripvs_packet::checksum::{pseudo_v4, Sum};
use ripvs_packet::memory::MemFrame;

use crate::delta::Delta;
use crate::net::{NetDelta, Prefix, RouteSpec};
use crate::settings::Settings;
use crate::spec::{Forward, SchedKind};
use crate::testing::{mac, Rig};
use crate::types::{proto, IfaceId};
use crate::verdict::Drop;

pub(crate) const WORKERS: [u16; 2] = [1, 3];

/// A TCP or UDP packet in a frame to interface `n`; `flags` are TCP's.
pub(crate) fn segment(
    n: u16,
    protocol: u8,
    from: (&str, u16),
    to: (&str, u16),
    flags: u8,
) -> Vec<u8> {
    let addr = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let (src, dst) = (addr(from.0), addr(to.0));
    let mut l4 = vec![0; if protocol == proto::TCP { 20 } else { 12 }];
    l4[..2].copy_from_slice(&from.1.to_be_bytes());
    l4[2..4].copy_from_slice(&to.1.to_be_bytes());
    let check = if protocol == proto::TCP {
        l4[12] = 0x50;
        l4[13] = flags;
        16
    } else {
        l4[5] = 12;
        6
    };
    let sum = pseudo_v4(src, dst, protocol, l4.len() as u16)
        .and(&l4)
        .checksum();
    l4[check..check + 2].copy_from_slice(&sum.to_be_bytes());
    let header = ripvs_packet::ipv4::build(&ripvs_packet::ipv4::NewHeader {
        tos: 0,
        total_len: 20 + l4.len() as u16,
        id: 1,
        fragment: 0,
        ttl: 64,
        protocol,
        src,
        dst,
    });
    let mut frame = [
        mac(n).as_slice(),
        &[2, 0, 0, 0, 9, 9],
        &[8, 0],
        &header,
        &l4,
    ]
    .concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// Source and destination with ports, flags, and whether the transport checksum is right.
fn read(frame: &[u8]) -> (String, String, u8, bool) {
    let ip = &frame[14..];
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let (ip, l4) = (&ip[..20], &ip[20..total]);
    let at = |addr: usize, port: usize| {
        let addr = std::net::Ipv4Addr::new(ip[addr], ip[addr + 1], ip[addr + 2], ip[addr + 3]);
        format!("{addr}:{}", u16::from_be_bytes([l4[port], l4[port + 1]]))
    };
    let src = [ip[12], ip[13], ip[14], ip[15]];
    let dst = [ip[16], ip[17], ip[18], ip[19]];
    let right = pseudo_v4(src, dst, ip[9], l4.len() as u16)
        .and(l4)
        .is_valid()
        && Sum::of(ip).is_valid();
    (
        at(12, 0),
        at(16, 2),
        if ip[9] == proto::TCP { l4[13] } else { 0 },
        right,
    )
}

#[test]
fn a_nat_connection_goes_both_ways_through_any_number_of_workers() {
    for workers in WORKERS {
        let mut rig = Rig::new(workers);
        let service = rig.service(proto::TCP, "192.0.2.100", 80, SchedKind::Rr);
        let dest = rig.dest(service, "10.0.0.11", 8080, Forward::Masq);
        for client in 1000..1020 {
            let request = |flags| {
                segment(
                    0,
                    proto::TCP,
                    ("198.18.0.1", client),
                    ("192.0.2.100", 80),
                    flags,
                )
            };
            let reply = |flags| {
                segment(
                    1,
                    proto::TCP,
                    ("10.0.0.11", 8080),
                    ("198.18.0.1", client),
                    flags,
                )
            };
            let sent = rig.send(0, &request(2));
            assert_eq!(sent.len(), 1);
            assert_eq!(sent[0].0, 1);
            let (from, to, flags, right) = read(&sent[0].1);
            assert_eq!(
                (from.as_str(), to.as_str(), flags, right),
                (&*format!("198.18.0.1:{client}"), "10.0.0.11:8080", 2, true)
            );
            let sent = rig.send(1, &reply(0x12));
            let (from, to, _, right) = read(&sent[0].1);
            assert_eq!(
                (sent[0].0, from.as_str(), to, right),
                (0, "192.0.2.100:80", format!("198.18.0.1:{client}"), true)
            );
            assert_eq!(rig.send(0, &request(0x10)).len(), 1);
        }
        let tally = rig.tally(dest);
        assert_eq!(
            (tally.conns, tally.in_packets, tally.out_packets),
            (20, 40, 20)
        );
        assert_eq!((tally.active, tally.inactive), (20, 0));
        assert!(rig.conns().iter().all(|conn| conn.state == "ESTABLISHED"));
        rig.wait(901);
        assert!(rig.conns().is_empty());
        let tally = rig.tally(dest);
        assert_eq!((tally.active, tally.inactive, tally.refs), (0, 0, 0));
    }
}

#[test]
fn persistence_keeps_a_client_at_one_dest_through_any_number_of_workers() {
    for workers in WORKERS {
        let mut rig = Rig::new(workers);
        let service = rig.service_as(Rig::persistent(proto::UDP, "192.0.2.100", 53, 30));
        for n in 11..14 {
            rig.dest(service, &format!("10.0.0.{n}"), 53, Forward::Route);
        }
        for client in ["198.18.0.1", "198.18.0.2", "198.18.0.3"] {
            let macs: Vec<Vec<u8>> = (1000..1030)
                .map(|port| {
                    let sent = rig.send(
                        0,
                        &segment(0, proto::UDP, (client, port), ("192.0.2.100", 53), 0),
                    );
                    sent[0].1[..6].to_vec()
                })
                .collect();
            assert!(macs.iter().all(|mac| *mac == macs[0]), "{workers} {client}");
        }
        let templates = |rig: &Rig| rig.conns().iter().filter(|conn| conn.client.1 == 0).count();
        assert_eq!(templates(&rig), 3);
        rig.wait(29);
        assert_eq!(templates(&rig), 3);
        rig.wait(400);
        assert!(rig.conns().is_empty());
    }
}

#[test]
fn an_upper_threshold_counts_all_workers() {
    for workers in WORKERS {
        let mut rig = Rig::new(workers);
        let service = rig.service(proto::UDP, "192.0.2.100", 53, SchedKind::Rr);
        let mut spec = Rig::dest_spec("10.0.0.11", 53, Forward::Route);
        spec.upper = 5;
        rig.dest_as(service, spec);
        for port in 1000..1010 {
            rig.send(
                0,
                &segment(0, proto::UDP, ("198.18.0.1", port), ("192.0.2.100", 53), 0),
            );
        }
        assert_eq!(rig.conns().len(), 5, "{workers} workers");
        assert_eq!(rig.counters().dropped_for(Drop::NoDest), 5);
    }
}

/// Sends odd and even packets of the fuzzer's world through a balancer with services of every kind, at both its arms, with
/// time passing now and then. That nothing panics and every frame is counted is checked after every frame by the rig; in the
/// end no connection is left, nor counted.
fn flood(workers: u16, packets: usize, seed: u64) {
    use ripvs_packet::testing::{Fuzz, World};
    let mut rig = Rig::new(workers);
    let mut dests = Vec::new();
    let ways = [Forward::Masq, Forward::Route, Forward::Tunnel];
    for (n, (addr, servers)) in [
        ("192.0.2.100", ["10.0.0.11", "10.0.0.12", "10.0.0.13"]),
        (
            "2001:db8:2::100",
            ["2001:db8:10::b", "2001:db8:10::c", "2001:db8:10::d"],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        for (protocol, port, way) in [
            (proto::TCP, 80, 0),
            (proto::TCP, 21, 0),
            (proto::UDP, 53, 0),
            (proto::UDP, 80, 1 + n),
            (proto::SCTP, 80, 0),
            (proto::SCTP, 53, 2 - n),
        ] {
            let service = rig.service(protocol, addr, port, SchedKind::Wlc);
            for server in servers {
                dests.push(rig.dest(service, server, 8080, ways[way]));
            }
        }
    }
    rig.apply(Delta::FtpPorts([21].into()));
    rig.apply(Delta::Settings(Settings {
        drop_entry: 3,
        ..Settings::default()
    }));
    let mut fuzz = Fuzz::new(seed, World::small());
    for n in 0..packets {
        let mut frame = fuzz.next_frame();
        let port = (n % 2) as u16;
        if port == 1 && frame.len() >= 6 {
            frame[5] = mac(1)[5];
        }
        rig.send(port, &frame);
        if n % 50_000 == 0 {
            rig.wait(5);
        }
    }
    let counters = rig.counters();
    assert!(counters.received >= packets as u64);
    assert!(counters.forwarded > packets as u64 / 20, "{counters:?}");
    rig.wait(2000);
    assert!(rig.conns().is_empty());
    for dest in dests {
        let tally = rig.tally(dest);
        assert_eq!((tally.active, tally.inactive, tally.refs), (0, 0, 0));
        assert_eq!(rig.loads(dest), (0, 0));
    }
}

#[test]
fn odd_packets_harm_nobody_and_are_all_counted() {
    flood(1, 50_000, 1);
    flood(3, 50_000, 2);
    flood(7, 50_000, 5);
}

/// The long run of the test above, for an optimised build.
#[test]
#[ignore = "ten million packets: run by scripts/test in an optimised build"]
fn ten_million_odd_packets_harm_nobody_and_are_all_counted() {
    flood(1, 5_000_000, 3);
    flood(3, 5_000_000, 4);
}

#[test]
fn connections_outlive_their_service_s_address() {
    for workers in WORKERS {
        let mut rig = Rig::new(workers);
        let other = rig.service(proto::TCP, "192.0.2.101", 80, SchedKind::Rr);
        let service = rig.service(proto::TCP, "192.0.2.110", 80, SchedKind::Rr);
        let dest = rig.dest(service, "10.0.0.11", 8080, Forward::Masq);
        let to = ("192.0.2.110", 80);
        let request = |port, flags| segment(0, proto::TCP, ("198.18.0.1", port), to, flags);
        for port in 1000..1010 {
            assert_eq!(rig.send(0, &request(port, 2)).len(), 1);
        }
        rig.apply(Delta::ServiceRemove { id: service });
        // The server may come back: nobody is told that it is gone. Its replies still are the service's.
        for port in 1000..1010 {
            assert_eq!(rig.send(0, &request(port, 0x10)), []);
            let reply = segment(
                1,
                proto::TCP,
                ("10.0.0.11", 8080),
                ("198.18.0.1", port),
                0x12,
            );
            assert_eq!(read(&rig.send(1, &reply)[0].1).0, "192.0.2.110:80");
        }
        let gone = |rig: &Rig| rig.counters().dropped_for(Drop::DestGone);
        assert_eq!(gone(&rig), 10);
        // What is of no connection is another's.
        rig.send(0, &request(2000, 2));
        assert_eq!(rig.counters().dropped_for(Drop::NoRoute), 1);
        rig.apply(Delta::DestFree { id: dest });
        rig.send(0, &request(1000, 0x10));
        assert_eq!(gone(&rig), 10);
        assert_eq!(rig.counters().dropped_for(Drop::NoRoute), 2);
        rig.apply(Delta::ServiceRemove { id: other });
        assert!(rig.counters().balanced());
    }
}

/// Connections that each of three dests (weights 3, 2, 1) gets of so many clients of a UDP service.
fn spread(workers: u16, kind: SchedKind, clients: u32) -> Vec<u32> {
    let mut rig = Rig::new(workers);
    let service = rig.service(proto::UDP, "192.0.2.100", 53, kind);
    let dests: Vec<_> = (1..=3)
        .map(|weight| {
            let mut spec = Rig::dest_spec(&format!("10.0.0.{}", 10 + weight), 53, Forward::Route);
            spec.weight = weight;
            rig.dest_as(service, spec)
        })
        .collect();
    for n in 0..clients {
        let client = format!("198.19.{}.{}", n >> 8, n & 255);
        rig.send(
            0,
            &segment(0, proto::UDP, (&client, 1000), ("192.0.2.100", 53), 0),
        );
    }
    dests.iter().map(|dest| rig.tally(*dest).inactive).collect()
}

/// The bound that docs/differences.md states: with scheduling left to each of W workers, a dest's share of connections is
/// that of one worker within W × (its weight + 1); where clients are hashed it is the same.
#[test]
fn several_workers_spread_connections_as_one_does() {
    const CLIENTS: u32 = 1200;
    use SchedKind::{Dh, Fo, Lc, Nq, Rr, Sed, Sh, Wlc, Wrr};
    for kind in [Rr, Wrr, Lc, Wlc, Sed, Nq, Fo, Dh, Sh] {
        let (one, three) = (spread(1, kind, CLIENTS), spread(3, kind, CLIENTS));
        assert_eq!(three.iter().sum::<u32>(), CLIENTS, "{kind:?}");
        for (weight, (one, three)) in (1..).zip(one.iter().zip(&three)) {
            let bound = if matches!(kind, Dh | Sh | Fo) {
                0
            } else {
                3 * (weight + 1)
            };
            assert!(
                one.abs_diff(*three) <= bound,
                "{kind:?}: {one} and {three} of weight {weight}"
            );
        }
    }
}

/// Sends the first packets of UDP connections from these ports. Returns the MAC addresses they went to; none for those
/// that were not sent on.
fn requests(rig: &mut Rig, client: &str, ports: std::ops::Range<u16>) -> Vec<Option<[u8; 6]>> {
    let send = |port| {
        let frame = segment(0, proto::UDP, (client, port), ("192.0.2.100", 53), 0);
        let sent = rig.send(0, &frame);
        let sent = sent.iter().find(|(port, _)| *port == 1);
        sent.and_then(|(_, frame)| frame[..6].try_into().ok())
    };
    ports.map(send).collect()
}

#[test]
fn a_threshold_given_to_a_live_service_counts_what_is_there_at_all_workers() {
    for workers in WORKERS {
        let mut rig = Rig::new(workers);
        let service = rig.service(proto::UDP, "192.0.2.100", 53, SchedKind::Rr);
        let spec = Rig::dest_spec("10.0.0.11", 53, Forward::Route);
        let dest = rig.dest_as(service, spec.clone());
        let limit = |rig: &mut Rig, upper| {
            let spec = crate::spec::DestSpec {
                upper,
                ..spec.clone()
            };
            rig.apply(Delta::DestEdit {
                id: dest,
                spec: spec.into(),
            });
        };
        requests(&mut rig, "198.18.0.1", 1000..1009);
        limit(&mut rig, 10);
        assert_eq!(rig.central_load(dest), 9, "{workers} workers");
        let sent = requests(&mut rig, "198.18.0.1", 2000..2003);
        assert_eq!(sent.iter().flatten().count(), 1, "{workers} workers");
        // There and back again: what was told is taken back.
        limit(&mut rig, 0);
        limit(&mut rig, 20);
        assert_eq!(rig.central_load(dest), 10, "{workers} workers");
        rig.wait(400);
        assert!(rig.conns().is_empty());
        assert_eq!(rig.central_load(dest), 0, "{workers} workers");
    }
}

#[test]
fn exact_given_to_a_live_service_goes_by_all_its_connections() {
    let mut rig = Rig::new(3);
    let service = rig.service(proto::UDP, "192.0.2.100", 53, SchedKind::Lc);
    rig.dest(service, "10.0.0.11", 53, Forward::Route);
    requests(&mut rig, "198.18.0.1", 1000..1012);
    rig.set_exact(service, true);
    rig.dest(service, "10.0.0.12", 53, Forward::Route);
    let sent = requests(&mut rig, "198.18.0.2", 1000..1012);
    assert!(sent.iter().all(|mac| *mac == Some([2, 0, 0, 0, 2, 2])));
}

#[test]
fn clients_keep_their_dest_when_their_service_becomes_exact_and_when_it_ceases_to_be() {
    let mut rig = Rig::new(3);
    let service = rig.service_as(Rig::persistent(proto::UDP, "192.0.2.100", 53, 300));
    for n in 11..16 {
        rig.dest(service, &format!("10.0.0.{n}"), 53, Forward::Route);
    }
    let clients: Vec<String> = (1..10).map(|n| format!("198.18.0.{n}")).collect();
    let at = |rig: &mut Rig, port: u16| -> Vec<Option<[u8; 6]>> {
        let sent = clients
            .iter()
            .map(|client| requests(rig, client, port..port + 1)[0]);
        sent.collect()
    };
    let first = at(&mut rig, 1000);
    for (exact, port) in [(true, 2000), (false, 3000), (true, 4000)] {
        rig.set_exact(service, exact);
        assert_eq!(at(&mut rig, port), first, "exact: {exact}");
    }
    // New clients are given to one dest after the other, whichever worker keeps their templates.
    let mut news: Vec<_> = (20..25)
        .map(|n| requests(&mut rig, &format!("198.18.0.{n}"), 1000..1001)[0])
        .collect();
    news.sort();
    news.dedup();
    assert_eq!(news.len(), 5);
    assert_eq!(
        rig.conns().iter().filter(|conn| conn.client.1 == 0).count(),
        14
    );
    rig.wait(1000);
    assert!(rig.conns().is_empty());
    for dest in 0..5 {
        assert_eq!(rig.loads(crate::types::DestId(dest)), (0, 0));
    }
}

/// A NAT connection from 198.18.0.1:1000 to 192.0.2.100:80, one packet of which each way has gone the express way.
fn known_nat_connection(rig: &mut Rig, server: &str) -> [Vec<u8>; 2] {
    let service = rig.service(proto::TCP, "192.0.2.100", 80, SchedKind::Rr);
    rig.dest(service, server, 8080, Forward::Masq);
    let (client, virt) = (("198.18.0.1", 1000), ("192.0.2.100", 80));
    let packets = |flags: [u8; 2]| {
        [
            segment(0, proto::TCP, client, virt, flags[0]),
            segment(1, proto::TCP, (server, 8080), client, flags[1]),
        ]
    };
    for [request, reply] in [packets([2, 0x12]), packets([0x10, 0x10])] {
        assert_eq!(rig.send(0, &request).len(), 1);
        assert_eq!(rig.send(1, &reply).len(), 1);
    }
    packets([0x10, 0x10])
}

#[test]
fn a_change_of_neighbours_or_interfaces_counts_for_the_very_next_packet() {
    for workers in WORKERS {
        let mut rig = Rig::new(workers);
        let [request, _] = known_nat_connection(&mut rig, "10.0.0.11");
        // The clock stands still meanwhile.
        rig.apply(Delta::Net(NetDelta::NeighSet {
            iface: IfaceId(2),
            addr: "10.0.0.11".parse().unwrap(),
            mac: [2, 0, 0, 0, 7, 7],
        }));
        let sent = rig.send(0, &request);
        assert_eq!(sent[0].1[..6], [2, 0, 0, 0, 7, 7]);
        rig.apply(Delta::Net(NetDelta::IfaceDel(IfaceId(2))));
        let sent = rig.send(0, &request);
        assert!(sent.iter().all(|(port, _)| *port == 0), "{sent:?}");
    }
}

#[test]
fn a_dest_beyond_a_gateway_whose_address_becomes_a_service_s_is_somebody_else_no_more() {
    for workers in WORKERS {
        let mut rig = Rig::new(workers);
        rig.apply(Delta::Net(NetDelta::RouteAdd(RouteSpec {
            prefix: Prefix::new("10.9.0.0".parse().unwrap(), 24).unwrap(),
            via: Some("10.0.0.11".parse().unwrap()),
            dev: None,
            mtu: None,
            from: None,
        })));
        let [request, reply] = known_nat_connection(&mut rig, "10.9.0.5");
        rig.service(proto::TCP, "10.9.0.5", 443, SchedKind::Rr);
        // Nobody else may use our addresses, nor are they found elsewhere.
        assert_eq!(rig.send(1, &reply), []);
        assert_eq!(rig.counters().dropped_for(Drop::MartianSource), 1);
        assert!(rig.send(0, &request).iter().all(|(port, _)| *port == 0));
    }
}

#[test]
fn a_packet_that_goes_the_ordinary_way_does_not_overtake_others_of_its_burst() {
    let mut rig = Rig::new(3);
    let [plain, _] = known_nat_connection(&mut rig, "10.0.0.11");
    let mut odd = plain.clone();
    // Four bytes of options that do nothing.
    odd.splice(34..34, [1; 4]);
    odd[14] = 0x46;
    odd[17] += 4;
    ripvs_packet::ipv4::fill_checksum(&mut odd[14..38]);
    // Each worker receives once: two of them hand over.
    for _ in 0..3 {
        let frames = [&plain, &plain, &odd].map(|frame| MemFrame::new(frame));
        let sent = rig.send_burst(0, frames.into());
        let lengths: Vec<usize> = sent.iter().map(|(_, frame)| frame.len()).collect();
        // Without what they were padded with.
        assert_eq!(lengths, [54, 54, 58]);
    }
}

#[test]
fn a_reply_is_the_newest_connection_s_though_that_began_in_the_same_burst() {
    for workers in WORKERS {
        let mut rig = Rig::new(workers);
        let [_, mut reply] = known_nat_connection(&mut rig, "10.0.0.11");
        reply[..6].copy_from_slice(&mac(0));
        let service = rig.service(proto::TCP, "192.0.2.101", 80, SchedKind::Rr);
        rig.dest(service, "10.0.0.11", 8080, Forward::Masq);
        let request = |port, flags| {
            let (client, virt) = (("198.18.0.1", port), ("192.0.2.101", 80));
            segment(0, proto::TCP, client, virt, flags)
        };
        // From the first one on the way to the dest is known.
        rig.send(0, &request(999, 2));
        rig.send(0, &request(999, 2));
        let burst = [request(1000, 2), reply];
        let sent = rig.send_burst(0, burst.iter().map(|f| MemFrame::new(f)).collect());
        let sources: Vec<String> = sent.iter().map(|(_, frame)| read(frame).0).collect();
        assert_eq!(sources, ["198.18.0.1:1000", "192.0.2.101:80"]);
    }
}
