//! Ports and queues on the virtual drivers that need nothing of the system: net_null, net_ring, net_pcap and net_memif.

use std::time::{Duration, Instant};

use ripvs_nic::{
    devargs, Device, Eal, Mbuf, Mempool, PortConfig, PortError, Rss, RssEnd, Started, DATA_ROOM,
};
use ripvs_packet::Frame;

use crate::{Bed, Check};

/// In the order they run.
pub const CHECKS: &[Check] = &[
    ("net_null_gives_and_takes_bursts", null_bursts),
    ("a_ring_gives_back_what_was_sent_in_order", ring_loops),
    (
        "what_a_full_queue_does_not_take_is_freed_and_counted",
        full_ring,
    ),
    ("queue_counts_are_clipped_to_what_the_driver_has", clipped),
    ("rss_is_set_as_far_as_the_driver_has_it", rss),
    ("counters_have_names_and_can_be_reset", counters),
    ("a_device_closes_with_its_last_queue", closes_last),
    ("net_pcap_reads_a_file_and_writes_what_is_sent", pcap_copies),
    (
        "net_pcap_repeats_a_file_for_ever_from_its_own_mbufs",
        pcap_endless,
    ),
    (
        "net_memif_carries_segmented_frames_between_two_ends",
        memif_link,
    ),
    ("bad_devices_are_refused_with_a_remedy", bad_devices),
];

fn pool(bed: &Bed, name: &str) -> Mempool {
    Mempool::new(&bed.eal, name, 1023, 64, DATA_ROOM, None).expect("pool")
}

fn start(bed: &Bed, device: &str, config: &PortConfig, pool: &Mempool) -> Started {
    let device = Device::attach(&bed.eal, device).expect("device");
    device.start(config, pool).expect("start")
}

fn null_bursts(bed: &Bed) {
    let pool = pool(bed, "null");
    let mut port = start(bed, "net_null7,size=100", &PortConfig::default(), &pool);
    let mut frames = Vec::with_capacity(32);
    assert_eq!(port.rx[0].burst(&mut frames), 32);
    assert_eq!(port.rx[0].burst(&mut frames), 0, "no room without growing");
    assert!(frames.iter().all(|frame: &Mbuf| frame.len() == 100));
    assert_eq!(pool.in_use(), 32);
    assert_eq!(port.tx[0].burst(&mut frames), 32);
    assert!(frames.is_empty());
    assert_eq!(port.tx[0].counters().sent, 32);
    let stats = port.port.stats().expect("stats");
    assert_eq!((stats.ipackets, stats.opackets), (32, 32));
    drop(port);
    assert_eq!(pool.in_use(), 0);
}

fn ring_loops(bed: &Bed) {
    let pool = pool(bed, "ring");
    let mut port = start(bed, "net_ring1", &PortConfig::default(), &pool);
    let mut frames: Vec<Mbuf> = (0..40_u8)
        .map(|i| pool.alloc(&[i; 60]).expect("room"))
        .collect();
    let jumbo: Vec<u8> = (0..9000).map(|i| i as u8).collect();
    frames.push(pool.alloc(&jumbo).expect("room"));
    assert_eq!(port.tx[0].burst(&mut frames), 41);
    let mut back = Vec::with_capacity(64);
    assert_eq!(port.rx[0].burst(&mut back), 41);
    for (i, frame) in back[..40].iter().enumerate() {
        assert_eq!(frame.head(), [i as u8; 60]);
    }
    let mut read = vec![0; 9000];
    assert_eq!(back[40].copy_to(0, &mut read), 9000);
    assert!(read == jumbo && back[40].segments() == 5);
    drop(back);
    drop(port);
    assert_eq!(pool.in_use(), 0);
}

fn full_ring(bed: &Bed) {
    let pool = Mempool::new(&bed.eal, "full", 2047, 64, DATA_ROOM, None).expect("pool");
    let mut port = start(bed, "net_ring2", &PortConfig::default(), &pool);
    let mut frames: Vec<Mbuf> = (0..1500)
        .map(|_| pool.alloc(b"frame").expect("room"))
        .collect();
    let sent = port.tx[0].burst(&mut frames);
    assert!(
        frames.is_empty() && sent > 0 && sent < 1500,
        "the driver's ring holds fewer: {sent}"
    );
    let counters = port.tx[0].counters();
    assert_eq!(
        (counters.sent, counters.full, counters.unsendable),
        (sent as u64, 1500 - sent as u64, 0)
    );
    assert_eq!(
        pool.in_use() as usize,
        sent,
        "what was not sent is back in the pool"
    );
    let mut back = Vec::with_capacity(1500);
    port.rx[0].burst(&mut back);
    drop(back);
    assert_eq!(pool.in_use(), 0);
}

