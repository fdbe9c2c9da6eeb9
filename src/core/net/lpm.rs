//! Longest prefix match: one hash table for each prefix length in use, tried from the longest on. A lookup costs no more than
//! the number of different lengths; adding or removing a prefix costs one hash insertion.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::growing::GrowMap;

/// An address and a prefix length, in one family; host bits are cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

/// An address as bits, left-aligned, so that both families share one table's code.
#[inline]
fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(a) => u128::from(u32::from(a)) << 96,
        IpAddr::V6(a) => u128::from(a),
    }
}

/// The first `len` bits, the others 0.
#[inline]
fn mask(bits: u128, len: u8) -> u128 {
    match len {
        0 => 0,
        _ => bits & (u128::MAX << (128 - u32::from(len))),
    }
}

impl Prefix {
    /// The network of `addr` with a prefix of `len` bits; `None` where the family has no such length.
    pub fn new(addr: IpAddr, len: u8) -> Option<Prefix> {
        let max = if addr.is_ipv4() { 32 } else { 128 };
        if len > max {
            return None;
        }
        let masked = mask(bits(addr), len);
        let addr = match addr {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from((masked >> 96) as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(masked)),
        };
        Some(Prefix { addr, len })
    }

    /// The prefix that holds this address alone.
    pub fn host(addr: IpAddr) -> Prefix {
        let len = if addr.is_ipv4() { 32 } else { 128 };
        Prefix { addr, len }
    }

    /// The network's address.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// The prefix length in bits.
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether it is a default route's prefix, of length 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the prefix holds this address; never one of the other family.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.addr.is_ipv4() == addr.is_ipv4() && mask(bits(addr), self.len) == bits(self.addr)
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

/// How many leading bits two addresses of one family have in common.
pub fn common_prefix(a: IpAddr, b: IpAddr) -> u8 {
    let max = if a.is_ipv4() { 32 } else { 128 };
    (bits(a) ^ bits(b)).leading_zeros().min(max) as u8
}

/// One length's prefixes.
struct Level<T> {
    len: u8,
    map: GrowMap<u128, T>,
}

/// Prefixes of one family.
struct Family<T> {
    /// Longest first.
    levels: Vec<Level<T>>,
}

impl<T> Family<T> {
    fn level(&mut self, len: u8) -> &mut GrowMap<u128, T> {
        let at = self.levels.partition_point(|level| level.len > len);
        if self.levels.get(at).is_none_or(|level| level.len != len) {
            let map = GrowMap::default();
            self.levels.insert(at, Level { len, map });
        }
        &mut self.levels[at].map
    }
}

/// A table from prefixes of both families to values.
pub struct Lpm<T> {
    v4: Family<T>,
    v6: Family<T>,
}

impl<T> Default for Lpm<T> {
    fn default() -> Self {
        Lpm {
            v4: Family { levels: Vec::new() },
            v6: Family { levels: Vec::new() },
        }
    }
}

impl<T> Lpm<T> {
    fn family(&self, addr: IpAddr) -> &Family<T> {
        if addr.is_ipv4() {
            &self.v4
        } else {
            &self.v6
        }
    }

    fn family_mut(&mut self, addr: IpAddr) -> &mut Family<T> {
        if addr.is_ipv4() {
            &mut self.v4
        } else {
            &mut self.v6
        }
    }

    /// The values of all prefixes that hold `addr`, the longest prefix first.
    #[inline]
    pub fn matches(&self, addr: IpAddr) -> impl Iterator<Item = &T> {
        let key = bits(addr);
        self.family(addr)
            .levels
            .iter()
            .filter_map(move |level| level.map.get(&mask(key, level.len)))
    }

    /// The value of the longest prefix that holds `addr`.
    #[inline]
    pub fn lookup(&self, addr: IpAddr) -> Option<&T> {
        self.matches(addr).next()
    }

    /// The value of exactly this prefix.
    pub fn get(&self, prefix: Prefix) -> Option<&T> {
        let family = self.family(prefix.addr);
        let level = family.levels.iter().find(|level| level.len == prefix.len)?;
        level.map.get(&bits(prefix.addr))
    }

