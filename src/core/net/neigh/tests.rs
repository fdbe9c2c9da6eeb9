//! Neighbour states, queues and bounds.

use super::*;
use crate::net::testing::{ip, mac, Bed, ETH0, ETH1};
use crate::net::{NetConfig, NetDelta, Sent};
use crate::verdict::{Drop, Held};

const A: &str = "02:00:00:00:02:0a";
const B: &str = "02:00:00:00:02:0b";

fn state(bed: &Bed, addr: &str) -> Option<(Nud, Option<Mac>)> {
    let neigh = bed.net.neighbours().iter().find(|n| n.addr() == ip(addr))?;
    Some((neigh.state(bed.now), neigh.mac()))
}

fn hear(bed: &mut Bed, addr: &str, at: &str, solicited: bool, replace: Replace) {
    let heard = Heard {
        mac: Some(mac(at)),
        solicited,
        replace,
        create: false,
    };
    bed.net.hear(bed.now, ETH1, ip(addr), heard, &mut bed.io);
}

/// A neighbour that answered just now.
fn known(addr: &str) -> Bed {
    let mut bed = Bed::new(NetConfig::default());
    assert_eq!(bed.send_to(addr), Sent::Held);
    hear(&mut bed, addr, A, true, Replace::UnlessFresh);
    bed.sent();
    bed
}

#[test]
fn packets_wait_for_the_answer_and_then_go_in_order() {
    for (addr, l2) in [("10.0.0.11", 14 + 28), ("2001:db8:10::11", 14 + 72)] {
        let mut bed = Bed::new(NetConfig::default());
        for _ in 0..3 {
            assert_eq!(bed.send_to(addr), Sent::Held);
        }
        let asked = bed.sent();
        assert_eq!(asked.len(), 1, "one question, however many wait");
        assert_eq!((asked[0].0, asked[0].1.len()), (1, l2));
        assert_eq!(bed.net.counters.held[Held::Neighbour as usize], 3);
        hear(&mut bed, addr, A, true, Replace::UnlessFresh);
        let sent = bed.sent();
        assert_eq!(sent.len(), 3);
        for (port, frame) in sent {
            assert_eq!(port, 1);
            assert_eq!(frame[..12], [mac(A), [2, 0, 0, 0, 0, 2]].concat());
        }
        assert_eq!(state(&bed, addr), Some((Nud::Reachable, Some(mac(A)))));
        assert_eq!(bed.net.counters.held_total(), 0);
        assert!(bed.net.counters.balanced());
    }
}

#[test]
fn the_oldest_of_too_many_waiting_gives_way() {
    let mut bed = Bed::new(NetConfig::default());
    for _ in 0..5 {
        assert_eq!(bed.send_to("10.0.0.11"), Sent::Held);
    }
    assert_eq!(bed.net.counters.held_total(), 3);
    assert_eq!(bed.net.counters.dropped_for(Drop::NeighQueueFull), 2);
}

#[test]
fn all_that_wait_together_are_bounded() {
    let mut bed = Bed::new(NetConfig {
        neigh_waiting_max: 2,
        ..NetConfig::default()
    });
    assert_eq!(bed.send_to("10.0.0.11"), Sent::Held);
    assert_eq!(bed.send_to("10.0.0.12"), Sent::Held);
    assert_eq!(
        bed.send_to("10.0.0.13"),
        Sent::Dropped(Drop::NeighQueueFull)
    );
}

#[test]
fn three_questions_a_second_apart_then_the_sender_hears_of_it() {
    for (addr, from, unreachable) in [
        ("10.0.0.11", "198.18.0.1", [3, 1]),
        ("2001:db8:10::11", "2001:db8:18::1", [1, 3]),
    ] {
        let mut bed = Bed::new(NetConfig::default());
        bed.neigh(ETH0, from, "02:00:00:00:01:01");
        bed.send_to(addr);
        for _ in 0..2 {
            assert_eq!(bed.sent().len(), 1);
            bed.sleep(1);
        }
        assert_eq!(bed.sent().len(), 1, "the third question");
        assert_eq!(state(&bed, addr).unwrap().0, Nud::Incomplete);
        bed.sleep(1);
        assert_eq!(state(&bed, addr), Some((Nud::Failed, None)));
        assert_eq!(bed.net.counters.dropped_for(Drop::NeighFailed), 1);
        let told = bed.sent();
        let icmp_at = if from.contains(':') { 14 + 40 } else { 14 + 20 };
        assert_eq!((told.len(), told[0].0), (1, 0));
        assert_eq!(told[0].1[icmp_at..icmp_at + 2], unreachable);
        assert!(bed.net.counters.balanced());
        bed.send_to(addr);
        assert_eq!(state(&bed, addr).unwrap().0, Nud::Incomplete, "asked anew");
    }
}

