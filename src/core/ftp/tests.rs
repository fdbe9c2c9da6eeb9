//! Conversations through whole workers: one, several, and with the answers that the kernel gave (`tests/scenarios`,
//! `ftp-*.expected` of its oracle).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ripvs_packet::memory::MemFrame;
use ripvs_packet::testing::build::{ethernet, transport_checksum_is_right, Ip};
use ripvs_packet::{parse, tcp};

use crate::delta::Delta;
use crate::spec::{DestSpec, Forward, SchedKind, TunnelCsum, TunnelKind};
use crate::testing::{mac, Rig};
use crate::types::{proto, DestId, ServiceId};
use crate::verdict::Drop;

const WORKERS: [u16; 3] = [1, 3, 7];
const SYN: u8 = tcp::SYN;
const SYN_ACK: u8 = tcp::SYN | tcp::ACK;
const ACK: u8 = tcp::ACK;
const FIN: u8 = tcp::FIN | tcp::ACK;

/// A packet as it is sent or seen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    port: u16,
    from: SocketAddr,
    to: SocketAddr,
    flags: u8,
    seq: u32,
    ack: u32,
    data: String,
}

/// Two ends that talk through a balancer.
struct Talk {
    rig: Rig,
    service: ServiceId,
    dest: DestId,
    client: IpAddr,
    virt: IpAddr,
    server: IpAddr,
}

impl Talk {
    /// A service on port 21 with one server, the helper on its port.
    fn new(workers: u16, v6: bool) -> Talk {
        let addr = |v4: &str, v6_: &str| if v6 { v6_ } else { v4 }.parse().unwrap();
        let mut rig = Rig::new(workers);
        rig.apply(Delta::FtpPorts(Arc::from([21])));
        let virt: IpAddr = addr("192.0.2.100", "2001:db8:2::100");
        let server: IpAddr = addr("10.0.0.11", "2001:db8:10::11");
        let service = rig.service(proto::TCP, &virt.to_string(), 21, SchedKind::Rr);
        let dest = rig.dest(service, &server.to_string(), 21, Forward::Masq);
        Talk {
            rig,
            service,
            dest,
            client: addr("198.18.0.1", "2001:db8:18::1"),
            virt,
            server,
        }
    }

    fn packet(
        &self,
        port: u16,
        from: SocketAddr,
        to: SocketAddr,
        what: (u8, u32, u32, &str),
    ) -> Vec<u8> {
        let (flags, seq, ack, data) = what;
        let ports = (from.port(), to.port());
        let packet = Ip::new(from.ip(), to.ip()).tcp(ports, flags, seq, ack, data.as_bytes());
        ethernet(mac(port), [2, 0, 0, 0, 9, 9], &packet)
    }

    fn read(sent: Vec<(u16, Vec<u8>)>) -> Vec<Seen> {
        let read = |(port, frame): (u16, Vec<u8>)| {
            let kind = u16::from_be_bytes([frame[12], frame[13]]);
            let packet = &frame[14..];
            let info = parse::parse(kind, packet, packet.len()).expect("a right IP header");
            let packet = &packet[..info.total_len as usize];
            assert_eq!(
                transport_checksum_is_right(packet),
                Some(true),
                "{packet:02x?}"
            );
            let l4 = &packet[usize::from(info.l4_offset)..];
            let t = tcp::Tcp::new(l4).unwrap();
            Seen {
                port,
                from: (info.src_ip(), t.src_port()).into(),
                to: (info.dst_ip(), t.dst_port()).into(),
                flags: t.flags(),
                seq: t.seq(),
                ack: t.ack_seq(),
                data: String::from_utf8(l4[t.header_len()..].to_vec()).unwrap(),
            }
        };
        sent.into_iter().map(read).collect()
    }

