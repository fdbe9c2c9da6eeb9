//! A table of mistakes and what is said about each, and the documented example.

#![allow(clippy::unwrap_used)]

use super::mistake::EXAMPLE;
use super::options::Options;
use super::*;
use clap::Parser;

/// A port to hang things on.
const PORT: &str =
    "[[port]]\nname = \"eth0\"\ndevice = \"net_tap0\"\naddresses = [\"198.18.0.254/24\"]\n";

fn config(text: &str) -> Result<Config, ConfigError> {
    from_text("ripvsd.toml", text, &Options::default())
}

fn with_options(text: &str, arguments: &[&str]) -> Result<Config, ConfigError> {
    let arguments = std::iter::once("ripvsd").chain(arguments.iter().copied());
    let options = Options::try_parse_from(arguments).unwrap();
    from_text("ripvsd.toml", text, &options)
}

#[test]
fn an_empty_file_is_a_configuration() {
    let config = config("").unwrap();
    assert_eq!(config.workers, Workers::AllButOne);
    assert_eq!(config.socket.to_str(), Some(SOCKET));
    assert_eq!(config.socket_mode.0, 0o600);
    assert_eq!(config.connections, 1 << 20);
    assert_eq!(config.idle, Idle::Adaptive);
}

#[test]
fn the_documented_example_is_right_and_uses_every_key() {
    let example = config(EXAMPLE).unwrap();
    let words = explain(&example);
    for said in [
        "VLAN 100",
        "bond of",
        "companion",
        "Mark 7",
        "Route:",
        "Neighbour:",
        "FTP helper",
    ] {
        let said = if said == "companion" {
            "host's own"
        } else {
            said
        };
        assert!(words.contains(said), "{said} is missing in:\n{words}");
    }
    // Every key of every table stands in the example, be it commented out.
    for key in [
        "workers",
        "cores",
        "connections",
        "socket",
        "socket_mode",
        "socket_group",
        "state_dir",
        "log_level",
        "idle",
        "owner",
        "exact_services",
        "clock",
        "mh_table_bits",
        "icmp_ratelimit",
        "mbufs",
        "mbuf_size",
        "ftp_ports",
        "args",
        "name",
        "device",
        "mac",
        "mtu",
        "rx_queues",
        "tx_queues",
        "rx_descriptors",
        "tx_descriptors",
        "promiscuous",
        "addresses",
        "companion",
        "on",
        "id",
        "members",
        "mode",
        "prefix",
        "via",
        "dev",
        "from",
        "interface",
        "address",
        "mark",
        "protocol",
        "source",
        "destination",
        "source_ports",
        "destination_ports",
        "tcp",
        "tcpfin",
        "udp",
        "sloppy_tcp",
        "scheduling",
        "divert",
        "scheduling",
        "divert",
    ] {
        let documented = EXAMPLE.lines().any(|line| {
            line.trim_start_matches("# ")
                .starts_with(&format!("{key} = "))
        });
        assert!(documented, "{key} is not in the example");
    }
}

