//! Every entry of the state tables against listings made from the kernel's by turning them round (state by state: what moves
//! it where; what is not listed leaves it), and what conversations the kernel was watched in come to.

use super::*;
use crate::conn::{Key, NewConn, Record};
use crate::family::V4;
use crate::spec::Forward;
use crate::types::{DestId, Tick};

/// TCP, without `secure_tcp` and with it.
const USUALLY: &str = "
Input
NONE         SYN: SYN_RECV; FIN RST: CLOSE; ACK: ESTABLISHED
ESTABLISHED  FIN: CLOSE_WAIT; RST: CLOSE
SYN_SENT     SYN: ESTABLISHED; RST: CLOSE
SYN_RECV     FIN: TIME_WAIT; ACK: ESTABLISHED
FIN_WAIT     SYN: SYN_RECV; FIN: TIME_WAIT; RST: CLOSE
TIME_WAIT    SYN: SYN_RECV; RST: CLOSE
CLOSE        SYN: SYN_RECV
CLOSE_WAIT   SYN: SYN_RECV; RST: CLOSE
LAST_ACK     SYN: SYN_RECV; ACK: CLOSE
LISTEN       SYN: SYN_RECV
SYNACK       SYN RST: SYN_RECV; FIN: TIME_WAIT; ACK: ESTABLISHED
Output
NONE         SYN: SYN_SENT; FIN: TIME_WAIT; ACK: ESTABLISHED; RST: CLOSE
ESTABLISHED  FIN: FIN_WAIT; RST: CLOSE
SYN_SENT
SYN_RECV     FIN: TIME_WAIT; ACK: ESTABLISHED; RST: CLOSE
FIN_WAIT     SYN: SYN_SENT; RST: CLOSE
TIME_WAIT    SYN: SYN_SENT
CLOSE        SYN: SYN_SENT
CLOSE_WAIT   SYN: SYN_SENT; FIN: TIME_WAIT; RST: CLOSE
LAST_ACK     SYN: SYN_SENT; RST: CLOSE
LISTEN       ACK: ESTABLISHED; RST: CLOSE
SYNACK       SYN: SYN_RECV; FIN: TIME_WAIT; ACK: ESTABLISHED; RST: CLOSE
InputOnly
NONE         SYN: SYN_RECV; FIN RST: CLOSE; ACK: ESTABLISHED
ESTABLISHED  FIN: FIN_WAIT; RST: CLOSE
SYN_SENT     SYN: ESTABLISHED; RST: CLOSE
SYN_RECV     FIN: TIME_WAIT; ACK: ESTABLISHED
FIN_WAIT     SYN: SYN_RECV; RST: CLOSE
TIME_WAIT    SYN: SYN_RECV; RST: CLOSE
CLOSE        SYN: SYN_RECV
CLOSE_WAIT   SYN: SYN_RECV; RST: CLOSE
LAST_ACK     SYN: SYN_RECV; ACK: CLOSE
LISTEN       SYN: SYN_RECV
SYNACK       SYN: SYN_RECV; FIN: TIME_WAIT; ACK: ESTABLISHED; RST: CLOSE
";