    /// The client sends to a port of the virtual address: what comes out.
    fn ask_from(&mut self, cport: u16, vport: u16, what: (u8, u32, u32, &str)) -> Vec<Seen> {
        let (from, to) = ((self.client, cport).into(), (self.virt, vport).into());
        let frame = self.packet(0, from, to, what);
        Self::read(self.rig.send(0, &frame))
    }

    /// The client sends on the control connection: sequence number, acknowledgement and text as the server sees them.
    fn ask(&mut self, seq: u32, ack: u32, text: &str) -> (u32, u32, String) {
        let seen = self.ask_from(1000, 21, (ACK | tcp::PSH, seq, ack, text));
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].port, seen[0].to), (1, (self.server, 21).into()));
        (seen[0].seq, seen[0].ack, seen[0].data.clone())
    }

    /// The server sends from one of its ports.
    fn say_from(&mut self, dport: u16, cport: u16, what: (u8, u32, u32, &str)) -> Vec<Seen> {
        let (from, to) = ((self.server, dport).into(), (self.client, cport).into());
        let frame = self.packet(1, from, to, what);
        Self::read(self.rig.send(1, &frame))
    }

    /// The server sends on the control connection: as the client sees it.
    fn say(&mut self, seq: u32, ack: u32, text: &str) -> (u32, u32, String) {
        let seen = self.say_from(21, 1000, (ACK | tcp::PSH, seq, ack, text));
        assert_eq!(seen.len(), 1, "{text}");
        assert_eq!((seen[0].port, seen[0].from), (0, (self.virt, 21).into()));
        (seen[0].seq, seen[0].ack, seen[0].data.clone())
    }

    /// Establishes the control connection: the client's next number is 101, the server's 501.
    fn greet(&mut self) {
        assert_eq!(self.ask_from(1000, 21, (SYN, 100, 0, "")).len(), 1);
        assert_eq!(self.say_from(21, 1000, (SYN_ACK, 500, 101, "")).len(), 1);
        assert_eq!(self.ask_from(1000, 21, (ACK, 101, 501, "")).len(), 1);
    }

    /// Connections as `client port, virtual port, server, state`, in order.
    fn conns(&self) -> Vec<(u16, u16, SocketAddr, &'static str)> {
        let mut conns: Vec<_> = self
            .rig
            .conns()
            .into_iter()
            .map(|conn| (conn.client.1, conn.virt.1, conn.dest.into(), conn.state))
            .collect();
        conns.sort();
        conns
    }

    /// Active and inactive connections of the server, and records that refer to it.
    fn counts(&self) -> (u32, u32, u32) {
        let tally = self.rig.tally(self.dest);
        let loads = self.rig.loads(self.dest);
        assert_eq!(loads, (tally.active, tally.inactive));
        (tally.active, tally.inactive, tally.refs)
    }
}

