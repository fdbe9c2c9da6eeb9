//! The listing of connections, as the original prints it to the byte.

use ripvs_api::ripvs::Conn;

use crate::list::Format;
use crate::names::{push_number, Names};

/// The two lines above it.
pub fn title(format: Format) -> String {
    let head = format!(
        "IPVS connection entries\npro expire {:<11} {:<18} {:<18}",
        "state", "source", "virtual"
    );
    if format.persistence {
        format!("{head} {:<18} {:<16} pe_data\n", "destination", "pe name")
    } else {
        format!("{head} destination\n")
    }
}

/// Adds the line of a connection to `out`.
pub fn line(out: &mut String, conn: &Conn, format: Format, names: &dyn Names) {
    // Ports have names with TCP and UDP only.
    let protocol = match conn.protocol {
        6 | 17 => conn.protocol.into(),
        _ => 0,
    };
    let show = |out: &mut String, addr, port| {
        names.show_in(out, addr, port, protocol, format.numeric);
    };
    padded(out, 3, |out| push_protocol(out, conn.protocol));
    padded(out, 6, |out| {
        let seconds = conn.expires_ms / 1000;
        let (minutes, seconds) = (seconds / 60, seconds % 60);
        for number in [minutes, seconds] {
            if number < 10 {
                out.push('0');
            }
            match u16::try_from(number) {
                Ok(number) => push_number(out, number),
                Err(_) => *out += &number.to_string(),
            }
            out.push(':');
        }
        out.pop();
    });
    padded(out, 11, |out| out.push_str(&conn.state));
    padded(out, 18, |out| show(out, conn.caddr, conn.cport));
    padded(out, 18, |out| show(out, conn.vaddr, conn.vport));
    match engine(conn).filter(|_| format.persistence) {
        Some((name, data)) => {
            padded(out, 16, |out| show(out, conn.daddr, conn.dport));
            padded(out, 18, |out| out.push_str(name));
            *out += &data;
        }
        None => show(out, conn.daddr, conn.dport),
    }
    out.push('\n');
}

/// Adds what `add` adds, blanks up to `width` bytes, and one more.
fn padded(out: &mut String, width: usize, add: impl FnOnce(&mut String)) {
    let end = out.len() + width;
    add(out);
    while out.len() < end {
        out.push(' ');
    }
    out.push(' ');
}

/// The persistence engine's name and data, where both are there. The data are shown up to the first blank.
fn engine(conn: &Conn) -> Option<(&str, String)> {
    let name = conn.pe_name.as_deref()?;
    let data = String::from_utf8_lossy(&conn.pe_data.as_ref()?.0).into_owned();
    let data = data.split_whitespace().next()?.to_owned();
    Some((name, data))
}

/// A protocol's name, as the kernel lists it.
pub fn protocol_name(protocol: u8) -> String {
    let mut name = String::new();
    push_protocol(&mut name, protocol);
    name
}

