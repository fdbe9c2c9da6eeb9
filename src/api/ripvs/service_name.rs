//! A virtual service in words: `tcp 192.0.2.100:80`, `udp [2001:db8::1]:53`, `mark 7`, `mark6 7`.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::field::field;
use crate::ipvs::{Af, ServiceKey};

const PROTOCOLS: [(&str, u16); 3] = [("tcp", 6), ("udp", 17), ("sctp", 132)];

/// What a service is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceName(pub ServiceKey);

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ServiceKey::Addr {
                protocol,
                addr,
                port,
            } => {
                let known = PROTOCOLS.iter().find(|(_, number)| *number == protocol);
                let at = SocketAddr::new(addr, port);
                match known {
                    Some((name, _)) => write!(f, "{name} {at}"),
                    None => write!(f, "{protocol} {at}"),
                }
            }
            ServiceKey::Mark { mark, af: Af::V4 } => write!(f, "mark {mark}"),
            ServiceKey::Mark { mark, af: Af::V6 } => write!(f, "mark6 {mark}"),
        }
    }
}

impl FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<ServiceName, String> {
        let error = || {
            format!("`{text}` is no service (such as `tcp 192.0.2.100:80`, `udp [2001:db8::1]:53`, `mark 7`, `mark6 7`)")
        };
        let (kind, rest) = text.trim().split_once(' ').ok_or_else(error)?;
        let rest = rest.trim();
        let af = match kind {
            "mark" => Some(Af::V4),
            "mark6" => Some(Af::V6),
            _ => None,
        };
        if let Some(af) = af {
            let mark = rest.parse().ok().filter(|mark| *mark != 0);
            let mark = mark.ok_or_else(error)?;
            return Ok(ServiceName(ServiceKey::Mark { mark, af }));
        }
        let protocol = PROTOCOLS.iter().find(|(name, _)| *name == kind);
        let (_, protocol) = *protocol.ok_or_else(error)?;
        let at: SocketAddr = rest.parse().map_err(|_| error())?;
        Ok(ServiceName(ServiceKey::Addr {
            protocol,
            addr: at.ip(),
            port: at.port(),
        }))
    }
}

impl Serialize for ServiceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

field!(
    ServiceName,
    |name: &ServiceName| name.to_string(),
    |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse().ok()
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_s_words_are_read_as_they_are_written() {
        for text in [
            "tcp 192.0.2.100:80",
            "udp [2001:db8::1]:53",
            "sctp 192.0.2.100:0",
            "mark 7",
            "mark6 4294967295",
        ] {
            let name: Result<ServiceName, String> = text.parse();
            assert_eq!(name.map(|name| name.to_string()), Ok(text.to_string()));
        }
    }

    #[test]
    fn what_is_no_service_is_refused() {
        for text in [
            "",
            "tcp",
            "tcp 192.0.2.100",
            "icmp 192.0.2.100:80",
            "udp 2001:db8::1:53",
            "mark 0",
            "mark -1",
            "mark 4294967296",
            "192.0.2.100:80",
        ] {
            assert!(text.parse::<ServiceName>().is_err(), "{text}");
        }
    }
}