#[test]
fn passive_mode_goes_through_any_number_of_workers() {
    for workers in WORKERS {
        let mut talk = Talk::new(workers, false);
        talk.greet();
        let server = talk.server;
        assert_eq!(talk.ask(101, 501, "PASV\r\n").2, "PASV\r\n");
        let told = talk.say(
            501,
            107,
            "227 Entering Passive Mode (10,0,0,11,200,10).\r\n",
        );
        let text = "227 Entering Passive Mode (192,0,2,100,200,10).\r\n".to_string();
        assert_eq!(told, (501, 107, text));
        let listens = (0, 51210, (server, 51210).into(), "LISTEN");
        let control = (1000, 21, (server, 21).into(), "ESTABLISHED");
        assert_eq!(talk.conns(), [listens, control]);
        assert_eq!(talk.counts(), (1, 1, 2));
        // 47 bytes were said, 49 heard.
        assert_eq!(talk.ask(107, 550, "").1, 548);
        for _ in 0..2 {
            let seen = talk.ask_from(1001, 51210, (SYN, 9000, 0, ""));
            assert_eq!(seen.len(), 1, "{workers} workers");
            assert_eq!(seen[0].to, (server, 51210).into());
        }
        let data = (1001, 51210, (server, 51210).into(), "SYN_RECV");
        assert_eq!(talk.conns(), [control, data]);
        assert_eq!(talk.counts(), (2, 0, 2));
        let seen = talk.say_from(51210, 1001, (SYN_ACK, 8000, 9001, ""));
        assert_eq!(seen[0].from, (talk.virt, 51210).into());
        talk.ask_from(1001, 51210, (ACK, 9001, 8001, ""));
        // What is said on a data connection is no business of the helper's.
        let text = "227 Entering (10,0,0,11,1,1)\r\n";
        let seen = talk.say_from(51210, 1001, (ACK, 8001, 9001, text));
        assert_eq!((seen[0].seq, seen[0].data.as_str()), (8001, text));
        talk.say_from(51210, 1001, (FIN, 8031, 9001, ""));
        talk.ask_from(1001, 51210, (FIN, 9001, 8032, ""));
        assert_eq!(talk.counts(), (1, 1, 2));
        assert_eq!(talk.say(548, 107, "150 Ok\r\n").0, 550);
        // Not scheduled, so not counted as such.
        assert_eq!(talk.rig.tally(talk.dest).conns, 1);
        talk.rig.wait(130);
        assert_eq!(talk.conns(), [control]);
        assert_eq!(talk.counts(), (1, 0, 1));
        talk.rig.wait(900);
        assert_eq!((talk.conns().len(), talk.counts()), (0, (0, 0, 0)));
    }
}

#[test]
fn active_mode_goes_through_any_number_of_workers() {
    for workers in WORKERS {
        let mut talk = Talk::new(workers, false);
        talk.greet();
        let (server, virt) = (talk.server, talk.virt);
        // Without PORT nothing is translated.
        let seen = talk.say_from(20, 1030, (SYN, 7000, 0, ""));
        assert_eq!(seen[0].from, (server, 20).into());
        let port = "PORT 198,18,0,1,4,1\r\n";
        assert_eq!(talk.ask(101, 501, port), (101, 501, port.to_string()));
        let control = (1000, 21, (server, 21).into(), "ESTABLISHED");
        let listens = (1025, 20, (server, 20).into(), "LISTEN");
        assert_eq!(talk.conns(), [control, listens]);
        let seen = talk.say_from(20, 1025, (SYN, 8000, 0, ""));
        assert_eq!((seen[0].port, seen[0].from), (0, (virt, 20).into()));
        assert_eq!(talk.conns(), [control, listens]);
        let seen = talk.ask_from(1025, 20, (SYN_ACK, 9000, 8001, ""));
        assert_eq!(seen[0].to, (server, 20).into());
        assert_eq!(talk.counts(), (2, 0, 2));
        talk.say_from(20, 1025, (FIN, 8001, 9001, ""));
        talk.ask_from(1025, 20, (FIN, 9001, 8002, ""));
        assert_eq!(talk.counts(), (1, 1, 2));
        // The same port again: that connection is expected anew, not another one.
        talk.ask(122, 501, port);
        assert_eq!(talk.conns(), [control, listens]);
        assert_eq!(talk.counts(), (1, 1, 2));
        // A port of somebody else's.
        talk.ask(143, 501, "port 198,18,0,2,5,1\r\n");
        assert_eq!(talk.counts(), (1, 2, 3));
        talk.rig.wait(1030);
        assert_eq!((talk.conns().len(), talk.counts()), (0, (0, 0, 0)));
    }
}

