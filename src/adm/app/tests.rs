//! Whole runs of the program against a server of its own: what is recorded of ipvsadm, and the rest of it.

use super::*;
use crate::names::tests::Fixed;
use crate::{dispatch, status_of};
use ripvs_api::ipvs::number::{flag, forward, sync_state};
use ripvs_api::ipvs::{Af, DestConfig, DestKey, ServiceConfig, Stats, SyncDaemon};

#[path = "fake.rs"]
pub mod fake;

use fake::{Fake, Tables};

/// What a run left.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub status: u8,
    pub out: String,
    pub err: String,
}

/// Runs a command line, whose first word is the program's name.
pub fn run(fake: &Fake, line: &[&str], stdin: &str) -> Outcome {
    let names = Fixed::default();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut app = App {
        program: line[0].to_owned(),
        names: &names,
        stdin: &mut stdin.as_bytes(),
        stdout: &mut out,
        stderr: &mut err,
        socket: Some(fake.path.clone()),
        client: None,
    };
    let args: Vec<String> = line[1..].iter().map(|word| (*word).to_owned()).collect();
    let status = status_of(&mut app, &args);
    Outcome {
        status,
        out: String::from_utf8(out).unwrap(),
        err: String::from_utf8(err).unwrap(),
    }
}

/// Runs a command line of plain words.
pub fn plain(fake: &Fake, line: &str) -> Outcome {
    run(fake, &line.split(' ').collect::<Vec<_>>(), "")
}

/// The words of a recorded command line, where single quotes hold blanks together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_with(String::new);
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_with(String::new).push(c),
        }
    }
    words.extend(word);
    words
}

/// A recorded step.
#[derive(Default)]
struct Step {
    line: String,
    stdin: String,
    status: u8,
    out: String,
    err: String,
}

