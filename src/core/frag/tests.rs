//! Fragments end to end: what is cut is put together again, in any order, with the kernel's answers to what is odd.

mod bench;
mod cut;

use proptest::prelude::*;
use ripvs_packet::memory::MemFrame;
use ripvs_packet::parse::{parse, Family};
use ripvs_packet::testing::{Fuzz, World};
use ripvs_packet::{eth, ipv4};

use super::*;
use crate::types::{IfaceId, Time};
use bench::*;

#[test]
fn every_order_of_four_v4_fragments_gives_the_datagram() {
    let data = payload(1000);
    let whole = v4(7, 0, 0, &[], &data);
    let parts: Vec<_> = [0, 256, 512, 768]
        .map(|at| v4_part(7, &data, at, 256, 0))
        .to_vec();
    for order in 0..24 {
        let mut left: Vec<_> = parts.clone();
        let mut bench = Bench::new();
        let mut rest = order;
        for n in (1..=4).rev() {
            let part = left.remove(rest % n);
            rest /= n;
            let gathered = bench.push(&part);
            if n > 1 {
                assert_eq!(is_held(gathered), 0);
            } else {
                let (frame, pieces) = complete(gathered);
                assert_eq!(frame, whole);
                assert_eq!(*pieces.later, [256, 256, 232]);
                assert_eq!((pieces.largest, pieces.df), (276, false));
            }
        }
        assert_eq!(bench.held(), (0, 0));
        assert_eq!(bench.counts[1], 3, "three of four frames are absorbed");
    }
}

#[test]
fn a_v6_datagram_loses_its_fragment_header_and_keeps_other_headers() {
    let data = payload(300);
    let hop = [44, 0, 1, 4, 0, 0, 0, 0];
    let part = |offset: usize, more: bool, data: &[u8]| {
        let mut rest = hop.to_vec();
        rest.extend([17, 0]);
        rest.extend((offset as u16 | u16::from(more)).to_be_bytes());
        rest.extend([0, 0, 0, 5]);
        rest.extend(data);
        v6(0, &rest)
    };
    let mut bench = Bench::new();
    is_held(bench.push(&part(160, false, &data[160..])));
    let (frame, pieces) = complete(bench.push(&part(0, true, &data[..160])));
    let mut rest = vec![17, 0, 1, 4, 0, 0, 0, 0];
    rest.extend(&data);
    assert_eq!(frame, v6(0, &rest));
    assert_eq!(
        (pieces.largest, &*pieces.later),
        (40 + 8 + 8 + 160, &[140][..])
    );
}

#[test]
fn an_atomic_v6_fragment_is_complete_at_once() {
    let mut bench = Bench::new();
    let (frame, pieces) = complete(bench.push(&v6_part(1, 0, false, &payload(108))));
    assert_eq!(frame, v6(17, &payload(108)));
    assert!(pieces.later.is_empty());
    assert!(!must_cut_v6(frame.len() - 14, 1500, Some(&pieces)));
}

#[test]
fn ethernet_padding_and_segments_do_not_matter() {
    let data = payload(40);
    let mut last = v4_part(7, &data, 32, 8, 0);
    last.extend([0xee; 18]);
    let first = v4_part(7, &data, 0, 32, 0);
    let mut bench = Bench::new();
    is_held(bench.push(&last));
    let segmented = MemFrame::with_segments(&[&first[..36], &first[36..40], &first[40..]], 64);
    let (frame, _) = complete(bench.push_by(IfaceId(1), segmented));
    assert_eq!(frame, v4(7, 0, 0, &[], &data));
}

#[test]
fn duplicates_are_dropped_and_the_datagram_is_still_put_together() {
    let data = payload(600);
    let mut bench = Bench::new();
    is_held(bench.push(&v4_part(7, &data, 0, 200, 0)));
    is_held(bench.push(&v4_part(7, &data, 200, 200, 0)));
    assert_eq!(
        dropped(bench.push(&v4_part(7, &data, 0, 200, 0))),
        (FragDrop::Duplicate, 1)
    );
    // Within a run of adjacent fragments, boundaries do not matter.
    assert_eq!(
        dropped(bench.push(&v4_part(7, &data, 104, 200, 0))),
        (FragDrop::Duplicate, 1)
    );
    assert_eq!(bench.held(), (2, 1));
    complete(bench.push(&v4_part(7, &data, 400, 200, 0)));
}

