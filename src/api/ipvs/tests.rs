//! Round trips, tolerance, and damage.

use std::net::IpAddr;

use super::number::{dest, flag, forward, svc, sync_state};
use super::*;
use crate::nl::flags;
use proptest::prelude::*;

fn key4() -> ServiceKey {
    ServiceKey::Addr {
        protocol: 6,
        addr: "192.0.2.100".parse().unwrap(),
        port: 80,
    }
}

fn key6() -> ServiceKey {
    ServiceKey::Addr {
        protocol: 17,
        addr: "2001:db8::1".parse().unwrap(),
        port: 0,
    }
}

fn mark(af: Af) -> ServiceKey {
    ServiceKey::Mark { mark: 7, af }
}

fn config(netmask: u32) -> ServiceConfig {
    ServiceConfig {
        sched: "wrr".into(),
        pe: Some("sip".into()),
        flags: flag::PERSISTENT | flag::SCHED1,
        mask: !0,
        timeout: 360,
        netmask,
    }
}

fn dest(addr: &str) -> DestConfig {
    DestConfig {
        key: DestKey {
            addr: addr.parse().unwrap(),
            port: 8080,
        },
        forward: forward::TUNNEL,
        weight: -5,
        upper: 1000,
        lower: 500,
        tun_type: 1,
        tun_port: 6080,
        tun_flags: 2,
    }
}

fn sync() -> SyncDaemon {
    SyncDaemon {
        state: sync_state::BACKUP,
        mcast_ifn: Some("eth1".into()),
        sync_id: Some(6),
        sync_maxlen: Some(1400),
        mcast_group: Some("ff02::51".parse().unwrap()),
        mcast_port: Some(9000),
        mcast_ttl: Some(2),
    }
}

fn requests() -> Vec<Request> {
    let all = dest("10.0.0.1");
    vec![
        Request::NewService(key4(), config(0xffff_ff00)),
        Request::SetService(key6(), config(64)),
        Request::SetService(mark(Af::V6), config(128)),
        Request::DelService(mark(Af::V4)),
        Request::GetService(key6()),
        Request::DumpServices,
        Request::NewDest(key4(), Ok(all)),
        Request::SetDest(key4(), Ok(dest("2001:db8::a"))),
        Request::DelDest(mark(Af::V4), Ok(all.key)),
        Request::DumpDests(Some(key4())),
        Request::DumpDests(None),
        Request::NewDaemon(sync()),
        Request::DelDaemon(SyncDaemon {
            state: sync_state::MASTER,
            mcast_group: Some("224.0.0.81".parse().unwrap()),
            ..SyncDaemon::default()
        }),
        Request::DumpDaemons,
        Request::SetConfig(Timeouts {
            tcp: Some(7),
            tcp_fin: None,
            udp: Some(9),
        }),
        Request::GetConfig,
        Request::GetInfo,
        Request::Zero(None),
        Request::Zero(Some(key4())),
        Request::Flush,
    ]
}

fn stats(of: u64) -> Stats {
    Stats {
        conns: of,
        inpkts: of + 1,
        outpkts: of + 2,
        inbytes: of + 3,
        outbytes: of + 4,
        cps: of + 5,
        inpps: of + 6,
        outpps: of + 7,
        inbps: of + 8,
        outbps: of + 9,
    }
}

fn replies() -> Vec<Reply> {
    vec![
        Reply::Service(Service {
            key: key4(),
            config: config(0xffff_ff00),
            stats: stats(1 << 40),
        }),
        Reply::Service(Service {
            key: mark(Af::V6),
            config: config(64),
            stats: stats(0),
        }),
        Reply::Dest(Dest {
            config: dest("2001:db8::a"),
            active: 1,
            inactive: 2,
            persistent: 3,
            stats: stats(1 << 33),
        }),
        Reply::Daemon(sync()),
        Reply::Config(Timeouts {
            tcp: Some(900),
            tcp_fin: Some(120),
            udp: Some(300),
        }),
        Reply::Info(Info {
            version: 0x010201,
            conn_tab_size: 4096,
        }),
    ]
}

