//! Records of a journal file, as bytes: a marker, the length, a checksum, the payload. A reader takes what is whole from
//! the start on and says why it stopped: at the end, in a torn tail, or at damage with more records behind it.

/// What every record begins with, so that records behind a damaged one can be told from a torn tail.
const MARKER: [u8; 4] = *b"\xabRJ1";
/// Marker, length (little-endian), checksum of the payload (CRC-32, little-endian).
const HEADER: usize = 12;
/// The longest payload: far more than any control message.
pub const LONGEST: usize = 1 << 20;

/// What a journal file begins with: the name and the version of the format, then the version of the payload's language.
pub const FILE_HEADER: [u8; 16] = *b"ripvs journal\x00\x01\x01";

/// Adds a record to `bytes`. A payload over [`LONGEST`] is the caller's mistake and is not written; false then.
pub fn write(payload: &[u8], bytes: &mut Vec<u8>) -> bool {
    if payload.len() > LONGEST {
        return false;
    }
    bytes.extend_from_slice(&MARKER);
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    true
}

/// How a file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With its last record.
    Whole,
    /// In a record that was not written to its end; it begins at this byte.
    Torn(usize),
    /// With a record that is damaged, at this byte, though others follow.
    Corrupt(usize),
    /// It does not even begin as a journal, or as one of another version.
    Foreign,
}

/// The payloads of a file up to its end, and what kind of end that is.
pub fn read(file: &[u8]) -> (Vec<&[u8]>, End) {
    let mut payloads = Vec::new();
    if !file.starts_with(&FILE_HEADER) {
        // A header that was not written to its end is the tail of a file without records.
        let torn = file.len() < FILE_HEADER.len() && FILE_HEADER.starts_with(file);
        return (payloads, if torn { End::Torn(0) } else { End::Foreign });
    }
    let mut at = FILE_HEADER.len();
    while at < file.len() {
        match record_at(file, at) {
            Some(payload) => {
                payloads.push(payload);
                at += HEADER + payload.len();
            }
            None if more_behind(file, at) => return (payloads, End::Corrupt(at)),
            None => return (payloads, End::Torn(at)),
        }
    }
    (payloads, End::Whole)
}

/// The payload of the record at a byte, if it is whole.
fn record_at(file: &[u8], at: usize) -> Option<&[u8]> {
    let header = file.get(at..at + HEADER)?;
    let word = |from: usize| {
        let bytes = header.get(from..from + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    };
    if header[..4] != MARKER {
        return None;
    }
    let length = word(4)? as usize;
    let payload = file.get(at + HEADER..at.checked_add(HEADER + length)?)?;
    (length <= LONGEST && crc32fast::hash(payload) == word(8)?).then_some(payload)
}

/// Whether a whole record begins anywhere behind a byte.
fn more_behind(file: &[u8], at: usize) -> bool {
    (at + 1..file.len().saturating_sub(HEADER - 1))
        .any(|from| file.get(from..from + 4) == Some(&MARKER) && record_at(file, from).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = FILE_HEADER.to_vec();
        for payload in payloads {
            assert!(write(payload, &mut bytes));
        }
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let payloads: [&[u8]; 3] = [b"one", b"", b"three"];
        let file = file(&payloads);
        assert_eq!(read(&file), (payloads.to_vec(), End::Whole));
    }

    #[test]
    fn a_file_cut_anywhere_gives_the_records_before_the_cut_and_is_torn() {
        let payloads: [&[u8]; 3] = [b"one", b"two", b"three"];
        let whole = file(&payloads);
        let ends: Vec<usize> = (0..=3).map(|n| file(&payloads[..n]).len()).collect();
        for cut in 0..whole.len() {
            let (read, end) = read(&whole[..cut]);
            let complete = ends.iter().filter(|end| **end <= cut).count();
            match complete {
                0 => assert_eq!((read.len(), end), (0, End::Torn(0)), "cut at {cut}"),
                n if ends[n - 1] == cut => assert_eq!((read.len(), end), (n - 1, End::Whole)),
                n => assert_eq!(
                    (read.len(), end),
                    (n - 1, End::Torn(ends[n - 1])),
                    "cut at {cut}"
                ),
            }
        }
    }

    #[test]
    fn a_changed_byte_is_damage_before_the_last_record_and_a_torn_tail_in_it() {
        let payloads: [&[u8]; 3] = [b"one", b"two", b"three"];
        let whole = file(&payloads);
        let second = file(&payloads[..1]).len();
        let third = file(&payloads[..2]).len();
        for at in second..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x20;
            let (read, end) = read(&damaged);
            if at < third {
                assert_eq!((read.len(), end), (1, End::Corrupt(second)), "byte {at}");
            } else {
                assert_eq!((read.len(), end), (2, End::Torn(third)), "byte {at}");
            }
        }
    }

    #[test]
    fn zeros_at_the_end_are_a_torn_tail() {
        // What a file system leaves that had grown the file and not yet written to it.
        let mut bytes = file(&[b"one"]);
        let end = bytes.len();
        bytes.resize(end + 4096, 0);
        assert_eq!(read(&bytes), (vec![&b"one"[..]], End::Torn(end)));
    }

    #[test]
    fn another_file_or_version_is_foreign() {
        assert_eq!(read(b"#!/bin/sh\necho hello\n").1, End::Foreign);
        let mut other = FILE_HEADER;
        other[14] += 1;
        assert_eq!(read(&other).1, End::Foreign);
    }
}