#[test]
fn a_neighbour_not_heard_of_for_long_is_asked_itself_when_used() {
    let mut bed = known("10.0.0.11");
    bed.sleep(29);
    assert!(matches!(bed.send_to("10.0.0.11"), Sent::Transmitted(_)));
    assert_eq!(state(&bed, "10.0.0.11").unwrap().0, Nud::Reachable);
    bed.sleep(1);
    assert_eq!(state(&bed, "10.0.0.11").unwrap().0, Nud::Stale);
    bed.sleep(100);
    bed.sent();
    assert!(matches!(bed.send_to("10.0.0.11"), Sent::Transmitted(_)));
    assert_eq!(state(&bed, "10.0.0.11").unwrap().0, Nud::Delay);
    bed.sent();
    bed.sleep(4);
    assert_eq!(bed.sent(), [], "others may confirm it for five seconds");
    for _ in 0..3 {
        bed.sleep(1);
        let probe = bed.sent();
        assert_eq!(probe.len(), 1);
        assert_eq!(probe[0].1[..6], mac(A), "to itself, not to all");
        assert_eq!(state(&bed, "10.0.0.11").unwrap().0, Nud::Probe);
        assert!(matches!(bed.send_to("10.0.0.11"), Sent::Transmitted(_)));
        bed.sent();
    }
    bed.sleep(1);
    assert_eq!(state(&bed, "10.0.0.11"), Some((Nud::Failed, None)));
}

#[test]
fn an_answer_to_a_probe_confirms() {
    let mut bed = known("2001:db8:10::11");
    bed.sleep(31);
    bed.send_to("2001:db8:10::11");
    bed.sleep(5);
    assert_eq!(state(&bed, "2001:db8:10::11").unwrap().0, Nud::Probe);
    let heard = Heard {
        mac: None,
        solicited: true,
        replace: Replace::MarkStale,
        create: false,
    };
    bed.net
        .hear(bed.now, ETH1, ip("2001:db8:10::11"), heard, &mut bed.io);
    let known = Some((Nud::Reachable, Some(mac(A))));
    assert_eq!(state(&bed, "2001:db8:10::11"), known);
    bed.sleep(20);
    assert_eq!(state(&bed, "2001:db8:10::11"), known);
}

#[test]
fn a_moved_mac_address_is_noticed_by_the_rules() {
    struct Row(&'static str, u64, bool, Replace, Nud, &'static str);
    for Row(what, after, solicited, replace, state_then, mac_then) in [
        Row("gratuitous", 0, false, Replace::Always, Nud::Stale, B),
        Row("override", 0, true, Replace::Always, Nud::Reachable, B),
        Row(
            "reply, but fresh",
            1,
            true,
            Replace::UnlessFresh,
            Nud::Reachable,
            A,
        ),
        Row("reply", 2, true, Replace::UnlessFresh, Nud::Reachable, B),
        Row(
            "request of others",
            2,
            false,
            Replace::UnlessFresh,
            Nud::Stale,
            B,
        ),
        Row("no override", 9, true, Replace::MarkStale, Nud::Stale, A),
    ] {
        let mut bed = known("10.0.0.11");
        bed.sleep(after);
        hear(&mut bed, "10.0.0.11", B, solicited, replace);
        assert_eq!(
            state(&bed, "10.0.0.11"),
            Some((state_then, Some(mac(mac_then)))),
            "{what}"
        );
    }
}

#[test]
fn unasked_news_that_is_none_changes_nothing() {
    let mut bed = known("10.0.0.11");
    hear(&mut bed, "10.0.0.11", A, false, Replace::Always);
    assert_eq!(state(&bed, "10.0.0.11").unwrap().0, Nud::Reachable);
    hear(&mut bed, "10.0.0.99", A, true, Replace::Always);
    assert_eq!(state(&bed, "10.0.0.99"), None);
}

