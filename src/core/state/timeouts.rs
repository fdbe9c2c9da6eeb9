//! How long a connection stays in a state without packets.

use super::{sctp, tcp, udp};
use crate::conn::{INITIAL_TIMEOUT, LONGEST};
use crate::types::{proto, Tick};

const HZ: u32 = Tick::HZ;
/// SCTP: the longest retransmission timeout, 60 seconds (RFC 9260, 16), and one for the way.
const SCTP_MAX_RTO: u32 = 61 * HZ;

/// The timeouts of all states, in ticks. Three of them are for the operator to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    tcp: [u32; tcp::STATES],
    sctp: [u32; sctp::STATES],
    udp: u32,
}

impl Default for Timeouts {
    /// The kernel's.
    fn default() -> Timeouts {
        let mut tcp = [0; tcp::STATES];
        for (state, seconds) in [
            (tcp::NONE, 2),
            (tcp::ESTABLISHED, 15 * 60),
            (tcp::SYN_SENT, 2 * 60),
            (tcp::SYN_RECV, 60),
            (tcp::FIN_WAIT, 2 * 60),
            (tcp::TIME_WAIT, 2 * 60),
            (tcp::CLOSE, 10),
            (tcp::CLOSE_WAIT, 60),
            (tcp::LAST_ACK, 30),
            (tcp::LISTEN, 2 * 60),
            (tcp::SYNACK, 2 * 60),
        ] {
            tcp[usize::from(state)] = seconds * HZ;
        }
        let mut sctp = [SCTP_MAX_RTO; sctp::STATES];
        sctp[usize::from(sctp::NONE)] = 2 * HZ;
        sctp[usize::from(sctp::INIT1)] = 4 * HZ;
        sctp[usize::from(sctp::ESTABLISHED)] = 15 * 60 * HZ;
        sctp[usize::from(sctp::REJECTED)] = 4 * HZ;
        Timeouts {
            tcp,
            sctp,
            udp: 5 * 60 * HZ,
        }
    }
}

impl Timeouts {
    /// The timeout of a state, in ticks. Of a protocol without states, or of a state that there is not, it is that of a
    /// new connection.
    #[inline]
    pub fn timeout(&self, protocol: u8, state: u8) -> u32 {
        let known = match protocol {
            proto::TCP => self.tcp.get(usize::from(state)),
            proto::UDP if state == udp::NORMAL => Some(&self.udp),
            proto::SCTP => self.sctp.get(usize::from(state)),
            _ => None,
        };
        known.copied().unwrap_or(INITIAL_TIMEOUT)
    }

    /// Sets those of TCP's ESTABLISHED and FIN_WAIT and of UDP, in seconds (`ipvsadm --set`); 0 leaves a value as it is.
    /// Seconds beyond what fits stand for the most that does.
    pub fn set(&mut self, tcp: u32, tcp_fin: u32, udp: u32) {
        let set = |place: &mut u32, seconds: u32| {
            if seconds != 0 {
                *place = seconds.saturating_mul(HZ).min(LONGEST);
            }
        };
        set(&mut self.tcp[usize::from(tcp::ESTABLISHED)], tcp);
        set(&mut self.tcp[usize::from(tcp::FIN_WAIT)], tcp_fin);
        set(&mut self.udp, udp);
    }

    /// The three that can be set, in seconds and in that order.
    pub fn get(&self) -> (u32, u32, u32) {
        let tcp = |state: u8| self.tcp[usize::from(state)] / HZ;
        (tcp(tcp::ESTABLISHED), tcp(tcp::FIN_WAIT), self.udp / HZ)
    }
}
