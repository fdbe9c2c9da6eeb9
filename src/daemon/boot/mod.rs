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
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use ripvs_core::delta::Delta;
use ripvs_core::frag;
use ripvs_core::net::{IcmpLimit, NetConfig};
use ripvs_core::{WorkerConfig, WorkerId};
use ripvs_nic::Eal;

use crate::board::{Boards, PortCount};
use crate::clock::Clock;
use crate::config::{Config, Owner, Scheduling};
use crate::control::fleet::Fleet;
use crate::control::master::{Exactness, Master};
use crate::control::network::Network;
use crate::control::reload::Source;
use crate::control::settings::Settings;
use crate::control::socket::ControlSocket;
use crate::control::{Control, Parts};
use crate::worker::io::{Peer, PortOut, Ring, Sender, WorkerIo};
use crate::worker::{self, Setup};
use devices::Ports;

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// Why it could not start, with what would help; or why its end was not clean.
pub fn run(config: &Config, source: Source) -> Result<(), String> {
    let started = Instant::now();
    let signals = signals()?;
    let socket = ControlSocket::open(
        &config.socket,
        config.socket_mode.0,
        config.socket_group.as_deref(),
    )
    .map_err(|error| error.to_string())?;
    environment::check_rights(config)?;
    let pinnable = cores::pinnable().map_err(|error| format!("no thread: {error}"))?;
    let cores = cores::for_workers(config, &cores::usable(), &pinnable)?;
    // The drivers' signals are for the workers.
    Eal::shield_thread();
    let eal = Eal::init(&environment::eal_arguments(config)).map_err(|error| error.to_string())?;
    let ports = match devices::start(&eal, config, cores.len()) {
        Ok(ports) => ports,
        Err(error) => {
            // Nothing of DPDK's is in use: what it left in its run-time directory goes.
            let _ = eal.shutdown();
            return Err(error);
        }
    };
    for note in &ports.notes {
        log::warn!("{note}");
    }
    if let Some(warning) = crate::config::without_ports(config) {
        log::warn!("{warning}");
    }
    let (mut control, threads) = assemble(config, &cores, ports, &eal, started)?;
    control.configured_by(source);
    log::info!(
        "ripvsd {} ready after {} ms: {} workers, {} ports, socket {}",
        env!("CARGO_PKG_VERSION"),
        started.elapsed().as_millis(),
        cores.len(),
        config.ports.len(),
        config.socket.display()
    );
    crate::logging::started();
    let served = control.serve(&socket, &signals);
    end(control, threads, eal)?;
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
    let boards = Boards::new(workers, port_count + config.vlans.len());
    let master = Master::new(
        workers,
        Exactness::new(
            config.scheduling == Scheduling::Exact,
            &config.exact_services,
        ),
        config.mh_table_bits,
    );

    let mut network = Network::default();
    network
        .configure(config, setups, &mut fleet)
        .map_err(|refusal| format!("the network cannot be set up as configured: {refusal}"))?;
    let mut settings = Settings::default();
    settings.configure(&config.sysctls, config.timeouts, &mut fleet);
    let ftp_ports: Arc<[u16]> = config.ftp_ports.as_slice().into();
    fleet.change(|_| Delta::FtpPorts(ftp_ports.clone()));

    let vlans = vlans(config, &network, port_count);
    let mut ios = worker_ios(workers, &vlans, tx, &pool);
    let rings = rings(workers);
    for (worker, io) in ios.iter_mut().enumerate() {
        io.peers = peers(worker, &rings, &fleet);
    }
    let clock = Clock::new(config.clock);
    let seed = seed();
    let mut threads = Vec::new();
    for (worker, (io, rx)) in ios.into_iter().zip(rx).enumerate() {
        let setup = Setup {
            config: worker_config(config, worker, workers, seed),
            core: cores[worker],
            clock: clock.clone(),
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
        clock,
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
fn rings(workers: usize) -> Vec<Vec<Option<Arc<Ring>>>> {
    let ring = |to: usize, from: usize| (to != from).then(|| Arc::new(Ring::new()));
    (0..workers)
        .map(|to| (0..workers).map(|from| ring(to, from)).collect())
        .collect()
}

fn peers(from: usize, rings: &[Vec<Option<Arc<Ring>>>], fleet: &Fleet) -> Vec<Option<Peer>> {
    let peer = |(to, inbound): (usize, &Vec<Option<Arc<Ring>>>)| {
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
    vlans: &[Vec<(u16, usize)>],
    tx: Vec<Vec<ripvs_nic::TxQueue>>,
    pool: &ripvs_nic::Mempool,
) -> Vec<WorkerIo> {
    let counted = vlans.len() + vlans.iter().map(Vec::len).sum::<usize>();
    let mut ios: Vec<WorkerIo> = (0..workers)
        .map(|_| WorkerIo {
            pool: pool.clone(),
            ports: Vec::with_capacity(vlans.len()),
            peers: Vec::new(),
            counts: vec![PortCount::default(); counted],
            handed_over: 0,
            ring_full: 0,
        })
        .collect();
    for (queues, vlans) in tx.into_iter().zip(vlans) {
        let count = queues.len().clamp(1, workers);
        let mut queues = queues.into_iter();
        for (worker, io) in ios.iter_mut().enumerate() {
            let own = if worker < count { queues.next() } else { None };
            let sender = match own {
                Some(queue) => Sender::Queue(queue),
                None => Sender::Via(WorkerId((worker % count) as u16)),
            };
            io.ports.push(PortOut::new(sender, vlans.clone()));
        }
    }
    ios
}

/// The VLANs of each port with the place where each is counted: behind the ports, in the order of the configuration.
fn vlans(config: &Config, network: &Network, port_count: usize) -> Vec<Vec<(u16, usize)>> {
    let mut by_port = vec![Vec::new(); port_count];
    for (number, vlan) in config.vlans.iter().enumerate() {
        if let Some(port) = network.port_named(&vlan.on.value.0) {
            by_port[usize::from(port.0)].push((vlan.id.value, port_count + number));
        }
    }
    by_port
}

/// What keys the hashes: drawn at random, so that nobody outside can choose flows that meet. Measurements that want to know
/// each packet's worker set it.
fn seed() -> u64 {
    let set = std::env::var("RIPVS_SEED");
    let set = set.ok().and_then(|text| text.parse().ok());
    set.unwrap_or_else(|| RandomState::new().build_hasher().finish())
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

/// How long workers may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends everything in the order in which it depends on each other.
///
/// # Errors
/// A worker does not end; the process has to, with it.
fn end(control: Control, threads: Vec<JoinHandle<()>>, eal: Eal) -> Result<(), String> {
    let devices = control.finish();
    let deadline = Instant::now() + PATIENCE;
    while threads.iter().any(|thread| !thread.is_finished()) {
        if Instant::now() >= deadline {
            // What the worker uses must not be taken from under it.
            std::mem::forget(devices);
            return Err("a worker does not end; the process ends with it".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
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
    Ok(())
}
