//! Neighbour discovery (RFC 4861): solicitations and advertisements with their link-layer address options.

use crate::bytes::{fields, view};
use crate::eth::Mac;
use crate::icmp::v6::{NEIGHBOUR_ADVERT, NEIGHBOUR_SOLICIT};

/// Length of a solicitation or an advertisement without options, its ICMPv6 header included.
pub const LEN: usize = 24;
/// Length of a link-layer address option for Ethernet.
pub const LLADDR_OPTION_LEN: usize = 8;
/// Length of a message with one link-layer address option.
pub const LEN_WITH_LLADDR: usize = LEN + LLADDR_OPTION_LEN;
/// Option: link-layer address of the sender of a solicitation.
pub const OPT_SOURCE_LLADDR: u8 = 1;
/// Option: link-layer address of the target of an advertisement.
pub const OPT_TARGET_LLADDR: u8 = 2;
/// Flag of an advertisement: its sender is a router.
pub const ROUTER: u8 = 0x80;
/// Flag of an advertisement: it answers a solicitation.
pub const SOLICITED: u8 = 0x40;
/// Flag of an advertisement: what was known is to be replaced.
pub const OVERRIDE: u8 = 0x20;

view!(
    /// A neighbour solicitation or advertisement without options, ICMPv6 header included.
    Neighbour,
    LEN
);
fields!(Neighbour, LEN;
    kind set_kind: u8 @ 0, "ICMPv6 type: 135 solicits, 136 advertises.";
    code set_code: u8 @ 1, "ICMPv6 code, 0.";
    checksum set_checksum: u16 @ 2, "ICMPv6 checksum.";
    flags set_flags: u8 @ 4, "[`ROUTER`], [`SOLICITED`], [`OVERRIDE`]; 0 in a solicitation.";
    target set_target: [16] @ 8, "The address that is asked for, or told of.";
);

/// The MAC address in the first option of this kind among the options `message[24..]`; `None` where there is none.
///
/// # Errors
/// [`BadOptions`] where an option has length 0 or ends beyond the message (RFC 4861: such a message is dropped), as well
/// as where a link-layer address option has another length than Ethernet's.
pub fn lladdr_option(message: &[u8], kind: u8) -> Result<Option<Mac>, BadOptions> {
    let mut rest = message.get(LEN..).ok_or(BadOptions)?;
    let mut found = None;
    while !rest.is_empty() {
        let [option, units, ..] = *rest else {
            return Err(BadOptions);
        };
        let len = usize::from(units) * 8;
        if len == 0 || len > rest.len() {
            return Err(BadOptions);
        }
        if option == kind && found.is_none() {
            if len != LLADDR_OPTION_LEN {
                return Err(BadOptions);
            }
            found = rest[2..].first_chunk().copied();
        }
        rest = &rest[len..];
    }
    Ok(found)
}

/// The options of a neighbour discovery message are malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadOptions;

/// A solicitation for `target` with the sender's MAC address; the checksum is still 0.
pub fn build_solicit(target: [u8; 16], source_mac: Mac) -> [u8; LEN_WITH_LLADDR] {
    build(NEIGHBOUR_SOLICIT, 0, target, OPT_SOURCE_LLADDR, source_mac)
}

/// An advertisement of `target` at `target_mac`; the checksum is still 0.
pub fn build_advert(target: [u8; 16], target_mac: Mac, flags: u8) -> [u8; LEN_WITH_LLADDR] {
    build(
        NEIGHBOUR_ADVERT,
        flags,
        target,
        OPT_TARGET_LLADDR,
        target_mac,
    )
}

fn build(kind: u8, flags: u8, target: [u8; 16], option: u8, mac: Mac) -> [u8; LEN_WITH_LLADDR] {
    let mut bytes = [0; LEN_WITH_LLADDR];
    if let Some(mut n) = Neighbour::new_mut(&mut bytes) {
        n.set_kind(kind);
        n.set_flags(flags);
        n.set_target(target);
    }
    bytes[LEN] = option;
    bytes[LEN + 1] = 1;
    bytes[LEN + 2..].copy_from_slice(&mac);
    bytes
}

/// The multicast address at which the owner of `addr` is asked (RFC 4291 2.7.1).
pub fn solicited_node(addr: [u8; 16]) -> [u8; 16] {
    let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
    group[13..].copy_from_slice(&addr[13..]);
    group
}

/// The MAC address of an IPv6 multicast group (RFC 2464).
pub fn multicast_mac(group: [u8; 16]) -> Mac {
    [0x33, 0x33, group[12], group[13], group[14], group[15]]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];

    #[test]
    fn built_messages_read_back() {
        let bytes = build_advert(TARGET, [2, 0, 0, 0, 0, 9], SOLICITED | OVERRIDE);
        let n = Neighbour::new(&bytes).unwrap();
        assert_eq!((n.kind(), n.code(), n.flags()), (136, 0, 0x60));
        assert_eq!(n.target(), TARGET);
        assert_eq!(
            lladdr_option(&bytes, OPT_TARGET_LLADDR),
            Ok(Some([2, 0, 0, 0, 0, 9]))
        );
        assert_eq!(lladdr_option(&bytes, OPT_SOURCE_LLADDR), Ok(None));
        assert_eq!(lladdr_option(&bytes[..LEN], OPT_TARGET_LLADDR), Ok(None));
    }

    #[test]
    fn malformed_options_are_refused() {
        let mut bytes = build_solicit(TARGET, [2; 6]);
        assert_eq!(
            lladdr_option(&bytes[..LEN + 1], OPT_SOURCE_LLADDR),
            Err(BadOptions)
        );
        bytes[LEN + 1] = 0;
        assert_eq!(lladdr_option(&bytes, OPT_SOURCE_LLADDR), Err(BadOptions));
        bytes[LEN + 1] = 2;
        assert_eq!(lladdr_option(&bytes, OPT_SOURCE_LLADDR), Err(BadOptions));
    }

    #[test]
    fn groups_have_their_addresses() {
        let group = solicited_node(TARGET);
        assert_eq!(group[..3], [0xff, 2, 0]);
        assert_eq!(group[11..], [1, 0xff, 2, 3, 4]);
        assert_eq!(multicast_mac(group), [0x33, 0x33, 0xff, 2, 3, 4]);
    }
}