const SECURELY: &str = "
Input
NONE         SYN: SYN_RECV; FIN RST: CLOSE; ACK: ESTABLISHED
ESTABLISHED  FIN: CLOSE_WAIT; RST: CLOSE
SYN_SENT     SYN: ESTABLISHED; RST: CLOSE
SYN_RECV     FIN: TIME_WAIT
FIN_WAIT     SYN: SYN_RECV; FIN: TIME_WAIT; RST: CLOSE
TIME_WAIT    SYN: SYN_RECV; RST: CLOSE
CLOSE        SYN: SYN_RECV
CLOSE_WAIT   SYN: SYN_RECV; RST: CLOSE
LAST_ACK     SYN: SYN_RECV; ACK: CLOSE
LISTEN       SYN: SYN_RECV
SYNACK       RST: CLOSE
Output
NONE         SYN: SYN_SENT; FIN: TIME_WAIT; ACK: ESTABLISHED; RST: CLOSE
ESTABLISHED  FIN: FIN_WAIT; RST: CLOSE
SYN_SENT
SYN_RECV     SYN: SYNACK; FIN: TIME_WAIT; ACK: ESTABLISHED; RST: CLOSE
FIN_WAIT     SYN: SYN_SENT; RST: CLOSE
TIME_WAIT    SYN: SYN_SENT
CLOSE        SYN: SYN_SENT
CLOSE_WAIT   SYN: SYN_SENT; FIN: TIME_WAIT; RST: CLOSE
LAST_ACK     SYN: SYN_SENT; RST: CLOSE
LISTEN       ACK: ESTABLISHED; RST: CLOSE
SYNACK       FIN: TIME_WAIT; ACK: ESTABLISHED; RST: CLOSE
InputOnly
NONE         SYN: SYNACK; FIN RST: CLOSE; ACK: ESTABLISHED
ESTABLISHED  FIN: FIN_WAIT; RST: CLOSE
SYN_SENT     SYN: ESTABLISHED; RST: CLOSE
SYN_RECV     FIN: TIME_WAIT; ACK: ESTABLISHED
FIN_WAIT     SYN: SYNACK; RST: CLOSE
TIME_WAIT    SYN: SYNACK; RST: CLOSE
CLOSE        SYN: SYNACK
CLOSE_WAIT   SYN: SYNACK; RST: CLOSE
LAST_ACK     SYN: SYNACK; ACK: CLOSE
LISTEN       SYN: SYNACK
SYNACK       FIN: TIME_WAIT; ACK: ESTABLISHED; RST: CLOSE
";

