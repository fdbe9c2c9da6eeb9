//! A keyed 64-bit hash for flow keys of 12 to 40 bytes, which strangers choose: the key is drawn at random per boot, so that
//! nobody outside can pick flows that meet in one bucket.
//!
//! It multiplies pairs of keyed words to 128 bits and folds the halves together, as wyhash and its kin do. AES
//! instructions would need a call through run-time detection, which costs more at these lengths than the two to four
//! multiplications, done side by side; and this one is the same everywhere. It is no cryptographic hash.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// The hash with its key. The same key gives the same hashes on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowHash {
    keys: [u64; 8],
}

/// Multiplies to 128 bits and folds the halves together: each half depends on all bits of both numbers.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

impl FlowHash {
    /// The hash with a key from the operating system's random numbers.
    pub fn random() -> FlowHash {
        let mut seed = [0; 2];
        for word in &mut seed {
            *word = RandomState::new().build_hasher().finish();
        }
        FlowHash::new(seed)
    }

    /// The hash with the key that this seed gives.
    pub fn new(seed: [u64; 2]) -> FlowHash {
        let mut keys = [0; 8];
        let mut state = seed[0];
        for (index, key) in keys.iter_mut().enumerate() {
            if index == 4 {
                state ^= seed[1];
            }
            // The step of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ seed[1].rotate_left(17);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *key = z ^ (z >> 31);
        }
        FlowHash { keys }
    }

    /// The hash of up to six words, for keys that are kept as words.
    #[inline(always)]
    pub fn words<const N: usize>(&self, words: &[u64; N]) -> u64 {
        const { assert!(N >= 1 && N <= 6) };
        let word = |i: usize| if i < N { words[i] } else { 0 };
        let k = &self.keys;
        let mut sum = fold(word(0) ^ k[0], word(1) ^ k[1]);
        if N > 2 {
            sum ^= fold(word(2) ^ k[2], word(3) ^ k[3]);
        }
        if N > 4 {
            sum ^= fold(word(4) ^ k[4], word(5) ^ k[5]);
        }
        fold(sum ^ k[6], k[7] ^ N as u64)
    }

    /// The hash of a key of 8 to 48 bytes whose length the compiler knows.
    #[inline(always)]
    pub fn array<const N: usize>(&self, bytes: &[u8; N]) -> u64 {
        const { assert!(N >= 8 && N <= 48) };
        let word = |i: usize| {
            // The last word overlaps the one before it where the length is no multiple of eight.
            let at = if i * 8 + 8 <= N { i * 8 } else { N - 8 };
            if i * 8 >= N {
                return 0;
            }
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let k = &self.keys;
        let mut sum = fold(word(0) ^ k[0], word(1) ^ k[1]);
        if N > 16 {
            sum ^= fold(word(2) ^ k[2], word(3) ^ k[3]);
        }
        if N > 32 {
            sum ^= fold(word(4) ^ k[4], word(5) ^ k[5]);
        }
        fold(sum ^ k[6], k[7] ^ N as u64)
    }

    /// The hash of bytes of any number: a Call-ID, say.
    pub fn bytes(&self, bytes: &[u8]) -> u64 {
        let k = &self.keys;
        let mut sum = k[4];
        for chunk in bytes.chunks(16) {
            let mut words = [0; 16];
            words[..chunk.len()].copy_from_slice(chunk);
            let both = u128::from_le_bytes(words);
            sum = fold(both as u64 ^ k[0] ^ sum, (both >> 64) as u64 ^ k[1]);
        }
        fold(sum ^ k[6], k[7] ^ bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: FlowHash = FlowHash {
        keys: [
            0x3a21_7c55_93d4_e1b7,
            0xc9f8_0a6b_4d23_7719,
            0x51ee_b204_86ca_3d9f,
            0x0f9d_e8c3_b172_a465,
            0xa4b1_5f7e_2c68_d093,
            0x7d60_92af_1be5_c84b,
            0xe83c_45d7_f01a_962d,
            0x16c7_ab98_5e4f_0373,
        ],
    };

    /// Chi-squared of how `hashes` fall into 256 buckets, by `bits` of them; 255 is what chance gives, above 400 is far out.
    fn chi_squared(hashes: &[u64], shift: u32) -> f64 {
        let mut buckets = [0f64; 256];
        for hash in hashes {
            buckets[(hash >> shift) as usize & 0xff] += 1.0;
        }
        let expected = hashes.len() as f64 / 256.0;
        buckets
            .iter()
            .map(|n| (n - expected).powi(2) / expected)
            .sum()
    }

    #[test]
    fn flows_of_one_client_and_neighbouring_clients_spread_evenly() {
        let mut flows = Vec::new();
        for host in 0..64u8 {
            for port in (1024..2048u16).step_by(2) {
                let mut key = [0; 12];
                key[..4].copy_from_slice(&[10, 0, 0, host]);
                key[4..8].copy_from_slice(&[192, 0, 2, 1]);
                key[8..10].copy_from_slice(&port.to_be_bytes());
                key[10..].copy_from_slice(&80u16.to_be_bytes());
                flows.push(HASH.array(&key));
            }
        }
        for shift in [0, 8, 24, 32, 48, 56] {
            let chi = chi_squared(&flows, shift);
            assert!((150.0..400.0).contains(&chi), "bits from {shift}: {chi}");
        }
        flows.sort_unstable();
        flows.dedup();
        assert_eq!(
            flows.len(),
            64 * 512,
            "no two of 32768 flows share a 64-bit hash"
        );
    }

    #[test]
    fn every_input_bit_turns_about_half_of_the_output_bits() {
        fn check<const N: usize>() {
            for bit in 0..N * 8 {
                let mut turned = 0;
                for sample in 0..64u64 {
                    let mut key = [0; N];
                    for (i, byte) in key.iter_mut().enumerate() {
                        *byte = (HASH.words(&[sample, i as u64]) >> 13) as u8;
                    }
                    let before = HASH.array(&key);
                    key[bit / 8] ^= 1 << (bit % 8);
                    turned += (before ^ HASH.array(&key)).count_ones();
                }
                let mean = f64::from(turned) / 64.0;
                assert!((28.0..36.0).contains(&mean), "{N} bytes, bit {bit}: {mean}");
            }
        }
        check::<8>();
        check::<12>();
        check::<16>();
        check::<37>();
        check::<40>();
    }

    #[test]
    fn other_keys_give_other_hashes() {
        let (a, b) = (FlowHash::new([1, 2]), FlowHash::new([1, 3]));
        assert_ne!(a.array(b"twelve bytes"), b.array(b"twelve bytes"));
        assert_ne!(a, FlowHash::new([2, 2]));
        assert_ne!(FlowHash::random(), FlowHash::random());
        assert_eq!(a, FlowHash::new([1, 2]));
    }

    proptest! {
        #[test]
        fn different_bytes_have_different_hashes(a: [u8; 24], b: [u8; 24], cut in 0usize..24) {
            prop_assert_eq!(a == b, HASH.array(&a) == HASH.array(&b));
            prop_assert_ne!(HASH.bytes(&a), HASH.bytes(&a[..cut]));
            prop_assert_eq!(a == b, HASH.bytes(&a) == HASH.bytes(&b));
        }

        #[test]
        fn words_and_arrays_of_the_same_length_differ_only_in_length(a: [u64; 3]) {
            prop_assert_ne!(HASH.words(&a), HASH.words(&[a[0], a[1]]));
            prop_assert_eq!(HASH.words(&a), HASH.words(&a));
        }
    }
}
