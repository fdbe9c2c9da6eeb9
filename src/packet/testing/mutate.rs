//! Ways of spoiling a frame, each in one place or field, so that what is behind it is still reached.

use super::rng::Rng;
use crate::{eth, ipv4, ipv6, udp};

/// Spoils a frame in one of many ways.
pub(super) fn mutate(rng: &mut Rng, frame: &mut Vec<u8>) {
    if frame.is_empty() {
        return;
    }
    match rng.below(9) {
        0 => frame.truncate(rng.below(frame.len() + 1)),
        1 => {
            let padding = rng.below(80);
            frame.extend(rng.fill(padding));
        }
        2 => {
            let at = rng.below(frame.len());
            frame[at] ^= 1 << rng.below(8);
        }
        3 => {
            let at = rng.below(frame.len());
            frame[at] = rng.byte();
        }
        4 => {
            let at = rng.below(frame.len());
            let len = rng.below(16);
            frame.splice(at..at, rng.fill(len));
        }
        5 => {
            let at = rng.below(frame.len());
            let end = (at + 1 + rng.below(16)).min(frame.len());
            frame.drain(at..end);
        }
        6 => header_field(rng, frame),
        7 => transport_field(rng, frame),
        _ => checksum(rng, frame),
    }
    // Most wrong IPv4 headers would end at the checksum: where it is made right, the rest is read too.
    if rng.one_in(2) {
        repair(frame);
    }
}

/// Makes the IPv4 header checksum right again, if there is an IPv4 header.
pub(super) fn repair(frame: &mut [u8]) {
    if let Some(l3) = eth::parse(frame).filter(|l2| l2.ethertype == eth::ethertype::IPV4) {
        ipv4::fill_checksum(&mut frame[usize::from(l3.l3_offset)..]);
    }
}

/// Changes a byte among the first 64 of a packet.
pub(super) fn change_byte(rng: &mut Rng, packet: &mut [u8]) {
    if !packet.is_empty() {
        let at = rng.below(packet.len().min(64));
        packet[at] = rng.byte();
    }
}

fn set(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// Where the IP header lies and whether it is an IPv6 one.
fn ip(frame: &[u8]) -> Option<(usize, bool)> {
    let l2 = eth::parse(frame)?;
    Some((
        usize::from(l2.l3_offset),
        l2.ethertype == eth::ethertype::IPV6,
    ))
}

fn header_field(rng: &mut Rng, frame: &mut [u8]) {
    let Some((l3, v6)) = ip(frame) else { return };
    let (byte, short) = (rng.byte(), rng.short());
    let fields: &[(usize, bool)] = if v6 {
        &[
            (0, false),
            (ipv6::PAYLOAD_LEN, true),
            (ipv6::NEXT_HEADER, false),
            (ipv6::HOP_LIMIT, false),
            (ipv6::SRC, true),
            (ipv6::DST, true),
            (40, false),
            (41, false),
            (42, true),
        ]
    } else {
        &[
            (0, false),
            (ipv4::TOTAL_LEN, true),
            (ipv4::FRAGMENT, true),
            (ipv4::TTL, false),
            (ipv4::PROTOCOL, false),
            (ipv4::SRC, true),
            (ipv4::DST, true),
            (20, false),
            (21, false),
        ]
    };
    let (at, wide) = rng.pick(fields);
    if wide {
        set(frame, l3 + at, &short.to_be_bytes());
    } else {
        set(frame, l3 + at, &[byte]);
    }
}

fn transport_field(rng: &mut Rng, frame: &mut [u8]) {
    let Some((l3, v6)) = ip(frame) else { return };
    let l4 = l3
        + if v6 {
            ipv6::HEADER_LEN
        } else {
            ipv4::HEADER_LEN
        };
    let (byte, short) = (rng.byte(), rng.short());
    match rng.below(4) {
        0 => set(frame, l4 + udp::LENGTH, &short.to_be_bytes()),
        1 => set(frame, l4 + crate::tcp::DATA_OFFSET, &[byte]),
        2 => set(frame, l4 + crate::tcp::FLAGS, &[byte]),
        _ => set(frame, l4 + 2 * rng.below(8), &short.to_be_bytes()),
    }
}

fn checksum(rng: &mut Rng, frame: &mut [u8]) {
    let Some((l3, v6)) = ip(frame) else { return };
    let short = rng.short();
    let l4 = l3
        + if v6 {
            ipv6::HEADER_LEN
        } else {
            ipv4::HEADER_LEN
        };
    let at = rng.pick(&[
        l3 + ipv4::CHECKSUM,
        l4 + udp::CHECKSUM,
        l4 + crate::tcp::CHECKSUM,
        l4 + crate::icmp::CHECKSUM,
    ]);
    set(frame, at, &short.to_be_bytes());
}
