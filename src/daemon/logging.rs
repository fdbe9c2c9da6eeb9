//! The daemon's log: env_logger, with DPDK's own words held back while it starts. What goes wrong then is told by its cause
//! and remedy; drivers complain loudly of things that nobody needs (net_tap of a missing queueing discipline).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use log::{LevelFilter, Log, Metadata, Record};

/// The target under which DPDK's log appears.
const DPDK: &str = "dpdk";

static STARTED: AtomicBool = AtomicBool::new(false);

static LOGGER: RwLock<Option<env_logger::Logger>> = RwLock::new(None);

struct Logger;

impl Logger {
    fn with(&self, act: impl FnOnce(&env_logger::Logger) -> bool) -> bool {
        let logger = LOGGER.read().unwrap_or_else(PoisonError::into_inner);
        logger.as_ref().is_some_and(act)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let held_back = metadata.target() == DPDK
            && !STARTED.load(Ordering::Relaxed)
            && log::max_level() < LevelFilter::Debug;
        !held_back && self.with(|logger| logger.enabled(metadata))
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.with(|logger| {
                logger.log(record);
                true
            });
        }
    }

    fn flush(&self) {
        self.with(|logger| {
            logger.flush();
            true
        });
    }
}

/// Begins to log at that level, or as the environment variable RUST_LOG says.
pub fn start(level: LevelFilter) {
    set(level);
    // It is the only logger there will be: this is called once, first of all.
    let _ = log::set_boxed_logger(Box::new(Logger));
}

/// Logs at another level from here on. False where RUST_LOG has the word.
pub fn set_level(level: LevelFilter) -> bool {
    set(level);
    std::env::var_os("RUST_LOG").is_none()
}

fn set(level: LevelFilter) {
    let logger = env_logger::Builder::new()
        .filter_level(level)
        .parse_default_env()
        .build();
    log::set_max_level(logger.filter());
    *LOGGER.write().unwrap_or_else(PoisonError::into_inner) = Some(logger);
}

/// The daemon has started: DPDK may speak.
pub fn started() {
    STARTED.store(true, Ordering::Relaxed);
}
