//! Comparing sixteen bytes at once. Sound because the instructions used are part of every processor of the architecture.
#![allow(unsafe_code)]

/// A bit for each byte of four words, in the order of memory on a little-endian machine, that is `byte`.
#[inline(always)]
pub fn equal_bytes(words: [u32; 4], byte: u8) -> u16 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 is part of x86-64.
    unsafe {
        use core::arch::x86_64::*;
        let [a, b, c, d] = words.map(u32::cast_signed);
        let words = _mm_set_epi32(d, c, b, a);
        let equal = _mm_cmpeq_epi8(words, _mm_set1_epi8(byte.cast_signed()));
        _mm_movemask_epi8(equal) as u16
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        plain(words, byte)
    }
}

/// The same without special instructions.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn plain(words: [u32; 4], byte: u8) -> u16 {
    let bits = |word: u32| {
        let bytes = word.to_le_bytes();
        (0..4).fold(0, |bits, at| bits | u16::from(bytes[at] == byte) << at)
    };
    let [a, b, c, d] = words.map(bits);
    a | b << 4 | c << 8 | d << 12
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_are_compared_exactly() {
        let a = u32::from_le_bytes([0, 1, 0x80, 0xff]);
        let b = u32::from_le_bytes([0, 1, 0x7f, 0x81]);
        assert_eq!(equal_bytes([a, b, 0, 0], 0), 0xff11);
        assert_eq!(equal_bytes([0, 0, a, b], 1), 0x2200);
        assert_eq!(equal_bytes([a, b, a, b], 0x80), 0x0404);
        assert_eq!(equal_bytes([a, b, a, b], 0xff), 0x0808);
        assert_eq!(equal_bytes([a, b, a, b], 0x7f), 0x4040);
        assert_eq!(equal_bytes([a, b, a, b], 0x81), 0x8080);
        assert_eq!(equal_bytes([a, b, a, b], 2), 0);
    }

    proptest! {
        #[test]
        fn special_instructions_say_what_plain_ones_do(words: [u32; 4], byte: u8) {
            prop_assert_eq!(equal_bytes(words, byte), plain(words, byte));
        }
    }
}
