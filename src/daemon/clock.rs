//! The clock that connections, fragments, neighbours and rates live by: the system's, or one that is held and moves only when
//! somebody says so, by which tests are the same on a machine of any load. What is about the daemon itself (clients that do
//! not read, workers that hang) goes by the system's always.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use ripvs_core::Time;
use serde::Deserialize;

/// What `clock` in the configuration says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Time passes.
    #[default]
    System,
    /// Time passes by `ripvsadm advance` alone.
    Held,
}

/// A clock; copies of it tell the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    /// A clock of that kind. A held one begins with 0.
    pub fn new(mode: Mode) -> Clock {
        Clock((mode == Mode::Held).then(Arc::default))
    }

    /// What time it is.
    #[inline]
    pub fn now(&self) -> Time {
        match &self.0 {
            None => Time(ripvs_arch::clock::now_ns()),
            Some(held) => Time(held.load(Ordering::Acquire)),
        }
    }

    /// The machine's time in nanoseconds, where this clock has just said that it is `now`: mostly it is the same, and
    /// need not be asked for again.
    #[inline]
    pub fn machine(&self, now: Time) -> u64 {
        match &self.0 {
            None => now.0,
            Some(_) => ripvs_arch::clock::now_ns(),
        }
    }

    /// How far a held clock has been moved; none for the system's.
    pub fn held(&self) -> Option<Duration> {
        let held = self.0.as_ref()?;
        Some(Duration::from_nanos(held.load(Ordering::Acquire)))
    }

    /// Moves a held clock; the system's cannot be.
    pub fn advance(&self, by: Duration) {
        if let Some(held) = &self.0 {
            held.fetch_add(by.as_nanos() as u64, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_clock_moves_only_when_told_and_for_all_who_read_it() {
        let clock = Clock::new(Mode::Held);
        let reader = clock.clone();
        assert_eq!(reader.now(), Time(0));
        clock.advance(Duration::from_millis(50));
        assert_eq!(reader.now(), Time(50_000_000));
        assert_eq!(reader.held(), Some(Duration::from_millis(50)));
        assert!(reader.machine(reader.now()) < reader.machine(reader.now()));
    }

    #[test]
    fn the_systems_clock_cannot_be_moved() {
        let clock = Clock::new(Mode::System);
        clock.advance(Duration::from_secs(1 << 30));
        assert!(clock.now() < Time::from_secs(1 << 29));
        assert_eq!(clock.held(), None);
        assert_eq!(clock.machine(Time(7)), 7);
    }
}
