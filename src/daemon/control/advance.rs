//! Moving a held clock, for tests: in small steps, each of which every worker has lived through before the next, so that
//! timers run down in the order in which they do by a clock that goes by itself.

use std::time::Duration;

use crate::board::Boards;
use crate::clock::Clock;

/// A step: few enough for an hour, small enough for the order of what happens.
const STEP: Duration = Duration::from_millis(50);
/// Rounds that every worker goes through at each step.
const ROUNDS: u64 = 2;
/// And at the end, so that what is done by bounded pieces is done, and others have heard of it.
const LAST_ROUNDS: u64 = 16;

/// Somebody moves the clock.
pub struct Advancing {
    left: Duration,
    /// The workers' rounds when the clock was moved last.
    since: Vec<u64>,
}

impl Advancing {
    /// Begins to move it by so much.
    pub fn begin(by: Duration, boards: &Boards) -> Advancing {
        Advancing {
            left: by,
            since: rounds(boards),
        }
    }

    /// Goes on as far as the workers are, and says whether that is the end.
    pub fn look(&mut self, boards: &Boards, clock: &Clock) -> bool {
        let now = rounds(boards);
        let wanted = if self.left.is_zero() {
            LAST_ROUNDS
        } else {
            ROUNDS
        };
        let behind = |(now, then): (&u64, &u64)| now.wrapping_sub(*then) < wanted;
        if now.iter().zip(&self.since).any(behind) {
            return false;
        }
        if self.left.is_zero() {
            return true;
        }
        let step = self.left.min(STEP);
        self.left -= step;
        clock.advance(step);
        self.since = now;
        false
    }
}

fn rounds(boards: &Boards) -> Vec<u64> {
    let rounds = boards.0.iter().map(|board| board.rounds());
    rounds.map(|rounds| rounds.busy + rounds.idle).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Rounds;
    use crate::clock::Mode;

    #[test]
    fn the_clock_moves_a_step_when_every_worker_has_lived_through_the_one_before() {
        let (boards, clock) = (Boards::new(2, 0), Clock::new(Mode::Held));
        let mut advancing = Advancing::begin(Duration::from_millis(60), &boards);
        let mut at = |first: u64, second: u64| {
            for (board, busy) in boards.0.iter().zip([first, second]) {
                let rounds = Rounds {
                    busy,
                    ..Rounds::default()
                };
                board.round(&rounds);
            }
            (advancing.look(&boards, &clock), clock.now().0 / 1_000_000)
        };
        assert_eq!(at(0, 5), (false, 0));
        assert_eq!(at(2, 5), (false, 50));
        assert_eq!(at(9, 6), (false, 50));
        assert_eq!(at(9, 7), (false, 60));
        assert_eq!(at(24, 40), (false, 60));
        assert_eq!(at(25, 40), (true, 60));
    }
}
