//! IPv4 options, checked and filled in as the kernel does with every packet that it takes in (`ip_options_compile`) or
//! routes (`ip_forward_options`): routes and times are recorded, source routes are told of, what is malformed is refused.

/// End of the list.
const END: u8 = 0;
/// No operation.
const NOP: u8 = 1;
/// Record route.
const RECORD_ROUTE: u8 = 7;
/// Timestamp.
const TIMESTAMP: u8 = 68;
/// Loose source route.
const LOOSE_ROUTE: u8 = 131;
/// Security labels (CIPSO). The kernel refuses those of domains it has not been told of, which here are all.
const LABEL: u8 = 134;
/// Strict source route.
const STRICT_ROUTE: u8 = 137;
/// Router alert.
const ROUTER_ALERT: u8 = 148;

/// Length of the header before the options; pointers count from its start.
const FIXED: usize = crate::ipv4::HEADER_LEN;

/// What was found among a packet's options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Options were changed: the header checksum is to be made anew before the packet is sent on.
    pub changed: bool,
    /// There is a source route. The kernel drops such packets unless told otherwise (`accept_source_route`).
    pub source_route: bool,
    /// There is a router alert.
    pub router_alert: bool,
    /// Where, among the options, a route record had an address added that [`forward`] replaces.
    recorded: Option<u8>,
}

/// An option is malformed: the packet is dropped, and its sender told (ICMP parameter problem, code 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the trouble lies, in bytes from the start of the IP header.
    pub pointer: u8,
}

/// Reads a packet's options and fills in what they ask for. `here` is the address that stands for this host: the packet's
/// destination if it is for us, else the address that would be the source of a packet to its sender. `unicast_elsewhere`
/// tells of an address whether it is another host's; `millis` is the time since midnight UT in milliseconds.
///
/// # Errors
/// [`Problem`]. Options before the malformed one have been filled in then, as the quoted packet shows in the kernel.
pub fn receive(
    options: &mut [u8],
    here: impl Fn() -> [u8; 4],
    unicast_elsewhere: impl Fn([u8; 4]) -> bool,
    millis: u32,
) -> Result<Received, Problem> {
    let mut received = Received::default();
    let (mut has_record, mut has_timestamp) = (false, false);
    let mut at = 0;
    while at < options.len() {
        let problem = |offset: usize| Problem {
            pointer: (FIXED + at + offset) as u8,
        };
        let kind = options[at];
        match kind {
            END => {
                received.changed |= options[at..].iter().any(|byte| *byte != END);
                options[at..].fill(END);
                break;
            }
            NOP => {
                at += 1;
                continue;
            }
            _ => {}
        }
        let left = &mut options[at..];
        let len = left.get(1).map_or(0, |len| usize::from(*len));
        if len < 2 || len > left.len() {
            return Err(problem(0));
        }
        let option = &mut left[..len];
        match kind {
            STRICT_ROUTE | LOOSE_ROUTE => {
                check_pointer(option, 3, 4).map_err(problem)?;
                if std::mem::replace(&mut received.source_route, true) {
                    return Err(problem(0));
                }
            }
            RECORD_ROUTE => {
                if std::mem::replace(&mut has_record, true) {
                    return Err(problem(0));
                }
                check_pointer(option, 3, 4).map_err(problem)?;
                if record_route(option, &here).map_err(problem)? {
                    received.recorded = Some(at as u8);
                    received.changed = true;
                }
            }
            TIMESTAMP => {
                if std::mem::replace(&mut has_timestamp, true) {
                    return Err(problem(0));
                }
                check_pointer(option, 4, 5).map_err(problem)?;
                received.changed |=
                    timestamp(option, &here, &unicast_elsewhere, millis).map_err(problem)?;
            }
            ROUTER_ALERT => {
                let [_, _, high, low, ..] = *option else {
                    return Err(problem(1));
                };
                received.router_alert |= high == 0 && low == 0;
            }
            LABEL => return Err(problem(if len < 8 { 1 } else { 2 })),
            _ => {}
        }
        at += len;
    }
    Ok(received)
}

