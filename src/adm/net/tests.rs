//! Subcommands: which requests they become, and what is shown of answers.

use crate::app::tests::fake::{Fake, Tables};
use crate::app::tests::{plain, run};
use ripvs_api::ripvs::*;

fn requests_of(lines: &[&str]) -> Vec<Request> {
    let fake = Fake::start(Tables::default());
    for line in lines {
        let found = plain(&fake, &format!("ripvsadm {line}"));
        assert_eq!((found.status, found.err.as_str()), (0, ""), "{line}");
    }
    fake.stop().seen
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

#[test]
fn command_lines_become_requests() {
    let addr = Addr {
        addr: prefix("198.18.0.254/24"),
        dev: "eth0".into(),
    };
    let route = |text, via: Option<&str>| Route {
        prefix: prefix(text),
        via: via.map(|via| via.parse().unwrap()),
        dev: None,
        mtu: None,
        from: None,
        kind: RouteKind::Static,
    };
    let neigh = |mac| Neigh {
        addr: "10.0.0.11".parse().unwrap(),
        dev: "eth1".into(),
        mac,
        state: NeighState::Permanent,
        waiting: 0,
    };
    let rule = MarkRule {
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
            PortRange {
                first: 8000,
                last: 8080,
            },
        ],
        dev: Some("eth0".into()),
    };
    let rows = [
        ("addr", Request::Addrs),
        ("port list", Request::Ports),
        (
            "addr add 198.18.0.254/24 dev eth0",
            Request::AddAddr(addr.clone()),
        ),
        ("addr del 198.18.0.254/24 dev eth0", Request::DelAddr(addr)),
        (
            "route add default via 198.18.0.1 mtu 1400 dev eth0 from 192.0.2.1",
            Request::AddRoute(Route {
                dev: Some("eth0".into()),
                mtu: Some(1400),
                from: Some(prefix("192.0.2.1")),
                ..route("0.0.0.0/0", Some("198.18.0.1"))
            }),
        ),
        (
            "route del 2001:db8::/32",
            Request::DelRoute(route("2001:db8::/32", None)),
        ),
        (
            "neigh add 10.0.0.11 lladdr 02:00:00:00:02:11 dev eth1",
            Request::AddNeigh(neigh(Some(Mac([2, 0, 0, 0, 2, 0x11])))),
        ),
        (
            "neigh del 10.0.0.11 dev eth1",
            Request::DelNeigh(neigh(None)),
        ),
        (
            "mark add 7 proto tcp dst 203.0.113.0/24 dport 80,8000-8080 dev eth0",
            Request::AddMark(rule),
        ),
        ("mark divert 7", Request::AddDivert(Divert { mark: 7 })),
        (
            "sysctl set net.ipv4.vs.sync_threshold 3 50",
            Request::SetSysctl(Sysctl {
                name: "net.ipv4.vs.sync_threshold".into(),
                value: "3 50".into(),
            }),
        ),
        (
            "port set eth0 mtu 9000 down",
            Request::SetPort(PortChange {
                name: "eth0".into(),
                up: Some(false),
                mac: None,
                mtu: Some(9000),
            }),
        ),
    ];
    let lines: Vec<&str> = rows.iter().map(|(line, _)| *line).collect();
    let expected: Vec<Request> = rows.iter().map(|(_, request)| request.clone()).collect();
    assert_eq!(requests_of(&lines), expected);
}

#[test]
fn wrong_command_lines_say_what_is_wrong() {
    let fake = Fake::start(Tables::default());
    for (line, words) in [
        (
            "addr add 10.0.0.0/33 dev eth0",
            "`10.0.0.0/33` is no prefix",
        ),
        ("addr add 10.0.0.1/24 via eth0", "`dev` is missing"),
        ("addr add 10.0.0.1/24 dev eth0 x", "`x` has no meaning here"),
        ("addr add 10.0.0.1/24 dev", "`dev` needs a value"),
        (
            "route add default via x",
            "`via x`: invalid IP address syntax",
        ),
        ("neigh add 10.0.0.1 lladdr x dev e", "is no MAC address"),
        ("mark add 0", "0 is not in 1.."),
        ("mark add 5 proto foo", "`foo` is no protocol"),
        (
            "mark add 5 proto tcp dport 9-1",
            "`9-1` is no port or range",
        ),
        ("settle eth0", "is not NAME=FRAMES"),
        ("settle --timeout x", "`x` is no number of seconds"),
        ("advance x", "`x` is no number of seconds"),
        ("port foo", "unrecognized subcommand"),
    ] {
        let found = plain(&fake, &format!("ripvsadm {line}"));
        assert_eq!((found.status, found.out.as_str()), (2, ""), "{line}");
        assert!(found.err.contains(words), "{line}: {}", found.err);
    }
    assert!(fake.stop().seen.is_empty());
}

#[test]
fn a_refusal_is_told() {
    let fake = Fake::start(Tables::default());
    let found = plain(&fake, "ripvsadm mark undivert 7");
    assert_eq!(found.status, 1);
    assert_eq!(found.err, "ripvsadm: No such file or directory\n");
    fake.stop();
}

