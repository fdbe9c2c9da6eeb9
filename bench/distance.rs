//! How far apart two cores are: how long a cache line takes from one to the other and back. Whether they share a cache is the
//! host's affair where the machine is a virtual one, and changes; what workers hand over to each other costs by it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use nix::sched::{sched_setaffinity, CpuSet};
use nix::unistd::Pid;

use crate::stats::median;

/// Journeys there and back of each measurement, and measurements, of which the middle counts.
const JOURNEYS: u32 = 2000;
const MEASUREMENTS: usize = 15;

/// A cache line, with the one that the processor may fetch beside it.
#[repr(align(128))]
struct Line(AtomicU32);

fn pin(core: usize) -> nix::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &cores)
}

/// Waits until the line says this, but not forever: a core may be another's for a while.
fn await_turn(line: &Line, turn: u32) -> Option<()> {
    let arrived = |_: &u32| line.0.load(Ordering::Acquire) == turn;
    (0..50_000_000).find(arrived).map(|_| ())
}

/// Nanoseconds that a cache line takes from one core to another and back; `None` where there are no two such cores.
pub fn round_trip(cores: [usize; 2]) -> Option<f64> {
    let line = Line(AtomicU32::new(0));
    let last = 2 * JOURNEYS * MEASUREMENTS as u32;
    std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            pin(cores[0]).ok()?;
            let mut times = Vec::new();
            let mut began = Instant::now();
            for turn in (0..last).step_by(2) {
                if turn > 0 && turn % (2 * JOURNEYS) == 0 {
                    times.push(began.elapsed().as_nanos() as f64 / f64::from(JOURNEYS));
                    began = Instant::now();
                }
                line.0.store(turn + 1, Ordering::Release);
                await_turn(&line, turn + 2)?;
            }
            Some(median(&times))
        });
        let back = scope.spawn(|| {
            pin(cores[1]).ok()?;
            for turn in (0..last).step_by(2) {
                await_turn(&line, turn + 1)?;
                line.0.store(turn + 2, Ordering::Release);
            }
            Some(())
        });
        let (there, back) = (there.join().ok()?, back.join().ok()?);
        there.filter(|_| back.is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_between_two_cores_and_nowhere_where_there_is_none() {
        assert_eq!(round_trip([0, CpuSet::count() - 1]), None);
        if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
            let took = round_trip([0, 1]);
            assert!(took.is_none_or(|ns| ns > 0.0), "{took:?}");
        }
    }
}
