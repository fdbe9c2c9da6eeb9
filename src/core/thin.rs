//! `drop_entry`: when connections run short, some of those that are hardly used are given up, a random stretch of 1/32 of
//! the table a second, a bounded piece a round.
//!
//! Follows `ip_vs_random_dropentry` and `todrop_entry` (net/netfilter/ipvs/ip_vs_conn.c). Whether it is in force is said by
//! `defence.rs`.

use ripvs_packet::Frame;

use crate::conn::{ConnId, Flags, Record};
use crate::family::{Family, V4, V6};
use crate::spec::service_flags;
use crate::state::{sctp, tcp, template};
use crate::types::{proto, Tick, Time};
use crate::worker::{Tables, Worker};

/// Records looked at in one round.
const STEP: u32 = 256;

/// The part of the table that is gone through in a second.
const PART: u64 = 32;

/// An established connection without a packet for so long may be given up, in ticks.
const IDLE: u32 = 60 * Tick::HZ;

/// How far this second's search has come in one family's table.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    cursor: u64,
    left: u32,
}

/// The search at one worker.
#[derive(Debug, Default)]
pub(crate) struct Thin {
    random: u64,
    stretches: [Stretch; 2],
    /// By the packets that a connection had: so many more are spared (`todrop_counter`).
    spared: [i8; Record::<V4>::FEW_PACKETS as usize + 1],
    found: Vec<ConnId>,
}

impl Thin {
    /// A search with a random number to begin with.
    pub fn new(seed: u64) -> Thin {
        Thin {
            random: seed | 1,
            ..Thin::default()
        }
    }

    /// A random number (xorshift64; Marsaglia 2003), good enough to choose where to look.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// A stretch of a table with that many places.
    fn stretch(&mut self, places: u32) -> Stretch {
        if places == 0 {
            return Stretch::default();
        }
        let places = u64::from(places);
        Stretch {
            cursor: self.draw() % places,
            // Rounded up as often as it takes to be right on average.
            left: ((places + self.draw() % PART) / PART) as u32,
        }
    }

    /// Whether a connection is given up. `one_packet`: its service is scheduled packet by packet.
    fn takes<A: Family>(&mut self, record: &Record<A>, one_packet: bool, now: Tick) -> bool {
        if record.n_control() > 0 {
            return false;
        }
        if record.has(Flags::TEMPLATE) {
            return !one_packet && record.state != template::ASSURED;
        }
        match (record.proto(), record.state) {
            (proto::TCP, tcp::SYN_RECV | tcp::SYNACK) => true,
            (proto::SCTP, sctp::INIT1 | sctp::INIT) => true,
            (proto::TCP, tcp::ESTABLISHED) | (proto::SCTP, sctp::ESTABLISHED) => {
                self.is_idle(record, now)
            }
            (proto::TCP | proto::SCTP, _) => false,
            _ => self.is_idle(record, now),
        }
    }

    /// Whether it is one connection's turn of those that had as few packets and none for long.
    fn is_idle<A: Family>(&mut self, record: &Record<A>, now: Tick) -> bool {
        let quiet = record.timeout.saturating_sub(record.expires().until(now));
        if quiet < IDLE {
            return false;
        }
        let packets = match record.packets() {
            Some(packets @ 1..=Record::<V4>::FEW_PACKETS) => packets,
            _ => return false,
        };
        let spared = &mut self.spared[usize::from(packets)];
        *spared -= 1;
        if *spared > 0 {
            return false;
        }
        *spared = packets as i8;
        true
    }
}

impl<F: Frame> Worker<F> {
    /// Chooses what is gone through in the second to come.
    pub(crate) fn begin_thinning(&mut self) {
        if self.defence.drops_entries() {
            let (v4, v6) = (self.conns4.places(), self.conns6.places());
            self.thin.stretches = [self.thin.stretch(v4), self.thin.stretch(v6)];
        } else {
            self.thin.stretches = [Stretch::default(); 2];
        }
    }

    /// Gives up some connections, if it is time to.
    pub(crate) fn thin(&mut self, now: Time) {
        self.thin_of::<V4>(now);
        self.thin_of::<V6>(now);
    }

    fn thin_of<A: Tables<F>>(&mut self, now: Time) {
        let family = usize::from(A::IS_V6);
        let Stretch { cursor, left } = self.thin.stretches[family];
        if left == 0 {
            return;
        }
        let places = u64::from(A::table(self).places());
        let looks = u64::from(left.min(STEP)).min(places.saturating_sub(cursor));
        let mut thin = std::mem::take(&mut self.thin);
        let mut found = std::mem::take(&mut thin.found);
        let next = A::table(self).dump(cursor, looks as usize, |id, record| {
            let service = record.service().and_then(|id| self.services.get(id));
            let one_packet =
                service.is_some_and(|own| own.spec.flags & service_flags::ONE_PACKET != 0);
            if thin.takes(record, one_packet, now.tick()) {
                found.push(id);
            }
        });
        thin.stretches[family] = Stretch {
            cursor: next.unwrap_or(0),
            left: left - (looks as u32).clamp(1, left),
        };
        self.thin = thin;
        for id in found.drain(..) {
            self.drop_conn::<A>(now, id);
        }
        self.thin.found = found;
    }
}

