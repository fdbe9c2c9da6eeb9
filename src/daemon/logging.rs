//! The daemon's log: env_logger, with DPDK's own words held back while it starts. What goes wrong then is told by its cause
//! and remedy; drivers complain loudly of things that nobody needs (net_tap of a missing queueing discipline).

use std::sync::atomic::{AtomicBool, Ordering};

use log::{LevelFilter, Log, Metadata, Record};

/// The target under which DPDK's log appears.
const DPDK: &str = "dpdk";

static STARTED: AtomicBool = AtomicBool::new(false);

struct Logger(env_logger::Logger);

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let held_back = metadata.target() == DPDK
            && !STARTED.load(Ordering::Relaxed)
            && log::max_level() < LevelFilter::Debug;
        !held_back && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// Begins to log at that level, or as the environment variable RUST_LOG says.
pub fn start(level: LevelFilter) {
    let logger = env_logger::Builder::new()
        .filter_level(level)
        .parse_default_env()
        .build();
    let most = logger.filter();
    // It is the only logger there will be: this is called once, first of all.
    if log::set_boxed_logger(Box::new(Logger(logger))).is_ok() {
        log::set_max_level(most);
    }
}

/// The daemon has started: DPDK may speak.
pub fn started() {
    STARTED.store(true, Ordering::Relaxed);
}
