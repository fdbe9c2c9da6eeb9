//! Addresses as operators type them: of services and real servers, with a port or without, and of multicast groups.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cnum::{inet_aton, number};
use crate::names::Names;

/// An address, and a port where there is one: `HOST[:PORT]`, `[IPV6]:PORT`, or `IPV6` alone.
pub fn parse(names: &dyn Names, text: &str, protocol: u16) -> Option<(IpAddr, Option<u16>)> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) = inner.split_once(']')?;
            (host, Some(rest.strip_prefix(':')?))
        }
        None => (text, None),
    };
    let (addr, port) = match host.parse::<Ipv6Addr>() {
        Ok(addr) => (IpAddr::V6(addr), port),
        Err(_) => {
            // As in the original, a port behind brackets counts only with an IPv6 address in them.
            let (host, port) = match host.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (host, None),
            };
            let addr = inet_aton(host).or_else(|| names.host(host))?;
            (IpAddr::V4(addr), port)
        }
    };
    match port {
        None => Some((addr, None)),
        Some(port) => {
            let found = number(port, 0, 65_535).map(|port| port as u16);
            let port = found.or_else(|| names.port(port, protocol))?;
            Some((addr, Some(port)))
        }
    }
}

/// A multicast address.
///
/// # Errors
/// The message, where it is none.
pub fn multicast(value: &str) -> Result<IpAddr, String> {
    let (found, family) = if value.contains(':') {
        let found = value.parse::<Ipv6Addr>().ok();
        (found.map(IpAddr::V6), "IPv6")
    } else {
        let found = value.parse::<Ipv4Addr>().ok();
        (found.map(IpAddr::V4), "IPv4")
    };
    found
        .filter(IpAddr::is_multicast)
        .ok_or_else(|| format!("invalid {family} mcast-group `{value}'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::tests::Fixed;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Option<(String, Option<u16>)> {
        let found = parse(&Fixed::default(), text, 6);
        found.map(|(addr, port)| (addr.to_string(), port))
    }

    #[test]
    fn addresses_have_a_port_or_none() {
        for (text, addr, port) in [
            ("192.0.2.1:80", "192.0.2.1", Some(80)),
            ("192.0.2.1:http", "192.0.2.1", Some(80)),
            ("192.0.2.1", "192.0.2.1", None),
            ("10.1:+84", "10.0.0.1", Some(84)),
            ("localhost:0", "127.0.0.1", Some(0)),
            ("2001:db8::100:80", "2001:db8::100:80", None),
            ("[2001:db8::1]:443", "2001:db8::1", Some(443)),
            ("[192.0.2.1]:89", "192.0.2.1", None),
        ] {
            assert_eq!(parsed(text), Some((addr.to_owned(), port)), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "80",
            ":80",
            "foo:80",
            "192.0.2.1:",
            "192.0.2.1:99999",
            "192.0.2.1:foo",
            "[::1]",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[]:80",
            "fe80::1%lo",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn groups_are_multicast_addresses() {
        assert!(multicast("224.0.0.81").is_ok());
        assert!(multicast("ff02::51").is_ok());
        let ipv4 = Err("invalid IPv4 mcast-group `10.0.0.1'".to_owned());
        assert_eq!(multicast("10.0.0.1"), ipv4);
        let ipv6 = Err("invalid IPv6 mcast-group `2001:db8::1'".to_owned());
        assert_eq!(multicast("2001:db8::1"), ipv6);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in r"[\[\]:.0-9a-f%]{0,20}|.{0,20}") {
            let _ = parsed(&text);
        }
    }
}
