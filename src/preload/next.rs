//! The functions that ours stand before: the C library's own, or those of another library that is preloaded.

use std::ffi::{c_char, c_int, c_void, CStr};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// Where a function is kept once it has been found.
pub struct Next {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Next {
    /// The function of that name, not looked up yet.
    pub const fn new(name: &'static CStr) -> Next {
        Next {
            name,
            found: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Its address; null where there is none.
    pub fn address(&self) -> *mut c_void {
        let found = self.found.load(Relaxed);
        if !found.is_null() {
            return found;
        }
        // SAFETY: the name ends with a zero byte.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.found.store(found, Relaxed);
        found
    }
}

/// What a function returns when it fails.
pub trait Failure {
    /// That value.
    const VALUE: Self;
}

impl Failure for c_int {
    const VALUE: c_int = -1;
}

impl Failure for isize {
    const VALUE: isize = -1;
}

impl Failure for i64 {
    const VALUE: i64 = -1;
}

impl Failure for *mut libc::FILE {
    const VALUE: *mut libc::FILE = ptr::null_mut();
}

impl Failure for *mut c_char {
    const VALUE: *mut c_char = ptr::null_mut();
}

/// Ends a call with an error number.
pub fn fail<T: Failure>(errno: c_int) -> T {
    // SAFETY: the address is that of this thread's errno.
    unsafe { *libc::__errno_location() = errno };
    T::VALUE
}

/// This thread's error number.
pub fn errno() -> c_int {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() }
}

/// Declares the function of the same name that the next library has, as a function of ours.
macro_rules! next {
    ($($name:ident($($arg:ident: $type:ty),*) -> $ret:ty;)*) => {$(
        pub unsafe fn $name($($arg: $type),*) -> $ret {
            static NEXT: $crate::next::Next = $crate::next::Next::new(
                match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => c"",
                });
            let address = NEXT.address();
            if address.is_null() {
                return $crate::next::fail(libc::ENOSYS);
            }
            type Function = unsafe extern "C" fn($($type),*) -> $ret;
            // SAFETY: the function of that name has this type, by the C library's headers.
            let function = unsafe { std::mem::transmute::<*mut std::ffi::c_void, Function>(address) };
            // SAFETY: the caller's arguments are as the function wants them.
            unsafe { function($($arg),*) }
        }
    )*};
}
pub(crate) use next;

/// Runs `start` so that a thread it starts gets none of the program's signals.
pub fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    // SAFETY: a set of zeros is what sigfillset wants to fill.
    let (mut all, mut before) = unsafe { std::mem::zeroed::<(libc::sigset_t, libc::sigset_t)>() };
    // SAFETY: both sets live on this stack.
    unsafe {
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
    }
    let started = start();
    // SAFETY: `before` was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut()) };
    started
}

/// Has `call` called before each fork. Whether that can be.
pub fn before_forks(call: extern "C" fn()) -> bool {
    // SAFETY: the function stays, as this library does.
    unsafe { libc::pthread_atfork(Some(call), None, None) == 0 }
}
