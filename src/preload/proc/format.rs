//! The text of the files in /proc/net, as the kernel's seq_show functions write it (net/netfilter/ipvs/ip_vs_ctl.c and
//! ip_vs_conn.c, 6.1): addresses and ports in hexadecimal, most columns wider than they need be.

use std::fmt::Write;
use std::net::IpAddr;

use ripvs_api::ipvs::number::{flag, forward};
use ripvs_api::ipvs::{Dest, Info, Service, ServiceKey};
use ripvs_api::ripvs::{Conn, Traffic};

/// `IP_VS_CONN_F_SYNC`: the connection came from another balancer.
const FROM_SYNC: u32 = 0x20;

/// Persistence is shown in the kernel's own ticks, here of a kernel that has a hundred a second.
const HZ: u32 = 100;

/// How a list of connections is written.
#[derive(Clone, Copy, Debug)]
pub struct ConnsFormat {
    /// The first line.
    pub heading: &'static str,
    /// Writes a line.
    pub line: fn(&mut String, &Conn),
}

/// As in `ip_vs_conn`.
pub const CONNS: ConnsFormat = ConnsFormat {
    heading: "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n",
    line: conn,
};
/// As in `ip_vs_conn_sync`.
pub const CONNS_SYNC: ConnsFormat = ConnsFormat {
    heading: "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Origin Expires\n",
    line: conn_sync,
};

// Writing to a string cannot fail, so what `write!` returns is passed over throughout.

/// The first lines of `ip_vs`.
pub fn services_heading(out: &mut String, info: &Info) {
    let [_, major, minor, patch] = info.version.to_be_bytes();
    let size = info.conn_tab_size;
    let _ = writeln!(
        out,
        "IP Virtual Server version {major}.{minor}.{patch} (size={size})"
    );
    out.push_str("Prot LocalAddress:Port Scheduler Flags\n");
    out.push_str("  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n");
}

/// A service's line in `ip_vs`.
pub fn service(out: &mut String, service: &Service) {
    let config = &service.config;
    let sched = &config.sched;
    let ops = if config.flags & flag::ONE_PACKET != 0 {
        "ops "
    } else {
        ""
    };
    let _ = match service.key {
        ServiceKey::Addr {
            protocol,
            addr,
            port,
        } => {
            let name = protocol_name(protocol);
            match addr {
                IpAddr::V4(_) => write!(out, "{name}  {}:{port:04X} {sched} {ops} ", Hex(addr)),
                // The kernel does not tell here that such a service is one-packet.
                IpAddr::V6(_) => write!(out, "{name}  [{}]:{port:04X} {sched} ", Hex(addr)),
            }
        }
        ServiceKey::Mark { mark, .. } => write!(out, "FWM  {mark:08X} {sched} {ops}"),
    };
    if config.flags & flag::PERSISTENT != 0 {
        // The netmask of IPv6 is a number that the kernel turns around all the same.
        let mask = match service.key.af() {
            ripvs_api::ipvs::Af::V4 => config.netmask,
            ripvs_api::ipvs::Af::V6 => u32::from_be(config.netmask),
        };
        let jiffies = config.timeout.wrapping_mul(HZ) as i32;
        let _ = write!(out, "persistent {jiffies} {mask:08X}");
    }
    out.push('\n');
}

/// A dest's line in `ip_vs`.
pub fn dest(out: &mut String, dest: &Dest) {
    let key = &dest.config.key;
    let method = match dest.config.forward {
        forward::LOCAL => "Local",
        forward::TUNNEL => "Tunnel",
        forward::ROUTE => "Route",
        _ => "Masq",
    };
    let (open, close) = if key.addr.is_ipv6() {
        ("[", "]")
    } else {
        ("", "")
    };
    let _ = writeln!(
        out,
        "  -> {open}{}{close}:{:04X}      {method:<7} {:<6} {:<10} {:<10}",
        Hex(key.addr),
        key.port,
        dest.config.weight,
        dest.active,
        dest.inactive
    );
}

/// All of `ip_vs_stats`.
pub fn stats(out: &mut String, total: &Traffic) {
    out.push_str("   Total Incoming Outgoing         Incoming         Outgoing\n");
    out.push_str("   Conns  Packets  Packets            Bytes            Bytes\n");
    counts(out, total);
    out.push('\n');
    out.push_str(" Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n");
    rates(out, total);
}

/// All of `ip_vs_stats_percpu`, with workers for CPUs.
pub fn stats_per_cpu(out: &mut String, workers: &[Traffic], total: &Traffic) {
    out.push_str("       Total Incoming Outgoing         Incoming         Outgoing\n");
    out.push_str("CPU    Conns  Packets  Packets            Bytes            Bytes\n");
    for worker in workers {
        let _ = write!(out, "{:3X} ", worker.worker.unwrap_or_default());
        counts(out, worker);
    }
    out.push_str("  ~ ");
    counts(out, total);
    out.push('\n');
    out.push_str("     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n");
    out.push_str("    ");
    rates(out, total);
}

