//! Device strings, as DPDK's command line takes them: a PCI address, or a driver's name with a number and options. The
//! helpers here write those whose options are easily got wrong; they touch no device.

/// Space that an AF_PACKET ring slot takes before the frame: TPACKET2_HDRLEN, 32 for the header and 20 for the address,
/// which is also what the driver takes off the slot to get the longest frame it sends.
const PACKET_OVERHEAD: u32 = 52;

/// Slots in a ring, at least.
const PACKET_SLOTS: u32 = 512;

/// What the kernel allocates rings in.
const PAGE: u32 = 4096;

/// Ethernet header, two VLAN tags, and the FCS that DPDK counts in.
pub(crate) const ETHERNET_OVERHEAD: u32 = 14 + 8 + 4;

/// Whether a device string names a PCI device: `[domain:]bus:device.function`, options after a comma.
pub fn is_pci(device: &str) -> bool {
    pci_address(device).is_some()
}

/// The full PCI address that a device string begins with, as DPDK names the port.
pub(crate) fn pci_address(device: &str) -> Option<String> {
    let name = name(device);
    let name = name.strip_prefix("pci:").unwrap_or(name);
    let (bus, function) = name.rsplit_once('.')?;
    let parts: Vec<&str> = bus.split(':').collect();
    let (domain, bus, device) = match parts[..] {
        [domain, bus, device] => (domain, bus, device),
        [bus, device] => ("0000", bus, device),
        _ => return None,
    };
    // from_str_radix takes a sign; an address has none.
    let hex = |text: &str| {
        u32::from_str_radix(text, 16)
            .ok()
            .filter(|_| !text.starts_with('+'))
    };
    let (domain, bus, device) = (hex(domain)?, hex(bus)?, hex(device)?);
    let function = hex(function)?;
    (bus < 256 && device < 32 && function < 8)
        .then(|| format!("{domain:04x}:{bus:02x}:{device:02x}.{function}"))
}

/// The name part of a device string.
pub(crate) fn name(device: &str) -> &str {
    device.split(',').next().unwrap_or_default()
}

/// A net_tap port: the kernel sees it as `iface`. `mac` (`aa:bb:…`, or `fixed`) is the port's address, and the kernel
/// side's as well until it is given another.
pub fn tap(number: u16, iface: &str, mac: Option<&str>) -> String {
    let mac = mac.map(|mac| format!(",mac={mac}")).unwrap_or_default();
    format!("net_tap{number},iface={iface}{mac}")
}

/// A net_af_packet port on the kernel interface `iface`, which the kernel keeps, with slots that hold frames of `mtu`
/// plus Ethernet and VLAN headers. `queues` pairs; the kernel spreads flows over them by their hash.
///
/// The receiving mempool's data room must hold a whole slot, as the driver does not spread frames over buffers:
/// [`af_packet_data_room`]. The driver's own default (slots of 2,048 bytes in blocks of 4,096) fits an MTU up to 1,974.
pub fn af_packet(number: u16, iface: &str, mtu: u16, queues: u16) -> String {
    let slot = af_packet_slot(mtu);
    // A block is whole pages and whole slots: the driver (22.11) takes slots to follow each other across blocks.
    let per_block = (1..=4)
        .find(|count| (slot * count).is_multiple_of(PAGE))
        .unwrap_or(4);
    let blocks = PACKET_SLOTS.div_ceil(per_block);
    format!(
        "net_af_packet{number},iface={iface},qpairs={queues},blocksz={},framesz={slot},framecnt={}",
        slot * per_block,
        blocks * per_block
    )
}

/// Data room that a mempool needs for [`af_packet`] ports of this MTU, in bytes.
pub fn af_packet_data_room(mtu: u16) -> u16 {
    // The driver wants room for the slot without its header, but with the socket address that it leaves in front (20).
    u16::try_from(af_packet_slot(mtu) - PACKET_OVERHEAD + 20).unwrap_or(u16::MAX)
}

/// Bytes of a buffer that the driver fills whatever the MTU, where it is one of those that do: net_null sets the length of
/// what it makes up without a look at the buffer's, net_af_packet wants room for a whole slot of its ring.
pub(crate) fn filled(driver: &str, args: &str) -> Option<u32> {
    let largest = |name: &str| {
        args.split(',')
            .filter_map(|arg| {
                arg.strip_prefix(name)?
                    .strip_prefix('=')?
                    .parse::<u32>()
                    .ok()
            })
            .max()
    };
    match driver {
        "net_null" => largest("size"),
        "net_af_packet" => largest("framesz").map(|slot| slot.saturating_sub(PACKET_OVERHEAD - 20)),
        _ => None,
    }
}

fn af_packet_slot(mtu: u16) -> u32 {
    // On receive the kernel puts the network header at a multiple of 16, past the slot's own header and the link layer's,
    // hence 16 more. A quarter of a page, so that at most four slots fill a block.
    (u32::from(mtu) + ETHERNET_OVERHEAD + PACKET_OVERHEAD + 16).next_multiple_of(PAGE / 4)
}

/// A net_af_xdp port on `queues` queues of the kernel interface `iface`, from the first on. `copy` keeps to the mode that
/// any driver can (veth needs it with some kernels).
pub fn af_xdp(number: u16, iface: &str, queues: u16, copy: bool) -> String {
    let copy = if copy { ",force_copy=1" } else { "" };
    format!("net_af_xdp{number},iface={iface},start_queue=0,queue_count={queues}{copy}")
}

