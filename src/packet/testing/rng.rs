//! A small deterministic generator of random numbers (xorshift64*, Vigna 2016): the same seed gives the same tests
//! everywhere.

/// The generator.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator that gives the numbers of this seed.
    pub fn new(seed: u64) -> Rng {
        // The state must not be 0, and seeds that are near one another should give unlike numbers.
        let mixed = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Rng((mixed ^ (mixed >> 29)).max(1))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A byte; often one at which things break.
    pub fn byte(&mut self) -> u8 {
        if self.one_in(2) {
            self.pick(&[
                0, 1, 2, 4, 5, 6, 7, 8, 15, 16, 17, 0x44, 0x7f, 0x80, 0xfe, 0xff,
            ])
        } else {
            self.bits() as u8
        }
    }

    /// A 16-bit number; often one at which things break.
    pub fn short(&mut self) -> u16 {
        if self.one_in(2) {
            self.pick(&[
                0, 1, 7, 8, 19, 20, 21, 39, 40, 41, 0x7fff, 0x8000, 0xfff8, 0xfffe, 0xffff,
            ])
        } else {
            self.bits() as u16
        }
    }

    /// That many random bytes.
    pub fn fill(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.bits() as u8).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides() {
        let numbers = |seed| {
            let mut rng = Rng::new(seed);
            [rng.bits(), rng.bits(), rng.below(1000) as u64]
        };
        assert_eq!(numbers(5), numbers(5));
        assert_ne!(numbers(5), numbers(6));
        assert_ne!(numbers(0)[0], 0);
    }

    #[test]
    fn numbers_stay_below_their_bound_and_reach_it() {
        let mut rng = Rng::new(1);
        let mut seen = [false; 7];
        for _ in 0..1000 {
            seen[rng.below(7)] = true;
        }
        assert_eq!(seen, [true; 7]);
        assert_eq!(rng.below(0), 0);
    }
}