fn clipped(bed: &Bed) {
    let device = Device::attach(&bed.eal, "net_ring3").expect("device");
    let limits = device.limits().expect("limits");
    let config = PortConfig {
        rx_queues: 500,
        tx_queues: 500,
        ..PortConfig::default()
    };
    let plan = device.plan(&config, DATA_ROOM).expect("plan");
    assert_eq!(
        (plan.rx_queues, plan.tx_queues),
        (limits.rx_queues, limits.tx_queues)
    );
    assert_eq!(plan.notes.len(), 2, "{plan}");
    let null = Device::attach(&bed.eal, "net_null8,size=3000").expect("device");
    let refused = null
        .plan(&PortConfig::default(), DATA_ROOM)
        .expect_err("3000 bytes in 2048");
    assert!(
        matches!(refused, PortError::RoomTooSmall { needed: 3000, .. }),
        "{refused}"
    );
}

fn closes_last(bed: &Bed) {
    let pool = pool(bed, "close");
    let Started {
        port, rx, mut tx, ..
    } = start(bed, "net_null9", &PortConfig::default(), &pool);
    drop((port, rx));
    assert!(matches!(
        Device::attach(&bed.eal, "net_null9"),
        Err(PortError::Attached { .. })
    ));
    let mut one = vec![pool.alloc(b"frame").expect("room")];
    // A thread of its own: the last owner may be any.
    let thread = std::thread::spawn(move || {
        let _guard = Eal::register_thread().expect("an lcore id");
        tx[0].burst(&mut one)
    });
    assert_eq!(thread.join().expect("no panic"), 1);
    let again = Device::attach(&bed.eal, "net_null9").expect("the name is free again");
    drop(again);
}

fn bad_devices(bed: &Bed) {
    for (device, word) in [
        ("net_nosuch0", "driver's name"),
        ("0000:ff:1f.7", "vfio-pci"),
        ("net_pcap0,rx_pcap=/nonexistent/file.pcap", "pcap format"),
        (
            "net_tap0,iface=a_name_that_is_far_too_long_for_linux",
            "1 to 15",
        ),
        ("net_af_packet0,iface=nosuchif", "network namespace"),
    ] {
        let error = Device::attach(&bed.eal, device).expect_err(device);
        assert!(error.to_string().contains(word), "{device}: {error}");
    }
    assert!(matches!(
        Device::attach(&bed.eal, ""),
        Err(PortError::BadName { .. })
    ));
    assert!(matches!(
        Device::attach(&bed.eal, "net_null0\0"),
        Err(PortError::BadName { .. })
    ));
}

/// A file in the temporary folder, gone at the end.
struct TempFile(String);

impl TempFile {
    fn new(name: &str) -> Self {
        let name = format!("ripvs-nic-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name).display().to_string())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // Nothing to be done about it.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn write_pcap(path: &str, frames: &[Vec<u8>]) {
    // Magic, version 2.4, UTC, accuracy, longest frame, Ethernet.
    let header = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1];
    let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
    for frame in frames {
        let len = frame.len() as u32;
        bytes.extend(
            [0, 0, len, len]
                .iter()
                .flat_map(|word: &u32| word.to_ne_bytes()),
        );
        bytes.extend(frame);
    }
    std::fs::write(path, bytes).expect("write");
}

fn read_pcap(path: &str) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).expect("read");
    let (mut frames, mut rest) = (Vec::new(), &bytes[24..]);
    while rest.len() >= 16 {
        let len = u32::from_ne_bytes(rest[8..12].try_into().expect("4 bytes")) as usize;
        frames.push(rest[16..16 + len].to_vec());
        rest = &rest[16 + len..];
    }
    frames
}

fn lengths(lens: &[usize]) -> Vec<Vec<u8>> {
    lens.iter()
        .map(|len| (0..*len).map(|i| (i * 3 + len) as u8).collect())
        .collect()
}

fn pcap_copies(bed: &Bed) {
    let (from, to) = (TempFile::new("in.pcap"), TempFile::new("out.pcap"));
    let frames = lengths(&[60, 1514, 2048, 2049, 9014]);
    write_pcap(&from.0, &frames);
    let pool = pool(bed, "pcap");
    let device = devargs::pcap(1, Some(&from.0), Some(&to.0), false);
    let mut port = start(
        bed,
        &device,
        &PortConfig {
            mtu: 9000,
            ..PortConfig::default()
        },
        &pool,
    );
    let mut burst: Vec<Mbuf> = Vec::with_capacity(32);
    assert_eq!(port.rx[0].burst(&mut burst), frames.len());
    assert_eq!(
        burst.iter().map(Mbuf::segments).collect::<Vec<_>>(),
        [1, 1, 1, 2, 5]
    );
    assert_eq!(port.tx[0].burst(&mut burst), frames.len());
    drop(port);
    assert_eq!(pool.in_use(), 0);
    assert!(read_pcap(&to.0) == frames);
}