/// Replays a recording and compares all of it.
fn replay(recording: &str) {
    let mut steps: Vec<Option<Step>> = Vec::new();
    for line in recording.lines() {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        let step = steps.last_mut().and_then(Option::as_mut);
        match (mark, step) {
            ("#", _) => {}
            ("reset", _) => steps.push(None),
            ("$", _) => steps.push(Some(Step {
                line: rest.to_owned(),
                ..Step::default()
            })),
            ("<", Some(step)) => step.stdin += &format!("{rest}\n"),
            ("=", Some(step)) => step.status = rest.parse().unwrap(),
            ("|", Some(step)) => step.out += &format!("{rest}\n"),
            ("!", Some(step)) => step.err += &format!("{rest}\n"),
            _ => panic!("{line}"),
        }
    }
    let mut fake = Fake::start(Tables::default());
    let mut wrong = String::new();
    for step in steps {
        let Some(step) = step else {
            fake.stop();
            fake = Fake::start(Tables::default());
            continue;
        };
        let words = words(&step.line);
        let found = run(
            &fake,
            &words.iter().map(String::as_str).collect::<Vec<_>>(),
            &step.stdin,
        );
        let expected = Outcome {
            status: step.status,
            out: step.out,
            err: step.err,
        };
        if found != expected {
            wrong += &format!(
                "$ {}\nexpected {expected:#?}\nfound {found:#?}\n",
                step.line
            );
        }
    }
    fake.stop();
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn options_are_taken_and_refused_as_ipvsadm_does() {
    replay(include_str!("../testdata/options.txt"));
}

#[test]
fn services_and_servers_are_as_ipvsadm_has_them() {
    replay(include_str!("../testdata/services.txt"));
}

#[test]
fn listings_saving_and_restoring_are_those_of_ipvsadm() {
    replay(include_str!("../testdata/listings.txt"));
}

#[test]
fn what_has_no_order_is_sorted_as_ipvsadm_does() {
    replay(include_str!("../testdata/sorting.txt"));
}

#[test]
fn every_format_of_listings_is_that_of_ipvsadm() {
    replay(include_str!("../testdata/reference.txt"));
}

#[test]
#[should_panic(expected = "found")]
fn a_recording_that_differs_is_found_to() {
    replay("$ ipvsadm -L --timeout\n| Timeout (tcp tcpfin udp): 900 120 301\n");
}

#[test]
fn help_and_version_need_no_server_and_end_a_restore() {
    let nowhere = "--socket=/nonexistent/socket";
    let fake = Fake::start(Tables::default());
    for line in [
        vec!["ripvsadm", nowhere, "-h"],
        vec!["ripvsadm", nowhere, "-hL"],
    ] {
        let found = run(&fake, &line, "");
        assert_eq!(found.status, 0);
        assert!(found.out.starts_with("ripvsadm v"), "{}", found.out);
        assert!(
            found
                .out
                .contains("\nUsage:\n  ripvsadm -A|E virtual-service "),
            "{}",
            found.out
        );
    }
    let found = run(&fake, &["ripvsadm", "-vx"], "");
    assert_eq!(found.out, crate::usage::version("ripvsadm"));
    let found = run(&fake, &["ripvsadm", "-R"], "-v\n-A -f 1\n");
    assert_eq!(
        (found.status, found.out),
        (0, crate::usage::version("ripvsadm"))
    );
    assert!(fake.stop().services.is_empty());
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let fake = Fake::start(Tables::default());
    for line in [
        "ripvsadm --socket=/nonexistent/socket -Ln",
        "ripvsadm -L --socket=/nonexistent/socket",
        "ripvsadm -Lc --socket /nonexistent/socket",
        "ripvsadm --socket /nonexistent/socket status",
    ] {
        let found = plain(&fake, line);
        assert_eq!(found.status, 2, "{line}");
        assert_eq!(
            found.err,
            "ripvsadm: ripvsd is not running (nothing listens at /nonexistent/socket)\n"
        );
        assert_eq!(found.out, "");
    }
    fake.stop();
}

#[test]
fn a_great_restore_goes_in_batches_and_keeps_its_order() {
    let fake = Fake::start(Tables::default());
    let mut text = String::new();
    for number in 1..=10_000 {
        text += &format!("-A -f {number}\n");
    }
    text += "-A -f 1\n-A -f 10001\n";
    let found = run(&fake, &["ripvsadm", "-R"], &text);
    assert_eq!(found.err, "Service already exists\n");
    assert_eq!(found.status, 0, "that of the last line");
    assert_eq!(fake.stop().services.len(), 10_001);
}

#[test]
fn what_stands_before_a_wrong_line_is_restored() {
    let fake = Fake::start(Tables::default());
    let found = run(&fake, &["ripvsadm", "-R"], "-A -f 1\n-A -f 0\n-A -f 2\n");
    assert_eq!(found.status, 2);
    assert_eq!(fake.stop().services.len(), 1);
}

#[test]
fn restored_lines_do_not_know_our_options() {
    let fake = Fake::start(Tables::default());
    let found = run(&fake, &["ripvsadm", "-R"], "-L --json\n");
    assert_eq!(
        (found.status, found.err.as_str()),
        (255, "--json: unknown option\n")
    );
    fake.stop();
}

#[test]
fn the_scripts_names_do_what_the_scripts_do() {
    let fake = Fake::start(Tables::default());
    plain(&fake, "ripvsadm -A -f 9 -s rr");
    let saved = "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 1\n";
    let text = format!("# old\n{saved}");
    let found = run(&fake, &["ipvsadm-restore"], &text);
    assert_eq!((found.status, found.err.as_str()), (0, ""));
    assert_eq!(plain(&fake, "ripvsadm-save -n").out, saved);
    let names = plain(&fake, "ipvsadm-save").out;
    assert!(names.starts_with("-A -t 192.0.2.1:http -s rr\n"), "{names}");
    assert_eq!(plain(&fake, "ripvsadm-save -x").status, 1);
    fake.stop();
}

fn reference() -> Tables {
    let addr = |protocol, text: &str, port| ServiceKey::Addr {
        protocol,
        addr: text.parse().unwrap(),
        port,
    };
    let service =
        |key: ServiceKey, sched: &str, flags, timeout, netmask, pe: Option<&str>| Service {
            key,
            config: ServiceConfig {
                sched: sched.into(),
                pe: pe.map(str::to_owned),
                flags,
                mask: !0,
                timeout,
                netmask,
            },
            stats: Stats::default(),
        };
    let stats = Stats {
        conns: 99_999_999,
        inpkts: 100_000_000,
        outpkts: 999_999_999,
        inbytes: 1_000_000_000,
        outbytes: 100_000_000_000,
        cps: 1,
        inpps: 123_456_789,
        outpps: 3,
        inbps: 100_000_000_000_000,
        outbps: 5,
    };
    let dest = |text: &str, port, forward| Dest {
        config: DestConfig {
            key: DestKey {
                addr: text.parse().unwrap(),
                port,
            },
            forward,
            weight: 5,
            upper: 1000,
            lower: 500,
            tun_type: 1,
            tun_port: 6080,
            tun_flags: 1,
        },
        active: 1,
        inactive: 2,
        persistent: 3,
        stats,
    };
    let persistent = flag::PERSISTENT | flag::HASHED;
    let mut first = service(
        addr(6, "192.0.2.1", 80),
        "wrr",
        persistent,
        600,
        0xffff_ff00,
        None,
    );
    first.stats = stats;
    let mark = ServiceKey::Mark {
        mark: 8,
        af: Af::V6,
    };
    Tables {
        services: vec![
            (
                service(mark, "dh", flag::ONE_PACKET, 0, 128, None),
                Vec::new(),
            ),
            (
                first,
                vec![
                    dest("10.0.0.2", 80, forward::TUNNEL),
                    dest("10.0.0.1", 8080, forward::MASQ),
                ],
            ),
            (
                service(
                    addr(17, "192.0.2.9", 5060),
                    "nq",
                    persistent,
                    60,
                    !0,
                    Some("sip"),
                ),
                Vec::new(),
            ),
            (
                service(
                    addr(6, "2001:db8::1", 80),
                    "sh",
                    persistent | flag::SCHED2,
                    360,
                    64,
                    None,
                ),
                vec![dest("2001:db8::a", 8080, forward::LOCAL)],
            ),
        ],
        ..Tables::default()
    }
}

#[test]
fn great_numbers_are_cut_unless_all_of_them_is_asked_for() {
    let fake = Fake::start(reference());
    assert_eq!(
        plain(&fake, "ripvsadm -Ln --stats -t 192.0.2.1:80").out,
        "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n\
        \x20 -> RemoteAddress:Port\n\
         TCP  192.0.2.1:80                 99999999  100000K  999999K    1000M     100G\n\
        \x20 -> 10.0.0.1:8080                99999999  100000K  999999K    1000M     100G\n\
        \x20 -> 10.0.0.2:80                  99999999  100000K  999999K    1000M     100G\n"
    );
    assert_eq!(
        plain(&fake, "ripvsadm -LnX --rate -t 192.0.2.1:80").out,
        "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n\
        \x20 -> RemoteAddress:Port\n\
         TCP  192.0.2.1:80                        1 123456789        3 100000000000000        5\n\
        \x20 -> 10.0.0.1:8080                       1 123456789        3 100000000000000        5\n\
        \x20 -> 10.0.0.2:80                         1 123456789        3 100000000000000        5\n"
    );
    let rate = plain(&fake, "ripvsadm -Ln --rate -t 192.0.2.1:80").out;
    let lines: Vec<&str> = rate.lines().skip(2).collect();
    assert_eq!(
        lines,
        [
            "TCP  192.0.2.1:80                        1  123456K        3     100T        5",
            "  -> 10.0.0.1:8080                       1 123456789        3     100T        5",
            "  -> 10.0.0.2:80                         1 123456789        3     100T        5",
        ]
    );
    fake.stop();
}

#[test]
fn the_listing_shows_what_a_service_is() {
    let fake = Fake::start(reference());
    assert_eq!(
        plain(&fake, "ripvsadm -Ln --tun-info").out,
        "IP Virtual Server version 1.2.1 (size=4096)\n\
         Prot LocalAddress:Port Scheduler Flags\n\
        \x20 -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n\
         TCP  192.0.2.1:80 wrr persistent 600 mask 255.255.255.0\n\
        \x20 -> 10.0.0.1:8080                Masq    n/a           5      1          2         \n\
        \x20 -> 10.0.0.2:80                  Tunnel  gue:6080:+c   5      1          2         \n\
         UDP  192.0.2.9:5060 nq persistent 60 pe sip\n\
         TCP  [2001:db8::1]:80 sh (sh-port) persistent 360 mask 64\n\
        \x20 -> [2001:db8::a]:8080           Local   n/a           5      1          2         \n\
         FWM  8 IPv6 dh ops\n"
    );
    fake.stop();
}

#[test]
fn json_has_all_of_it() {
    let fake = Fake::start(Tables {
        daemons: vec![SyncDaemon {
            state: sync_state::MASTER,
            ..SyncDaemon::default()
        }],
        ..reference()
    });
    let parse = |line: &str| -> Value {
        let found = plain(&fake, line);
        assert_eq!((found.status, found.err.as_str()), (0, ""));
        serde_json::from_str(&found.out).unwrap()
    };
    for line in [
        "ripvsadm --json",
        "ripvsadm --json -L",
        "ripvsadm -Ln --json",
    ] {
        let table = parse(line);
        assert_eq!(table["version"], "1.2.1");
        let services = table["services"].as_array().unwrap();
        assert_eq!(services.len(), 4);
        assert_eq!(services[0]["protocol"], "TCP");
        assert_eq!(services[0]["persistence"]["netmask"], "255.255.255.0");
        assert_eq!(services[0]["stats"]["inbytes"], 1_000_000_000);
        assert_eq!(services[0]["dests"][1]["tunnel"]["port"], 6080);
        assert_eq!(services[2]["scheduler_flags"], json!(["sh-port"]));
        assert_eq!(services[3]["fwmark"], 8);
        assert_eq!(services[3]["one_packet"], true);
    }
    let one = parse("ripvsadm -L -f 8 -6 --json");
    assert_eq!(one["services"].as_array().unwrap().len(), 1);
    assert_eq!(parse("ripvsadm -L --timeout --json")["tcp_fin"], 120);
    assert_eq!(
        parse("ripvsadm -L --daemon --json")["daemons"][0]["state"],
        "master"
    );
    let refused = plain(&fake, "ripvsadm -S --json");
    assert_eq!(
        refused.err,
        "Illegal 'json' option with the 'save' command\n"
    );
    fake.stop();
}

#[test]
fn connections_are_listed_part_by_part() {
    let conn = |cport| ripvs::Conn {
        protocol: 6,
        caddr: "198.18.0.1".parse().unwrap(),
        cport,
        vaddr: "192.0.2.1".parse().unwrap(),
        vport: 80,
        daddr: "10.0.0.1".parse().unwrap(),
        dport: 80,
        state: "SYN_RECV".into(),
        expires_ms: 59_500,
        flags: 0,
        pe_name: None,
        pe_data: None,
        worker: 0,
    };
    let fake = Fake::start(Tables {
        conns: (1000..1005).map(conn).collect(),
        ..Tables::default()
    });
    let listing = plain(&fake, "ripvsadm -Lnc").out;
    assert_eq!(listing.lines().count(), 7);
    let last = "TCP 00:59  SYN_RECV    198.18.0.1:1004    192.0.2.1:80       10.0.0.1:80\n";
    assert!(listing.ends_with(last), "{listing}");
    let json: Value = serde_json::from_str(&plain(&fake, "ripvsadm -Lc --json").out).unwrap();
    assert_eq!(json["connections"].as_array().unwrap().len(), 5);
    assert_eq!(json["connections"][4]["client"]["port"], 1004);
    assert_eq!(fake.stop().seen.len(), 6);
}

#[test]
fn a_reader_that_is_gone_is_no_error() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let fake = Fake::start(reference());
    let names = Fixed::default();
    let mut err = Vec::new();
    let mut app = App {
        program: "ripvsadm".into(),
        names: &names,
        stdin: &mut io::empty(),
        stdout: &mut Gone,
        stderr: &mut err,
        socket: Some(fake.path.clone()),
        client: None,
    };
    assert!(matches!(
        dispatch(&mut app, &["-Ln".into()]),
        Err(Exit::Unread)
    ));
    app.client = None;
    fake.stop();
}