/// Checks that an option is at least `min` long and that its pointer, which counts from one, is at least `first`. The
/// error is where in the option the trouble lies.
fn check_pointer(option: &[u8], min: usize, first: u8) -> Result<(), usize> {
    if option.len() < min {
        return Err(1);
    }
    if option[2] < first {
        return Err(2);
    }
    Ok(())
}

/// Where an option's pointer points, counted from zero; `None` where that is beyond its end.
fn place(option: &[u8], need: usize) -> Result<Option<usize>, usize> {
    let pointer = usize::from(option[2]);
    if pointer > option.len() {
        return Ok(None);
    }
    if pointer - 1 + need > option.len() {
        return Err(2);
    }
    Ok(Some(pointer - 1))
}

/// Adds this host to a route record. Whether there was room.
fn record_route(option: &mut [u8], here: &impl Fn() -> [u8; 4]) -> Result<bool, usize> {
    let Some(at) = place(option, 4)? else {
        return Ok(false);
    };
    option[at..at + 4].copy_from_slice(&here());
    option[2] += 4;
    Ok(true)
}

/// Adds the time, and this host's address where asked for. Whether the option changed.
fn timestamp(
    option: &mut [u8],
    here: &impl Fn() -> [u8; 4],
    unicast_elsewhere: &impl Fn([u8; 4]) -> bool,
    millis: u32,
) -> Result<bool, usize> {
    const TIME_ONLY: u8 = 0;
    const WITH_ADDRESS: u8 = 1;
    const PRESPECIFIED: u8 = 3;
    let mode = option[3] & 0xf;
    let Some(at) = place(option, 4)? else {
        // No room: the hop is counted, up to 15.
        if mode == PRESPECIFIED {
            return Ok(false);
        }
        if option[3] >> 4 == 15 {
            return Err(3);
        }
        option[3] += 0x10;
        return Ok(true);
    };
    let address = option[at..].first_chunk::<4>().copied().unwrap_or_default();
    let time_at = match mode {
        TIME_ONLY => at,
        WITH_ADDRESS | PRESPECIFIED if at + 8 > option.len() => return Err(2),
        WITH_ADDRESS => {
            option[at..at + 4].copy_from_slice(&here());
            at + 4
        }
        PRESPECIFIED if unicast_elsewhere(address) => return Ok(false),
        PRESPECIFIED => at + 4,
        _ => return Ok(false),
    };
    option[time_at..time_at + 4].copy_from_slice(&millis.to_be_bytes());
    option[2] += (time_at + 4 - at) as u8;
    Ok(true)
}

/// What [`receive`] found in the first fragment of a datagram that was put together since: where a route was recorded. (A
/// record that was full when it came is taken for one that this host filled.)
pub fn gathered(options: &[u8]) -> Received {
    let mut received = Received::default();
    let mut at = 0;
    while let Some(rest) = options.get(at..).filter(|rest| !rest.is_empty()) {
        match *rest {
            [END, ..] => break,
            [NOP, ..] => at += 1,
            [kind, len, ..] if len >= 2 => {
                if kind == RECORD_ROUTE && rest.get(2).is_some_and(|pointer| *pointer > 4) {
                    received.recorded = Some(at as u8);
                }
                at += usize::from(len);
            }
            _ => break,
        }
    }
    received
}