#[test]
fn permanent_ones_stay_whatever_is_said_and_however_long() {
    let mut bed = Bed::new(NetConfig::default());
    bed.send_to("10.0.0.11");
    bed.neigh(ETH1, "10.0.0.11", A);
    bed.sent();
    bed.sleep(0);
    assert_eq!(bed.sent().len(), 1, "what waited goes");
    bed.sleep(1_000_000);
    hear(&mut bed, "10.0.0.11", B, true, Replace::Always);
    assert_eq!(
        state(&bed, "10.0.0.11"),
        Some((Nud::Permanent, Some(mac(A))))
    );
    assert!(matches!(bed.send_to("10.0.0.11"), Sent::Transmitted(_)));
    let (iface, addr) = (ETH1, ip("10.0.0.11"));
    bed.net.apply(bed.now, NetDelta::NeighDel { iface, addr });
    assert_eq!(bed.send_to("10.0.0.11"), Sent::Held);
}

#[test]
fn a_full_table_gives_up_the_least_useful_and_never_a_permanent_one() {
    let mut bed = Bed::new(NetConfig {
        neigh_max: 3,
        ..NetConfig::default()
    });
    bed.neigh(ETH1, "10.0.0.1", A);
    bed.send_to("10.0.0.2");
    hear(&mut bed, "10.0.0.2", A, true, Replace::Always);
    bed.send_to("10.0.0.3");
    let hit = bed.net.route(ip("10.0.0.3"), None).unwrap();
    let id = bed.net.neigh_for(bed.now, &hit).unwrap();
    assert!(bed.net.neigh_current(id));
    assert_eq!(bed.send_to("10.0.0.4"), Sent::Held);
    assert_eq!(bed.net.neighbours().len(), 3);
    assert_eq!(state(&bed, "10.0.0.3"), None, "was incomplete");
    assert!(!bed.net.neigh_current(id));
    assert_eq!(bed.net.counters.dropped_for(Drop::NeighGone), 1);
    assert!(state(&bed, "10.0.0.2").is_some() && state(&bed, "10.0.0.1").is_some());
    bed.neigh(ETH1, "10.0.0.5", A);
    bed.neigh(ETH1, "10.0.0.6", A);
    assert_eq!(bed.send_to("10.0.0.9"), Sent::Dropped(Drop::NeighTableFull));
    assert!(bed.net.counters.balanced());
}

#[test]
fn a_cached_neighbour_is_sent_to_in_every_state() {
    use ripvs_packet::memory::MemFrame;
    let mut bed = known("10.0.0.11");
    let hit = bed.net.route(ip("10.0.0.11"), None).unwrap();
    let id = bed.net.neigh_for(bed.now, &hit).unwrap();
    let packet = crate::net::testing::udp(ip("198.18.0.1"), ip("10.0.0.11"), 3);
    for wait in [0, 40, 6, 100] {
        bed.sleep(wait);
        bed.sent();
        bed.net.counters.received += 1;
        // Room before the packet for too much, and for too little.
        for l3 in [0, 14, 18, 60] {
            let bytes = [&vec![0; l3][..], &packet].concat();
            let frame = MemFrame::new(&bytes);
            bed.net.send_cached(bed.now, frame, l3, id, &mut bed.io);
        }
        for (_, frame) in bed.sent().iter().filter(|(_, f)| f[12] == 8 && f[13] == 0) {
            let l2 = [&mac(A)[..], &[2, 0, 0, 0, 0, 2, 8, 0]].concat();
            assert_eq!(*frame, [l2, packet.clone()].concat());
        }
    }
    let (iface, addr) = (ETH1, ip("10.0.0.11"));
    bed.net.apply(bed.now, NetDelta::NeighDel { iface, addr });
    let gone = bed
        .net
        .send_cached(bed.now, MemFrame::new(&packet), 0, id, &mut bed.io);
    assert_eq!(gone, Sent::Dropped(Drop::NeighGone));
}

#[test]
fn timers_do_not_pile_up() {
    let mut bed = known("10.0.0.11");
    for _ in 0..1000 {
        bed.sleep(31);
        bed.send_to("10.0.0.11");
        hear(&mut bed, "10.0.0.11", A, true, Replace::Always);
    }
    assert!(bed.net.neighbours().timers.len() < 10);
}
