//! What is counted: the whole way of a packet through a worker, a kind at a time, on a clock of its own, so that each run
//! does the same to the last instruction.

use ripvs_core::{Forward, Time};
use ripvs_packet::PortId;

use crate::memory::PoolFrame;
use crate::micro::Mode;
use crate::traffic::{shuffled, Proto, Traffic};
use crate::worker::{Bench, Setup, BURST, TICK};

/// Flows of a case, and packets that are counted of it.
pub const FLOWS: u32 = 1024;

/// A kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Of a connection that is known.
    Known(Mode),
    /// Which begins a connection.
    New(Mode),
    /// Of a known connection, where there are two workers and it is at its own.
    Owned,
    /// Of a known connection, where there are two workers and it came to the other: both workers' work.
    HandedOver,
    /// None: a connection's end, when its time is up.
    Expiry,
}

/// One thing to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    what: What,
    proto: Proto,
    v6: bool,
}

impl Case {
    /// All of them.
    pub fn all() -> Vec<Case> {
        let mut cases = Vec::new();
        let modes = [Mode::Dr, Mode::Nat, Mode::NatOut, Mode::Tun];
        for v6 in [false, true] {
            for proto in [Proto::Udp, Proto::Tcp] {
                let known = |mode| Case {
                    what: What::Known(mode),
                    proto,
                    v6,
                };
                cases.extend(modes.map(known));
            }
            let begun = [
                (Mode::Dr, Proto::Udp),
                (Mode::Nat, Proto::Udp),
                (Mode::Dr, Proto::Syn),
                (Mode::Nat, Proto::Syn),
            ];
            cases.extend(begun.map(|(mode, proto)| Case {
                what: What::New(mode),
                proto,
                v6,
            }));
            let others = [What::Owned, What::HandedOver, What::Expiry];
            cases.extend(others.map(|what| Case {
                what,
                proto: Proto::Udp,
                v6,
            }));
        }
        cases
    }

    /// Its name in tables and among the budgets.
    pub fn name(&self) -> String {
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        let proto = match self.proto {
            Proto::Udp => "UDP",
            Proto::Tcp => "TCP",
            Proto::Syn => "SYN",
        };
        match self.what {
            What::Known(mode) => format!("{} {family} {proto}", mode.name()),
            What::New(mode) => format!("{} {family} {proto}, new", mode.name()),
            What::Owned => format!("DR {family} {proto}, of two workers"),
            What::HandedOver => format!("DR {family} {proto}, handed over"),
            What::Expiry => format!("DR {family} {proto}, expiry"),
        }
    }

    fn mode(&self) -> Mode {
        match self.what {
            What::Known(mode) | What::New(mode) => mode,
            What::Owned | What::HandedOver | What::Expiry => Mode::Dr,
        }
    }

    fn setup(&self) -> Setup {
        let forward: Forward = self.mode().forward();
        let several = matches!(self.what, What::Owned | What::HandedOver);
        Setup {
            workers: if several { 2 } else { 1 },
            ..Setup::new(forward, 16 * FLOWS)
        }
    }

    /// Everything up to what is counted, and the packets of that.
    ///
    /// # Errors
    /// Memory is short, or packets are not forwarded.
    pub fn prepare(&self) -> Result<Prepared, String> {
        let traffic = Traffic {
            v6: self.v6,
            proto: self.proto,
            flows: FLOWS,
            services: 1,
            by_port: false,
        };
        let now = Time(1_000_000_000);
        let made = Bench::new(&traffic, &self.setup(), now);
        let mut prepared = Prepared {
            case: *self,
            bench: made.map_err(|error| error.to_string())?,
            now,
            packets: Vec::new(),
            warm: false,
        };
        let servers = prepared.bench.establish(&traffic, now)?;
        let known: Vec<_> = (0..FLOWS).map(|flow| traffic.request(flow)).collect();
        // Once for what the first burst has to find out.
        prepared.packets = known;
        prepared.run(&mut |bench, now, frames| bench.round(now, frames))?;
        let mut flows = shuffled(FLOWS);
        if matches!(self.what, What::New(_)) {
            // As many again, unknown so far.
            flows.iter_mut().for_each(|flow| *flow += FLOWS);
        }
        let packet = |flow: &u32| match self.mode() {
            Mode::NatOut => traffic.reply(*flow, servers[*flow as usize]),
            _ => traffic.request(*flow),
        };
        prepared.packets = flows.iter().map(packet).collect();
        match self.what {
            What::Owned => prepared.keep(false)?,
            What::HandedOver => prepared.keep(true)?,
            _ => {}
        }
        if self.mode() == Mode::NatOut || self.what == What::HandedOver {
            prepared.run(&mut |bench, now, frames| bench.round(now, frames))?;
        }
        prepared.warm = true;
        Ok(prepared)
    }
}

/// A case about to be counted.
pub struct Prepared {
    case: Case,
    bench: Bench,
    now: Time,
    packets: Vec<Vec<u8>>,
    /// Whether everything is known that the first packets find out.
    warm: bool,
}

/// What takes a burst and says how many frames were sent.
type Round<'a> = &'a mut dyn FnMut(&mut Bench, Time, &mut Vec<PoolFrame>) -> usize;

impl Prepared {
    /// How many packets, or connections, will be counted.
    pub fn count(&self) -> usize {
        self.packets.len()
    }

    /// Has `round` take all packets in bursts, or, for connections' ends, sees them all end.
    ///
    /// # Errors
    /// Packets are not forwarded, or connections do not end.
    pub fn run(&mut self, round: Round<'_>) -> Result<(), String> {
        if self.case.what == What::Expiry && self.warm {
            return self.expire(round);
        }
        self.now.0 += 10 * TICK;
        let mut frames = Vec::with_capacity(BURST);
        for packets in self.packets.chunks(BURST) {
            let pool = &mut self.bench.pool;
            frames.extend(packets.iter().map(|bytes| pool.take(bytes)));
            let sent = round(&mut self.bench, self.now, &mut frames);
            if sent != packets.len() {
                let all = packets.len();
                let name = self.case.name();
                return Err(format!("{name}: {sent} of {all} packets were sent"));
            }
        }
        Ok(())
    }

    fn expire(&mut self, round: Round<'_>) -> Result<(), String> {
        // A second before they end, the wheels of all that time have turned.
        self.now.0 += 299_000_000_000;
        for _ in 0..2_000 {
            self.bench.tick(self.now);
        }
        for _ in 0..2_000 {
            if self.bench.conns() == 0 {
                return Ok(());
            }
            self.now.0 += TICK;
            round(&mut self.bench, self.now, &mut Vec::new());
        }
        let left = self.bench.conns();
        let name = self.case.name();
        Err(format!("{name}: {left} connections did not end"))
    }

    /// Keeps the packets that a worker hands to the other, or those that it does not.
    fn keep(&mut self, handed_over: bool) -> Result<(), String> {
        let mut kept = Vec::new();
        for packet in std::mem::take(&mut self.packets) {
            let mut frames = vec![self.bench.pool.take(&packet)];
            let worker = &mut self.bench.workers[0];
            worker.burst(self.now, PortId(0), &mut frames, &mut self.bench.pool);
            worker.flush(&mut self.bench.pool);
            if (self.bench.pool.sent.is_empty()) == handed_over {
                kept.push(packet);
            }
            self.bench.flush(self.now);
            if self.bench.pool.recycle() != 1 {
                return Err(format!("{}: a packet was not sent", self.case.name()));
            }
        }
        kept.truncate(kept.len() / BURST * BURST);
        self.packets = kept;
        Ok(())
    }
}
