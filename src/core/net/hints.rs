//! A guess at whether an address is a service's, in one memory access: right where it says no, and where it says yes nearly
//! always. A hash set would cost several, for each packet.

/// Places, so many that with 20,000 addresses fewer than one in ten others looks like one of them.
const PLACES: usize = 1 << 18;
/// From so many addresses on a wrong yes must be reckoned with.
const CROWD: u32 = 64;

/// Which places addresses fall into.
#[derive(Debug)]
pub(crate) struct Hints {
    /// A bit for each place, so that all are in the caches that are near.
    taken: Box<[u64]>,
    /// How many of the addresses fall into each, for changes.
    counts: Box<[u8]>,
    len: u32,
}

impl Default for Hints {
    fn default() -> Hints {
        Hints {
            taken: vec![0; PLACES / 64].into_boxed_slice(),
            counts: vec![0; PLACES].into_boxed_slice(),
            len: 0,
        }
    }
}

/// The place of an address, given as words ([`crate::family::Family::words`]).
#[inline(always)]
fn place((low, high): (u64, u64)) -> usize {
    let mixed = (low ^ high.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ high.wrapping_mul(0xd6e8_feb8_6659_fd93)) >> 46) as usize
}

impl Hints {
    /// Whether the address may be one of them.
    #[inline(always)]
    pub fn may_have(&self, addr: (u64, u64)) -> bool {
        let place = place(addr);
        let word = self.taken.get(place / 64);
        word.is_some_and(|word| word >> (place % 64) & 1 != 0)
    }

    /// Whether there are so many that [`Hints::may_have`] is wrong now and then.
    #[inline]
    pub fn crowded(&self) -> bool {
        self.len > CROWD
    }

    /// Adds an address, which must not be there yet.
    pub fn add(&mut self, addr: (u64, u64)) {
        let place = place(addr);
        self.counts[place] = self.counts[place].saturating_add(1);
        self.taken[place / 64] |= 1 << (place % 64);
        self.len += 1;
    }

    /// Takes out an address, which must be there.
    pub fn remove(&mut self, addr: (u64, u64)) {
        let place = place(addr);
        let count = &mut self.counts[place];
        // A count that ran over stays: how many there were is not known any more.
        if *count != u8::MAX {
            *count -= 1;
        }
        if *count == 0 {
            self.taken[place / 64] &= !(1 << (place % 64));
        }
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::{Family, V4, V6};

    #[test]
    fn what_is_there_is_always_seen_and_what_is_not_seldom() {
        let mut hints = Hints::default();
        let four = |n: u32| V4::words(n.to_be_bytes());
        let six = |n: u32| {
            let mut addr = [0; 16];
            addr[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
            addr[12..].copy_from_slice(&n.to_be_bytes());
            V6::words(addr)
        };
        for n in 0..10_000 {
            hints.add(four(0x0a00_0000 + n));
            hints.add(six(n));
        }
        assert!(
            (0..10_000).all(|n| hints.may_have(four(0x0a00_0000 + n)) && hints.may_have(six(n)))
        );
        let wrong = (0..10_000)
            .filter(|n| hints.may_have(four(0xc0a8_0000 + n)))
            .count();
        assert!(wrong < 1_500, "{wrong}");
        let wrong = (20_000..30_000).filter(|n| hints.may_have(six(*n))).count();
        assert!(wrong < 1_500, "{wrong}");
        for n in 0..10_000 {
            hints.remove(four(0x0a00_0000 + n));
            hints.remove(six(n));
        }
        assert!(hints.counts.iter().all(|n| *n == 0));
        assert!(hints.taken.iter().all(|word| *word == 0));
        assert!(!hints.crowded());
    }
}
