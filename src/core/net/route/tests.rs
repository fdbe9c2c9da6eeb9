//! Route lookup, source addresses, and what changes of interfaces do to them.

use super::*;
use crate::net::testing::{ip, prefix, route, Bed, ETH0, ETH1};
use crate::net::{NetConfig, NetDelta};

fn way(bed: &Bed, dst: &str, src: Option<&str>) -> Option<(IfaceId, String, u16)> {
    let hit = bed.net.route(ip(dst), src.map(ip))?;
    Some((hit.iface, hit.next_hop.to_string(), hit.mtu))
}

fn bed(routes: &[&str]) -> Bed {
    let mut bed = Bed::new(NetConfig::default());
    routes.iter().for_each(|text| bed.route(text));
    bed
}

#[test]
fn the_longest_prefix_then_the_first_route_wins() {
    let bed = bed(&[
        "0.0.0.0/0 via 198.18.0.1",
        "10.9.0.0/16 via 10.0.0.1",
        "10.9.0.0/16 via 10.0.0.2",
        "10.9.7.0/24 via 10.0.0.3 mtu 1400",
        "10.9.8.0/24 dev 1 mtu 9000",
        "10.9.9.0/24 via fe80::1 dev 1",
        "2001:db8:77::/48 via 2001:db8:10::1 mtu 1300",
    ]);
    for (dst, iface, hop, mtu) in [
        ("8.8.8.8", ETH0, "198.18.0.1", 1500),
        ("10.9.1.1", ETH1, "10.0.0.1", 1500),
        ("10.9.7.1", ETH1, "10.0.0.3", 1400),
        ("10.9.8.1", ETH0, "10.9.8.1", 1500),
        ("10.9.9.1", ETH0, "fe80::1", 1500),
        ("10.0.0.77", ETH1, "10.0.0.77", 1500),
        ("2001:db8:77:1::1", ETH1, "2001:db8:10::1", 1300),
        ("192.0.2.100", LO, "192.0.2.100", 65535),
    ] {
        assert_eq!(
            way(&bed, dst, None),
            Some((iface, hop.into(), mtu)),
            "{dst}"
        );
    }
    assert_eq!(way(&bed, "2001:db8:78::1", None), None);
    assert_eq!(way(&bed, "10.0.0.255", None), None, "a broadcast address");
}

#[test]
fn routes_for_a_source_go_first_but_not_before_local_addresses() {
    let mut bed = bed(&[
        "198.19.0.0/16 via 198.18.0.1",
        "198.19.0.0/16 via 198.18.0.2 from 192.0.2.0/24",
        "198.19.0.0/16 via 198.18.0.3 from 192.0.2.100/32",
        "10.0.0.0/8 via 198.18.0.4 from 192.0.2.100/32",
        "0.0.0.0/0 via 198.18.0.5 from 192.0.2.101/32",
    ]);
    let hop = |bed: &Bed, dst, src| way(bed, dst, src).unwrap().1;
    assert_eq!(hop(&bed, "198.19.0.1", None), "198.18.0.1");
    assert_eq!(hop(&bed, "198.19.0.1", Some("10.0.0.1")), "198.18.0.1");
    assert_eq!(hop(&bed, "198.19.0.1", Some("192.0.2.7")), "198.18.0.2");
    assert_eq!(hop(&bed, "198.19.0.1", Some("192.0.2.100")), "198.18.0.3");
    assert_eq!(hop(&bed, "10.0.0.7", Some("192.0.2.100")), "198.18.0.4");
    assert_eq!(hop(&bed, "10.0.0.7", Some("192.0.2.101")), "198.18.0.5");
    assert_eq!(way(&bed, "10.0.0.254", Some("192.0.2.101")).unwrap().0, LO);
    let gone = route("198.19.0.0/16 via 198.18.0.3 from 192.0.2.100/32");
    bed.net.apply(bed.now, NetDelta::RouteDel(gone));
    assert_eq!(hop(&bed, "198.19.0.1", Some("192.0.2.100")), "198.18.0.2");
}

#[test]
fn interfaces_that_change_take_their_routes_along() {
    let mut bed = bed(&["10.9.0.0/16 via 10.0.0.1", "0.0.0.0/0 via 198.18.0.1"]);
    let mut eth1 = bed.net.ifaces().get(ETH1).unwrap().clone();
    let before = bed.net.generation();
    eth1.up = false;
    bed.set(eth1.clone());
    assert_ne!(bed.net.generation(), before);
    assert_eq!(way(&bed, "10.9.0.1", None).unwrap().0, ETH0);
    assert_eq!(way(&bed, "10.0.0.1", None).unwrap().0, ETH0);
    eth1.up = true;
    eth1.mtu = 9000;
    bed.set(eth1);
    assert_eq!(
        way(&bed, "10.9.0.1", None),
        Some((ETH1, "10.0.0.1".into(), 9000))
    );
    let (iface, addr) = (ETH1, crate::net::testing::if_addr("10.0.0.254/24"));
    bed.net.apply(bed.now, NetDelta::AddrDel { iface, addr });
    assert_eq!(way(&bed, "10.9.0.1", None).unwrap().0, ETH0);
    assert!(!bed.net.is_local(ip("10.0.0.254")));
    bed.addr(ETH1, "10.0.0.253/24");
    assert_eq!(way(&bed, "10.9.0.1", None).unwrap().0, ETH1);
    bed.net.apply(bed.now, NetDelta::IfaceDel(ETH1));
    assert_eq!(way(&bed, "10.9.0.1", None).unwrap().0, ETH0);
}