/// SCTP.
const LISTING: &str = "
Input
NONE         Data CookieAck: ESTABLISHED; Init: INIT1; InitAck: C-WAIT; CookieEcho: C-REPLIED; Shutdown: S-RECEIVED; ShutdownAck ShutdownComplete Error Abort: CLOSED
INIT1        Init CookieEcho ShutdownAck: INIT; InitAck: C-WAIT; ShutdownComplete Abort: CLOSED
INIT         InitAck: C-WAIT; ShutdownComplete Abort: CLOSED
C-SENT       CookieEcho: C-REPLIED; Abort: CLOSED
C-REPLIED    Abort: CLOSED
C-WAIT       InitAck: COOKIE; Abort: REJECTED
COOKIE       Abort: CLOSED
C-ECHOED     CookieAck: ESTABLISHED; Error Abort: CLOSED
ESTABLISHED  Shutdown: S-RECEIVED; Abort: CLOSED
S-SENT       ShutdownAck Abort: CLOSED
S-RECEIVED   Abort: CLOSED
S-ACK-SENT   ShutdownAck ShutdownComplete Abort: CLOSED
REJECTED     Init: INIT; Abort: CLOSED
CLOSED       Init: INIT
Output
NONE         Data CookieAck: ESTABLISHED; Init: C-WAIT; InitAck: C-SENT; CookieEcho: C-ECHOED; Shutdown: S-SENT; ShutdownAck: S-ACK-SENT; ShutdownComplete Error Abort: CLOSED
INIT1        Init: C-WAIT; InitAck: C-SENT; CookieEcho: C-ECHOED; CookieAck: ESTABLISHED; Shutdown: S-SENT; ShutdownAck: S-ACK-SENT; Error: CLOSED; Abort: REJECTED
INIT         Init: C-WAIT; InitAck: C-SENT; CookieEcho: C-ECHOED; CookieAck: ESTABLISHED; Shutdown: S-SENT; ShutdownAck: S-ACK-SENT; Error Abort: CLOSED
C-SENT       Init: C-WAIT; CookieEcho: C-ECHOED; CookieAck: ESTABLISHED; Shutdown: S-SENT; ShutdownAck: S-ACK-SENT; Error Abort: CLOSED
C-REPLIED    Init: C-WAIT; CookieEcho: C-ECHOED; CookieAck: ESTABLISHED; Shutdown: S-SENT; ShutdownAck: S-ACK-SENT; Error Abort: CLOSED
C-WAIT       CookieEcho: C-ECHOED; CookieAck: ESTABLISHED; Shutdown: S-SENT; Abort: CLOSED
COOKIE       Init: C-WAIT; CookieEcho: C-ECHOED; CookieAck: ESTABLISHED; Shutdown: S-SENT; Abort: CLOSED
C-ECHOED     Init: C-WAIT; CookieAck: ESTABLISHED; Shutdown: S-SENT; Abort: CLOSED
ESTABLISHED  Shutdown: S-SENT; Abort: CLOSED
S-SENT       Init: C-WAIT; ShutdownAck: S-ACK-SENT; Abort: CLOSED
S-RECEIVED   Init: C-WAIT; ShutdownAck: S-ACK-SENT; Abort: CLOSED
S-ACK-SENT   Init: C-WAIT; Abort: CLOSED
REJECTED     Init: C-WAIT; Abort: CLOSED
CLOSED       Init: C-WAIT
InputOnly
NONE         Data CookieEcho CookieAck: ESTABLISHED; Init: INIT1; InitAck: C-ECHOED; Shutdown: S-RECEIVED; ShutdownAck ShutdownComplete Error Abort: CLOSED
INIT1        Init ShutdownAck: INIT; InitAck: C-ECHOED; CookieEcho: ESTABLISHED; ShutdownComplete Abort: CLOSED
INIT         InitAck: C-ECHOED; CookieEcho: ESTABLISHED; ShutdownComplete Abort: CLOSED
C-SENT       Init: INIT; InitAck: C-ECHOED; CookieEcho CookieAck: ESTABLISHED; ShutdownComplete Abort: CLOSED
C-REPLIED    Init: INIT; InitAck: C-ECHOED; CookieEcho CookieAck: ESTABLISHED; ShutdownComplete Abort: CLOSED
C-WAIT       Data CookieEcho: ESTABLISHED; Init: INIT; InitAck: C-ECHOED; Abort: REJECTED
COOKIE       CookieAck: ESTABLISHED; Abort: CLOSED
C-ECHOED     CookieAck: ESTABLISHED; Abort: CLOSED
ESTABLISHED  Shutdown: S-RECEIVED; ShutdownAck Abort: CLOSED
S-SENT       ShutdownAck Abort: CLOSED
S-RECEIVED   ShutdownComplete Abort: CLOSED
S-ACK-SENT   ShutdownAck ShutdownComplete Abort: CLOSED
REJECTED     Init: INIT; Abort: CLOSED
CLOSED       Init: INIT
";

/// A line of a listing: view, state, and the state after each event that moves it.
type Line<'a> = (View, &'a str, Vec<(&'a str, &'a str)>);

fn lines(listing: &str) -> Vec<Line<'_>> {
    let (mut view, mut lines) = (View::Input, Vec::new());
    for line in listing.lines().filter(|line| !line.is_empty()) {
        match line {
            "Input" => view = View::Input,
            "Output" => view = View::Output,
            "InputOnly" => view = View::InputOnly,
            _ => {
                let (state, moves) = line.split_once(' ').unwrap_or((line, ""));
                let moves = moves.split(';').filter_map(|part| part.split_once(": "));
                let moves = moves.flat_map(|(events, to)| {
                    events.split_whitespace().map(move |event| (event, to))
                });
                lines.push((view, state, moves.collect()));
            }
        }
    }
    lines
}