    /// The value of exactly this prefix, put there where there was none.
    pub fn entry(&mut self, prefix: Prefix) -> &mut T
    where
        T: Default,
    {
        self.family_mut(prefix.addr)
            .level(prefix.len)
            .or_default(bits(prefix.addr))
    }

    /// Removes a prefix.
    pub fn remove(&mut self, prefix: Prefix) -> Option<T> {
        let family = self.family_mut(prefix.addr);
        let at = family
            .levels
            .iter()
            .position(|level| level.len == prefix.len)?;
        let gone = family.levels[at].map.remove(&bits(prefix.addr));
        if family.levels[at].map.is_empty() {
            family.levels.remove(at);
        }
        gone
    }

    /// Whether there is no prefix at all.
    pub fn is_empty(&self) -> bool {
        self.v4.levels.is_empty() && self.v6.levels.is_empty()
    }

    /// All prefixes with their values, IPv4 first, longest first.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, &T)> {
        let v4 = self.v4.levels.iter().flat_map(|level| {
            level.map.iter().map(|(key, value)| {
                let addr = IpAddr::V4(Ipv4Addr::from((key >> 96) as u32));
                let len = level.len;
                (Prefix { addr, len }, value)
            })
        });
        let v6 = self.v6.levels.iter().flat_map(|level| {
            level.map.iter().map(|(key, value)| {
                let addr = IpAddr::V6(Ipv6Addr::from(*key));
                let len = level.len;
                (Prefix { addr, len }, value)
            })
        });
        v4.chain(v6)
    }

    /// All values, for changing.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let levels = self.v4.levels.iter_mut().chain(&mut self.v6.levels);
        levels.flat_map(|level| level.map.values_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Few distinct bits, so that prefixes nest and addresses hit them.
    fn addr() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0u32..16, 0u32..4).prop_map(|(hi, lo)| IpAddr::V4(Ipv4Addr::from(hi << 28 | lo))),
            (0u128..16, 0u128..4).prop_map(|(hi, lo)| IpAddr::V6(Ipv6Addr::from(hi << 124 | lo))),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_list_searched_from_end_to_end(
            steps in proptest::collection::vec((any::<bool>(), addr(), 0u8..=128), 0..60),
            asked in proptest::collection::vec(addr(), 20),
        ) {
            let mut lpm: Lpm<usize> = Lpm::default();
            let mut list: Vec<(Prefix, usize)> = Vec::new();
            for (i, (add, addr, len)) in steps.into_iter().enumerate() {
                let len = if addr.is_ipv4() { len % 33 } else { len };
                let prefix = Prefix::new(addr, len).unwrap();
                list.retain(|(p, _)| *p != prefix);
                if add {
                    list.push((prefix, i));
                    *lpm.entry(prefix) = i;
                } else {
                    lpm.remove(prefix);
                }
            }
            for addr in asked {
                let model = list.iter().filter(|(p, _)| p.contains(addr)).max_by_key(|(p, _)| p.len());
                prop_assert_eq!(lpm.lookup(addr), model.map(|(_, v)| v));
            }
            prop_assert_eq!(lpm.iter().count(), list.len());
            for (prefix, value) in &list {
                prop_assert_eq!(lpm.get(*prefix), Some(value));
            }
        }
    }

    #[test]
    fn host_bits_are_cleared_and_impossible_lengths_refused() {
        let prefix = Prefix::new("10.1.2.3".parse().unwrap(), 8).unwrap();
        assert_eq!(prefix.to_string(), "10.0.0.0/8");
        assert!(prefix.contains("10.255.0.1".parse().unwrap()));
        assert!(!prefix.contains("::".parse().unwrap()));
        assert!(Prefix::new("10.0.0.0".parse().unwrap(), 33).is_none());
        assert_eq!(
            common_prefix(
                "2001:db8::1".parse().unwrap(),
                "2001:db8::3".parse().unwrap()
            ),
            126
        );
    }
}
