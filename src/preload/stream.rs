//! A setting opened for writing as a stream. The C library writes out what a stream holds without any function that
//! could be stood before, so such a stream gets functions of its own (fopencookie(3)).

use std::ffi::{c_char, c_int, c_void};
use std::{ptr, slice};

use libc::{size_t, ssize_t, FILE};

use crate::{next, proc};

type Write = unsafe extern "C" fn(*mut c_void, *const c_char, size_t) -> ssize_t;
type Close = unsafe extern "C" fn(*mut c_void) -> c_int;

/// `cookie_io_functions_t`; reading and seeking are left out.
#[repr(C)]
struct Functions {
    read: *const c_void,
    write: Write,
    seek: *const c_void,
    close: Close,
}

extern "C" {
    fn fopencookie(cookie: *mut c_void, mode: *const c_char, functions: Functions) -> *mut FILE;
}

/// A stream that sets the setting open as `fd` to what is written.
pub fn writer(fd: c_int) -> *mut FILE {
    let functions = Functions {
        read: ptr::null(),
        write,
        seek: ptr::null(),
        close,
    };
    // SAFETY: the functions take the cookie for the number it is.
    unsafe { fopencookie(fd as isize as *mut c_void, c"w".as_ptr(), functions) }
}

unsafe extern "C" fn write(cookie: *mut c_void, data: *const c_char, length: size_t) -> ssize_t {
    // SAFETY: the C library's buffer, which is not empty.
    let text = unsafe { slice::from_raw_parts(data.cast::<u8>(), length) };
    match proc::write_setting(cookie as isize as c_int, text) {
        Ok(length) => length as ssize_t,
        // By fopencookie(3) that is how writing fails.
        Err(errno) => {
            let _: c_int = next::fail(errno.raw_os_error());
            0
        }
    }
}

unsafe extern "C" fn close(cookie: *mut c_void) -> c_int {
    // SAFETY: the descriptor was opened for this stream alone.
    unsafe { libc::close(cookie as isize as c_int) }
}
