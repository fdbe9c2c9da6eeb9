//! An endless source of frames, from well-formed to nonsense, for pumping through a packet path: conversations between
//! clients, services and servers, ICMP about them, fragments in any order, chains of headers, and all of that spoiled.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use super::build::{self, Ip};
use super::mutate::{change_byte, mutate, repair};
use super::rng::Rng;
use super::world::World;
use crate::{arp, icmp, ipv4, nd, tcp};

/// The source of frames: an endless iterator.
#[derive(Clone, Debug)]
pub struct Fuzz {
    pub(super) rng: Rng,
    pub(super) world: World,
    /// Frames that belong together and are still to come.
    queued: VecDeque<Vec<u8>>,
}

impl Fuzz {
    /// A source whose frames depend on the seed and the world only.
    pub fn new(seed: u64, world: World) -> Fuzz {
        Fuzz {
            rng: Rng::new(seed),
            world,
            queued: VecDeque::new(),
        }
    }

    /// The next frame, well-formed or not.
    pub fn next_frame(&mut self) -> Vec<u8> {
        if let Some(frame) = self.queued.pop_front() {
            return frame;
        }
        match self.rng.below(16) {
            0..=4 => self.well_formed(),
            5..=8 => {
                let mut frame = self.well_formed();
                for _ in 0..=self.rng.below(3) {
                    mutate(&mut self.rng, &mut frame);
                }
                frame
            }
            9 | 10 => {
                self.queue_fragments();
                self.next_frame()
            }
            11 => self.extension_chain(),
            12 => self.option_soup(),
            13 => self.other_type(),
            14 if self.rng.one_in(20) => {
                self.queue_truncations();
                self.next_frame()
            }
            14 => {
                let mut frame = self.well_formed();
                frame.truncate(self.rng.below(frame.len() + 1));
                frame
            }
            _ => self.noise(),
        }
    }

    /// A frame with a well-formed packet: lengths and checksums are right, whether or not anybody has use for it.
    pub fn well_formed(&mut self) -> Vec<u8> {
        let packet = if self.rng.one_in(4) {
            self.icmp_error()
        } else {
            self.conversation()
        };
        self.frame(&packet)
    }

    fn frame(&mut self, packet: &[u8]) -> Vec<u8> {
        build::ethernet(self.world.here, self.world.there, packet)
    }

    /// A datagram's fragments, shuffled, some lost, doubled, overlapping or spoiled.
    fn queue_fragments(&mut self) {
        let (src, dst) = self.ends();
        let len = 16 + self.rng.below(4000);
        let data = self.rng.fill(len);
        let ip = self.ip(src.ip(), dst.ip());
        let packet = match self.rng.below(3) {
            0 => ip.icmp(if ip.src.is_ipv4() { 8 } else { 128 }, 0, 1, &data),
            _ => ip.udp((src.port(), dst.port()), &data),
        };
        let step = 8 * (1 + self.rng.below(185));
        let offsets: Vec<usize> = (1..40)
            .map(|n| n * step)
            .take_while(|at| *at < len)
            .collect();
        let id = self.rng.bits() as u32;
        let mut parts = build::fragments(&packet, &offsets, id);
        let header_len = if ip.src.is_ipv4() {
            ipv4::HEADER_LEN
        } else {
            40
        };
        for _ in 0..self.rng.below(3) {
            let at = self.rng.below(parts.len());
            match self.rng.below(4) {
                0 => {
                    parts.remove(at);
                }
                1 => parts.push(parts[at].clone()),
                2 => {
                    let offset = 8 * self.rng.below(8192);
                    let len = self.rng.below(200);
                    let more = self.rng.one_in(2);
                    let data = self.rng.fill(len);
                    parts.push(build::fragment(
                        &packet[..header_len],
                        offset,
                        more,
                        &data,
                        id,
                    ));
                }
                _ => change_byte(&mut self.rng, &mut parts[at]),
            }
            if parts.is_empty() {
                break;
            }
        }
        if self.rng.one_in(2) {
            for at in (1..parts.len()).rev() {
                let other = self.rng.below(at + 1);
                parts.swap(at, other);
            }
        }
        for part in parts {
            let mut frame = self.frame(&part);
            if self.rng.one_in(2) {
                repair(&mut frame);
            }
            self.queued.push_back(frame);
        }
        if self.queued.is_empty() {
            let frame = self.noise();
            self.queued.push_back(frame);
        }
    }

