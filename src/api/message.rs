//! Whole messages of all families: requests from clients, answers from the server, and datagrams of them.
//!
//! Acknowledgements and dumps are as netlink has them (net/netlink/af_netlink.c): a request that is no dump is answered
//! with at most one reply and then, if it asked for that or failed, an error message, whose code 0 is success; a dump is
//! answered with any number of replies and a done message.

use std::fmt;

use crate::ctrl::{self, CTRL_ID, IPVS_ID, RIPVS_ID};
use crate::errno::Errno;
use crate::nl::{self, flags, kind, u32_at, Attrs, DecodeError, Header, Message, Writer};
use crate::{ipvs, ripvs};

/// Attribute of an error message: a sentence for people (`NLMSGERR_ATTR_MSG`).
const ERROR_TEXT: u16 = 1;

/// What a client asks for, of any family.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// A question for families.
    Families(ctrl::Query),
    /// A request of the kernel's family.
    Ipvs(ipvs::Request),
    /// A request of our family.
    Ripvs(ripvs::Request),
    /// Nothing: netlink's own messages and those that are no requests, which are passed over.
    Nothing,
}

impl From<ipvs::Request> for Request {
    fn from(request: ipvs::Request) -> Request {
        Request::Ipvs(request)
    }
}

impl From<ripvs::Request> for Request {
    fn from(request: ripvs::Request) -> Request {
        Request::Ripvs(request)
    }
}

impl Request {
    /// Whether it asks for several entries, which a done message ends.
    pub fn is_dump(&self) -> bool {
        match self {
            Request::Families(query) => *query == ctrl::Query::All,
            Request::Ipvs(request) => request.is_dump(),
            Request::Ripvs(request) => request.is_dump(),
            Request::Nothing => false,
        }
    }

    /// Writes the message, with a demand for an acknowledgement where it is no dump.
    pub fn encode(&self, seq: u32, w: &mut Writer) {
        let header = |kind| Header {
            kind,
            flags: flags::REQUEST
                | if self.is_dump() {
                    flags::DUMP
                } else {
                    flags::ACK
                },
            seq,
            pid: 0,
        };
        match self {
            Request::Families(query) => w.message(header(CTRL_ID), |w| {
                w.genl(query.command(), 1);
                query.encode(w);
            }),
            Request::Ipvs(request) => w.message(header(IPVS_ID), |w| {
                w.genl(request.command(), ipvs::VERSION);
                request.encode(w);
            }),
            Request::Ripvs(request) => w.message(header(RIPVS_ID), |w| {
                w.genl(request.command(), ripvs::VERSION);
                request.encode(w);
            }),
            Request::Nothing => w.message(header(1), |_| {}),
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// The error number to answer with.
    pub fn decode(message: &Message<'_>) -> Result<Request, Errno> {
        let header = &message.header;
        if header.kind < kind::MIN_FAMILY || header.flags & flags::REQUEST == 0 {
            return Ok(Request::Nothing);
        }
        let (genl, attrs) = nl::genl(message.payload).map_err(|_| Errno::INVAL)?;
        match header.kind {
            CTRL_ID => ctrl::Query::decode(genl.cmd, header, attrs).map(Request::Families),
            IPVS_ID => ipvs::Request::decode(genl.cmd, header, attrs).map(Request::Ipvs),
            RIPVS_ID => {
                ripvs::Request::accept(genl.cmd, genl.version, header, attrs).map(Request::Ripvs)
            }
            _ => Err(Errno::NOENT),
        }
    }
}

/// A request as the server gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming {
    /// The message's header, to be given to [`Outgoing`] for answers.
    pub header: Header,
    /// What is asked for, or the error to answer with.
    pub request: Result<Request, Errno>,
}

impl Incoming {
    /// The requests in a datagram, in order.
    pub fn read(datagram: &[u8]) -> impl Iterator<Item = Incoming> + '_ {
        nl::messages(datagram).map(|message| Incoming {
            header: message.header,
            request: Request::decode(&message),
        })
    }
}

