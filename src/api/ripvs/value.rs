//! Small values of the family: MAC addresses, prefixes, port ranges.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::field::{field, Field};
use crate::nl::{u16_at, DecodeError, Writer};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Mac, String> {
        let error = || format!("`{text}` is no MAC address (such as 02:00:00:00:00:01)");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(error)?;
            if part.len() > 2 || part.starts_with('+') {
                return Err(error());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        match parts.next() {
            Some(_) => Err(error()),
            None => Ok(Mac(bytes)),
        }
    }
}

/// An address with a prefix length: a network, or an address with its network's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The address; bits behind the prefix are as they were given.
    pub addr: IpAddr,
    /// Length in bits, at most 32 or 128.
    pub len: u8,
}

impl Prefix {
    /// The prefix, if its length is one for the family.
    pub fn new(addr: IpAddr, len: u8) -> Option<Prefix> {
        let most = if addr.is_ipv4() { 32 } else { 128 };
        (len <= most).then_some(Prefix { addr, len })
    }

    /// The one address as a prefix.
    pub fn host(addr: IpAddr) -> Prefix {
        let len = if addr.is_ipv4() { 32 } else { 128 };
        Prefix { addr, len }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.addr, self.len))
    }
}

impl FromStr for Prefix {
    type Err = String;

    /// `ADDRESS/LENGTH`, or an address alone, or `default` (IPv4) and `default6`.
    fn from_str(text: &str) -> Result<Prefix, String> {
        let error = || format!("`{text}` is no prefix (such as 10.0.0.0/24 or 2001:db8::/64)");
        match text {
            "default" => return Prefix::new(Ipv4Addr::UNSPECIFIED.into(), 0).ok_or_else(error),
            "default6" => return Prefix::new(Ipv6Addr::UNSPECIFIED.into(), 0).ok_or_else(error),
            _ => {}
        }
        match text.split_once('/') {
            None => Ok(Prefix::host(text.parse().map_err(|_| error())?)),
            Some((addr, len)) => {
                let (addr, len) = (addr.parse().ok(), len.parse().ok());
                addr.zip(len)
                    .and_then(|(addr, len)| Prefix::new(addr, len))
                    .ok_or_else(error)
            }
        }
    }
}

/// Transport ports from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// The first, host byte order.
    pub first: u16,
    /// The last, not less than the first.
    pub last: u16,
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<PortRange, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if first <= last => Ok(PortRange { first, last }),
            _ => Err(format!(
                "`{text}` is no port or range (such as 80 or 1000-2000)"
            )),
        }
    }
}

/// Bytes that need not be text; in JSON a string, where what is no UTF-8 is replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(&self.0))
    }
}

macro_rules! serialize_as_text {
    ($($type:ty),*) => {
        $(impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        })*
    };
}
serialize_as_text!(Mac, Prefix, PortRange);

/// An address from 4 or 16 bytes.
fn addr_from(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn addr_to(addr: &IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

impl Field for IpAddr {
    fn put(&self, number: u16, w: &mut Writer) {
        match self {
            IpAddr::V4(addr) => w.attr(number, &addr.octets()),
            IpAddr::V6(addr) => w.attr(number, &addr.octets()),
        }
    }

    fn take(slot: &mut Option<IpAddr>, bytes: &[u8]) -> Result<(), DecodeError> {
        *slot = Some(addr_from(bytes).ok_or(DecodeError::Invalid("IpAddr"))?);
        Ok(())
    }
}

field!(Mac, |v: &Mac| v.0, |b: &[u8]| b.try_into().ok().map(Mac));
field!(Bytes, |v: &Bytes| v.0.clone(), |b: &[u8]| Some(Bytes(
    b.to_vec()
)));
field!(
    Prefix,
    |v: &Prefix| {
        let mut bytes = addr_to(&v.addr);
        bytes.push(v.len);
        bytes
    },
    |b: &[u8]| {
        let (len, addr) = b.split_last()?;
        Prefix::new(addr_from(addr)?, *len)
    }
);
field!(
    PortRange,
    |v: &PortRange| {
        let ([a, b], [c, d]) = (v.first.to_ne_bytes(), v.last.to_ne_bytes());
        [a, b, c, d]
    },
    |b: &[u8]| {
        let (first, last) = (u16_at(b, 0)?, u16_at(b, 2)?);
        (first <= last).then_some(PortRange { first, last })
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_as_it_is_shown() {
        for text in ["02:00:00:00:0a:01", "ff:ff:ff:ff:ff:ff"] {
            assert_eq!(
                text.parse::<Mac>().map(|mac| mac.to_string()),
                Ok(text.into())
            );
        }
        for text in ["10.0.0.0/24", "2001:db8::/64", "0.0.0.0/0", "::/0"] {
            let found = text.parse::<Prefix>();
            assert_eq!(found.map(|prefix| prefix.to_string()), Ok(text.into()));
        }
        for text in ["80", "1-65535"] {
            let found = text.parse::<PortRange>();
            assert_eq!(found.map(|range| range.to_string()), Ok(text.into()));
        }
    }

    #[test]
    fn an_address_alone_and_the_default_are_prefixes() {
        assert_eq!("10.0.0.1".parse::<Prefix>().unwrap().len, 32);
        assert_eq!("::1".parse::<Prefix>().unwrap().len, 128);
        assert_eq!(
            "default".parse::<Prefix>().unwrap().to_string(),
            "0.0.0.0/0"
        );
        assert_eq!("default6".parse::<Prefix>().unwrap().to_string(), "::/0");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "1:2:3:4:5",
            "1:2:3:4:5:6:7",
            "g:0:0:0:0:0",
            "001:2:3:4:5:6",
            "+1:2:3:4:5:6",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/24",
            "x",
            "10.0.0.0/",
            "/8",
        ] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
        for text in ["", "5-1", "65536", "a", "1-", "-5"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }
}