#[cfg(test)]
mod tests {
    use ripvs_packet::testing::build::{ethernet, Ip};

    use crate::delta::Delta;
    use crate::settings::Settings;
    use crate::spec::{Forward, SchedKind};
    use crate::testing::{mac, Rig};
    use crate::types::proto;

    fn packet(port: u16, from: (&str, u16), to: (&str, u16), flags: u8) -> Vec<u8> {
        let header = Ip::new(from.0.parse().unwrap(), to.0.parse().unwrap());
        let packet = header.tcp((from.1, to.1), flags, 1, 1, b"");
        ethernet(mac(port), [2, 0, 0, 0, 9, 9], &packet)
    }

    /// Connections of as many packets from the client as the second number says, all established.
    fn establish(rig: &mut Rig, clients: std::ops::Range<u16>, packets: u16) {
        for client in clients {
            let (from, to) = (("198.18.0.1", client), ("192.0.2.100", 80));
            rig.send(0, &packet(0, from, to, 2));
            rig.send(1, &packet(1, ("10.0.0.11", 80), from, 0x12));
            for _ in 1..packets {
                rig.send(0, &packet(0, from, to, 0x10));
            }
        }
    }

    fn rig(workers: u16, mode: i32) -> Rig {
        let mut rig = Rig::new(workers);
        let service = rig.service(proto::TCP, "192.0.2.100", 80, SchedKind::Rr);
        rig.dest(service, "10.0.0.11", 80, Forward::Masq);
        let settings = Settings {
            drop_entry: mode,
            ..Settings::default()
        };
        rig.apply(Delta::Settings(settings));
        rig
    }

    #[test]
    fn idle_connections_of_few_packets_go_and_those_of_many_stay() {
        for workers in [1, 3] {
            let mut rig = rig(workers, 3);
            establish(&mut rig, 1000..1200, 2);
            establish(&mut rig, 2000..2200, 9);
            rig.wait(60);
            // Idle for less than a minute, they all stay.
            assert_eq!(rig.conns().len(), 400);
            rig.wait(300);
            let left = |from: u16| {
                let conns = rig.conns();
                let range = from..from + 200;
                conns
                    .iter()
                    .filter(|conn| range.contains(&conn.client.1))
                    .count()
            };
            assert_eq!(left(2000), 200);
            // Every second one of those looked at, about 1/32 of all each second.
            assert!(left(1000) < 30, "{} of 200 are left", left(1000));
        }
    }

    #[test]
    fn half_open_connections_go_at_once_but_only_when_it_is_in_force() {
        for (mode, all_stay) in [(0, true), (1, true), (3, false)] {
            let mut rig = rig(1, mode);
            for client in 1000..1200 {
                rig.send(
                    0,
                    &packet(0, ("198.18.0.1", client), ("192.0.2.100", 80), 2),
                );
            }
            rig.wait(50);
            let left = rig.conns().len();
            assert_eq!(left == 200, all_stay, "mode {mode}: {left} left");
            if !all_stay {
                assert!((10..120).contains(&left), "{left} left");
            }
        }
    }

    #[test]
    fn a_given_up_connection_takes_its_template_along_unless_that_is_assured() {
        let mut rig = Rig::new(3);
        let service = rig.service_as(Rig::persistent(proto::TCP, "192.0.2.100", 80, 3600));
        let dest = rig.dest(service, "10.0.0.11", 80, Forward::Masq);
        rig.apply(Delta::Settings(Settings {
            drop_entry: 3,
            ..Settings::default()
        }));
        for client in 1000..1100 {
            let from = (&*format!("198.18.{}.1", client - 1000 + 1), client);
            rig.send(0, &packet(0, from, ("192.0.2.100", 80), 2));
        }
        establish(&mut rig, 1000..1001, 20);
        rig.wait(400);
        let conns = rig.conns();
        assert_eq!(conns.len(), 2, "{conns:?}");
        assert!(conns.iter().any(|conn| conn.state == "ASSURED"));
        let tally = rig.tally(dest);
        assert_eq!(
            (tally.active, tally.inactive, tally.persistent, tally.refs),
            (1, 0, 1, 2)
        );
    }
}