fn counts(out: &mut String, of: &Traffic) {
    columns(
        out,
        [of.conns, of.inpkts, of.outpkts, of.inbytes, of.outbytes],
    );
}

fn rates(out: &mut String, of: &Traffic) {
    columns(out, [of.cps, of.inpps, of.outpps, of.inbps, of.outbps]);
}

fn columns(out: &mut String, [a, b, c, d, e]: [u64; 5]) {
    let _ = writeln!(out, "{a:8X} {b:8X} {c:8X} {d:16X} {e:16X}");
}

/// A connection's line in `ip_vs_conn`.
fn conn(out: &mut String, conn: &Conn) {
    conn_ends(out, conn);
    let _ = write!(out, "{:<11} {:7}", conn.state, conn.expires_ms / 1000);
    if let Some(data) = &conn.pe_data {
        let name = conn.pe_name.as_deref().unwrap_or_default();
        let _ = write!(out, " {name} {}", String::from_utf8_lossy(&data.0));
    }
    out.push('\n');
}

/// A connection's line in `ip_vs_conn_sync`.
fn conn_sync(out: &mut String, conn: &Conn) {
    let origin = if conn.flags & FROM_SYNC != 0 {
        "SYNC"
    } else {
        "LOCAL"
    };
    conn_ends(out, conn);
    let seconds = conn.expires_ms / 1000;
    let _ = writeln!(out, "{:<11} {origin:<6} {seconds:7}", conn.state);
}

/// Protocol, client, virtual address and dest, with a blank behind them.
fn conn_ends(out: &mut String, conn: &Conn) {
    let _ = write!(
        out,
        "{:<3} {} {:04X} {} {:04X} {} {:04X} ",
        protocol_name(conn.protocol.into()),
        Hex(conn.caddr),
        conn.cport,
        Hex(conn.vaddr),
        conn.vport,
        Hex(conn.daddr),
        conn.dport
    );
}

/// An address as the kernel's `%08X` and `%pI6` write it.
struct Hex(IpAddr);

impl std::fmt::Display for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            IpAddr::V4(addr) => write!(f, "{:08X}", u32::from(addr)),
            IpAddr::V6(addr) => {
                let [a, b, c, d, e, g, h, i] = addr.segments();
                write!(
                    f,
                    "{a:04x}:{b:04x}:{c:04x}:{d:04x}:{e:04x}:{g:04x}:{h:04x}:{i:04x}"
                )
            }
        }
    }
}

