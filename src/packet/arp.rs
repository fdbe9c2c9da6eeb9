//! ARP for IPv4 over Ethernet (RFC 826).

use crate::bytes::{fields, view};
use crate::eth::Mac;

/// Length of an ARP packet for IPv4 over Ethernet.
pub const LEN: usize = 28;
/// Operation: who has the target address?
pub const REQUEST: u16 = 1;
/// Operation: the sender has its address.
pub const REPLY: u16 = 2;

const HARDWARE: usize = 0;
const PROTOCOL: usize = 2;
const HARDWARE_LEN: usize = 4;
const PROTOCOL_LEN: usize = 5;
const OPERATION: usize = 6;
const SENDER_MAC: usize = 8;
const SENDER_IP: usize = 14;
const TARGET_MAC: usize = 18;
const TARGET_IP: usize = 24;

view!(
    /// An ARP packet, as long as it is for IPv4 over Ethernet. [`Arp::is_ipv4_over_ethernet`] says whether it is that.
    Arp,
    LEN
);
fields!(Arp, LEN;
    hardware set_hardware: u16 @ HARDWARE, "Hardware type, 1 for Ethernet.";
    protocol set_protocol: u16 @ PROTOCOL, "Protocol type, 0x0800 for IPv4.";
    hardware_len set_hardware_len: u8 @ HARDWARE_LEN, "Length of a hardware address.";
    protocol_len set_protocol_len: u8 @ PROTOCOL_LEN, "Length of a protocol address.";
    operation set_operation: u16 @ OPERATION, "[`REQUEST`] or [`REPLY`].";
    sender_mac set_sender_mac: [6] @ SENDER_MAC, "MAC address of the sender.";
    sender_ip set_sender_ip: [4] @ SENDER_IP, "IPv4 address of the sender.";
    target_mac set_target_mac: [6] @ TARGET_MAC, "MAC address of the target; nothing in a request.";
    target_ip set_target_ip: [4] @ TARGET_IP, "IPv4 address of the target.";
);

impl<T: core::ops::Deref<Target = [u8; LEN]>> Arp<T> {
    /// Whether types and lengths are those of IPv4 over Ethernet; the addresses mean nothing otherwise.
    pub fn is_ipv4_over_ethernet(&self) -> bool {
        // 6 stands for IEEE 802 networks, which Linux takes as well (net/ipv4/arp.c, arp_process).
        matches!(self.hardware(), 1 | 6)
            && self.protocol() == crate::eth::ethertype::IPV4
            && self.hardware_len() == 6
            && self.protocol_len() == 4
    }
}

/// The bytes of an ARP packet for IPv4 over Ethernet.
pub fn build(
    operation: u16,
    sender_mac: Mac,
    sender_ip: [u8; 4],
    target_mac: Mac,
    target_ip: [u8; 4],
) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    let mut arp = Arp(&mut bytes);
    arp.set_hardware(1);
    arp.set_protocol(crate::eth::ethertype::IPV4);
    arp.set_hardware_len(6);
    arp.set_protocol_len(4);
    arp.set_operation(operation);
    arp.set_sender_mac(sender_mac);
    arp.set_sender_ip(sender_ip);
    arp.set_target_mac(target_mac);
    arp.set_target_ip(target_ip);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_packet_reads_back() {
        let bytes = build(REPLY, [1; 6], [10, 0, 0, 1], [2; 6], [10, 0, 0, 2]);
        let arp = Arp::new(&bytes).unwrap();
        assert!(arp.is_ipv4_over_ethernet());
        assert_eq!(arp.operation(), REPLY);
        assert_eq!((arp.sender_mac(), arp.sender_ip()), ([1; 6], [10, 0, 0, 1]));
        assert_eq!((arp.target_mac(), arp.target_ip()), ([2; 6], [10, 0, 0, 2]));
        assert!(Arp::new(&bytes[..27]).is_none());
    }

    #[test]
    fn other_networks_are_told_apart() {
        let mut bytes = build(REQUEST, [1; 6], [10, 0, 0, 1], [0; 6], [10, 0, 0, 2]);
        bytes[HARDWARE_LEN] = 8;
        assert!(!Arp::new(&bytes).unwrap().is_ipv4_over_ethernet());
    }
}