    /// One packet at each of its lengths.
    fn queue_truncations(&mut self) {
        let mut frame = self.well_formed();
        frame.truncate(160);
        for len in 0..=frame.len() {
            self.queued.push_back(frame[..len].to_vec());
        }
    }

    /// IPv6 with any number of extension headers of any kind and length, with or without what they promise.
    fn extension_chain(&mut self) -> Vec<u8> {
        const KINDS: [u8; 7] = [0, 43, 44, 51, 60, 60, 59];
        let (src, dst) = self.v6_ends();
        let mut ip = self.ip(src.ip(), dst.ip());
        let count = if self.rng.one_in(10) {
            self.rng.below(180)
        } else {
            self.rng.below(6)
        };
        for index in 0..count {
            let kind = if index == 0 && self.rng.one_in(2) {
                0
            } else {
                self.rng.pick(&KINDS)
            };
            let len = if self.rng.one_in(4) {
                4 + self.rng.below(62)
            } else {
                8
            };
            let mut body = if self.rng.one_in(3) {
                self.rng.fill(len)
            } else {
                vec![0; len]
            };
            if kind == 44 && self.rng.one_in(2) {
                body[2..4].fill(0);
            }
            if matches!(kind, 0 | 60) && self.rng.one_in(2) {
                body[2..].fill(0);
                let option = self
                    .rng
                    .pick(&[1, 5, 7, 0x1e, 0x31, 0x5e, 0x9e, 0xc2, 0xde]);
                body[2..4].copy_from_slice(&[option, (len as u8).saturating_sub(4) & 7]);
            }
            ip.extensions.push((kind, body));
        }
        let data = self.data();
        let mut packet = match self.rng.below(3) {
            0 => ip.tcp((src.port(), dst.port()), tcp::SYN, 1, 0, &[]),
            1 => ip.udp((src.port(), dst.port()), &data),
            _ => ip.icmp(icmp::v6::ECHO, 0, 1, &data),
        };
        if packet.len() > 40 && self.rng.one_in(3) {
            let at = 40 + self.rng.below((packet.len() - 40).min(64));
            packet[at] = self.rng.byte();
        }
        self.frame(&packet)
    }

    fn v6_ends(&mut self) -> (SocketAddr, SocketAddr) {
        for _ in 0..32 {
            let (src, dst) = self.ends();
            if src.is_ipv6() {
                return (src, dst);
            }
        }
        let any = SocketAddr::new(v4_or_v6(false), 1);
        (any, any)
    }

    /// IPv4 with options of any kind, in a header whose checksum is right.
    fn option_soup(&mut self) -> Vec<u8> {
        let (src, dst) = self.ends();
        let mut ip = self.ip(src.ip(), dst.ip());
        let words = self.rng.below(11);
        while ip.options.len() < words * 4 {
            let kind = self.rng.pick(&[0, 1, 7, 68, 130, 131, 137, 148, 255]);
            ip.options.push(kind);
            if kind > 1 {
                let len = self.rng.byte();
                let value = self.rng.byte() & 15;
                ip.options.extend([len & 15, value, 0, 0, 0]);
            }
        }
        ip.options.truncate(words * 4);
        let packet = ip.udp((src.port(), dst.port()), b"options");
        self.frame(&packet)
    }

    /// Frames other than plain IP: tags, ARP, neighbour discovery, LLC, anything.
    fn other_type(&mut self) -> Vec<u8> {
        let (here, there) = (self.world.here, self.world.there);
        let (src, dst) = self.ends();
        let mut frame = match self.rng.below(5) {
            0 => {
                let mut frame = self.well_formed();
                for _ in 0..=self.rng.below(3) {
                    let tag = self.rng.short().to_be_bytes();
                    let kind = self.rng.pick(&[0x81, 0x88]);
                    frame.splice(
                        12..12,
                        [kind, if kind == 0x81 { 0 } else { 0xa8 }, tag[0], tag[1]],
                    );
                }
                frame
            }
            1 => {
                let four = |ip: IpAddr| match ip {
                    IpAddr::V4(ip) => ip.octets(),
                    IpAddr::V6(_) => [198, 18, 0, 1],
                };
                let operation = 1 + self.rng.below(3) as u16;
                let message = arp::build(operation, there, four(src.ip()), here, four(dst.ip()));
                build::ethernet_of(here, there, 0x0806, &message)
            }
            2 => {
                let (src, dst) = self.v6_ends();
                let (IpAddr::V6(from), IpAddr::V6(target)) = (src.ip(), dst.ip()) else {
                    return self.noise();
                };
                let message = if self.rng.one_in(2) {
                    nd::build_solicit(target.octets(), there)
                } else {
                    nd::build_advert(from.octets(), there, self.rng.byte())
                };
                let group = IpAddr::from(nd::solicited_node(target.octets()));
                let mut ip = Ip::new(src.ip(), if self.rng.one_in(2) { group } else { dst.ip() });
                ip.ttl = if self.rng.one_in(8) { 64 } else { 255 };
                let rest = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
                let mut body = message[8..].to_vec();
                if self.rng.one_in(4) {
                    let at = self.rng.below(body.len());
                    body[at] = self.rng.byte();
                }
                let packet = ip.icmp(message[0], 0, rest, &body);
                self.frame(&packet)
            }
            3 => {
                let len = self.rng.below(100);
                let data = self.rng.fill(len);
                build::ethernet_of(here, there, self.rng.short(), &data)
            }
            _ => {
                // An IP packet under the other version's type.
                let frame = self.well_formed();
                let kind = if frame[12] == 8 { 0x86dd } else { 0x0800 };
                build::ethernet_of(here, there, kind, &frame[14..])
            }
        };
        if self.rng.one_in(4) {
            mutate(&mut self.rng, &mut frame);
        }
        frame
    }

