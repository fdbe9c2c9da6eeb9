//! What is measured beside testpmd, and how much it may cost.

use std::fmt;

use ripvs_core::{owner_of_client, SchedKind};

use crate::micro::Mode;
use crate::traffic::{client, shuffled, Proto, Traffic};

/// How many real servers there are where nothing is said.
pub const DESTS: u32 = 10;
/// What keys ripvsd's hashes where it matters which worker a packet is for.
pub const SEED: u64 = 0x5eed;

/// Two workers: what packets find there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Two {
    /// A queue each; packets arrive at their owner.
    Queues,
    /// A queue each; half of the packets arrive at the other worker.
    HandOver,
}

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Forwarding method; with [`Mode::NatOut`] half of the packets are servers' replies.
    pub mode: Mode,
    /// IPv6 instead of IPv4.
    pub v6: bool,
    /// What the packets are.
    pub proto: Proto,
    /// How many flows.
    pub flows: u32,
    /// How many real servers a service has.
    pub dests: u32,
    /// How many services.
    pub services: u32,
    /// Whether they are ports of one address.
    pub by_port: bool,
    /// The scheduler.
    pub sched: SchedKind,
    /// Whether services are persistent.
    pub persistent: bool,
    /// Per cent of the table that the flows fill, where that is said.
    pub fill: Option<u32>,
    /// Two workers instead of one.
    pub two: Option<Two>,
    /// Whether connections end after a second, so that each packet begins one.
    pub new: bool,
    /// Whether it is among those of a minute.
    pub quick: bool,
}

impl fmt::Display for Case {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Dr => "DR",
            Mode::Nat => "NAT",
            Mode::NatOut => "NAT both ways",
            Mode::Tun => "TUN",
        };
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        let proto = match self.proto {
            Proto::Udp => "UDP",
            Proto::Tcp => "TCP",
            Proto::Syn => "SYN",
        };
        write!(out, "{mode} {family} {proto}")?;
        if self.services > 1 {
            let what = if self.by_port { "ports" } else { "services" };
            write!(out, " {} {what}", self.services)?;
        } else if self.dests != DESTS && self.mode != Mode::NatOut {
            write!(out, " {} dests", self.dests)?;
        }
        if self.sched != SchedKind::Rr {
            write!(out, " {}", self.sched.name())?;
        }
        if self.persistent {
            write!(out, " persistent")?;
        }
        if let Some(fill) = self.fill {
            write!(out, " {fill}% full")?;
        }
        match self.two {
            None => {}
            Some(Two::Queues) => write!(out, " 2 workers, no hand-over")?,
            Some(Two::HandOver) => write!(out, " 2 workers, hand-over")?,
        }
        if self.new {
            write!(out, " new")?;
        }
        Ok(())
    }
}

impl Case {
    /// A usual one: UDP of IPv4, one service.
    pub fn new(mode: Mode, flows: u32) -> Case {
        Case {
            mode,
            v6: false,
            proto: Proto::Udp,
            flows,
            // Replies come from the one server that every flow is known to have.
            dests: if mode == Mode::NatOut { 1 } else { DESTS },
            services: 1,
            by_port: false,
            sched: SchedKind::Rr,
            persistent: false,
            fill: None,
            two: None,
            new: false,
            quick: false,
        }
    }

    /// All of them, in the order of the table.
    pub fn all() -> Vec<Case> {
        let modes = [Mode::Dr, Mode::Nat, Mode::NatOut, Mode::Tun];
        let mut cases = Vec::new();
        for v6 in [false, true] {
            for mode in modes {
                cases.extend([1_000, 65_536, 1_000_000].map(|flows| Case {
                    v6,
                    quick: !v6 && mode != Mode::NatOut && flows != 65_536,
                    ..Case::new(mode, flows)
                }));
            }
        }
        cases.extend([Mode::Dr, Mode::Nat, Mode::Tun].map(|mode| Case::new(mode, 8_000_000)));
        let v6 = true;
        let large = Case::new(Mode::Dr, 8_000_000);
        cases.push(Case { v6, ..large });
        for proto in [Proto::Tcp, Proto::Syn] {
            for mode in modes {
                let case = |flows| Case {
                    proto,
                    ..Case::new(mode, flows)
                };
                cases.extend([1_000, 1_000_000].map(case));
            }
        }
        let tcp6 = Case::new(Mode::Dr, 1_000_000);
        let proto = Proto::Tcp;
        cases.push(Case { v6, proto, ..tcp6 });
        let usual = Case::new(Mode::Dr, 65_536);
        cases.extend([1, 1_000, 10_000].map(|dests| Case { dests, ..usual }));
        cases.extend(
            [(1, false), (1_000, false), (20_000, false), (1_000, true)].map(
                |(services, by_port)| Case {
                    services,
                    by_port,
                    dests: 2,
                    ..usual
                },
            ),
        );
        for (sched, _) in SchedKind::ALL {
            if sched != SchedKind::Rr {
                cases.push(Case { sched, ..usual });
            }
        }
        let persistent = true;
        cases.push(Case {
            persistent,
            ..usual
        });
        let fill = |fill| Case {
            fill: Some(fill),
            ..Case::new(Mode::Dr, 500_000)
        };
        cases.extend([10, 90].map(fill));
        let two = |two| Case {
            two: Some(two),
            ..usual
        };
        cases.extend([Two::Queues, Two::HandOver].map(two));
        let new = |mode| Case {
            new: true,
            ..Case::new(mode, 8_000_000)
        };
        cases.extend([Mode::Dr, Mode::Nat].map(new));
        cases
    }

