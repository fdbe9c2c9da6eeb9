//! The functions that programs call in place of the C library's. Each looks whether it is about something of ours, and
//! if not passes the call on as it came.
//!
//! None of them may panic, as there is no Rust to catch it; what may be called in a signal handler (all but `fopen`)
//! takes no lock and no memory until it has found something of ours.

mod files;
mod sockets;

/// Declares functions that the process calls by these names. In tests they are not exported, as they would stand before
/// the C library of the test itself.
macro_rules! hooks {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $ret:ty $body:block)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// As the C library's function of that name.
        #[cfg_attr(not(test), no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> $ret $body
    )*};
}
use hooks;
