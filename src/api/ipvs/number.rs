//! Numbers of the family, from `linux/ip_vs.h`.

/// Commands.
#[allow(missing_docs)]
pub mod cmd {
    pub const NEW_SERVICE: u8 = 1;
    pub const SET_SERVICE: u8 = 2;
    pub const DEL_SERVICE: u8 = 3;
    pub const GET_SERVICE: u8 = 4;
    pub const NEW_DEST: u8 = 5;
    pub const SET_DEST: u8 = 6;
    pub const DEL_DEST: u8 = 7;
    pub const GET_DEST: u8 = 8;
    pub const NEW_DAEMON: u8 = 9;
    pub const DEL_DAEMON: u8 = 10;
    pub const GET_DAEMON: u8 = 11;
    pub const SET_CONFIG: u8 = 12;
    pub const GET_CONFIG: u8 = 13;
    pub const SET_INFO: u8 = 14;
    pub const GET_INFO: u8 = 15;
    pub const ZERO: u8 = 16;
    pub const FLUSH: u8 = 17;
}

/// Attributes of commands.
#[allow(missing_docs)]
pub mod attr {
    pub const SERVICE: u16 = 1;
    pub const DEST: u16 = 2;
    pub const DAEMON: u16 = 3;
    pub const TIMEOUT_TCP: u16 = 4;
    pub const TIMEOUT_TCP_FIN: u16 = 5;
    pub const TIMEOUT_UDP: u16 = 6;
}

/// Attributes of a service.
#[allow(missing_docs)]
pub mod svc {
    pub const AF: u16 = 1;
    pub const PROTOCOL: u16 = 2;
    pub const ADDR: u16 = 3;
    pub const PORT: u16 = 4;
    pub const FWMARK: u16 = 5;
    pub const SCHED_NAME: u16 = 6;
    pub const FLAGS: u16 = 7;
    pub const TIMEOUT: u16 = 8;
    pub const NETMASK: u16 = 9;
    pub const STATS: u16 = 10;
    pub const PE_NAME: u16 = 11;
    pub const STATS64: u16 = 12;
}

/// Attributes of a dest.
#[allow(missing_docs)]
pub mod dest {
    pub const ADDR: u16 = 1;
    pub const PORT: u16 = 2;
    pub const FWD_METHOD: u16 = 3;
    pub const WEIGHT: u16 = 4;
    pub const U_THRESH: u16 = 5;
    pub const L_THRESH: u16 = 6;
    pub const ACTIVE_CONNS: u16 = 7;
    pub const INACT_CONNS: u16 = 8;
    pub const PERSIST_CONNS: u16 = 9;
    pub const STATS: u16 = 10;
    pub const ADDR_FAMILY: u16 = 11;
    pub const STATS64: u16 = 12;
    pub const TUN_TYPE: u16 = 13;
    pub const TUN_PORT: u16 = 14;
    pub const TUN_FLAGS: u16 = 15;
}

/// Attributes of a synchronisation daemon.
#[allow(missing_docs)]
pub mod daemon {
    pub const STATE: u16 = 1;
    pub const MCAST_IFN: u16 = 2;
    pub const SYNC_ID: u16 = 3;
    pub const SYNC_MAXLEN: u16 = 4;
    pub const MCAST_GROUP: u16 = 5;
    pub const MCAST_GROUP6: u16 = 6;
    pub const MCAST_PORT: u16 = 7;
    pub const MCAST_TTL: u16 = 8;
}

/// Attributes of the information reply.
#[allow(missing_docs)]
pub mod info {
    pub const VERSION: u16 = 1;
    pub const CONN_TAB_SIZE: u16 = 2;
}

/// Values of a dest's forwarding method.
pub mod forward {
    /// The bits of a connection's flags that are the method.
    pub const MASK: u32 = 0x7;
    /// NAT.
    pub const MASQ: u32 = 0;
    /// Delivery on the balancer itself.
    pub const LOCAL: u32 = 1;
    /// Tunnel.
    pub const TUNNEL: u32 = 2;
    /// Direct routing.
    pub const ROUTE: u32 = 3;
    /// Sent on to where it was going.
    pub const BYPASS: u32 = 4;
}

/// Bits of a service's flags.
pub mod flag {
    /// Persistent.
    pub const PERSISTENT: u32 = 0x1;
    /// Known to the kernel's tables; shown there, of no meaning to operators.
    pub const HASHED: u32 = 0x2;
    /// One-packet scheduling.
    pub const ONE_PACKET: u32 = 0x4;
    /// First flag of the scheduler.
    pub const SCHED1: u32 = 0x8;
    /// Second flag of the scheduler.
    pub const SCHED2: u32 = 0x10;
    /// Third flag of the scheduler.
    pub const SCHED3: u32 = 0x20;
}

/// Values of a dest's tunnel type.
pub mod tunnel {
    /// IP in IP.
    pub const IPIP: u8 = 0;
    /// Generic UDP encapsulation.
    pub const GUE: u8 = 1;
    /// Generic routing encapsulation.
    pub const GRE: u8 = 2;
    /// Flags: no checksum.
    pub const NOCSUM: u16 = 0;
    /// Flags: checksum.
    pub const CSUM: u16 = 1;
    /// Flags: remote checksum offload.
    pub const REMCSUM: u16 = 2;
}

/// Values of a synchronisation daemon's state.
pub mod sync_state {
    /// Sends.
    pub const MASTER: u32 = 1;
    /// Receives.
    pub const BACKUP: u32 = 2;
}

/// Longest name of a scheduler, its ending zero not counted.
pub const SCHED_NAME_MAX: usize = 15;
/// Longest name of a persistence engine, its ending zero not counted.
pub const PE_NAME_MAX: usize = 16;
/// Longest name of an interface, its ending zero not counted.
pub const IFNAME_MAX: usize = 15;
