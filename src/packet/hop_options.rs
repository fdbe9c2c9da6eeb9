//! IPv6 hop-by-hop options (RFC 8200 4.3), checked as the kernel's `ipv6_parse_hopopts` does on every packet that comes in.

use crate::icmp::v6::{HEADER_FIELD, UNKNOWN_OPTION};
use crate::ipv6::{DST, HEADER_LEN, PAYLOAD_LEN};
use crate::parse::ParseError;

const PAD1: u8 = 0;
const PADN: u8 = 1;
const ROUTER_ALERT: u8 = 5;
const CALIPSO: u8 = 7;
const IOAM: u8 = 0x31;
const JUMBO: u8 = 0xc2;
/// The kernel's default for `net.ipv6.max_hbh_opts_number`.
const MAX_OPTIONS: usize = 8;
/// Longest run of padding: it is there to align to eight bytes.
const MAX_PADDING: usize = 7;

/// Checks the options of the packet at the start of `head`, `total_len` bytes long, whose fixed header is there and is
/// followed by a hop-by-hop header.
pub(crate) fn check(head: &[u8], total_len: usize) -> Result<(), ParseError> {
    let need = HEADER_LEN + 8;
    let end = match head.get(HEADER_LEN + 1) {
        Some(units) => HEADER_LEN + (usize::from(*units) + 1) * 8,
        None => need,
    };
    if end > total_len {
        return Err(ParseError::HopOptions);
    }
    let Some(header) = head.get(..end) else {
        return Err(ParseError::HeadShort(end));
    };
    let mut at = HEADER_LEN + 2;
    let mut padding = 0;
    let mut options = 0;
    while let Some(&kind) = header.get(at) {
        if kind == PAD1 {
            padding += 1;
            at += 1;
        } else {
            let len = match header.get(at + 1) {
                Some(len) => usize::from(*len) + 2,
                None => return Err(ParseError::HopOptions),
            };
            let Some(option) = header.get(at..at + len) else {
                return Err(ParseError::HopOptions);
            };
            if kind == PADN {
                padding += len;
                if option[2..].iter().any(|byte| *byte != 0) {
                    return Err(ParseError::HopOptions);
                }
            } else {
                options += 1;
                if options > MAX_OPTIONS {
                    return Err(ParseError::HopOptions);
                }
                check_option(header, at, option)?;
                padding = 0;
            }
            at += len;
        }
        if padding > MAX_PADDING {
            return Err(ParseError::HopOptions);
        }
    }
    Ok(())
}