/// What the server shows, of any family.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A family.
    Family(ctrl::Family),
    /// A reply of the kernel's family.
    Ipvs(ipvs::Reply),
    /// A reply of our family.
    Ripvs(ripvs::Reply),
}

impl From<ipvs::Reply> for Reply {
    fn from(reply: ipvs::Reply) -> Reply {
        Reply::Ipvs(reply)
    }
}

impl From<ripvs::Reply> for Reply {
    fn from(reply: ripvs::Reply) -> Reply {
        Reply::Ripvs(reply)
    }
}

impl Reply {
    fn encode(&self, to: &Header, flags: u16, w: &mut Writer) {
        let header = |kind| Header {
            kind,
            flags,
            seq: to.seq,
            pid: to.pid,
        };
        match self {
            Reply::Family(family) => w.message(header(CTRL_ID), |w| {
                w.genl(family.command(), 2);
                family.encode(w);
            }),
            Reply::Ipvs(reply) => w.message(header(IPVS_ID), |w| {
                w.genl(reply.command(), ipvs::VERSION);
                reply.encode(w);
            }),
            Reply::Ripvs(reply) => w.message(header(RIPVS_ID), |w| {
                w.genl(reply.command(), ripvs::VERSION);
                reply.encode(w);
            }),
        }
    }

    fn decode(message: &Message<'_>) -> Result<Reply, DecodeError> {
        let (genl, attrs) = nl::genl(message.payload)?;
        match message.header.kind {
            CTRL_ID => ctrl::Family::decode(genl.cmd, attrs).map(Reply::Family),
            IPVS_ID => ipvs::Reply::decode(genl.cmd, attrs).map(Reply::Ipvs),
            RIPVS_ID if genl.version != ripvs::VERSION => Err(DecodeError::Invalid("version")),
            RIPVS_ID => ripvs::Reply::decode(genl.cmd, attrs).map(Reply::Ripvs),
            other => Err(DecodeError::Unknown(other)),
        }
    }
}

/// Why the server did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error number.
    pub errno: Errno,
    /// A sentence on what was wrong, where there is more to say than the error number does.
    pub text: Option<String>,
}

