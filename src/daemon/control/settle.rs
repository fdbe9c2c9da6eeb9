//! When are packets done? Each named port has received so many, every packet has its verdict or waits for something that is
//! not ours to give (a neighbour, the rest of its fragments), and what goes out has been given to the devices.
//!
//! The workers' publications are not of one moment. So what they say counts only when every worker has gone through
//! two more rounds and it still says the same: nothing was under way between them then.

use std::time::{Duration, Instant};

use ripvs_api::ripvs::{Settle, Settled, SettledPort};
use ripvs_core::verdict::Held;
use ripvs_packet::PortId;

use crate::board::Boards;

use super::network::{Network, Traffic};

/// Rounds that every worker must have gone through since.
const ROUNDS: u64 = 2;

/// Someone waits.
pub struct Settling {
    wanted: Vec<(PortId, u64)>,
    deadline: Instant,
    /// What was seen when all that was wanted had come, and the workers' rounds then.
    seen: Option<(Sight, Vec<u64>)>,
}

/// What must not change while it is looked at.
#[derive(PartialEq, Eq)]
struct Sight {
    received: u64,
    generated: u64,
    done: u64,
    traffic: Vec<[u64; 5]>,
}

impl Settling {
    /// Begins to wait. `None` where an interface is no port's.
    pub fn begin(asked: &Settle, network: &Network, now: Instant) -> Result<Settling, String> {
        let wanted = asked
            .ports
            .iter()
            .map(|port| match network.port_named(&port.name) {
                Some(id) => Ok((id, port.received)),
                None => Err(port.name.clone()),
            })
            .collect::<Result<_, _>>()?;
        Ok(Settling {
            wanted,
            deadline: now + Duration::from_millis(asked.timeout_ms.into()),
            seen: None,
        })
    }

    /// The answer, once there is one.
    pub fn look(&mut self, boards: &Boards, network: &Network, now: Instant) -> Option<Settled> {
        if self.is_complete(boards, network) {
            return Some(settled(true, boards, network));
        }
        (now >= self.deadline).then(|| settled(false, boards, network))
    }

    fn is_complete(&mut self, boards: &Boards, network: &Network) -> bool {
        let came = |(port, count): &(PortId, u64)| boards.port(*port)[0] >= *count;
        if !self.wanted.iter().all(came) {
            return false;
        }
        // First the rounds, so that what is seen is not older than they are.
        let rounds: Vec<u64> = boards
            .0
            .iter()
            .map(|board| {
                let rounds = board.rounds();
                rounds.busy + rounds.idle
            })
            .collect();
        let counters = boards.counters();
        let waiting = counters.held[Held::Neighbour as usize]
            .wrapping_add(counters.held[Held::Reassembly as usize]);
        let done =
            counters.forwarded + counters.host + counters.answered + counters.dropped_total();
        let balanced = counters.received + counters.generated == done.wrapping_add(waiting);
        if !balanced {
            self.seen = None;
            return false;
        }
        let sight = Sight {
            received: counters.received,
            generated: counters.generated,
            done,
            traffic: network
                .port_names()
                .iter()
                .map(|(port, _)| boards.port(*port))
                .collect(),
        };
        match &self.seen {
            Some((before, since)) if *before == sight => rounds
                .iter()
                .zip(since)
                .all(|(now, then)| now.wrapping_sub(*then) >= ROUNDS),
            _ => {
                self.seen = Some((sight, rounds));
                false
            }
        }
    }
}

fn settled(complete: bool, boards: &Boards, network: &Network) -> Settled {
    let ports = network
        .port_names()
        .into_iter()
        .map(|(port, name)| {
            let [received, _, sent, ..] = boards.port(port);
            SettledPort {
                name,
                received,
                sent,
            }
        })
        .collect();
    Settled { complete, ports }
}