    /// What it is picked by: its name and its number of flows.
    pub fn name(&self) -> String {
        format!("{self} {}", self.flows)
    }

    /// What its packets are.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            v6: self.v6,
            proto: self.proto,
            flows: self.flows,
            services: self.services,
            by_port: self.by_port,
        }
    }

    /// How many workers.
    pub fn workers(&self) -> usize {
        if self.two.is_some() {
            2
        } else {
            1
        }
    }

    /// The workers' cores: one has the second, the first being everything else's.
    pub fn cores(&self) -> &'static [u8] {
        match self.workers() {
            1 => &[1],
            _ => &[0, 1],
        }
    }

    /// Whether packets arrive at another worker than their owner.
    pub fn hands_over(&self) -> bool {
        self.two == Some(Two::HandOver)
    }

    /// Most connections that ripvsd is to keep.
    pub fn connections(&self) -> u32 {
        match self.fill {
            Some(fill) => (u64::from(self.flows) * 100 / u64::from(fill)) as u32,
            None if self.new => 12_000_000,
            // Workers have their share each, and some have a few more than others.
            None => (self.flows + self.flows / 10).max(1 << 20),
        }
    }

    /// Bytes in an mbuf: small ones where there are very many.
    pub fn mbuf_size(&self) -> u32 {
        if self.flows > 1_000_000 {
            256
        } else {
            2048
        }
    }

    /// The packets of each queue, in the order in which they come.
    pub fn frames(&self) -> Vec<Box<dyn Iterator<Item = Vec<u8>>>> {
        let traffic = self.traffic();
        let requests = shuffled(self.flows);
        let Some(two) = self.two else {
            let both = self.mode == Mode::NatOut;
            let answered = if both {
                shuffled(self.flows)
            } else {
                Vec::new()
            };
            let requests = requests.into_iter().map(move |flow| traffic.request(flow));
            let replies = answered.into_iter().rev();
            let replies = replies.map(move |flow| traffic.reply(flow, 0));
            return vec![Box::new(requests.chain(replies))];
        };
        let owner = |flow: u32| {
            let (addr, port) = client(traffic.v6, flow);
            owner_of_client(2, SEED, addr, port).0
        };
        let mut queues = [Vec::new(), Vec::new()];
        for (index, flow) in requests.into_iter().enumerate() {
            let at = match two {
                Two::Queues => usize::from(owner(flow)),
                Two::HandOver => index % 2,
            };
            queues[at].push(flow);
        }
        // The two rounds of packets are of the same length, so that neither worker is fed more than the other.
        let least = queues.iter().map(Vec::len).min().unwrap_or(0);
        let frames = queues.into_iter().map(|mut flows| {
            flows.truncate(least);
            let frames = flows.into_iter().map(move |flow| traffic.request(flow));
            Box::new(frames) as Box<dyn Iterator<Item = Vec<u8>>>
        });
        frames.collect()
    }

    /// What the added cost is to be, in nanoseconds, where that is said.
    pub fn target(&self) -> Option<f64> {
        if self.new {
            return Some(if self.mode == Mode::Dr { 200.0 } else { 300.0 });
        }
        let by_flows = match self.mode {
            Mode::Dr => [24.0, 50.0, 80.0],
            Mode::Nat | Mode::NatOut => [27.0, 55.0, 95.0],
            Mode::Tun => [32.0, 75.0, 100.0],
        };
        let column = match self.flows {
            1_000 => 0,
            65_536 => 1,
            1_000_000 => 2,
            _ => return None,
        };
        let usual = Case {
            v6: self.v6,
            quick: self.quick,
            ..Case::new(self.mode, self.flows)
        };
        let more = if self.v6 { [5.0, 10.0, 15.0] } else { [0.0; 3] };
        (*self == usual).then(|| by_flows[column] + more[column])
    }

    /// Whether the bare loop of `bench/floor` can do the same.
    pub fn has_floor(&self) -> bool {
        let plain = Case {
            quick: self.quick,
            ..Case::new(self.mode, self.flows)
        };
        *self == plain && self.mode != Mode::NatOut && self.flows <= 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_cases_have_the_same_name() {
        let names: HashSet<_> = Case::all().iter().map(Case::name).collect();
        assert_eq!(names.len(), Case::all().len());
    }

    #[test]
    fn with_two_workers_packets_arrive_at_their_owner_or_half_of_them_do_not() {
        for two in [Two::Queues, Two::HandOver] {
            let case = Case {
                two: Some(two),
                ..Case::new(Mode::Dr, 1_000)
            };
            let mut strangers = 0;
            let mut all = 0;
            for (queue, frames) in case.frames().into_iter().enumerate() {
                for frame in frames {
                    let addr = <[u8; 4]>::try_from(&frame[26..30]).unwrap();
                    let port = u16::from_be_bytes([frame[34], frame[35]]);
                    let owner = owner_of_client(2, SEED, addr.into(), port);
                    strangers += usize::from(usize::from(owner.0) != queue);
                    all += 1;
                }
            }
            match two {
                Two::HandOver => assert!(strangers > all / 3 && strangers < all * 2 / 3),
                _ => assert!(strangers == 0 && all > 800),
            }
        }
    }
}