fn header(dump: bool) -> Header {
    Header {
        flags: flags::REQUEST | if dump { flags::DUMP } else { flags::ACK },
        ..Header::default()
    }
}

fn attrs_of(request: &Request) -> Vec<u8> {
    let mut writer = Writer::new();
    request.encode(&mut writer);
    writer.into_bytes()
}

#[test]
fn requests_survive_the_wire() {
    for request in requests() {
        let found = Request::decode(
            request.command(),
            &header(request.is_dump()),
            &attrs_of(&request),
        );
        assert_eq!(found, Ok(request));
    }
}

#[test]
fn replies_survive_the_wire() {
    for reply in replies() {
        let mut writer = Writer::new();
        reply.encode(&mut writer);
        assert_eq!(
            Reply::decode(reply.command(), writer.as_bytes()),
            Ok(reply.clone())
        );
    }
}

#[test]
fn ports_and_masks_go_in_network_order() {
    let bytes = attrs_of(&Request::NewService(key4(), config(0xffff_ff00)));
    let table = Table::<2>::new(&bytes);
    let service = Table::<16>::new(table.get(attr::SERVICE).unwrap());
    assert_eq!(service.get(svc::PORT), Some(&[0, 80][..]));
    assert_eq!(service.get(svc::NETMASK), Some(&[255, 255, 255, 0][..]));
    assert_eq!(service.get(svc::AF), Some(&2u16.to_ne_bytes()[..]));
}

