//! The packets that are measured with: smallest frames of each kind, one for each flow. The same surroundings for the
//! whole balancer and for a worker alone: one port, clients behind a router, real servers on the link.

use std::io::{BufWriter, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ripvs_packet::checksum::{pseudo_v4, pseudo_v6, Sum};

/// The MAC address of the first net_pcap port.
pub const PORT_MAC: [u8; 6] = [2, 0x70, 0x63, 0x61, 0x70, 0];
/// The MAC address of the router that clients are behind.
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
/// The virtual port of the first service.
pub const VPORT: u16 = 80;
/// The port of the real servers.
pub const DPORT: u16 = 8080;

/// What the packets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proto {
    /// UDP datagrams.
    Udp,
    /// TCP segments with ACK alone.
    Tcp,
    /// TCP segments with SYN alone.
    Syn,
}

/// What a file of packets is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// IPv6 instead of IPv4.
    pub v6: bool,
    /// What they are.
    pub proto: Proto,
    /// How many flows.
    pub flows: u32,
    /// How many virtual services they are spread over.
    pub services: u32,
    /// Whether the services differ by port; by address otherwise.
    pub by_port: bool,
}

/// The address of virtual service `n`.
pub fn vip(v6: bool, n: u32) -> IpAddr {
    match (v6, n) {
        (false, 0) => Ipv4Addr::new(192, 0, 2, 1).into(),
        (false, n) => Ipv4Addr::from(0xac10_0000 + n).into(),
        (true, n) => Ipv6Addr::from((0x2001_0db8_0002_u128 << 80) + u128::from(n) + 1).into(),
    }
}

/// The address of the router that clients are behind.
pub fn router(v6: bool) -> IpAddr {
    match v6 {
        false => Ipv4Addr::new(198, 18, 0, 1).into(),
        true => Ipv6Addr::new(0x2001, 0xdb8, 0x18, 0, 0, 0, 0, 1).into(),
    }
}

/// The address of real server `n`.
pub fn server(v6: bool, n: u32) -> IpAddr {
    let n = n + 0x101;
    match v6 {
        false => Ipv4Addr::from(0x0a00_0000 + n).into(),
        true => Ipv6Addr::from((0x2001_0db8_0010_u128 << 80) + u128::from(n)).into(),
    }
}

/// The MAC address of real server `n`.
pub fn server_mac(n: u32) -> [u8; 6] {
    let n = n.to_be_bytes();
    [2, 0, 0, n[1].wrapping_add(2), n[2], n[3]]
}

/// The client of a flow: address and port. No two flows have the same.
pub fn client(v6: bool, flow: u32) -> (IpAddr, u16) {
    let (host, port) = (flow / 61, 1024 + (flow % 61) * 1009);
    let host = host + 1;
    let addr: IpAddr = match v6 {
        false => Ipv4Addr::from(0x6440_0000 + host).into(),
        true => Ipv6Addr::from((0x2001_0db8_0064_u128 << 80) + u128::from(host)).into(),
    };
    (addr, port as u16)
}

impl Traffic {
    /// Length of each frame.
    pub fn frame_len(&self) -> usize {
        match (self.v6, self.proto) {
            (false, _) => 60,
            (true, Proto::Udp) => 62,
            (true, _) => 74,
        }
    }

    /// Address and port of virtual service `n`.
    pub fn service(&self, n: u32) -> (IpAddr, u16) {
        match self.by_port {
            true => (vip(self.v6, 0), VPORT + n as u16),
            false => (vip(self.v6, n), VPORT),
        }
    }

    /// The client's packet of a flow.
    pub fn request(&self, flow: u32) -> Vec<u8> {
        let to = self.service(flow % self.services);
        self.frame(client(self.v6, flow), to, flow)
    }

    /// The packet of real server `n` in answer to it, under NAT.
    pub fn reply(&self, flow: u32, n: u32) -> Vec<u8> {
        self.frame((server(self.v6, n), DPORT), client(self.v6, flow), flow)
    }

