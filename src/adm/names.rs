//! Names of hosts and services: what the operator types to numbers, and numbers to what listings show.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};

/// The protocols that have named services.
const PROTOCOLS: [(u16, &str); 3] = [(6, "tcp"), (17, "udp"), (132, "sctp")];

/// Where names come from. The system's in the program, fixed ones in tests.
pub trait Names {
    /// The first IPv4 address of a host, as gethostbyname finds it.
    fn host(&self, name: &str) -> Option<Ipv4Addr>;
    /// The name of an address, if it has one.
    fn host_name(&self, addr: Ipv4Addr) -> Option<String>;
    /// The port of a service of protocol `protocol`.
    fn port(&self, name: &str, protocol: u16) -> Option<u16>;
    /// The name of the service at a port of protocol `protocol`.
    fn service(&self, port: u16, protocol: u16) -> Option<String>;

    /// An address and port as listings show them: by number, or by name where they have one. IPv6 addresses are always
    /// shown by number, as in the original, which asks for their names in a way that finds none.
    fn show(&self, addr: IpAddr, port: u16, protocol: u16, numeric: bool) -> String {
        let mut text = String::with_capacity(LONGEST + 8);
        self.show_in(&mut text, addr, port, protocol, numeric);
        text
    }

    /// Adds what [`Names::show`] gives to `out`.
    fn show_in(&self, out: &mut String, addr: IpAddr, port: u16, protocol: u16, numeric: bool) {
        let start = out.len();
        match addr {
            IpAddr::V4(addr) => match (!numeric).then(|| self.host_name(addr)).flatten() {
                Some(name) => out.push_str(&name),
                None => push_ipv4(out, addr),
            },
            // Writing to a String cannot fail.
            IpAddr::V6(addr) => drop(write!(out, "[{addr}]")),
        }
        out.push(':');
        match (!numeric).then(|| self.service(port, protocol)).flatten() {
            Some(name) => out.push_str(&name),
            None => push_number(out, port),
        }
        // Only names may be that long; they may have more bytes than characters.
        if out.len() - start > LONGEST {
            if let Some((end, _)) = out[start..].char_indices().nth(LONGEST) {
                out.truncate(start + end);
            }
        }
    }
}

/// The length of the original's buffer.
const LONGEST: usize = 59;

/// Adds an address by its numbers; listings of millions of connections are made of little else.
fn push_ipv4(out: &mut String, addr: Ipv4Addr) {
    let [a, b, c, d] = addr.octets();
    push_number(out, a.into());
    for byte in [b, c, d] {
        out.push('.');
        push_number(out, byte.into());
    }
}

/// Adds a number in decimal.
pub fn push_number(out: &mut String, number: u16) {
    let mut digits = [0; 5];
    let (mut at, mut rest) = (digits.len(), number);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend(digits[at..].iter().map(|digit| char::from(*digit)));
}

/// The system's names: its resolver and /etc/services. What was found is kept, as listings repeat themselves.
#[derive(Default)]
pub struct System {
    services: RefCell<Option<Services>>,
    hosts: RefCell<HashMap<Ipv4Addr, Option<String>>>,
}

impl System {
    fn with_services<T>(&self, get: impl FnOnce(&Services) -> T) -> T {
        let mut services = self.services.borrow_mut();
        get(services.get_or_insert_with(|| {
            // A system without the file has no named services.
            Services::parse(&fs::read_to_string("/etc/services").unwrap_or_default())
        }))
    }
}

impl Names for System {
    fn host(&self, name: &str) -> Option<Ipv4Addr> {
        if name.is_empty() {
            return None;
        }
        let found = (name, 0).to_socket_addrs().ok()?;
        let ipv4 = |addr: std::net::SocketAddr| match addr.ip() {
            IpAddr::V4(addr) => Some(addr),
            IpAddr::V6(_) => None,
        };
        found.filter_map(ipv4).next()
    }

    fn host_name(&self, addr: Ipv4Addr) -> Option<String> {
        let look_up = || {
            let name = dns_lookup::lookup_addr(&addr.into()).ok()?;
            (name != addr.to_string()).then_some(name)
        };
        self.hosts
            .borrow_mut()
            .entry(addr)
            .or_insert_with(look_up)
            .clone()
    }

