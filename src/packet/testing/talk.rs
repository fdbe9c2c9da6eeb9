//! What clients, services and servers say to one another, and ICMP errors about it: packets that are well-formed, whether
//! or not anybody has use for them.

use std::net::{IpAddr, SocketAddr};

use super::build::{self, Ip};
use super::fuzz::{v4_or_v6, Fuzz};
use super::mutate::change_byte;
use super::rng::Rng;
use crate::{icmp, ipv4, sctp, tcp};

impl Fuzz {
    /// One of these of the family of `like`; `like` where there is none.
    pub(super) fn of_family(&mut self, from: &[IpAddr], like: IpAddr) -> IpAddr {
        let of_family: Vec<IpAddr> = from
            .iter()
            .copied()
            .filter(|ip| ip.is_ipv4() == like.is_ipv4())
            .collect();
        if of_family.is_empty() {
            return like;
        }
        self.rng.pick(&of_family)
    }

    /// Two ends of a conversation: mostly client to service or server to client.
    pub(super) fn ends(&mut self) -> (SocketAddr, SocketAddr) {
        let client_ip = self.rng.pick(&self.world.clients);
        let client = SocketAddr::new(client_ip, 1024 + self.rng.below(300) as u16);
        let family = |from: &[SocketAddr]| -> Vec<SocketAddr> {
            from.iter()
                .copied()
                .filter(|end| end.is_ipv4() == client_ip.is_ipv4())
                .collect()
        };
        let (services, servers) = (family(&self.world.services), family(&self.world.servers));
        let other = {
            let others = self.world.others.clone();
            let ip = self.of_family(&others, client_ip);
            SocketAddr::new(ip, self.rng.short())
        };
        let one_of = |rng: &mut Rng, from: &[SocketAddr]| {
            if from.is_empty() {
                other
            } else {
                rng.pick(from)
            }
        };
        match self.rng.below(10) {
            0..=4 => (client, one_of(&mut self.rng, &services)),
            5..=7 => (one_of(&mut self.rng, &servers), client),
            8 => (client, other),
            _ => (other, one_of(&mut self.rng, &services)),
        }
    }

    pub(super) fn ip(&mut self, src: IpAddr, dst: IpAddr) -> Ip {
        let rng = &mut self.rng;
        let mut ip = Ip::new(src, dst);
        if rng.one_in(8) {
            ip.ttl = rng.byte();
            ip.tos = rng.byte();
        }
        ip.id = rng.bits() as u16;
        if rng.one_in(3) {
            ip.fragment = ipv4::DF;
        }
        ip
    }

    /// Data, at times of the kinds that helpers read.
    pub(super) fn data(&mut self) -> Vec<u8> {
        const TEXTS: [&str; 10] = [
            "PASV\r\n",
            "EPSV\r\n",
            "PORT 198,18,0,1,4,1\r\n",
            "EPRT |1|198.18.0.1|1025|\r\n",
            "227 Entering Passive Mode (10,0,0,11,31,144).\r\n",
            "229 Entering Extended Passive Mode (|||8080|)\r\n",
            "227 (999,1,,1,1,99999999999999999999)\r\n",
            "INVITE sip:a@b SIP/2.0\r\nCall-ID: 1234@example\r\n\r\n",
            "OPTIONS sip:a SIP/2.0\r\ni:\r\n",
            "REGISTER sip:a SIP/2.0\r\nCALL-id  :   x",
        ];
        let rng = &mut self.rng;
        match rng.below(6) {
            0 => rng.pick(&TEXTS).into(),
            1 => {
                let mut text: Vec<u8> = rng.pick(&TEXTS).into();
                let at = rng.below(text.len());
                text[at] = rng.byte();
                text.truncate(rng.below(text.len() + 1));
                text
            }
            2 => {
                let len = rng.below(1460);
                rng.fill(len)
            }
            _ => {
                let len = rng.below(32);
                rng.fill(len)
            }
        }
    }

