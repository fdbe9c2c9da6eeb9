//! What a worker does when there is nothing to do: it polls for a while, then sleeps, ever longer, up to half a
//! millisecond. A packet of net_tap, whose driver is told by a signal, an order, or a message from another worker ends the
//! sleep; packets of other devices wait for its end.

use std::os::fd::AsFd;

use nix::poll::{ppoll, PollFd, PollFlags};
use nix::sys::time::{TimeSpec, TimeValLike};

use crate::config::Idle;
use crate::control::fleet::Mailbox;

/// Empty rounds before the first sleep: about a tenth of a millisecond of polling.
const POLLS: u32 = 256;
/// Nanoseconds of the first sleep and of the longest.
const FIRST: i64 = 20_000;
const LONGEST: i64 = 500_000;

/// How long a worker has been idle.
pub struct Idler {
    mode: Idle,
    empty: u32,
    sleep: i64,
}

impl Idler {
    /// Not idle yet.
    pub fn new(mode: Idle) -> Idler {
        Idler {
            mode,
            empty: 0,
            sleep: FIRST,
        }
    }

    /// There was something to do.
    pub fn busy(&mut self) {
        self.empty = 0;
        self.sleep = FIRST;
    }

    /// There was nothing to do. How long to sleep, if at all; nanoseconds.
    pub fn empty(&mut self) -> Option<i64> {
        if self.mode == Idle::Poll || self.empty < POLLS {
            self.empty = self.empty.saturating_add(1);
            return None;
        }
        let sleep = self.sleep;
        self.sleep = (sleep * 2).min(LONGEST);
        Some(sleep)
    }
}

/// Sleeps, unless `has_work` says otherwise once the others have been told that we do.
pub fn sleep(mailbox: &Mailbox, nanoseconds: i64, has_work: impl FnOnce() -> bool) {
    mailbox.set_asleep(true);
    if !has_work() {
        let mut fds = [PollFd::new(mailbox.wake().as_fd(), PollFlags::POLLIN)];
        // Whatever ends it (time, a waker, a signal), the next round looks for work.
        let _ = ppoll(&mut fds, Some(TimeSpec::nanoseconds(nanoseconds)), None);
    }
    mailbox.set_asleep(false);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adaptive_worker_polls_first_and_then_sleeps_ever_longer() {
        let mut idler = Idler::new(Idle::Adaptive);
        for _ in 0..POLLS {
            assert_eq!(idler.empty(), None);
        }
        let sleeps: Vec<i64> = (0..7).filter_map(|_| idler.empty()).collect();
        assert_eq!(
            sleeps,
            [20_000, 40_000, 80_000, 160_000, 320_000, 500_000, 500_000]
        );
        idler.busy();
        assert_eq!(idler.empty(), None);
    }

    #[test]
    fn a_polling_worker_never_sleeps() {
        let mut idler = Idler::new(Idle::Poll);
        assert!((0..100_000).all(|_| idler.empty().is_none()));
    }
}