fn check_option(header: &[u8], at: usize, option: &[u8]) -> Result<(), ParseError> {
    let problem = |code, at: usize| ParseError::ParamProblem {
        code,
        pointer: at as u16,
    };
    let sound = match option {
        [ROUTER_ALERT, len, ..] => *len == 2,
        [CALIPSO, len, rest @ ..] => {
            *len >= 8
                && rest
                    .get(4)
                    .is_some_and(|words| usize::from(*words) * 4 + 8 <= usize::from(*len))
        }
        [IOAM, ..] => at.is_multiple_of(4),
        [JUMBO, 4, value @ ..] if at % 4 == 2 => {
            let [a, b, c, d] = *value else {
                return Err(ParseError::HopOptions);
            };
            if u32::from_be_bytes([a, b, c, d]) <= 0xffff {
                return Err(problem(HEADER_FIELD, at + 2));
            }
            if header[PAYLOAD_LEN..PAYLOAD_LEN + 2] != [0, 0] {
                return Err(problem(HEADER_FIELD, at));
            }
            // No frame is as long as a payload that needs this option: the packet is cut short.
            return Err(ParseError::PacketTruncated);
        }
        [JUMBO, ..] => false,
        // RFC 8200 4.2: the two highest bits say what is to become of a packet with an unknown option.
        [kind, ..] => match kind >> 6 {
            0 => true,
            3 if header[DST] == 0xff => false,
            2 | 3 => return Err(problem(UNKNOWN_OPTION, at)),
            _ => false,
        },
        [] => false,
    };
    if sound {
        Ok(())
    } else {
        Err(ParseError::HopOptions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipv6;

    fn run(dst: u8, options: &[u8]) -> Result<(), ParseError> {
        assert_eq!((options.len() + 2) % 8, 0, "options fill the header");
        let mut packet = ipv6::build(&ipv6::NewHeader {
            traffic_class: 0,
            flow_label: 0,
            payload_len: 40,
            next_header: 0,
            hop_limit: 1,
            src: [0x20; 16],
            dst: [dst; 16],
        })
        .to_vec();
        packet.push(58);
        packet.push(((options.len() + 2) / 8 - 1) as u8);
        packet.extend(options);
        check(&packet, packet.len())
    }

    #[test]
    fn padding_and_known_options_pass() {
        assert_eq!(run(0x20, &[5, 2, 0, 0, 1, 0]), Ok(()));
        assert_eq!(run(0x20, &[1, 4, 0, 0, 0, 0]), Ok(()));
        assert_eq!(run(0x20, &[0, 0, 0, 0, 0, 0]), Ok(()));
        assert_eq!(
            run(0x20, &[0x1e, 4, 9, 9, 9, 9]),
            Ok(()),
            "unknown, to be skipped"
        );
    }

    #[test]
    fn malformed_options_drop_the_packet() {
        for options in [
            [1, 4, 0, 0, 0, 1],
            [5, 3, 0, 0, 0, 0],
            [1, 5, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 5],
            [0x5e, 4, 0, 0, 0, 0],
        ] {
            assert_eq!(
                run(0x20, &options),
                Err(ParseError::HopOptions),
                "{options:?}"
            );
        }
        let long_padding = [1, 6, 0, 0, 0, 0, 0, 0, 0x1e, 0, 0x1e, 2, 0, 0];
        assert_eq!(run(0x20, &long_padding), Err(ParseError::HopOptions));
        let nine: Vec<u8> = [0x1e, 0]
            .repeat(9)
            .into_iter()
            .chain([1, 2, 0, 0])
            .collect();
        assert_eq!(run(0x20, &nine), Err(ParseError::HopOptions));
    }

    #[test]
    fn senders_hear_of_unknown_options_that_ask_for_it() {
        let unknown = Err(ParseError::ParamProblem {
            code: 2,
            pointer: 42,
        });
        assert_eq!(run(0x20, &[0x9e, 4, 0, 0, 0, 0]), unknown);
        assert_eq!(run(0xff, &[0x9e, 4, 0, 0, 0, 0]), unknown);
        assert_eq!(run(0x20, &[0xde, 4, 0, 0, 0, 0]), unknown);
        assert_eq!(
            run(0xff, &[0xde, 4, 0, 0, 0, 0]),
            Err(ParseError::HopOptions)
        );
    }

    #[test]
    fn jumbo_payloads_are_refused() {
        let small = Err(ParseError::ParamProblem {
            code: 0,
            pointer: 44,
        });
        assert_eq!(run(0x20, &[0xc2, 4, 0, 0, 1, 0]), small);
        let with_length = Err(ParseError::ParamProblem {
            code: 0,
            pointer: 42,
        });
        assert_eq!(run(0x20, &[0xc2, 4, 0, 1, 0, 0]), with_length);
    }

    #[test]
    fn headers_cut_short_are_told_from_bytes_not_at_hand() {
        let mut packet = vec![0; 48];
        packet[41] = 1;
        assert_eq!(check(&packet, 48), Err(ParseError::HopOptions));
        assert_eq!(check(&packet, 80), Err(ParseError::HeadShort(56)));
        assert_eq!(check(&packet[..41], 80), Err(ParseError::HeadShort(48)));
    }
}
