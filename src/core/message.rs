//! What workers say to each other, over bounded rings. A worker hands over the packets that are another's, asks the chooser
//! of a service for a dest, and reports to it what became of the connections that the chooser counts.

use std::net::IpAddr;

use arrayvec::ArrayVec;
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
    /// Whether the router had a look at each of them already.
    pub routed: bool,
}

/// Frames that one worker found to be another's in a burst of its own, by their headers alone.
pub type Frames<F> = ArrayVec<F, TOGETHER>;

/// Most frames that are handed over together.
pub(crate) const TOGETHER: usize = 32;

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
    /// The dest that begins the connection itself: a SIP server's own request.
    pub server: Option<DestId>,
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

/// A data connection that an FTP control connection announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataConn {
    /// The client's address and port; port 0 where that is not known yet.
    pub client: (IpAddr, u16),
    /// The virtual address and port.
    pub virt: (IpAddr, u16),
    /// The real server's.
    pub server: (IpAddr, u16),
    /// The dest of the control connection.
    pub dest: Option<DestId>,
    /// Its service.
    pub service: Option<ServiceId>,
    /// The control connection, which counts it already.
    pub control: ConnRef,
    /// Who counts it among the dest's connections.
    pub chooser: WorkerId,
}

impl DataConn {
    /// What it is found by.
    pub(crate) fn key<A: Family>(&self) -> Option<Key<A>> {
        Some(Key {
            proto: crate::types::proto::TCP,
            caddr: A::from_ip(self.client.0)?,
            cport: self.client.1,
            vaddr: A::from_ip(self.virt.0)?,
            vport: self.virt.1,
        })
    }
}

/// What is to be done next about a data connection that was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedStage {
    /// To look whether it is expected already.
    Find,
    /// To count it among the dest's connections.
    Charge,
    /// To make its record.
    Insert,
}

/// A data connection on its way to where it is expected, with the packet that announces it.
#[derive(Debug)]
pub struct Expected<F> {
    /// The connection.
    pub data: DataConn,
    /// Whether the client's port is not known yet (passive mode).
    pub open: bool,
    /// Where its record is to be.
    pub target: WorkerId,
    /// What is to be done next.
    pub stage: ExpectedStage,
    /// The packet that is to leave then.
    pub packet: Option<Departing<F>>,
}

impl<F> Expected<F> {
    /// Whose turn it is.
    pub(crate) fn turn(&self) -> WorkerId {
        match self.stage {
            ExpectedStage::Charge => self.data.chooser,
            ExpectedStage::Find | ExpectedStage::Insert => self.target,
        }
    }
}

/// A finished packet that has only to be sent.
#[derive(Debug)]
pub struct Departing<F> {
    /// The frame.
    pub frame: F,
    /// Where its IP header begins.
    pub l3: usize,
    /// The fragments that it was put together from, if it did not come whole.
    pub pieces: Option<Pieces>,
    /// Whether it may be cut whatever its DF says.
    pub carried: bool,
    /// Where to.
    pub to: IpAddr,
    /// Its source, where routes go by it.
    pub from: Option<IpAddr>,
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

/// A change of the connections that somebody counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The dest that is charged with them.
    pub dest: DestId,
    /// Change of its active connections.
    pub active: i32,
    /// Change of its inactive connections.
    pub inactive: i32,
    /// Whether a connection was bound to the dest, or has gone.
    pub bound: Option<bool>,
}

/// A message between workers.
#[derive(Debug)]
pub enum Msg<F> {
    /// A packet whose connection the receiver owns, or a fragment of a datagram that it gathers.
    Packet(Parcel<F>),
    /// Frames of which that was seen at first glance.
    Burst {
        /// The port they came from.
        port: PortId,
        /// The frames, one at least.
        frames: Frames<F>,
    },
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
    /// The sender keeps the templates of a service whose scheduling is the receiver's, and has none for this packet.
    Pick {
        /// What to choose by.
        ask: Ask,
        /// The packet, to go on with what was chosen.
        parcel: Parcel<F>,
        /// Who owns the connection.
        owner: WorkerId,
        /// Who asks.
        from: WorkerId,
    },
    /// The answer to `Pick`.
    Picked {
        /// What was asked.
        ask: Ask,
        /// The dest, already charged with one inactive connection by the sender.
        picked: Option<DestId>,
        /// The packet.
        parcel: Parcel<F>,
        /// Who owns the connection.
        owner: WorkerId,
        /// Who picked.
        from: WorkerId,
    },
    /// Connections that the receiver counts began, changed, came undone or ended.
    Load(Load),
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
    /// An FTP data connection was announced, and it is the receiver's turn.
    Expect(Expected<F>),
    /// The first packet of a connection that is perhaps an FTP data connection, expected at the receiver.
    Seek {
        /// The client.
        client: (IpAddr, u16),
        /// Where it was sent to.
        virt: (IpAddr, u16),
        /// The packet, to come back with the answer.
        parcel: Parcel<F>,
        /// Who asks.
        from: WorkerId,
    },
    /// The answer to `Seek`.
    Sought {
        /// The connection, the receiver's from now on.
        found: Option<DataConn>,
        /// The packet.
        parcel: Parcel<F>,
    },
    /// A router told how long packets on the way to an address of dests may be.
    PathMtu {
        /// The address.
        addr: IpAddr,
        /// The length.
        mtu: u16,
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