    pub(super) fn conversation(&mut self) -> Vec<u8> {
        let (src, dst) = self.ends();
        let ip = self.ip(src.ip(), dst.ip());
        let ports = (src.port(), dst.port());
        match self.rng.below(16) {
            0..=6 => {
                const FLAGS: [u8; 8] = [
                    tcp::SYN,
                    tcp::SYN | tcp::ACK,
                    tcp::ACK,
                    tcp::ACK | tcp::PSH,
                    tcp::FIN | tcp::ACK,
                    tcp::RST,
                    0,
                    0xff,
                ];
                let (flags, seq, ack) = (
                    self.rng.pick(&FLAGS),
                    self.rng.bits() as u32,
                    self.rng.bits() as u32,
                );
                let data = if flags & tcp::SYN != 0 {
                    Vec::new()
                } else {
                    self.data()
                };
                ip.tcp(ports, flags, seq, ack, &data)
            }
            7..=11 => {
                let data = self.data();
                let mut packet = ip.udp(ports, &data);
                if ip.src.is_ipv4() && self.rng.one_in(4) {
                    packet[ipv4::HEADER_LEN + 6..][..2].fill(0);
                }
                packet
            }
            12 | 13 => {
                const KINDS: [u8; 9] = [
                    sctp::chunk::INIT,
                    sctp::chunk::INIT_ACK,
                    sctp::chunk::COOKIE_ECHO,
                    sctp::chunk::COOKIE_ACK,
                    sctp::chunk::DATA,
                    sctp::chunk::SHUTDOWN,
                    sctp::chunk::SHUTDOWN_COMPLETE,
                    sctp::chunk::ABORT,
                    200,
                ];
                let len = self.rng.below(40);
                let value = self.rng.fill(len);
                let chunks: Vec<(u8, &[u8])> = (0..=self.rng.below(3))
                    .map(|_| (self.rng.pick(&KINDS), value.as_slice()))
                    .collect();
                ip.sctp(ports, self.rng.bits() as u32, &chunks)
            }
            14 => {
                let kind = if ip.src.is_ipv4() {
                    icmp::v4::ECHO
                } else {
                    icmp::v6::ECHO
                };
                let data = self.data();
                ip.icmp(kind, 0, self.rng.bits() as u32, &data)
            }
            _ => {
                // Any other protocol: tunnels, ESP and AH among them.
                let protocol = self.rng.pick(&[4, 41, 47, 50, 51, 89, 255]);
                let payload = if self.rng.one_in(2) {
                    self.inner()
                } else {
                    self.data()
                };
                ip.packet(protocol, &payload)
            }
        }
    }

    /// A packet such as another one might carry or quote.
    pub(super) fn inner(&mut self) -> Vec<u8> {
        let (src, dst) = self.ends();
        let data = self.data();
        match self.rng.below(3) {
            0 => build::tcp(src, dst, tcp::ACK, &data),
            1 => build::udp(src, dst, &data),
            _ => self.conversation(),
        }
    }

    /// An ICMP error about a packet that somebody might have sent: from the server or the service to the client, mostly.
    pub(super) fn icmp_error(&mut self) -> Vec<u8> {
        let mut quoted = self.inner();
        let v4 = quoted.first().is_some_and(|first| first >> 4 == 4);
        if self.rng.one_in(3) {
            // Errors of errors, and of tunnels.
            let (src, dst) = self.ends();
            if src.is_ipv4() == v4 {
                quoted = Ip::new(src.ip(), dst.ip()).packet(if v4 { 4 } else { 41 }, &quoted);
            }
        }
        if self.rng.one_in(3) {
            change_byte(&mut self.rng, &mut quoted);
        }
        let keep = self.rng.pick(&[8, 20, 27, 28, 40, 47, 48, 128, 548, 1232]);
        quoted.truncate(keep);
        let source = match (v4, quoted.len()) {
            (true, 20..) => Some(IpAddr::from([
                quoted[12], quoted[13], quoted[14], quoted[15],
            ])),
            (false, 40..) => quoted[8..24]
                .first_chunk::<16>()
                .map(|src| IpAddr::from(*src)),
            _ => None,
        };
        let (from, to) = self.ends();
        let from = if from.is_ipv4() == v4 {
            from.ip()
        } else {
            self.of_family(&self.world.others.clone(), v4_or_v6(v4))
        };
        let to = match source {
            Some(source) => source,
            None if to.is_ipv4() == v4 => to.ip(),
            None => self.of_family(&self.world.clients.clone(), v4_or_v6(v4)),
        };
        let kind = if v4 {
            self.rng.pick(&[
                icmp::v4::DEST_UNREACH,
                icmp::v4::TIME_EXCEEDED,
                icmp::v4::SOURCE_QUENCH,
                icmp::v4::REDIRECT,
                icmp::v4::PARAM_PROBLEM,
                99,
            ])
        } else {
            self.rng.pick(&[
                icmp::v6::DEST_UNREACH,
                icmp::v6::PACKET_TOO_BIG,
                icmp::v6::TIME_EXCEEDED,
                icmp::v6::PARAM_PROBLEM,
                100,
            ])
        };
        let (code, rest) = (self.rng.below(6) as u8, u32::from(self.rng.short()));
        self.ip(from, to).icmp(kind, code, rest, &quoted)
    }
}
