//! The latest packets of a dest at one worker, counted where they take little memory, so that the counters of thousands of
//! dests stay in the processor's caches. What is full is carried to the dest's [`Tally`].

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::spec::{DestSpec, TunnelCsum, TunnelKind};
use crate::state::Direction;
use crate::tally::{Tally, TallySnapshot};
use crate::types::Af;

/// From so many bytes on they are carried. They are at least 20 for each packet, which leaves [`NOTES`] alone.
const FULL: u32 = 1 << 31;

/// What packets need to know of the dest, above its packets from clients.
const NOTES: u32 = 0xf << 28;

/// The dest is in its service at present.
const AVAILABLE: u32 = 1 << 31;

/// Where the family of a plain tunnel is, plus 1.
const IN_IP: u32 = 29;

/// What one worker counted for one dest lately: packets and bytes from clients, packets and bytes from servers. Once
/// the worker knows the dest it alone writes it, without locked instructions.
#[derive(Debug, Default)]
#[repr(align(16))]
pub(crate) struct Recent([[AtomicU32; 2]; 2]);

/// The family of a dest's tunnel, plus 1, where that is IP in IP, and there is no more to it; 0 otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InIp(u8);

impl InIp {
    pub(crate) fn of(dest: &DestSpec) -> InIp {
        let plain = dest.tunnel == TunnelKind::Ipip && dest.tunnel_csum != TunnelCsum::Full;
        InIp(if plain {
            1 + Af::of(dest.addr) as u8
        } else {
            0
        })
    }
}

impl Recent {
    /// Counts an IP packet, which has 20 bytes at least; true if it is time to [carry](Self::carry) it to the dest's tally.
    #[inline(always)]
    pub fn count(&self, direction: Direction, bytes: usize) -> bool {
        let [packets, sum] = &self.0[direction as usize];
        packets.store(packets.load(Relaxed).wrapping_add(1), Relaxed);
        let bytes = sum.load(Relaxed).wrapping_add(bytes as u32);
        sum.store(bytes, Relaxed);
        bytes >= FULL
    }

    /// Adds what was counted to the dest's tally, and begins anew.
    #[cold]
    pub fn carry(&self, tally: &Tally) {
        tally.carry(|| {
            tally.add(self.counts());
            let [[in_packets, in_bytes], [out_packets, out_bytes]] = &self.0;
            in_packets.store(self.notes(), Relaxed);
            for counter in [in_bytes, out_packets, out_bytes] {
                counter.store(0, Relaxed);
            }
        });
    }

    /// Adds what is counted here to what the dest's tally says.
    pub fn add_to(&self, sum: &mut TallySnapshot) {
        let [in_packets, in_bytes, out_packets, out_bytes] = self.counts();
        sum.in_packets += in_packets;
        sum.in_bytes += in_bytes;
        sum.out_packets += out_packets;
        sum.out_bytes += out_bytes;
    }

    /// Packets and bytes from clients, packets and bytes from servers.
    fn counts(&self) -> [u64; 4] {
        let [[in_packets, in_bytes], [out_packets, out_bytes]] = &self.0;
        [
            in_packets.load(Relaxed) & !NOTES,
            in_bytes.load(Relaxed),
            out_packets.load(Relaxed),
            out_bytes.load(Relaxed),
        ]
        .map(u64::from)
    }

    #[inline(always)]
    fn notes(&self) -> u32 {
        self.0[0][0].load(Relaxed) & NOTES
    }

    fn change_notes(&self, which: u32, to: u32) {
        let others = self.0[0][0].load(Relaxed) & !which;
        self.0[0][0].store(others | to, Relaxed);
    }

    /// Whether the dest is in its service, and its packets count.
    #[inline(always)]
    pub fn available(&self) -> bool {
        self.notes() & AVAILABLE != 0
    }

    /// Whether its tunnel is IP in IP of that family, and there is no more to it.
    #[inline(always)]
    pub fn is_in_ip(&self, af: Af) -> bool {
        self.notes() >> IN_IP & 3 == 1 + af as u32
    }

    /// Notes that the dest has come into its service, or left it.
    pub fn set_available(&self, available: bool) {
        self.change_notes(AVAILABLE, if available { AVAILABLE } else { 0 });
    }

    /// Notes what kind of tunnel leads to the dest.
    pub fn set_tunnel(&self, tunnel: InIp) {
        self.change_notes(3 << IN_IP, u32::from(tunnel.0) << IN_IP);
    }

    /// Begins from nought as that of a dest which has just come into its service, while no worker knows it.
    pub fn begin(&self, tunnel: InIp) {
        self.0
            .iter()
            .flatten()
            .for_each(|counter| counter.store(0, Relaxed));
        self.set_available(true);
        self.set_tunnel(tunnel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Forward;
    use crate::testing::Rig;

    /// Packets and bytes in and out, of both together.
    fn sum(recent: &Recent, tally: &Tally) -> [u64; 4] {
        let mut sum = tally.snapshot();
        recent.add_to(&mut sum);
        [sum.in_packets, sum.in_bytes, sum.out_packets, sum.out_bytes]
    }

    #[test]
    fn nothing_counted_is_lost_when_it_is_carried_and_notes_stay() {
        for (bytes, packets) in [(65_535, 200_000), (64, 60_000_000)] {
            let (recent, tally) = (Recent::default(), Tally::default());
            recent.begin(InIp(2));
            let (mut counted, mut carried) = ([0; 4], 0);
            for n in 0..packets {
                let direction = match n % 3 {
                    0 => Direction::Output,
                    _ => Direction::Input,
                };
                let at = 2 * direction as usize;
                counted[at] += 1;
                counted[at + 1] += bytes;
                if recent.count(direction, bytes as usize) {
                    assert_eq!(sum(&recent, &tally), counted);
                    recent.carry(&tally);
                    assert_eq!(sum(&recent, &tally), counted);
                    carried += 1;
                }
            }
            assert_eq!(sum(&recent, &tally), counted);
            assert!(carried > 0);
            assert!(recent.available() && recent.is_in_ip(Af::V6) && !recent.is_in_ip(Af::V4));
        }
    }

    #[test]
    fn notes_change_one_by_one_and_no_counter_with_them() {
        let (recent, tally) = (Recent::default(), Tally::default());
        let spec = Rig::dest_spec("10.0.0.1", 80, Forward::Tunnel);
        recent.count(Direction::Input, 65_535);
        recent.set_available(true);
        recent.set_tunnel(InIp::of(&spec));
        assert!(recent.available() && recent.is_in_ip(Af::V4));
        recent.set_available(false);
        assert!(!recent.available() && recent.is_in_ip(Af::V4));
        recent.set_tunnel(InIp(0));
        assert!(!recent.available() && !recent.is_in_ip(Af::V4));
        assert_eq!(sum(&recent, &tally), [1, 65_535, 0, 0]);
    }
}
