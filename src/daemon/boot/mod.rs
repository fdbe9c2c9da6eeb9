//! From a configuration to a daemon at work, and back: the control socket first, then DPDK and its devices, the tables with
//! what the journal restores, the workers, and the control thread until a signal ends it.

mod cores;
mod devices;
mod environment;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::mpsc::sync_channel;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use core_affinity::CoreId;
use crossbeam::queue::ArrayQueue;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use ripvs_core::frag;
use ripvs_core::net::{IcmpLimit, NetConfig};
use ripvs_core::{WorkerConfig, WorkerId};
use ripvs_nic::Eal;

use crate::board::{Boards, PortCount};
use crate::config::{Config, Owner, Scheduling};
use crate::control::fleet::Fleet;
use crate::control::master::Master;
use crate::control::network::Network;
use crate::control::settings::Settings;
use crate::control::socket::ControlSocket;
use crate::control::{Control, Parts};
use crate::worker::io::{Peer, PortOut, Ring, Sender, WorkerIo, RING};
use crate::worker::{self, Setup};
use devices::Ports;

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// Why it could not start, with what would help; or why its end was not clean.
pub fn run(config: &Config) -> Result<(), String> {
    let started = Instant::now();
    let signals = signals()?;
    let socket = ControlSocket::open(
        &config.socket,
        config.socket_mode.0,
        config.socket_group.as_deref(),
    )
    .map_err(|error| error.to_string())?;
    environment::check_rights(config)?;
    let cores = cores::for_workers(config, &cores::usable())?;
    // The drivers' signals are for the workers.
    Eal::shield_thread();
    let eal = Eal::init(&environment::eal_arguments(config)).map_err(|error| error.to_string())?;
    let ports = devices::start(&eal, config, cores.len())?;
    for note in &ports.notes {
        log::warn!("{note}");
    }
    let (mut control, threads) = assemble(config, &cores, ports, &eal, started)?;
    log::info!(
        "ripvsd {} ready after {} ms: {} workers, {} ports, socket {}",
        env!("CARGO_PKG_VERSION"),
        started.elapsed().as_millis(),
        cores.len(),
        config.ports.len(),
        config.socket.display()
    );
    let served = control.serve(&socket, &signals);
    end(control, threads, eal);
    served.map_err(|error| format!("cannot wait for events any more: {error}"))
}

/// The signals that the control thread reads; nobody else gets them.
fn signals() -> Result<SignalFd, String> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    let fail = |error: nix::errno::Errno| format!("cannot take signals: {error}");
    set.thread_block().map_err(fail)?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(fail)
}

/// Tables, workers, and the control thread over them.
fn assemble(
    config: &Config,
    cores: &[Option<CoreId>],
    ports: Ports,
    eal: &Eal,
    started: Instant,
) -> Result<(Control, Vec<JoinHandle<()>>), String> {
    let workers = cores.len();
    let port_count = ports.setups.len();
    let Ports {
        setups,
        rx,
        tx,
        pool,
        ..
    } = ports;
    let mut fleet =
        Fleet::new(workers).map_err(|error| format!("cannot make event descriptors: {error}"))?;
    let boards = Boards::new(workers, port_count);
    let master = Master::new(
        workers,
        config.scheduling == Scheduling::Exact,
        config.mh_table_bits,
    );

    let mut network = Network::default();
    network
        .configure(config, setups, &mut fleet)
        .map_err(|refusal| format!("the network cannot be set up as configured: {refusal}"))?;
    let mut settings = Settings::default();
    settings.configure(&config.sysctls, config.timeouts, &mut fleet);

    let mut ios = worker_ios(workers, port_count, tx, &pool, &fleet);
    let rings = rings(workers);
    for (worker, io) in ios.iter_mut().enumerate() {
        io.peers = peers(worker, &rings, &fleet);
    }
    let seed = RandomState::new().build_hasher().finish();
    let mut threads = Vec::new();
    for (worker, (io, rx)) in ios.into_iter().zip(rx).enumerate() {
        let setup = Setup {
            config: worker_config(config, worker, workers, seed),
            core: cores[worker],
            idle: config.idle,
            rx,
            io,
            inbound: rings[worker].iter().flatten().cloned().collect(),
            mailbox: fleet.mailbox(worker).clone(),
            board: boards.0[worker].clone(),
            total: master.total_tally(worker),
        };
        threads.push(start_worker(setup, worker)?);
    }
    let mut control = Control::new(Parts {
        fleet,
        boards,
        master,
        network,
        settings,
        conn_limit: config.connections.into(),
        cores: cores
            .iter()
            .map(|core| core.map(|core| core.id as u16))
            .collect(),
        port_count: port_count as u16,
        dpdk: Some(eal.version()),
        started,
    });
    if let Some(dir) = &config.state_dir {
        control.open_journal(dir)?;
    }
    control
        .settle_start()
        .map_err(|worker| format!("worker {worker} does not take its first orders"))?;
    Ok((control, threads))
}

