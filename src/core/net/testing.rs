//! For the tests of this module: a network layer between two networks, whose frames, time and devices lie in memory.

use std::net::IpAddr;

use ripvs_packet::eth::ethertype;
use ripvs_packet::memory::{MemFrame, MemIo};
use ripvs_packet::parse::parse;
use ripvs_packet::{Frame, PortId};

use super::*;
use crate::net::iface::LO;
use crate::types::IfaceId;
use crate::verdict::{Drop, Verdict};

pub(super) const ETH0: IfaceId = IfaceId(1);
pub(super) const ETH1: IfaceId = IfaceId(2);
/// The companion of eth1, where a test asks for one.
pub(super) const COMPANION: PortId = PortId(9);

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `address/length`
pub(super) fn if_addr(text: &str) -> IfAddr {
    let (addr, len) = text.split_once('/').unwrap();
    IfAddr {
        addr: ip(addr),
        len: len.parse().unwrap(),
    }
}

pub(super) fn prefix(text: &str) -> Prefix {
    let a = if_addr(text);
    Prefix::new(a.addr, a.len).unwrap()
}

/// `prefix via gateway`, `prefix dev number`, then perhaps `mtu N`, `from prefix`.
pub(super) fn route(text: &str) -> RouteSpec {
    let words: Vec<&str> = text.split(' ').collect();
    let word = |name: &str| {
        let at = words.iter().position(|w| *w == name)?;
        Some(words[at + 1])
    };
    RouteSpec {
        prefix: prefix(words[0]),
        via: word("via").map(ip),
        dev: word("dev").map(|n| IfaceId(n.parse().unwrap())),
        mtu: word("mtu").map(|n| n.parse().unwrap()),
        from: word("from").map(prefix),
    }
}

pub(super) fn mac(text: &str) -> Mac {
    let mut mac = [0; 6];
    for (byte, hex) in mac.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(hex, 16).unwrap();
    }
    mac
}

pub(super) fn hex(text: &str) -> Vec<u8> {
    let digit = |c: u8| (c as char).to_digit(16).unwrap() as u8;
    let digits: Vec<u8> = text.bytes().filter(|c| *c != b' ').map(digit).collect();
    digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect()
}

/// Interface eth0 on port 0, eth1 on port 1, addresses as in the two-arm topology of the scenarios.
pub(super) struct Bed {
    pub net: Net<MemFrame>,
    pub io: MemIo,
    pub now: Time,
}

impl Bed {
    pub(super) fn new(config: NetConfig) -> Bed {
        let mut bed = Bed {
            net: Net::new(NetConfig {
                icmp_limit: None,
                ..config
            }),
            io: MemIo::new(),
            now: Time::from_secs(1000),
        };
        bed.iface(ETH0, 0, &["198.18.0.254/24", "2001:db8:18::fe/64"]);
        bed.iface(ETH1, 1, &["10.0.0.254/24", "2001:db8:10::fe/64"]);
        for addr in ["192.0.2.100/32", "2001:db8:2::100/128", "203.0.113.0/24"] {
            bed.addr(LO, addr);
        }
        // Announcements are another test's subject.
        bed.net.announce.clear();
        bed
    }

    /// Lets the errors of our own go as they are: those to ourselves end here.
    pub(super) fn pass_own_errors(&mut self) {
        while let Some(OwnError { frame, hit }) = self.net.take_own_error() {
            self.net.send_l3(self.now, frame, 0, &hit, &mut self.io);
        }
    }

    pub(super) fn iface(&mut self, id: IfaceId, port: u16, addresses: &[&str]) {
        let iface = Iface {
            id,
            name: format!("eth{port}"),
            port: Some(PortId(port)),
            vlan: None,
            mac: [2, 0, 0, 0, 0, port as u8 + 1],
            mtu: 1500,
            addresses: addresses.iter().map(|a| if_addr(a)).collect(),
            up: true,
            companion: None,
        };
        self.set(iface);
    }

    pub(super) fn set(&mut self, iface: Iface) {
        self.net.apply(self.now, NetDelta::IfaceSet(iface));
    }

    pub(super) fn addr(&mut self, iface: IfaceId, addr: &str) {
        let addr = if_addr(addr);
        self.net.apply(self.now, NetDelta::AddrAdd { iface, addr });
    }

