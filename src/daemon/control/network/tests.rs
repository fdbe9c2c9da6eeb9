//! The network layer out of a configuration, changed, and back into requests.

#![allow(clippy::unwrap_used)]

use ripvs_api::ripvs::{Divert, NeighState, Prefix, Request, RouteKind};

use super::super::fleet::Order;
use super::*;
use ripvs_core::delta::Step;

use crate::config::{self, options::Options};

const CONFIG: &str = "
[[port]]
name = \"eth0\"
device = \"net_tap0\"
addresses = [\"198.18.0.254/24\"]
companion = \"host0\"
[[port]]
name = \"eth1\"
device = \"net_tap1\"
mtu = 1400
addresses = [\"10.0.0.254/24\"]
[[vlan]]
name = \"eth1.5\"
on = \"eth1\"
id = 5
addresses = [\"10.5.0.254/24\"]
[loopback]
addresses = [\"192.0.2.100/32\"]
[[route]]
prefix = \"198.19.0.0/16\"
via = \"198.18.0.1\"
[[neighbour]]
interface = \"eth1\"
address = \"10.0.0.11\"
mac = \"02:00:00:00:02:11\"
[[mark]]
mark = 7
protocol = \"tcp\"
destination_ports = [\"80\"]
divert = true
";

fn setup(name: &str, number: u8, companion: Option<(PortId, String)>) -> PortSetup {
    PortSetup {
        name: name.into(),
        mac: [2, 0, 0, 0, 0, number],
        mtu: 1500,
        queues: (1, 1),
        device_name: format!("net_tap{number}"),
        driver: "net_tap".into(),
        companion,
        has_interface: !name.starts_with("host"),
        device: None,
    }
}

fn network() -> (Network, Fleet) {
    let config = config::from_text("", CONFIG, &Options::default()).unwrap();
    let mut fleet = Fleet::new(1).unwrap();
    let mut network = Network::default();
    let ports = vec![
        setup("eth0", 0, Some((PortId(2), "host0".into()))),
        setup("eth1", 1, None),
        setup("host0", 2, None),
    ];
    network.configure(&config, ports, &mut fleet).unwrap();
    (network, fleet)
}

fn addr(dev: &str, text: &str) -> Addr {
    Addr {
        addr: text.parse().unwrap(),
        dev: dev.into(),
    }
}

fn route(prefix: &str, via: &str) -> Route {
    Route {
        prefix: prefix.parse().unwrap(),
        via: Some(via.parse().unwrap()),
        dev: None,
        mtu: None,
        from: None,
        kind: RouteKind::Static,
    }
}

fn errno(result: Result<(), Refusal>) -> Option<Errno> {
    result.err().map(|refusal| refusal.errno)
}

/// What worker 0 is told of the network layer.
fn told(fleet: &mut Fleet) -> Vec<NetDelta> {
    fleet.send(std::time::Instant::now());
    let mut all = Vec::new();
    while let Some(Order::Apply(batch, steps)) = fleet.mailbox(0).order() {
        fleet.mailbox(0).applied(batch, Vec::new());
        all.extend(steps.into_iter().filter_map(|step| match step {
            Step::Change(Delta::Net(change)) => Some(change),
            _ => None,
        }));
    }
    all
}

#[test]
fn the_configuration_makes_interfaces_over_ports() {
    let (network, mut fleet) = network();
    let told = told(&mut fleet);
    let ifaces: Vec<&Iface> = told
        .iter()
        .filter_map(|change| match change {
            NetDelta::IfaceSet(iface) => Some(iface),
            _ => None,
        })
        .collect();
    assert_eq!(ifaces.len(), 3, "a companion has no interface");
    assert_eq!(
        (ifaces[0].port, ifaces[0].companion),
        (Some(PortId(0)), Some(PortId(2)))
    );
    assert_eq!((ifaces[1].mtu, ifaces[1].vlan), (1400, None));
    assert_eq!(
        (ifaces[2].port, ifaces[2].vlan, ifaces[2].mtu),
        (Some(PortId(1)), Some(5), 1400)
    );
    assert_eq!(network.port_named("eth1"), Some(PortId(1)));
    assert_eq!(network.port_named("eth1.5"), None);
    assert!(network.is_local("192.0.2.100".parse().unwrap()));
    assert!(network.is_broadcast("10.0.0.255".parse().unwrap()));
    assert_eq!(network.mtu_of("eth1"), Some(1400));
}

#[test]
fn what_is_not_there_or_there_already_is_refused() {
    let (mut network, mut fleet) = network();
    let f = &mut fleet;
    assert_eq!(
        errno(network.add_address(&addr("eth9", "1.2.3.4/8"), f)),
        Some(Errno::NODEV)
    );
    assert_eq!(
        errno(network.add_address(&addr("eth0", "198.18.0.254/24"), f)),
        Some(Errno::EXIST)
    );
    assert_eq!(
        errno(network.add_address(&addr("eth0", "224.0.0.1/32"), f)),
        Some(Errno::INVAL)
    );
    assert_eq!(
        errno(network.delete_address(&addr("eth0", "1.2.3.4/8"), f)),
        Some(Errno::ADDRNOTAVAIL)
    );
    assert_eq!(
        errno(network.add_route(&route("198.19.0.0/16", "198.18.0.2"), f)),
        Some(Errno::EXIST)
    );
    assert_eq!(
        errno(network.add_route(&route("1.0.0.0/8", "9.9.9.9"), f)),
        Some(Errno::NETUNREACH)
    );
    assert_eq!(
        errno(network.add_route(&route("1.2.3.4/8", "198.18.0.2"), f)),
        Some(Errno::INVAL)
    );
    assert_eq!(
        errno(network.delete_route(&route("1.0.0.0/8", "198.18.0.2"), f)),
        Some(Errno::SRCH)
    );
    let neigh = Neigh {
        addr: "10.0.0.12".parse().unwrap(),
        dev: "eth1".into(),
        mac: None,
        state: NeighState::Permanent,
        waiting: 0,
    };
    assert_eq!(errno(network.add_neighbour(&neigh, f)), Some(Errno::INVAL));
    assert_eq!(
        errno(network.delete_neighbour(&neigh, false, f)),
        Some(Errno::NOENT)
    );
    assert_eq!(errno(network.delete_neighbour(&neigh, true, f)), None);
    let rule = network.show_marks()[0].clone();
    assert_eq!(errno(network.add_mark(&rule, f)), Some(Errno::EXIST));
    let wrong = ripvs_api::ripvs::MarkRule {
        protocol: Some(1),
        ..rule
    };
    assert_eq!(errno(network.add_mark(&wrong, f)), Some(Errno::INVAL));
    assert_eq!(errno(network.delete_mark(&wrong, f)), Some(Errno::NOENT));
    assert_eq!(
        errno(network.add_divert(&Divert { mark: 7 }, f)),
        Some(Errno::EXIST)
    );
    assert_eq!(
        errno(network.delete_divert(&Divert { mark: 8 }, f)),
        Some(Errno::NOENT)
    );
    let change = PortChange {
        name: "eth0".into(),
        mtu: Some(9000),
        up: None,
        mac: None,
    };
    assert_eq!(errno(network.change_port(&change, f)), Some(Errno::INVAL));
}

#[test]
fn a_deleted_route_need_not_be_told_in_full() {
    let (mut network, mut fleet) = network();
    let like = Route {
        via: None,
        ..route("198.19.0.0/16", "198.18.0.1")
    };
    network.delete_route(&like, &mut fleet).unwrap();
    let left = network.show_routes();
    assert!(left.iter().all(|route| route.kind != RouteKind::Static));
    assert!(left.iter().any(|route| route.kind == RouteKind::Connected));
}

#[test]
fn a_new_mac_address_does_not_lose_static_neighbours() {
    let (mut network, mut fleet) = network();
    told(&mut fleet);
    let mac = ripvs_api::ripvs::Mac([2, 0, 0, 0, 9, 9]);
    let change = PortChange {
        name: "eth1".into(),
        mac: Some(mac),
        mtu: None,
        up: Some(false),
    };
    network.change_port(&change, &mut fleet).unwrap();
    let told = told(&mut fleet);
    assert!(matches!(&told[0], NetDelta::IfaceSet(iface) if iface.mac == mac.0 && !iface.up));
    assert!(matches!(&told[1], NetDelta::NeighSet { .. }));
}

#[test]
fn the_requests_of_a_snapshot_are_what_was_changed_since_the_configuration() {
    let (mut network, mut fleet) = network();
    assert!(network.requests().is_empty());
    let f = &mut fleet;
    network
        .delete_address(&addr("eth1.5", "10.5.0.254/24"), f)
        .unwrap();
    network
        .add_address(&addr("eth0", "198.18.1.1/24"), f)
        .unwrap();
    network
        .add_route(&route("10.9.0.0/16", "198.18.1.2"), f)
        .unwrap();
    network.delete_divert(&Divert { mark: 7 }, f).unwrap();
    let requests = network.requests();
    let kinds: Vec<u8> = requests.iter().map(Request::command).collect();
    // Addresses first go and come, then the route over the new one, then the mark.
    assert_eq!(kinds, [8, 7, 10, 20], "{requests:?}");
    let prefix: Prefix = "198.18.1.1/24".parse().unwrap();
    assert!(matches!(&requests[1], Request::AddAddr(added) if added.addr == prefix));
}

/// Each place has counted its own number.
struct Numbered;

impl Traffic for Numbered {
    fn port(&self, port: PortId) -> [u64; 5] {
        [u64::from(port.0); 5]
    }
}

#[test]
fn vlans_are_counted_behind_the_ports() {
    let (network, _) = network();
    let shown = network.show_ports(&Numbered);
    let counts: Vec<(&str, u64)> = shown
        .iter()
        .map(|port| (port.name.as_str(), port.rx_packets))
        .collect();
    assert_eq!(counts, [("lo", 0), ("eth0", 0), ("eth1", 1), ("eth1.5", 3)]);
}
