//! The control thread over a real socket, with workers that apply and answer but have no packets: what clients get, and
//! that none of them can harm another.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::fd::OwnedFd;
use std::os::unix::thread::JoinHandleExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::sys::pthread::pthread_kill;
use nix::sys::signal::SigSet;
use ripvs_api::ipvs::{self, ServiceConfig, ServiceKey};
use ripvs_api::ripvs::{self, ConnsFrom};
use ripvs_api::{nl, Client as ApiClient, ClientError, Errno, Reply, Request};
use ripvs_core::delta::{ConnEntry, Query};

use super::fleet::{Mailbox, Order};
use super::master::Exactness;
use super::*;

/// Connections that each worker pretends to have.
const CONNS: u64 = 1000;

/// Answers as a worker would.
fn answer(query: Query) -> Answer {
    let Query::Conns { cursor, max, .. } = query else {
        return Answer::Neighbours(Vec::new());
    };
    let end = (cursor + max as u64).min(CONNS);
    let entry = |n: u64| ConnEntry {
        flags: 0x1c3,
        proto: 6,
        client: ("198.18.0.1".parse().unwrap(), n as u16),
        virt: ("192.0.2.100".parse().unwrap(), 80),
        dest: ("10.0.0.11".parse().unwrap(), 80),
        state: "ESTABLISHED",
        expires: 100,
        pe: None,
    };
    Answer::Conns {
        entries: (cursor..end).map(entry).collect(),
        next: (end < CONNS).then_some(end),
    }
}

fn pretend(mailbox: Arc<Mailbox>) {
    while !mailbox.stopped() {
        match mailbox.order() {
            Some(Order::Apply(batch, steps)) => mailbox.applied(batch, steps),
            Some(Order::Ask(ticket, query)) => mailbox.answer(ticket, answer(query)),
            None => {
                mailbox.set_asleep(true);
                if !mailbox.has_order() && !mailbox.stopped() {
                    let mut fds = [PollFd::new(mailbox.wake().as_fd(), PollFlags::POLLIN)];
                    let _ = poll(&mut fds, PollTimeout::NONE);
                }
                mailbox.set_asleep(false);
            }
        }
    }
}

/// A control thread without devices.
fn over(fleet: Fleet) -> Control {
    let workers = fleet.len();
    Control::new(Parts {
        fleet,
        boards: Boards::new(workers, 0),
        master: Master::new(workers, Exactness::default(), 12),
        network: Network::default(),
        settings: Settings::default(),
        conn_limit: 5,
        cores: vec![None; workers],
        port_count: 0,
        dpdk: None,
        clock: Clock::default(),
        started: Instant::now(),
    })
}

