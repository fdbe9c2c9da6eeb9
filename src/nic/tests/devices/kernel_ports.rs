//! Ports that face the kernel: net_tap, net_af_packet, net_af_xdp, and a bond of taps. They need root, and have a network
//! namespace of this process's own, which goes with it.
//!
//! The kernel's end has an address and an ordinary UDP socket; ours is made of bytes.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use ripvs_nic::{
    devargs, BondMode, Device, Mac, Mbuf, Mempool, PortConfig, PortError, RxQueue, Started,
    DATA_ROOM,
};
use ripvs_packet::Frame;

use crate::{Bed, Check};

/// In the order they run.
pub const CHECKS: &[Check] = &[
    (
        "net_tap_carries_frames_both_ways_in_one_segment_and_in_several",
        tap_both_ways,
    ),
    ("net_tap_has_as_many_receive_as_transmit_queues", tap_pairs),
    (
        "a_frame_that_is_too_long_does_not_hold_up_the_rest",
        tap_too_long,
    ),
    ("an_offloaded_ipv4_checksum_arrives_right", tap_checksum),
    (
        "net_af_packet_carries_frames_of_9000_bytes",
        af_packet_jumbo,
    ),
    (
        "net_af_packet_with_small_buffers_is_refused_by_its_driver",
        af_packet_small_room,
    ),
    ("a_bond_of_taps_carries_frames", bond),
    ("net_af_xdp_sends_segmented_frames_as_one", af_xdp),
];

/// The pool whose mbufs net_af_xdp doesn't give back.
pub const AF_XDP_POOL: &str = "xdp";

const OURS: Mac = [2, 0, 0, 0, 0, 2];
const KERNELS: Mac = [2, 0, 0, 0, 0, 1];

/// The kernel's end of a link: an interface with an address, and a socket on it.
struct KernelEnd {
    socket: UdpSocket,
    ours: Ipv4Addr,
    kernels: Ipv4Addr,
}

fn ip(args: &str) {
    let status = Command::new("ip")
        .args(args.split_whitespace())
        .status()
        .expect("ip runs");
    assert!(status.success(), "ip {args}");
}

impl KernelEnd {
    /// Gives `iface` the address 10.9.`net`.1, and knows our end as 10.9.`net`.2.
    fn new(iface: &str, net: u8) -> Self {
        let (kernels, ours) = (Ipv4Addr::new(10, 9, net, 1), Ipv4Addr::new(10, 9, net, 2));
        ip(&format!("link set {iface} address 02:00:00:00:00:01 up"));
        ip(&format!("addr add {kernels}/24 dev {iface}"));
        ip(&format!(
            "neigh replace {ours} lladdr 02:00:00:00:00:02 dev {iface} nud permanent"
        ));
        let socket = UdpSocket::bind((kernels, 5000)).expect("bind");
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("timeout");
        Self {
            socket,
            ours,
            kernels,
        }
    }

    /// The kernel sends a datagram of this many bytes; what the port receives of it.
    fn kernel_sends(&self, len: usize, rx: &mut [RxQueue]) -> Mbuf {
        let payload = pattern(len);
        self.socket
            .send_to(&payload, (self.ours, 6000))
            .expect("send");
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut frames = Vec::with_capacity(64);
        while Instant::now() < deadline {
            for queue in rx.iter_mut() {
                queue.burst(&mut frames);
            }
            for frame in frames.drain(..) {
                let mut read = vec![0; frame.len().saturating_sub(42)];
                // Router solicitations and the like come too.
                if frame.copy_to(42, &mut read) == len && read == payload {
                    return frame;
                }
            }
            std::thread::yield_now();
        }
        panic!("the datagram of {len} bytes did not arrive");
    }

    /// A frame with a datagram of this many bytes from our end.
    fn frame(&self, len: usize, pool: &Mempool) -> Mbuf {
        let mut bytes = [&KERNELS[..], &OURS[..], &[8, 0]].concat();
        let total = (28 + len) as u16;
        let mut header = vec![
            0x45,
            0,
            (total >> 8) as u8,
            total as u8,
            0,
            0,
            0x40,
            0,
            64,
            17,
            0,
            0,
        ];
        header.extend(self.ours.octets());
        header.extend(self.kernels.octets());
        let sum: u32 = header
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
            .sum();
        let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend(header);
        let udp = [6000, 5000, 8 + len as u16, 0];
        bytes.extend(udp.iter().flat_map(|word: &u16| word.to_be_bytes()));
        bytes.extend(pattern(len));
        pool.alloc(&bytes).expect("room")
    }

    /// Whether the kernel receives a datagram of this many bytes next.
    fn kernel_received(&self, len: usize) {
        let mut read = vec![0; 10_000];
        let (got, from) = self
            .socket
            .recv_from(&mut read)
            .expect("a datagram arrives");
        assert_eq!(from.ip(), self.ours);
        assert_eq!((got, &read[..got]), (len, &pattern(len)[..]));
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 11 + i / 199) as u8).collect()
}