    pub(super) fn neigh(&mut self, iface: IfaceId, addr: &str, at: &str) {
        let (addr, mac) = (ip(addr), mac(at));
        let delta = NetDelta::NeighSet { iface, addr, mac };
        self.net.apply(self.now, delta);
    }

    pub(super) fn route(&mut self, text: &str) {
        self.net.apply(self.now, NetDelta::RouteAdd(route(text)));
    }

    pub(super) fn sleep(&mut self, seconds: u64) {
        self.now = Time(self.now.0 + Time::from_secs(seconds).0);
        self.net.tick(self.now, &mut self.io);
        self.pass_own_errors();
    }

    /// What the packet path does with a frame where there is no IPVS.
    pub(super) fn input(&mut self, port: u16, bytes: &[u8]) -> Outcome {
        self.net.counters.received += 1;
        let outcome = self.take(PortId(port), MemFrame::new(bytes));
        self.pass_own_errors();
        assert!(self.net.counters.balanced(), "{:?}", self.net.counters);
        outcome
    }

    fn take(&mut self, port: PortId, frame: MemFrame) -> Outcome {
        let (net, io, now) = (&mut self.net, &mut self.io, self.now);
        if net.ifaces().is_companion(port) {
            return net.companion_input(port, frame, io);
        }
        let rx = match net.ingress(port, &frame) {
            Ok(rx) => rx,
            Err(reason) => return net.discard(frame, reason),
        };
        if rx.ethertype == ethertype::ARP {
            return net.arp_input(now, &rx, frame, io);
        }
        let l3 = usize::from(rx.l3);
        let info = match parse(rx.ethertype, &frame.head()[l3..], frame.len() - l3) {
            Ok(info) => info,
            Err(_) => return net.discard(frame, Drop::BadHeader),
        };
        match net.classify(&rx, info.src_ip(), info.dst_ip()) {
            Ok(DstKind::Remote) => net.forward(now, &rx, &info, frame, io),
            Ok(dst) => net.local_input(now, &rx, &info, dst, frame, io),
            Err(reason) => net.discard(frame, reason),
        }
    }

    /// Sends a UDP datagram of no port in particular to `dst` from eth0's network. Returns what became of it.
    pub(super) fn send_to(&mut self, dst: &str) -> Sent {
        let (src, dst) = match ip(dst) {
            dst @ IpAddr::V4(_) => (ip("198.18.0.1"), dst),
            dst => (ip("2001:db8:18::1"), dst),
        };
        let packet = udp(src, dst, 64);
        let hit = self.net.route(dst, None).unwrap();
        self.net.counters.received += 1;
        let frame = MemFrame::new(&packet);
        let sent = self.net.send_l3(self.now, frame, 0, &hit, &mut self.io);
        assert!(self.net.counters.balanced(), "{:?}", self.net.counters);
        sent
    }

    /// What was sent since the last time: port and bytes.
    pub(super) fn sent(&mut self) -> Vec<(u16, Vec<u8>)> {
        self.io.take_sent()
    }
}

/// An IP packet with four bytes of UDP that mean nothing.
pub(super) fn udp(src: IpAddr, dst: IpAddr, ttl: u8) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let header = ripvs_packet::ipv4::build(&ripvs_packet::ipv4::NewHeader {
                tos: 0,
                total_len: 24,
                id: 1,
                fragment: 0,
                ttl,
                protocol: 17,
                src: src.octets(),
                dst: dst.octets(),
            });
            [&header[..], &[0, 1, 0, 2]].concat()
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let header = ripvs_packet::ipv6::build(&ripvs_packet::ipv6::NewHeader {
                traffic_class: 0,
                flow_label: 0,
                payload_len: 4,
                next_header: 17,
                hop_limit: ttl,
                src: src.octets(),
                dst: dst.octets(),
            });
            [&header[..], &[0, 1, 0, 2]].concat()
        }
        _ => panic!("one family"),
    }
}

/// An Ethernet frame.
pub(super) fn frame(dst: &str, src: &str, kind: u16, packet: &[u8]) -> Vec<u8> {
    [&mac(dst)[..], &mac(src), &kind.to_be_bytes(), packet].concat()
}

pub(super) fn dropped(reason: Drop) -> Outcome {
    Outcome::Done(Verdict::Dropped(reason))
}