    fn port(&self, name: &str, protocol: u16) -> Option<u16> {
        self.with_services(|services| services.port(name, protocol))
    }

    fn service(&self, port: u16, protocol: u16) -> Option<String> {
        self.with_services(|services| services.name(port, protocol).map(str::to_owned))
    }
}

/// The entries of a services(5) file. Of several that fit, the first counts.
#[derive(Debug, Default)]
pub struct Services {
    by_name: HashMap<(String, u16), u16>,
    by_port: HashMap<(u16, u16), String>,
}

impl Services {
    /// Reads the text of the file; lines that make no sense are passed over.
    pub fn parse(text: &str) -> Services {
        let mut services = Services::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or(line);
            let mut words = line.split_whitespace();
            let (Some(name), Some(at)) = (words.next(), words.next()) else {
                continue;
            };
            let Some((port, protocol)) = at.split_once('/') else {
                continue;
            };
            let protocol = PROTOCOLS.iter().find(|(_, known)| *known == protocol);
            let (Some((protocol, _)), Ok(port)) = (protocol, port.parse()) else {
                continue;
            };
            let entry = services.by_port.entry((port, *protocol));
            entry.or_insert_with(|| name.to_owned());
            for name in std::iter::once(name).chain(words) {
                let entry = services.by_name.entry((name.to_owned(), *protocol));
                entry.or_insert(port);
            }
        }
        services
    }

    /// The port of a service by its name or one of its aliases.
    pub fn port(&self, name: &str, protocol: u16) -> Option<u16> {
        self.by_name.get(&(name.to_owned(), protocol)).copied()
    }

    /// The name of the service at a port.
    pub fn name(&self, port: u16, protocol: u16) -> Option<&str> {
        self.by_port.get(&(port, protocol)).map(String::as_str)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A few names that do not depend on the machine.
    pub struct Fixed(Services);

    impl Default for Fixed {
        fn default() -> Fixed {
            Fixed(Services::parse(
                "http 80/tcp www # World Wide Web\n\
                 https 443/tcp\nsnpp 444/tcp\ndomain 53/udp\ndomain 53/tcp\nsyslog 514/udp\n\
                 sip 5060/udp\nhttp-alt 8080/tcp webcache\nkerberos 88/tcp\n",
            ))
        }
    }

    impl Names for Fixed {
        fn host(&self, name: &str) -> Option<Ipv4Addr> {
            (name == "localhost").then_some(Ipv4Addr::LOCALHOST)
        }

        fn host_name(&self, addr: Ipv4Addr) -> Option<String> {
            addr.is_loopback().then(|| "localhost".to_owned())
        }

        fn port(&self, name: &str, protocol: u16) -> Option<u16> {
            self.0.port(name, protocol)
        }

        fn service(&self, port: u16, protocol: u16) -> Option<String> {
            self.0.name(port, protocol).map(str::to_owned)
        }
    }

    #[test]
    fn services_are_found_by_name_alias_and_port_of_their_protocol() {
        let names = Fixed::default();
        assert_eq!(names.port("www", 6), Some(80));
        assert_eq!(names.port("http", 17), None);
        assert_eq!(names.service(80, 6).as_deref(), Some("http"));
        assert_eq!(names.service(80, 132), None);
        assert_eq!(names.service(80, 0), None);
    }

    #[test]
    fn addresses_are_shown_by_name_unless_numbers_are_asked_for() {
        let names = Fixed::default();
        let local = "127.0.0.1".parse().unwrap();
        assert_eq!(names.show(local, 80, 6, false), "localhost:http");
        assert_eq!(names.show(local, 80, 6, true), "127.0.0.1:80");
        let ipv6 = "::1".parse().unwrap();
        assert_eq!(names.show(ipv6, 80, 6, false), "[::1]:http");
    }

    #[test]
    fn nonsense_in_the_file_is_passed_over() {
        let services = Services::parse("a\nb 1\nc x/tcp\nd 4/ddp\n# e 5/tcp\nf 6/tcp");
        assert_eq!(services.port("f", 6), Some(6));
        assert_eq!(services.by_name.len(), 1);
    }
}
