//! The kinds of value that a configuration is made of: each is read from text, says what would have been right where the
//! text isn't, and cannot hold anything else afterwards. Used for the file's fields and the command line's alike.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ripvs_api::ripvs::ServiceName;
use serde::{Deserialize, Deserializer};

/// Lets a type be read from a TOML string by its `FromStr`.
macro_rules! from_text {
    ($($kind:ty),+) => {$(
        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

from_text!(
    Cidr,
    Prefix,
    Mac,
    Device,
    PortRange,
    FileMode,
    Protocol,
    InterfaceName,
    BondMode,
    Service
);

/// Splits `ADDRESS/LENGTH` and checks the length against the family.
fn address_and_length(text: &str) -> Result<(IpAddr, u8), String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address
        .parse()
        .map_err(|_| format!("`{address}` is no IPv4 or IPv6 address"))?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => most,
        Some(text) => text
            .parse()
            .ok()
            .filter(|length| *length <= most)
            .ok_or_else(|| {
                format!("`/{text}` is no prefix length for {address}: 0 to {most} would be")
            })?,
    };
    Ok((address, length))
}

/// A virtual service: `tcp 192.0.2.100:80`, `mark 7`.
#[derive(Clone, Copy, Debug)]
pub struct Service(pub ServiceName);

impl FromStr for Service {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Service)
    }
}

/// An address of an interface with the length of its network's prefix: `198.18.0.254/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The address itself.
    pub address: IpAddr,
    /// Length of the prefix that is on the link, in bits.
    pub length: u8,
}

impl FromStr for Cidr {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, length) = address_and_length(text)?;
        if !text.contains('/') {
            let (usual, most) = if address.is_ipv4() {
                (24, 32)
            } else {
                (64, 128)
            };
            return Err(format!(
                "`{text}` lacks the length of its network's prefix: {text}/{usual} where that is the network, \
                 {text}/{most} for the address alone"
            ));
        }
        if address.is_multicast() || address.is_unspecified() {
            return Err(format!("{address} cannot be an interface's address"));
        }
        Ok(Cidr { address, length })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.length)
    }
}

/// A network: an address with no bits set behind its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The network's address.
    pub address: IpAddr,
    /// Length in bits.
    pub length: u8,
}

impl Prefix {
    /// The network that `address` is in with prefixes of that length.
    pub fn of(address: IpAddr, length: u8) -> Prefix {
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
            }
        };
        Prefix { address, length }
    }

    /// Whether `address` is of the family and within the prefix.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && Prefix::of(address, self.length) == *self
    }
}

impl FromStr for Prefix {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "default" {
            return Ok(Prefix::of(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
        }
        if text == "default6" {
            return Ok(Prefix::of(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0));
        }
        let (address, length) = address_and_length(text)?;
        let prefix = Prefix::of(address, length);
        if prefix.address != address {
            return Err(format!(
                "{text} has bits set behind its prefix; the network is {prefix}"
            ));
        }
        Ok(prefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.length)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no MAC address; one looks like 02:00:00:00:00:01");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        if bytes[0] & 1 != 0 {
            return Err(format!(
                "{text} is a group address (its first byte is odd), which no interface can have"
            ));
        }
        Ok(Mac(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// What DPDK is to drive: a PCI device or one of its virtual devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// A PCI address, domain included.
    Pci(String),
    /// A virtual device with its arguments, as DPDK's `--vdev` takes it.
    Vdev(String),
}

impl Device {
    /// The name by which DPDK knows the device.
    pub fn name(&self) -> &str {
        match self {
            Device::Pci(address) => address,
            Device::Vdev(text) => text.split(',').next().unwrap_or(text),
        }
    }

    /// The driver's name with its digits removed, `net_tap` say; empty for a PCI device.
    pub fn driver(&self) -> &str {
        match self {
            Device::Pci(_) => "",
            Device::Vdev(_) => self.name().trim_end_matches(|c: char| c.is_ascii_digit()),
        }
    }
}

impl FromStr for Device {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("net_") && text.len() > 4 && !text.contains(char::is_whitespace) {
            return Ok(Device::Vdev(text.to_string()));
        }
        let hex = |part: &str, digits: usize| {
            part.len() == digits && part.chars().all(|c| c.is_ascii_hexdigit())
        };
        let full = if text.matches(':').count() == 1 {
            format!("0000:{text}")
        } else {
            text.to_string()
        };
        let mut parts = full.split([':', '.']);
        let fits = [4, 2, 2, 1]
            .iter()
            .all(|digits| parts.next().is_some_and(|part| hex(part, *digits)))
            && parts.next().is_none()
            && full.as_bytes().get(10) == Some(&b'.')
            // 32 devices on a bus, 8 functions of a device.
            && matches!(full.as_bytes().get(8), Some(b'0' | b'1'))
            && matches!(full.as_bytes().get(11), Some(b'0'..=b'7'));
        if fits {
            return Ok(Device::Pci(full.to_ascii_lowercase()));
        }
        Err(format!(
            "`{text}` is neither a PCI address such as 0000:03:00.0 nor a virtual device such as \
             net_tap0,iface=dtap0 or net_af_packet0,iface=veth1"
        ))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Pci(text) | Device::Vdev(text) => out.write_str(text),
        }
    }
}

/// Transport ports from the first to the last, both included: `80`, `1000-2000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

impl FromStr for PortRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is neither a port (80) nor a range of ports (1000-2000)");
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let first = first.trim().parse().map_err(|_| wrong())?;
        let last = last.trim().parse().map_err(|_| wrong())?;
        if first > last {
            return Err(format!("`{text}` ends before it begins; {last}-{first}?"));
        }
        Ok(PortRange { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(out, "{}", self.first)
        } else {
            write!(out, "{}-{}", self.first, self.last)
        }
    }
}

