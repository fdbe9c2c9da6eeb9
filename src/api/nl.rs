//! Netlink as bytes: message headers, generic netlink headers, attributes, a writer and a bounds-checked reader.
//!
//! It knows nothing of any family. Layout and tolerance are those of `linux/netlink.h`, `linux/genetlink.h` and the
//! kernel's lib/nlattr.c: what does not fit ends the reading, unknown attributes are passed over, of attributes that
//! are there twice the last counts. Numbers are in host byte order where not said otherwise.

use std::fmt;

/// Length of a message header (`struct nlmsghdr`).
pub const HEADER_LEN: usize = 16;
/// Length of a generic netlink header (`struct genlmsghdr`).
pub const GENL_LEN: usize = 4;
/// Length of an attribute header (`struct nlattr`).
pub const ATTR_LEN: usize = 4;

/// Bits of [`Header::flags`].
pub mod flags {
    /// A request (`NLM_F_REQUEST`).
    pub const REQUEST: u16 = 0x1;
    /// One of several messages that a done message ends (`NLM_F_MULTI`).
    pub const MULTI: u16 = 0x2;
    /// An acknowledgement is wanted (`NLM_F_ACK`).
    pub const ACK: u16 = 0x4;
    /// All entries are wanted (`NLM_F_DUMP`).
    pub const DUMP: u16 = 0x300;
    /// The payload of the request is not repeated (`NLM_F_CAPPED`).
    pub const CAPPED: u16 = 0x100;
    /// Attributes follow in the acknowledgement (`NLM_F_ACK_TLVS`).
    pub const ACK_TLVS: u16 = 0x200;
}

/// Message types below those of families.
pub mod kind {
    /// An error or, with code 0, an acknowledgement (`NLMSG_ERROR`).
    pub const ERROR: u16 = 2;
    /// The end of a dump (`NLMSG_DONE`).
    pub const DONE: u16 = 3;
    /// The first type that is not netlink's own (`NLMSG_MIN_TYPE`).
    pub const MIN_FAMILY: u16 = 16;
}

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// A message or attribute is shorter than what it should hold.
    Truncated,
    /// An attribute that has to be there is not.
    Missing(&'static str),
    /// A value that has no meaning.
    Invalid(&'static str),
    /// A message type or command that is not known.
    Unknown(u16),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Truncated => write!(f, "the message is cut short"),
            DecodeError::Missing(what) => write!(f, "`{what}` is missing"),
            DecodeError::Invalid(what) => write!(f, "`{what}` has no valid value"),
            DecodeError::Unknown(number) => write!(f, "message {number} is not known"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// A message header, less its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Message type: a family's number, or one of [`kind`].
    pub kind: u16,
    /// Bits of [`flags`].
    pub flags: u16,
    /// Sequence number, repeated in replies.
    pub seq: u32,
    /// Port id of the sender, repeated in replies; often 0.
    pub pid: u32,
}

impl Header {
    /// Whether the request asks for all entries.
    pub fn is_dump(&self) -> bool {
        self.flags & flags::DUMP == flags::DUMP
    }

    /// Whether the request asks for an acknowledgement.
    pub fn wants_ack(&self) -> bool {
        self.flags & flags::ACK != 0
    }
}

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its header.
    pub header: Header,
    /// What follows the header, without padding.
    pub payload: &'a [u8],
    /// The whole message, header included, as errors quote it.
    pub raw: &'a [u8],
}

/// The messages of a datagram, in order. As in the kernel, the first that does not fit ends the iteration.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

/// The messages in `datagram`.
pub fn messages(datagram: &[u8]) -> Messages<'_> {
    Messages { rest: datagram }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = u32_at(self.rest, 0)? as usize;
        if length < HEADER_LEN {
            self.rest = &[];
            return None;
        }
        let raw = self.rest.get(..length)?;
        let header = Header {
            kind: u16_at(raw, 4)?,
            flags: u16_at(raw, 6)?,
            seq: u32_at(raw, 8)?,
            pid: u32_at(raw, 12)?,
        };
        self.rest = self.rest.get(align(length)..).unwrap_or(&[]);
        Some(Message {
            header,
            payload: &raw[HEADER_LEN..],
            raw,
        })
    }
}

/// A generic netlink header: the command and the family's version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Genl {
    /// The command.
    pub cmd: u8,
    /// The version of the family that the sender speaks.
    pub version: u8,
}

