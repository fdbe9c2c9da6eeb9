//! DPDK's log, handed to the `log` crate (target `dpdk`), and its last complaints kept for error messages. Knows nothing
//! of what the messages mean.
#![allow(unsafe_code)] // A callback from C.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::sync::{Mutex, PoisonError};

/// How many complaints are kept.
const KEPT: usize = 8;

static COMPLAINTS: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Routes DPDK's log from here on. Called once, before `rte_eal_init`.
pub(crate) fn install() {
    // SAFETY: shim_log_stream returns an open stream or null, and the callback below is sound for any text it is given.
    // The stream is never closed, since DPDK may log until the process ends. EAL is not initialised, so nothing else logs.
    unsafe {
        let stream = dpdk_sys::shim_log_stream(Some(write));
        if !stream.is_null() {
            dpdk_sys::rte_openlog_stream(stream);
        }
    }
}

/// Forgets what was kept, so that the next call of [`complaints`] speaks of one operation only.
pub(crate) fn clear() {
    COMPLAINTS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clear();
}

/// What DPDK complained about since [`clear`], oldest first.
pub(crate) fn complaints() -> Vec<String> {
    COMPLAINTS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .cloned()
        .collect()
}

unsafe extern "C" fn write(level: u32, text: *const c_char, length: usize) {
    // SAFETY: the shim passes the buffer of one write of its stream, alive during this call.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length) };
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        // Levels of rte_log.h: 1 emergency to 4 error, 5 warning, 6 notice, 7 info, 8 debug.
        let level = match level {
            0..=4 => log::Level::Error,
            5 => log::Level::Warn,
            6 | 7 => log::Level::Info,
            _ => log::Level::Debug,
        };
        log::log!(target: "dpdk", level, "{line}");
        if level <= log::Level::Warn {
            let mut kept = COMPLAINTS.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(line.to_owned());
        }
    }
}
