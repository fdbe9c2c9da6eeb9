//! Datagrams cut again, on their way out.

use super::*;

// What the kernel (6.1.176) answered to datagrams of 1008 bytes that came as 400 and 608.

#[test]
fn v4_boundaries_are_kept_where_the_datagram_passes_through() {
    let whole = v4(7, 0, 0, &[], &payload(1008));
    let pieces = Pieces {
        largest: 628,
        df: false,
        later: Box::from([608]),
    };
    assert!(must_cut_v4(1028, 1500, Some(&pieces)));
    let fragments = cut4(&whole, 1500, Some(&pieces), false).unwrap();
    assert_eq!(geometry(&fragments), [(0, 400, true), (400, 608, false)]);
    assert_eq!(info(&fragments[1]).frag_id, 7);
    let fragments = cut4(&whole, 1500, Some(&pieces.clone().merged()), false).unwrap();
    assert_eq!(geometry(&fragments), [(0, 608, true), (608, 400, false)]);
    let fragments = cut4(&whole, 600, Some(&pieces), false).unwrap();
    assert_eq!(geometry(&fragments), [(0, 576, true), (576, 432, false)]);
}

#[test]
fn what_is_rewritten_is_taken_into_the_first_fragment_from_those_behind() {
    // 8 + 24 + 40 bytes behind 20 of IP header.
    let pieces = Pieces {
        largest: 60,
        df: false,
        later: Box::from([24, 40]),
    };
    let later = |need: usize| pieces.clone().pulled(92, need).later.to_vec();
    assert_eq!(later(28), [24, 40]);
    assert_eq!(later(40), [12, 40]);
    assert_eq!(later(52), [40]);
    assert_eq!(later(60), [32]);
    assert_eq!(later(92), [0; 0]);
    assert_eq!(later(500), [0; 0]);
    let whole = v4(7, 0, 0, &[], &payload(72));
    let cut = |need| {
        let pieces = pieces.clone().pulled(92, need);
        geometry(&cut4(&whole, 1500, Some(&pieces), false).unwrap())
    };
    // A first part that is no multiple of eight is cut anew; one that is stays.
    assert_eq!(cut(40), [(0, 40, true), (40, 32, false)]);
    assert_eq!(cut(36), [(0, 16, true), (16, 16, true), (32, 40, false)]);
}

#[test]
fn options_of_the_first_fragment_can_move_boundaries_and_are_not_all_copied() {
    let options = [1, 7, 7, 4, 0, 0, 0, 0];
    let whole = v4(7, 0, 0, &options, &payload(1008));
    let pieces = Pieces {
        largest: 628,
        df: false,
        later: Box::from([608]),
    };
    let fragments = cut4(&whole, 1500, Some(&pieces), false).unwrap();
    assert_eq!(geometry(&fragments), [(0, 600, true), (600, 408, false)]);
    assert_eq!(fragments[0][34..42], options);
    assert_eq!(fragments[1][34..42], [1; 8]);
    let copied = v4(7, 0, 0, &[0x94, 4, 0, 0], &payload(1008));
    assert_eq!(
        cut4(&copied, 600, None, false).unwrap()[1][34..38],
        [0x94, 4, 0, 0]
    );
}

#[test]
fn df_forbids_cutting_what_is_routed_and_stays_set_on_what_ipvs_sends() {
    let whole = v4(7, ipv4::DF, 0, &[], &payload(1008));
    let pieces = Pieces {
        largest: 628,
        df: true,
        later: Box::default(),
    };
    assert_eq!(
        cut4(&whole, 1500, Some(&pieces), false),
        Err(CutError::TooBig { mtu: 1500 })
    );
    assert_eq!(
        cut4(&whole, 600, Some(&pieces), true),
        Err(CutError::TooBig { mtu: 600 })
    );
    assert_eq!(
        cut4(&whole, 1000, None, false),
        Err(CutError::TooBig { mtu: 1000 })
    );
    let fragments = cut4(&whole, 1500, Some(&pieces), true).unwrap();
    assert_eq!(geometry(&fragments), [(0, 608, true), (608, 400, false)]);
    assert!(fragments
        .iter()
        .all(|bytes| info(bytes).has(ripvs_packet::parse::flags::DONT_FRAGMENT)));
}

