//! Files: those of the kernel's IPVS below /proc are ours.

use std::ffi::{c_char, c_int, c_uint, c_void, CStr};
use std::os::fd::IntoRawFd;

use libc::{mode_t, off64_t, FILE};
use rustix::fs::OFlags;

use super::hooks;
use crate::next::fail;
use crate::proc::{self, File};
use crate::table::{self, Kind};

/// The C library's own.
mod real {
    use super::*;
    crate::next::next! {
        fopen(path: *const c_char, mode: *const c_char) -> *mut FILE;
        fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE;
        __open_2(path: *const c_char, flags: c_int) -> c_int;
        __open64_2(path: *const c_char, flags: c_int) -> c_int;
        __openat_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int;
        __openat64_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int;
        lseek(fd: c_int, offset: off64_t, whence: c_int) -> off64_t;
        lseek64(fd: c_int, offset: off64_t, whence: c_int) -> off64_t;
        realpath(path: *const c_char, to: *mut c_char) -> *mut c_char;
        access(path: *const c_char, mode: c_int) -> c_int;
        faccessat(dir: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int;
        stat(path: *const c_char, found: *mut c_void) -> c_int;
        stat64(path: *const c_char, found: *mut c_void) -> c_int;
        lstat(path: *const c_char, found: *mut c_void) -> c_int;
        lstat64(path: *const c_char, found: *mut c_void) -> c_int;
        fstatat(dir: c_int, path: *const c_char, found: *mut c_void, flags: c_int) -> c_int;
        fstatat64(dir: c_int, path: *const c_char, found: *mut c_void, flags: c_int) -> c_int;
        statx(dir: c_int, path: *const c_char, flags: c_int, mask: c_uint, found: *mut c_void) -> c_int;
        __xstat(version: c_int, path: *const c_char, found: *mut c_void) -> c_int;
        __xstat64(version: c_int, path: *const c_char, found: *mut c_void) -> c_int;
    }

    /// Functions of a variable number of arguments, of which there are at most these.
    macro_rules! variadic {
        ($($name:ident($($arg:ident: $type:ty),*);)*) => {$(
            pub unsafe fn $name($($arg: $type,)* mode: mode_t) -> c_int {
                static NEXT: crate::next::Next = crate::next::Next::new(
                    match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                        Ok(name) => name,
                        Err(_) => c"",
                    });
                let address = NEXT.address();
                if address.is_null() {
                    return fail(libc::ENOSYS);
                }
                type Function = unsafe extern "C" fn($($type,)* ...) -> c_int;
                // SAFETY: the function of that name has this type, by the C library's headers.
                let function = unsafe { std::mem::transmute::<*mut c_void, Function>(address) };
                // SAFETY: the caller's arguments; the mode is passed over where it isn't meant.
                unsafe { function($($arg,)* mode) }
            }
        )*};
    }
    variadic! {
        open(path: *const c_char, flags: c_int);
        open64(path: *const c_char, flags: c_int);
        openat(dir: c_int, path: *const c_char, flags: c_int);
        openat64(dir: c_int, path: *const c_char, flags: c_int);
    }
}

/// The file of ours that a path names.
///
/// # Safety
/// `path` is null or ends with a zero byte.
unsafe fn ours<'a>(path: *const c_char) -> Option<File<'a>> {
    if path.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    File::at(unsafe { CStr::from_ptr(path) }.to_bytes())
}

/// Opens a path of ours. `None` for any other.
///
/// # Safety
/// As [`ours`].
unsafe fn opened(path: *const c_char, flags: c_int) -> Option<c_int> {
    // SAFETY: as the caller promises.
    let (file, path) = unsafe { (ours(path)?, CStr::from_ptr(path).to_bytes()) };
    match file.open(OFlags::from_bits_retain(flags as u32))? {
        Ok(fd) => {
            proc::remember(&fd, path);
            Some(fd.into_raw_fd())
        }
        Err(errno) => Some(fail(errno.raw_os_error())),
    }
}

/// Opens a path of ours as a stream. `None` for any other.
///
/// # Safety
/// As [`ours`], for both.
unsafe fn opened_stream(path: *const c_char, mode: *const c_char) -> Option<*mut FILE> {
    if mode.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    let words = unsafe { CStr::from_ptr(mode) }.to_bytes();
    let mut flags = match (words.first()?, words.contains(&b'+')) {
        (_, true) => libc::O_RDWR,
        (b'r', false) => libc::O_RDONLY,
        _ => libc::O_WRONLY,
    };
    if words.contains(&b'e') {
        flags |= libc::O_CLOEXEC;
    }
    // SAFETY: as the caller promises.
    let fd = unsafe { opened(path, flags) }?;
    if fd < 0 {
        return Some(fail(crate::next::errno()));
    }
    if flags & libc::O_ACCMODE != libc::O_RDONLY {
        return Some(crate::stream::writer(fd));
    }
    // SAFETY: the descriptor is ours to give, and the mode the caller's.
    Some(unsafe { libc::fdopen(fd, mode) })
}

