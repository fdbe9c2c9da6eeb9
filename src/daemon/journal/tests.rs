//! The journal against a directory: what was written comes back after an end at any moment.

#![allow(clippy::unwrap_used)]

use super::*;

/// A directory that goes with its owner.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path =
            std::env::temp_dir().join(format!("ripvs-journal-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Dir(path)
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn messages(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Opens a directory as the daemon does: what was restored becomes the snapshot.
fn open(dir: &Dir) -> (Journal, Vec<Vec<u8>>, Vec<String>) {
    let mut restored = restore(&dir.0).unwrap();
    let state = restored.messages.clone();
    let warnings = std::mem::take(&mut restored.warnings);
    (
        Journal::open(&dir.0, restored, state.clone()).unwrap(),
        state,
        warnings,
    )
}

#[test]
fn what_was_appended_is_restored() {
    let dir = Dir::new("appended");
    let (mut journal, state, warnings) = open(&dir);
    assert!(state.is_empty() && warnings.is_empty());
    journal.append(b"one").unwrap();
    journal.append(b"two").unwrap();
    drop(journal);
    let (journal, state, warnings) = open(&dir);
    assert_eq!((state, warnings), (messages(&["one", "two"]), vec![]));
    drop(journal);
    assert_eq!(dir.files(), ["journal.2", "snapshot.2"]);
}

#[test]
fn a_message_is_in_the_file_as_soon_as_it_is_appended() {
    // The process may end the next moment, without any clean-up.
    let dir = Dir::new("killed");
    let (mut journal, ..) = open(&dir);
    journal.append(b"one").unwrap();
    let bytes = fs::read(dir.0.join("journal.1")).unwrap();
    assert_eq!(record::read(&bytes), (vec![&b"one"[..]], End::Whole));
}

#[test]
fn compaction_leaves_the_snapshot_and_what_came_after() {
    let dir = Dir::new("compacted");
    let (mut journal, ..) = open(&dir);
    journal.append(b"add a").unwrap();
    journal.append(b"remove a").unwrap();
    journal.compact(messages(&["b"])).unwrap();
    journal.append(b"c").unwrap();
    drop(journal);
    assert_eq!(dir.files(), ["journal.2", "snapshot.2"]);
    assert_eq!(restore(&dir.0).unwrap().messages, messages(&["b", "c"]));
}

#[test]
fn a_compaction_that_was_interrupted_loses_nothing() {
    let dir = Dir::new("interrupted");
    let (mut journal, ..) = open(&dir);
    journal.append(b"a").unwrap();
    drop(journal);
    // As if the daemon had ended after the switch, before the snapshot was complete.
    let mut next = create(&dir.0.join("journal.2")).unwrap();
    let mut bytes = Vec::new();
    record::write(b"b", &mut bytes);
    next.write_all(&bytes).unwrap();
    fs::write(dir.0.join("snapshot.unfinished"), b"ripvs jour").unwrap();
    assert_eq!(restore(&dir.0).unwrap().messages, messages(&["a", "b"]));
}

#[test]
fn a_torn_tail_is_dropped_and_named() {
    let dir = Dir::new("torn");
    let (mut journal, ..) = open(&dir);
    journal.append(b"one").unwrap();
    journal.append(b"two").unwrap();
    drop(journal);
    let path = dir.0.join("journal.1");
    let length = fs::metadata(&path).unwrap().len();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(length - 1)
        .unwrap();
    let (_journal, state, warnings) = open(&dir);
    assert_eq!(state, messages(&["one"]));
    assert!(
        warnings.len() == 1 && warnings[0].contains("journal.1") && warnings[0].contains("byte 31"),
        "{warnings:?}"
    );
}

#[test]
fn a_damaged_file_is_kept_aside_and_named() {
    let dir = Dir::new("damaged");
    let (mut journal, ..) = open(&dir);
    for text in ["one", "two", "three"] {
        journal.append(text.as_bytes()).unwrap();
    }
    drop(journal);
    let path = dir.0.join("journal.1");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(3).position(|w| w == b"two").unwrap();
    bytes[at] = b'T';
    fs::write(&path, &bytes).unwrap();
    let (journal, state, warnings) = open(&dir);
    drop(journal);
    assert_eq!(state, messages(&["one"]));
    assert!(warnings[0].contains("corrupt.0.journal.1"), "{warnings:?}");
    assert_eq!(
        dir.files(),
        ["corrupt.0.journal.1", "journal.2", "snapshot.2"]
    );
    assert_eq!(fs::read(dir.0.join("corrupt.0.journal.1")).unwrap(), bytes);
}

#[test]
fn a_file_of_another_kind_is_kept_aside() {
    let dir = Dir::new("foreign");
    fs::create_dir_all(&dir.0).unwrap();
    fs::write(dir.0.join("snapshot.7"), b"something else entirely").unwrap();
    let (journal, state, warnings) = open(&dir);
    drop(journal);
    assert!(state.is_empty());
    assert!(warnings[0].contains("corrupt.0.snapshot.7"), "{warnings:?}");
    assert_eq!(
        dir.files(),
        ["corrupt.0.snapshot.7", "journal.8", "snapshot.8"]
    );
}

#[test]
fn compaction_is_asked_for_when_the_journal_outgrows_its_snapshot() {
    let dir = Dir::new("growth");
    let (mut journal, ..) = open(&dir);
    let message = vec![7; 4096];
    while !journal.wants_compaction() {
        journal.append(&message).unwrap();
        assert!(journal.length < 1 << 20, "never asked for");
        // The first snapshot may be still on its way to disk.
        std::thread::yield_now();
        if journal.length > COMPACT_FROM {
            while journal.compacting.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
        }
    }
    assert!(journal.length > COMPACT_FROM);
}
