//! What can go wrong with the device layer, in the operator's words: each error says the cause, and the remedy where
//! there is one. DPDK's own log goes to the `log` crate (module `logs`); the lines that matter are repeated here.

use std::fmt;

/// An errno as DPDK returned it, positive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The standard library knows the system's errnos; DPDK's own start at 1000 and are rare.
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {self})", self.0)
    }
}

/// Why EAL could not start, or a thread not be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EalError {
    /// `Eal::init` ran before in this process; DPDK allows it once.
    AlreadyInitialised,
    /// No `Eal::init` yet.
    NotInitialised,
    /// DPDK refused the arguments.
    Arguments {
        /// What it said.
        said: String,
    },
    /// Not enough huge pages, or none mounted.
    Hugepages {
        /// What `/proc/meminfo` and DPDK say.
        cause: String,
    },
    /// As much memory as asked for is not to be had.
    Memory {
        /// What DPDK said.
        said: String,
    },
    /// The process may not do what DPDK needs.
    Permission {
        /// What was refused.
        cause: String,
    },
    /// Another DPDK process holds the run-time directory.
    Busy {
        /// What DPDK said.
        said: String,
    },
    /// A device named in the arguments could not be brought up.
    Device {
        /// What DPDK said.
        said: String,
    },
    /// Anything else.
    Other {
        /// The errno it came with.
        errno: Errno,
        /// What DPDK said last.
        said: String,
    },
    /// No lcore id is left for another thread.
    TooManyThreads,
    /// This thread is registered already.
    ThreadRegistered,
}

impl fmt::Display for EalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyInitialised => write!(f, "DPDK was initialised before in this process"),
            Self::NotInitialised => write!(f, "DPDK is not initialised"),
            Self::Arguments { said } => {
                write!(f, "DPDK refused its arguments ({said}); check what follows `--` and the EAL options")
            }
            Self::Hugepages { cause } => write!(
                f,
                "no huge pages for DPDK: {cause}; reserve some (`echo 512 > \
                 /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages` and mount hugetlbfs on /dev/hugepages), or run \
                 without by the EAL options `--no-huge -m 512` (virtual devices only)"
            ),
            Self::Memory { said } => {
                write!(f, "DPDK cannot get its memory ({said}); ask for less by `-m` (MiB), or reserve more huge pages")
            }
            Self::Permission { cause } => write!(
                f,
                "DPDK lacks a permission: {cause}; run as root, or with the capabilities CAP_NET_ADMIN, CAP_NET_RAW, \
                 CAP_IPC_LOCK and CAP_SYS_ADMIN, and access to the device's VFIO group"
            ),
            Self::Busy { said } => write!(
                f,
                "another DPDK process has the same run-time directory ({said}); stop it, or give this one its own by the \
                 EAL option `--file-prefix NAME`"
            ),
            Self::Device { said } => {
                write!(f, "a device in the EAL arguments could not be brought up ({said}); check its name and options")
            }
            Self::Other { errno, said } => write!(f, "DPDK could not start: {errno} ({said})"),
            Self::TooManyThreads => write!(f, "DPDK has no lcore id left for another thread; use fewer workers"),
            Self::ThreadRegistered => write!(f, "this thread is registered with DPDK already"),
        }
    }
}

impl std::error::Error for EalError {}

/// Why a mempool could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolError {
    /// The name is empty, too long for DPDK or holds a NUL.
    Name(String),
    /// Another pool has the name.
    Exists(String),
    /// A number out of range.
    Size {
        /// Which one.
        what: &'static str,
        /// What was asked.
        given: u32,
        /// The largest that is allowed.
        limit: u32,
    },
    /// Memory ran out.
    NoMemory {
        /// The pool.
        name: String,
        /// Bytes that it needs, about.
        bytes: u64,
    },
    /// Anything else.
    Other {
        /// The pool.
        name: String,
        /// What DPDK returned.
        errno: Errno,
    },
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "mempool name {name:?} is empty, longer than 25 characters or not plain"),
            Self::Exists(name) => write!(f, "a mempool named {name} exists already"),
            Self::Size { what, given, limit } => write!(f, "mempool {what} {given} is not within 1 to {limit}"),
            Self::NoMemory { name, bytes } => write!(
                f,
                "no memory for mempool {name}, which needs {} MiB; reserve more huge pages, raise `-m` where there are \
                 none, or ask for fewer buffers",
                bytes.div_ceil(1 << 20)
            ),
            Self::Other { name, errno } => write!(f, "mempool {name}: {errno}"),
        }
    }
}

impl std::error::Error for PoolError {}

/// Why a device could not be attached, configured or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortError {
    /// No device of that name or address, or its driver refused it.
    NoDevice {
        /// As it was asked for.
        device: String,
        /// What DPDK said or returned.
        cause: String,
        /// What the operator can do.
        remedy: &'static str,
    },
    /// A handle for it exists already.
    Attached {
        /// As it was asked for.
        device: String,
    },
    /// The name holds a NUL or is empty.
    BadName {
        /// As it was asked for.
        device: String,
    },
    /// The mempool's buffers are too small for the MTU, and the driver can't spread a frame over several.
    RoomTooSmall {
        /// The port.
        device: String,
        /// Bytes of data that a buffer holds.
        room: u32,
        /// Bytes that it must hold.
        needed: u32,
    },
    /// The driver refused a step.
    Refused {
        /// The port.
        device: String,
        /// What was asked of it.
        step: &'static str,
        /// What it returned.
        errno: Errno,
        /// What it said, where it said something.
        said: String,
    },
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice { device, cause, remedy } => write!(f, "cannot use device {device}: {cause}; {remedy}"),
            Self::Attached { device } => write!(f, "device {device} is in use by this process already"),
            Self::BadName { device } => write!(f, "{device:?} is not a device name"),
            Self::RoomTooSmall { device, room, needed } => write!(
                f,
                "device {device} needs buffers of {needed} bytes and the mempool has {room}; lower the MTU or raise the \
                 buffer size"
            ),
            Self::Refused { device, step, errno, said } if said.is_empty() => {
                write!(f, "device {device} refused to {step}: {errno}")
            }
            Self::Refused { device, step, errno, said } => write!(f, "device {device} refused to {step}: {errno} ({said})"),
        }
    }
}

impl std::error::Error for PortError {}