#[test]
fn settle_prints_what_came_and_went() {
    let settled = |complete| {
        Reply::Settled(Settled {
            complete,
            ports: vec![SettledPort {
                name: "eth0".into(),
                received: 5,
                sent: 3,
            }],
        })
    };
    for complete in [true, false] {
        let fake = Fake::start(Tables {
            ours: vec![(25, settled(complete))],
            ..Tables::default()
        });
        let found = plain(&fake, "ripvsadm settle eth0=5 eth1=3 --timeout 0.5");
        assert_eq!(found.out, "eth0 received 5 sent 3\n");
        assert_eq!(found.status, u8::from(!complete));
        let json = plain(&fake, "ripvsadm settle --json").out;
        assert!(json.contains("\"received\": 5"), "{json}");
        let seen = fake.stop().seen;
        let Request::Settle(asked) = &seen[0] else {
            panic!("{seen:?}");
        };
        assert_eq!((asked.timeout_ms, asked.ports.len()), (500, 2));
        assert_eq!(asked.ports[1].received, 3);
    }
}

#[test]
fn listings_are_tables_or_json() {
    let count = |name: &str, count| Count {
        name: name.into(),
        count,
    };
    let verdicts = Reply::Verdicts(Verdicts {
        received: 10,
        generated: 0,
        forwarded: 7,
        host: 0,
        answered: 0,
        dropped: vec![count("no-route", 2), count("bad-checksum", 0)],
        held: vec![count("neighbour", 1)],
    });
    let neigh = |addr: &str, mac| {
        Reply::Neigh(Neigh {
            addr: addr.parse().unwrap(),
            dev: "eth1".into(),
            mac,
            state: NeighState::Incomplete,
            waiting: 2,
        })
    };
    let fake = Fake::start(Tables {
        ours: vec![
            (3, verdicts),
            (12, neigh("10.0.0.1", Some(Mac([2; 6])))),
            (12, neigh("2001:db8::10", None)),
        ],
        ..Tables::default()
    });
    assert_eq!(
        plain(&fake, "ripvsadm drops").out,
        "received                 10\ngenerated                0\nforwarded                7\n\
         host                     0\nanswered                 0\ndropped                  2\n\
        \x20 no-route               2\nheld                     1\n  neighbour              1\n"
    );
    assert_eq!(
        plain(&fake, "ripvsadm neigh list").out,
        "ADDRESS       DEV   MAC                STATE       WAITING\n\
         10.0.0.1      eth1  02:02:02:02:02:02  incomplete  2\n\
         2001:db8::10  eth1  -                  incomplete  2\n"
    );
    for line in ["ripvsadm --json neigh", "ripvsadm neigh list --json"] {
        let json: serde_json::Value = serde_json::from_str(&plain(&fake, line).out).unwrap();
        assert_eq!(json[0]["mac"], "02:02:02:02:02:02");
        assert_eq!(json[1]["mac"], serde_json::Value::Null);
    }
    fake.stop();
}

#[test]
fn help_is_for_standard_output() {
    let fake = Fake::start(Tables::default());
    let found = run(&fake, &["ripvsadm", "route", "--help"], "");
    assert_eq!((found.status, found.err.as_str()), (0, ""));
    assert!(found.out.contains("Usage: ripvsadm route"), "{}", found.out);
    fake.stop();
}

#[test]
fn what_looks_like_a_subcommand_and_is_none_is_for_ipvsadm() {
    assert!(super::is_subcommand("port"));
    assert!(!super::is_subcommand("foo"));
    assert!(!super::is_subcommand("-L"));
}

#[test]
fn a_service_is_said_to_be_exact_by_the_words_of_ipvsadm() {
    let fake = Fake::start(Tables::default());
    for line in [
        "service exact on -t 192.0.2.100:80",
        "service exact off -u [2001:db8::1]:53",
        "service exact default -f 7 -6",
    ] {
        plain(&fake, &format!("ripvsadm {line}"));
    }
    for line in [
        "service exact on",
        "service exact maybe -t 192.0.2.100:80",
        "service exact on -t 192.0.2.100",
        "service exact on -f 0",
        "service exact on -t 192.0.2.100:80 -6",
        "service exact on -t 192.0.2.100:80 -f 7",
    ] {
        assert_eq!(
            plain(&fake, &format!("ripvsadm {line}")).status,
            2,
            "{line}"
        );
    }
    let said: Vec<(String, Option<bool>)> = fake
        .stop()
        .seen
        .into_iter()
        .filter_map(|request| match request {
            Request::SetServiceExact(said) => Some((said.service.to_string(), said.exact)),
            _ => None,
        })
        .collect();
    assert_eq!(
        said,
        [
            ("tcp 192.0.2.100:80".to_owned(), Some(true)),
            ("udp [2001:db8::1]:53".to_owned(), Some(false)),
            ("mark6 7".to_owned(), None)
        ]
    );
}
