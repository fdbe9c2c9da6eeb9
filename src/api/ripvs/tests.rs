//! Round trips and damage of all messages.

use std::net::IpAddr;

use super::*;
use crate::ipvs::Stats;
use crate::nl::flags;
use proptest::prelude::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn addr() -> Addr {
    Addr {
        addr: prefix("198.18.0.254/24"),
        dev: "eth0".into(),
    }
}

fn route() -> Route {
    Route {
        prefix: prefix("2001:db8::/32"),
        via: Some(ip("2001:db8:18::1")),
        dev: None,
        mtu: Some(1400),
        from: Some(prefix("192.0.2.100")),
        kind: RouteKind::Static,
    }
}

fn neigh() -> Neigh {
    Neigh {
        addr: ip("10.0.0.11"),
        dev: "eth1".into(),
        mac: Some(Mac([2, 0, 0, 0, 2, 0x11])),
        state: NeighState::Permanent,
        waiting: 3,
    }
}

fn mark() -> MarkRule {
    MarkRule {
        mark: 7,
        protocol: Some(6),
        src: None,
        dst: Some(prefix("203.0.113.0/24")),
        sports: Vec::new(),
        dports: vec![
            PortRange {
                first: 80,
                last: 80,
            },
            PortRange { first: 1, last: 9 },
        ],
        dev: Some("eth0".into()),
    }
}

fn sysctl() -> Sysctl {
    Sysctl {
        name: "net.ipv4.vs.sync_threshold".into(),
        value: "3 50".into(),
    }
}

fn count(name: &str, count: u64) -> Count {
    Count {
        name: name.into(),
        count,
    }
}

fn requests() -> Vec<Request> {
    let name = SysctlName {
        name: "net.ipv4.vs.sloppy_tcp".into(),
    };
    vec![
        Request::Status,
        Request::Workers,
        Request::Verdicts,
        Request::Ports,
        Request::SetPort(PortChange {
            name: "eth0".into(),
            up: Some(false),
            mac: None,
            mtu: Some(9000),
        }),
        Request::Addrs,
        Request::AddAddr(addr()),
        Request::DelAddr(addr()),
        Request::Routes,
        Request::AddRoute(route()),
        Request::DelRoute(route()),
        Request::Neighs,
        Request::AddNeigh(neigh()),
        Request::DelNeigh(neigh()),
        Request::Marks,
        Request::AddMark(mark()),
        Request::DelMark(mark()),
        Request::Diverts,
        Request::AddDivert(Divert { mark: 7 }),
        Request::DelDivert(Divert { mark: 7 }),
        Request::Sysctls,
        Request::GetSysctl(name),
        Request::SetSysctl(sysctl()),
        Request::Conns(ConnsFrom {
            cursor: 1 << 50,
            limit: 1000,
        }),
        Request::ServiceExacts,
        Request::SetServiceExact(ServiceExact {
            service: "tcp [2001:db8::1]:80".parse().unwrap(),
            exact: None,
        }),
        Request::Advance(Advance { by_ms: 2500 }),
        Request::Settle(Settle {
            ports: vec![SettlePort {
                name: "eth0".into(),
                received: 5,
            }],
            timeout_ms: 5000,
        }),
        Request::Traffic,
    ]
}

fn replies() -> Vec<Reply> {
    let traffic = Stats {
        conns: 1,
        inpkts: 2,
        outpkts: 3,
        inbytes: 4,
        outbytes: 1 << 40,
        cps: 6,
        inpps: 7,
        outpps: 8,
        inbps: 9,
        outbps: 10,
    };
    vec![
        Reply::Status(Status {
            version: "0.1.0".into(),
            pid: 42,
            uptime_ms: 1 << 40,
            workers: 3,
            services: 20_000,
            dests: 160_000,
            conns: 9,
            conn_limit: 1 << 20,
            dpdk: Some("DPDK 22.11".into()),
        }),
        Reply::Worker(Worker {
            id: 1,
            core: Some(3),
            conns: 5,
            received: 6,
            sent: 7,
            handed_over: 8,
            ring_full: 9,
            busy_bursts: 10,
            idle_bursts: 11,
        }),
        Reply::Verdicts(Verdicts {
            received: 10,
            generated: 2,
            forwarded: 5,
            host: 1,
            answered: 1,
            dropped: vec![count("no-route", 2), count("bad-checksum", 1)],
            held: vec![count("neighbour", 2)],
        }),
        Reply::Port(Port {
            name: "eth0.5".into(),
            kind: PortKind::Vlan,
            up: true,
            link: true,
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            mtu: 1500,
            vlan: Some(5),
            device: Some("eth0".into()),
            driver: Some("net_tap".into()),
            companion: None,
            rx_queues: 2,
            tx_queues: 1,
            rx_packets: 1,
            rx_bytes: 2,
            tx_packets: 3,
            tx_bytes: 4,
            rx_missed: 5,
            rx_errors: 6,
            rx_no_buffers: 7,
            tx_dropped: 8,
        }),
        Reply::Addr(addr()),
        Reply::Route(route()),
        Reply::Neigh(neigh()),
        Reply::Mark(mark()),
        Reply::Divert(Divert { mark: 1 }),
        Reply::Sysctl(sysctl()),
        Reply::Conn(Conn {
            protocol: 17,
            caddr: ip("198.18.0.1"),
            cport: 5060,
            vaddr: ip("192.0.2.100"),
            vport: 5060,
            daddr: ip("2001:db8::a"),
            dport: 5060,
            state: "UDP".into(),
            expires_ms: 299_990,
            flags: 0x100,
            pe_name: Some("sip".into()),
            pe_data: Some(Bytes(b"abc@\xffhost".to_vec())),
            worker: 2,
        }),
        Reply::ConnsEnd(ConnsEnd { next: Some(77) }),
        Reply::ConnsEnd(ConnsEnd { next: None }),
        Reply::ServiceExact(ServiceExact {
            service: "mark6 7".parse().unwrap(),
            exact: Some(true),
        }),
        Reply::Settled(Settled {
            complete: true,
            ports: vec![SettledPort {
                name: "eth0".into(),
                received: 5,
                sent: 3,
            }],
        }),
        Reply::Traffic(Traffic::new(Some(2), &traffic)),
        Reply::Traffic(Traffic::new(None, &traffic)),
    ]
}