#[test]
fn a_tunnel_header_moves_boundaries_where_they_no_longer_fit() {
    // 504 and 504 with DF, and 20 bytes of outer header in front.
    let whole = v4(0, ipv4::DF, 0, &[], &payload(1028));
    let pieces = Pieces {
        largest: 524,
        df: true,
        later: Box::from([504]),
    };
    let fragments = cut4(&whole, 1500, Some(&pieces), true).unwrap();
    assert_eq!(
        geometry(&fragments),
        [(0, 504, true), (504, 504, true), (1008, 20, false)]
    );
}

#[test]
fn a_fragment_can_be_cut_further() {
    let fragment = v4(7, ipv4::MF | 100, 0, &[], &payload(800));
    let fragments = cut4(&fragment, 600, None, false).unwrap();
    assert_eq!(geometry(&fragments), [(800, 576, true), (1376, 224, true)]);
}

#[test]
fn v6_datagrams_leave_as_they_came_with_a_new_identification() {
    let whole = v6(17, &payload(2008));
    let pieces = Pieces {
        largest: 1256,
        df: false,
        later: Box::from([1208]),
    };
    assert!(must_cut_v6(2048, 1500, Some(&pieces)));
    let fragments = cut6(&whole, 1500, Some(&pieces), true).unwrap();
    assert_eq!(geometry(&fragments), [(0, 800, true), (800, 1208, false)]);
    assert!(fragments
        .iter()
        .all(|bytes| info(bytes).frag_id == 99 && info(bytes).protocol == 17));
    assert_eq!(
        cut6(&whole, 1255, Some(&pieces), true),
        Err(CutError::TooBig { mtu: 1255 })
    );
    assert_eq!(
        cut6(&whole, 1500, None, false),
        Err(CutError::TooBig { mtu: 1500 })
    );
    let fragments = cut6(&whole, 1500, None, true).unwrap();
    assert_eq!(geometry(&fragments), [(0, 1448, true), (1448, 560, false)]);
}

#[test]
fn the_v6_fragment_header_goes_behind_what_every_hop_reads() {
    let options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
    let routing = |next| [next, 0, 0, 0, 0, 0, 0, 0];
    let chain = |headers: &[[u8; 8]]| {
        let mut rest: Vec<u8> = headers.concat();
        rest.extend(payload(1600));
        rest
    };
    let at = |first, rest: &[u8]| {
        let fragments = cut6(&v6(first, rest), 1500, None, true).unwrap();
        usize::from(info(&fragments[1]).frag_header)
    };
    assert_eq!(at(17, &chain(&[])), 40);
    assert_eq!(at(0, &chain(&[options(17)])), 48);
    assert_eq!(at(60, &chain(&[options(17)])), 48);
    assert_eq!(at(60, &chain(&[options(43), routing(60), options(17)])), 56);
    let cut_short = v6(60, &[17, 250, 0, 0]);
    assert_eq!(cut6(&cut_short, 1500, None, true), Err(CutError::Malformed));
}

#[test]
fn frames_that_are_no_packets_are_not_cut() {
    assert_eq!(cut4(&L2, 1500, None, false), Err(CutError::Malformed));
    let mut bytes = v4(7, 0, 0, &[], &payload(100));
    bytes.truncate(100);
    assert_eq!(cut4(&bytes, 60, None, false), Err(CutError::Malformed));
    assert_eq!(
        cut6(&v6(17, &payload(100))[..120], 1500, None, true),
        Err(CutError::Malformed)
    );
    assert_eq!(
        cut4(&v4(7, 0, 0, &[], &payload(100)), 27, None, false),
        Err(CutError::TooBig { mtu: 27 })
    );
}