/// One end of a memif link between two processes (or two ports): one is the server and makes the socket at `socket`.
pub fn memif(number: u16, id: u32, server: bool, socket: &str) -> String {
    // The names of the roles that all releases take.
    let role = if server { "server" } else { "client" };
    let zero = if socket.starts_with('/') {
        ",socket-abstract=no"
    } else {
        ""
    };
    format!("net_memif{number},id={id},role={role},socket={socket}{zero}")
}

/// A net_pcap port that receives what the file `from` holds, over and over where `endless`, and writes what it sends to
/// the file `to`, or drops it.
pub fn pcap(number: u16, from: Option<&str>, to: Option<&str>, endless: bool) -> String {
    let mut text = format!("net_pcap{number}");
    if let Some(from) = from {
        text += &format!(",rx_pcap={from}");
    }
    if let Some(to) = to {
        text += &format!(",tx_pcap={to}");
    }
    if endless {
        text += ",infinite_rx=1";
    }
    text
}

/// How a bond uses its members, as DPDK numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BondMode {
    /// Packets in turn.
    RoundRobin = 0,
    /// One member sends and receives, another takes over.
    ActiveBackup = 1,
    /// By a hash of the headers.
    Balance = 2,
    /// Each packet on each member. The members share the buffers while they send.
    Broadcast = 3,
    /// LACP (IEEE 802.3ad). Its queues must be polled every 100 ms.
    Lacp = 4,
    /// By load, sending only.
    TransmitLoad = 5,
    /// By load, both ways.
    AdaptiveLoad = 6,
}

/// The device string of a bond over devices that are attached already, with further options of the driver.
pub(crate) fn bond(name: &str, options: &[&str], members: &[&str]) -> String {
    // From 23.11 on a member is no longer a slave.
    let key = if dpdk_sys::SHIM_DPDK_RELEASE >= 2311 {
        "member"
    } else {
        "slave"
    };
    let members = members.iter().map(|member| format!("{key}={member}"));
    let options = options
        .iter()
        .filter(|option| !option.is_empty())
        .map(|option| (*option).to_owned());
    [name.to_owned()]
        .into_iter()
        .chain(options)
        .chain(members)
        .collect::<Vec<_>>()
        .join(",")
}

/// The members that a bond's device string names, by either word, and the options besides. `None` where it is no bond's.
pub(crate) fn bond_members(device: &str) -> Option<(Vec<&str>, Vec<&str>)> {
    let mut parts = device.split(',');
    parts
        .next()
        .filter(|name| name.starts_with("net_bonding"))?;
    let member = |part: &&str| part.starts_with("slave=") || part.starts_with("member=");
    let (members, options): (Vec<&str>, Vec<&str>) = parts.partition(member);
    let names = members
        .into_iter()
        .filter_map(|part| part.split_once('='))
        .map(|(_, name)| name);
    Some((names.collect(), options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses_are_told_from_names_and_completed() {
        assert_eq!(pci_address("01:00.0").as_deref(), Some("0000:01:00.0"));
        assert_eq!(
            pci_address("0000:AF:10.7,mprq_en=1").as_deref(),
            Some("0000:af:10.7")
        );
        assert_eq!(
            pci_address("pci:10000:1:0.0").as_deref(),
            Some("10000:01:00.0")
        );
        for not in [
            "net_tap0",
            "net_tap0,mac=00:01:02.3",
            "01:00",
            "01:00.8",
            "0x:00.0",
            "1:2:3:4.0",
            "+1:00.0",
            "01:20.0",
            "",
        ] {
            assert_eq!(pci_address(not), None, "{not}");
        }
    }

    #[test]
    fn a_buffer_holds_what_the_driver_fills_without_asking() {
        let text = af_packet(0, "x", 9000, 1);
        let room = filled("net_af_packet", &text);
        assert_eq!(room, Some(u32::from(af_packet_data_room(9000))));
        assert_eq!(filled("net_af_packet", "net_af_packet0,iface=x"), None);
        assert_eq!(filled("net_null", "net_null0,size=64,size=100"), Some(100));
        assert_eq!(filled("net_tap", "net_tap0,size=9"), None);
    }

    #[test]
    fn af_packet_slots_fill_whole_blocks_and_hold_the_frame() {
        for mtu in [68, 1500, 1974, 2000, 4000, 9000] {
            let text = af_packet(0, "x", mtu, 1);
            let value = |key: &str| -> u32 {
                let (_, rest) = text.split_once(&format!("{key}=")).unwrap();
                rest.split(',').next().unwrap().parse().unwrap()
            };
            let (block, slot, count) = (value("blocksz"), value("framesz"), value("framecnt"));
            assert_eq!(
                (block % 4096, slot % 16, block % slot),
                (0, 0, 0),
                "mtu {mtu}"
            );
            assert!(count >= 512 && count % (block / slot) == 0, "mtu {mtu}");
            assert!(
                slot - PACKET_OVERHEAD >= u32::from(mtu) + 14 + 4,
                "mtu {mtu}"
            );
        }
        assert!(af_packet_data_room(1500) <= crate::mempool::DATA_ROOM);
    }

    #[test]
    fn a_bond_is_taken_apart_and_put_together_with_the_word_of_the_release() {
        let text = "net_bonding0,mode=1,slave=net_tap0,member=0000:01:00.0,primary=net_tap0";
        let (members, options) = bond_members(text).unwrap();
        assert_eq!(members, ["net_tap0", "0000:01:00.0"]);
        assert_eq!(options, ["mode=1", "primary=net_tap0"]);
        let again = bond("net_bonding0", &options, &members);
        assert_eq!(bond_members(&again).unwrap(), (members, options));
        assert!(again.contains(if dpdk_sys::SHIM_DPDK_RELEASE >= 2311 {
            ",member="
        } else {
            ",slave="
        }));
        assert_eq!(bond_members("net_tap0,slave=x"), None);
    }
}
