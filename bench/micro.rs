//! A worker alone, in memory: what it adds to a loop that only fills frames and swaps their MAC addresses. Quick, exact to
//! a nanosecond on a quiet machine, and the thing to put under a profiler.

use nix::time::{clock_gettime, ClockId};
use ripvs_core::{Forward, Time};

use crate::memory::{Pool, PoolFrame};
use crate::stats::{least, median, spread};
use crate::traffic::{shuffled, Proto, Traffic};
use crate::worker::{Bench, Setup, BURST};

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Forwarding methods.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "dr,nat,nat-out,tun"
    )]
    pub mode: Vec<Mode>,
    /// Numbers of flows.
    #[arg(long, value_delimiter = ',', default_value = "1000,65536,1000000")]
    pub flows: Vec<u32>,
    /// IPv6 instead of IPv4.
    #[arg(long)]
    pub v6: bool,
    /// TCP instead of UDP.
    #[arg(long)]
    pub tcp: bool,
    /// Real servers.
    #[arg(long, default_value_t = 10)]
    pub dests: u32,
    /// Virtual services.
    #[arg(long, default_value_t = 1)]
    pub services: u32,
    /// Most connections; those of the flows and a little more if not given.
    #[arg(long)]
    pub connections: Option<u32>,
    /// Packets come in the order in which the connections were made, which hardware foresees.
    #[arg(long)]
    pub in_order: bool,
    /// Rounds of each kind.
    #[arg(long, default_value_t = 7)]
    pub rounds: usize,
    /// Packets in a round, at least.
    #[arg(long, default_value_t = 2_000_000)]
    pub packets: usize,
}

/// Forwarding method and direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Direct routing.
    Dr,
    /// NAT, clients' packets.
    Nat,
    /// NAT, servers' packets.
    NatOut,
    /// IP in IP.
    Tun,
}

impl Mode {
    /// How packets reach the real servers.
    pub fn forward(self) -> Forward {
        match self {
            Mode::Dr => Forward::Route,
            Mode::Nat | Mode::NatOut => Forward::Masq,
            Mode::Tun => Forward::Tunnel,
        }
    }

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Dr => "DR",
            Mode::Nat => "NAT in",
            Mode::NatOut => "NAT out",
            Mode::Tun => "TUN",
        }
    }
}

/// Frames one after the other.
pub struct Source {
    bytes: Vec<u8>,
    len: usize,
    next: usize,
}

impl Source {
    /// Frames of one length.
    pub fn new(len: usize, frames: impl Iterator<Item = Vec<u8>>) -> Source {
        let mut bytes = Vec::new();
        frames.for_each(|frame| bytes.extend_from_slice(&frame));
        Source {
            bytes,
            len,
            next: 0,
        }
    }

    /// A burst of them.
    #[inline]
    pub fn burst(&mut self, pool: &mut Pool, frames: &mut Vec<PoolFrame>) {
        for _ in 0..BURST {
            if self.next == self.bytes.len() {
                self.next = 0;
            }
            frames.push(pool.take(&self.bytes[self.next..self.next + self.len]));
            self.next += self.len;
        }
    }
}

/// Nanoseconds of processor time of this thread.
fn cpu() -> f64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_or(0.0, |t| t.tv_sec() as f64 * 1e9 + t.tv_nsec() as f64)
}

fn now() -> Time {
    Time(ripvs_arch::clock::now_ns())
}

/// What macswap does.
pub fn swap_macs(frame: &mut PoolFrame) {
    use ripvs_packet::Frame;
    let head = frame.head_mut();
    let mut dst = [0; 6];
    dst.copy_from_slice(&head[..6]);
    head.copy_within(6..12, 0);
    head[6..12].copy_from_slice(&dst);
}

/// Nanoseconds a packet of the loop that only swaps MAC addresses.
pub fn reference(source: &mut Source, pool: &mut Pool, packets: usize) -> f64 {
    let mut frames = Vec::with_capacity(BURST);
    let start = cpu();
    for _ in 0..packets.div_ceil(BURST) {
        source.burst(pool, &mut frames);
        for mut frame in frames.drain(..) {
            swap_macs(&mut frame);
            pool.sent.push(frame);
        }
        pool.recycle();
    }
    (cpu() - start) / (packets.div_ceil(BURST) * BURST) as f64
}

/// Nanoseconds a packet of a worker.
fn forward(source: &mut Source, bench: &mut Bench, packets: usize) -> Result<f64, String> {
    let mut frames = Vec::with_capacity(BURST);
    let (mut sent, rounds) = (0, packets.div_ceil(BURST));
    let start = cpu();
    for _ in 0..rounds {
        source.burst(&mut bench.pool, &mut frames);
        sent += bench.round(now(), &mut frames);
    }
    let spent = cpu() - start;
    // A worker also announces its addresses.
    if sent < rounds * BURST {
        return Err(format!("{sent} of {} packets were sent", rounds * BURST));
    }
    Ok(spent / (rounds * BURST) as f64)
}

/// Measures all cases and prints a table.
///
/// # Errors
/// Memory is short, or packets were not forwarded.
pub fn run(options: &Options) -> Result<(), String> {
    if options.rounds == 0 || options.packets == 0 || options.flows.contains(&0) {
        return Err("rounds, packets and flows: at least 1 each".into());
    }
    println!("A worker alone, in memory; ns a packet, medians; spread: half the distance of the quartiles.");
    println!(
        "{:8} {:>9}  {:>9} {:>9} {:>9} {:>9} {:>9}",
        "mode", "flows", "macswap", "ripvs", "added", "spread", "at best"
    );
    for mode in &options.mode {
        for flows in &options.flows {
            case(options, *mode, *flows)?;
        }
    }
    Ok(())
}

fn case(options: &Options, mode: Mode, flows: u32) -> Result<(), String> {
    let traffic = Traffic {
        v6: options.v6,
        proto: if options.tcp { Proto::Tcp } else { Proto::Udp },
        flows,
        services: options.services,
        by_port: false,
    };
    let connections = options.connections.unwrap_or(flows + flows / 20 + 64);
    let setup = Setup {
        dests: options.dests,
        ..Setup::new(mode.forward(), connections)
    };
    let mut bench = Bench::new(&traffic, &setup, now()).map_err(|error| error.to_string())?;
    let servers = bench.establish(&traffic, now())?;
    let order = match options.in_order {
        true => (0..flows).collect(),
        false => shuffled(flows),
    };
    let mut source = Source::new(
        traffic.frame_len(),
        order.iter().map(|flow| match mode {
            Mode::NatOut => traffic.reply(*flow, servers[*flow as usize]),
            _ => traffic.request(*flow),
        }),
    );
    let packets = options.packets.max(flows as usize);
    let before = bench.tallied();
    let (mut plain, mut full, mut added) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=options.rounds {
        let a = reference(&mut source, &mut bench.pool, packets);
        let b = forward(&mut source, &mut bench, packets)?;
        if round > 0 {
            plain.push(a);
            full.push(b);
            added.push(b - a);
        }
    }
    let tallied = bench.tallied();
    let done = (packets.div_ceil(BURST) * BURST * (options.rounds + 1)) as u64;
    let counted = match mode {
        Mode::NatOut => tallied.1 - before.1,
        _ => tallied.0 - before.0,
    };
    if counted != done {
        return Err(format!("{counted} of {done} packets are in the tallies"));
    }
    println!(
        "{:8} {:>9}  {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
        mode.name(),
        flows,
        median(&plain),
        median(&full),
        median(&added),
        spread(&added),
        least(&full) - least(&plain)
    );
    Ok(())
}