fn pool(bed: &Bed, name: &str, room: u16) -> Mempool {
    Mempool::new(&bed.eal, name, 1023, 64, room, None).expect("pool")
}

fn config() -> PortConfig {
    PortConfig {
        mac: Some(OURS),
        promiscuous: true,
        all_multicast: true,
        ..PortConfig::default()
    }
}

fn both_ways(end: &KernelEnd, port: &mut Started, pool: &Mempool, lens: &[usize]) {
    for len in lens {
        let frame = end.kernel_sends(*len, &mut port.rx);
        assert_eq!(frame.len(), len + 42);
        assert_eq!(frame.head()[..12], [OURS, KERNELS].concat());
        drop(frame);
        let mut frames = vec![end.frame(*len, pool)];
        assert_eq!(port.tx[0].burst(&mut frames), 1, "{len} bytes");
        end.kernel_received(*len);
    }
}

fn tap_both_ways(bed: &Bed) {
    for (net, room) in [(1, DATA_ROOM), (2, 256)] {
        let pool = pool(bed, &format!("tap{room}"), room);
        let (iface, device) = (
            format!("nictap{net}"),
            devargs::tap(net.into(), &format!("nictap{net}"), None),
        );
        let device = Device::attach(&bed.eal, &device).expect("device");
        let mut port = device.start(&config(), &pool).expect("start");
        assert_eq!(port.plan.scatter, room < 1500);
        assert_eq!(port.port.mac().expect("mac"), OURS);
        assert!(port.port.link().expect("link").up);
        let end = KernelEnd::new(&iface, net);
        both_ways(&end, &mut port, &pool, &[18, 214, 215, 600, 1472]);
        if room < 1500 {
            assert!(end.kernel_sends(1472, &mut port.rx).segments() > 4);
        }
        let stats = port.port.stats().expect("stats");
        assert!(stats.ipackets >= 5 && stats.opackets == 5, "{stats:?}");
        assert_eq!((stats.ierrors, stats.rx_nombuf), (0, 0));
        drop(port);
        assert_eq!(pool.in_use(), 0, "room {room}");
    }
}

fn tap_pairs(bed: &Bed) {
    let pool = pool(bed, "pairs", DATA_ROOM);
    let device = Device::attach(&bed.eal, "net_tap3,iface=nictap3").expect("device");
    let wished = PortConfig {
        rx_queues: 1,
        tx_queues: 3,
        mtu: 9000,
        ..config()
    };
    let mut port = device.start(&wished, &pool).expect("start");
    assert_eq!((port.rx.len(), port.tx.len()), (3, 3));
    assert!(
        port.plan.mtu == 9000 || port.plan.notes.iter().any(|note| note.contains("1504")),
        "{}",
        port.plan
    );
    let end = KernelEnd::new("nictap3", 3);
    drop(end.kernel_sends(100, &mut port.rx));
    for tx in &mut port.tx {
        tx.burst(&mut vec![end.frame(77, &pool)]);
        end.kernel_received(77);
    }
    drop(port);
    assert_eq!(pool.in_use(), 0);
}

fn tap_too_long(bed: &Bed) {
    let pool = pool(bed, "long", DATA_ROOM);
    let device = Device::attach(&bed.eal, "net_tap4,iface=nictap4").expect("device");
    let mut port = device.start(&config(), &pool).expect("start");
    let end = KernelEnd::new("nictap4", 4);
    let mut frames: Vec<Mbuf> = [10, 5000, 20, 5000, 30]
        .iter()
        .map(|len| end.frame(*len, &pool))
        .collect();
    assert_eq!(port.tx[0].burst(&mut frames), 3);
    for len in [10, 20, 30] {
        end.kernel_received(len);
    }
    let counters = port.tx[0].counters();
    assert_eq!(
        (counters.sent, counters.full, counters.unsendable),
        (3, 0, 2)
    );
    drop(port);
    assert_eq!(pool.in_use(), 0);
}

/// A veth pair whose ends do no offloads, since they are not to be seen by whoever reads the wire.
fn veth(ours: &str, kernels: &str, mtu: u16) {
    ip(&format!(
        "link add {ours} mtu {mtu} type veth peer name {kernels} mtu {mtu}"
    ));
    for end in [ours, kernels] {
        let off = Command::new("ethtool")
            .args(["-K", end])
            .args("tx off tso off gso off gro off".split(' '))
            .output();
        assert!(off.expect("ethtool runs").status.success());
    }
    ip(&format!("link set {ours} address 02:00:00:00:00:02 up"));
}

