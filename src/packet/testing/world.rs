//! Who takes part in the packets of [`super::Fuzz`].

use std::net::{IpAddr, SocketAddr};

use crate::eth::Mac;

/// Who takes part. Every list must have a member of each family that is to occur, and pairs are drawn within a family.
#[derive(Clone, Debug)]
pub struct World {
    /// The MAC address that frames are sent to.
    pub here: Mac,
    /// The MAC address that frames come from.
    pub there: Mac,
    /// Client addresses; their ports are drawn from a few hundred.
    pub clients: Vec<IpAddr>,
    /// Virtual services.
    pub services: Vec<SocketAddr>,
    /// Real servers.
    pub servers: Vec<SocketAddr>,
    /// Other addresses: the balancer's own, unknown ones, groups.
    pub others: Vec<IpAddr>,
}

impl World {
    /// A small world: documentation addresses, three services and three servers of each family.
    pub fn small() -> World {
        let v6 = |net: u16, host: u16| IpAddr::from([0x2001, 0xdb8, net, 0, 0, 0, 0, host]);
        let v4 = |net: [u8; 3], host: u8| IpAddr::from([net[0], net[1], net[2], host]);
        World {
            here: [2, 0, 0, 0, 0, 1],
            there: [2, 0, 0, 0, 1, 1],
            clients: (1..=20)
                .flat_map(|host| [v4([198, 18, 0], host), v6(0x18, u16::from(host))])
                .collect(),
            services: [21, 53, 80]
                .into_iter()
                .flat_map(|port| {
                    [v4([192, 0, 2], 100), v6(2, 0x100)].map(|ip| SocketAddr::new(ip, port))
                })
                .collect(),
            servers: [11, 12, 13]
                .into_iter()
                .flat_map(|host| {
                    [v4([10, 0, 0], host), v6(0x10, u16::from(host))]
                        .map(|ip| SocketAddr::new(ip, 8080))
                })
                .collect(),
            others: vec![
                v4([198, 18, 0], 254),
                v4([203, 0, 113], 9),
                v4([224, 0, 0], 1),
                v4([127, 0, 0], 1),
                v4([255, 255, 255], 255),
                v4([0, 0, 0], 0),
                v6(0x18, 0xfe),
                v6(0x99, 9),
                IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 1]),
                IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
                IpAddr::from([0u16; 8]),
                IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1]),
            ],
        }
    }
}