fn check(
    listing: &str,
    states: usize,
    events: &[&str],
    name: fn(u8) -> &'static str,
    next: impl Fn(View, usize, u8) -> u8,
) {
    let lines = lines(listing);
    assert_eq!(lines.len(), 3 * states);
    for (view, state, moves) in lines {
        let number = (0..states as u8).find(|&n| name(n) == state).unwrap();
        for &(event, _) in &moves {
            assert!(events.contains(&event), "{event}");
        }
        for (i, event) in events.iter().enumerate() {
            let to = moves
                .iter()
                .find(|(e, _)| e == event)
                .map_or(state, |(_, to)| to);
            assert_eq!(name(next(view, i, number)), to, "{view:?} {state} {event}");
        }
    }
}

#[test]
fn every_tcp_transition_is_the_kernels() {
    let flags = [tcp::SYN, tcp::FIN, tcp::ACK, tcp::RST];
    for (listing, secure) in [(USUALLY, false), (SECURELY, true)] {
        check(
            listing,
            tcp::STATES,
            &["SYN", "FIN", "ACK", "RST"],
            tcp::name,
            |view, event, state| tcp::next(secure, view, tcp::Event::of_flags(flags[event]), state),
        );
    }
}

const CHUNKS: [(&str, u8); 10] = [
    ("Data", 0),
    ("Init", 1),
    ("InitAck", 2),
    ("CookieEcho", 10),
    ("CookieAck", 11),
    ("Shutdown", 7),
    ("ShutdownAck", 8),
    ("ShutdownComplete", 14),
    ("Error", 9),
    ("Abort", 6),
];

fn chunk(kind: u8) -> Option<sctp::Event> {
    sctp::Event::of_chunks(&[kind, 0, 0, 4])
}

#[test]
fn every_sctp_transition_is_the_kernels() {
    let names = CHUNKS.map(|(name, _)| name);
    check(
        LISTING,
        sctp::STATES,
        &names,
        sctp::name,
        |view, event, state| sctp::next(view, chunk(CHUNKS[event].1).unwrap(), state),
    );
}

#[test]
fn of_several_tcp_flags_the_strongest_counts_and_none_closes() {
    use tcp::{Event, ACK, FIN, RST, SYN};
    assert_eq!(Event::of_flags(RST | SYN | FIN | ACK), Some(Event::Rst));
    assert_eq!(Event::of_flags(SYN | FIN | ACK), Some(Event::Syn));
    assert_eq!(Event::of_flags(FIN | ACK), Some(Event::Fin));
    assert_eq!(Event::of_flags(ACK | 0x08), Some(Event::Ack));
    for flags in [0, 0x08, 0x20, 0xc0] {
        assert_eq!(Event::of_flags(flags), None);
    }
    assert_eq!(
        tcp::next(false, View::Input, None, tcp::ESTABLISHED),
        tcp::CLOSE
    );
}

#[test]
fn sctp_goes_by_the_first_chunk_but_for_an_abort_behind_a_cookie() {
    use sctp::Event;
    let event = |bytes: &[u8]| Event::of_chunks(bytes);
    assert_eq!(event(&[]), None);
    assert_eq!(event(&[1, 0, 0]), None, "no whole chunk header");
    assert_eq!(event(&[10, 0, 0, 4, 0, 0, 0, 4]), Some(Event::CookieEcho));
    assert_eq!(event(&[10, 0, 0, 4, 6, 0, 0, 4]), Some(Event::Abort));
    assert_eq!(event(&[11, 0, 0, 4, 6, 0, 0, 4]), Some(Event::Abort));
    assert_eq!(
        event(&[10, 0, 0, 5, 9, 0, 0, 0, 6, 0, 0, 4]),
        Some(Event::Abort),
        "lengths are rounded up to four"
    );
    assert_eq!(
        event(&[10, 0, 0, 3, 6, 0, 0, 4]),
        Some(Event::CookieEcho),
        "too short to be a chunk"
    );
    assert_eq!(
        event(&[10, 0, 0xff, 0xff, 6, 0, 0, 4]),
        Some(Event::CookieEcho),
        "longer than the packet"
    );
    assert_eq!(
        event(&[10, 0, 0, 4, 6, 0]),
        Some(Event::CookieEcho),
        "half a header"
    );
    assert_eq!(event(&[0, 0, 0, 4, 6, 0, 0, 4]), Some(Event::Data));
    for other in [3, 4, 5, 12, 13, 15, 64, 130, 255] {
        assert_eq!(event(&[other, 0, 0, 4]), Some(Event::Data), "{other}");
    }
    assert!(
        sctp::is_abort(&[6, 0, 0, 4])
            && !sctp::is_abort(&[6, 0, 0])
            && !sctp::is_abort(&[10, 0, 0, 4, 6, 0, 0, 4])
    );
}