fn af_packet_jumbo(bed: &Bed) {
    veth("nicp0", "nicp1", 9000);
    let end = KernelEnd::new("nicp1", 5);
    let pool = pool(bed, "packet", devargs::af_packet_data_room(9000));
    let device =
        Device::attach(&bed.eal, &devargs::af_packet(0, "nicp0", 9000, 1)).expect("device");
    let mut port = device
        .start(
            &PortConfig {
                mac: None,
                mtu: 9000,
                ..config()
            },
            &pool,
        )
        .expect("start");
    assert_eq!(port.plan.mtu, 9000);
    both_ways(&end, &mut port, &pool, &[18, 1472, 4000, 8972]);
    let small = self::pool(bed, "packet-out", DATA_ROOM);
    both_ways(&end, &mut port, &small, &[8972]);
    drop(port);
    assert_eq!((pool.in_use(), small.in_use()), (0, 0));
    ip("link del nicp0");
}

fn af_packet_small_room(bed: &Bed) {
    veth("nicq0", "nicq1", 9000);
    let pool = pool(bed, "packet-small", DATA_ROOM);
    let device =
        Device::attach(&bed.eal, &devargs::af_packet(1, "nicq0", 9000, 1)).expect("device");
    let error = device
        .start(
            &PortConfig {
                mtu: 9000,
                ..config()
            },
            &pool,
        )
        .expect_err("2048 bytes are too few");
    assert!(error.to_string().contains("buffers of"), "{error}");
    ip("link del nicq0");
}

fn af_xdp(bed: &Bed) {
    veth("nicx0", "nicx1", 1500);
    let end = KernelEnd::new("nicx1", 6);
    let pool = Mempool::new(&bed.eal, AF_XDP_POOL, 8191, 64, DATA_ROOM, None).expect("pool");
    let device = Device::attach(&bed.eal, &devargs::af_xdp(0, "nicx0", 1, true)).expect("device");
    let mut port = device
        .start(
            &PortConfig {
                mac: None,
                ..config()
            },
            &pool,
        )
        .expect("start");
    assert!(!port.plan.multi_segments);
    let small = self::pool(bed, "xdp-out", 300);
    both_ways(&end, &mut port, &pool, &[18, 1472]);
    both_ways(&end, &mut port, &small, &[18, 1472]);
    let mbufs = port.plan.mbufs;
    drop(port);
    assert_eq!(small.in_use(), 0);
    assert!(
        pool.in_use() <= mbufs,
        "the driver keeps what was in its rings, no more"
    );
    ip("link del nicx0");
}

fn bond(bed: &Bed) {
    let pool = pool(bed, "bond", DATA_ROOM);
    let members = [7, 8]
        .map(|n| Device::attach(&bed.eal, &format!("net_tap{n},iface=nictap{n}")).expect("device"));
    let bond = Device::attach_bond(
        &bed.eal,
        "net_bonding0",
        BondMode::ActiveBackup,
        members.into(),
        "primary=net_tap7",
    );
    let mut port = bond.expect("bond").start(&config(), &pool).expect("start");
    assert!(port.plan.multi_segments);
    assert!(port.plan.rx_descriptors < 10, "as its members want them");
    let end = KernelEnd::new("nictap7", 7);
    both_ways(&end, &mut port, &pool, &[18, 1472]);
    drop(port);
    assert_eq!(pool.in_use(), 0);
    let text = "net_bonding1,mode=1,slave=net_tap7,slave=net_tap8";
    let bond = Device::attach(&bed.eal, text).expect("the first let go of its members");
    let taken = Device::attach(&bed.eal, "net_tap7");
    assert!(
        matches!(taken, Err(PortError::Attached { .. })),
        "a member is nobody else's"
    );
    let config = PortConfig {
        mac: None,
        ..config()
    };
    let port = bond.start(&config, &pool).expect("start");
    assert_eq!(
        port.plan.mbufs,
        2 * (u32::from(port.plan.rx_descriptors) + 1024)
    );
    drop(port);
    assert_eq!(pool.in_use(), 0);
}

fn tap_checksum(bed: &Bed) {
    let pool = pool(bed, "checksum", DATA_ROOM);
    let device = Device::attach(&bed.eal, "net_tap9,iface=nictap9").expect("device");
    let mut port = device
        .start(
            &PortConfig {
                ipv4_checksum: true,
                ..config()
            },
            &pool,
        )
        .expect("start");
    assert!(port.plan.ipv4_checksum);
    let end = KernelEnd::new("nictap9", 9);
    let zeroed = |len: usize| {
        let mut frame = end.frame(len, &pool);
        frame.head_mut()[24..26].fill(0);
        frame
    };
    // Without the request the kernel drops it, with it the next one arrives.
    let mut asked = zeroed(33);
    asked.offload_ipv4_checksum(14, 20);
    assert_eq!(port.tx[0].burst(&mut vec![zeroed(44), asked]), 2);
    end.kernel_received(33);
    drop(port);
    assert_eq!(pool.in_use(), 0);
}