/// Goes back to the start of a file of ours. `None` where something else is asked for.
fn rewound(fd: c_int, offset: off64_t, whence: c_int) -> Option<off64_t> {
    if offset != 0 || whence != libc::SEEK_SET || table::kind(fd) != Some(Kind::File) {
        return None;
    }
    Some(match proc::rewind(fd) {
        Ok(()) => 0,
        Err(errno) => fail(errno.raw_os_error()),
    })
}

/// The path to ask the kernel about: the caller's own, or that of a file like ours.
///
/// # Safety
/// As [`ours`].
unsafe fn asked(path: *const c_char) -> *const c_char {
    // SAFETY: as the caller promises.
    match unsafe { ours(path) } {
        Some(file) => file.like().as_ptr(),
        None => path,
    }
}

/// Declares hooks of functions that open; their arguments before and behind the path and the flags.
macro_rules! opening {
    ($($name:ident [$($before:ident)?] [$($mode:ident)?];)*) => {hooks! {$(
        /// Opens files of ours.
        fn $name($($before: c_int,)? path: *const c_char, flags: c_int $(, $mode: mode_t)?) -> c_int {
            // SAFETY: the caller's path.
            if let Some(fd) = unsafe { opened(path, flags) } {
                return fd;
            }
            // SAFETY: the caller's arguments.
            unsafe { real::$name($($before,)? path, flags $(, $mode)?) }
        }
    )*}};
}
opening! {
    open [] [mode];
    open64 [] [mode];
    openat [dir] [mode];
    openat64 [dir] [mode];
    __open_2 [] [];
    __open64_2 [] [];
    __openat_2 [dir] [];
    __openat64_2 [dir] [];
}

/// Declares hooks of functions that ask about a path; their arguments before and behind it.
macro_rules! asking {
    ($($name:ident [$($before:ident)?] [$($after:ident: $type:ty),*];)*) => {hooks! {$(
        /// Asks about a file like ours, where one of ours is meant.
        fn $name($($before: c_int,)? path: *const c_char $(, $after: $type)*) -> c_int {
            // SAFETY: the caller's arguments, or a path of ours among them.
            unsafe { real::$name($($before,)? asked(path) $(, $after)*) }
        }
    )*}};
}
asking! {
    access [] [mode: c_int];
    faccessat [dir] [mode: c_int, flags: c_int];
    stat [] [found: *mut c_void];
    stat64 [] [found: *mut c_void];
    lstat [] [found: *mut c_void];
    lstat64 [] [found: *mut c_void];
    fstatat [dir] [found: *mut c_void, flags: c_int];
    fstatat64 [dir] [found: *mut c_void, flags: c_int];
    statx [dir] [flags: c_int, mask: c_uint, found: *mut c_void];
    __xstat [version] [found: *mut c_void];
    __xstat64 [version] [found: *mut c_void];
}

hooks! {
    /// Opens files of ours.
    fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE {
        // SAFETY: the caller's strings.
        if let Some(stream) = unsafe { opened_stream(path, mode) } {
            return stream;
        }
        // SAFETY: the caller's arguments.
        unsafe { real::fopen(path, mode) }
    }

    /// Opens files of ours.
    fn fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE {
        // SAFETY: the caller's strings.
        if let Some(stream) = unsafe { opened_stream(path, mode) } {
            return stream;
        }
        // SAFETY: the caller's arguments.
        unsafe { real::fopen64(path, mode) }
    }

    /// A file of ours is made anew for who goes back to its start.
    fn lseek(fd: c_int, offset: off64_t, whence: c_int) -> off64_t {
        if let Some(at) = rewound(fd, offset, whence) {
            return at;
        }
        // SAFETY: no memory is involved.
        unsafe { real::lseek(fd, offset, whence) }
    }

    /// See [`lseek`].
    fn lseek64(fd: c_int, offset: off64_t, whence: c_int) -> off64_t {
        if let Some(at) = rewound(fd, offset, whence) {
            return at;
        }
        // SAFETY: no memory is involved.
        unsafe { real::lseek64(fd, offset, whence) }
    }

    /// Files of ours have no other names; procps' sysctl asks.
    fn realpath(path: *const c_char, to: *mut c_char) -> *mut c_char {
        // SAFETY: the caller's path.
        if unsafe { ours(path) }.is_none() {
            // SAFETY: the caller's arguments.
            return unsafe { real::realpath(path, to) };
        }
        if to.is_null() {
            // SAFETY: the caller's path.
            return unsafe { libc::strdup(path) };
        }
        // SAFETY: the caller has room for PATH_MAX bytes, and paths of ours are shorter.
        unsafe { libc::strcpy(to, path) }
    }
}
