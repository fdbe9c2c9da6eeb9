//! What is said on an FTP control connection (RFC 959, 2428), read exactly as ip_vs_ftp.c of Linux 6.1 does, its leniency
//! included: a part of an address or a port that is too great keeps its lowest bits. Knows no connections.

use std::net::Ipv6Addr;
use std::ops::Range;

use crate::family::Family;
use crate::types::Af;

/// A client's command that a data connection comes of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<A: Family> {
    /// PASV: the server will say where it listens.
    Passive,
    /// EPSV: likewise, in the extended form.
    ExtendedPassive,
    /// PORT or EPRT: the server is to connect to this address and port.
    Active(A::Addr, u16),
}

/// Where a server says that it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listens<A: Family> {
    /// Where in the payload that stands, to be written anew.
    pub text: Range<usize>,
    /// The address.
    pub addr: A::Addr,
    /// The port.
    pub port: u16,
}

/// The command in a client's packet. PASV and EPSV are found anywhere in it, PORT and EPRT at its start.
pub fn command<A: Family>(data: &[u8]) -> Option<Command<A>> {
    for line in (0..data.len()).map(|at| &data[at..]) {
        let Some(start) = line.first_chunk::<6>() else {
            break;
        };
        if A::AF == Af::V4 && start.eq_ignore_ascii_case(b"PASV\r\n") {
            return Some(Command::Passive);
        }
        if !start[..4].eq_ignore_ascii_case(b"EPSV") {
            continue;
        }
        match start[4] {
            b'\r' => return Some(Command::ExtendedPassive),
            b' ' => {
                let own = start[5] == family_digit::<A>() && line.get(6) == Some(&b'\r');
                return own.then_some(Command::ExtendedPassive);
            }
            _ => {}
        }
    }
    let found = if A::AF == Af::V4 {
        plain::<A>(data, b"PORT", b' ')
    } else {
        None
    };
    let found = found.or_else(|| extended::<A>(data, b"EPRT", b' ', None));
    found.map(|at| Command::Active(at.addr, at.port))
}

/// The answer to PASV (`227 ... (a,a,a,a,p,p)`, the parentheses not needed), at the start of a server's packet.
pub fn passive<A: Family>(data: &[u8]) -> Option<Listens<A>> {
    plain(data, b"227 ", b'(')
}

/// The answer to EPSV (`229 ... (|||p|)`), at the start of a server's packet. Where it names no address it means `server`.
pub fn extended_passive<A: Family>(data: &[u8], server: A::Addr) -> Option<Listens<A>> {
    extended(data, b"229 ", b'(', Some(server))
}

/// The number of the family in the extended form (RFC 2428, 2).
fn family_digit<A: Family>() -> u8 {
    match A::AF {
        Af::V4 => b'1',
        Af::V6 => b'2',
    }
}

