//! Comparing sixteen bytes at once. Sound because the instructions used are part of every processor of the architecture.
#![allow(unsafe_code)]

/// A bit for each byte of two words, in the order of memory on a little-endian machine, that is `byte`.
#[inline(always)]
pub fn equal_bytes(words: [u64; 2], byte: u8) -> u16 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 is part of x86-64.
    unsafe {
        use core::arch::x86_64::*;
        let words = _mm_set_epi64x(words[1].cast_signed(), words[0].cast_signed());
        let equal = _mm_cmpeq_epi8(words, _mm_set1_epi8(byte.cast_signed()));
        _mm_movemask_epi8(equal) as u16
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        plain(words[0], byte) | plain(words[1], byte) << 8
    }
}

/// The same for one word, without special instructions.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn plain(word: u64, byte: u8) -> u16 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let x = word ^ (ONES * u64::from(byte));
    // The high bit of each byte that is 0; no carry leaves a byte, so there are no false ones.
    let zero = !(((x & LOW) + LOW) | x | LOW);
    // Gathers the eight high bits: bit 8i moves to 56 + i, and no two products meet.
    ((zero >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_are_compared_exactly() {
        let word = u64::from_le_bytes([0, 1, 0x80, 0xff, 0, 1, 0x7f, 0x81]);
        assert_eq!(equal_bytes([word, 0], 0), 0xff11);
        assert_eq!(equal_bytes([0, word], 1), 0x2200);
        assert_eq!(equal_bytes([word, word], 0x80), 0x0404);
        assert_eq!(equal_bytes([word, word], 0xff), 0x0808);
        assert_eq!(equal_bytes([word, word], 0x7f), 0x4040);
        assert_eq!(equal_bytes([word, word], 0x81), 0x8080);
        assert_eq!(equal_bytes([word, word], 2), 0);
    }

    proptest! {
        #[test]
        fn special_instructions_say_what_plain_ones_do(words: [u64; 2], byte: u8) {
            let expected = plain(words[0], byte) | plain(words[1], byte) << 8;
            prop_assert_eq!(equal_bytes(words, byte), expected);
        }
    }
}
