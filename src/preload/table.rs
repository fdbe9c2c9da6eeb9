//! Which descriptors of the process are of interest. Looked up in each hooked call, so it takes no lock; most
//! descriptors are in none of its rows, and then that is one load.
//!
//! Descriptors end in ways that no hook sees (in the C library itself, by dup2), and their numbers come again. So a row
//! holds the file's identity as well, and counts for that file alone.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, AtomicU8, Ordering::Relaxed};

use rustix::io::Errno;

use crate::next;

/// Descriptors from this number on are not looked after.
const ROWS: usize = 1 << 16;

static KINDS: [AtomicU8; ROWS] = [const { AtomicU8::new(0) }; ROWS];
static FILES: [AtomicU64; ROWS] = [const { AtomicU64::new(0) }; ROWS];

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A generic netlink socket, of the kernel so far.
    Netlink = 1,
    /// A connection to ripvsd that stands for one.
    Link = 2,
    /// A setting, open for writing.
    Setting = 3,
    /// A file of /proc that lies in memory.
    File = 4,
}

/// Enters a descriptor.
pub fn set(fd: RawFd, kind: Kind) {
    let row = usize::try_from(fd).ok().filter(|row| *row < ROWS);
    if let (Some(row), Some(file)) = (row, identity(fd)) {
        FILES[row].store(file, Relaxed);
        KINDS[row].store(kind as u8, Relaxed);
    }
}

/// What a descriptor is, if it is of interest.
#[inline]
pub fn kind(fd: RawFd) -> Option<Kind> {
    let row = usize::try_from(fd).ok()?;
    let kind = match KINDS.get(row)?.load(Relaxed) {
        1 => Kind::Netlink,
        2 => Kind::Link,
        3 => Kind::Setting,
        4 => Kind::File,
        _ => return None,
    };
    if identity(fd) == Some(FILES[row].load(Relaxed)) {
        return Some(kind);
    }
    KINDS[row].store(0, Relaxed);
    None
}

/// A descriptor that the program gave us, for as long as it keeps it.
pub fn borrow(fd: RawFd) -> Option<BorrowedFd<'static>> {
    // SAFETY: not -1, which is the one number that may not be borrowed. Whether it is open is for the kernel to say: it is
    // only ever passed to system calls, at once, as the program passed it to us.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Puts a copy of `from` under the number of `onto`, which the program goes on to use.
///
/// # Errors
/// As dup3(2) has them.
pub fn duplicate_onto(
    from: &OwnedFd,
    onto: BorrowedFd<'_>,
    close_on_exec: bool,
) -> Result<(), Errno> {
    let flags = if close_on_exec { libc::O_CLOEXEC } else { 0 };
    // SAFETY: no memory is involved. That `onto` becomes another file is what the caller is there for.
    match unsafe { libc::dup3(from.as_raw_fd(), onto.as_raw_fd(), flags) } {
        -1 => Err(Errno::from_raw_os_error(next::errno())),
        _ => Ok(()),
    }
}

/// The file's device and inode in one number. Those of sockets and of files in memory are not given again for long.
pub fn identity(fd: RawFd) -> Option<u64> {
    let found = rustix::fs::fstat(borrow(fd)?).ok()?;
    Some(found.st_dev.rotate_left(48) ^ found.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_row_counts_for_its_file_alone() {
        let file = File::open("/proc/self/status").unwrap();
        let fd = file.as_raw_fd();
        assert_eq!(kind(fd), None);
        set(fd, Kind::Setting);
        assert_eq!(kind(fd), Some(Kind::Setting));
        let other = File::open("/dev/null").unwrap();
        // SAFETY: both are open, and `file` stays the owner of its number.
        unsafe { libc::dup2(other.as_raw_fd(), fd) };
        assert_eq!(kind(fd), None);
    }

    #[test]
    fn numbers_out_of_range_are_of_no_interest() {
        for fd in [-1, RawFd::MIN, ROWS as RawFd, RawFd::MAX] {
            set(fd, Kind::Link);
            assert_eq!(kind(fd), None);
        }
    }
}
