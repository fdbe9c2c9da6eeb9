//! Standard output, kept from DPDK while it starts: on a wrong argument it prints its whole usage there, pages of it, in
//! which the one line that matters is lost.
#![allow(unsafe_code)] // File descriptors, below the standard library.

/// Standard output as it was, to be brought back when this is dropped.
pub(crate) struct Quiet {
    kept: i32,
}

impl Quiet {
    /// What is written to standard output from here on goes nowhere. None where that cannot be done.
    pub(crate) fn begin() -> Option<Self> {
        // SAFETY: plain system calls on descriptors, of which those made here are not used anywhere else.
        unsafe {
            let kept = libc::fcntl(1, libc::F_DUPFD_CLOEXEC, 3);
            let nowhere = libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if kept < 0 || nowhere < 0 {
                libc::close(kept);
                libc::close(nowhere);
                return None;
            }
            libc::fflush(std::ptr::null_mut());
            libc::dup2(nowhere, 1);
            libc::close(nowhere);
            Some(Self { kept })
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // SAFETY: as above; what C's buffers still hold goes the same way first.
        unsafe {
            libc::fflush(std::ptr::null_mut());
            libc::dup2(self.kept, 1);
            libc::close(self.kept);
        }
    }
}