/// As `ip_vs_proto_name` has it.
fn protocol_name(protocol: u16) -> std::borrow::Cow<'static, str> {
    match protocol {
        0 => "IP".into(),
        1 => "ICMP".into(),
        6 => "TCP".into(),
        17 => "UDP".into(),
        58 => "ICMPv6".into(),
        132 => "SCTP".into(),
        other => format!("IP_{other}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ripvs_api::ipvs::{DestConfig, DestKey, ServiceConfig, Stats};
    use ripvs_api::ripvs::Bytes;

    fn shown(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    fn a_service(addr: &str, flags: u32, netmask: u32) -> Service {
        Service {
            key: ServiceKey::Addr {
                protocol: 6,
                addr: addr.parse().unwrap(),
                port: 80,
            },
            config: ServiceConfig {
                sched: "wlc".into(),
                pe: None,
                flags,
                mask: !0,
                timeout: 360,
                netmask,
            },
            stats: Stats::default(),
        }
    }

    fn a_dest(addr: &str, forward: u32) -> Dest {
        let key = DestKey {
            addr: addr.parse().unwrap(),
            port: 8080,
        };
        Dest {
            config: DestConfig {
                key,
                forward,
                weight: 100,
                upper: 0,
                lower: 0,
                tun_type: 0,
                tun_port: 0,
                tun_flags: 0,
            },
            active: 248,
            inactive: 2,
            persistent: 0,
            stats: Stats::default(),
        }
    }

    fn a_conn(client: &str, virt: &str, dest: &str) -> Conn {
        Conn {
            protocol: 6,
            caddr: client.parse().unwrap(),
            cport: 1000,
            vaddr: virt.parse().unwrap(),
            vport: 80,
            daddr: dest.parse().unwrap(),
            dport: 8080,
            state: "ESTABLISHED".into(),
            expires_ms: 899_999,
            flags: 0,
            pe_name: None,
            pe_data: None,
            worker: 0,
        }
    }

    #[test]
    fn services_look_as_in_the_kernel() {
        let line = |s: &Service| shown(|out| service(out, s));
        assert_eq!(
            line(&a_service("192.168.0.22", 0, !0)),
            "TCP  C0A80016:0050 wlc  \n"
        );
        assert_eq!(
            line(&a_service("192.168.0.22", flag::PERSISTENT, 0xffff_ff00)),
            "TCP  C0A80016:0050 wlc  persistent 36000 FFFFFF00\n"
        );
        assert_eq!(
            line(&a_service("192.168.0.22", flag::ONE_PACKET, !0)),
            "TCP  C0A80016:0050 wlc ops  \n"
        );
        assert_eq!(
            line(&a_service("2001:db8::1", flag::PERSISTENT, 128)),
            "TCP  [2001:0db8:0000:0000:0000:0000:0000:0001]:0050 wlc persistent 36000 80000000\n"
        );
        let mut mark = a_service("0.0.0.0", 0, !0);
        mark.key = ServiceKey::Mark {
            mark: 0x10001000,
            af: ripvs_api::ipvs::Af::V4,
        };
        assert_eq!(line(&mark), "FWM  10001000 wlc \n");
    }

    #[test]
    fn dests_look_as_in_the_kernel() {
        let line = |d: &Dest| shown(|out| dest(out, d));
        assert_eq!(
            line(&a_dest("192.168.82.22", forward::TUNNEL)),
            "  -> C0A85216:1F90      Tunnel  100    248        2         \n"
        );
        assert_eq!(
            line(&a_dest("fd00::1", forward::MASQ)),
            "  -> [fd00:0000:0000:0000:0000:0000:0000:0001]:1F90      Masq    100    248        2         \n"
        );
    }

    #[test]
    fn the_heading_has_version_and_size() {
        let info = Info {
            version: 0x010201,
            conn_tab_size: 4096,
        };
        let text = shown(|out| services_heading(out, &info));
        assert!(text.starts_with("IP Virtual Server version 1.2.1 (size=4096)\nProt "));
    }

    #[test]
    fn connections_look_as_in_the_kernel() {
        let mut one = a_conn("198.18.0.1", "192.0.2.100", "10.0.0.11");
        assert_eq!(
            shown(|out| conn(out, &one)),
            "TCP C6120001 03E8 C0000264 0050 0A00000B 1F90 ESTABLISHED     899\n"
        );
        assert_eq!(
            shown(|out| conn_sync(out, &one)),
            "TCP C6120001 03E8 C0000264 0050 0A00000B 1F90 ESTABLISHED LOCAL      899\n"
        );
        one.protocol = 17;
        one.pe_name = Some("sip".into());
        one.pe_data = Some(Bytes(b"call@host".to_vec()));
        one.state = "UDP".into();
        assert_eq!(
            shown(|out| conn(out, &one)),
            "UDP C6120001 03E8 C0000264 0050 0A00000B 1F90 UDP             899 sip call@host\n"
        );
        let mixed = a_conn("2001:db8::1", "2001:db8:2::100", "10.0.0.11");
        assert_eq!(
            shown(|out| conn(out, &mixed)),
            "TCP 2001:0db8:0000:0000:0000:0000:0000:0001 03E8 \
             2001:0db8:0002:0000:0000:0000:0000:0100 0050 0A00000B 1F90 ESTABLISHED     899\n"
        );
    }

    #[test]
    fn traffic_looks_as_in_the_kernel() {
        let figures = Stats {
            conns: 23765872,
            inpkts: 3811989221,
            outpkts: 0,
            inbytes: 89991519156915,
            outbytes: 0,
            cps: 4,
            inpps: 0x120b,
            outpps: 0,
            inbps: 0x1ffe5bb,
            outbps: 0,
        };
        let total = Traffic::new(None, &figures);
        assert_eq!(
            shown(|out| stats(out, &total)),
            "   Total Incoming Outgoing         Incoming         Outgoing\n   \
                Conns  Packets  Packets            Bytes            Bytes\n \
              16AA370 E33656E5        0     51D8C8883AB3                0\n\n \
              Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n       \
                    4     120B        0          1FFE5BB                0\n"
        );
        let worker = Traffic::new(Some(10), &Stats::default());
        let text = shown(|out| stats_per_cpu(out, &[worker], &total));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[1],
            "CPU    Conns  Packets  Packets            Bytes            Bytes"
        );
        assert_eq!(
            lines[2],
            "  A        0        0        0                0                0"
        );
        assert_eq!(
            lines[3],
            "  ~  16AA370 E33656E5        0     51D8C8883AB3                0"
        );
        assert_eq!(lines[4], "");
        assert_eq!(
            lines[5],
            "     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s"
        );
        assert_eq!(
            lines[6],
            "           4     120B        0          1FFE5BB                0"
        );
    }
}
