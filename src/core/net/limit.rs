//! The limit on ICMP errors, as the kernel's `icmp_ratelimit`, `icmp_msgs_per_sec` and `icmp_msgs_burst`: a token bucket for
//! each destination and one for all.

use std::net::IpAddr;

use crate::types::Time;

/// How many ICMP errors may be sent. "Fragmentation needed" and "packet too big" are not limited (`icmpv4_mask_allow`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpLimit {
    /// Milliseconds between errors to one destination, six of which may come at once; 0 for no limit.
    pub per_dest_ms: u32,
    /// Errors in a second to all destinations; 0 for no limit.
    pub per_sec: u32,
    /// How many of these may come at once.
    pub burst: u32,
}

impl Default for IcmpLimit {
    /// The kernel's defaults.
    fn default() -> Self {
        IcmpLimit {
            per_dest_ms: 1000,
            per_sec: 1000,
            burst: 50,
        }
    }
}

/// How many errors to one destination may come at once (`XRLIM_BURST_FACTOR`).
const DEST_BURST: u64 = 6;
/// Buckets for destinations; those that fall together share one.
const BUCKETS: usize = 1024;

/// A bucket of time: an error costs `cost` nanoseconds, no more than `cost * burst` are kept.
#[derive(Clone, Copy)]
struct Bucket {
    tokens: u64,
    last: Time,
}

impl Bucket {
    fn take(&mut self, now: Time, cost: u64, burst: u64) -> bool {
        let earned = now.0.saturating_sub(self.last.0);
        self.last = now;
        self.tokens = self.tokens.saturating_add(earned).min(cost * burst);
        if self.tokens < cost {
            return false;
        }
        self.tokens -= cost;
        true
    }
}

/// The state of the limit.
pub(super) struct Limiter {
    limit: Option<IcmpLimit>,
    all: Bucket,
    dests: Vec<Bucket>,
    /// Errors not sent.
    pub(super) refused: u64,
}

impl Limiter {
    pub(super) fn new(limit: Option<IcmpLimit>) -> Self {
        let full = Bucket {
            tokens: u64::MAX,
            last: Time(0),
        };
        Limiter {
            limit,
            all: full,
            dests: vec![full; BUCKETS],
            refused: 0,
        }
    }

    /// Whether an error to `dst` may be sent; counts it.
    pub(super) fn allow(&mut self, now: Time, dst: IpAddr) -> bool {
        let limit = self.limit.unwrap_or(IcmpLimit {
            per_dest_ms: 0,
            per_sec: 0,
            burst: 0,
        });
        let allowed = self.allow_all(now, &limit) && self.allow_dest(now, dst, &limit);
        self.refused += u64::from(!allowed);
        allowed
    }

    /// Whether "net unreachable" may be told to `dst`, which the kernel limits on its own, before any other limit and with
    /// that switched off too (`ip_error`, route/error_cost and error_burst): one a second, five at once. The bucket is the
    /// one of the destination's other errors, so that in effect fewer pass: with the limit off each error empties it.
    pub(super) fn allow_no_route(&mut self, now: Time, dst: IpAddr) -> bool {
        const COST: u64 = 1_000_000_000;
        let allowed = self.dests[bucket(dst)].take(now, COST, 5);
        self.refused += u64::from(!allowed);
        allowed
    }

    fn allow_all(&mut self, now: Time, limit: &IcmpLimit) -> bool {
        limit.per_sec == 0 || {
            let cost = (1_000_000_000 / u64::from(limit.per_sec)).max(1);
            self.all.take(now, cost, u64::from(limit.burst.max(1)))
        }
    }

    fn allow_dest(&mut self, now: Time, dst: IpAddr, limit: &IcmpLimit) -> bool {
        // A cost of 0 empties the bucket, as `inet_peer_xrlim_allow` does.
        let cost = u64::from(limit.per_dest_ms) * 1_000_000;
        self.dests[bucket(dst)].take(now, cost, DEST_BURST)
    }
}

/// A destination's bucket: multiplicative hashing spreads enough for buckets that may be shared anyway.
fn bucket(dst: IpAddr) -> usize {
    let bits = match dst {
        IpAddr::V4(a) => u64::from(u32::from(a)),
        IpAddr::V6(a) => {
            let bits = u128::from(a);
            (bits >> 64) as u64 ^ (bits as u64).rotate_left(17)
        }
    };
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize % BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: u64 = 1_000_000_000;

    #[test]
    fn one_destination_gets_six_at_once_then_one_a_second() {
        let mut limiter = Limiter::new(Some(IcmpLimit::default()));
        let dst = "198.18.0.1".parse().unwrap();
        let start = Time::from_secs(100);
        let sent = (0..10).filter(|_| limiter.allow(start, dst)).count();
        assert_eq!((sent, limiter.refused), (6, 4));
        assert!(!limiter.allow(Time(start.0 + SEC - 1), dst));
        assert!(limiter.allow(Time(start.0 + SEC), dst));
        assert!(!limiter.allow(Time(start.0 + SEC), dst));
    }

    #[test]
    fn all_destinations_together_get_the_burst_then_the_rate() {
        let mut limiter = Limiter::new(Some(IcmpLimit {
            per_dest_ms: 0,
            per_sec: 1000,
            burst: 50,
        }));
        let start = Time::from_secs(1);
        let burst = |limiter: &mut Limiter, now| {
            let to = |i: u32| IpAddr::V4((i << 8).into());
            (0..200).filter(|i| limiter.allow(now, to(*i))).count()
        };
        assert_eq!(burst(&mut limiter, start), 50);
        assert_eq!(burst(&mut limiter, Time(start.0 + SEC / 100)), 10);
    }

    #[test]
    fn net_unreachable_is_limited_even_without_a_limit() {
        let mut limiter = Limiter::new(None);
        let dst = "198.18.0.1".parse().unwrap();
        let start = Time::from_secs(1);
        let mut send = |at| limiter.allow_no_route(Time(at), dst) && limiter.allow(Time(at), dst);
        let start = start.0;
        assert!(send(start));
        assert!(!send(start + SEC / 2));
        assert!(send(start + SEC));
        assert!(!send(start + SEC));
    }

    #[test]
    fn no_limit_refuses_nothing() {
        let mut limiter = Limiter::new(None);
        let dst = "::1".parse().unwrap();
        assert!((0..10_000).all(|_| limiter.allow(Time(0), dst)));
    }
}
