//! What a worker publishes: its packet counters, its rounds, what came and went by each port. The worker alone writes, plain
//! stores of whole numbers; anyone reads at any time. Not for what services count, which is `ripvs_core::tally`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use ripvs_core::verdict::{Counters, Drop, Held};
use ripvs_packet::PortId;

use crate::control::network::Traffic;

/// Counters of a port at one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCount {
    /// Frames received.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames that the device did not take.
    pub tx_dropped: u64,
}

/// What a worker counts besides its packets' verdicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rounds {
    /// Rounds with something to do.
    pub busy: u64,
    /// Rounds with nothing to do.
    pub idle: u64,
    /// Connections and templates it has now.
    pub conns: u64,
    /// Packets put into rings to other workers.
    pub handed_over: u64,
    /// Packets for which such a ring had no room.
    pub ring_full: u64,
}

const FIXED: usize = 5;
const COUNTERS: usize = FIXED + Drop::COUNT + Held::COUNT;

/// One worker's publication.
pub struct Board {
    counters: [AtomicU64; COUNTERS],
    rounds: [AtomicU64; 5],
    ports: Box<[[AtomicU64; 5]]>,
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

impl Board {
    /// All zero, for so many ports (and behind them VLANs, which are counted likewise).
    pub fn new(ports: usize) -> Board {
        Board {
            counters: zeros(),
            rounds: zeros(),
            ports: (0..ports).map(|_| zeros()).collect(),
        }
    }

    /// Publishes the packet counters and what came and went; before the rounds, so that who has seen a round end sees what
    /// it counted.
    pub fn publish(&self, counters: &Counters, ports: &[PortCount]) {
        let fixed = [
            counters.received,
            counters.generated,
            counters.forwarded,
            counters.host,
            counters.answered,
        ];
        let all = fixed.iter().chain(&counters.dropped).chain(&counters.held);
        for (slot, value) in self.counters.iter().zip(all) {
            slot.store(*value, Ordering::Relaxed);
        }
        for (slots, port) in self.ports.iter().zip(ports) {
            let values = [
                port.rx_packets,
                port.rx_bytes,
                port.tx_packets,
                port.tx_bytes,
                port.tx_dropped,
            ];
            for (slot, value) in slots.iter().zip(values) {
                slot.store(value, Ordering::Relaxed);
            }
        }
    }

    /// Publishes the end of a round.
    pub fn round(&self, rounds: &Rounds) {
        let values = [
            rounds.conns,
            rounds.handed_over,
            rounds.ring_full,
            rounds.busy,
            rounds.idle,
        ];
        for (slot, value) in self.rounds.iter().zip(values) {
            slot.store(value, Ordering::Release);
        }
    }

    /// The rounds as published last.
    pub fn rounds(&self) -> Rounds {
        let read = |i: usize| self.rounds[i].load(Ordering::Acquire);
        Rounds {
            conns: read(0),
            handed_over: read(1),
            ring_full: read(2),
            busy: read(3),
            idle: read(4),
        }
    }

    /// The packet counters as published last.
    pub fn counters(&self) -> Counters {
        let read = |i: usize| self.counters[i].load(Ordering::Relaxed);
        Counters {
            received: read(0),
            generated: read(1),
            forwarded: read(2),
            host: read(3),
            answered: read(4),
            dropped: std::array::from_fn(|i| read(FIXED + i)),
            held: std::array::from_fn(|i| read(FIXED + Drop::COUNT + i)),
        }
    }

    /// What came and went by a port.
    pub fn port(&self, port: PortId) -> PortCount {
        let Some(slots) = self.ports.get(usize::from(port.0)) else {
            return PortCount::default();
        };
        let read = |i: usize| slots[i].load(Ordering::Relaxed);
        PortCount {
            rx_packets: read(0),
            rx_bytes: read(1),
            tx_packets: read(2),
            tx_bytes: read(3),
            tx_dropped: read(4),
        }
    }
}

/// The publications of all workers.
#[derive(Clone)]
pub struct Boards(pub Arc<[Arc<Board>]>);

impl Boards {
    /// For so many workers and ports.
    pub fn new(workers: usize, ports: usize) -> Boards {
        Boards((0..workers).map(|_| Arc::new(Board::new(ports))).collect())
    }

    /// The sum of all packet counters.
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for board in self.0.iter() {
            sum += &board.counters();
        }
        sum
    }
}

impl Traffic for Boards {
    fn port(&self, port: PortId) -> [u64; 5] {
        let mut sum = [0; 5];
        for board in self.0.iter() {
            let count = board.port(port);
            sum[0] += count.rx_packets;
            sum[1] += count.rx_bytes;
            sum[2] += count.tx_packets;
            sum[3] += count.tx_bytes;
            sum[4] += count.tx_dropped;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read() {
        let boards = Boards::new(2, 2);
        let mut counters = Counters {
            received: 3,
            generated: 1,
            ..Counters::default()
        };
        counters.done(ripvs_core::verdict::Verdict::Dropped(Drop::NoRoute));
        counters.hold(Held::Ring);
        let ports = [
            PortCount::default(),
            PortCount {
                rx_packets: 3,
                tx_bytes: 9,
                ..PortCount::default()
            },
        ];
        boards.0[1].publish(&counters, &ports);
        assert_eq!(boards.0[1].counters(), counters);
        assert_eq!(boards.counters().dropped_for(Drop::NoRoute), 1);
        assert_eq!(boards.port(PortId(1)), [3, 0, 0, 9, 0]);
        let rounds = Rounds {
            busy: 7,
            conns: 2,
            ..Rounds::default()
        };
        boards.0[0].round(&rounds);
        assert_eq!(boards.0[0].rounds(), rounds);
    }
}