fn bytes_of(encode: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    encode(&mut writer);
    writer.into_bytes()
}

fn header(dump: bool) -> Header {
    Header {
        flags: flags::REQUEST | if dump { flags::DUMP } else { flags::ACK },
        ..Header::default()
    }
}

#[test]
fn requests_survive_the_wire() {
    for request in requests() {
        let bytes = bytes_of(|w| request.encode(w));
        let header = header(request.is_dump());
        let found = Request::accept(request.command(), VERSION, &header, &bytes);
        assert_eq!(found, Ok(request));
    }
}

#[test]
fn replies_survive_the_wire() {
    for reply in replies() {
        let bytes = bytes_of(|w| reply.encode(w));
        assert_eq!(Reply::decode(reply.command(), &bytes), Ok(reply));
    }
}

#[test]
fn another_version_is_refused() {
    let found = Request::accept(1, VERSION + 1, &header(false), &[]);
    assert_eq!(found, Err(Errno::PROTO));
}

#[test]
fn unknown_commands_and_wrong_dumps_are_not_supported() {
    for (command, dump) in [(0, false), (200, false), (4, false), (1, true)] {
        let found = Request::accept(command, VERSION, &header(dump), &[]);
        assert_eq!(found, Err(Errno::OPNOTSUPP), "{command}");
    }
}

#[test]
fn what_is_missing_or_wrong_is_refused() {
    let found = Request::accept(7, VERSION, &header(false), &[]);
    assert_eq!(found, Err(Errno::INVAL));
    let wrong = bytes_of(|w| {
        w.attr(1, &[10, 0, 0, 1, 33]);
        w.attr(2, b"eth0");
    });
    let found = Request::decode(7, &wrong);
    assert_eq!(found, Err(DecodeError::Invalid("Prefix")));
}

#[test]
fn unknown_attributes_are_passed_over() {
    let mut writer = Writer::new();
    writer.attr(99, b"new");
    addr().put_fields(&mut writer);
    let found = Request::decode(7, writer.as_bytes());
    assert_eq!(found, Ok(Request::AddAddr(addr())));
}

#[test]
fn every_truncation_of_every_message_is_survived() {
    for request in requests() {
        let bytes = bytes_of(|w| request.encode(w));
        for cut in 0..bytes.len() {
            let _ = Request::decode(request.command(), &bytes[..cut]);
        }
    }
    for reply in replies() {
        let bytes = bytes_of(|w| reply.encode(w));
        for cut in 0..bytes.len() {
            let _ = Reply::decode(reply.command(), &bytes[..cut]);
        }
    }
}

proptest! {
    #[test]
    fn random_attributes_are_survived(
        command in 0u8..30,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = Request::decode(command, &bytes);
        let _ = Reply::decode(command, &bytes);
    }

    #[test]
    fn flipped_bytes_are_survived(
        which in any::<proptest::sample::Index>(),
        at in any::<proptest::sample::Index>(),
        value in any::<u8>(),
    ) {
        let replies = replies();
        let reply = which.get(&replies);
        let mut bytes = bytes_of(|w| reply.encode(w));
        let at = at.index(bytes.len().max(1));
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
        if let Ok(found) = Reply::decode(reply.command(), &bytes) {
            let again = bytes_of(|w| found.encode(w));
            prop_assert_eq!(Reply::decode(found.command(), &again), Ok(found));
        }
    }
}
