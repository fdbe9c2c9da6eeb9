//! Mbufs and pools, by the `Frame` trait: contents across segments, and that nothing leaks.

use ripvs_nic::{free_burst, Mbuf, Mempool, PoolError};
use ripvs_packet::Frame;

use crate::{Bed, Check};

/// In the order they run.
pub const CHECKS: &[Check] = &[
    (
        "a_frame_of_9000_bytes_lies_in_segments_and_reads_back",
        a_frame_of_9000_bytes,
    ),
    ("prepend_and_trim_move_the_front", prepend_and_trim),
    (
        "pull_moves_bytes_of_later_segments_into_the_first",
        pull_moves,
    ),
    ("truncate_frees_the_segments_behind", truncate_frees),
    (
        "copy_and_write_cross_segments_at_every_offset",
        copy_and_write,
    ),
    ("chained_frames_are_one_frame", chained),
    (
        "an_emptied_first_segment_is_filled_from_the_next",
        emptied_head,
    ),
    ("an_exhausted_pool_says_so_and_recovers", exhausted),
    ("a_dropped_frame_goes_back_from_any_thread", other_threads),
    ("bad_pools_are_refused_in_words", bad_pools),
];

fn pool(bed: &Bed, name: &str, count: u32, room: u16) -> Mempool {
    Mempool::new(&bed.eal, name, count, 0, room, None).expect("pool")
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn contents(frame: &Mbuf) -> Vec<u8> {
    let mut bytes = vec![0; frame.len()];
    assert_eq!(frame.copy_to(0, &mut bytes), bytes.len());
    bytes
}

fn a_frame_of_9000_bytes(bed: &Bed) {
    let pool = pool(bed, "jumbo", 63, 2048);
    let bytes = pattern(9000);
    let frame = pool.alloc(&bytes).expect("room");
    assert_eq!(
        (frame.len(), frame.segments(), frame.head().len()),
        (9000, 5, 2048)
    );
    assert!(frame.headroom() >= 128);
    assert_eq!(contents(&frame), bytes);
    assert_eq!(pool.in_use(), 5);
    drop(frame);
    assert_eq!(pool.in_use(), 0);
    let empty = pool.alloc(&[]).expect("room");
    assert!(empty.is_empty() && empty.segments() == 1);
}

fn prepend_and_trim(bed: &Bed) {
    let pool = pool(bed, "front", 15, 256);
    let bytes = pattern(300);
    let mut frame = pool.alloc(&bytes).expect("room");
    assert!(frame.prepend(128));
    assert_eq!(
        (frame.len(), frame.head().len(), frame.headroom()),
        (428, 384, 0)
    );
    assert!(!frame.prepend(1));
    frame.head_mut()[..128].fill(0xee);
    assert_eq!(&contents(&frame)[128..], &bytes[..]);
    assert!(frame.trim_front(130));
    assert_eq!(contents(&frame), &bytes[2..]);
    assert!(!frame.trim_front(255), "more than the first segment has");
    assert_eq!(frame.len(), 298);
}

fn pull_moves(bed: &Bed) {
    let pool = pool(bed, "pull", 15, 128);
    let mut frame = pool.alloc(&pattern(10)).expect("room");
    for part in [pattern(5), pattern(50), pattern(7)] {
        frame
            .chain(pool.alloc(&part).expect("room"))
            .expect("few segments");
    }
    let whole = contents(&frame);
    assert_eq!((frame.segments(), pool.in_use()), (4, 4));
    assert!(frame.pull(10) && frame.segments() == 4, "it has them");
    assert!(frame.pull(12) && frame.head().len() == 12);
    assert!(frame.pull(40) && frame.head() == &whole[..40]);
    assert_eq!((frame.segments(), pool.in_use()), (3, 3));
    assert!(frame.pull(5000), "the whole frame fits");
    assert_eq!(
        (frame.segments(), pool.in_use(), frame.head()),
        (1, 1, &whole[..])
    );
    let mut long = pool.alloc(&pattern(300)).expect("room");
    assert!(!long.pull(129), "the first segment is full");
    assert_eq!(contents(&long), pattern(300));
}

fn truncate_frees(bed: &Bed) {
    let pool = pool(bed, "cut", 15, 100);
    let bytes = pattern(450);
    for len in 0..=460 {
        let mut frame = pool.alloc(&bytes).expect("room");
        frame.truncate(len);
        let left = len.min(450);
        assert_eq!(contents(&frame), &bytes[..left], "cut to {len}");
        assert_eq!(u32::from(frame.segments()), pool.in_use());
        assert_eq!(usize::from(frame.segments()), left.div_ceil(100).max(1));
    }
    assert_eq!(pool.in_use(), 0);
}

fn copy_and_write(bed: &Bed) {
    let pool = pool(bed, "cross", 15, 64);
    let mut model = pattern(300);
    let mut frame = pool.alloc(&model).expect("room");
    for offset in 0..=301_usize {
        for len in [0, 1, 2, 63, 64, 65, 130, 400] {
            let part: Vec<u8> = (0..len).map(|i| (i + offset) as u8).collect();
            let fits = len.min(300_usize.saturating_sub(offset));
            assert_eq!(frame.write_at(offset, &part), fits);
            if fits > 0 {
                model[offset..offset + fits].copy_from_slice(&part[..fits]);
            }
            let mut read = vec![0xaa; len];
            assert_eq!(frame.copy_to(offset, &mut read), fits);
            assert_eq!(read[..fits], part[..fits]);
            assert!(read[fits..].iter().all(|byte| *byte == 0xaa));
        }
    }
    assert_eq!(contents(&frame), model);
}

fn chained(bed: &Bed) {
    let pool = pool(bed, "chain", 31, 64);
    let mut frame = pool.alloc(&pattern(100)).expect("room");
    frame
        .chain(pool.alloc(&pattern(200)).expect("room"))
        .expect("few segments");
    assert_eq!(contents(&frame), [pattern(100), pattern(200)].concat());
    assert_eq!(frame.segments(), 2 + 4);
    let wide = self::pool(bed, "wide", 7, 512);
    let one = frame.to_one_segment(&wide).expect("room");
    assert_eq!((one.segments(), contents(&one)), (1, contents(&frame)));
    assert!(
        frame.to_one_segment(&pool).is_none(),
        "64 bytes don't hold 300"
    );
    drop(frame);
    assert_eq!((pool.in_use(), wide.in_use()), (0, 1));
}

fn emptied_head(bed: &Bed) {
    let pool = pool(bed, "empty", 15, 100);
    let bytes = pattern(250);
    let mut frame = pool.alloc(&bytes).expect("room");
    assert!(frame.trim_front(100));
    assert!(!frame.head().is_empty());
    assert_eq!(contents(&frame), &bytes[100..]);
    assert!(frame.prepend(100), "there is headroom again");
}

fn exhausted(bed: &Bed) {
    let pool = pool(bed, "small", 7, 64);
    assert!(pool.alloc(&pattern(64 * 7 + 1)).is_none());
    assert_eq!(pool.in_use(), 0, "what it had got went back");
    let mut all: Vec<Mbuf> = std::iter::from_fn(|| pool.alloc(b"x")).collect();
    assert_eq!((all.len(), pool.available()), (7, 0));
    free_burst(&mut all);
    assert_eq!((all.len(), pool.available(), pool.capacity()), (0, 7, 7));
}

fn other_threads(bed: &Bed) {
    let pool = Mempool::new(&bed.eal, "cached", 255, 32, 64, None).expect("pool");
    let made: Vec<Mbuf> = (0..100).map(|_| pool.alloc(b"x").expect("room")).collect();
    let (registered, plain) = made
        .into_iter()
        .enumerate()
        .partition::<Vec<_>, _>(|(i, _)| i % 2 == 0);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _guard = ripvs_nic::Eal::register_thread().expect("an lcore id");
            assert!(ripvs_nic::Eal::register_thread().is_err(), "twice");
            drop(registered);
        });
        scope.spawn(move || drop(plain));
    });
    assert_eq!(pool.in_use(), 0);
    let mut all: Vec<Mbuf> = std::iter::from_fn(|| pool.alloc(b"x")).collect();
    assert_eq!(
        all.len(),
        255,
        "none stays in the cache of a thread that is gone"
    );
    free_burst(&mut all);
}

fn bad_pools(bed: &Bed) {
    let make =
        |name: &str, count, cache, room| Mempool::new(&bed.eal, name, count, cache, room, None);
    let _first = make("twice", 7, 0, 64).expect("pool");
    assert_eq!(
        make("twice", 7, 0, 64).expect_err("exists"),
        PoolError::Exists("twice".into())
    );
    for name in ["", "a name", "a\0b", "abcdefghijklmnopqrstuvwxyz"] {
        assert_eq!(
            make(name, 7, 0, 64).expect_err("name"),
            PoolError::Name(name.into())
        );
    }
    assert!(matches!(
        make("p", 0, 0, 64),
        Err(PoolError::Size { what: "count", .. })
    ));
    assert!(matches!(
        make("p", 7, 7, 64),
        Err(PoolError::Size { what: "cache", .. })
    ));
    assert!(matches!(
        make("p", 7, 0, u16::MAX),
        Err(PoolError::Size {
            what: "data room",
            ..
        })
    ));
    let error = make("huge", 1 << 22, 0, 2048).expect_err("memory");
    assert!(matches!(error, PoolError::NoMemory { .. }), "{error}");
}