#[test]
fn the_extended_commands_work_in_both_families() {
    for (workers, v6) in [(1, false), (1, true), (3, false), (3, true)] {
        let mut talk = Talk::new(workers, v6);
        talk.greet();
        let server = talk.server;
        talk.ask(101, 501, "EPSV\r\n");
        let told = talk.say(501, 107, "229 Entering (|||51210|)\r\n");
        assert_eq!(told, (501, 107, "229 Entering (|||51210|)\r\n".to_string()));
        let seen = talk.ask_from(1001, 51210, (SYN, 9000, 0, ""));
        assert_eq!(seen[0].to, (server, 51210).into());
        let (family, other) = if v6 {
            (2, "2001:db8:10::12")
        } else {
            (1, "10.0.0.12")
        };
        talk.ask(107, 527, &format!("EPSV {family}\r\n"));
        // An address other than the server's is followed, and hidden.
        let said = format!("229 (|{family}|{other}|6000|)\r\n");
        assert_eq!(
            talk.say(527, 115, &said),
            (527, 115, "229 (|||6000|)\r\n".to_string())
        );
        let less = 1 + other.len() as u32;
        let next = 527 + said.len() as u32;
        assert_eq!(talk.say(next, 115, "200 x\r\n").0, next - less);
        assert_eq!(talk.ask(115, next - less, "").1, next);
        let seen = talk.ask_from(1002, 6000, (SYN, 9000, 0, ""));
        assert_eq!(seen[0].to, (other.parse::<IpAddr>().unwrap(), 6000).into());
        let client = talk.client;
        talk.ask(
            115,
            next - less,
            &format!("EPRT |{family}|{client}|1025|\r\n"),
        );
        let seen = talk.say_from(20, 1025, (SYN, 8000, 0, ""));
        assert_eq!(seen[0].from, (talk.virt, 20).into());
        assert_eq!(talk.counts(), (3, 1, 4));
        talk.rig.wait(1030);
        assert_eq!((talk.conns().len(), talk.counts()), (0, (0, 0, 0)));
    }
}

#[test]
fn a_control_connection_outlives_its_time_while_it_has_data_connections() {
    for workers in WORKERS {
        let mut talk = Talk::new(workers, false);
        talk.greet();
        talk.rig.apply(Delta::Timeouts {
            tcp: 2,
            tcp_fin: 0,
            udp: 0,
        });
        talk.ask(101, 501, "PASV\r\n");
        talk.say(501, 107, "227 x (10,0,0,11,200,10)\r\n");
        talk.ask(107, 529, "");
        talk.rig.wait(5);
        assert_eq!(talk.conns().len(), 2);
        // Still known, and what was learned of its numbers too.
        assert_eq!(talk.say(527, 107, "150 ok\r\n").0, 529);
        talk.rig.wait(190);
        assert_eq!((talk.conns().len(), talk.counts()), (0, (0, 0, 0)));
    }
}

#[test]
fn a_control_connection_that_has_data_connections_is_begun_anew_beside_the_old_one() {
    for workers in WORKERS {
        let mut talk = Talk::new(workers, false);
        // Scheduled by one of the workers for all.
        let limited = DestSpec {
            addr: "10.0.0.12".parse().unwrap(),
            port: 21,
            forward: Forward::Masq,
            weight: 1,
            upper: 100,
            lower: 0,
            tunnel: TunnelKind::Ipip,
            tunnel_csum: TunnelCsum::None,
        };
        talk.dest = talk.rig.dest_as(talk.service, limited);
        talk.server = "10.0.0.12".parse().unwrap();
        talk.greet();
        talk.ask(101, 501, "PORT 198,18,0,1,4,1\r\n");
        talk.ask_from(1000, 21, (FIN, 122, 501, ""));
        talk.say_from(21, 1000, (FIN, 501, 123, ""));
        for _ in 0..2 {
            let seen = talk.ask_from(1000, 21, (SYN, 100_000, 0, ""));
            assert_eq!(
                seen[0].to,
                "10.0.0.11:21".parse().unwrap(),
                "{workers} workers"
            );
        }
        let states: Vec<_> = talk.conns().iter().map(|conn| conn.3).collect();
        assert_eq!(states, ["SYN_RECV", "TIME_WAIT", "LISTEN"]);
    }
}

