//! Packets that each begin a connection, at such a rate that so many are in the table.

use ripvs_core::Time;

use super::rounds::Rounds;
use super::{cpu, Case, Options, Outcome, What};
use crate::memory::{Pool, PoolFrame};
use crate::traffic::Proto;
use crate::worker::{Bench, Setup, BURST};

/// Frames of ever other clients, made on the way: a template of which address and port are set and sums put right.
#[derive(Clone)]
struct Fresh {
    template: Vec<u8>,
    next: u32,
    /// The clients repeat after so many.
    count: u32,
}

impl Fresh {
    /// The next frame's bytes.
    #[inline]
    fn frame(&mut self) -> &[u8] {
        let flow = self.next;
        self.next = if flow + 1 == self.count { 0 } else { flow + 1 };
        // Clients in an order that no hardware foresees: an odd factor permutes the numbers below a power of two.
        let host = flow.wrapping_mul(0x9e37_79b1) & 0x003f_ffff;
        let port = 1024 + (flow >> 22) as u16 + (flow as u16 & 0x1fff);
        let v6 = self.template[12] == 0x86;
        let (addr, l4) = if v6 { (14 + 20, 54) } else { (14 + 12 + 1, 34) };
        let host = host.to_be_bytes();
        // UDP's and TCP's checksums are not right any more; nobody on the way looks at them.
        match v6 {
            false => {
                self.template[addr] = 0x40 | host[1];
                self.template[addr + 1..addr + 3].copy_from_slice(&host[2..]);
            }
            true => self.template[addr..addr + 4].copy_from_slice(&host),
        }
        self.template[l4..l4 + 2].copy_from_slice(&port.to_be_bytes());
        if !v6 {
            self.template[24..26].fill(0);
            let sum = ripvs_packet::checksum::Sum::of(&self.template[14..34]).checksum();
            self.template[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        &self.template
    }

    fn burst(&mut self, pool: &mut Pool, frames: &mut Vec<PoolFrame>) {
        for _ in 0..BURST {
            let bytes = self.frame();
            frames.push(pool.take(bytes));
        }
    }
}

/// A worker whose table is as full as it stays, and where its packets come from.
struct Flow {
    bench: Bench,
    fresh: Fresh,
    frames: Vec<PoolFrame>,
    now: Time,
    /// Nanoseconds between two bursts.
    step: u64,
}

impl Flow {
    /// Begins connections until as many end as begin.
    fn begin(case: &Case) -> Result<Flow, String> {
        let What::New {
            live,
            sched,
            dests,
            persistent,
        } = case.what
        else {
            return Err("nothing new".into());
        };
        let traffic = case.traffic(1);
        // SYN's connections last a minute, UDP's a second.
        let lasts: u64 = if case.proto == Proto::Syn { 60 } else { 1 };
        let setup = Setup {
            sched,
            dests,
            udp_timeout: 1,
            persistent: if persistent { 300 } else { 0 },
            ..Setup::new(
                case.mode.forward(),
                live / 2 * if persistent { 8 } else { 4 } + 100_000,
            )
        };
        let now = Time(1_000_000_000);
        let bench = Bench::new(&traffic, &setup, now).map_err(|error| error.to_string())?;
        let mut flow = Flow {
            bench,
            fresh: Fresh {
                template: traffic.request(0),
                next: 0,
                // With persistence, clients come again when their connection has ended; their templates stay.
                count: if persistent { live / 2 * 3 } else { 1 << 25 },
            },
            frames: Vec::with_capacity(BURST),
            now,
            step: lasts * 1_000_000_000 * BURST as u64 / u64::from(live),
        };
        for _ in 0..(live as usize * 3 / 2) / BURST {
            flow.offer();
            flow.round();
        }
        let conns = flow.bench.conns();
        let within = f64::from(live) * 0.9..f64::from(live) * 1.6 + 100_000.0;
        match persistent || within.contains(&f64::from(conns)) {
            true => Ok(flow),
            false => Err(format!("{conns} connections are in the table")),
        }
    }

    /// Gets a burst of frames and lets time pass.
    fn offer(&mut self) {
        self.fresh.burst(&mut self.bench.pool, &mut self.frames);
        self.now.0 += self.step;
    }

    /// A round of the worker; how many packets it sent.
    fn round(&mut self) -> usize {
        self.bench.round(self.now, &mut self.frames)
    }

    /// Nanoseconds that so many bursts take where nothing is done but swap MAC addresses. The worker's clients do not come
    /// earlier for that.
    fn plain(&mut self, bursts: usize) -> u64 {
        let next = self.fresh.next;
        let pool = &mut self.bench.pool;
        let start = cpu();
        for _ in 0..bursts {
            self.fresh.burst(pool, &mut self.frames);
            for mut frame in self.frames.drain(..) {
                crate::micro::swap_macs(&mut frame);
                pool.sent.push(frame);
            }
            pool.recycle();
        }
        let plain = cpu() - start;
        self.fresh.next = next;
        plain
    }
}

/// What a packet that begins a connection adds, and how long rounds of such packets take.
pub(super) fn measure(options: &Options, case: &Case) -> Result<Outcome, String> {
    let bursts = 5_000;
    let mut added = Vec::new();
    let rounds = Rounds::take(|pass| {
        let mut flow = Flow::begin(case)?;
        let rounds = Rounds::time(bursts * options.rounds, |clock| {
            flow.offer();
            clock.run(|| flow.round())
        })?;
        if pass == 0 {
            for _ in 0..options.rounds {
                let plain = flow.plain(bursts);
                let start = cpu();
                for _ in 0..bursts {
                    flow.offer();
                    if flow.round() < BURST {
                        return Err("not all packets were sent".into());
                    }
                }
                let whole = cpu() - start;
                added.push((whole as f64 - plain as f64) / (bursts * BURST) as f64);
            }
        }
        Ok(rounds)
    })?;
    Ok(Outcome::added(case, &added, rounds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Traffic;

    #[test]
    fn no_client_comes_twice() {
        let traffic = Case::all()[0].traffic(1);
        for v6 in [false, true] {
            let mut fresh = Fresh {
                template: Traffic { v6, ..traffic }.request(0),
                next: (1 << 22) - 50_000,
                count: 1 << 25,
            };
            let clients: std::collections::HashSet<Vec<u8>> = (0..100_000)
                .map(|_| fresh.frame()[22..58].to_vec())
                .collect();
            assert_eq!(clients.len(), 100_000);
        }
    }
}
