//! The address family as a type parameter, so that IPv4 and IPv6 share one path. Owns how addresses are stored (network
//! byte order) and what a connection table needs to know of them; knows nothing of headers.

use std::fmt::Debug;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ripvs_arch::{FlowHash, Zeroable};

use crate::types::Af;

/// IPv4 or IPv6, as a type.
pub trait Family: Copy + Debug + Default + PartialEq + Send + Sync + 'static {
    /// An address in network byte order, all zeros by default.
    type Addr: Copy
        + Debug
        + Default
        + Eq
        + Ord
        + Hash
        + Send
        + Sync
        + AsRef<[u8]>
        + AsMut<[u8]>
        + Zeroable
        + 'static;

    /// Two addresses and another word, as words.
    type Tuple: Copy + Debug;

    /// The family as a value.
    const AF: Af;
    /// Bytes in an address.
    const ADDR_LEN: usize;
    /// Slots of the connection index per hundred connections. A NAT connection takes two; the rest is room, and spent
    /// where records are small (see `conn::index`).
    const INDEX_SLOTS_PERCENT: u64;

    /// The address as the standard library has it.
    fn to_ip(addr: Self::Addr) -> IpAddr;

    /// The address, if it is of this family. An IPv4-mapped IPv6 address is an IPv6 one.
    fn from_ip(ip: IpAddr) -> Option<Self::Addr>;

    /// The address that stands at the start of `bytes`, if they are long enough.
    fn from_slice(bytes: &[u8]) -> Option<Self::Addr>;

    /// The address as two words for hashing; which bits go where is of no matter.
    fn words(addr: Self::Addr) -> (u64, u64);

    /// The words of two addresses, with another one.
    fn tuple(first: Self::Addr, second: Self::Addr, rest: u64) -> Self::Tuple;

    /// The hash of such words.
    fn hash_tuple(hash: &FlowHash, tuple: &Self::Tuple) -> u64;

    /// Whether two of them are the same: one question, not one a word.
    fn same_tuple(a: &Self::Tuple, b: &Self::Tuple) -> bool;
}

/// What is written alike for both families but for the number of words.
macro_rules! tuple {
    () => {
        #[inline(always)]
        fn hash_tuple(hash: &FlowHash, tuple: &Self::Tuple) -> u64 {
            hash.words(tuple)
        }

        #[inline(always)]
        fn same_tuple(a: &Self::Tuple, b: &Self::Tuple) -> bool {
            a.iter().zip(b).fold(0, |odd, (a, b)| odd | (a ^ b)) == 0
        }
    };
}

/// IPv4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct V4;

/// IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct V6;

impl Family for V4 {
    type Addr = [u8; 4];
    type Tuple = [u64; 2];

    const AF: Af = Af::V4;
    const ADDR_LEN: usize = 4;
    const INDEX_SLOTS_PERCENT: u64 = 400;

    fn to_ip(addr: [u8; 4]) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(addr))
    }

    fn from_ip(ip: IpAddr) -> Option<[u8; 4]> {
        match ip {
            IpAddr::V4(ip) => Some(ip.octets()),
            IpAddr::V6(_) => None,
        }
    }

    fn from_slice(bytes: &[u8]) -> Option<[u8; 4]> {
        bytes.first_chunk().copied()
    }

    #[inline(always)]
    fn words(addr: [u8; 4]) -> (u64, u64) {
        (u64::from(u32::from_ne_bytes(addr)), 0)
    }

    tuple!();

    #[inline(always)]
    fn tuple(first: [u8; 4], second: [u8; 4], rest: u64) -> [u64; 2] {
        [Self::words(first).0 | Self::words(second).0 << 32, rest]
    }
}

impl Family for V6 {
    type Addr = [u8; 16];
    type Tuple = [u64; 5];

    const AF: Af = Af::V6;
    const ADDR_LEN: usize = 16;
    const INDEX_SLOTS_PERCENT: u64 = 285;

    fn to_ip(addr: [u8; 16]) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from(addr))
    }

    fn from_ip(ip: IpAddr) -> Option<[u8; 16]> {
        match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => Some(ip.octets()),
        }
    }

    fn from_slice(bytes: &[u8]) -> Option<[u8; 16]> {
        bytes.first_chunk().copied()
    }

    #[inline(always)]
    fn words(addr: [u8; 16]) -> (u64, u64) {
        let both = u128::from_ne_bytes(addr);
        (both as u64, (both >> 64) as u64)
    }

    tuple!();

    #[inline(always)]
    fn tuple(first: [u8; 16], second: [u8; 16], rest: u64) -> [u64; 5] {
        let (a, b) = Self::words(first);
        let (c, d) = Self::words(second);
        [a, b, c, d, rest]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_convert_within_their_family_only() {
        let four: IpAddr = "192.0.2.1".parse().unwrap();
        let six: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(V4::from_ip(four).map(V4::to_ip), Some(four));
        assert_eq!(V6::from_ip(six).map(V6::to_ip), Some(six));
        assert_eq!(V4::from_ip(six), None);
        assert_eq!(V6::from_ip(four), None);
        assert_eq!(V4::from_slice(&[192, 0, 2, 1, 9]), V4::from_ip(four));
        assert_eq!(V4::from_slice(&[192, 0, 2]), None);
        assert_eq!(V6::from_slice(&[0; 15]), None);
    }

    #[test]
    fn every_byte_of_an_address_reaches_the_words() {
        for i in 0..16 {
            let mut addr = [0; 16];
            addr[i] = 1;
            assert_ne!(V6::words(addr), V6::words([0; 16]), "byte {i}");
        }
        assert_ne!(V4::words([0, 0, 0, 1]), V4::words([0; 4]));
    }
}
