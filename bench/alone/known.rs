//! Packets of known connections, in fuller and emptier tables and with a second worker.

use ripvs_core::Time;

use super::rounds::Rounds;
use super::{cpu, Case, Options, Outcome, TABLE};
use crate::micro::{reference, Source};
use crate::worker::{Bench, Setup, BURST};

/// Known connections at a worker, and the source of their packets.
struct Known {
    bench: Bench,
    source: Source,
    now: Time,
}

impl Known {
    /// A worker with those of the case's flows that are `wanted`, which are offered; all are in its table.
    fn begin(
        case: &Case,
        flows: u32,
        setup: &Setup,
        wanted: impl Fn(u32) -> bool,
    ) -> Result<Known, String> {
        let traffic = case.traffic(flows);
        let now = Time(1_000_000_000);
        let mut bench = Bench::new(&traffic, setup, now).map_err(|error| error.to_string())?;
        bench.establish(&traffic, now)?;
        let order = crate::traffic::shuffled(flows).into_iter();
        let packets = order.filter(|flow| wanted(*flow));
        let source = Source::new(
            traffic.frame_len(),
            packets.map(|flow| traffic.request(flow)),
        );
        Ok(Known { bench, source, now })
    }

    /// What packets add, and the times of rounds. `begin` makes the worker, each time anew.
    fn measure(
        options: &Options,
        case: &Case,
        begin: impl Fn() -> Result<Known, String>,
    ) -> Result<Outcome, String> {
        let packets = 1_000_000;
        let bursts = packets / BURST;
        let mut added = Vec::new();
        let rounds = Rounds::take(|pass| {
            let mut known = begin()?;
            let mut frames = Vec::with_capacity(BURST);
            let Known { bench, source, now } = &mut known;
            let rounds = Rounds::time(bursts / 4 * options.rounds, |clock| {
                source.burst(&mut bench.pool, &mut frames);
                now.0 += 1_000;
                clock.run(|| bench.round(*now, &mut frames))
            })?;
            for _ in 0..if pass == 0 { options.rounds } else { 0 } {
                let plain = reference(source, &mut bench.pool, packets);
                let start = cpu();
                for _ in 0..bursts {
                    source.burst(&mut bench.pool, &mut frames);
                    now.0 += 1_000;
                    if bench.round(*now, &mut frames) < BURST {
                        return Err("not all packets were sent".into());
                    }
                }
                added.push((cpu() - start) as f64 / (bursts * BURST) as f64 - plain);
            }
            Ok(rounds)
        })?;
        Ok(Outcome::added(case, &added, rounds))
    }
}

/// The same flows in a table that is filled by others, or not.
pub(super) fn full(
    options: &Options,
    case: &Case,
    flows: u32,
    others: u32,
) -> Result<Outcome, String> {
    let setup = Setup::new(case.mode.forward(), TABLE);
    // Every so many are offered.
    let each = (flows + others) / flows;
    Known::measure(options, case, || {
        Known::begin(case, flows + others, &setup, |flow| flow % each == 0)
    })
}

/// Two workers on one core, in turn: what handing over takes of both, without what the way between two cores takes.
pub(super) fn handed(options: &Options, case: &Case, over: bool) -> Result<Outcome, String> {
    use ripvs_core::owner_of_client;
    let setup = Setup {
        workers: 2,
        ..Setup::new(case.mode.forward(), 1 << 17)
    };
    let strange = |flow| {
        let (addr, port) = crate::traffic::client(case.v6, flow);
        (owner_of_client(2, crate::worker::SEED, addr, port).0 != 0) == over
    };
    Known::measure(options, case, || {
        Known::begin(case, 65_536, &setup, strange)
    })
}