fn record(protocol: u8, forward: Forward) -> Record<V4> {
    let key = Key {
        proto: protocol,
        caddr: [198, 18, 0, 1],
        cport: 1000,
        vaddr: [192, 0, 2, 100],
        vport: 80,
    };
    let new = NewConn {
        dest: Some(DestId(1)),
        ..NewConn::new(key, [10, 0, 0, 11], 80, Flags::of_forward(forward))
    };
    let mut table =
        crate::conn::ConnTable::new(1, Tick(0), ripvs_arch::FlowHash::new([0, 0])).unwrap();
    let id = table.insert(Tick(0), &new).unwrap();
    table[id]
}

/// Plays packets, each with the state, the seconds left and the active connections that are to follow.
fn play(record: &mut Record<V4>, secure: bool, packets: &[(Direction, Signal, &str, u32, i32)]) {
    let mut active = 0;
    for (n, &(direction, signal, state, seconds, count)) in packets.iter().enumerate() {
        let step = step(record, direction, signal, &Timeouts::default(), secure);
        active += step.active;
        assert_eq!(
            name(record.proto(), record.flags(), record.state),
            state,
            "packet {n}"
        );
        assert_eq!(
            (record.timeout / Tick::HZ, active),
            (seconds, count),
            "packet {n}"
        );
        assert_eq!(record.has(Flags::INACTIVE), active == 0);
        assert_eq!(
            step.assure,
            state == "ESTABLISHED" && (n == 0 || packets[n - 1].2 != state),
            "packet {n}"
        );
    }
}

const IN: Direction = Direction::Input;
const OUT: Direction = Direction::Output;
const SYN: Signal = Signal::Tcp(tcp::SYN);
const SYN_ACK: Signal = Signal::Tcp(tcp::SYN | tcp::ACK);
const ACK: Signal = Signal::Tcp(tcp::ACK);
const FIN: Signal = Signal::Tcp(tcp::FIN | tcp::ACK);
const RST: Signal = Signal::Tcp(tcp::RST);

#[test]
fn tcp_under_nat_goes_as_the_kernel_shows() {
    play(
        &mut record(proto::TCP, Forward::Masq),
        false,
        &[
            (IN, SYN, "SYN_RECV", 60, 1),
            (IN, RST, "SYN_RECV", 60, 1),
            (OUT, SYN_ACK, "SYN_RECV", 60, 1),
            (IN, ACK, "ESTABLISHED", 900, 1),
            (OUT, ACK, "ESTABLISHED", 900, 1),
            (IN, FIN, "CLOSE_WAIT", 60, 0),
            (OUT, FIN, "TIME_WAIT", 120, 0),
            (IN, ACK, "TIME_WAIT", 120, 0),
        ],
    );
    play(
        &mut record(proto::TCP, Forward::Masq),
        false,
        &[
            (IN, SYN, "SYN_RECV", 60, 1),
            (OUT, RST, "CLOSE", 10, 0),
            (IN, SYN, "SYN_RECV", 60, 1),
        ],
    );
}

