//! Reading a file again. Programs that watch one keep it open and go back to its start, where the kernel makes it anew.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;
use rustix::io::{Errno, FdFlags};

use super::File;
use crate::table::{self, Kind};

/// What the open files were opened as.
static PATHS: Mutex<BTreeMap<RawFd, Vec<u8>>> = Mutex::new(BTreeMap::new());

fn paths() -> MutexGuard<'static, BTreeMap<RawFd, Vec<u8>>> {
    PATHS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes what an open file is.
pub fn remember(file: &OwnedFd, path: &[u8]) {
    let fd = file.as_raw_fd();
    // A setting that is open for writing is known as that.
    if table::kind(fd).is_none() {
        paths().insert(fd, path.to_vec());
        table::set(fd, Kind::File);
    }
}

/// Makes the file that is open as `fd` anew.
///
/// # Errors
/// As for opening it.
pub fn rewind(fd: RawFd) -> Result<(), Errno> {
    let borrowed = table::borrow(fd).ok_or(Errno::BADF)?;
    let path = paths().get(&fd).cloned().ok_or(Errno::BADF)?;
    let file = File::at(&path).ok_or(Errno::NOENT)?;
    let file = file.open(OFlags::CLOEXEC).ok_or(Errno::NOENT)??;
    let close_on_exec = rustix::io::fcntl_getfd(borrowed)?.contains(FdFlags::CLOEXEC);
    table::duplicate_onto(&file, borrowed, close_on_exec)?;
    table::set(fd, Kind::File);
    Ok(())
}