#[test]
fn overlaps_drop_the_whole_datagram() {
    let data = payload(1000);
    let cases: [&[(usize, usize)]; 5] = [
        &[(0, 400), (200, 400)],
        &[(400, 200), (200, 400)],
        &[(400, 200), (0, 408)],
        &[(0, 200), (400, 200), (0, 800)],
        &[(400, 200), (200, 200), (208, 400)],
    ];
    for case in cases {
        let mut bench = Bench::new();
        let (last, before) = case.split_last().unwrap();
        for (at, len) in before {
            is_held(bench.push(&v4_part(7, &data, *at, *len, 0)));
        }
        let overlap = dropped(bench.push(&v4_part(7, &data, last.0, last.1, 0)));
        assert_eq!(overlap, (FragDrop::Overlap, case.len()), "{case:?}");
        assert_eq!(bench.held(), (0, 0));
    }
}

#[test]
fn contradicting_ends_drop_a_v4_datagram_but_only_the_v6_fragment() {
    let data = payload(400);
    let mut bench = Bench::new();
    is_held(bench.push(&v4_part(7, &data, 200, 200, 0)));
    let beyond = v4(7, ipv4::MF | 50, 0, &[], &payload(8));
    assert_eq!(dropped(bench.push(&beyond)), (FragDrop::BadEnd, 2));
    is_held(bench.push(&v4_part(8, &data, 200, 200, 0)));
    let other_end = v4(8, 25, 0, &[], &payload(100));
    assert_eq!(dropped(bench.push(&other_end)), (FragDrop::BadEnd, 2));

    is_held(bench.push(&v6_part(7, 200, false, &data[200..])));
    assert_eq!(
        dropped(bench.push(&v6_part(7, 400, true, &payload(8)))),
        (FragDrop::BadEnd, 1)
    );
    assert_eq!(bench.held(), (1, 1));
    complete(bench.push(&v6_part(7, 0, true, &data[..200])));
}

#[test]
fn empty_fragments_are_dropped() {
    let mut bench = Bench::new();
    is_held(bench.push(&v4(7, ipv4::MF, 0, &[], &payload(8))));
    assert_eq!(
        dropped(bench.push(&v4(7, 5, 0, &[], &[]))),
        (FragDrop::Empty, 2)
    );
    assert_eq!(
        dropped(bench.push(&v4(7, ipv4::MF | 5, 0, &[], &payload(7)))),
        (FragDrop::Empty, 1)
    );
    assert_eq!(
        dropped(bench.push(&v6_part(7, 8, false, &[]))),
        (FragDrop::Empty, 1)
    );
}

#[test]
fn a_v4_fragment_of_odd_length_is_trimmed_to_eight_bytes() {
    let data = payload(200);
    let mut bench = Bench::new();
    is_held(bench.push(&v4(7, ipv4::MF, 0, &[], &data[..100])));
    let (frame, pieces) = complete(bench.push(&v4_part(7, &data, 96, 200, 0)));
    assert_eq!(frame, v4(7, 0, 0, &[], &data));
    assert_eq!((pieces.largest, &*pieces.later), (124, &[104][..]));
}