fn pcap_endless(bed: &Bed) {
    let from = TempFile::new("endless.pcap");
    let frames = lengths(&[60, 100, 200]);
    write_pcap(&from.0, &frames);
    let pool = pool(bed, "endless");
    let mut port = start(
        bed,
        &devargs::pcap(2, Some(&from.0), None, true),
        &PortConfig::default(),
        &pool,
    );
    let mut burst: Vec<Mbuf> = Vec::with_capacity(32);
    for round in 0..100 {
        assert_eq!(port.rx[0].burst(&mut burst), 32);
        for (i, frame) in burst.iter().enumerate() {
            assert_eq!(frame.head(), frames[(round * 32 + i) % 3]);
        }
        assert_eq!(port.tx[0].burst(&mut burst), 32);
    }
    drop(port);
    assert_eq!(pool.in_use(), 0);
}

fn memif_link(bed: &Bed) {
    let socket = TempFile::new("memif.sock");
    let pool = pool(bed, "memif");
    let config = PortConfig {
        mtu: 9000,
        ..PortConfig::default()
    };
    let mut server = start(bed, &devargs::memif(0, 7, true, &socket.0), &config, &pool);
    let mut client = start(bed, &devargs::memif(1, 7, false, &socket.0), &config, &pool);
    assert_eq!((server.plan.mtu, client.plan.mtu), (9000, 9000));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !(server.port.link().expect("link").up && client.port.link().expect("link").up) {
        assert!(
            Instant::now() < deadline,
            "the two ends do not find each other"
        );
        std::thread::yield_now();
    }
    let frames = lengths(&[60, 1514, 2049, 9014]);
    for (tx, rx) in [
        (&mut server.tx, &mut client.rx),
        (&mut client.tx, &mut server.rx),
    ] {
        // The client gives the server room to send into when it first polls.
        let mut got = Vec::with_capacity(32);
        rx[0].burst(&mut got);
        let mut burst: Vec<Mbuf> = frames
            .iter()
            .map(|frame| pool.alloc(frame).expect("room"))
            .collect();
        assert_eq!(tx[0].burst(&mut burst), frames.len());
        while got.len() < frames.len() && Instant::now() < deadline {
            rx[0].burst(&mut got);
        }
        let got: Vec<Vec<u8>> = got.iter().map(contents).collect();
        assert!(
            got == frames,
            "{:?}",
            got.iter().map(Vec::len).collect::<Vec<_>>()
        );
    }
    drop((server, client));
    assert_eq!(pool.in_use(), 0);
}

fn contents(frame: &Mbuf) -> Vec<u8> {
    let mut bytes = vec![0; frame.len()];
    frame.copy_to(0, &mut bytes);
    bytes
}

/// net_null takes RSS settings and gives them back, though there is nothing that it could hash.
fn rss(bed: &Bed) {
    let pool = pool(bed, "rss");
    let one_end = Rss {
        end: RssEnd::Source,
        ..Rss::default()
    };
    let config = PortConfig {
        rx_queues: 4,
        rss: Some(one_end),
        ..PortConfig::default()
    };
    let port = start(bed, "net_null10", &config, &pool);
    assert_eq!(port.rx.len(), 4);
    let planned = port.plan.rss.as_ref().expect("it has RSS");
    assert_eq!(planned.end, RssEnd::Both, "and can't choose an end");
    assert!(
        port.plan
            .notes
            .iter()
            .any(|note| note.contains("both ends")),
        "{}",
        port.plan
    );

    let size = port.port.reta_size();
    let table: Vec<u16> = (0..size).map(|i| (i * 5 + i / 7) % 4).collect();
    port.port.set_reta(&table).expect("a table");
    assert!(size > 64 && port.port.reta().expect("a table") == table);
    assert!(port.port.set_reta(&table[1..]).is_err(), "too short");

    let key = |len| Rss {
        key: vec![0x6d; len],
        ..Rss::default()
    };
    port.port
        .set_rss(&key(40))
        .expect("a key of the usual length");
    assert!(
        port.port.set_rss(&key(39)).is_err(),
        "the driver would read past its end"
    );
    let one_queue = PortConfig {
        rx_queues: 1,
        ..config
    };
    let single = Device::attach(&bed.eal, "net_null11")
        .expect("device")
        .plan(&one_queue, DATA_ROOM);
    assert_eq!(
        single.expect("plan").rss,
        None,
        "nothing to choose with one queue"
    );
}

fn counters(bed: &Bed) {
    let pool = pool(bed, "counters");
    let mut port = start(bed, "net_null12", &PortConfig::default(), &pool);
    let mut frames = Vec::with_capacity(20);
    port.rx[0].burst(&mut frames);
    let named = |port: &Started, name: &str| {
        let all = port.port.extended_stats().expect("counters");
        all.iter()
            .find(|(have, _)| have == name)
            .map(|(_, value)| *value)
    };
    assert_eq!(named(&port, "rx_good_packets"), Some(20));
    assert_eq!(named(&port, "tx_good_packets"), Some(0));
    port.port.reset_stats().expect("reset");
    assert_eq!(named(&port, "rx_good_packets"), Some(0));
}