fn push_protocol(out: &mut String, protocol: u8) {
    out.push_str(match protocol {
        0 => "IP",
        1 => "ICMP",
        6 => "TCP",
        17 => "UDP",
        58 => "ICMPv6",
        132 => "SCTP",
        _ => "IP_",
    });
    if out.ends_with('_') {
        push_number(out, protocol.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::tests::Fixed;
    use ripvs_api::ripvs::Bytes;

    fn conn(protocol: u8, state: &str, expires: u64, addrs: [(&str, u16); 3]) -> Conn {
        let [client, service, dest] = addrs.map(|(addr, port)| (addr.parse().unwrap(), port));
        Conn {
            protocol,
            caddr: client.0,
            cport: client.1,
            vaddr: service.0,
            vport: service.1,
            daddr: dest.0,
            dport: dest.1,
            state: state.to_owned().into(),
            expires_ms: expires * 1000 + 999,
            flags: 0,
            pe_name: None,
            pe_data: None,
            worker: 0,
        }
    }

    fn reference() -> Vec<Conn> {
        let client = ("192.168.0.1", 49153);
        let http = [client, ("192.0.2.1", 80), ("10.0.0.1", 8080)];
        let dns = [client, ("192.0.2.1", 53), ("10.0.0.1", 53)];
        let ipv6 = [
            ("2001:db8::9", 49153),
            ("2001:db8::1", 80),
            ("2001:db8::a", 8080),
        ];
        let template = [("192.168.0.1", 0), ("192.0.2.1", 80), ("10.0.0.1", 8080)];
        let sip = [client, ("192.0.2.9", 5060), ("10.0.0.1", 5060)];
        vec![
            conn(6, "ESTABLISHED", 895, http),
            conn(17, "UDP", 299, dns),
            conn(6, "FIN_WAIT", 65, ipv6),
            conn(6, "NONE", 3599, template),
            Conn {
                pe_name: Some("sip".into()),
                pe_data: Some(Bytes(b"abc@host".to_vec())),
                ..conn(17, "UDP", 299, sip)
            },
        ]
    }

    fn listing(numeric: bool, persistence: bool) -> String {
        let format = Format {
            numeric,
            persistence,
            ..Format::default()
        };
        let names = Fixed::default();
        let mut text = title(format);
        for conn in reference() {
            line(&mut text, &conn, format, &names);
        }
        text
    }

    #[test]
    fn the_listing_is_that_of_ipvsadm() {
        assert_eq!(
            listing(true, false),
            "IPVS connection entries\n\
             pro expire state       source             virtual            destination\n\
             TCP 14:55  ESTABLISHED 192.168.0.1:49153  192.0.2.1:80       10.0.0.1:8080\n\
             UDP 04:59  UDP         192.168.0.1:49153  192.0.2.1:53       10.0.0.1:53\n\
             TCP 01:05  FIN_WAIT    [2001:db8::9]:49153 [2001:db8::1]:80   [2001:db8::a]:8080\n\
             TCP 59:59  NONE        192.168.0.1:0      192.0.2.1:80       10.0.0.1:8080\n\
             UDP 04:59  UDP         192.168.0.1:49153  192.0.2.9:5060     10.0.0.1:5060\n"
        );
    }

    #[test]
    fn the_listing_with_engines_is_that_of_ipvsadm() {
        assert_eq!(
            listing(true, true),
            "IPVS connection entries\n\
             pro expire state       source             virtual            destination        pe name          pe_data\n\
             TCP 14:55  ESTABLISHED 192.168.0.1:49153  192.0.2.1:80       10.0.0.1:8080\n\
             UDP 04:59  UDP         192.168.0.1:49153  192.0.2.1:53       10.0.0.1:53\n\
             TCP 01:05  FIN_WAIT    [2001:db8::9]:49153 [2001:db8::1]:80   [2001:db8::a]:8080\n\
             TCP 59:59  NONE        192.168.0.1:0      192.0.2.1:80       10.0.0.1:8080\n\
             UDP 04:59  UDP         192.168.0.1:49153  192.0.2.9:5060     10.0.0.1:5060    sip                abc@host\n"
        );
    }

    #[test]
    fn ports_have_names_with_tcp_and_udp_only() {
        let format = Format::default();
        let names = Fixed::default();
        let addrs = [("198.18.0.1", 1000), ("127.0.0.1", 80), ("10.0.0.1", 80)];
        let line = |conn| {
            let mut text = String::new();
            super::line(&mut text, &conn, format, &names);
            text
        };
        let tcp = line(conn(6, "SYN_RECV", 59, addrs));
        assert_eq!(
            tcp,
            "TCP 00:59  SYN_RECV    198.18.0.1:1000    localhost:http     10.0.0.1:http\n"
        );
        let sctp = line(conn(132, "INIT1", 3, addrs));
        assert_eq!(
            sctp,
            "SCTP 00:03  INIT1       198.18.0.1:1000    localhost:80       10.0.0.1:80\n"
        );
    }
}
