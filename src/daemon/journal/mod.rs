//! What outlives a restart: the journal in the state directory. Owns its files and nothing of their meaning: a record's
//! payload is a control message, which the control thread gives and takes.
//!
//! A generation is a pair of files. `snapshot.N` holds the whole state at one moment; it appears under this name only when
//! it is complete and on disk. `journal.N` holds what changed since. To compact, the control thread switches to
//! `journal.N+1` at once, and a thread of ours writes `snapshot.N+1` and removes generation N. So at any moment the newest
//! snapshot and all journals from its number on make the state, whatever was interrupted.
//!
//! A record is written (to the page cache) before the command is answered: killing the daemon loses nothing. Our thread
//! brings it to disk within a second: power loss costs at most that. Records are gathered and written together.
//!
//! Where the file cannot be written to (the disk is full), the records stay gathered and go before any later one as soon as
//! it can: the files always hold the beginning of the history, and never what rests on something that is missing.

mod record;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use record::End;

/// How long written records may be absent from the disk.
const SYNC_WITHIN: Duration = Duration::from_millis(900);
/// Journals shorter than this are not worth compacting.
const COMPACT_FROM: u64 = 4 << 20;
/// How long to wait after a compaction that failed.
const COMPACT_AGAIN: Duration = Duration::from_secs(30);
/// Bytes that the room for gathering keeps.
const KEPT: usize = 1 << 20;
/// Bytes that may be gathered and not written; about a hundred thousand changes.
const BACKLOG: usize = 16 << 20;

/// An open journal.
pub struct Journal {
    dir: PathBuf,
    generation: u64,
    file: File,
    /// Bytes of the records in the present journal file.
    length: u64,
    /// Files of before that the next snapshot makes superfluous.
    leftover: Vec<PathBuf>,
    /// Records that are not written yet.
    gathered: Vec<u8>,
    /// Their number as a batch.
    batch: u64,
    /// Whether the last attempt to write failed.
    failed: bool,
    /// When a compaction failed.
    uncompacted: Option<Instant>,
    /// Bytes of the snapshot that it lies over.
    snapshot: Arc<AtomicU64>,
    dirty: Arc<AtomicBool>,
    compacting: Arc<AtomicBool>,
    snapshot_failed: Arc<AtomicBool>,
    to_disk: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// What the journal held.
#[derive(Debug, Default)]
pub struct Restored {
    /// Control messages, in the order in which they are to be applied.
    pub messages: Vec<Vec<u8>>,
    /// What was not as it should be, for the log.
    pub warnings: Vec<String>,
    newest: u64,
    /// The last journal, and where its last whole record ends, if nothing behind that is worth keeping.
    last: Option<(u64, u64)>,
    /// Files whose contents are in `messages`, to be removed when the next snapshot is on disk.
    used: Vec<PathBuf>,
}

/// A state as the records of a snapshot.
#[derive(Debug)]
pub struct Records(Vec<u8>);

impl Records {
    /// None yet.
    pub fn new() -> Records {
        Records(record::FILE_HEADER.to_vec())
    }

    /// Adds a control message.
    pub fn push(&mut self, message: &[u8]) {
        if !record::write(message, &mut self.0) {
            log::error!("journal: a message of {} bytes is too long", message.len());
        }
    }
}

enum Job {
    /// Another journal file is in use now.
    File(File),
    /// Write this snapshot, and remove these files afterwards.
    Snapshot {
        path: PathBuf,
        bytes: Vec<u8>,
        obsolete: Vec<PathBuf>,
    },
}

/// The numbers of the files in `dir` whose name is `kind.N`, ascending.
fn numbers(dir: &Path, kind: &str) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number: Option<u64> = name
            .to_str()
            .and_then(|name| name.strip_prefix(kind)?.strip_prefix('.')?.parse().ok());
        found.extend(number);
    }
    found.sort_unstable();
    Ok(found)
}