fn start_worker(setup: Setup, worker: usize) -> Result<JoinHandle<()>, String> {
    let (ready, began) = sync_channel(1);
    let fail = |error: String| format!("worker {worker} cannot start: {error}");
    let thread = worker::start(setup, ready).map_err(|error| fail(error.to_string()))?;
    match began.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(fail(error)),
        Err(_) => Err(fail("it ended before it began".into())),
    }
}

/// `rings[to][from]`: none from a worker to itself.
fn rings(workers: usize) -> Vec<Vec<Option<Ring>>> {
    let ring = |to: usize, from: usize| (to != from).then(|| Arc::new(ArrayQueue::new(RING)));
    (0..workers)
        .map(|to| (0..workers).map(|from| ring(to, from)).collect())
        .collect()
}

fn peers(from: usize, rings: &[Vec<Option<Ring>>], fleet: &Fleet) -> Vec<Option<Peer>> {
    let peer = |(to, inbound): (usize, &Vec<Option<Ring>>)| {
        Some(Peer {
            ring: inbound[from].clone()?,
            mailbox: fleet.mailbox(to).clone(),
            posted: false,
        })
    };
    rings.iter().enumerate().map(peer).collect()
}

/// Each worker's ways out; the others' rings are still missing. A transmit queue is one worker's: the worker of its number,
/// and those that have none send by way of one that has.
fn worker_ios(
    workers: usize,
    port_count: usize,
    tx: Vec<Vec<ripvs_nic::TxQueue>>,
    pool: &ripvs_nic::Mempool,
    fleet: &Fleet,
) -> Vec<WorkerIo> {
    let mut ios: Vec<WorkerIo> = (0..fleet.len())
        .map(|_| WorkerIo {
            pool: pool.clone(),
            ports: Vec::with_capacity(port_count),
            peers: Vec::new(),
            counts: vec![PortCount::default(); port_count],
            handed_over: 0,
            ring_full: 0,
        })
        .collect();
    for queues in tx {
        let count = queues.len().clamp(1, workers);
        let mut queues = queues.into_iter();
        for (worker, io) in ios.iter_mut().enumerate() {
            let own = if worker < count { queues.next() } else { None };
            let sender = match own {
                Some(queue) => Sender::Queue(queue),
                None => Sender::Via(WorkerId((worker % count) as u16)),
            };
            io.ports.push(PortOut::new(sender));
        }
    }
    ios
}

fn worker_config(config: &Config, worker: usize, workers: usize, seed: u64) -> WorkerConfig {
    let share = |of_all: u32| of_all.div_ceil(workers as u32);
    let icmp_limit = (config.icmp_ratelimit > 0).then(|| IcmpLimit {
        per_sec: share(config.icmp_ratelimit),
        ..IcmpLimit::default()
    });
    WorkerConfig {
        id: WorkerId(worker as u16),
        workers: workers as u16,
        connections: share(config.connections),
        owner_by_address: config.owner == Owner::Address,
        seed,
        net: NetConfig {
            resolver: worker == 0,
            icmp_limit,
            // Another beginning for each worker, out of the one random number.
            seed: (seed >> 32) as u32 ^ (worker as u32) << 16,
            ..NetConfig::default()
        },
        frag: frag::Settings::default(),
    }
}

/// Ends everything in the order in which it depends on each other. What goes wrong now is only told.
fn end(control: Control, threads: Vec<JoinHandle<()>>, eal: Eal) {
    let devices = control.finish();
    for thread in threads {
        if thread.join().is_err() {
            log::error!("a worker's thread ended badly");
        }
    }
    drop(devices);
    match eal.shutdown() {
        Ok(()) => log::info!("ended"),
        Err(error) => log::warn!("ended, but DPDK was not shut down: {error}"),
    }
}
