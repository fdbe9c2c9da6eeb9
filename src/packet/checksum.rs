//! Internet checksums (RFC 1071) over any number of segments, their incremental update (RFC 1624), pseudo-headers, and
//! the CRC32c of SCTP.
//!
//! Results are those of the Linux kernel bit for bit, also where one's complement has two zeros: an updated checksum is
//! `~(~HC + ~m + m')` (RFC 1624, equation 3), which the kernel computes on 32 bits (`csum_replace4`,
//! `ip_vs_check_diff4`) so that it never becomes 0xffff. The exception is [`replace16`], after `csum_replace2`.

/// A running one's complement sum.
///
/// The words are added as they lie in memory; only the finished sum is turned into host byte order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    words: u64,
    /// Whether an odd number of bytes was added so far, so that the next one is the second half of a word.
    odd: bool,
}

impl Sum {
    /// The sum of nothing.
    pub const fn new() -> Sum {
        Sum {
            words: 0,
            odd: false,
        }
    }

    /// The sum of these bytes.
    #[inline]
    pub fn of(bytes: &[u8]) -> Sum {
        Sum::new().and(bytes)
    }

    /// The sum with these bytes after those already in it. Segments may have odd lengths.
    #[inline]
    #[must_use]
    pub fn and(self, bytes: &[u8]) -> Sum {
        let mut words = self.words;
        let mut bytes = bytes;
        if self.odd {
            let Some((&second, rest)) = bytes.split_first() else {
                return self;
            };
            words += u64::from(u16::from_ne_bytes([0, second]));
            bytes = rest;
        }
        // Adding 32-bit words to 64 bits cannot overflow below 2^32 of them.
        let mut chunks = bytes.chunks_exact(4);
        for chunk in &mut chunks {
            words += u64::from(u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
        }
        let mut rest = chunks.remainder();
        if let [a, b, more @ ..] = rest {
            words += u64::from(u16::from_ne_bytes([*a, *b]));
            rest = more;
        }
        if let [last] = rest {
            words += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        Sum {
            words: (words & 0xffff_ffff) + (words >> 32),
            odd: !rest.is_empty(),
        }
    }

    /// The sum with a 16-bit number (host byte order) after an even number of bytes.
    #[inline]
    #[must_use]
    pub fn and_u16(self, value: u16) -> Sum {
        self.and(&value.to_be_bytes())
    }

    /// The sum folded to 16 bits, host byte order. 0 only where every byte was 0.
    #[inline]
    pub fn fold(self) -> u16 {
        u16::from_be(fold64(self.words))
    }

    /// The checksum: the complement of the sum, host byte order.
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.fold()
    }

    /// The checksum as UDP sends it: 0 would mean "none", so that 0xffff, the other zero, takes its place.
    #[inline]
    pub fn udp_checksum(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            check => check,
        }
    }

    /// Whether the sum over data together with its checksum says that it is right.
    #[inline]
    pub fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }
}

