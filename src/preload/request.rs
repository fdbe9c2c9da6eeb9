//! What a program sends on a generic netlink socket, as far as it matters who is to answer.

use ripvs_api::ctrl::{Query, CTRL_ID};
use ripvs_api::nl::{self, flags, kind};
use ripvs_api::{ipvs, Request};

/// Longest datagram that may ask for a family by name: the question is one short message.
pub const QUESTION_MAX: usize = 4096;

/// Whether the datagram asks for the number of the family IPVS, which precedes all other requests to it.
pub fn asks_for_ipvs(datagram: &[u8]) -> bool {
    nl::messages(datagram).any(|message| {
        message.header.kind == CTRL_ID
            && matches!(Request::decode(&message),
                        Ok(Request::Families(Query::Name(name))) if name == ipvs::NAME)
    })
}

/// Puts the socket's port id where a message has none, as answers repeat it and the kernel would name it in them.
pub fn name_sender(datagram: &mut [u8], port: u32) {
    let mut at = 0;
    while let Some(length) = nl::u32_at(datagram, at).map(|length| length as usize) {
        let Some(pid) = datagram.get_mut(at + 12..at + 16) else {
            return;
        };
        if pid == [0; 4] {
            pid.copy_from_slice(&port.to_ne_bytes());
        }
        if length < nl::HEADER_LEN {
            return;
        }
        at = at.saturating_add(length.saturating_add(3) & !3);
    }
}

/// Whether a part of the answer can stand for the whole if the datagram is sent again: one request, and no dump.
pub fn may_be_repeated(datagram: &[u8]) -> bool {
    let mut messages = nl::messages(datagram);
    let one = messages.next();
    one.is_some_and(|message| message.header.flags & flags::DUMP != flags::DUMP)
        && messages.next().is_none()
}

/// Whether a datagram ends the answer to one that was sent: one request, whose acknowledgement, error or end comes last.
pub fn is_answered_by(sent: &[u8], datagram: &[u8]) -> bool {
    let mut requests = nl::messages(sent);
    let (Some(request), None) = (requests.next(), requests.next()) else {
        return false;
    };
    let is_dump = request.header.is_dump();
    // A request that asks for no acknowledgement is left unanswered, or answered by one message: better not to guess.
    let ends = match nl::messages(datagram).last() {
        Some(last) if last.header.seq == request.header.seq => match last.header.kind {
            kind::ERROR => is_dump || request.header.wants_ack(),
            kind::DONE => is_dump,
            _ => false,
        },
        _ => false,
    };
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use ripvs_api::nl::Writer;

    fn sent(requests: &[Request]) -> Vec<u8> {
        let mut writer = Writer::new();
        for request in requests {
            request.encode(1, &mut writer);
        }
        writer.into_bytes()
    }

    fn family(name: &str) -> Request {
        Request::Families(Query::Name(name.into()))
    }

    #[test]
    fn only_the_question_for_ipvs_counts() {
        assert!(asks_for_ipvs(&sent(&[family("IPVS")])));
        assert!(asks_for_ipvs(&sent(&[family("nl80211"), family("IPVS")])));
        for other in [
            family("nl80211"),
            family("IPVS2"),
            Request::Families(Query::All),
        ] {
            assert!(!asks_for_ipvs(&sent(&[other])));
        }
        assert!(!asks_for_ipvs(&sent(&[ipvs::Request::Flush.into()])));
        assert!(!asks_for_ipvs(b"IPVS"));
    }

    #[test]
    fn a_sender_is_named_where_none_is() {
        let mut bytes = sent(&[family("IPVS"), ipvs::Request::Flush.into()]);
        let second = bytes.len() - 20;
        bytes[second + 12..second + 16].copy_from_slice(&7u32.to_ne_bytes());
        name_sender(&mut bytes, 1234);
        let pids: Vec<_> = nl::messages(&bytes).map(|m| m.header.pid).collect();
        assert_eq!(pids, [1234, 7]);
    }

    #[test]
    fn bytes_that_are_no_messages_are_left_alone() {
        for bytes in [&b""[..], b"x", &[0; 15], &[255; 15]] {
            let mut named = bytes.to_vec();
            name_sender(&mut named, 9);
            assert_eq!(named, bytes);
        }
        let mut endless = [0; 64];
        name_sender(&mut endless, 9);
        let mut beyond = [255; 64];
        name_sender(&mut beyond, 9);
        assert_eq!(beyond, [255; 64]);
    }

    #[test]
    fn an_answer_ends_with_its_acknowledgement_or_the_end_of_the_dump() {
        let one = |kind, seq| {
            let mut writer = Writer::new();
            let header = nl::Header {
                kind,
                seq,
                ..nl::Header::default()
            };
            writer.message(header, |w| w.raw(&[0; 4]));
            writer.into_bytes()
        };
        let change = sent(&[ipvs::Request::Flush.into()]);
        let dump = sent(&[ipvs::Request::DumpServices.into()]);
        let both = sent(&[ipvs::Request::Flush.into(), ipvs::Request::Flush.into()]);
        assert!(is_answered_by(&change, &one(kind::ERROR, 1)));
        assert!(!is_answered_by(&change, &one(kind::ERROR, 2)), "of another");
        assert!(!is_answered_by(&change, &one(40, 1)), "the reply before it");
        assert!(!is_answered_by(&dump, &one(40, 1)));
        assert!(is_answered_by(&dump, &one(kind::DONE, 1)));
        assert!(!is_answered_by(&both, &one(kind::ERROR, 1)));
        assert!(!is_answered_by(&change, &[]) && !is_answered_by(&[], &one(kind::DONE, 1)));
    }

    #[test]
    fn a_dump_or_several_requests_are_not_repeated() {
        assert!(may_be_repeated(&sent(&[ipvs::Request::Flush.into()])));
        assert!(!may_be_repeated(&sent(&[
            ipvs::Request::DumpServices.into()
        ])));
        assert!(!may_be_repeated(&sent(&[
            family("IPVS"),
            ipvs::Request::Flush.into()
        ])));
        assert!(!may_be_repeated(b""));
    }
}
