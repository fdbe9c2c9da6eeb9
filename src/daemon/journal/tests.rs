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

fn records(messages: &[Vec<u8>]) -> Records {
    let mut records = Records::new();
    for message in messages {
        records.push(message);
    }
    records
}

/// Writes a message at once.
fn note(journal: &mut Journal, message: &[u8]) {
    journal.append(message).unwrap();
    journal.write().unwrap();
}

/// Waits for the snapshot that is under way.
fn finish_snapshot(journal: &Journal) {
    while journal.compacting.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
}

/// Opens a directory as the daemon does: what was restored becomes the snapshot.
fn open(dir: &Dir) -> (Journal, Vec<Vec<u8>>, Vec<String>) {
    let mut restored = restore(&dir.0).unwrap();
    let state = restored.messages.clone();
    let warnings = std::mem::take(&mut restored.warnings);
    (
        Journal::open(&dir.0, restored, records(&state)).unwrap(),
        state,
        warnings,
    )
}

#[test]
fn what_was_appended_is_restored() {
    let dir = Dir::new("appended");
    let (mut journal, state, warnings) = open(&dir);
    assert!(state.is_empty() && warnings.is_empty());
    note(&mut journal, b"one");
    note(&mut journal, b"two");
    drop(journal);
    let (journal, state, warnings) = open(&dir);
    assert_eq!((state, warnings), (messages(&["one", "two"]), vec![]));
    drop(journal);
    assert_eq!(dir.files(), ["journal.2", "snapshot.2"]);
}

#[test]
fn a_message_is_in_the_file_as_soon_as_it_is_written() {
    // The process may end the next moment, without any clean-up.
    let dir = Dir::new("killed");
    let (mut journal, ..) = open(&dir);
    note(&mut journal, b"one");
    let bytes = fs::read(dir.0.join("journal.1")).unwrap();
    assert_eq!(record::read(&bytes), (vec![&b"one"[..]], End::Whole));
}

#[test]
fn compaction_leaves_the_snapshot_and_what_came_after() {
    let dir = Dir::new("compacted");
    let (mut journal, ..) = open(&dir);
    note(&mut journal, b"add a");
    note(&mut journal, b"remove a");
    journal.compact(records(&messages(&["b"]))).unwrap();
    note(&mut journal, b"c");
    drop(journal);
    assert_eq!(dir.files(), ["journal.2", "snapshot.2"]);
    assert_eq!(restore(&dir.0).unwrap().messages, messages(&["b", "c"]));
}

#[test]
fn a_compaction_that_was_interrupted_loses_nothing() {
    let dir = Dir::new("interrupted");
    let (mut journal, ..) = open(&dir);
    note(&mut journal, b"a");
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
    note(&mut journal, b"one");
    note(&mut journal, b"two");
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
        note(&mut journal, text.as_bytes());
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
fn what_cannot_be_written_goes_before_what_comes_later() {
    let dir = Dir::new("full");
    let (mut journal, ..) = open(&dir);
    note(&mut journal, b"one");
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let good = std::mem::replace(&mut journal.file, full);
    journal.append(b"two").unwrap();
    let batch = journal.batch();
    let error = journal.write().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(journal.is_behind() && journal.has_failed());
    assert_eq!(
        journal.batch(),
        batch,
        "who waits for it still waits or is told"
    );
    journal.length = 2 * COMPACT_FROM;
    assert!(
        !journal.wants_compaction(),
        "a new file would have a gap before it"
    );
    journal.length = 15;
    journal.file = good;
    note(&mut journal, b"three");
    assert!(!journal.is_behind() && !journal.has_failed());
    assert_eq!(journal.batch(), batch + 1);
    drop(journal);
    assert_eq!(
        restore(&dir.0).unwrap().messages,
        messages(&["one", "two", "three"])
    );
}

#[test]
fn a_journal_that_cannot_be_written_for_long_takes_no_more() {
    let dir = Dir::new("backlog");
    let (mut journal, ..) = open(&dir);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    journal.file = full;
    let message = vec![7; 65536];
    let mut taken = 0;
    while journal.has_room() {
        journal.append(&message).unwrap();
        taken += message.len();
        assert!(taken < 2 * BACKLOG, "never full");
    }
    assert!(journal.write().is_err() && taken > BACKLOG / 2);
}

#[test]
fn where_no_new_file_can_be_begun_the_last_one_goes_on() {
    let dir = Dir::new("no-new");
    let (mut journal, ..) = open(&dir);
    note(&mut journal, b"one");
    drop(journal);
    // A torn tail, and something in the way of the new file.
    let mut old = OpenOptions::new()
        .append(true)
        .open(dir.0.join("journal.1"))
        .unwrap();
    old.write_all(b"\xabRJ1 torn").unwrap();
    fs::create_dir(dir.0.join("journal.2")).unwrap();
    let mut restored = Restored::default();
    for (kind, number) in [("snapshot", 1), ("journal", 1)] {
        let path = dir.0.join(format!("{kind}.{number}"));
        let end = take(&path, &mut restored).unwrap();
        restored.last = end.map(|end| (number, end));
        restored.used.push(path);
    }
    restored.newest = 1;
    let mut journal = Journal::open(&dir.0, restored, records(&[])).unwrap();
    note(&mut journal, b"two");
    assert!(!journal.wants_compaction(), "not at once");
    fs::remove_dir(dir.0.join("journal.2")).unwrap();
    assert_eq!(restore(&dir.0).unwrap().messages, messages(&["one", "two"]));
    journal.uncompacted = Instant::now().checked_sub(COMPACT_AGAIN);
    assert!(journal.wants_compaction());
    journal.compact(records(&messages(&["both"]))).unwrap();
    drop(journal);
    assert_eq!(dir.files(), ["journal.2", "snapshot.2"]);
}

#[test]
fn a_snapshot_that_fails_is_made_up_for_and_leaves_nothing_half() {
    let dir = Dir::new("no-snapshot");
    let (mut journal, ..) = open(&dir);
    note(&mut journal, b"a");
    finish_snapshot(&journal);
    // Its name is taken by a directory that is not empty: the rename fails.
    fs::create_dir_all(dir.0.join("snapshot.2/in-the-way")).unwrap();
    journal.compact(records(&messages(&["x"]))).unwrap();
    note(&mut journal, b"b");
    finish_snapshot(&journal);
    assert!(!journal.wants_compaction(), "not at once");
    assert!(journal.uncompacted.is_some());
    journal.uncompacted = Instant::now().checked_sub(COMPACT_AGAIN);
    assert!(journal.wants_compaction());
    fs::remove_dir_all(dir.0.join("snapshot.2")).unwrap();
    assert_eq!(restore(&dir.0).unwrap().messages, messages(&["a", "b"]));
    journal.compact(records(&messages(&["y"]))).unwrap();
    drop(journal);
    assert_eq!(dir.files(), ["journal.3", "snapshot.3"]);
    assert_eq!(restore(&dir.0).unwrap().messages, messages(&["y"]));
}

#[test]
fn compaction_is_asked_for_when_the_journal_outgrows_its_snapshot() {
    let dir = Dir::new("growth");
    let (mut journal, ..) = open(&dir);
    let message = vec![7; 65536];
    while !journal.wants_compaction() {
        note(&mut journal, &message);
        assert!(journal.length < 2 * COMPACT_FROM, "never asked for");
        // The first snapshot may be still on its way to disk.
        std::thread::yield_now();
        if journal.length > COMPACT_FROM {
            finish_snapshot(&journal);
        }
    }
    assert!(journal.length > COMPACT_FROM);
}