#[test]
fn an_answer_that_is_sent_again_is_written_anew_again() {
    for workers in WORKERS {
        let mut talk = Talk::new(workers, false);
        talk.greet();
        talk.ask(101, 501, "PASV\r\n");
        let first = talk.say(501, 107, "227 x (10,0,0,11,200,10)\r\n");
        assert_eq!(talk.say(501, 107, "227 x (10,0,0,11,200,10)\r\n"), first);
        assert_eq!(talk.counts(), (1, 1, 2));
        assert_eq!(talk.say(527, 107, "200 x\r\n").0, 529);
        // One that was not asked for is not.
        let other = "227 x (10,0,0,11,200,11)\r\n";
        assert_eq!(talk.say(534, 107, other), (536, 107, other.to_string()));
    }
}

#[test]
fn a_wrong_checksum_is_dropped_on_control_connections_only() {
    let mut talk = Talk::new(1, false);
    talk.greet();
    let (from, to): (SocketAddr, SocketAddr) = ((talk.client, 1000).into(), (talk.virt, 21).into());
    let mut frame = talk.packet(0, from, to, (ACK, 101, 501, "PASV\r\n"));
    frame[50] ^= 1;
    assert!(talk.rig.send(0, &frame).is_empty());
    assert_eq!(talk.rig.counters().dropped_for(Drop::BadChecksum), 1);
    let (from, to): (SocketAddr, SocketAddr) =
        ((talk.server, 21).into(), (talk.client, 1000).into());
    let mut frame = talk.packet(1, from, to, (ACK, 501, 101, "x"));
    frame[50] ^= 1;
    assert!(talk.rig.send(1, &frame).is_empty());
    talk.ask(101, 501, "PASV\r\n");
    talk.say(501, 107, "227 x (10,0,0,11,200,10)\r\n");
    let (from, to): (SocketAddr, SocketAddr) =
        ((talk.client, 1001).into(), (talk.virt, 51210).into());
    let mut frame = talk.packet(0, from, to, (SYN, 9000, 0, ""));
    frame[50] ^= 1;
    assert_eq!(talk.rig.send(0, &frame).len(), 1);
}

#[test]
fn without_the_helper_or_without_nat_nothing_is_looked_into() {
    for (ports, forward) in [(vec![], Forward::Masq), (vec![21], Forward::Route)] {
        let mut talk = Talk::new(3, false);
        talk.rig.apply(Delta::FtpPorts(ports.into()));
        let service = talk
            .rig
            .service(proto::TCP, "192.0.2.101", 21, SchedKind::Rr);
        talk.rig.dest(service, "10.0.0.12", 21, forward);
        talk.virt = "192.0.2.101".parse().unwrap();
        for (flags, text) in [
            (SYN, ""),
            (ACK, "PORT 198,18,0,1,4,1\r\n"),
            (ACK, "PASV\r\n"),
        ] {
            assert_eq!(talk.ask_from(1000, 21, (flags, 100, 1, text)).len(), 1);
        }
        assert_eq!(talk.conns().len(), 1);
    }
}

#[test]
fn words_in_several_segments_of_a_frame_are_read_and_written() {
    let mut talk = Talk::new(1, false);
    talk.greet();
    let (from, to): (SocketAddr, SocketAddr) = ((talk.client, 1000).into(), (talk.virt, 21).into());
    let frame = talk.packet(0, from, to, (ACK, 101, 501, "NOOP\r\nPASV\r\n"));
    let parts = frame.split_at(frame.len() - 3);
    let mut frame = MemFrame::with_segments(&[parts.0, parts.1], 128);
    frame.limit_first(parts.0.len());
    let seen = Talk::read(talk.rig.send_frame(0, frame));
    assert_eq!(seen[0].data, "NOOP\r\nPASV\r\n");
    let (from, to): (SocketAddr, SocketAddr) =
        ((talk.server, 21).into(), (talk.client, 1000).into());
    let said = "227 x (10,0,0,11,200,10)\r\n200 and more\r\n";
    let frame = talk.packet(1, from, to, (ACK, 501, 113, said));
    let parts = frame.split_at(70);
    let frame = MemFrame::with_segments(&[parts.0, parts.1], 128);
    let seen = Talk::read(talk.rig.send_frame(1, frame));
    assert_eq!(
        seen[0].data,
        "227 x (192,0,2,100,200,10)\r\n200 and more\r\n"
    );
    // No room in front: the packet waits for better times, and is read when it comes again.
    talk.ask(113, 543, "PASV\r\n");
    let said = "227 x (10,0,0,11,200,11)\r\n";
    let frame = talk.packet(1, from, to, (ACK, 541, 119, said));
    let tight = MemFrame::with_segments(&[&frame], 1);
    assert!(talk.rig.send_frame(1, tight).is_empty());
    assert_eq!(talk.rig.counters().dropped_for(Drop::NoHeadroom), 1);
    assert_eq!(talk.say(541, 119, said).2, "227 x (192,0,2,100,200,11)\r\n");
}