/// The attributes of a service as given, inside the service attribute.
fn service_of(fields: &[(u16, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.nest(attr::SERVICE, |w| {
        for (kind, value) in fields {
            w.attr(*kind, value);
        }
    });
    writer.into_bytes()
}

/// An attribute: number and value.
type Field = (u16, &'static [u8]);

const AF4: Field = (svc::AF, &[2, 0]);
const TCP: Field = (svc::PROTOCOL, &[6, 0]);
const ADDR4: Field = (svc::ADDR, &[192, 0, 2, 100]);
const PORT: Field = (svc::PORT, &[0, 80]);

#[test]
fn an_ipv4_address_may_have_four_bytes() {
    let bytes = service_of(&[AF4, TCP, ADDR4, PORT]);
    let found = Request::decode(cmd::DEL_SERVICE, &header(false), &bytes);
    assert_eq!(found, Ok(Request::DelService(key4())));
}

#[test]
fn a_service_is_refused_as_the_kernel_refuses() {
    let rows: &[(&[Field], Errno)] = &[
        (&[TCP, ADDR4, PORT], Errno::INVAL),
        (&[AF4, ADDR4, PORT], Errno::INVAL),
        (&[AF4, TCP, ADDR4], Errno::INVAL),
        (&[(svc::AF, &[9, 0]), TCP, ADDR4, PORT], Errno::AFNOSUPPORT),
        (&[(svc::AF, &[9, 0]), TCP, ADDR4], Errno::INVAL),
        (&[AF4, TCP, (svc::ADDR, &[1; 17]), PORT], Errno::INVAL),
    ];
    for (fields, error) in rows {
        let bytes = service_of(fields);
        let found = Request::decode(cmd::GET_SERVICE, &header(false), &bytes);
        assert_eq!(found, Err(*error), "{fields:?}");
    }
    let bytes = service_of(&[AF4, TCP, ADDR4, PORT]);
    let found = Request::decode(cmd::NEW_SERVICE, &header(false), &bytes);
    assert_eq!(found, Err(Errno::INVAL), "a new service needs all of it");
}

#[test]
fn a_mark_outdoes_an_address() {
    let bytes = service_of(&[AF4, TCP, ADDR4, PORT, (svc::FWMARK, &[7, 0, 0, 0])]);
    let found = Request::decode(cmd::DEL_SERVICE, &header(false), &bytes);
    assert_eq!(found, Ok(Request::DelService(mark(Af::V4))));
}

#[test]
fn a_dest_takes_its_family_from_the_service() {
    let mut writer = Writer::new();
    writer.nest(attr::SERVICE, |w| key4().encode(w));
    writer.nest(attr::DEST, |w| {
        w.attr(dest::ADDR, &[10, 0, 0, 1]);
        w.be16(dest::PORT, 80);
    });
    let key = DestKey {
        addr: IpAddr::from([10, 0, 0, 1]),
        port: 80,
    };
    let found = Request::decode(cmd::DEL_DEST, &header(false), writer.as_bytes());
    assert_eq!(found, Ok(Request::DelDest(key4(), Ok(key))));
    let found = Request::decode(cmd::NEW_DEST, &header(false), writer.as_bytes());
    assert_eq!(
        found,
        Ok(Request::NewDest(key4(), Err(Errno::INVAL))),
        "a new dest needs all of it, but the service is found first"
    );
}

#[test]
fn dumps_are_for_what_can_be_dumped() {
    for command in [cmd::GET_INFO, cmd::GET_CONFIG, cmd::NEW_SERVICE, cmd::FLUSH] {
        let found = Request::decode(command, &header(true), &[]);
        assert_eq!(found, Err(Errno::OPNOTSUPP));
    }
    for command in [cmd::GET_DEST, cmd::GET_DAEMON, cmd::SET_INFO, 0, 18] {
        let found = Request::decode(command, &header(false), &[]);
        assert_eq!(found, Err(Errno::OPNOTSUPP));
    }
}

#[test]
fn names_too_long_or_without_an_end_are_refused() {
    for name in [&b"0123456789abcdef\0"[..], b"wrr"] {
        assert_eq!(nul_string(name, 15), Err(Errno::INVAL));
    }
    assert_eq!(
        nul_string(b"0123456789abcde\0", 15),
        Ok("0123456789abcde".into())
    );
    assert_eq!(nul_string(b"rr\0rest", 15), Ok("rr".into()));
}

#[test]
fn the_older_counters_are_read_where_there_are_no_newer() {
    let mut writer = Writer::new();
    stats(5).encode32(&mut writer);
    assert_eq!(Stats::decode(None, Some(writer.as_bytes())), stats(5));
    assert_eq!(Stats::decode(None, None), Stats::default());
}

#[test]
fn every_truncation_of_every_message_is_survived() {
    for request in requests() {
        let bytes = attrs_of(&request);
        for cut in 0..bytes.len() {
            let _ = Request::decode(request.command(), &header(request.is_dump()), &bytes[..cut]);
        }
    }
    for reply in replies() {
        let mut writer = Writer::new();
        reply.encode(&mut writer);
        let bytes = writer.into_bytes();
        for cut in 0..bytes.len() {
            assert_ne!(
                Reply::decode(reply.command(), &bytes[..cut]),
                Ok(reply.clone())
            );
        }
    }
}

proptest! {
    #[test]
    fn random_attributes_are_survived(
        command in 0u8..20,
        dump in any::<bool>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = Request::decode(command, &header(dump), &bytes);
        let _ = Reply::decode(command, &bytes);
    }

    #[test]
    fn flipped_bytes_are_survived(which in 0usize..20, at in any::<proptest::sample::Index>(), value in any::<u8>()) {
        let request = &requests()[which];
        let mut bytes = attrs_of(request);
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(found) = Request::decode(request.command(), &header(request.is_dump()), &bytes) {
            // What is understood can be said again, and is understood the same. Which error a dest has is not said.
            if matches!(
                found,
                Request::NewDest(_, Err(_)) | Request::SetDest(_, Err(_)) | Request::DelDest(_, Err(_))
            ) {
                return Ok(());
            }
            let again = attrs_of(&found);
            prop_assert_eq!(Request::decode(found.command(), &header(found.is_dump()), &again), Ok(found));
        }
    }
}
