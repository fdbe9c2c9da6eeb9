//! Frames of a burst that are other workers', by what the first look at them found: they go there by bursts. What is seen to
//! be another's only on the ordinary way goes by itself (`input.rs`).

use ripvs_packet::{Frame, PortId};

use crate::glance::{Glance, Way};
use crate::message::{Frames, Msg, TOGETHER};
use crate::types::{Time, WorkerId};
use crate::verdict::Held;
use crate::worker::{Io, Worker};

impl<F: Frame> Worker<F> {
    /// Takes frames that another worker found to be this one's.
    pub(crate) fn take_handed(
        &mut self,
        now: Time,
        port: PortId,
        handed: Frames<F>,
        io: &mut impl Io<F>,
    ) {
        let mut frames = std::mem::take(&mut self.taken);
        frames.extend(handed);
        self.take(now, port, false, &mut frames, io);
        self.taken = frames;
    }

    /// Lays the frames that are others' aside before the rest is dealt with: whose the next one is nobody can foresee, so
    /// that it costs less not to decide anything by it. Where some are to go the ordinary way all stay in their order, since
    /// that way may find that they are another's as well.
    pub(crate) fn part(&mut self, frames: &mut Vec<F>, glances: &mut Vec<Glance>) {
        let have = |way| glances.iter().any(|glance| glance.way == way);
        if frames.len() > TOGETHER || !have(Way::Over) || have(Way::Ordinary) {
            return;
        }
        // Our own are laid aside with the others for a moment.
        for (frame, glance) in frames.drain(..).zip(&*glances) {
            if let Some(place) = self.over.get_mut(usize::from(glance.owner.0)) {
                place.push(frame);
            }
        }
        if let Some(own) = self.over.get_mut(usize::from(self.id.0)) {
            frames.extend(own.drain(..));
        }
        let mut kept = 0;
        for at in 0..glances.len() {
            let glance = glances[at];
            glances[kept] = glance;
            kept += usize::from(glance.owner == self.id);
        }
        for _ in kept..glances.len() {
            self.net.counters.hold(Held::Ring);
        }
        glances.truncate(kept);
    }

    /// Lays a frame beside those that the same worker gets.
    pub(crate) fn put_over(&mut self, owner: WorkerId, frame: Option<F>) {
        let Some(place) = self.over.get_mut(usize::from(owner.0)) else {
            return;
        };
        self.net.counters.hold(Held::Ring);
        place.extend(frame);
        if place.is_full() {
            self.hand_over_burst(owner);
        }
    }

    /// Hands over what was laid aside.
    pub(crate) fn hand_over_all(&mut self) {
        for worker in 0..self.over.len() {
            self.hand_over_burst(WorkerId(worker as u16));
        }
    }

    /// Hands over what was laid aside for a worker, which must be before anything else that goes there.
    pub(crate) fn hand_over_burst(&mut self, owner: WorkerId) {
        let place = self.over.get_mut(usize::from(owner.0));
        if let Some(place) = place.filter(|place| !place.is_empty()) {
            let (port, frames) = (self.over_port, std::mem::take(place));
            self.post(owner, Msg::Burst { port, frames });
        }
    }
}

#[cfg(test)]
mod tests {
    use ripvs_packet::memory::MemFrame;
    use ripvs_packet::testing::build::{ethernet, Ip};

    use crate::spec::{Forward, SchedKind};
    use crate::testing::{mac, Rig};
    use crate::types::proto;

    /// A datagram of a client's, of which the payload tells which of them it is.
    fn datagram(client: u16, number: u8) -> Vec<u8> {
        let header = Ip::new(
            "198.18.0.1".parse().unwrap(),
            "192.0.2.100".parse().unwrap(),
        );
        let payload = [&client.to_be_bytes()[..], &[number; 30]].concat();
        let packet = header.udp((client, 53), &payload);
        ethernet(mac(0), [2, 0, 0, 0, 9, 9], &packet)
    }

    /// The same with four bytes of options that do nothing, which makes it one for the ordinary way.
    fn odd(client: u16, number: u8) -> Vec<u8> {
        let mut frame = datagram(client, number);
        frame.splice(34..34, [1; 4]);
        frame[14] = 0x46;
        frame[17] += 4;
        ripvs_packet::ipv4::fill_checksum(&mut frame[14..38]);
        frame
    }

    #[test]
    fn each_client_s_packets_of_a_burst_leave_once_and_in_their_order_whosever_they_are() {
        for (workers, per_client, with_odd) in [
            (1, 4, false),
            (2, 4, false),
            (3, 4, false),
            (3, 4, true),
            // More than are handed over together.
            (3, 9, false),
        ] {
            let mut rig = Rig::new(workers);
            let service = rig.service(proto::UDP, "192.0.2.100", 53, SchedKind::Rr);
            let dest = rig.dest(service, "10.0.0.11", 53, Forward::Route);
            // Each worker receives twice: first packets, and those of known connections.
            for _ in 0..2 * workers {
                let mut burst = Vec::new();
                for number in 0..per_client {
                    burst.extend((1000..1008).map(|client| datagram(client, number)));
                }
                if with_odd {
                    burst[12] = odd(1004, 1);
                }
                let frames = burst.iter().map(|frame| MemFrame::new(frame)).collect();
                let sent = rig.send_burst(0, frames);
                assert_eq!(sent.len(), burst.len());
                for client in 1000..1008_u16 {
                    let of_client = |(_, frame): &&(u16, Vec<u8>)| {
                        let at = frame.len() - 32;
                        frame[at..at + 2] == client.to_be_bytes()
                    };
                    let numbers = sent
                        .iter()
                        .filter(of_client)
                        .map(|(_, frame)| frame[frame.len() - 1]);
                    assert!(
                        numbers.eq(0..per_client),
                        "{workers} workers, client {client}"
                    );
                }
            }
            let packets = u64::from(2 * workers) * 8 * u64::from(per_client);
            assert_eq!(rig.tally(dest).in_packets, packets);
        }
    }
}