#[test]
fn tcp_under_direct_routing_is_judged_by_the_client_alone_until_the_server_shows() {
    let mut conn = record(proto::TCP, Forward::Route);
    play(
        &mut conn,
        false,
        &[
            (IN, SYN, "SYN_RECV", 60, 1),
            (IN, ACK, "ESTABLISHED", 900, 1),
            (IN, FIN, "FIN_WAIT", 120, 0),
        ],
    );
    assert!(conn.has(Flags::NO_OUTPUT));
    assert!(is_new_conn_expected(&conn, 2) && !is_new_conn_expected(&conn, 1));
    step(&mut conn, OUT, ACK, &Timeouts::default(), false);
    assert!(!conn.has(Flags::NO_OUTPUT));
    assert!(!is_new_conn_expected(&conn, 2));
    step(&mut conn, IN, FIN, &Timeouts::default(), false);
    assert_eq!(conn.state, tcp::TIME_WAIT, "from here on as if under NAT");
}

#[test]
fn secure_tcp_believes_the_server_only() {
    play(
        &mut record(proto::TCP, Forward::Masq),
        true,
        &[
            (IN, SYN, "SYN_RECV", 60, 1),
            (OUT, SYN_ACK, "SYNACK", 120, 1),
            (IN, ACK, "SYNACK", 120, 1),
            (IN, FIN, "SYNACK", 120, 1),
            (OUT, FIN, "TIME_WAIT", 120, 0),
        ],
    );
}

#[test]
fn sctp_under_nat_and_direct_routing_goes_as_the_kernel_shows() {
    let signal = |kind| Signal::Sctp(chunk(kind));
    play(
        &mut record(proto::SCTP, Forward::Masq),
        false,
        &[
            (IN, signal(1), "INIT1", 4, 0),
            (OUT, signal(2), "C-SENT", 61, 0),
            (IN, signal(10), "C-REPLIED", 61, 0),
            (OUT, signal(11), "ESTABLISHED", 900, 1),
            (IN, signal(0), "ESTABLISHED", 900, 1),
            (IN, signal(7), "S-RECEIVED", 61, 0),
            (OUT, signal(8), "S-ACK-SENT", 61, 0),
            (IN, signal(14), "CLOSED", 61, 0),
        ],
    );
    play(
        &mut record(proto::SCTP, Forward::Route),
        false,
        &[
            (IN, signal(1), "INIT1", 4, 0),
            (IN, signal(10), "ESTABLISHED", 900, 1),
            (IN, signal(3), "ESTABLISHED", 900, 1),
            (IN, signal(7), "S-RECEIVED", 61, 0),
            (IN, signal(14), "CLOSED", 61, 0),
        ],
    );
}

#[test]
fn udp_is_always_inactive_and_its_servers_answer_assures_the_template() {
    let mut conn = record(proto::UDP, Forward::Masq);
    let timeouts = Timeouts::default();
    assert_eq!(
        step(&mut conn, IN, Signal::Udp, &timeouts, false),
        Step {
            active: 0,
            assure: false
        }
    );
    assert_eq!(
        step(&mut conn, OUT, Signal::Udp, &timeouts, false),
        Step {
            active: 0,
            assure: true
        }
    );
    assert_eq!((conn.state, conn.timeout), (udp::NORMAL, 300 * Tick::HZ));
    assert!(conn.has(Flags::INACTIVE));
    conn.timeout = 5;
    assert_eq!(
        step(&mut conn, IN, Signal::Other, &timeouts, false),
        Step::default()
    );
    assert_eq!(
        conn.timeout, 5,
        "ESP on a UDP connection leaves its timeout as it is"
    );
}

#[test]
fn a_connection_without_a_dest_is_counted_nowhere() {
    let mut conn = record(proto::TCP, Forward::Bypass);
    conn.set_dest(None);
    for signal in [SYN, ACK, RST] {
        assert_eq!(
            step(&mut conn, IN, signal, &Timeouts::default(), false).active,
            0
        );
        assert!(conn.has(Flags::INACTIVE));
    }
}

