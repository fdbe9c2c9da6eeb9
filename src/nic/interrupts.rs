//! DPDK's interrupt thread, which drivers hand callbacks to and which goes on until the process ends: rte_eal_cleanup
//! (22.11) does not stop it before it unmaps the memory that callbacks and their sources are in.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the thread may take to come round.
const PATIENCE: Duration = Duration::from_secs(1);

static CAME_ROUND: AtomicBool = AtomicBool::new(false);
static LEFT_BEHIND: AtomicBool = AtomicBool::new(false);

extern "C" fn came_round(_: *mut c_void) {
    CAME_ROUND.store(true, Ordering::SeqCst);
}

/// Waits until a callback that the thread is in has returned: it serves an alarm that is set now only afterwards. To be
/// called with the list of devices locked, so that two don't wait at once.
pub(crate) fn settle() {
    CAME_ROUND.store(false, Ordering::SeqCst);
    // SAFETY: EAL is initialised, as there is a device; the callback lives as long as the process and uses no argument.
    if unsafe { dpdk_sys::rte_eal_alarm_set(1, Some(came_round), std::ptr::null_mut()) } != 0 {
        return;
    }
    let deadline = Instant::now() + PATIENCE;
    while !CAME_ROUND.load(Ordering::SeqCst) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_micros(200));
    }
    // SAFETY: as above. It waits for the callback to have returned.
    unsafe { dpdk_sys::rte_eal_alarm_cancel(Some(came_round), std::ptr::null_mut()) };
}

/// A device is in use whose driver leaves sources behind when it is closed.
pub(crate) fn leave_behind() {
    LEFT_BEHIND.store(true, Ordering::SeqCst);
}

/// Whether the thread may still look into DPDK's memory when every device is gone.
pub(crate) fn left_behind() -> bool {
    LEFT_BEHIND.load(Ordering::SeqCst)
}
