//! Safe DPDK: EAL, devices, ports, queues, mempools and mbufs. Everything above it forbids `unsafe`.
//!
//! The order of use: [`Eal::init`], [`Device::attach`] for each device, [`Device::plan`] to learn what it holds,
//! [`Mempool::new`], [`Device::start`], which gives a [`Port`] for the control thread and one [`RxQueue`] or [`TxQueue`]
//! for each queue, to be moved to the workers; each worker calls [`Eal::register_thread`] first.
//!
//! ```no_run
//! use ripvs_nic::{Device, Eal, Mempool, PortConfig, DATA_ROOM};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let eal = Eal::init(&["--no-huge", "-m", "256", "--no-pci"])?;
//! let device = Device::attach(&eal, "net_tap0,iface=lb0")?;
//! let config = PortConfig { rx_queues: 2, tx_queues: 2, promiscuous: true, ..PortConfig::default() };
//! let plan = device.plan(&config, DATA_ROOM)?;
//! let pool = Mempool::new(&eal, "frames", plan.mbufs + 8191, 256, DATA_ROOM, None)?;
//! let started = device.start(&config, &pool)?;
//! for (mut rx, mut tx) in started.rx.into_iter().zip(started.tx) {
//!     std::thread::spawn(move || {
//!         let _registered = Eal::register_thread()?;
//!         let mut frames = Vec::with_capacity(64);
//!         loop {
//!             rx.burst(&mut frames);
//!             tx.burst(&mut frames);
//!         }
//!         # #[allow(unreachable_code)]
//!         Ok::<(), ripvs_nic::EalError>(())
//!     });
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What makes it sound is said at the head of each module. Tried with net_tap, net_af_packet, net_af_xdp, net_memif,
//! net_pcap, net_null, net_ring and net_bonding; physical NICs use the same calls and are untried (`docs/nic.md`).

mod absent;
pub mod devargs;
mod device;
mod eal;
mod error;
mod handle;
mod interrupts;
mod logs;
mod mbuf;
mod mempool;
mod plan;
mod port;
mod queue;
mod quiet;
mod quirks;
mod rss;
mod segment;
mod thread;

pub use devargs::BondMode;
pub use device::{Device, Started};
pub use eal::{Eal, ShutdownError};
pub use error::{EalError, Errno, PoolError, PortError};
pub use mbuf::Mbuf;
pub use mempool::{Mempool, DATA_ROOM, HEADROOM};
pub use plan::{data_room_for, Limits, PortConfig, PortPlan};
pub use port::{Link, Mac, Port, PortStats};
pub use queue::{free_burst, RxQueue, TxCounters, TxQueue};
pub use rss::{Rss, RssEnd};
pub use thread::ThreadGuard;