#[test]
fn new_connections_are_told_by_packet_and_state() {
    assert!(
        is_new_conn(SYN) && is_new_conn(SYN_ACK) && is_new_conn(Signal::Tcp(tcp::SYN | tcp::RST))
    );
    assert!(!is_new_conn(ACK) && !is_new_conn(Signal::Udp) && !is_new_conn(Signal::Other));
    assert!(is_new_conn(Signal::Sctp(chunk(1))) && !is_new_conn(Signal::Sctp(chunk(10))));
    let mut conn = record(proto::TCP, Forward::Masq);
    for state in 0..tcp::STATES as u8 {
        conn.state = state;
        assert_eq!(
            is_new_conn_expected(&conn, 3),
            matches!(tcp::name(state), "TIME_WAIT" | "CLOSE")
        );
    }
    let mut conn = record(proto::SCTP, Forward::Route);
    for state in 0..sctp::STATES as u8 {
        conn.state = state;
        assert_eq!(
            is_new_conn_expected(&conn, 1),
            sctp::name(state) == "CLOSED"
        );
    }
    assert!(!is_new_conn_expected(&record(proto::UDP, Forward::Masq), 3));
}

#[test]
fn set_changes_three_timeouts_and_0_none() {
    let mut timeouts = Timeouts::default();
    assert_eq!(timeouts.get(), (900, 120, 300));
    timeouts.set(4, 0, 2);
    assert_eq!(timeouts.get(), (4, 120, 2));
    timeouts.set(0, 5, 0);
    assert_eq!(timeouts.get(), (4, 5, 2));
    assert_eq!(timeouts.timeout(proto::TCP, tcp::FIN_WAIT), 500);
    assert_eq!(timeouts.timeout(proto::TCP, tcp::SYN_RECV), 6000);
    timeouts.set(u32::MAX, 0, 0);
    let longest = timeouts.timeout(proto::TCP, tcp::ESTABLISHED);
    assert_eq!(
        longest,
        crate::conn::LONGEST,
        "as long as can be, not wrapped"
    );
}

#[test]
fn timeouts_and_activity_of_all_states_are_the_kernels() {
    let timeouts = Timeouts::default();
    let tcp = [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120];
    let sctp = [2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61];
    for (state, seconds) in (0..).zip(tcp) {
        assert_eq!(
            timeouts.timeout(proto::TCP, state),
            seconds * Tick::HZ,
            "{}",
            tcp::name(state)
        );
    }
    for (state, seconds) in (0..).zip(sctp) {
        assert_eq!(
            timeouts.timeout(proto::SCTP, state),
            seconds * Tick::HZ,
            "{}",
            sctp::name(state)
        );
        assert_eq!(is_active(proto::SCTP, state), state == 8);
    }
    let active = ["SYN_SENT", "SYN_RECV", "ESTABLISHED", "SYNACK"];
    for state in 0..=255 {
        assert_eq!(
            is_active(proto::TCP, state),
            active.contains(&tcp::name(state))
        );
    }
    assert_eq!(timeouts.timeout(proto::UDP, 0), 300 * Tick::HZ);
    assert_eq!(timeouts.timeout(proto::ESP, 0), 3 * Tick::HZ);
    assert_eq!(timeouts.timeout(proto::TCP, 200), 3 * Tick::HZ);
}

#[test]
fn names_are_those_of_listings() {
    let template = Flags::TEMPLATE;
    assert_eq!(name(proto::TCP, template, 0), "NONE");
    assert_eq!(name(proto::TCP, template, template::ASSURED), "ASSURED");
    assert_eq!(name(0, template, 0), "NONE");
    assert_eq!(name(proto::UDP, Flags::NONE, 0), "UDP");
    assert_eq!(name(proto::TCP, Flags::NONE, 11), "ERR!");
    assert_eq!(name(proto::SCTP, Flags::NONE, 14), "ERR!");
}
