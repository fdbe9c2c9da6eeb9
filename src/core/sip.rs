//! The persistence engine `sip`: what a client's packets go by is their Call-ID as well.
//!
//! Reads messages as ip_vs_pe_sip.c does with the helpers of nf_conntrack_sip.c: UDP only; a `Call-ID` header or its short
//! form `i` (RFC 3261, 7.3.3); a line that ends.

use crate::choose::TemplateKey;
use crate::conn::ConnId;
use crate::growing::GrowMap;

/// The longest Call-ID that is heeded (IP_VS_PEDATA_MAXLEN).
const MAX_LEN: usize = 255;

/// The Call-ID of a SIP message: the payload of a UDP datagram.
pub fn call_id(message: &[u8]) -> Option<&[u8]> {
    let mut rest = message;
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
        rest = rest[end..]
            .strip_prefix(b"\r\n")
            .unwrap_or(&rest[end + 1..]);
        if matches!(rest.first(), Some(b'\r' | b'\n') | None) {
            return None;
        }
        let Some(value) = header_value(rest) else {
            continue;
        };
        let word = value.iter().take_while(|byte| is_word(**byte)).count();
        if word == 0 {
            return None;
        }
        let host = match value.get(word) {
            Some(b'@') => match value[word + 1..]
                .iter()
                .take_while(|byte| is_word(**byte))
                .count()
            {
                0 => return None,
                n => n + 1,
            },
            _ => 0,
        };
        let len = word + host;
        return (len <= MAX_LEN && matches!(value.get(len), Some(b'\r' | b'\n')))
            .then(|| &value[..len]);
    }
}

/// What follows `Call-ID:` or `i:` and blanks, where the line begins with that.
fn header_value(line: &[u8]) -> Option<&[u8]> {
    let long = line
        .get(..7)
        .filter(|name| name.eq_ignore_ascii_case(b"call-id"))
        .map(|_| 7);
    let short = line
        .first()
        .filter(|byte| byte.eq_ignore_ascii_case(&b'i'))
        .map(|_| 1);
    for len in [long, short].into_iter().flatten() {
        let value = skip_blanks(&line[len..]);
        if let Some((b':', value)) = value.split_first() {
            return Some(skip_blanks(value));
        }
    }
    None
}

fn skip_blanks(bytes: &[u8]) -> &[u8] {
    let blanks = bytes
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count();
    &bytes[blanks..]
}

/// A character of RFC 3261's `word`.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~()<>:\\\"/[]?{}".contains(&byte)
}

/// What a template that goes by a Call-ID is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CallKey {
    service: TemplateKey,
    call_id: Vec<u8>,
}

/// The templates of this worker that go by a Call-ID.
#[derive(Debug, Default)]
pub struct Calls {
    by_call: GrowMap<CallKey, ConnId>,
    by_template: GrowMap<(bool, ConnId), CallKey>,
}

impl Calls {
    fn key(key: &TemplateKey, call_id: &[u8]) -> CallKey {
        CallKey {
            service: *key,
            call_id: call_id.to_vec(),
        }
    }

    /// The template of a client's call.
    pub fn find(&self, key: &TemplateKey, call_id: &[u8]) -> Option<ConnId> {
        self.by_call.get(&Self::key(key, call_id)).copied()
    }

    /// Notes the template of a call.
    pub fn insert(&mut self, key: &TemplateKey, call_id: &[u8], v6: bool, id: ConnId) {
        let call = Self::key(key, call_id);
        self.by_call.insert(call.clone(), id);
        self.by_template.insert((v6, id), call);
    }

    /// The Call-ID that a template goes by.
    pub fn of_template(&self, v6: bool, id: ConnId) -> Option<&[u8]> {
        self.by_template
            .get(&(v6, id))
            .map(|call| call.call_id.as_slice())
    }

    /// A template was given up: its call begins anew. It keeps its Call-ID in listings.
    pub fn give_up(&mut self, v6: bool, id: ConnId) {
        if let Some(call) = self.by_template.get(&(v6, id)) {
            self.by_call.remove(call);
        }
    }

    /// A template is gone.
    pub fn remove(&mut self, v6: bool, id: ConnId) {
        if let Some(call) = self.by_template.remove(&(v6, id)) {
            if self.by_call.get(&call) == Some(&id) {
                self.by_call.remove(&call);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_id_is_found_under_either_name() {
        let long = b"INVITE sip:a SIP/2.0\r\nVia: x\r\nCall-ID: abc@host\r\n\r\n";
        assert_eq!(call_id(long), Some(&b"abc@host"[..]));
        assert_eq!(
            call_id(b"INVITE sip:a SIP/2.0\r\ni : abc\r\n\r\n"),
            Some(&b"abc"[..])
        );
        assert_eq!(
            call_id(b"INVITE sip:a SIP/2.0\ncall-id:\tabc\n"),
            Some(&b"abc"[..])
        );
    }

    #[test]
    fn what_does_not_end_or_has_none_is_not_heeded() {
        assert_eq!(call_id(b"INVITE sip:a SIP/2.0\r\nCall-ID: abc"), None);
        assert_eq!(
            call_id(b"INVITE sip:a SIP/2.0\r\nVia: x\r\n\r\nCall-ID: abc\r\n"),
            None
        );
        assert_eq!(call_id(b"INVITE sip:a SIP/2.0\r\nCall-ID: @x\r\n"), None);
        assert_eq!(call_id(b""), None);
        let long = [b"X\r\nCall-ID: ".as_slice(), &[b'a'; 256], b"\r\n"].concat();
        assert_eq!(call_id(&long), None);
    }

    #[test]
    fn a_call_is_found_for_its_client_until_its_template_is_given_up() {
        let key = |client: &str| TemplateKey {
            proto: 17,
            client: client.parse().unwrap(),
            vaddr: "192.0.2.1".parse().unwrap(),
            vport: 5060,
        };
        let mut calls = Calls::default();
        calls.insert(&key("198.18.0.1"), b"abc", false, ConnId(5));
        assert_eq!(calls.find(&key("198.18.0.1"), b"abc"), Some(ConnId(5)));
        assert_eq!(calls.find(&key("198.18.0.2"), b"abc"), None);
        assert_eq!(calls.find(&key("198.18.0.1"), b"abd"), None);
        calls.give_up(false, ConnId(5));
        assert_eq!(calls.find(&key("198.18.0.1"), b"abc"), None);
        assert_eq!(calls.of_template(false, ConnId(5)), Some(&b"abc"[..]));
        calls.remove(false, ConnId(5));
        assert_eq!(calls.of_template(false, ConnId(5)), None);
    }
}