#[test]
fn data_connections_count_where_the_service_is_scheduled() {
    for workers in WORKERS {
        let mut talk = Talk::new(workers, false);
        let limited = DestSpec {
            addr: "10.0.0.12".parse().unwrap(),
            port: 21,
            forward: Forward::Masq,
            weight: 1,
            upper: 2,
            lower: 0,
            tunnel: TunnelKind::Ipip,
            tunnel_csum: TunnelCsum::None,
        };
        // The one added last is taken first; with its data connection it is full.
        talk.dest = talk.rig.dest_as(talk.service, limited);
        talk.server = "10.0.0.12".parse().unwrap();
        talk.greet();
        talk.ask(101, 501, "PORT 198,18,0,1,4,1\r\n");
        for port in 2000..2010 {
            let seen = talk.ask_from(port, 21, (SYN, 1, 0, ""));
            assert_eq!(
                seen[0].to,
                "10.0.0.11:21".parse().unwrap(),
                "{workers} workers"
            );
        }
        talk.rig.wait(130);
        // The data connection's time is up, so there is room for one again.
        let all: Vec<_> = (3000..3010)
            .map(|port| talk.ask_from(port, 21, (SYN, 1, 0, ""))[0].to.ip())
            .collect();
        let server = talk.server;
        assert_eq!(
            all.iter().filter(|addr| **addr == server).count(),
            1,
            "{all:?}"
        );
    }
}

#[test]
fn commands_before_and_after_the_connection_is_established_are_not_heeded() {
    let mut talk = Talk::new(1, false);
    talk.greet();
    let unasked = "227 x (10,0,0,11,1,1)\r\n";
    assert_eq!(talk.say(501, 101, unasked).2, unasked);
    talk.ask(101, 524, "PASV\r\n");
    // PORT ends the wait for the answer.
    talk.ask(107, 524, "PORT 198,18,0,1,4,5\r\n");
    assert_eq!(talk.say(524, 128, unasked).2, unasked);
    talk.say_from(21, 1000, (FIN, 547, 128, ""));
    talk.ask(128, 548, "PORT 198,18,0,1,5,1\r\n");
    assert_eq!(talk.conns().len(), 2);
}

#[test]
fn too_many_sessions_are_refused_and_ended_ones_make_room() {
    let mut ftp = super::Ftp::default();
    let id = crate::conn::ConnId;
    for n in 0..super::SESSIONS_MAX as u32 {
        assert_eq!(ftp.ask((false, id(n)), super::Waits::Passive), Ok(()));
    }
    let one_more = (true, id(1));
    assert_eq!(ftp.ask(one_more, super::Waits::Passive), Err(Drop::FtpFull));
    assert_eq!(ftp.ask(one_more, super::Waits::Nothing), Ok(()));
    assert_eq!(ftp.ask((false, id(1)), super::Waits::Extended), Ok(()));
    ftp.forget(false, id(7));
    assert_eq!(ftp.ask(one_more, super::Waits::Passive), Ok(()));
}