/// Puts the address by which a routed packet leaves into its route record. Whether the options changed.
pub fn forward(options: &mut [u8], received: &Received, leaves_by: [u8; 4]) -> bool {
    let Some(option) = received
        .recorded
        .and_then(|at| options.get_mut(usize::from(at)..))
    else {
        return false;
    };
    // The pointer was moved on by four when the address was added.
    let added = match option.get(2) {
        Some(pointer) => usize::from(*pointer).saturating_sub(5),
        None => return false,
    };
    match option.get_mut(added..added + 4) {
        Some(place) => place.copy_from_slice(&leaves_by),
        None => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: [u8; 4] = [192, 0, 2, 100];
    const MILLIS: u32 = 0x03d3_f872;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    fn run(options: &mut [u8]) -> Result<Received, Problem> {
        receive(options, || VIP, |addr| addr != VIP, MILLIS)
    }

    #[test]
    fn what_the_kernel_let_pass_passes_as_it_left_it() {
        // From Linux 6.1.176: options as they came, and as they went on.
        let rows = [
            ("94040001", "94040001"),
            ("94040000", "94040000"),
            ("07030400", "07030400"),
            ("0707040000000000", "070708c000026400"),
            ("0707080000000000", "0707080000000000"),
            ("070b04000000000000000000", "070b08c00002640000000000"),
            ("4408050000000000", "4408090003d3f872"),
            ("440c05010000000000000000", "440c0d01c000026403d3f872"),
            ("440c0503c0000264aaaaaaaa", "440c0d03c000026403d3f872"),
            ("440c05030a000009aaaaaaaa", "440c05030a000009aaaaaaaa"),
            ("440c0501aaaaaaaabbbbbbbb", "440c0d01c000026403d3f872"),
            ("4408090000000000", "4408091000000000"),
            ("440809f300000000", "440809f300000000"),
            ("4408050200000000", "4408050200000000"),
            ("4408050500000000", "4408050500000000"),
            ("8206000000000000", "8206000000000000"),
            ("8804000100000000", "8804000100000000"),
            ("0100ff00", "01000000"),
            ("00ff0101", "00000000"),
            ("0107070400000000", "01070708c0000264"),
            ("1e020000", "1e020000"),
            ("0101010101010101", "0101010101010101"),
        ];
        for (came, went) in rows {
            let mut options = bytes(came);
            let received = run(&mut options).unwrap();
            assert_eq!(options, bytes(went), "{came}");
            assert_eq!(received.changed, came != went, "{came}");
            assert!(!received.source_route);
        }
    }

    #[test]
    fn what_the_kernel_refused_is_refused_at_the_same_byte() {
        let rows = [
            ("94ff0000", 20),
            ("94010000", 20),
            ("94030000", 21),
            ("07070300", 20),
            ("0707050000000000", 22),
            ("07020000", 21),
            ("0707070000000000", 22),
            ("44080500", 20),
            ("44080400ffffffff", 22),
            ("440809f000000000", 23),
            ("4408060000000000", 22),
            ("44030500", 21),
            ("83020000", 21),
            ("8907030000000000", 22),
            ("830704000000008307040000", 27),
            ("860a00000001050400000000", 22),
            ("8606000000000000", 21),
            ("07070400000000070704000000000000", 27),
            ("44080500000000004408050000000000", 28),
            ("02000000", 20),
            ("0101011e", 23),
            ("1e000000", 20),
        ];
        for (options, pointer) in rows {
            assert_eq!(
                run(&mut bytes(options)),
                Err(Problem { pointer }),
                "{options}"
            );
        }
    }

    #[test]
    fn source_routes_and_router_alerts_are_told_of() {
        for options in ["8307040000000000", "83030400", "8307040a00000100"] {
            assert!(run(&mut bytes(options)).unwrap().source_route, "{options}");
        }
        assert!(run(&mut bytes("94040000")).unwrap().router_alert);
        assert!(!run(&mut bytes("94040001")).unwrap().router_alert);
    }

    #[test]
    fn a_routed_packet_records_where_it_leaves() {
        let mut options = bytes("0107070400000000");
        let received = run(&mut options).unwrap();
        assert!(forward(&mut options, &received, [10, 0, 0, 254]));
        assert_eq!(options, bytes("010707080a0000fe"));
        // A timestamp keeps the address put in first.
        let mut options = bytes("440c05010000000000000000");
        let received = run(&mut options).unwrap();
        assert!(!forward(&mut options, &received, [10, 0, 0, 254]));
        assert_eq!(options, bytes("440c0d01c000026403d3f872"));
    }

    proptest::proptest! {
        #[test]
        fn no_options_make_it_fail(mut options in proptest::collection::vec(0u8.., 0..=40), kinds in proptest::collection::vec(0usize..8, 8)) {
            for (at, kind) in kinds.into_iter().enumerate() {
                if let Some(byte) = options.get_mut(at * 5) {
                    *byte = [7, 68, 131, 134, 137, 148, 1, 0][kind];
                }
            }
            if let Ok(received) = run(&mut options) {
                forward(&mut options, &received, VIP);
            }
        }
    }
}
