//! What workers say to each other, over bounded rings. A worker hands over the packets that are another's, asks the chooser
//! of a service for a dest, and reports to it what became of the connections that the chooser counts.

use std::net::IpAddr;

use ripvs_packet::PortId;

use crate::conn::{ConnId, Key};
use crate::family::Family;
use crate::frag::Pieces;
use crate::net::{Ingress, NetMsg};
use crate::sched::PickKey;
use crate::types::{DestId, ServiceId, Time, WorkerId};
use crate::verdict::Drop;

/// A connection record at some worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnRef {
    /// Whose table it is in.
    pub worker: WorkerId,
    /// Its place there.
    pub id: ConnId,
}

/// A frame on its way between workers.
#[derive(Debug)]
pub struct Parcel<F> {
    /// The frame, from its Ethernet header on.
    pub frame: F,
    /// How it came in.
    pub rx: Ingress,
    /// The fragments that it was put together from, if it did not come whole.
    pub pieces: Option<Pieces>,
}

/// The first packet of a connection, as the chooser of its service needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The service it is for.
    pub service: ServiceId,
    /// IP protocol number.
    pub proto: u8,
    /// The client's address.
    pub client: IpAddr,
    /// The client's port.
    pub cport: u16,
    /// The address it was sent to.
    pub vaddr: IpAddr,
    /// The port it was sent to.
    pub vport: u16,
    /// The SIP Call-ID, where the service's persistence goes by it.
    pub call_id: Option<Vec<u8>>,
    /// Whether the packet goes the other way: it is a reply, quoted in an ICMP error (`schedule_icmp`).
    pub inverse: bool,
}

impl Ask {
    /// What the connection will be found by. ESP and AH have none of their own; addresses of the other family are none.
    pub(crate) fn key<A: Family>(&self) -> Key<A> {
        Key {
            proto: self.proto,
            caddr: A::from_ip(self.client).unwrap_or_default(),
            cport: self.cport,
            vaddr: A::from_ip(self.vaddr).unwrap_or_default(),
            vport: self.vport,
        }
    }

    /// What schedulers look at: the packet in its own terms.
    pub(crate) fn pick_key(&self, now: Time) -> PickKey {
        let (client, virt) = ((self.client, self.cport), (self.vaddr, self.vport));
        let (from, to) = if self.inverse {
            (virt, client)
        } else {
            (client, virt)
        };
        PickKey {
            saddr: from.0,
            daddr: to.0,
            sport: from.1,
            dport: to.1,
            proto: self.proto,
            inverse: self.inverse,
            now,
        }
    }
}

/// What a chooser answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This dest, already charged with one inactive connection.
    Dest {
        /// The dest.
        id: DestId,
        /// The port there.
        port: u16,
        /// Who counts the connection.
        chooser: WorkerId,
        /// The persistence template that it is under.
        control: Option<ConnRef>,
    },
    /// No dest can be had: the client is told so (`ip_vs_leave`).
    Nobody,
    /// It cannot be had now for a reason of the balancer's own.
    Refused(Drop),
}

/// A message between workers.
#[derive(Debug)]
pub enum Msg<F> {
    /// A packet whose connection the receiver owns, or a fragment of a datagram that it gathers.
    Packet(Parcel<F>),
    /// The receiver is the chooser for this first packet of a connection.
    Choose {
        /// What to choose by.
        ask: Ask,
        /// The packet, to come back with the choice.
        parcel: Parcel<F>,
        /// Who asks.
        from: WorkerId,
    },
    /// The answer to `Choose`.
    Chosen {
        /// What was asked.
        ask: Ask,
        /// What was chosen.
        choice: Choice,
        /// The packet.
        parcel: Parcel<F>,
    },
    /// A connection that the receiver counts changed, came undone or ended.
    Load {
        /// The dest that is charged with it.
        dest: DestId,
        /// Change of its active connections.
        active: i32,
        /// Change of its inactive connections.
        inactive: i32,
        /// Whether a connection has gone.
        gone: bool,
    },
    /// A connection under this record of the receiver's has ended.
    Uncontrol {
        /// The record, and its family.
        control: ConnId,
        /// Whether it is an IPv6 one.
        v6: bool,
        /// Whether the connection was dropped before its time: then the record goes too, if this was the last.
        dropped: bool,
    },
    /// A connection under this template of the receiver's got established, which assures the template.
    Assure {
        /// The template.
        control: ConnId,
        /// Whether it is an IPv6 one.
        v6: bool,
    },
    /// From the network layer, to the network layer.
    Net(NetMsg),
    /// A finished frame that the receiver transmits, since the sender has no queue on that port.
    Transmit {
        /// The port.
        port: PortId,
        /// The frame.
        frame: F,
    },
}
