//! What the user is told on standard error: once a process, as programs that retry would fill the screen otherwise.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};

static TOLD: AtomicBool = AtomicBool::new(false);

/// Says why ripvsd could not be asked, if nothing was said yet.
pub fn once(trouble: impl Display) {
    if !TOLD.swap(true, Ordering::Relaxed) {
        // Standard error may be closed; there is nobody else to tell.
        let text = format!("ripvs: {trouble}\n");
        let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
    }
}
