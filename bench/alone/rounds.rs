//! How long rounds of a worker take. What the machine does besides, which lengthens rounds by chance, is set apart: the same
//! rounds are run several times, with the same packets, and of each the least time is the worker's own.

use std::time::Instant;

use crate::stats::percentile;
use crate::worker::BURST;

/// How often the same rounds are run.
const PASSES: usize = 3;

/// Times of rounds in microseconds: half of them are not above the first, 99%, 99.9% and all not above the others.
pub(super) struct Rounds {
    /// What the worker needs itself.
    pub own: [f64; 4],
    /// As they were.
    pub seen: [f64; 4],
}

/// Takes the time of one round.
#[derive(Default)]
pub(super) struct Clock {
    micros: f64,
}

impl Clock {
    /// Runs a round, which says how many packets it sent.
    #[inline]
    pub(super) fn run(&mut self, round: impl FnOnce() -> usize) -> usize {
        let start = Instant::now();
        let sent = round();
        self.micros = start.elapsed().as_nanos() as f64 / 1000.0;
        sent
    }
}

impl Rounds {
    /// Runs the passes, each of which begins anew and says how long each of its rounds took.
    ///
    /// # Errors
    /// What a pass says.
    pub(super) fn take(
        mut pass: impl FnMut(usize) -> Result<Vec<f64>, String>,
    ) -> Result<Rounds, String> {
        let (mut own, mut seen) = (Vec::new(), Vec::new());
        for number in 0..PASSES {
            let times = pass(number)?;
            seen.extend(&times);
            match number {
                0 => own = times,
                _ => least_of_each(&mut own, &times),
            }
        }
        let [own, seen] = [own, seen].map(|mut times| {
            times.sort_by(f64::total_cmp);
            [0.5, 0.99, 0.999, 1.0].map(|part| percentile(&times, part))
        });
        Ok(Rounds { own, seen })
    }

    /// Times so many rounds; `round` prepares one, has the clock run it, and returns how many packets it sent.
    ///
    /// # Errors
    /// Not all packets were sent.
    pub(super) fn time(
        rounds: usize,
        mut round: impl FnMut(&mut Clock) -> usize,
    ) -> Result<Vec<f64>, String> {
        let mut times = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let mut clock = Clock::default();
            if round(&mut clock) < BURST {
                return Err("not all packets were sent".into());
            }
            times.push(clock.micros);
        }
        Ok(times)
    }
}

fn least_of_each(own: &mut [f64], times: &[f64]) {
    for (own, time) in own.iter_mut().zip(times) {
        *own = own.min(*time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_disturbs_one_pass_is_seen_but_not_the_workers_own() {
        let passes = [
            [1.0, 9.0, 2.0, 7.0],
            [1.5, 2.0, 50.0, 7.0],
            [8.0, 2.5, 2.0, 7.5],
        ];
        let rounds = Rounds::take(|pass| Ok(passes[pass].to_vec())).unwrap();
        assert_eq!(rounds.own, [2.0, 7.0, 7.0, 7.0]);
        assert_eq!(rounds.seen[3], 50.0);
        assert!(Rounds::take(|_| Err("no".into())).is_err());
    }

    #[test]
    fn rounds_that_lose_packets_are_not_timed() {
        assert_eq!(
            Rounds::time(3, |clock| clock.run(|| BURST)).unwrap().len(),
            3
        );
        assert!(Rounds::time(3, |_| BURST - 1).is_err());
    }
}