/// Whether the payload begins with a word, in letters of either case.
fn begins(data: &[u8], word: &[u8]) -> bool {
    data.get(..word.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// Where what follows the first run of `skip` begins; a digit before it will do too, if `or_digit`.
fn skip_to(data: &[u8], from: usize, skip: u8, or_digit: bool) -> Option<usize> {
    let mut at = from;
    loop {
        match *data.get(at)? {
            byte if byte == skip => break,
            byte if or_digit && byte.is_ascii_digit() => return Some(at),
            _ => at += 1,
        }
    }
    while *data.get(at)? == skip {
        at += 1;
    }
    Some(at)
}

/// The old form: four numbers of an address, two of a port, and something after them.
fn plain<A: Family>(data: &[u8], word: &[u8], skip: u8) -> Option<Listens<A>> {
    if !begins(data, word) {
        return None;
    }
    let start = skip_to(data, word.len(), skip, true)?;
    let mut numbers = [0u8; 6];
    let (mut at, mut n) = (start, 0);
    loop {
        match *data.get(at)? {
            digit @ b'0'..=b'9' => {
                numbers[n] = numbers[n].wrapping_mul(10).wrapping_add(digit - b'0');
            }
            b',' if n < 5 => n += 1,
            _ => break,
        }
        at += 1;
    }
    if n != 5 {
        return None;
    }
    Some(Listens {
        text: start..at,
        addr: A::from_slice(&numbers[..4])?,
        port: u16::from_be_bytes([numbers[4], numbers[5]]),
    })
}

/// The extended form, between delimiters: family, address, port. Both may be left out where there is a `default` address.
fn extended<A: Family>(
    data: &[u8],
    word: &[u8],
    skip: u8,
    default: Option<A::Addr>,
) -> Option<Listens<A>> {
    if !begins(data, word) {
        return None;
    }
    let start = skip_to(data, word.len(), skip, false)?;
    let delimiter = *data.get(start).filter(|byte| byte.is_ascii_graphic())?;
    let is_delimiter = |at: usize| (*data.get(at)? == delimiter).then_some(at + 1);
    let first = start + 1;
    let (addr, mut at) = if let Some(second) = is_delimiter(first) {
        (default?, is_delimiter(second)?)
    } else {
        if *data.get(first)? != family_digit::<A>() {
            return None;
        }
        let from = is_delimiter(first + 1)?;
        let len = data
            .get(from..)?
            .iter()
            .position(|byte| *byte == delimiter)?;
        (address::<A>(&data[from..from + len])?, from + len + 1)
    };
    let mut port = 0u16;
    while let digit @ b'0'..=b'9' = *data.get(at)? {
        port = port.wrapping_mul(10).wrapping_add(u16::from(digit - b'0'));
        at += 1;
    }
    let end = is_delimiter(at)?;
    (port != 0).then_some(Listens {
        text: start..end,
        addr,
        port,
    })
}

/// An address in its own form; an IPv4 one's numbers may have zeros in front (`in4_pton`).
fn address<A: Family>(text: &[u8]) -> Option<A::Addr> {
    let text = std::str::from_utf8(text).ok()?;
    if A::AF == Af::V6 {
        return A::from_ip(text.parse::<Ipv6Addr>().ok()?.into());
    }
    let mut bytes = [0u8; 4];
    let mut parts = text.split('.');
    for byte in &mut bytes {
        let part = parts.next()?;
        let digits = part.bytes().all(|byte| byte.is_ascii_digit());
        *byte = part.parse().ok().filter(|_| digits)?;
    }
    match parts.next() {
        Some(_) => None,
        None => A::from_slice(&bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::{V4, V6};

    const CLIENT: [u8; 4] = [198, 18, 0, 1];
    const SERVER: [u8; 4] = [10, 0, 0, 11];

    fn active(text: &str) -> Option<([u8; 4], u16)> {
        match command::<V4>(text.as_bytes()) {
            Some(Command::Active(addr, port)) => Some((addr, port)),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pasv_and_epsv_are_found_with_their_line_s_end_wherever_they_stand() {
        let passive = Some(Command::Passive);
        assert_eq!(command::<V4>(b"PASV\r\n"), passive);
        assert_eq!(command::<V4>(b"NOOP\r\nxpAsv\r\nNOOP\r\n"), passive);
        assert_eq!(command::<V4>(b"PASV\n"), None);
        assert_eq!(command::<V4>(b"PA"), None);
        assert_eq!(command::<V6>(b"PASV\r\n"), None);
        let extended = Some(Command::ExtendedPassive);
        assert_eq!(command::<V4>(b"EPSV\r\n"), extended);
        assert_eq!(command::<V4>(b"xxEPSV\rz"), extended);
        assert_eq!(command::<V4>(b"xxEPSV\r"), None);
        assert_eq!(command::<V4>(b"epsv 1\r\n"), extended);
        assert_eq!(command::<V4>(b"EPSV 2\r\n"), None);
        assert_eq!(command::<V4>(b"EPSV ALL\r\n"), None);
        let extended = Some(Command::ExtendedPassive);
        assert_eq!(command::<V6>(b"EPSV 2\r\n"), extended);
        assert_eq!(command::<V6>(b"EPSV 1\r\n"), None);
    }

    #[test]
    fn port_is_read_as_leniently_as_the_kernel_does() {
        for (text, port) in [
            ("PORT 198,18,0,1,4,1\r\n", 1025),
            ("port   198,18,0,1,4,1x", 1025),
            ("PORTx198,18,0,1,4,100\r\n", 1124),
            ("PORT 198,18,0,1,4,101,7\r\n", 1125),
            ("PORT 198,18,256,1,260,3\r\n", 1027),
        ] {
            assert_eq!(active(text), Some((CLIENT, port)), "{text}");
        }
        assert_eq!(active("PORT ,,,,4,102\r\n"), Some(([0; 4], 1126)));
        for text in [
            "NOOP\r\nPORT 198,18,0,1,4,1\r\n",
            "PORT 198,18,0,1,4",
            "PORT 198,18,0,1,4\r\n",
            "PORT 198,18,0,1,4,4",
            "PORT x198,18,0,1,4,103\r\n",
            "PORT 198, 18,0,1,4,104\r\n",
            "POR",
            "",
        ] {
            assert_eq!(active(text), None, "{text}");
        }
        assert_eq!(command::<V6>(b"PORT 198,18,0,1,4,1\r\n"), None);
    }

    #[test]
    fn eprt_needs_its_own_family_and_any_delimiter() {
        for (text, port) in [
            ("EPRT |1|198.18.0.1|1025|\r\n", 1025),
            ("eprt ,1,198.18.0.1,1026,\r\n", 1026),
            ("EPRT |1|198.018.0.001|1027|", 1027),
            ("EPRTx   |1|198.18.0.1|1028|x", 1028),
            ("EPRT |1|198.18.0.1|66561|\r\n", 1025),
        ] {
            assert_eq!(active(text), Some((CLIENT, port)), "{text}");
        }
        for text in [
            "EPRT |2|2001:db8::1|1027|\r\n",
            "EPRT |||1028|\r\n",
            "EPRT |1|198.18.0.1|0|\r\n",
            "EPRT |1|198.18.1|1025|\r\n",
            "EPRT |1|198.18.0.1.2|1025|\r\n",
            "EPRT |1|198.18.0.256|1025|\r\n",
            "EPRT |1|198.+8.0.1|1025|\r\n",
            "EPRT |1|198.18.0.1|1025",
            "EPRT |1|198.18.0.1|1025x|",
            "EPRTx|1|198.18.0.1|1030|\r\n",
            "EPRT 111198.18.0.1|1032|\r\n",
            "EPRT ",
        ] {
            assert_eq!(active(text), None, "{text}");
        }
        let addr = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets();
        assert_eq!(
            command::<V6>(b"EPRT |2|2001:db8::1|1025|\r\n"),
            Some(Command::Active(addr, 1025))
        );
    }

    #[test]
    fn the_answer_to_pasv_needs_no_parentheses_but_something_after_it() {
        for (text, range) in [
            ("227 Entering Passive Mode (10,0,0,11,4,1).\r\n", 27..40),
            ("227 =10,0,0,11,4,1\r\n", 5..18),
            ("227 (((10,0,0,11,4,1\r\n", 7..20),
            ("227 (10,0,0,11,4,1,9)\r\n", 5..18),
        ] {
            let found = passive::<V4>(text.as_bytes()).expect(text);
            assert_eq!(
                (found.text, found.addr, found.port),
                (range, SERVER, 1025),
                "{text}"
            );
        }
        for text in [
            "227 x (10,0,0,",
            "200 ok\r\n227 x (10,0,0,11,1,5)\r\n",
            "227 x (10,0,0,11,1)\r\n",
            "227 ()10,0,0,11,4,1)\r\n",
            "227 1 (10,0,0,11,4,3)\r\n",
            "227",
        ] {
            assert_eq!(passive::<V4>(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_answer_to_epsv_may_name_an_address_of_its_family() {
        let found = extended_passive::<V4>(b"229 x (|||51210|)\r\n", SERVER).unwrap();
        assert_eq!((found.text, found.addr, found.port), (7..16, SERVER, 51210));
        let found = extended_passive::<V4>(b"229 x (!1!10.0.0.12!6000!)\r\n", SERVER).unwrap();
        assert_eq!(
            (found.text, found.addr, found.port),
            (7..25, [10, 0, 0, 12], 6000)
        );
        let text = b"229 x ((|||51210|)\r\n";
        assert_eq!(extended_passive::<V4>(text, SERVER).unwrap().text, 8..17);
        for text in [
            &b"229 (||1|51211|)\r\n"[..],
            b"229 (|1||51212|)\r\n",
            b"229 |||51213|\r\n",
            b"229 (|||0|)\r\n",
            b"229 (\x80\x80\x801\x80)",
            b"229 (",
        ] {
            assert_eq!(extended_passive::<V4>(text, SERVER), None);
        }
    }
}