#[inline(always)]
fn fold64(sum: u64) -> u16 {
    // The upper half of a word and its halves exchanged is the sum of both, with the carry of the lower half's same sum.
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// The checksum of words that lie in memory like this, as it lies there.
#[inline(always)]
pub(crate) fn of_words<const N: usize>(words: [u32; N]) -> u16 {
    !fold64(words.into_iter().map(u64::from).sum())
}

#[inline(always)]
fn fold32(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The sum of the pseudo-header of TCP, UDP over IPv4; `len` is that of transport header and data.
#[inline]
pub fn pseudo_v4(src: [u8; 4], dst: [u8; 4], protocol: u8, len: u16) -> Sum {
    Sum::of(&src)
        .and(&dst)
        .and_u16(u16::from(protocol))
        .and_u16(len)
}

/// The sum of the pseudo-header of TCP, UDP, ICMPv6 over IPv6; `len` is that of transport header and data.
#[inline]
pub fn pseudo_v6(src: &[u8; 16], dst: &[u8; 16], protocol: u8, len: u32) -> Sum {
    Sum::of(src)
        .and(dst)
        .and(&len.to_be_bytes())
        .and_u16(u16::from(protocol))
}

/// What a set of changes does to a checksum that covers the changed fields. Changes can be gathered in any order, and
/// applied to any number of checksums.
///
/// Words are added as they lie in memory, since a sum in one's complement is the same in either byte order, and folded when
/// applied.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delta(u64);

impl Delta {
    /// No change.
    pub const ZERO: Delta = Delta(0);

    /// With a 16-bit field (a port, host byte order) changed too.
    #[inline(always)]
    #[must_use]
    pub fn change16(self, old: u16, new: u16) -> Delta {
        Delta(self.0 + u64::from(!old.to_be()) + u64::from(new.to_be()))
    }

    /// With a 32-bit field (an IPv4 address) changed too.
    #[inline(always)]
    #[must_use]
    pub fn change32(self, old: [u8; 4], new: [u8; 4]) -> Delta {
        let [old, new] = [old, new].map(u32::from_ne_bytes);
        Delta(self.0 + u64::from(!old) + u64::from(new))
    }

    /// With a 128-bit field (an IPv6 address) changed too.
    #[inline(always)]
    #[must_use]
    pub fn change128(self, old: &[u8; 16], new: &[u8; 16]) -> Delta {
        let (old, new) = (old.as_chunks::<4>().0, new.as_chunks::<4>().0);
        let changes = old.iter().zip(new);
        changes.fold(self, |delta, (old, new)| delta.change32(*old, *new))
    }

    /// Both sets of changes.
    #[inline]
    #[must_use]
    pub fn and(self, other: Delta) -> Delta {
        Delta(self.0 + other.0)
    }

    /// The checksum after the changes: that of TCP, ICMP, or an IPv4 header. A right one stays right, a wrong one is
    /// wrong by the same amount. Never 0xffff, as `csum_replace4` never gives it.
    #[inline(always)]
    pub fn apply(self, check: u16) -> u16 {
        // 0xffff is a zero that keeps the sum from being 0, as the upper half of `~csum_unfold(check)` does in the kernel.
        u16::from_be(!fold64(0xffff + u64::from(!check.to_be()) + self.0))
    }

    /// The checksum of a UDP datagram after the changes: none (0) stays none, and 0 is sent as 0xffff.
    #[inline(always)]
    pub fn apply_udp(self, check: u16) -> u16 {
        if check == 0 {
            return 0;
        }
        match self.apply(check) {
            0 => 0xffff,
            check => check,
        }
    }
}

/// The checksum after a 16-bit field it covers changed, as `csum_replace2` computes it: on 16 bits, so that 0xffff stays
/// 0xffff where 0xffff changes to 0.
#[inline]
pub fn replace16(check: u16, old: u16, new: u16) -> u16 {
    !fold32(u32::from(!check) + u32::from(!old) + u32::from(new))
}

/// The checksum after a 32-bit field it covers changed, as `csum_replace4` computes it.
#[inline]
pub fn replace32(check: u16, old: [u8; 4], new: [u8; 4]) -> u16 {
    Delta::ZERO.change32(old, new).apply(check)
}

/// The checksum after a 128-bit field it covers changed, as `inet_proto_csum_replace16` computes it.
#[inline]
pub fn replace128(check: u16, old: &[u8; 16], new: &[u8; 16]) -> u16 {
    Delta::ZERO.change128(old, new).apply(check)
}

/// The CRC32c of an SCTP packet given in segments, in the byte order in which it is sent (RFC 9260, appendix A). The
/// checksum field counts as zero, whatever it holds; segments may part the packet anywhere.
pub fn sctp_crc32c<'a>(segments: impl IntoIterator<Item = &'a [u8]>) -> [u8; 4] {
    let mut crc = 0;
    let mut at = 0;
    for segment in segments {
        let field = crate::sctp::CHECKSUM..crate::sctp::CHECKSUM + 4;
        let from = field.start.saturating_sub(at).min(segment.len());
        let to = field.end.saturating_sub(at).min(segment.len());
        crc = crc32c::crc32c_append(crc, &segment[..from]);
        crc = crc32c::crc32c_append(crc, &[0; 4][..to - from]);
        crc = crc32c::crc32c_append(crc, &segment[to..]);
        at += segment.len();
    }
    crc.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition of RFC 1071, word by word.
    fn slow_sum(bytes: &[u8]) -> u16 {
        let mut sum: u32 = 0;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// The kernel's `csum_fold(csum_add(csum_sub(~csum_unfold(check), old), new))`, on 32 bits.
    fn kernel_replace4(check: u16, old: u32, new: u32) -> u16 {
        fn csum_add(a: u32, b: u32) -> u32 {
            let (sum, carry) = a.overflowing_add(b);
            sum + u32::from(carry)
        }
        let sum = csum_add(csum_add(!u32::from(check), !old), new);
        let sum = (sum & 0xffff) + (sum >> 16);
        !((sum & 0xffff) + (sum >> 16)) as u16
    }

    /// The kernel's `~csum16_add(csum16_sub(~check, old), new)`.
    fn kernel_replace2(check: u16, old: u16, new: u16) -> u16 {
        fn csum16_add(a: u16, b: u16) -> u16 {
            let (sum, carry) = a.overflowing_add(b);
            sum + u16::from(carry)
        }
        !csum16_add(csum16_add(!check, !old), new)
    }

    /// Numbers among which the two zeros turn up often.
    fn edgy() -> impl Strategy<Value = u16> {
        prop_oneof![Just(0), Just(0xffff), Just(1), Just(0xfffe), any::<u16>()]
    }

    fn edgy32() -> impl Strategy<Value = u32> {
        (edgy(), edgy()).prop_map(|(a, b)| u32::from(a) << 16 | u32::from(b))
    }

    #[test]
    fn the_two_zeros_are_the_kernels() {
        assert_eq!(Sum::of(&[]).checksum(), 0xffff);
        assert_eq!(Sum::of(&[0xff, 0xff]).checksum(), 0);
        assert_eq!(Sum::of(&[0xff, 0xff]).udp_checksum(), 0xffff);
        assert_eq!(replace16(0xffff, 0xffff, 0), 0xffff);
        assert_eq!(Delta::ZERO.change16(0xffff, 0).apply(0xffff), 0);
        assert_eq!(Delta::ZERO.apply(0xffff), 0);
        assert_eq!(Delta::ZERO.change16(80, 8080).apply_udp(0), 0);
        assert_eq!(Delta::ZERO.apply_udp(0xffff), 0xffff);
    }

    #[test]
    fn crc32c_is_the_known_one() {
        // RFC 3720 B.4: 32 bytes of zeros have 0x8a9136aa.
        assert_eq!(sctp_crc32c([[0; 32].as_slice()]), [0xaa, 0x36, 0x91, 0x8a]);
    }

    proptest! {
        #[test]
        fn sums_equal_the_definition_for_any_segments(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..200, cut2 in 0usize..200,
        ) {
            let (a, b) = (cut.min(bytes.len()), cut2.min(bytes.len()));
            let (a, b) = (a.min(b), a.max(b));
            prop_assert_eq!(Sum::of(&bytes).fold(), slow_sum(&bytes));
            prop_assert_eq!(Sum::of(&bytes[..a]).and(&bytes[a..b]).and(&bytes[b..]).fold(), slow_sum(&bytes));
        }

        #[test]
        fn an_update_equals_the_kernels(check in edgy(), old in edgy32(), new in edgy32()) {
            prop_assert_eq!(replace32(check, old.to_be_bytes(), new.to_be_bytes()), kernel_replace4(check, old, new));
            prop_assert_eq!(replace16(check, old as u16, new as u16), kernel_replace2(check, old as u16, new as u16));
            prop_assert_eq!(
                Delta::ZERO.change16(old as u16, new as u16).apply(check),
                kernel_replace4(check, old & 0xffff, new & 0xffff)
            );
        }

        #[test]
        fn a_right_checksum_stays_right(
            mut data in proptest::collection::vec(any::<u8>(), 38..100), new: [u8; 16], port: u16, addr: [u8; 4],
        ) {
            let check = Sum::of(&data).checksum();
            let old: [u8; 16] = data[2..18].try_into().unwrap();
            let old4: [u8; 4] = data[20..24].try_into().unwrap();
            let delta = Delta::ZERO.change128(&old, &new)
                .change32(old4, addr)
                .and(Delta::ZERO.change16(u16::from_be_bytes([data[30], data[31]]), port));
            data[2..18].copy_from_slice(&new);
            data[20..24].copy_from_slice(&addr);
            data[30..32].copy_from_slice(&port.to_be_bytes());
            let updated = delta.apply(check);
            prop_assert!(Sum::of(&data).and_u16(0).fold() != 0 && Sum::of(&data).checksum() == updated);
        }

        #[test]
        fn a_wrong_checksum_stays_wrong_by_as_much(
            mut data in proptest::collection::vec(1u8.., 4..64), error in 1u16..0xffff, new: u16,
        ) {
            let wrong = |check: u16| !fold32(u32::from(!check) + u32::from(error));
            let check = wrong(Sum::of(&data).checksum());
            let updated = Delta::ZERO.change16(u16::from_be_bytes([data[2], data[3]]), new).apply(check);
            data[2..4].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(updated % 0xffff, wrong(Sum::of(&data).checksum()) % 0xffff);
            prop_assert_ne!(updated % 0xffff, Sum::of(&data).checksum() % 0xffff);
        }

        #[test]
        fn crc32c_does_not_depend_on_segments_or_its_own_field(
            mut data in proptest::collection::vec(any::<u8>(), 12..80), cut in 0usize..80, field: [u8; 4],
        ) {
            let whole = sctp_crc32c([data.as_slice()]);
            data[8..12].copy_from_slice(&field);
            let (a, b) = data.split_at(cut.min(data.len()));
            prop_assert_eq!(sctp_crc32c([a, b]), whole);
            data[8..12].fill(0);
            prop_assert_eq!(crc32c::crc32c(&data).to_le_bytes(), whole);
        }

        #[test]
        fn pseudo_headers_sum_as_their_bytes(src: [u8; 16], dst: [u8; 16], proto: u8, len: u16) {
            let mut bytes = [src, dst].concat();
            bytes.extend(u32::from(len).to_be_bytes());
            bytes.extend([0, 0, 0, proto]);
            prop_assert_eq!(pseudo_v6(&src, &dst, proto, u32::from(len)).fold(), slow_sum(&bytes));
            let s: [u8; 4] = src[..4].try_into().unwrap();
            let d: [u8; 4] = dst[..4].try_into().unwrap();
            let mut bytes = [s, d].concat();
            bytes.extend([0, proto]);
            bytes.extend(len.to_be_bytes());
            prop_assert_eq!(pseudo_v4(s, d, proto, len).fold(), slow_sum(&bytes));
        }
    }
}