#[test]
fn a_v6_fragment_of_odd_length_goes_on_as_it_is() {
    let mut bench = Bench::new();
    is_held(bench.push(&v6_part(7, 800, false, &payload(100))));
    match bench.push(&v6_part(7, 0, true, &payload(100))) {
        Gathered::Ungathered {
            frame,
            why,
            dropped,
        } => {
            assert_eq!((why, dropped), (UngatheredReason::BadLength, 1));
            assert_eq!(frame.to_vec(), v6_part(7, 0, true, &payload(100)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.held(), (0, 0));
}

#[test]
fn a_first_v6_fragment_without_all_headers_goes_on_as_it_is() {
    let mut bench = Bench::new();
    for (next_header, len, gathered) in [
        (17, 0, false),
        (17, 8, true),
        (6, 16, false),
        (6, 24, true),
        (58, 8, true),
        (60, 16, true),
    ] {
        let mut bytes = v6_part(
            u32::from(next_header) * 100 + len as u32,
            0,
            true,
            &vec![0; len],
        );
        bytes[54] = next_header;
        let incomplete = matches!(
            bench.push(&bytes),
            Gathered::Ungathered {
                why: UngatheredReason::IncompleteHeaders,
                ..
            }
        );
        assert_eq!(!incomplete, gathered, "{len} bytes of {next_header}");
    }
}

#[test]
fn what_is_no_fragment_is_handed_back() {
    let mut bench = Bench::new();
    for bytes in [v4(7, 0, 0, &[], &payload(8)), v6(17, &payload(8))] {
        let gathered = bench.push(&bytes);
        assert!(matches!(
            gathered,
            Gathered::Ungathered {
                why: UngatheredReason::NotAFragment,
                ..
            }
        ));
    }
}

#[test]
fn fragments_of_different_datagrams_do_not_mix() {
    let data = payload(100);
    let mut bench = Bench::new();
    is_held(bench.push(&v4_part(7, &data, 0, 48, 0)));
    is_held(bench.push(&v4_part(8, &data, 48, 100, 0)));
    let mut other_protocol = v4_part(7, &data, 48, 100, 0);
    other_protocol[14 + ipv4::PROTOCOL] = 6;
    ipv4::fill_checksum(&mut other_protocol[14..34]);
    is_held(bench.push(&other_protocol));
    // An IPv4 datagram may come by two interfaces, an IPv6 one may not.
    complete(bench.push_by(IfaceId(2), MemFrame::new(&v4_part(7, &data, 48, 100, 0))));
    is_held(bench.push(&v6_part(7, 0, true, &data[..48])));
    is_held(bench.push_by(
        IfaceId(2),
        MemFrame::new(&v6_part(7, 48, false, &data[48..])),
    ));
    complete(bench.push(&v6_part(7, 48, false, &data[48..])));
}

#[test]
fn datagrams_are_given_up_in_time_with_their_first_fragment() {
    let data = payload(600);
    let mut bench = Bench::new();
    is_held(bench.push_by(IfaceId(3), MemFrame::new(&v4_part(1, &data, 0, 200, 0))));
    bench.now = Time::from_secs(21);
    is_held(bench.push(&v4_part(1, &data, 200, 200, 0)));
    is_held(bench.push(&v4_part(2, &data, 200, 200, 0)));
    is_held(bench.push(&v6_part(3, 0, true, &data[..200])));
    bench.now = Time(Time::from_secs(31).0 - 1);
    assert!(bench.expire(10).is_empty());
    bench.now = Time::from_secs(31);
    let expired = bench.expire(10);
    let [first] = &expired[..] else {
        panic!("{expired:?}")
    };
    assert_eq!(
        first.first.as_ref().unwrap().to_vec(),
        v4_part(1, &data, 0, 200, 0)
    );
    assert_eq!(
        (first.dropped, first.iface, first.l3_offset),
        (1, IfaceId(1), 14)
    );
    bench.now = Time::from_secs(100);
    let expired = bench.expire(1);
    assert!(expired[0].first.is_none() && expired[0].dropped == 1);
    let expired = bench.expire(1);
    assert_eq!(expired[0].family, Family::V6);
    assert!(expired[0].first.is_some());
    assert_eq!(bench.held(), (0, 0));
}

#[test]
fn too_many_fragments_of_a_source_in_between_give_a_datagram_up() {
    let data = payload(400);
    let mut bench = Bench::new();
    is_held(bench.push(&v4_part(1, &data, 0, 200, 0)));
    for id in 0..64 {
        is_held(bench.push(&v4_part(100 + id, &data, 0, 200, 0)));
    }
    assert_eq!(
        is_held(bench.push(&v4_part(1, &data, 200, 200, 0))),
        1,
        "the first half is dropped"
    );
    bench.now = Time::from_secs(2);
    for id in 0..63 {
        is_held(bench.push(&v4_part(200 + id, &data, 0, 200, 0)));
    }
    complete(bench.push(&v4_part(1, &data, 0, 200, 0)));
}

#[test]
fn a_datagram_begun_anew_has_its_whole_time_again() {
    let data = payload(400);
    let mut bench = Bench::with(Settings {
        max_distance: 1,
        ..Settings::default()
    });
    is_held(bench.push(&v4_part(1, &data, 0, 200, 0)));
    is_held(bench.push(&v4_part(2, &data, 0, 200, 0)));
    bench.now = Time::from_secs(20);
    assert_eq!(is_held(bench.push(&v4_part(1, &data, 200, 200, 0))), 1);
    bench.now = Time::from_secs(40);
    assert_eq!(bench.expire(10).len(), 1);
    assert_eq!(bench.held(), (1, 1));
    bench.now = Time::from_secs(50);
    assert_eq!(bench.expire(10).len(), 1);
}

#[test]
fn memory_and_datagrams_are_bounded() {
    let data = payload(400);
    let mut bench = Bench::with(Settings {
        max_bytes: 10_000,
        max_datagrams: 3,
        ..Settings::default()
    });
    for id in 0..3 {
        is_held(bench.push(&v4_part(id, &data, 0, 200, 0)));
    }
    assert_eq!(
        dropped(bench.push(&v4_part(3, &data, 0, 200, 0))),
        (FragDrop::NoRoom, 1)
    );
    assert_eq!(
        dropped(bench.push(&v6_part(3, 0, true, &data))),
        (FragDrop::NoRoom, 1)
    );
    complete(bench.push(&v4_part(0, &data, 200, 200, 0)));
    for at in [0, 40, 80, 120] {
        bench.push(&v6_part(9, at, true, &data[at..at + 40]));
    }
    is_held(bench.push(&v6_part(9, 160, true, &data[160..200])));
    // Above ten thousand bytes of IPv6 nothing more of IPv6 is taken, IPv4 still is.
    assert_eq!(
        dropped(bench.push(&v6_part(9, 200, false, &data[200..]))),
        (FragDrop::NoRoom, 1)
    );
    complete(bench.push(&v4_part(1, &data, 200, 200, 0)));
    bench.now = Time::from_secs(100);
    bench.expire(10);
    assert_eq!(bench.reassembler.held(), Held::default());
}

#[test]
fn the_longest_datagram_fits_and_no_longer_one() {
    let data = payload(65515);
    let mut bench = Bench::with(Settings {
        max_bytes: 1 << 30,
        ..Settings::default()
    });
    for at in (0..65515).step_by(1480) {
        let gathered = bench.push(&v4_part(1, &data, at, 1480, 0));
        if at + 1480 >= 65515 {
            let (frame, _) = complete(gathered);
            assert_eq!(frame.len(), 14 + 65535);
        }
    }
    let data = payload(65528 + 8);
    is_held(bench.push(&v4_part(2, &data, 0, 32768, 0)));
    is_held(bench.push(&v4_part(2, &data, 32768, 32760, 0)));
    assert_eq!(
        dropped(bench.push(&v4_part(2, &data, 65528, 8, 0))),
        (FragDrop::TooLong, 3)
    );
    assert_eq!(
        dropped(bench.push(&v6_part(2, 65528, false, &data[..8]))),
        (FragDrop::TooLong, 1)
    );
}

#[test]
fn ecn_is_merged_as_rfc_3168_says() {
    for (first, second, merged) in [
        (0, 0, Some(0)),
        (1, 2, Some(1)),
        (2, 3, Some(3)),
        (1, 3, Some(3)),
        (3, 3, Some(3)),
        (0, 1, None),
        (0, 3, None),
        (0x28, 0x50, Some(0x28)),
    ] {
        let mut bench = Bench::new();
        is_held(bench.push(&v4(7, ipv4::MF, first, &[], &payload(8))));
        let gathered = bench.push(&v4(7, 1, second, &[], &payload(8)));
        match merged {
            Some(tos) => assert_eq!(
                info(&complete(gathered).0).tos,
                tos,
                "{first:#x} {second:#x}"
            ),
            None => assert_eq!(dropped(gathered), (FragDrop::MixedEcn, 2)),
        }
    }
}

#[test]
fn df_is_kept_where_the_largest_fragment_has_it() {
    let data = payload(1008);
    for (first, second, df) in [
        (0, ipv4::DF, true),
        (ipv4::DF, 0, false),
        (ipv4::DF, ipv4::DF, true),
    ] {
        let mut bench = Bench::new();
        is_held(bench.push(&v4_part(7, &data, 0, 400, first)));
        let (frame, pieces) = complete(bench.push(&v4_part(7, &data, 400, 608, second)));
        assert_eq!(pieces.df, df);
        assert_eq!(frame, v4(7, if df { ipv4::DF } else { 0 }, 0, &[], &data));
    }
}

#[test]
fn without_a_frame_for_it_the_datagram_is_dropped() {
    let data = payload(400);
    let mut bench = Bench::new();
    bench.io.allocs_left = Some(0);
    is_held(bench.push(&v4_part(1, &data, 0, 200, 0)));
    assert_eq!(
        dropped(bench.push(&v4_part(1, &data, 200, 200, 0))),
        (FragDrop::NoFrame, 2)
    );
    assert_eq!(bench.held(), (0, 0));
}

#[test]
fn odd_fragments_are_all_accounted_for_and_what_is_whole_can_be_cut() {
    let mut bench = Bench::with(Settings {
        max_bytes: 400_000,
        max_datagrams: 50,
        ..Settings::default()
    });
    let mut whole = 0;
    for frame in Fuzz::new(11, World::small()).take(200_000) {
        bench.now = Time(bench.now.0 + 10_000_000);
        bench.expire(2);
        let Some(l2) = eth::parse(&frame).filter(|l2| l2.l3_offset == 14) else {
            continue;
        };
        let l3 = &frame[14..];
        let Ok(info) = parse(l2.ethertype, l3, l3.len()) else {
            continue;
        };
        if let Gathered::Complete(datagram) = bench.push(&frame) {
            let bytes = datagram.frame.to_vec();
            // Behind a fragment header, what makes no sense in front (hop-by-hop options, say) has not been read before.
            if parse(l2.ethertype, &bytes[14..], bytes.len() - 14).is_err() {
                continue;
            }
            let pieces = Some(&datagram.pieces);
            let cut = match info.family {
                Family::V4 => cut4(&bytes, 1500, pieces, true),
                Family::V6 => cut6(&bytes, 1500, pieces, true),
            };
            let Ok(fragments) = cut else { continue };
            let data: usize = fragments.iter().map(|f| self::info(f).l4_len()).sum();
            assert!(fragments.iter().all(|f| f.len() <= 14 + 1500) && data > 0);
            whole += 1;
        }
    }
    assert!(whole > 1000, "{whole}");
    bench.now = Time::from_secs(10_000);
    bench.expire(usize::MAX);
    assert_eq!(bench.reassembler.held(), Held::default());
}

proptest! {
    #[test]
    fn v4_packets_cut_and_put_together_are_the_same(
        len in 1usize..4000, mtu in 68usize..1500, options in 0usize..=10, shuffle: u64, id: u16, tos: u8,
    ) {
        let options: Vec<u8> = [0x94, 4, 0, 0].repeat(options);
        let whole = v4(id, 0, tos, &options, &payload(len));
        let fragments = cut4(&whole, mtu, None, false).unwrap();
        prop_assert!(fragments.iter().all(|bytes| bytes.len() <= 14 + mtu));
        prop_assume!(fragments.len() > 1);
        let (frame, pieces) = put_together(fragments.clone(), shuffle);
        prop_assert_eq!(&frame, &whole);
        prop_assert!(pieces.largest as usize <= mtu);
        prop_assert_eq!(cut4(&frame, mtu, Some(&pieces), false).unwrap(), fragments);
    }

    #[test]
    fn v6_packets_cut_and_put_together_are_the_same(
        len in 1400usize..5000, mtu in 1280usize..1500, headers in 0usize..3, shuffle: u64,
    ) {
        let mut rest = Vec::new();
        for header in 0..headers {
            rest.extend([if header + 1 < headers { 60 } else { 17 }, 0, 1, 4, 0, 0, 0, 0]);
        }
        rest.extend(payload(len));
        let whole = v6(if headers > 0 { 60 } else { 17 }, &rest);
        let fragments = cut6(&whole, mtu, None, true).unwrap();
        prop_assert!(fragments.iter().all(|bytes| bytes.len() <= 14 + mtu));
        let (frame, pieces) = put_together(fragments.clone(), shuffle);
        prop_assert_eq!(&frame, &whole);
        prop_assert_eq!(cut6(&frame, 1500, Some(&pieces), true).unwrap(), fragments);
    }

    #[test]
    fn the_sums_hold_whatever_comes(
        parts in proptest::collection::vec((0u16..4, 0usize..40, 0usize..60, any::<bool>(), any::<bool>()), 1..200),
    ) {
        let mut bench = Bench::with(Settings { max_bytes: 40_000, max_datagrams: 3, max_distance: 5, ..Settings::default() });
        for (id, offset, len, more, six) in parts {
            bench.now = Time(bench.now.0 + 1_000_000_000);
            bench.expire(1);
            let data = payload(len);
            if six {
                bench.push(&v6_part(u32::from(id), offset * 8, more, &data));
            } else {
                bench.push(&v4(id, offset as u16 | if more { ipv4::MF } else { 0 }, 0, &[], &data));
            }
        }
        bench.now = Time::from_secs(1000);
        while !bench.expire(2).is_empty() {}
        prop_assert_eq!(bench.reassembler.held(), Held::default());
    }
}

/// Pushes fragments in an order drawn from `shuffle`, and some of them twice.
fn put_together(mut fragments: Vec<Vec<u8>>, shuffle: u64) -> (Vec<u8>, Pieces) {
    let mut bench = Bench::with(Settings {
        max_distance: 0,
        ..Settings::default()
    });
    let mut state = shuffle | 1;
    while fragments.len() > 1 {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let next = fragments.swap_remove((state >> 33) as usize % fragments.len());
        is_held(bench.push(&next));
        if state >> 62 == 0 {
            assert_eq!(dropped(bench.push(&next)), (FragDrop::Duplicate, 1));
        }
    }
    complete(bench.push(&fragments[0]))
}