/// Permissions of a file, written in octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl FromStr for FileMode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .map(FileMode)
            .ok_or_else(|| format!("`{text}` is no file mode; one looks like \"0660\""))
    }
}

/// An IP protocol, by name or number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol(pub u8);

impl Protocol {
    const NAMES: [(&'static str, u8); 7] = [
        ("tcp", 6),
        ("udp", 17),
        ("sctp", 132),
        ("icmp", 1),
        ("icmpv6", 58),
        ("esp", 50),
        ("ah", 51),
    ];
}

impl FromStr for Protocol {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::NAMES.iter().find(|(name, _)| *name == text);
        match named {
            Some((_, number)) => Ok(Protocol(*number)),
            None => text.parse().map(Protocol).map_err(|_| {
                format!("`{text}` is no protocol: tcp, udp, sctp, icmp, icmpv6, esp, ah or a number up to 255 would be")
            }),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => out.write_str(name),
            None => write!(out, "{}", self.0),
        }
    }
}

/// An interface's name, within what the kernel allows for its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceName(pub String);

impl FromStr for InterfaceName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fits = (1..=15).contains(&text.len())
            && !matches!(text, "." | "..")
            && text
                .chars()
                .all(|c| c.is_ascii_graphic() && c != '/' && c != ':' && c != ',' && c != '=');
        if fits {
            Ok(InterfaceName(text.to_string()))
        } else {
            Err(format!(
                "`{text}` cannot be an interface's name: 1 to 15 characters without blanks, `/`, `:`, `,` and `=`"
            ))
        }
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// How a bond uses its members, under the kernel's names; the numbers are DPDK's, which are the kernel's too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BondMode(pub u8);

impl BondMode {
    const NAMES: [&'static str; 7] = [
        "balance-rr",
        "active-backup",
        "balance-xor",
        "broadcast",
        "802.3ad",
        "balance-tlb",
        "balance-alb",
    ];

    /// The mode's name.
    pub fn name(self) -> &'static str {
        Self::NAMES.get(usize::from(self.0)).copied().unwrap_or("")
    }
}

impl FromStr for BondMode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::NAMES
            .iter()
            .position(|name| *name == text)
            .map(|number| BondMode(number as u8))
            .ok_or_else(|| {
                format!(
                    "`{text}` is no bonding mode; there are {}",
                    Self::NAMES.join(", ")
                )
            })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_a_pci_address_or_a_virtual_device() {
        assert_eq!(
            "0000:03:00.0".parse(),
            Ok(Device::Pci("0000:03:00.0".into()))
        );
        assert_eq!("03:00.1".parse(), Ok(Device::Pci("0000:03:00.1".into())));
        let tap: Device = "net_tap12,iface=dtap0".parse().unwrap();
        assert_eq!((tap.name(), tap.driver()), ("net_tap12", "net_tap"));
        for wrong in [
            "eth0",
            "0000:03:00",
            "0000:03:20.0",
            "0000:03:00.8",
            "0000-03-00.0",
            "net_",
            "0000:03.00:0",
            "",
        ] {
            assert!(wrong.parse::<Device>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_prefix_with_host_bits_is_refused_and_the_right_one_named() {
        let error = "10.0.0.1/24".parse::<Prefix>().unwrap_err();
        assert!(error.contains("10.0.0.0/24"), "{error}");
        assert!("10.0.0.0/24".parse::<Prefix>().is_ok());
        assert!("2001:db8::/32".parse::<Prefix>().is_ok());
        assert!("10.0.0.0/33".parse::<Prefix>().is_err());
        assert!("0.0.0.0/0"
            .parse::<Prefix>()
            .unwrap()
            .contains("1.2.3.4".parse().unwrap()));
        assert!(!"0.0.0.0/0"
            .parse::<Prefix>()
            .unwrap()
            .contains("::1".parse().unwrap()));
    }

    #[test]
    fn a_group_address_is_no_interface_s_mac() {
        assert!("01:00:5e:00:00:01".parse::<Mac>().is_err());
        assert_eq!(
            "02:00:00:00:00:0a".parse::<Mac>().unwrap().to_string(),
            "02:00:00:00:00:0a"
        );
        for wrong in [
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "02-00-00-00-00-01",
        ] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ranges_of_ports_do_not_run_backwards() {
        assert_eq!(
            "80".parse(),
            Ok(PortRange {
                first: 80,
                last: 80
            })
        );
        assert_eq!(
            "1000-2000".parse(),
            Ok(PortRange {
                first: 1000,
                last: 2000
            })
        );
        assert!("2000-1000"
            .parse::<PortRange>()
            .unwrap_err()
            .contains("1000-2000"));
        assert!("70000".parse::<PortRange>().is_err());
    }
}