/// Reads what a state directory holds, making the directory where there is none. Damaged files are copied aside, under
/// a name that says so.
///
/// # Errors
/// The directory or a file in it cannot be read.
pub fn restore(dir: &Path) -> io::Result<Restored> {
    fs::create_dir_all(dir)?;
    let mut restored = Restored::default();
    let snapshots = numbers(dir, "snapshot")?;
    let journals = numbers(dir, "journal")?;
    let base = snapshots.last().copied();
    for number in &snapshots {
        let path = dir.join(format!("snapshot.{number}"));
        if Some(*number) == base {
            take(&path, &mut restored)?;
        }
        restored.used.push(path);
    }
    for number in &journals {
        let path = dir.join(format!("journal.{number}"));
        if base.is_none_or(|base| *number >= base) {
            match take(&path, &mut restored)? {
                // Not even begun.
                Some(0) => {}
                end => restored.last = end.map(|end| (*number, end)),
            }
        }
        restored.used.push(path);
    }
    let newest = snapshots.last().max(journals.last());
    restored.newest = newest.copied().unwrap_or(0);
    Ok(restored)
}

/// Adds the records of one file. Where they end, if it holds nothing else that may be of use.
fn take(path: &Path, restored: &mut Restored) -> io::Result<Option<u64>> {
    let bytes = fs::read(path)?;
    let (payloads, end) = record::read(&bytes);
    restored
        .messages
        .extend(payloads.iter().map(|payload| payload.to_vec()));
    let shown = path.display();
    let count = payloads.len();
    match end {
        End::Whole => return Ok(Some(bytes.len() as u64)),
        End::Torn(at) => {
            restored.warnings.push(format!(
                "{shown}: the last record, at byte {at}, was not written to its end and is dropped ({count} before it are kept)"
            ));
            return Ok(Some(at as u64));
        }
        End::Corrupt(_) | End::Foreign => {
            let aside = set_aside(path)?;
            let what = match end {
                End::Corrupt(at) => {
                    format!("damaged at byte {at}; the {count} records before that are used")
                }
                _ => "no journal of this version; nothing of it is used".to_string(),
            };
            restored.warnings.push(format!(
                "{shown} is {what}; it is kept as {}",
                aside.display()
            ));
        }
    }
    Ok(None)
}

/// Copies a file under a name that is not read again.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    for number in 0.. {
        let aside = path.with_file_name(format!("corrupt.{number}.{name}"));
        if !aside.exists() {
            fs::copy(path, &aside)?;
            return Ok(aside);
        }
    }
    Err(io::Error::other("no name is free"))
}