/// A daemon without DPDK.
struct Daemon {
    dir: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    fn start(workers: usize) -> Daemon {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("ripvs-control-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        Daemon { dir, thread: None }.run(workers)
    }

    /// Begins over the directory as it is.
    fn run(mut self, workers: usize) -> Daemon {
        let dir = self.dir.clone();
        let (ready, began) = mpsc::channel();
        self.thread = Some(std::thread::spawn(move || {
            let mut set = SigSet::empty();
            set.add(Signal::SIGTERM);
            set.thread_block().unwrap();
            let signals =
                SignalFd::with_flags(&set, nix::sys::signalfd::SfdFlags::SFD_NONBLOCK).unwrap();
            let socket = ControlSocket::open(&dir.join("sock"), 0o600, None).unwrap();
            let fleet = Fleet::new(workers).unwrap();
            let pretenders: Vec<_> = (0..workers)
                .map(|worker| fleet.mailbox(worker).clone())
                .map(|mailbox| std::thread::spawn(move || pretend(mailbox)))
                .collect();
            let mut control = over(fleet);
            control.open_journal(&dir.join("state")).unwrap();
            control.settle_start().unwrap();
            ready.send(()).unwrap();
            control.serve(&socket, &signals).unwrap();
            control.finish();
            for pretender in pretenders {
                pretender.join().unwrap();
            }
        }));
        began.recv().unwrap();
        self
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    fn client(&self) -> ApiClient {
        ApiClient::connect(&self.socket()).unwrap()
    }

    fn raw(&self) -> OwnedFd {
        ripvs_api::socket::connect(&self.socket()).unwrap()
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            pthread_kill(thread.as_pthread_t(), Signal::SIGTERM).unwrap();
            thread.join().unwrap();
        }
    }

    fn again(mut self) -> Daemon {
        self.end();
        let next = Daemon {
            dir: self.dir.clone(),
            thread: None,
        };
        // The directory is the next one's now.
        self.dir = Path::new("/nonexistent").to_path_buf();
        next.run(1)
    }
}

impl std::ops::Drop for Daemon {
    fn drop(&mut self) {
        self.end();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn key(port: u16) -> ServiceKey {
    ServiceKey::Addr {
        protocol: 6,
        addr: "192.0.2.100".parse().unwrap(),
        port,
    }
}

fn new_service(port: u16) -> ipvs::Request {
    let config = ServiceConfig {
        sched: "rr".into(),
        pe: None,
        flags: 0,
        mask: u32::MAX,
        timeout: 0,
        netmask: u32::MAX,
    };
    ipvs::Request::NewService(key(port), config)
}

fn encoded(request: impl Into<Request>) -> Vec<u8> {
    let mut bytes = nl::Writer::new();
    request.into().encode(1, &mut bytes);
    bytes.into_bytes()
}

fn services(client: &mut ApiClient) -> usize {
    client.call(ipvs::Request::DumpServices).unwrap().len()
}

fn errno(result: Result<Vec<Reply>, ClientError>) -> Option<Errno> {
    match result {
        Err(ClientError::Refused(refusal)) => Some(refusal.errno),
        Err(other) => panic!("{other}"),
        Ok(_) => None,
    }
}

#[test]
fn a_change_is_seen_by_who_asks_after_it() {
    let daemon = Daemon::start(3);
    let mut client = daemon.client();
    assert_eq!(errno(client.call(new_service(80))), None);
    assert_eq!(errno(client.call(new_service(80))), Some(Errno::EXIST));
    assert_eq!(services(&mut client), 1);
    assert_eq!(services(&mut daemon.client()), 1);
    assert_eq!(
        errno(client.call(ipvs::Request::DelService(key(81)))),
        Some(Errno::SRCH)
    );
    let info = client.call(ipvs::Request::GetInfo).unwrap();
    let expected = ipvs::Info {
        version: 0x010201,
        conn_tab_size: 4096,
    };
    assert_eq!(info, [ipvs::Reply::Info(expected).into()]);
}

#[test]
fn many_requests_in_one_datagram_are_answered_in_order() {
    let daemon = Daemon::start(2);
    let fd = daemon.raw();
    let mut datagram = nl::Writer::new();
    for port in [1, 2, 2, 3] {
        Request::from(new_service(port)).encode(u32::from(port), &mut datagram);
    }
    Request::from(ipvs::Request::DumpServices).encode(9, &mut datagram);
    ripvs_api::socket::send(&fd, datagram.as_bytes()).unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; MAX_DATAGRAM];
    while seen.last().is_none_or(|(_, kind)| *kind != nl::kind::DONE) {
        let ripvs_api::socket::Received::Datagram(length) =
            ripvs_api::socket::receive(&fd, &mut buffer).unwrap()
        else {
            panic!("closed");
        };
        for message in nl::messages(&buffer[..length]) {
            seen.push((message.header.seq, message.header.kind));
        }
    }
    let order: Vec<u32> = seen.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(order, [1, 2, 2, 3, 9, 9, 9, 9]);
}

#[test]
fn twenty_thousand_services_are_added_and_listed_page_by_page() {
    let daemon = Daemon::start(1);
    let mut client = daemon.client();
    let requests: Vec<Request> = (1..=20_000).map(|port| new_service(port).into()).collect();
    for chunk in requests.chunks(500) {
        for result in client.call_all(chunk).unwrap() {
            result.unwrap();
        }
    }
    assert_eq!(services(&mut client), 20_000);
}

#[test]
fn connections_of_all_workers_come_a_page_at_a_time() {
    let daemon = Daemon::start(3);
    let mut client = daemon.client();
    let (mut cursor, mut count, mut pages) = (0, 0, 0);
    loop {
        let replies = client
            .call(ripvs::Request::Conns(ConnsFrom { cursor, limit: 300 }))
            .unwrap();
        pages += 1;
        count += replies.len() - 1;
        let Some(Reply::Ripvs(ripvs::Reply::ConnsEnd(end))) = replies.last() else {
            panic!()
        };
        match end.next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    assert_eq!(count, 3 * CONNS as usize);
    assert!((10..=12).contains(&pages), "{pages}");
}

#[test]
fn a_listing_that_can_go_on_is_not_slept_over() {
    let mut control = over(Fleet::new(1).unwrap());
    control.next_slow = control.now + SLOW_LOOK;
    let (fd, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut clients = [Client::new(fd.into(), control.now)];
    let mut sleeps = |control: &Control, stream| {
        clients[0].stream = Some((nl::Header::default(), stream));
        control.patience(&clients) != PollTimeout::ZERO
    };
    // All that was made for the client is sent, and it is ready for more.
    assert!(!sleeps(&control, Stream::Services(128)));
    assert!(!sleeps(&control, Stream::Dests(key(80), 128)));
    assert!(sleeps(&control, Stream::Neighbours(7)), "not answered yet");
    control.answers.insert(7, answer(Query::Neighbours));
    assert!(!sleeps(&control, Stream::Neighbours(7)));
}

#[test]
fn settings_have_the_kernel_s_names_and_bounds() {
    let daemon = Daemon::start(1);
    let mut client = daemon.client();
    let mut set = |name: &str, value: &str| {
        let sysctl = ripvs::Sysctl {
            name: name.into(),
            value: value.into(),
        };
        errno(client.call(ripvs::Request::SetSysctl(sysctl)))
    };
    assert_eq!(set("net.ipv4.vs.sloppy_tcp", "1"), None);
    assert_eq!(set("net.ipv4.vs.conntrack", "1"), None);
    assert_eq!(set("net.ipv4.vs.nosuch", "1"), Some(Errno::NOENT));
    assert_eq!(set("net.ipv4.vs.drop_entry", "4"), Some(Errno::INVAL));
    assert_eq!(set("net.ipv4.vs.sloppy_tcp", "x"), Some(Errno::INVAL));
    let name = ripvs::SysctlName {
        name: "sloppy_tcp".into(),
    };
    let shown = client.call(ripvs::Request::GetSysctl(name)).unwrap();
    assert!(matches!(&shown[..], [Reply::Ripvs(ripvs::Reply::Sysctl(s))] if s.value == "1"));
    let timeouts = |tcp| ipvs::Timeouts {
        tcp: Some(tcp),
        ..ipvs::Timeouts::default()
    };
    assert_eq!(
        errno(client.call(ipvs::Request::SetConfig(timeouts(u32::MAX)))),
        Some(Errno::INVAL)
    );
    assert_eq!(
        errno(client.call(ipvs::Request::SetConfig(timeouts(77)))),
        None
    );
    let config = client.call(ipvs::Request::GetConfig).unwrap();
    let expected = ipvs::Timeouts {
        tcp: Some(77),
        tcp_fin: Some(120),
        udp: Some(300),
    };
    assert_eq!(config, [ipvs::Reply::Config(expected).into()]);
}

#[test]
fn garbage_of_every_kind_harms_nobody() {
    let daemon = Daemon::start(1);
    let mut other = daemon.client();
    other.call(new_service(80)).unwrap();
    // Each request cut at every length, and with each byte changed.
    let samples = [
        encoded(new_service(81)),
        encoded(ipvs::Request::DumpDests(Some(key(80)))),
        encoded(ripvs::Request::Conns(ConnsFrom {
            cursor: 3,
            limit: 1,
        })),
    ];
    for sample in &samples {
        let fd = daemon.raw();
        for length in 1..sample.len() {
            ripvs_api::socket::send(&fd, &sample[..length]).unwrap();
        }
        drop(fd);
        let fd = daemon.raw();
        for at in 0..sample.len() {
            let mut changed = sample.clone();
            changed[at] ^= 0xff;
            ripvs_api::socket::send(&fd, &changed).unwrap();
        }
    }
    // Noise (xorshift, so that every run has the same).
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let fd = daemon.raw();
    for round in 0..2000usize {
        let noise: Vec<u8> = (0..1 + round % 300)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        ripvs_api::socket::send(&fd, &noise).unwrap();
    }
    drop(fd);
    assert!(services(&mut other) >= 1);
}

#[test]
fn a_message_that_is_too_long_costs_its_sender_the_connection_alone() {
    let daemon = Daemon::start(1);
    let mut other = daemon.client();
    let fd = daemon.raw();
    ripvs_api::socket::send(&fd, &vec![0; MAX_DATAGRAM + 1]).unwrap();
    let received = ripvs_api::socket::receive(&fd, &mut [0; 16]).unwrap();
    assert_eq!(received, ripvs_api::socket::Received::Closed);
    assert_eq!(services(&mut other), 0);
}

#[test]
fn a_client_that_asks_and_never_reads_gets_no_more_and_others_are_served() {
    let daemon = Daemon::start(1);
    let mut other = daemon.client();
    for port in 1..=500 {
        other.call(new_service(port)).unwrap();
    }
    let fd = daemon.raw();
    ripvs_api::socket::set_timeout(&fd, Duration::from_millis(200)).unwrap();
    let dump = encoded(ipvs::Request::DumpServices);
    // At some point the daemon takes no more of it.
    let taken = (0..100_000)
        .take_while(|_| ripvs_api::socket::send(&fd, &dump).is_ok())
        .count();
    assert!(taken < 100_000);
    assert_eq!(services(&mut other), 500);
}

#[test]
fn clients_that_leave_in_the_middle_harm_nobody() {
    let daemon = Daemon::start(2);
    let mut other = daemon.client();
    for port in 1..=200 {
        other.call(new_service(port)).unwrap();
    }
    for _ in 0..50 {
        let fd = daemon.raw();
        for request in [
            encoded(ipvs::Request::DumpServices),
            encoded(ripvs::Request::Conns(ConnsFrom {
                cursor: 0,
                limit: 4000,
            })),
            encoded(ripvs::Request::Neighs),
            encoded(ipvs::Request::DelService(key(9999))),
        ] {
            ripvs_api::socket::send(&fd, &request).unwrap();
        }
    }
    assert_eq!(services(&mut other), 200);
}

#[test]
fn what_was_answered_is_there_after_a_restart() {
    let daemon = Daemon::start(1);
    let mut client = daemon.client();
    client.call(new_service(80)).unwrap();
    client.call(new_service(81)).unwrap();
    client.call(ipvs::Request::DelService(key(80))).unwrap();
    let sysctl = ripvs::Sysctl {
        name: "net.ipv4.vs.sloppy_tcp".into(),
        value: "1".into(),
    };
    client
        .call(ripvs::Request::SetSysctl(sysctl.clone()))
        .unwrap();
    let timeouts = ipvs::Timeouts {
        tcp: Some(1),
        tcp_fin: Some(2),
        udp: Some(3),
    };
    client.call(ipvs::Request::SetConfig(timeouts)).unwrap();
    let addr = ripvs::Addr {
        addr: "192.0.2.7/32".parse().unwrap(),
        dev: "lo".into(),
    };
    client.call(ripvs::Request::AddAddr(addr.clone())).unwrap();
    // Twice: once out of the journal, once out of the snapshot that was made of it.
    let daemon = daemon.again().again();
    let mut client = daemon.client();
    assert_eq!(services(&mut client), 1);
    assert_eq!(errno(client.call(new_service(81))), Some(Errno::EXIST));
    let name = ripvs::SysctlName {
        name: sysctl.name.clone(),
    };
    let shown = client.call(ripvs::Request::GetSysctl(name)).unwrap();
    assert_eq!(shown, [ripvs::Reply::Sysctl(sysctl).into()]);
    let config = client.call(ipvs::Request::GetConfig).unwrap();
    assert_eq!(config, [ipvs::Reply::Config(timeouts).into()]);
    let addrs = client.call(ripvs::Request::Addrs).unwrap();
    assert!(addrs.contains(&ripvs::Reply::Addr(addr).into()));
}

#[test]
fn a_clock_that_goes_by_itself_is_not_moved() {
    let daemon = Daemon::start(1);
    let advance = ripvs::Request::Advance(ripvs::Advance { by_ms: 1 });
    assert_eq!(errno(daemon.client().call(advance)), Some(Errno::OPNOTSUPP));
}

/// Some thousand changes, of which every seventh is refused: more than fit one datagram or one round.
fn many(count: u16) -> Vec<Request> {
    (1..=count)
        .map(|n| match n % 7 {
            3 => new_service(n - 1).into(),
            5 => ipvs::Request::DelService(key(n - 3)).into(),
            _ => new_service(n).into(),
        })
        .collect()
}

/// All services, as clients see them.
fn shown(client: &mut ApiClient) -> Vec<Reply> {
    let mut all = client.call(ipvs::Request::DumpServices).unwrap();
    all.sort_by_key(|reply| match reply {
        Reply::Ipvs(ipvs::Reply::Service(service)) => match service.key {
            ServiceKey::Addr { port, .. } => port,
            ServiceKey::Mark { .. } => 0,
        },
        _ => 0,
    });
    all
}

#[test]
fn refusals_among_thousands_of_changes_under_way_are_told_of_the_right_ones() {
    let daemon = Daemon::start(2);
    let mut client = daemon.client();
    let requests = many(20_000);
    let results = client.call_all(&requests).unwrap();
    assert_eq!(results.len(), requests.len());
    for (n, result) in (1..).zip(&results) {
        match (n % 7, result) {
            (3, Err(refusal)) => assert_eq!(refusal.errno, Errno::EXIST, "{n}"),
            (3, Ok(())) | (_, Err(_)) => panic!("{n}: {result:?}"),
            _ => {}
        }
    }
    let before = shown(&mut client);
    assert_eq!(before.len(), 20_000 - 3 * (20_000 / 7));
    drop(client);
    // And the journal makes the same again.
    let daemon = daemon.again();
    assert_eq!(shown(&mut daemon.client()), before);
}

#[test]
fn a_client_that_closes_halfway_leaves_the_beginning_of_what_it_sent() {
    let daemon = Daemon::start(1);
    let fd = daemon.raw();
    let mut sent = 0;
    for _ in 0..40 {
        let mut datagram = nl::Writer::new();
        for _ in 0..100 {
            sent += 1;
            Request::from(new_service(sent)).encode(u32::from(sent), &mut datagram);
        }
        ripvs_api::socket::send(&fd, datagram.as_bytes()).unwrap();
    }
    drop(fd);
    let mut client = daemon.client();
    assert_eq!(errno(client.call(new_service(50_000))), None);
    let ports: Vec<u16> = shown(&mut client)
        .iter()
        .map(|reply| match reply {
            Reply::Ipvs(ipvs::Reply::Service(ipvs::Service {
                key: ServiceKey::Addr { port, .. },
                ..
            })) => *port,
            other => panic!("{other:?}"),
        })
        .collect();
    let (last, first) = ports.split_last().unwrap();
    assert_eq!(*last, 50_000);
    assert!(first.iter().copied().eq(1..=first.len() as u16), "a gap");
}
