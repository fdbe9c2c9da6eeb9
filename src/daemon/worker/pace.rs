//! How fast changes are applied while packets come: thousands at once, as when services are restored or removed, are to
//! take a bounded part of the worker's time. Few are applied at once.

/// Nanoseconds after which a piece of work ends: as long as the packets of some bursts take.
pub const PIECE: u64 = 8_000;
/// Changes between two looks at the clock, for the end of a piece.
pub const LOOK: usize = 8;
/// Rest after a piece of work, in terms of how long that took: changes take a twelfth of the time at most. Less would make
/// those who change much wait, as their reply comes when all is applied.
const REST: u64 = 11;
/// Nanoseconds beyond which a piece of work was not at work all the time, but the worker kept from its core.
const LONGEST: u64 = 30_000;

/// When changes may be applied again.
#[derive(Debug, Default)]
pub struct Pace {
    /// Nanoseconds of the machine's clock.
    next: u64,
}

impl Pace {
    /// Whether the worker may apply some changes now.
    pub fn allows(&self, now: u64) -> bool {
        now >= self.next
    }

    /// It applied some from then to now.
    pub fn worked(&mut self, from: u64, now: u64) {
        self.next = now + REST * now.saturating_sub(from).min(LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_take_a_twelfth_of_the_time_whatever_they_cost() {
        let mut pace = Pace::default();
        assert!(pace.allows(0), "the first is applied at once");
        let (mut now, mut spent) = (0, 0);
        while now < 1_000_000 {
            if pace.allows(now) {
                let cost = 700 + now % 1300;
                pace.worked(now, now + cost);
                (now, spent) = (now + cost, spent + cost);
            } else {
                now += 10;
            }
        }
        assert!((80_000..=85_000).contains(&spent), "{spent}");
    }

    #[test]
    fn what_the_machine_took_away_meanwhile_is_not_rested_from() {
        let mut pace = Pace::default();
        pace.worked(0, 10_000_000);
        assert!(!pace.allows(10_000_000 + REST * LONGEST - 1));
        assert!(pace.allows(10_000_000 + REST * LONGEST));
    }
}