#[test]
fn a_network_stays_as_long_as_an_address_is_on_it() {
    let mut bed = bed(&[]);
    bed.addr(ETH1, "10.0.0.253/24");
    for (gone, there) in [("10.0.0.254/24", true), ("10.0.0.253/24", false)] {
        let (iface, addr) = (ETH1, crate::net::testing::if_addr(gone));
        bed.net.apply(bed.now, NetDelta::AddrDel { iface, addr });
        assert_eq!(way(&bed, "10.0.0.7", None).is_some(), there);
        assert!(!bed.net.is_local(addr.addr));
    }
    assert_eq!(bed.net.routes().local(ip("10.0.0.255")), None);
}

#[test]
fn routes_that_cannot_be_are_told_from_those_that_can() {
    let bed = bed(&["10.9.0.0/16 via 10.0.0.1"]);
    let check = |text: &str| bed.net.routes().check(&route(text), bed.net.ifaces());
    let far = ip("172.16.0.1");
    assert_eq!(check("10.8.0.0/16 via 10.0.0.1"), Ok(ETH1));
    assert_eq!(check("10.8.0.0/16 dev 1"), Ok(ETH0));
    assert_eq!(check("2001:db8:99::/48 via fe80::1 dev 2"), Ok(ETH1));
    assert_eq!(check("10.9.0.0/16 via 10.0.0.1"), Err(RouteError::Exists));
    assert_eq!(check("10.8.0.0/16"), Err(RouteError::NoGatewayNorDev));
    assert_eq!(
        check("10.8.0.0/16 via 172.16.0.1"),
        Err(RouteError::GatewayUnreachable(far))
    );
    assert_eq!(
        check("10.8.0.0/16 via 172.16.0.1 dev 1"),
        Err(RouteError::GatewayUnreachable(far))
    );
    assert_eq!(
        check("2001:db8:99::/48 via fe80::1"),
        Err(RouteError::GatewayUnreachable(ip("fe80::1")))
    );
    assert_eq!(
        check("10.8.0.0/16 via 10.9.0.1"),
        Err(RouteError::GatewayUnreachable(ip("10.9.0.1"))),
        "a gateway behind a gateway"
    );
    let own = ip("10.0.0.254");
    assert_eq!(
        check("10.8.0.0/16 via 10.0.0.254"),
        Err(RouteError::GatewayLocal(own))
    );
    assert_eq!(
        check("10.8.0.0/16 dev 9"),
        Err(RouteError::NoDev(IfaceId(9)))
    );
    for mixed in [
        "10.8.0.0/16 via 10.0.0.1 from 2001:db8::/32",
        "2001:db8:99::/48 via 10.0.0.1",
    ] {
        assert_eq!(check(mixed), Err(RouteError::MixedFamilies));
    }
}

#[test]
fn our_source_address_is_the_one_the_kernel_would_take() {
    let mut bed = bed(&[
        "172.16.0.0/12 via 10.1.0.1",
        "2001:db8:99::/48 via 2001:db8:10::1",
    ]);
    bed.addr(ETH1, "10.1.0.254/24");
    bed.addr(ETH1, "2001:db8:99::fe/128");
    for (dst, source) in [
        ("10.0.0.7", Some("10.0.0.254")),
        ("10.1.0.7", Some("10.1.0.254")),
        ("172.16.0.1", Some("10.1.0.254")),
        ("192.0.2.100", Some("192.0.2.100")),
        ("2001:db8:10::7", Some("2001:db8:10::fe")),
        ("2001:db8:99::7", Some("2001:db8:99::fe")),
    ] {
        let found = bed
            .net
            .route(ip(dst), None)
            .and_then(|hit| bed.net.source_for(ip(dst), &hit));
        assert_eq!(found, source.map(ip), "{dst}");
    }
    let on_eth1 = RouteHit {
        iface: ETH1,
        next_hop: ip("fe80::7"),
        mtu: 1500,
        local: false,
    };
    let own = ip("fe80::ff:fe00:2");
    assert_eq!(bed.net.source_for(ip("fe80::7"), &on_eth1), Some(own));
    let mut bare = Bed::new(NetConfig::default());
    bare.iface(ETH1, 1, &["2001:db8:10::fe/64"]);
    let v4 = RouteHit {
        next_hop: ip("10.0.0.7"),
        ..on_eth1
    };
    let from_lo = bare.net.source_for(ip("10.0.0.7"), &v4);
    assert_eq!(
        from_lo,
        Some(ip("192.0.2.100")),
        "lo comes first of the others"
    );
}

#[test]
fn listings_show_each_route_once() {
    let bed = bed(&["10.9.0.0/16 via 10.0.0.1", "10.9.0.0/16 via 10.0.0.1"]);
    let configured: Vec<_> = bed.net.routes().iter().filter(|(_, auto)| !auto).collect();
    assert_eq!(configured.len(), 1);
    let connected = bed.net.routes().iter().filter(|(_, auto)| *auto);
    assert!(connected
        .map(|(spec, _)| spec.prefix)
        .any(|p| p == prefix("10.0.0.0/24")));
}