/// Each mistake with the line it is on and words that the message must hold.
#[test]
fn a_mistake_is_named_with_its_line_and_what_would_be_right() {
    let port = PORT;
    let cases: &[(String, usize, &[&str])] = &[
        ("wrokers = 2".into(), 1, &["no key `wrokers`", "did you mean `workers`"]),
        ("workers = \"two\"".into(), 1, &["whole number", "workers = 2"]),
        ("workers = 0".into(), 1, &["at least one worker"]),
        ("\nworkers = 3\ncores = [1, 2]".into(), 2, &["3 workers on 2 cores"]),
        ("cores = [1, 1]".into(), 1, &["core 1 is named twice"]),
        ("cores = []".into(), 1, &["no core"]),
        ("connections = 5".into(), 1, &["1024 to"]),
        ("socket_mode = \"0999\"".into(), 1, &["no file mode", "0660"]),
        ("idle = \"lazy\"".into(), 1, &["`lazy` is no idle", "adaptive"]),
        ("owner = \"adress\"".into(), 1, &["did you mean `address`"]),
        ("log_level = \"loud\"".into(), 1, &["no log level", "debug"]),
        ("mh_table_bits = 30".into(), 1, &["8 to 17"]),
        ("ftp_ports = [0]".into(), 1, &["0 is no port"]),
        ("[sysctl]\nslopy_tcp = 1".into(), 2, &["did you mean `sloppy_tcp`"]),
        ("[sysctl]\ndrop_entry = 9".into(), 2, &["0 to 3"]),
        ("[timeouts]\ntcp = 99999999".into(), 2, &["31 days"]),
        ("[[port]]\nname = \"eth0\"".into(), 1, &["no `device`"]),
        ("[[port]]\nname = \"eth0\"\ndevice = \"eth0\"".into(), 3, &["neither a PCI address"]),
        (format!("{port}[[port]]\nname = \"eth0\"\ndevice = \"net_tap1\""), 6, &["two interfaces `eth0`"]),
        (format!("{port}[[port]]\nname = \"eth1\"\ndevice = \"net_tap0,iface=x\""), 7, &["already driven as `eth0`"]),
        (format!("{port}mac = \"01:00:00:00:00:00\""), 5, &["group address"]),
        (format!("{port}mtu = 20000"), 5, &["68 to 9000"]),
        (format!("{port}rx_queues = 0"), 5, &["1 to 128"]),
        ("[[port]]\nname = \"eth0\"\ndevice = \"net_tap0\"\naddresses = [\"1.2.3.4/40\"]".into(), 4, &["0 to 32"]),
        ("[[port]]\nname = \"a\"\ndevice = \"net_tap0\"\naddresses = [\"1.2.3.4/32\", \"1.2.3.4/8\"]".into(), 4, &["has 1.2.3.4 already"]),
        ("[[port]]\nname = \"a\"\ndevice = \"net_tap0\"\naddresses = [\"1.2.3.4\"]".into(), 4, &["1.2.3.4/24", "1.2.3.4/32"]),
        ("[loopback]\naddresses = [\"2001:db8::1\"]".into(), 2, &["2001:db8::1/128"]),
        ("mbuf_size = 100".into(), 1, &["256 to 65535"]),
        ("[[port]]\nname = \"far too long a name\"\ndevice = \"net_tap0\"".into(), 2, &["1 to 15 characters"]),
        ("[eal]\nargs = [\"--no-huge\"]\n[[port]]\nname = \"eth0\"\ndevice = \"03:00.0\"".into(), 5, &["hugepages", "leave that out"]),
        (format!("{port}[[vlan]]\nname = \"v\"\non = \"eht0\"\nid = 5"), 7, &["no interface `eht0`", "did you mean `eth0`"]),
        (format!("{port}[[vlan]]\nname = \"v\"\non = \"eth0\"\nid = 4095"), 8, &["1 to 4094"]),
        (format!("{port}[[bond]]\nname = \"b\"\nmembers = [\"eth9\"]\nmode = \"broadcast\""), 7, &["`eth9` is no [[port]]"]),
        (format!("{port}[[bond]]\nname = \"b\"\nmembers = [\"eth0\"]\nmode = \"broadcast\""), 7, &["belong to the bond"]),
        (format!("{port}[[bond]]\nname = \"b\"\nmembers = []\nmode = \"best\""), 8, &["no bonding mode", "active-backup"]),
        (format!("{port}[[route]]\nprefix = \"10.0.0.1/8\"\nvia = \"198.18.0.1\""), 6, &["the network is 10.0.0.0/8"]),
        (format!("{port}[[route]]\nprefix = \"10.0.0.0/8\"\nvia = \"198.19.0.1\""), 7, &["in no network"]),
        (format!("{port}[[route]]\nprefix = \"10.0.0.0/8\"\nvia = \"2001:db8::1\""), 7, &["another family"]),
        (format!("{port}[[route]]\nprefix = \"10.0.0.0/8\""), 6, &["needs a `via`"]),
        (format!("{port}[[route]]\nprefix = \"2001:db8::/32\"\nvia = \"fe80::1\""), 7, &["needs a `dev`"]),
        (format!("{port}[[neighbour]]\ninterface = \"eth1\"\naddress = \"198.18.0.1\"\nmac = \"02:00:00:00:00:01\""), 6, &["no interface `eth1`"]),
        (format!("{port}[[mark]]\nmark = 0"), 6, &["1 and up"]),
        (format!("{port}[[mark]]\nmark = 1\ndestination_ports = [\"80\"]"), 6, &["tcp, udp or sctp"]),
        (format!("{port}[[mark]]\nmark = 1\nprotocol = \"tcp\"\nsource_ports = [\"9-1\"]"), 8, &["1-9"]),
        (format!("{port}[[mark]]\nmark = 1\nsource = \"10.0.0.0/8\"\ndestination = \"2001:db8::/32\""), 8, &["different families"]),
        ("workers = ".into(), 1, &["has no value"]),
    ];
    for (text, line, words) in cases {
        let error = match config(text) {
            Ok(_) => panic!("taken for right:\n{text}"),
            Err(ConfigError(message)) => message,
        };
        assert!(
            error.starts_with(&format!("ripvsd.toml:{line}:")),
            "line {line} expected:\n{error}\nof:\n{text}"
        );
        for word in *words {
            assert!(error.contains(word), "`{word}` is missing in:\n{error}");
        }
    }
}

#[test]
fn a_mistake_shows_its_line_marked() {
    let ConfigError(message) = config("# first\nworkers = 0\n").unwrap_err();
    assert_eq!(
        message,
        "ripvsd.toml:2:11: at least one worker is needed\n  |\n2 | workers = 0\n  |           ^"
    );
}

#[test]
fn options_lie_over_the_file() {
    let file = format!("workers = 3\nsocket = \"/a\"\n{PORT}");
    let config = with_options(
        &file,
        &[
            "--cores",
            "4-5,7",
            "--socket",
            "/b",
            "--port",
            "eth1=net_tap1,iface=x",
            "--address",
            "eth1=10.0.0.254/24",
            "--address",
            "lo=192.0.2.100/32",
            "--route",
            "10.9.0.0/16,via=10.0.0.1",
            "--neighbour",
            "eth1,10.0.0.1,02:00:00:00:02:01",
            "--sysctl",
            "net.ipv4.vs.sloppy_tcp=1",
            "--",
            "--no-huge",
            "-m",
            "256",
        ],
    )
    .unwrap();
    assert!(matches!(&config.workers, Workers::Cores(cores) if cores.value == [4, 5, 7]));
    assert_eq!(config.socket.to_str(), Some("/b"));
    assert_eq!(config.ports.len(), 2);
    assert_eq!(config.ports[1].addresses.len(), 1);
    assert_eq!(config.loopback.len(), 1);
    assert_eq!(config.sysctls, [("sloppy_tcp", vec![1])]);
    assert_eq!(config.eal_args, ["--no-huge", "-m", "256"]);
}

#[test]
fn a_mistake_in_an_option_names_the_option() {
    let ConfigError(message) = with_options(PORT, &["--address", "eth7=10.0.0.1/8"]).unwrap_err();
    assert_eq!(message, "option --address: there is no interface `eth7`");
}
