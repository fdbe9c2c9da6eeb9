//! The order of listings: that of the original to the last, faults included, as listings are compared to the byte.
//!
//! The original subtracts numbers and takes the difference's sign, in 32 bits: addresses far apart come out the wrong way
//! round (192.0.2.1 before 10.0.0.1), and such an order is no order at all, so that the outcome depends on how the sorting
//! goes about it. It is glibc's merge sort, which this follows.

use std::net::IpAddr;

use ripvs_api::ipvs::{Dest, Service, ServiceKey};

/// Sorts services by mark, family, protocol, address and port.
pub fn services(services: Vec<Service>) -> Vec<Service> {
    merge_sort(services, &|a: &Service, b: &Service| {
        compare_services(&a.key, &b.key)
    })
}

/// Sorts dests by address and port.
pub fn dests(dests: Vec<Dest>) -> Vec<Dest> {
    merge_sort(dests, &|a: &Dest, b: &Dest| {
        let (a, b) = (a.config.key, b.config.key);
        let by_addr = compare_addrs(a.addr, b.addr);
        by_addr.unwrap_or(i32::from(a.port) - i32::from(b.port))
    })
}

fn compare_services(a: &ServiceKey, b: &ServiceKey) -> i32 {
    let split = |key: &ServiceKey| match *key {
        ServiceKey::Addr {
            protocol,
            addr,
            port,
        } => (0, i32::from(protocol), Some(addr), i32::from(port)),
        ServiceKey::Mark { mark, .. } => (mark, 0, None, 0),
    };
    let ((a_mark, a_protocol, a_addr, a_port), (b_mark, b_protocol, b_addr, b_port)) =
        (split(a), split(b));
    let by_addr = match (a_addr, b_addr) {
        (Some(a), Some(b)) => compare_addrs(a, b),
        _ => None,
    };
    let family = i32::from(a.af().number()) - i32::from(b.af().number());
    [
        a_mark.wrapping_sub(b_mark) as i32,
        family,
        a_protocol - b_protocol,
        by_addr.unwrap_or(0),
    ]
    .into_iter()
    .find(|difference| *difference != 0)
    .unwrap_or(a_port - b_port)
}

/// The difference of two addresses, `None` where there is none: by words of 32 bits; all four only where the first is
/// an IPv6 address. An IPv4 address is one word, with zeros behind it.
fn compare_addrs(a: IpAddr, b: IpAddr) -> Option<i32> {
    let count = if a.is_ipv6() { 4 } else { 1 };
    let differences = words(a).into_iter().zip(words(b)).take(count);
    differences
        .map(|(a, b)| a.wrapping_sub(b) as i32)
        .find(|difference| *difference != 0)
}

fn words(addr: IpAddr) -> [u32; 4] {
    match addr {
        IpAddr::V4(addr) => [addr.into(), 0, 0, 0],
        IpAddr::V6(addr) => {
            let all = u128::from(addr);
            [96, 64, 32, 0].map(|shift| (all >> shift) as u32)
        }
    }
}

/// Sorts as glibc's qsort does: halves, the smaller one first, and merges them, taking from the first half what is not
/// greater.
fn merge_sort<T>(mut items: Vec<T>, compare: &dyn Fn(&T, &T) -> i32) -> Vec<T> {
    if items.len() <= 1 {
        return items;
    }
    let second = items.split_off(items.len() / 2);
    let length = items.len() + second.len();
    let mut first = merge_sort(items, compare).into_iter().peekable();
    let mut second = merge_sort(second, compare).into_iter().peekable();
    let mut merged = Vec::with_capacity(length);
    while let (Some(a), Some(b)) = (first.peek(), second.peek()) {
        let from = if compare(a, b) <= 0 {
            &mut first
        } else {
            &mut second
        };
        merged.extend(from.next());
    }
    merged.extend(first);
    merged.extend(second);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ripvs_api::ipvs::Af;

    #[test]
    fn numbers_are_compared_by_the_sign_of_their_difference() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(compare_addrs(ip("10.0.0.1"), ip("10.0.0.2")).unwrap() < 0);
        assert!(compare_addrs(ip("192.0.2.1"), ip("10.0.0.1")).unwrap() < 0);
        assert!(compare_addrs(ip("127.0.0.1"), ip("192.0.2.1")).unwrap() < 0);
        assert_eq!(compare_addrs(ip("::1"), ip("::1")), None);
        assert!(compare_addrs(ip("::2"), ip("::1")).unwrap() > 0);
        assert!(compare_addrs(ip("10.0.0.24"), ip("2001:db8::e")).unwrap() < 0);
    }

    #[test]
    fn a_mark_goes_last_and_one_above_half_goes_first() {
        let mark = |mark| ServiceKey::Mark { mark, af: Af::V4 };
        let addr = ServiceKey::Addr {
            protocol: 6,
            addr: IpAddr::from([192, 0, 2, 1]),
            port: 80,
        };
        assert!(compare_services(&addr, &mark(1)) < 0);
        assert!(compare_services(&mark(u32::MAX), &addr) < 0);
        assert!(compare_services(&mark(9), &mark(10)) < 0);
    }

    proptest! {
        #[test]
        fn with_an_order_it_is_a_stable_sort(items in proptest::collection::vec((0..20i32, 0..100), 0..50)) {
            let sorted = merge_sort(items.clone(), &|a: &(i32, i32), b: &(i32, i32)| a.0 - b.0);
            let mut expected = items;
            expected.sort_by_key(|item| item.0);
            prop_assert_eq!(sorted, expected);
        }
    }
}