impl Refusal {
    /// A refusal with words of its own.
    pub fn new(errno: Errno, text: impl Into<String>) -> Refusal {
        Refusal {
            errno,
            text: Some(text.into()),
        }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Refusal {
        Refusal { errno, text: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => f.write_str(text),
            None => self.errno.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {}

/// One message from the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// What was asked for, or a part of it.
    Reply(Reply),
    /// The request is done.
    Ack,
    /// The dump is at its end.
    Done,
    /// The request is refused.
    Refused(Refusal),
}

impl Answer {
    /// Reads a message.
    ///
    /// # Errors
    /// [`DecodeError`] where the server speaks otherwise than this client.
    pub fn decode(message: &Message<'_>) -> Result<Answer, DecodeError> {
        match message.header.kind {
            kind::DONE => Ok(Answer::Done),
            kind::ERROR => {
                let code = u32_at(message.payload, 0).ok_or(DecodeError::Truncated)? as i32;
                if code == 0 {
                    return Ok(Answer::Ack);
                }
                Ok(Answer::Refused(Refusal {
                    errno: Errno(code.saturating_neg()),
                    text: error_text(message),
                }))
            }
            _ => Reply::decode(message).map(Answer::Reply),
        }
    }
}

/// The sentence in an error message, which stands behind the header, or the whole, of the request.
fn error_text(message: &Message<'_>) -> Option<String> {
    if message.header.flags & flags::ACK_TLVS == 0 {
        return None;
    }
    let quoted = if message.header.flags & flags::CAPPED != 0 {
        nl::HEADER_LEN
    } else {
        u32_at(message.payload, 4)? as usize
    };
    let attrs = message.payload.get(quoted.checked_add(4)?..)?;
    let (_, text) = Attrs::new(attrs).find(|(kind, _)| *kind == ERROR_TEXT)?;
    let text = text.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// What kind of messages a datagram holds that more may be added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    /// Parts of a dump.
    Dump,
    /// Acknowledgements and errors.
    Acks,
}

/// Answers, gathered into datagrams.
///
/// A reply and the acknowledgement behind it go in two datagrams, as from the kernel: libnl reads one at a time and would
/// wait for ever for an acknowledgement that it has read already. Parts of a dump share datagrams, and so do
/// acknowledgements that follow one another.
#[derive(Debug, Default)]
pub struct Outgoing {
    full: Vec<Vec<u8>>,
    last: Writer,
    open: Option<Open>,
}

impl Outgoing {
    /// Nothing yet.
    pub fn new() -> Outgoing {
        Outgoing::default()
    }

    /// Adds the reply to a request that is no dump; an [`Outgoing::ack`] is to follow.
    pub fn reply(&mut self, to: &Header, reply: &Reply) {
        self.close();
        reply.encode(to, 0, &mut self.last);
        self.close();
    }

    /// Adds one entry of a dump.
    pub fn item(&mut self, to: &Header, reply: &Reply) {
        self.add(Open::Dump, |w| reply.encode(to, flags::MULTI, w));
    }

    /// Adds the end of a dump.
    pub fn done(&mut self, to: &Header) {
        let header = Header {
            kind: kind::DONE,
            flags: flags::MULTI,
            seq: to.seq,
            pid: to.pid,
        };
        self.add(Open::Dump, |w| w.message(header, |w| w.raw(&[0; 4])));
    }

    /// Adds the acknowledgement of a request, if it asked for one.
    pub fn ack(&mut self, to: &Header) {
        if to.wants_ack() {
            self.code(to, 0, None);
        }
    }

    /// Adds a refusal, whether or not the request asked for an acknowledgement.
    pub fn refuse(&mut self, to: &Header, refusal: &Refusal) {
        self.code(to, refusal.errno.0, refusal.text.as_deref());
    }

    /// The datagrams to be sent, in order; none are left.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        self.close();
        std::mem::take(&mut self.full)
    }

    /// Bytes gathered and not taken.
    pub fn len(&self) -> usize {
        self.full.iter().map(Vec::len).sum::<usize>() + self.last.len()
    }

    /// Whether nothing is gathered.
    pub fn is_empty(&self) -> bool {
        self.full.is_empty() && self.last.is_empty()
    }

    fn code(&mut self, to: &Header, errno: i32, text: Option<&str>) {
        let extra = if text.is_some() { flags::ACK_TLVS } else { 0 };
        let header = Header {
            kind: kind::ERROR,
            flags: flags::CAPPED | extra,
            seq: to.seq,
            pid: to.pid,
        };
        self.add(Open::Acks, |w| {
            w.message(header, |w| {
                w.raw(&errno.wrapping_neg().to_ne_bytes());
                w.message(*to, |_| {});
                if let Some(text) = text {
                    w.string(ERROR_TEXT, text);
                }
            });
        });
    }

    /// Adds messages to the last datagram if it holds such and they fit, to a new one if not.
    fn add(&mut self, what: Open, write: impl FnOnce(&mut Writer)) {
        // Well below the limit, so that one more message of ordinary length always fits.
        if self.open != Some(what) || self.last.len() > crate::MAX_DATAGRAM / 2 {
            self.close();
        }
        write(&mut self.last);
        self.open = Some(what);
    }

    fn close(&mut self) {
        if !self.last.is_empty() {
            self.full.push(std::mem::take(&mut self.last).into_bytes());
        }
        self.open = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn to(flags: u16) -> Header {
        Header {
            kind: IPVS_ID,
            flags,
            seq: 5,
            pid: 77,
        }
    }

    fn answers(datagram: &[u8]) -> Vec<Answer> {
        nl::messages(datagram)
            .map(|message| {
                assert_eq!((message.header.seq, message.header.pid), (5, 77));
                Answer::decode(&message).unwrap()
            })
            .collect()
    }

    fn info() -> Reply {
        Reply::Ipvs(ipvs::Reply::Info(ipvs::Info {
            version: 0x010201,
            conn_tab_size: 4096,
        }))
    }

    #[test]
    fn requests_of_all_families_survive_the_wire() {
        let requests = [
            Request::Families(ctrl::Query::Name("IPVS".into())),
            Request::Families(ctrl::Query::All),
            Request::Ipvs(ipvs::Request::DumpServices),
            Request::Ipvs(ipvs::Request::Flush),
            Request::Ripvs(ripvs::Request::Ports),
            Request::Ripvs(ripvs::Request::Status),
            Request::Nothing,
        ];
        let mut writer = Writer::new();
        for (seq, request) in (1..).zip(&requests) {
            request.encode(seq, &mut writer);
        }
        let found: Vec<_> = Incoming::read(writer.as_bytes())
            .map(|incoming| incoming.request.unwrap())
            .collect();
        assert_eq!(found, requests);
    }

    #[test]
    fn an_unknown_family_is_not_found() {
        let mut writer = Writer::new();
        let header = Header {
            kind: 99,
            flags: flags::REQUEST,
            ..Header::default()
        };
        writer.message(header, |w| w.genl(1, 1));
        let found = Incoming::read(writer.as_bytes()).next().unwrap();
        assert_eq!(found.request, Err(Errno::NOENT));
    }

    #[test]
    fn a_reply_and_its_acknowledgement_go_apart() {
        let mut out = Outgoing::new();
        let header = to(flags::REQUEST | flags::ACK);
        out.reply(&header, &info());
        out.ack(&header);
        let datagrams = out.take();
        assert_eq!(datagrams.len(), 2);
        assert_eq!(answers(&datagrams[0]), [Answer::Reply(info())]);
        assert_eq!(answers(&datagrams[1]), [Answer::Ack]);
        assert!(out.is_empty());
    }

    #[test]
    fn who_asks_for_no_acknowledgement_gets_errors_only() {
        let mut out = Outgoing::new();
        out.ack(&to(flags::REQUEST));
        assert!(out.is_empty());
        out.refuse(&to(flags::REQUEST), &Errno::SRCH.into());
        let refused = Answer::Refused(Errno::SRCH.into());
        assert_eq!(answers(&out.take()[0]), [refused]);
    }

    #[test]
    fn a_refusal_keeps_its_words() {
        let mut out = Outgoing::new();
        let refusal = Refusal::new(Errno::NOENT, "there is no interface `eth7`");
        out.refuse(&to(flags::REQUEST), &refusal);
        assert_eq!(answers(&out.take()[0]), [Answer::Refused(refusal)]);
    }

    #[test]
    fn dumps_are_packed_into_bounded_datagrams() {
        let mut out = Outgoing::new();
        let header = to(flags::REQUEST | flags::DUMP);
        for _ in 0..5000 {
            out.item(&header, &info());
        }
        out.done(&header);
        let datagrams = out.take();
        assert!(datagrams.len() > 1 && datagrams.len() < 20);
        assert!(datagrams.iter().all(|d| d.len() <= crate::MAX_DATAGRAM));
        let all: Vec<_> = datagrams.iter().flat_map(|d| answers(d)).collect();
        assert_eq!(all.len(), 5001);
        assert_eq!(all.last(), Some(&Answer::Done));
    }

    #[test]
    fn a_reply_of_another_version_is_not_read() {
        let mut writer = Writer::new();
        let header = Header {
            kind: RIPVS_ID,
            ..Header::default()
        };
        writer.message(header, |w| w.genl(1, ripvs::VERSION + 1));
        let message = nl::messages(writer.as_bytes()).next().unwrap();
        assert_eq!(
            Answer::decode(&message),
            Err(DecodeError::Invalid("version"))
        );
    }

    proptest! {
        #[test]
        fn random_messages_are_survived(
            kind in prop_oneof![Just(2u16), Just(3), Just(CTRL_ID), Just(IPVS_ID), Just(RIPVS_ID), any::<u16>()],
            flags in any::<u16>(),
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut writer = Writer::new();
            writer.message(Header { kind, flags, seq: 1, pid: 2 }, |w| w.raw(&body));
            for message in nl::messages(writer.as_bytes()) {
                let _ = Request::decode(&message);
                let _ = Answer::decode(&message);
            }
            prop_assert!(Incoming::read(&body).count() <= body.len() / nl::HEADER_LEN);
        }
    }
}
