//! Tunnels to dests, mostly through whole workers: what is too long for one, and what routers and servers say of it.

use super::*;
use crate::spec::{Forward, SchedKind};
use crate::testing::{mac, Rig};
use crate::tests::{segment, WORKERS};

#[test]
fn congestion_experienced_becomes_ect0_outside() {
    assert_eq!(outer_tos(0xbb), 0xba);
    assert_eq!(outer_tos(0xba), 0xba);
    assert_eq!(outer_tos(0xb9), 0xb9);
    assert_eq!(outer_tos(0x00), 0x00);
}

#[test]
fn a_packet_too_long_for_its_tunnel_is_dropped() {
    for (dest, drops) in [("10.0.0.11", 1), ("2001:db8:10::11", 0)] {
        let mut rig = Rig::new(1);
        let service = rig.service(proto::UDP, "192.0.2.100", 53, SchedKind::Rr);
        rig.dest(service, dest, 53, Forward::Tunnel);
        let whole = segment(0, proto::UDP, ("198.18.0.1", 1000), ("192.0.2.100", 53), 0);
        // The longest datagram of all, in fragments of 1480 bytes.
        let (longest, step) = (65_535 - 20, 1480);
        for at in (0..longest).step_by(step) {
            let len = step.min(longest - at);
            let mut frame = whole[..34].to_vec();
            frame[16..18].copy_from_slice(&(20 + len as u16).to_be_bytes());
            let more = if at + len < longest { 0x2000 } else { 0 };
            frame[20..22].copy_from_slice(&((at as u16 / 8) | more).to_be_bytes());
            ripvs_packet::ipv4::fill_checksum(&mut frame[14..]);
            frame.extend(if at == 0 { &whole[34..42] } else { &[0; 8] });
            frame.resize(34 + len, 0);
            rig.send(0, &frame);
        }
        assert_eq!(rig.counters().dropped_for(Drop::TooBig), drops);
        assert!(rig.counters().balanced());
    }
}

/// An ICMP error for the balancer itself about what it sent to `server` by an IPIP tunnel; `inside` is the packet in there.
fn about_tunnel(server: &str, code: u8, mtu: u16, inside: &[u8]) -> Vec<u8> {
    let addr = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let header = |protocol, src: &str, dst: &str, payload: &[u8]| {
        let header = ripvs_packet::ipv4::build(&ripvs_packet::ipv4::NewHeader {
            tos: 0,
            total_len: 20 + payload.len() as u16,
            id: 1,
            fragment: 0,
            ttl: 64,
            protocol,
            src: addr(src),
            dst: addr(dst),
        });
        [&header, payload].concat()
    };
    let quoted = header(proto::IPIP, "10.0.0.254", server, inside);
    let mut error = vec![3, code, 0, 0, 0, 0];
    error.extend(mtu.to_be_bytes());
    error.extend(quoted);
    let sum = Sum::of(&error).checksum();
    error[2..4].copy_from_slice(&sum.to_be_bytes());
    let packet = header(proto::ICMP, server, "10.0.0.254", &error);
    [&mac(1)[..], &[2, 0, 0, 0, 2, 1], &[8, 0], &packet].concat()
}

#[test]
fn errors_about_tunnels_are_told_to_clients_that_encrypt() {
    for workers in WORKERS {
        let mut rig = Rig::new(workers);
        let service = rig.service(proto::UDP, "192.0.2.100", 500, SchedKind::Rr);
        rig.dest(service, "10.0.0.11", 500, Forward::Tunnel);
        let request = segment(0, proto::UDP, ("198.18.0.1", 500), ("192.0.2.100", 500), 0);
        assert_eq!(rig.send(0, &request).len(), 1);
        for protocol in [proto::ESP, proto::AH] {
            let mut inside = request[14..].to_vec();
            inside[9] = protocol;
            ripvs_packet::ipv4::fill_checksum(&mut inside);
            let sent = rig.send(1, &about_tunnel("10.0.0.11", 1, 0, &inside));
            assert_eq!(sent.len(), 1, "{protocol}");
            assert_eq!((sent[0].0, &sent[0].1[30..34]), (0, &[198, 18, 0, 1][..]));
        }
        // Nobody knows what a later part of a datagram is of.
        let mut later = request[14..].to_vec();
        (later[7], later[9]) = (1, proto::ESP);
        ripvs_packet::ipv4::fill_checksum(&mut later);
        assert!(rig
            .send(1, &about_tunnel("10.0.0.11", 1, 0, &later))
            .is_empty());
    }
}

#[test]
fn no_router_makes_a_tunnel_s_way_wider_than_its_interface() {
    let mut rig = Rig::new(1);
    let service = rig.service(proto::UDP, "192.0.2.100", 53, SchedKind::Rr);
    rig.dest(service, "10.0.0.11", 53, Forward::Tunnel);
    let request = segment(0, proto::UDP, ("198.18.0.1", 1000), ("192.0.2.100", 53), 0);
    assert_eq!(rig.send(0, &request).len(), 1);
    let mut inside = request[14..].to_vec();
    inside[6] = 0x40;
    ripvs_packet::ipv4::fill_checksum(&mut inside);
    for (told, left) in [(9000, 1480), (1400, 1380), (1450, 1380), (0, 532)] {
        let sent = rig.send(1, &about_tunnel("10.0.0.11", 4, told, &inside));
        assert_eq!(sent[0].1[40..42], u16::to_be_bytes(left), "{told}");
    }
}
