//! Records of the daemon's state: itself, workers, verdicts, settings, connections, and waiting.

use std::borrow::Cow;
use std::net::IpAddr;

use super::field::record;
use super::service_name::ServiceName;
use super::value::Bytes;
use crate::ipvs::Stats;

record! {
    /// How the daemon is.
    pub struct Status {
        /// The program's version.
        1 version: String,
        /// Process id.
        2 pid: u32,
        /// Milliseconds since it started.
        3 uptime_ms: u64,
        /// Number of workers.
        4 workers: u16,
        /// Services.
        5 services: u64,
        /// Dests of all services.
        6 dests: u64,
        /// Connections, templates included.
        7 conns: u64,
        /// Most connections it takes.
        8 conn_limit: u64,
        /// Version of DPDK, where it is in use.
        9 dpdk: Option<String>,
    }
}

record! {
    /// A worker.
    pub struct Worker {
        /// Its number, from 0.
        1 id: u16,
        /// The core it is pinned to.
        2 core: Option<u16>,
        /// Connections it owns.
        3 conns: u64,
        /// Packets it fetched from devices.
        4 received: u64,
        /// Packets it gave to devices.
        5 sent: u64,
        /// Packets it handed to other workers.
        6 handed_over: u64,
        /// Packets that it could not hand over, as the ring was full.
        7 ring_full: u64,
        /// Bursts in which there was something to do.
        8 busy_bursts: u64,
        /// Bursts in which there was nothing to do.
        9 idle_bursts: u64,
    }
}

record! {
    /// A counter that has a name.
    pub struct Count {
        /// What it counts.
        1 name: String,
        /// How many.
        2 count: u64,
    }
}

record! {
    /// What went through all services, of a worker or altogether.
    pub struct Traffic {
        /// The worker; none for the sum, which is as of the last time it was made, and alone has rates.
        1 worker: Option<u16>,
        /// Connections scheduled.
        2 conns: u64,
        /// Packets from clients.
        3 inpkts: u64,
        /// Packets to clients.
        4 outpkts: u64,
        /// Bytes from clients.
        5 inbytes: u64,
        /// Bytes to clients.
        6 outbytes: u64,
        /// Connections a second.
        7 cps: u64,
        /// Packets from clients a second.
        8 inpps: u64,
        /// Packets to clients a second.
        9 outpps: u64,
        /// Bytes from clients a second.
        10 inbps: u64,
        /// Bytes to clients a second.
        11 outbps: u64,
    }
}

impl Traffic {
    /// These figures, of a worker or altogether.
    pub fn new(worker: Option<u16>, stats: &Stats) -> Traffic {
        Traffic {
            worker,
            conns: stats.conns,
            inpkts: stats.inpkts,
            outpkts: stats.outpkts,
            inbytes: stats.inbytes,
            outbytes: stats.outbytes,
            cps: stats.cps,
            inpps: stats.inpps,
            outpps: stats.outpps,
            inbps: stats.inbps,
            outbps: stats.outbps,
        }
    }
}

record! {
    /// What became of packets. Received and generated together are the same as all the others together.
    pub struct Verdicts {
        /// Packets received from devices.
        1 received: u64,
        /// Packets that the balancer made: ICMP errors, fragments, neighbour requests.
        2 generated: u64,
        /// Sent on, or sent out if generated.
        3 forwarded: u64,
        /// Given to the host.
        4 host: u64,
        /// Taken and answered: ARP, neighbour discovery, echo.
        5 answered: u64,
        /// Dropped, by reason.
        6 dropped: Vec<Count>,
        /// Held at this moment, by place: rings, neighbour queues, reassembly.
        7 held: Vec<Count>,
    }
}

record! {
    /// The name of a setting.
    pub struct SysctlName {
        /// As in `net.ipv4.vs.sloppy_tcp`.
        1 name: String,
    }
}

record! {
    /// A setting.
    pub struct Sysctl {
        /// As in `net.ipv4.vs.sloppy_tcp`.
        1 name: String,
        /// Its value, as text.
        2 value: String,
    }
}

record! {
    /// Which connections are asked for.
    pub struct ConnsFrom {
        /// 0, or what [`ConnsEnd::next`] said.
        1 cursor: u64,
        /// About how many connections at most; the server may give fewer or a few more.
        2 limit: u32,
    }
}

record! {
    /// The end of a part of the connections.
    pub struct ConnsEnd {
        /// Where the next part begins; none where this was the last one.
        1 next: Option<u64>,
    }
}

record! {
    /// A connection, or a persistence template.
    pub struct Conn {
        /// IP protocol number; 0 for a template of all protocols.
        1 protocol: u8,
        /// The client's address.
        2 caddr: IpAddr,
        /// The client's port; 0 in templates.
        3 cport: u16,
        /// The virtual address. In templates of a mark, the mark as an address.
        4 vaddr: IpAddr,
        /// The virtual port.
        5 vport: u16,
        /// The dest's address.
        6 daddr: IpAddr,
        /// The dest's port.
        7 dport: u16,
        /// The state's name, as IPVS lists it.
        8 state: Cow<'static, str>,
        /// Milliseconds until its time is up.
        9 expires_ms: u64,
        /// Flags of `linux/ip_vs.h` (`IP_VS_CONN_F_*`).
        10 flags: u32,
        /// The persistence engine, where it has one.
        11 pe_name: Option<String>,
        /// What the engine knows it by.
        12 pe_data: Option<Bytes>,
        /// The worker that owns it.
        13 worker: u16,
    }
}

record! {
    /// An interface and how much it is to have received.
    pub struct SettlePort {
        /// The interface's name.
        1 name: String,
        /// Frames received since the start, at least.
        2 received: u64,
    }
}

record! {
    /// Wait until each of these interfaces has received so much, and all that came in has its verdict or waits for a
    /// neighbour or in reassembly, and what goes out has been given to devices.
    pub struct Settle {
        /// What is waited for; with none, only for verdicts.
        1 ports: Vec<SettlePort>,
        /// Milliseconds to wait at most.
        2 timeout_ms: u32,
    }
}

record! {
    /// An interface, and what came and went.
    pub struct SettledPort {
        /// The interface's name.
        1 name: String,
        /// Frames received since the start.
        2 received: u64,
        /// Frames sent since the start.
        3 sent: u64,
    }
}

record! {
    /// How the waiting ended.
    pub struct Settled {
        /// Whether all came that was waited for; false where the time was up first.
        1 complete: bool,
        /// All interfaces that are DPDK devices.
        2 ports: Vec<SettledPort>,
    }
}

record! {
    /// By how much a held clock is to be moved.
    pub struct Advance {
        /// Milliseconds.
        1 by_ms: u64,
    }
}

record! {
    /// Whether a service is scheduled at one worker, in the order of one kernel.
    pub struct ServiceExact {
        /// The service; it need not be there.
        1 service: ServiceName,
        /// Whether it is; none: as all others.
        2 exact: Option<bool>,
    }
}
