//! ICMP (RFC 792) and ICMPv6 (RFC 4443): the eight bytes that all messages share.

use crate::bytes::{fields, view};

/// Length of what all messages share; what an error quotes comes after it.
pub const HEADER_LEN: usize = 8;
/// Where the type lies.
pub const TYPE: usize = 0;
/// Where the code lies.
pub const CODE: usize = 1;
/// Where the checksum lies.
pub const CHECKSUM: usize = 2;
/// Where the four bytes lie that mean what the type says.
pub const REST: usize = 4;

/// Types and codes of ICMP for IPv4.
pub mod v4 {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const DEST_UNREACH: u8 = 3;
    /// Source quench.
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAM_PROBLEM: u8 = 12;
    /// Timestamp request.
    pub const TIMESTAMP: u8 = 13;

    /// Code of [`DEST_UNREACH`]: no route to the network.
    pub const NET_UNREACH: u8 = 0;
    /// Code of [`DEST_UNREACH`]: the host doesn't answer.
    pub const HOST_UNREACH: u8 = 1;
    /// Code of [`DEST_UNREACH`]: nobody takes the protocol.
    pub const PROT_UNREACH: u8 = 2;
    /// Code of [`DEST_UNREACH`]: nobody takes the port.
    pub const PORT_UNREACH: u8 = 3;
    /// Code of [`DEST_UNREACH`]: too big, and fragmenting is forbidden.
    pub const FRAG_NEEDED: u8 = 4;
    /// Code of [`TIME_EXCEEDED`]: on the way.
    pub const TTL_EXCEEDED: u8 = 0;
    /// Code of [`TIME_EXCEEDED`]: in reassembly.
    pub const FRAG_TIME_EXCEEDED: u8 = 1;

    /// Whether the type is an error's, which quotes a packet.
    #[inline]
    pub fn is_error(kind: u8) -> bool {
        matches!(
            kind,
            DEST_UNREACH | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAM_PROBLEM
        )
    }
}

/// Types and codes of ICMPv6.
pub mod v6 {
    /// Destination unreachable.
    pub const DEST_UNREACH: u8 = 1;
    /// Packet too big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAM_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Router solicitation.
    pub const ROUTER_SOLICIT: u8 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERT: u8 = 134;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICIT: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERT: u8 = 136;
    /// Redirect.
    pub const REDIRECT: u8 = 137;

    /// Code of [`DEST_UNREACH`]: no route.
    pub const NO_ROUTE: u8 = 0;
    /// Code of [`DEST_UNREACH`]: the host doesn't answer.
    pub const ADDR_UNREACH: u8 = 3;
    /// Code of [`DEST_UNREACH`]: nobody takes the port.
    pub const PORT_UNREACH: u8 = 4;
    /// Code of [`TIME_EXCEEDED`]: on the way.
    pub const HOP_LIMIT_EXCEEDED: u8 = 0;
    /// Code of [`TIME_EXCEEDED`]: in reassembly.
    pub const FRAG_TIME_EXCEEDED: u8 = 1;
    /// Code of [`PARAM_PROBLEM`]: a header field is wrong.
    pub const HEADER_FIELD: u8 = 0;
    /// Code of [`PARAM_PROBLEM`]: next header not known.
    pub const UNKNOWN_NEXT_HEADER: u8 = 1;
    /// Code of [`PARAM_PROBLEM`]: option not known.
    pub const UNKNOWN_OPTION: u8 = 2;
    /// Code of [`PARAM_PROBLEM`]: the first fragment hasn't the whole header chain (RFC 7112).
    pub const INCOMPLETE_CHAIN: u8 = 3;

    /// Whether the type is an error's, which quotes a packet.
    #[inline]
    pub fn is_error(kind: u8) -> bool {
        kind & 0x80 == 0
    }
}

view!(
    /// The start of an ICMP or ICMPv6 message.
    Icmp,
    HEADER_LEN
);
fields!(Icmp, HEADER_LEN;
    kind set_kind: u8 @ TYPE, "Type: see [`v4`] and [`v6`].";
    code set_code: u8 @ CODE, "Code.";
    checksum set_checksum: u16 @ CHECKSUM, "Checksum; over a pseudo-header too for ICMPv6.";
    rest set_rest: u32 @ REST, "The four bytes that mean what the type says: the MTU of an ICMPv6 packet too big, a pointer.";
    id set_id: u16 @ REST, "Identifier of an echo.";
    seq set_seq: u16 @ 6, "Sequence number of an echo.";
    next_hop_mtu set_next_hop_mtu: u16 @ 6, "MTU of an IPv4 \"fragmentation needed\" (RFC 1191).";
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_read_back() {
        let mut bytes = [0; 8];
        let mut m = Icmp::new_mut(&mut bytes).unwrap();
        m.set_kind(v4::DEST_UNREACH);
        m.set_code(v4::FRAG_NEEDED);
        m.set_next_hop_mtu(1400);
        let m = Icmp::new(&bytes).unwrap();
        assert_eq!((m.kind(), m.code(), m.rest()), (3, 4, 1400));
        assert_eq!((m.id(), m.seq()), (0, 1400));
    }

    #[test]
    fn errors_are_told_from_questions() {
        assert!(v4::is_error(v4::TIME_EXCEEDED) && !v4::is_error(v4::ECHO));
        assert!(v6::is_error(v6::PACKET_TOO_BIG) && !v6::is_error(v6::NEIGHBOUR_SOLICIT));
    }
}