    fn frame(&self, src: (IpAddr, u16), dst: (IpAddr, u16), id: u32) -> Vec<u8> {
        let header = if self.v6 { 40 } else { 20 };
        let mut frame = vec![0; self.frame_len()];
        frame[..6].copy_from_slice(&PORT_MAC);
        frame[6..12].copy_from_slice(&ROUTER_MAC);
        frame[12..14].copy_from_slice(if self.v6 { &[0x86, 0xdd] } else { &[8, 0] });
        // The smallest frames that may be: Ethernet's padding comes after TCP's header in IPv4 only.
        let len = match (self.v6, self.proto) {
            (false, Proto::Tcp | Proto::Syn) => 40,
            _ => self.frame_len() - 14,
        };
        let ip = &mut frame[14..14 + len];
        let l4_len = len - header;
        let l4 = &mut ip[header..];
        l4[..2].copy_from_slice(&src.1.to_be_bytes());
        l4[2..4].copy_from_slice(&dst.1.to_be_bytes());
        let (protocol, sum_at) = match self.proto {
            Proto::Udp => {
                l4[4..6].copy_from_slice(&(l4_len as u16).to_be_bytes());
                (17, 6)
            }
            Proto::Tcp | Proto::Syn => {
                l4[4..8].copy_from_slice(&id.to_be_bytes());
                l4[12] = 5 << 4;
                l4[13] = if self.proto == Proto::Syn { 0x02 } else { 0x10 };
                l4[14..16].copy_from_slice(&[0xff, 0xff]);
                (6, 16)
            }
        };
        let pseudo = match (src.0, dst.0) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                pseudo_v4(src.octets(), dst.octets(), protocol, l4_len as u16)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                pseudo_v6(&src.octets(), &dst.octets(), protocol, l4_len as u32)
            }
            _ => Sum::new(),
        };
        let sum = pseudo.and(l4).udp_checksum();
        l4[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
        match (src.0, dst.0) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                ip[0] = 0x45;
                ip[2..4].copy_from_slice(&(len as u16).to_be_bytes());
                ip[4..6].copy_from_slice(&(id as u16).to_be_bytes());
                ip[6] = 0x40;
                ip[8..10].copy_from_slice(&[64, protocol]);
                ip[12..16].copy_from_slice(&src.octets());
                ip[16..20].copy_from_slice(&dst.octets());
                let sum = Sum::of(&ip[..20]).checksum();
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                ip[0] = 0x60;
                ip[4..6].copy_from_slice(&(l4_len as u16).to_be_bytes());
                ip[6..8].copy_from_slice(&[protocol, 64]);
                ip[8..24].copy_from_slice(&src.octets());
                ip[24..40].copy_from_slice(&dst.octets());
            }
            _ => {}
        }
        frame
    }
}

/// The numbers below `count` in an order that jumps about, the same every time.
pub fn shuffled(count: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (1..order.len()).rev() {
        state = state.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
        order.swap(at, ((state >> 33) as usize) % (at + 1));
    }
    order
}

/// Writes frames as a pcap file (the classic format, microseconds, Ethernet).
///
/// # Errors
/// What writing the file gives.
pub fn write_pcap(path: &Path, frames: impl Iterator<Item = Vec<u8>>) -> std::io::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    let header = [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 65535, 1];
    for word in header {
        file.write_all(&u32::to_ne_bytes(word))?;
    }
    for frame in frames {
        let len = (frame.len() as u32).to_ne_bytes();
        file.write_all(&[0; 8])?;
        file.write_all(&len)?;
        file.write_all(&len)?;
        file.write_all(&frame)?;
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_flows_have_the_same_client() {
        let clients: HashSet<_> = (0..100_000).map(|flow| client(false, flow)).collect();
        assert_eq!(clients.len(), 100_000);
    }

    #[test]
    fn frames_are_whole_and_their_checksums_right() {
        for v6 in [false, true] {
            for proto in [Proto::Udp, Proto::Tcp, Proto::Syn] {
                let traffic = Traffic {
                    v6,
                    proto,
                    flows: 10,
                    services: 1,
                    by_port: false,
                };
                for frame in [traffic.request(7), traffic.reply(7, 3)] {
                    assert!(frame.len() >= 60 && frame.len() <= 80);
                    let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
                    let info =
                        ripvs_packet::parse::parse(ethertype, &frame[14..], frame.len() - 14)
                            .unwrap();
                    let l4 = &frame[14 + usize::from(info.l4_offset)..14 + info.total_len as usize];
                    let pseudo = match v6 {
                        false => {
                            pseudo_v4(info.src4(), info.dst4(), info.protocol, l4.len() as u16)
                        }
                        true => pseudo_v6(&info.src, &info.dst, info.protocol, l4.len() as u32),
                    };
                    assert!(pseudo.and(l4).is_valid());
                }
            }
        }
    }

    #[test]
    fn shuffling_keeps_every_number() {
        let mut order = shuffled(1000);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }
}