    /// Random bytes, at times behind a sensible Ethernet header.
    fn noise(&mut self) -> Vec<u8> {
        let bound = if self.rng.one_in(10) { 1600 } else { 120 };
        let len = self.rng.below(bound);
        let bytes = self.rng.fill(len);
        match self.rng.below(3) {
            0 => bytes,
            1 => build::ethernet_of(self.world.here, self.world.there, 0x0800, &bytes),
            _ => build::ethernet_of(self.world.here, self.world.there, 0x86dd, &bytes),
        }
    }
}

impl Iterator for Fuzz {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        Some(self.next_frame())
    }
}

/// An address of the family.
pub(super) fn v4_or_v6(v4: bool) -> IpAddr {
    if v4 {
        IpAddr::from([198, 18, 0, 1])
    } else {
        IpAddr::from([0x2001, 0xdb8, 0x18, 0, 0, 0, 0, 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eth;
    use crate::parse::{flags, parse, ParseError};
    use std::collections::{HashMap, HashSet};

    #[test]
    fn the_same_seed_gives_the_same_frames() {
        let frames = |seed| {
            Fuzz::new(seed, World::small())
                .take(500)
                .collect::<Vec<_>>()
        };
        assert_eq!(frames(1), frames(1));
        assert_ne!(frames(1), frames(2));
    }

    #[test]
    fn well_formed_frames_are_read_and_have_right_checksums() {
        let mut fuzz = Fuzz::new(3, World::small());
        let mut right = 0;
        for _ in 0..5000 {
            let frame = fuzz.well_formed();
            let l2 = eth::parse(&frame).unwrap();
            let packet = &frame[14..];
            match parse(l2.ethertype, packet, packet.len()) {
                Ok(_) => {}
                Err(ParseError::Address) => continue,
                Err(error) => panic!("{error:?}: {frame:x?}"),
            }
            match build::transport_checksum_is_right(packet) {
                Some(true) => right += 1,
                Some(false) => panic!("wrong checksum: {frame:x?}"),
                None => {}
            }
        }
        assert!(right > 4000, "{right} of 5000 have a checksum");
    }

    #[test]
    fn every_kind_of_trouble_comes_up() {
        let mut errors: HashMap<&str, usize> = HashMap::new();
        let mut seen = 0u8;
        let mut protocols = HashSet::new();
        let mut lengths = HashSet::new();
        for frame in Fuzz::new(4, World::small()).take(100_000) {
            lengths.insert(frame.len());
            let Some(l2) = eth::parse(&frame) else {
                continue;
            };
            let packet = &frame[usize::from(l2.l3_offset)..];
            match parse(l2.ethertype, packet, packet.len()) {
                Ok(info) => {
                    seen |= info.flags;
                    protocols.insert((info.family, info.protocol));
                }
                Err(error) => *errors.entry(error.name()).or_default() += 1,
            }
        }
        // Frames in one segment cannot be short of bytes that are there.
        assert_eq!(errors.len(), 10, "{errors:?}");
        let all = flags::FRAGMENT | flags::MORE_FRAGMENTS | flags::DONT_FRAGMENT | flags::OPTIONS;
        assert_eq!(seen, all | flags::ATOMIC_FRAGMENT | flags::BROKEN_CHAIN);
        assert!(protocols.len() > 100, "{}", protocols.len());
        assert!((0..100).all(|len| lengths.contains(&len)));
    }
}
