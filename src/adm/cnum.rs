//! Numbers and IPv4 addresses in the spellings that the C library takes: strtol, atoi, inet_aton.

use std::net::Ipv4Addr;

/// What strtol finds at the head of a string: the number, kept within its range, whether it was beyond it, and what
/// follows. `None` where there is no number.
fn strtol(text: &str) -> Option<(i64, bool, &str)> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    if end == 0 {
        return None;
    }
    let magnitude = digits[..end].parse::<i128>().unwrap_or(i128::MAX);
    let value = if negative { -magnitude } else { magnitude };
    let clamped = i64::try_from(value).unwrap_or(if negative { i64::MIN } else { i64::MAX });
    Some((clamped, i128::from(clamped) != value, &digits[end..]))
}

/// The number that the whole string is, if it is one from `min` to `max`. Blanks before it and a plus sign are right.
pub fn number(text: &str, min: i64, max: i64) -> Option<i64> {
    match strtol(text) {
        Some((value, false, "")) if (min..=max).contains(&value) => Some(value),
        _ => None,
    }
}

/// The number at the head of a string, 0 where there is none; a greater one is cut to 32 bits.
pub fn atoi(text: &str) -> i32 {
    strtol(text).map_or(0, |(value, ..)| value as i32)
}

/// An IPv4 address of one to four numbers, decimal, octal (`010`) or hexadecimal (`0xa`), of which the last fills what
/// is left. What follows a blank is passed over.
pub fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let is_blank = |c: char| c.is_ascii_whitespace() || c == '\x0b';
    let text = text.split(is_blank).next().unwrap_or(text);
    let parts: Vec<u32> = text.split('.').map(part).collect::<Option<_>>()?;
    let (last, head) = parts.split_last()?;
    if head.len() > 3 || head.iter().any(|part| *part > 255) {
        return None;
    }
    let free = 32 - 8 * head.len() as u32;
    if free < 32 && *last >= 1 << free {
        return None;
    }
    let head = head
        .iter()
        .zip([24, 16, 8])
        .fold(0, |all, (part, shift)| all | (part << shift));
    Some(Ipv4Addr::from(head | last))
}

/// One number of an address.
fn part(text: &str) -> Option<u32> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_those_of_strtol() {
        for (text, expected) in [
            ("5", Some(5)),
            (" 5", Some(5)),
            ("+5", Some(5)),
            ("088", Some(88)),
            ("65535", Some(65535)),
            ("65536", None),
            ("-1", None),
            ("5 ", None),
            ("", None),
            ("+", None),
            ("0x50", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(number(text, 0, 65535), expected, "{text}");
        }
    }

    #[test]
    fn atoi_takes_what_it_can() {
        for (text, expected) in [
            ("64x", 64),
            (" 64", 64),
            ("", 0),
            ("x", 0),
            ("4294967360", 64),
        ] {
            assert_eq!(atoi(text), expected, "{text}");
        }
    }

    #[test]
    fn addresses_are_those_of_inet_aton() {
        for (text, expected) in [
            ("192.0.2.1", Some([192, 0, 2, 1])),
            ("10.1", Some([10, 0, 0, 1])),
            ("10.1.2", Some([10, 1, 0, 2])),
            ("24", Some([0, 0, 0, 24])),
            ("3221225985", Some([192, 0, 2, 1])),
            ("0x0a000003", Some([10, 0, 0, 3])),
            ("0300.0.2.1", Some([192, 0, 2, 1])),
            ("192.0.2.1 x", Some([192, 0, 2, 1])),
            ("4294967296", None),
            ("192.0.2.256", None),
            ("192.0.2.", None),
            ("192.0.2.1.", None),
            ("1.2.3.4.5", None),
            ("08.0.0.1", None),
            ("0x.0.0.1", None),
            ("10.65536.1", None),
            ("10.1.65536", None),
            ("", None),
            (" 10.0.0.1", None),
            ("+1.0.0.1", None),
            ("foo", None),
        ] {
            let expected = expected.map(Ipv4Addr::from);
            assert_eq!(inet_aton(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in ".{0,20}") {
            let _ = (number(&text, 0, 9), atoi(&text), inet_aton(&text));
        }
    }
}