/// Splits a payload into the generic netlink header and the attributes.
///
/// # Errors
/// [`DecodeError::Truncated`] where there is no room for the header.
pub fn genl(payload: &[u8]) -> Result<(Genl, &[u8]), DecodeError> {
    match payload {
        [cmd, version, _, _, attrs @ ..] => Ok((
            Genl {
                cmd: *cmd,
                version: *version,
            },
            attrs,
        )),
        _ => Err(DecodeError::Truncated),
    }
}

/// The attributes in a payload: type (without the nested and byte order bits) and value. The first that does not fit
/// ends the iteration; [`Attrs::is_whole`] then tells.
#[derive(Clone, Debug)]
pub struct Attrs<'a> {
    rest: &'a [u8],
}

impl<'a> Attrs<'a> {
    /// The attributes in `payload`.
    pub fn new(payload: &'a [u8]) -> Attrs<'a> {
        Attrs { rest: payload }
    }

    /// Whether nothing is left that could not be read. True before the end only if nothing is left at all.
    pub fn is_whole(&self) -> bool {
        self.rest.is_empty()
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = u16_at(self.rest, 0)? as usize;
        let kind = u16_at(self.rest, 2)? & 0x3fff;
        let value = self.rest.get(ATTR_LEN..length)?;
        self.rest = self.rest.get(align(length)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

/// Attributes by type, up to `N - 1`, as the kernel's nla_parse gives them.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a, const N: usize> {
    values: [Option<&'a [u8]>; N],
}

impl<'a, const N: usize> Table<'a, N> {
    /// Sorts the attributes of `payload` by type.
    pub fn new(payload: &'a [u8]) -> Table<'a, N> {
        let mut values = [None; N];
        for (kind, value) in Attrs::new(payload) {
            if let Some(slot) = values.get_mut(kind as usize) {
                *slot = Some(value);
            }
        }
        Table { values }
    }

    /// The value of attribute `kind`, if it is there.
    pub fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.values.get(kind as usize).copied().flatten()
    }
}

/// Rounds up to a multiple of 4, as messages and attributes are.
fn align(length: usize) -> usize {
    length.saturating_add(3) & !3
}

/// The number in the 2 bytes at `at`.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

/// The number in the 4 bytes at `at`.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

/// The number in the 8 bytes at `at`.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*bytes))
}

/// Writes messages one after another into a buffer.
///
/// A value too long for an attribute (65,531 bytes) is left out and makes [`Writer::overflowed`] true.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl Writer {
    /// An empty buffer.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// Writes a message; `body` writes what follows its header.
    pub fn message(&mut self, header: Header, body: impl FnOnce(&mut Writer)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&header.kind.to_ne_bytes());
        self.bytes.extend_from_slice(&header.flags.to_ne_bytes());
        self.bytes.extend_from_slice(&header.seq.to_ne_bytes());
        self.bytes.extend_from_slice(&header.pid.to_ne_bytes());
        body(self);
        let length = self.bytes.len() - start;
        match u32::try_from(length) {
            Ok(length) => self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.overflowed = true,
        }
        self.pad();
    }

    /// Writes a generic netlink header.
    pub fn genl(&mut self, cmd: u8, version: u8) {
        self.bytes.extend_from_slice(&[cmd, version, 0, 0]);
    }

    /// Writes bytes that are not an attribute.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// Writes an attribute.
    pub fn attr(&mut self, kind: u16, value: &[u8]) {
        let Ok(length) = u16::try_from(ATTR_LEN + value.len()) else {
            self.overflowed = true;
            return;
        };
        self.attr_head(kind, length);
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    fn attr_head(&mut self, kind: u16, length: u16) {
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
    }

    /// Writes an attribute that holds attributes, which `body` writes.
    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Writer)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; ATTR_LEN]);
        body(self);
        let Ok(length) = u16::try_from(self.bytes.len() - start) else {
            self.bytes.truncate(start);
            self.overflowed = true;
            return;
        };
        // NLA_F_NESTED, which libnl and the kernel set and do not ask for.
        let kind = kind | 0x8000;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
    }

    /// Writes an attribute of one byte.
    pub fn u8(&mut self, kind: u16, value: u8) {
        self.attr(kind, &[value]);
    }

    /// Writes an attribute of two bytes.
    pub fn u16(&mut self, kind: u16, value: u16) {
        self.attr(kind, &value.to_ne_bytes());
    }

    /// Writes an attribute of two bytes in network byte order.
    pub fn be16(&mut self, kind: u16, value: u16) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// Writes an attribute of four bytes.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
    }

    /// Writes an attribute of eight bytes.
    pub fn u64(&mut self, kind: u16, value: u64) {
        self.attr(kind, &value.to_ne_bytes());
    }

    /// Writes a string, with the zero byte that ends it.
    pub fn string(&mut self, kind: u16, value: &str) {
        let Ok(length) = u16::try_from(ATTR_LEN + value.len() + 1) else {
            self.overflowed = true;
            return;
        };
        self.attr_head(kind, length);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets what was written, and keeps the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.overflowed = false;
    }

    /// Whether something was too long to be written.
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// What was written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What was written, as a vector.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn pad(&mut self) {
        let odd = self.bytes.len() & 3;
        if odd != 0 {
            self.bytes.extend_from_slice(&[0; 4][odd..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn two_messages() -> Vec<u8> {
        let mut writer = Writer::new();
        for seq in 1..3 {
            let header = Header {
                kind: 20,
                flags: flags::REQUEST,
                seq,
                pid: 9,
            };
            writer.message(header, |w| {
                w.genl(4, 1);
                w.nest(1, |w| {
                    w.u16(1, 2);
                    w.be16(4, 80);
                    w.string(6, "wrr");
                });
                w.u32(5, 7);
            });
        }
        writer.into_bytes()
    }

    #[test]
    fn layout_is_that_of_the_kernel() {
        let mut writer = Writer::new();
        writer.message(Header::default(), |w| w.string(6, "rr"));
        let bytes = writer.into_bytes();
        assert_eq!(bytes.len(), 16 + 8);
        assert_eq!(u32_at(&bytes, 0), Some(24));
        assert_eq!(u16_at(&bytes, 16), Some(7));
        assert_eq!(&bytes[20..], b"rr\0\0");
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = two_messages();
        let found: Vec<_> = messages(&bytes).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].header.seq, 2);
        let (header, attrs) = genl(found[0].payload).unwrap();
        assert_eq!(header, Genl { cmd: 4, version: 1 });
        let table = Table::<8>::new(attrs);
        assert_eq!(u32_at(table.get(5).unwrap(), 0), Some(7));
        let nested = Table::<8>::new(table.get(1).unwrap());
        assert_eq!(nested.get(4), Some(&[0, 80][..]));
        assert_eq!(nested.get(6), Some(&b"wrr\0"[..]));
        assert_eq!(nested.get(2), None);
    }

    #[test]
    fn every_truncation_yields_a_prefix_of_the_messages() {
        let bytes = two_messages();
        let whole: Vec<_> = messages(&bytes).collect();
        for cut in 0..bytes.len() {
            let found: Vec<_> = messages(&bytes[..cut]).collect();
            assert!(found.len() < 2);
            assert_eq!(found[..], whole[..found.len()]);
        }
    }

    #[test]
    fn a_message_shorter_than_its_header_ends_the_reading() {
        let mut bytes = two_messages();
        bytes[0] = 15;
        assert_eq!(messages(&bytes).count(), 0);
        bytes[0] = 0;
        assert_eq!(messages(&bytes).count(), 0);
    }

    #[test]
    fn an_attribute_that_does_not_fit_shows() {
        let mut attrs = Attrs::new(&[9, 0, 1, 0, 5, 5]);
        assert_eq!(attrs.next(), None);
        assert!(!attrs.is_whole());
    }

    #[test]
    fn a_value_too_long_is_left_out_and_told() {
        let mut writer = Writer::new();
        writer.attr(1, &vec![0; 65_532]);
        assert!(writer.overflowed() && writer.is_empty());
        let mut writer = Writer::new();
        writer.nest(1, |w| {
            w.attr(1, &vec![0; 40_000]);
            w.attr(2, &vec![0; 40_000]);
        });
        assert!(writer.overflowed() && writer.is_empty());
    }

    proptest! {
        #[test]
        fn random_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            for message in messages(&bytes) {
                if let Ok((_, attrs)) = genl(message.payload) {
                    for (_, value) in Attrs::new(attrs) {
                        prop_assert!(Attrs::new(value).count() <= value.len() / 4);
                    }
                }
            }
        }
    }
}
