//! What our own subcommands print where no JSON is asked for: tables with a heading, or lines of name and value.

use ripvs_api::ripvs::{
    Addr, MarkRule, Neigh, Port, PortRange, Route, ServiceExact, Settled, Status, Sysctl, Verdicts,
    Worker,
};

use crate::conns::protocol_name;

/// A table: columns as wide as what is in them, two blanks between them.
fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(rows);
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths);
        let padded: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text += padded.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// What is there, or a dash.
fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// The interfaces.
pub fn ports(ports: &[Port]) -> String {
    let head = [
        "NAME",
        "KIND",
        "STATE",
        "MAC",
        "MTU",
        "VLAN",
        "DEVICE",
        "DRIVER",
        "COMPANION",
        "QUEUES",
        "RX-PACKETS",
        "RX-BYTES",
        "TX-PACKETS",
        "TX-BYTES",
        "MISSED",
        "ERRORS",
        "NO-BUFFERS",
        "TX-DROPPED",
    ];
    let state = |port: &Port| match (port.up, port.link) {
        (false, _) => "down",
        (true, false) => "no-link",
        (true, true) => "up",
    };
    table(
        head,
        ports.iter().map(|port| {
            [
                port.name.clone(),
                port.kind.to_string(),
                state(port).to_owned(),
                or_dash(port.mac),
                port.mtu.to_string(),
                or_dash(port.vlan),
                or_dash(port.device.as_ref()),
                or_dash(port.driver.as_ref()),
                or_dash(port.companion.as_ref()),
                format!("{}/{}", port.rx_queues, port.tx_queues),
                port.rx_packets.to_string(),
                port.rx_bytes.to_string(),
                port.tx_packets.to_string(),
                port.tx_bytes.to_string(),
                port.rx_missed.to_string(),
                port.rx_errors.to_string(),
                port.rx_no_buffers.to_string(),
                port.tx_dropped.to_string(),
            ]
        }),
    )
}

/// The addresses.
pub fn addrs(addrs: &[Addr]) -> String {
    let rows = addrs
        .iter()
        .map(|addr| [addr.addr.to_string(), addr.dev.clone()]);
    table(["ADDRESS", "DEV"], rows)
}

/// The routes.
pub fn routes(routes: &[Route]) -> String {
    table(
        ["PREFIX", "VIA", "DEV", "MTU", "FROM", "KIND"],
        routes.iter().map(|route| {
            [
                route.prefix.to_string(),
                or_dash(route.via),
                or_dash(route.dev.as_ref()),
                or_dash(route.mtu),
                or_dash(route.from),
                route.kind.to_string(),
            ]
        }),
    )
}

/// The neighbours.
pub fn neighs(neighs: &[Neigh]) -> String {
    table(
        ["ADDRESS", "DEV", "MAC", "STATE", "WAITING"],
        neighs.iter().map(|neigh| {
            [
                neigh.addr.to_string(),
                neigh.dev.clone(),
                or_dash(neigh.mac),
                neigh.state.to_string(),
                neigh.waiting.to_string(),
            ]
        }),
    )
}

/// The rules for marks, and the marks that are diverted.
pub fn marks(rules: &[MarkRule], diverted: &[u32]) -> String {
    let ranges = |ranges: &[PortRange]| {
        let texts: Vec<String> = ranges.iter().map(PortRange::to_string).collect();
        or_dash((!texts.is_empty()).then(|| texts.join(",")))
    };
    let mut text = table(
        ["MARK", "PROTO", "SRC", "SPORT", "DST", "DPORT", "DEV"],
        rules.iter().map(|rule| {
            [
                rule.mark.to_string(),
                or_dash(
                    rule.protocol
                        .map(|protocol| protocol_name(protocol).to_lowercase()),
                ),
                or_dash(rule.src),
                ranges(&rule.sports),
                or_dash(rule.dst),
                ranges(&rule.dports),
                or_dash(rule.dev.as_ref()),
            ]
        }),
    );
    for mark in diverted {
        text += &format!("mark {mark} is diverted\n");
    }
    text
}

/// The workers.
pub fn workers(workers: &[Worker]) -> String {
    let head = [
        "WORKER",
        "CORE",
        "CONNS",
        "RECEIVED",
        "SENT",
        "HANDED-OVER",
        "RING-FULL",
        "BUSY",
    ];
    let busy = |worker: &Worker| {
        let all = worker.busy_bursts.saturating_add(worker.idle_bursts);
        let percent = worker.busy_bursts as f64 * 100.0 / all.max(1) as f64;
        format!("{percent:.1}%")
    };
    table(
        head,
        workers.iter().map(|worker| {
            [
                worker.id.to_string(),
                or_dash(worker.core),
                worker.conns.to_string(),
                worker.received.to_string(),
                worker.sent.to_string(),
                worker.handed_over.to_string(),
                worker.ring_full.to_string(),
                busy(worker),
            ]
        }),
    )
}

/// What is said of the scheduling of single services.
pub fn service_exacts(said: &[ServiceExact]) -> String {
    let line = |said: &ServiceExact| {
        let exact = if said.exact == Some(true) {
            "on"
        } else {
            "off"
        };
        format!("{} exact {exact}\n", said.service)
    };
    said.iter().map(line).collect()
}

/// The settings.
pub fn sysctls(sysctls: &[Sysctl]) -> String {
    sysctls.iter().map(sysctl).collect()
}

/// A setting, as sysctl(8) shows it.
pub fn sysctl(sysctl: &Sysctl) -> String {
    format!("{} = {}\n", sysctl.name, sysctl.value)
}

/// What became of packets. Reasons and places that have none are left out.
pub fn verdicts(verdicts: &Verdicts) -> String {
    let total = |counts: &[ripvs_api::ripvs::Count]| counts.iter().map(|count| count.count).sum();
    let mut text = String::new();
    let mut line = |name: &str, count: u64| text += &format!("{name:<24} {count}\n");
    line("received", verdicts.received);
    line("generated", verdicts.generated);
    line("forwarded", verdicts.forwarded);
    line("host", verdicts.host);
    line("answered", verdicts.answered);
    for (name, counts) in [("dropped", &verdicts.dropped), ("held", &verdicts.held)] {
        line(name, total(counts));
        for count in counts.iter().filter(|count| count.count != 0) {
            line(&format!("  {}", count.name), count.count);
        }
    }
    text
}

/// How the daemon is.
pub fn status(status: &Status) -> String {
    let seconds = status.uptime_ms / 1000;
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    let mut text = String::new();
    for (name, value) in [
        ("version", status.version.clone()),
        ("dpdk", or_dash(status.dpdk.as_ref())),
        ("pid", status.pid.to_string()),
        (
            "uptime",
            format!("{days}d {hours:02}:{minutes:02}:{seconds:02}"),
        ),
        ("workers", status.workers.to_string()),
        ("services", status.services.to_string()),
        ("dests", status.dests.to_string()),
        (
            "connections",
            format!("{} of {}", status.conns, status.conn_limit),
        ),
    ] {
        text += &format!("{name:<12} {value}\n");
    }
    text
}

/// What had come and gone when the waiting was over.
pub fn settled(settled: &Settled) -> String {
    let line = |port: &ripvs_api::ripvs::SettledPort| {
        format!(
            "{} received {} sent {}\n",
            port.name, port.received, port.sent
        )
    };
    settled.ports.iter().map(line).collect()
}
