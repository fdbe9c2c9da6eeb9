//! The kernel's own answers as a test: what it sent for each of the packets of `kernel.rows`, this sends too.

use super::testing::{hex, Bed, ETH0, ETH1};
use super::NetConfig;
use ripvs_packet::eth::ethertype;
use ripvs_packet::ipv4::{self, Ipv4};
use ripvs_packet::ipv6::{self, Ipv6};

/// Sets to 0 what no sender can know of another: the identification of IPv4 packets (where the kernel's says 0) and of IPv6
/// fragments.
fn comparable(mut frame: Vec<u8>, kernel: &[u8]) -> Vec<u8> {
    let kind = u16::from_be_bytes([frame[12], frame[13]]);
    let packet = &mut frame[14..];
    if kind == ethertype::IPV4 {
        let unknown = Ipv4::at(kernel, 14).is_some_and(|h| h.id() == 0);
        if unknown {
            Ipv4::new_mut(packet).unwrap().set_id(0);
            ipv4::fill_checksum(packet);
        }
    } else if Ipv6::new(packet).is_some_and(|h| h.next_header() == ipv6::next_header::FRAGMENT) {
        packet[ipv6::HEADER_LEN + 4..ipv6::HEADER_LEN + 8].fill(0);
    }
    frame
}

fn text(frame: &[u8]) -> String {
    frame.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn does_what_the_kernel_does() {
    let mut bed = Bed::new(NetConfig::default());
    for host in 1..=9 {
        let at = format!("02:00:00:00:01:0{host}");
        bed.neigh(ETH0, &format!("198.18.0.{host}"), &at);
        bed.neigh(ETH0, &format!("2001:db8:18::{host}"), &at);
    }
    for addr in ["10.0.0.1", "2001:db8:10::1"] {
        bed.neigh(ETH1, addr, "02:00:00:00:02:01");
    }
    for host in 1..=8 {
        let at = format!("02:00:00:00:02:1{host}");
        bed.neigh(ETH1, &format!("10.0.0.1{host}"), &at);
        bed.neigh(ETH1, &format!("2001:db8:10::1{host}"), &at);
    }
    for text in [
        "198.19.0.0/16 via 198.18.0.1",
        "2001:db8:19::/48 via 2001:db8:18::1",
        "10.9.0.0/16 via 10.0.0.1",
        "2001:db8:99::/48 via 2001:db8:10::1",
        "10.9.7.0/24 via 10.0.0.1 mtu 600",
        "2001:db8:77::/48 via 2001:db8:10::1 mtu 1300",
        "10.9.8.0/24 via 10.0.0.11 from 198.18.0.5/32",
    ] {
        bed.route(text);
    }
    let mut wrong = Vec::new();
    let mut packets = 0;
    for row in include_str!("kernel.rows").split("\n\n") {
        let mut title = "";
        let mut became = None;
        let mut expected = Vec::new();
        for line in row.lines() {
            match line.split_once(' ').unwrap() {
                ("#", text) => title = text,
                (mark, rest) => {
                    let (port, bytes) = rest.split_once(' ').unwrap();
                    let port = u16::from(port == "eth1");
                    match mark {
                        ">" => became = Some(bed.input(port, &hex(bytes))),
                        _ => expected.push((port, hex(bytes))),
                    }
                }
            }
        }
        let sent = bed.sent();
        packets += usize::from(became.is_some());
        let same = sent.len() == expected.len()
            && sent
                .iter()
                .zip(&expected)
                .all(|((port, frame), (on, kernel))| {
                    port == on
                        && comparable(frame.clone(), kernel) == comparable(kernel.clone(), kernel)
                });
        if !same {
            let list = |frames: &[(u16, Vec<u8>)]| {
                let lines = frames
                    .iter()
                    .map(|(port, f)| format!("\n    eth{port} {}", text(f)));
                lines.collect::<String>()
            };
            wrong.push(format!(
                "{title}: {became:?}\n  kernel{}\n  here{}",
                list(&expected),
                list(&sent)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(packets > 70);
}