/// A new file with the header in it.
fn create(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    if let Err(error) = file.write_all(&record::FILE_HEADER) {
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(file)
}

/// Brings the directory's names to disk.
fn sync_names(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

impl Journal {
    /// Begins a new generation behind `restored`, with `state` as its snapshot.
    ///
    /// # Errors
    /// The directory cannot be written to, or no thread be had.
    pub fn open(dir: &Path, restored: Restored, state: Records) -> io::Result<Journal> {
        let next = restored.newest + 1;
        let (generation, file, length) = match create(&dir.join(format!("journal.{next}"))) {
            Ok(file) => (next, file, None),
            // A disk that is full is no reason not to balance: the last file goes on, and takes what it can.
            Err(error) => match restored.last {
                None => return Err(error),
                Some((number, end)) => {
                    log::error!("journal: no new file can be begun: {error}; the last one goes on");
                    let path = dir.join(format!("journal.{number}"));
                    let file = OpenOptions::new().write(true).open(path)?;
                    let length = end.saturating_sub(record::FILE_HEADER.len() as u64);
                    (number, file, Some(length))
                }
            },
        };
        let (to_disk, jobs) = std::sync::mpsc::sync_channel(4);
        let dirty = Arc::new(AtomicBool::new(true));
        let compacting = Arc::new(AtomicBool::new(false));
        let snapshot_failed = Arc::new(AtomicBool::new(false));
        let snapshot = Arc::new(AtomicU64::new(0));
        let disk = Disk {
            dir: dir.to_path_buf(),
            file: file.try_clone()?,
            dirty: dirty.clone(),
            compacting: compacting.clone(),
            snapshot_failed: snapshot_failed.clone(),
            snapshot: snapshot.clone(),
            obsolete: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || disk.run(&jobs))?;
        let mut journal = Journal {
            dir: dir.to_path_buf(),
            generation,
            file,
            length: length.unwrap_or(0),
            leftover: Vec::new(),
            gathered: Vec::new(),
            batch: 0,
            failed: false,
            uncompacted: None,
            snapshot,
            dirty,
            compacting,
            snapshot_failed,
            to_disk: Some(to_disk),
            thread: Some(thread),
        };
        if length.is_none() {
            journal.send_snapshot(state, restored.used);
        } else {
            journal.leftover = restored.used;
            journal.uncompacted = Some(Instant::now());
        }
        Ok(journal)
    }

    /// Gathers a control message; [`Journal::write`] writes it.
    ///
    /// # Errors
    /// The message is far too long.
    pub fn append(&mut self, message: &[u8]) -> io::Result<()> {
        if record::write(message, &mut self.gathered) {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidInput.into())
        }
    }

    /// Whether more should be gathered: not where it could not be written for long.
    pub fn has_room(&self) -> bool {
        self.gathered.len() <= BACKLOG
    }

    /// The number of the batch that a message gathered now is in; it is written when [`Journal::batch`] is greater.
    pub fn batch(&self) -> u64 {
        self.batch
    }

    /// Whether the last attempt to write failed.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether records wait to be written.
    pub fn is_behind(&self) -> bool {
        !self.gathered.is_empty()
    }

    /// Writes what was gathered. It survives the end of this process from here on.
    ///
    /// # Errors
    /// The file cannot be written to. Nothing of what was gathered is left in it then, but is kept for the next time.
    pub fn write(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        // At a place of our own: what a failed attempt left is overwritten, not followed, by the next.
        let end = record::FILE_HEADER.len() as u64 + self.length;
        if let Err(error) = self.file.write_all_at(&self.gathered, end) {
            if !std::mem::replace(&mut self.failed, true) {
                log::error!("journal: changes would not survive a restart: {error}");
            }
            // For the looks only: a record that is not whole is passed over.
            let _ = self.file.set_len(end);
            return Err(error);
        }
        if std::mem::take(&mut self.failed) {
            log::info!("journal: what could not be written is written now");
        }
        self.length += self.gathered.len() as u64;
        self.gathered.clear();
        self.gathered.shrink_to(KEPT);
        self.batch += 1;
        self.dirty.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether the journal has grown enough beyond its snapshot to be worth compacting, or a compaction is to be made up for.
    pub fn wants_compaction(&mut self) -> bool {
        // A new file must not begin before the old one holds all that came before.
        if self.compacting.load(Ordering::Acquire) || self.is_behind() {
            return false;
        }
        if self.snapshot_failed.swap(false, Ordering::AcqRel) {
            self.uncompacted = Some(Instant::now());
        }
        if let Some(failed) = self.uncompacted {
            return failed.elapsed() >= COMPACT_AGAIN;
        }
        self.length > COMPACT_FROM.max(2 * self.snapshot.load(Ordering::Relaxed))
    }

    /// Switches to a new generation, whose snapshot (`state`, as it is now) is written in the background.
    ///
    /// # Errors
    /// The new file cannot be made; the present one stays in use.
    pub fn compact(&mut self, state: Records) -> io::Result<()> {
        self.uncompacted = Some(Instant::now());
        let number = self.generation + 1;
        let file = create(&self.dir.join(format!("journal.{number}")))?;
        if let Some(to_disk) = &self.to_disk {
            let copy = file.try_clone()?;
            // A full channel means that the disk hangs: the old generation then goes on.
            match to_disk.try_send(Job::File(copy)) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => return Err(io::ErrorKind::TimedOut.into()),
                Err(TrySendError::Disconnected(_)) => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
        let old = self.generation;
        self.generation = number;
        self.file = file;
        self.length = 0;
        let mut obsolete = std::mem::take(&mut self.leftover);
        for kind in ["snapshot", "journal"] {
            obsolete.push(self.dir.join(format!("{kind}.{old}")));
        }
        self.uncompacted = None;
        self.send_snapshot(state, obsolete);
        Ok(())
    }

    fn send_snapshot(&mut self, state: Records, obsolete: Vec<PathBuf>) {
        let job = Job::Snapshot {
            path: self.dir.join(format!("snapshot.{}", self.generation)),
            bytes: state.0,
            obsolete,
        };
        self.compacting.store(true, Ordering::Release);
        let sent = self
            .to_disk
            .as_ref()
            .is_some_and(|to_disk| to_disk.try_send(job).is_ok());
        if !sent {
            // The journals before this one stay, so nothing is lost; the next compaction makes up for it.
            log::warn!("journal: the disk is too slow for a snapshot");
            self.compacting.store(false, Ordering::Release);
            self.uncompacted = Some(Instant::now());
        }
    }
}

impl Drop for Journal {
    /// Brings everything to disk.
    fn drop(&mut self) {
        // What it may say to the contrary has been said when the changes were answered.
        let _ = self.write();
        self.to_disk = None;
        if let Some(thread) = self.thread.take() {
            if thread.join().is_err() {
                log::error!("journal: its thread ended badly");
            }
        }
    }
}

/// The part that waits for the disk, in a thread of its own.
struct Disk {
    dir: PathBuf,
    file: File,
    dirty: Arc<AtomicBool>,
    compacting: Arc<AtomicBool>,
    snapshot_failed: Arc<AtomicBool>,
    snapshot: Arc<AtomicU64>,
    /// Files of before that a snapshot on disk makes superfluous.
    obsolete: Vec<PathBuf>,
}

impl Disk {
    fn run(mut self, jobs: &Receiver<Job>) {
        let mut synced = Instant::now();
        loop {
            let wait = SYNC_WITHIN.saturating_sub(synced.elapsed());
            let job = jobs.recv_timeout(wait);
            if synced.elapsed() >= SYNC_WITHIN {
                self.sync();
                synced = Instant::now();
            }
            match job {
                Ok(Job::File(file)) => {
                    // What the old file holds must not be younger than what the new one says.
                    self.dirty.store(true, Ordering::Release);
                    self.sync();
                    self.file = file;
                }
                Ok(Job::Snapshot {
                    path,
                    bytes,
                    obsolete,
                }) => {
                    self.sync();
                    self.obsolete.extend(obsolete);
                    match self.write_snapshot(&path, &bytes) {
                        Ok(()) => self.snapshot.store(bytes.len() as u64, Ordering::Relaxed),
                        Err(error) => {
                            log::error!(
                                "journal: {}: {error}; the old files stay in use",
                                path.display()
                            );
                            self.snapshot_failed.store(true, Ordering::Release);
                        }
                    }
                    self.compacting.store(false, Ordering::Release);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break self.sync(),
            }
        }
    }

    fn sync(&self) {
        if self.dirty.swap(false, Ordering::AcqRel) {
            if let Err(error) = self.file.sync_data() {
                log::error!("journal: what was set last may not survive a power loss: {error}");
            }
        }
    }

    fn write_snapshot(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let unfinished = path.with_extension("unfinished");
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        if let Err(error) = written {
            // Where the disk is full its room is needed.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        fs::rename(&unfinished, path)?;
        sync_names(&self.dir)?;
        for old in self.obsolete.drain(..) {
            match fs::remove_file(old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        sync_names(&self.dir)
    }
}

#[cfg(test)]
mod tests;
