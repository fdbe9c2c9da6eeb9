//! The states of connections: what a packet does to them, how long they last, what they are called and which count as
//! active. Exactly those of Linux IPVS (net/netfilter/ipvs/ip_vs_proto_{tcp,udp,sctp}.c, kernel 6.1). Changes nothing but the
//! record it is given; counting and controlling connections are told to the caller.

pub mod sctp;
pub mod tcp;
pub mod template;
pub mod udp;

mod timeouts;

pub use timeouts::Timeouts;

use crate::conn::{Flags, Record, INITIAL_TIMEOUT};
use crate::family::Family;
use crate::types::proto;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    Input,
    /// From the server.
    Output,
}

/// From which side a packet counts: the rows of the state tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// From the client, where the server's packets pass as well.
    Input,
    /// From the server.
    Output,
    /// From the client, where the server's packets do not pass (direct routing, tunnels).
    InputOnly,
}

/// What a packet is to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// TCP, with the byte of its flags.
    Tcp(u8),
    /// UDP.
    Udp,
    /// SCTP, with what its chunks say ([`sctp::Event::of_chunks`]).
    Sctp(Option<sctp::Event>),
    /// Anything else, such as ESP: changes nothing.
    Other,
}

/// What the caller has to do after a packet changed a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// What to add to the dest's active connections, and take from its inactive ones: 1, 0 or -1.
    pub active: i32,
    /// Whether the connection's template, if it has one, becomes [`template::ASSURED`].
    pub assure: bool,
}

impl Step {
    /// Whether the caller has to do anything.
    #[inline]
    pub fn matters(self) -> bool {
        self.active != 0 || self.assure
    }
}

/// Lets a packet take effect: sets the record's state, timeout (which counts from the next touch on), NO_OUTPUT and
/// INACTIVE. `secure` is whether TCP's table for times of attack is in force (`secure_tcp`).
#[inline(always)]
pub fn step<F: Family>(
    record: &mut Record<F>,
    direction: Direction,
    signal: Signal,
    timeouts: &Timeouts,
    secure: bool,
) -> Step {
    let next = match signal {
        Signal::Tcp(flags) => {
            let view = view(record, direction);
            tcp::next(secure, view, tcp::Event::of_flags(flags), record.state)
        }
        Signal::Sctp(Some(event)) => sctp::next(view(record, direction), event, record.state),
        Signal::Udp => {
            record.timeout = timeouts.timeout(proto::UDP, udp::NORMAL);
            return Step {
                active: 0,
                assure: direction == Direction::Output,
            };
        }
        Signal::Sctp(None) | Signal::Other => return Step::default(),
    };
    let protocol = if matches!(signal, Signal::Tcp(_)) {
        proto::TCP
    } else {
        proto::SCTP
    };
    let mut step = Step::default();
    if next != record.state {
        // Without a dest there is nothing to be counted at.
        if record.dest().is_some() {
            let active = is_active(protocol, next);
            if record.has(Flags::INACTIVE) && active {
                record.clear(Flags::INACTIVE);
                step.active = 1;
            } else if !record.has(Flags::INACTIVE) && !active {
                record.set(Flags::INACTIVE);
                step.active = -1;
            }
        }
        step.assure = is_established(protocol, next);
        record.state = next;
    }
    record.timeout = timeouts.timeout(protocol, next);
    step
}

/// The timeout that a packet gives the connection which begins with it, in ticks, as [`step`] will.
#[inline]
pub fn first_timeout(flags: Flags, signal: Signal, timeouts: &Timeouts, secure: bool) -> u32 {
    match signal {
        Signal::Tcp(bits) => {
            let view = match flags.has(Flags::NO_OUTPUT) {
                true => View::InputOnly,
                false => View::Input,
            };
            let next = tcp::next(secure, view, tcp::Event::of_flags(bits), tcp::NONE);
            timeouts.timeout(proto::TCP, next)
        }
        Signal::Udp => timeouts.timeout(proto::UDP, udp::NORMAL),
        Signal::Sctp(_) | Signal::Other => INITIAL_TIMEOUT,
    }
}

/// Judges by the record from which side the packet counts, and notes that the server's packets pass if this is one.
#[inline]
fn view<F: Family>(record: &mut Record<F>, direction: Direction) -> View {
    match direction {
        Direction::Output => {
            record.clear(Flags::NO_OUTPUT);
            View::Output
        }
        Direction::Input if record.has(Flags::NO_OUTPUT) => View::InputOnly,
        Direction::Input => View::Input,
    }
}

/// Whether a connection in this state counts as active. UDP's never do.
pub fn is_active(protocol: u8, state: u8) -> bool {
    match protocol {
        proto::TCP => tcp::is_active(state),
        proto::SCTP => state == sctp::ESTABLISHED,
        _ => false,
    }
}

/// Whether reaching this state assures the connection's template.
fn is_established(protocol: u8, state: u8) -> bool {
    match protocol {
        proto::TCP => state == tcp::ESTABLISHED,
        _ => state == sctp::ESTABLISHED,
    }
}

/// The state's name in listings (`ip_vs_state_name`), that of a template's if it is one.
pub fn name(protocol: u8, flags: Flags, state: u8) -> &'static str {
    if flags.has(Flags::TEMPLATE) {
        return template::name(state);
    }
    match protocol {
        proto::TCP => tcp::name(state),
        proto::UDP => udp::name(state),
        proto::SCTP => sctp::name(state),
        // The kernel knows the protocols of ESP and AH, but no states of theirs; 0 is a mark's template.
        0 => "NONE",
        _ => "ERR!",
    }
}

/// Whether a packet might start a connection anew: SYN, or INIT as the first chunk (`is_new_conn`).
pub fn is_new_conn(signal: Signal) -> bool {
    match signal {
        Signal::Tcp(flags) => flags & tcp::SYN != 0,
        Signal::Sctp(event) => event == Some(sctp::Event::Init),
        Signal::Udp | Signal::Other => false,
    }
}

/// Whether a packet that [`is_new_conn`] finds this connection at its end, so that it may be scheduled anew, by the sysctl
/// `conn_reuse_mode` (`is_new_conn_expected`). That the connection is not a controlled one, and the mode not 0, is for the
/// caller to ask first, as in the kernel.
pub fn is_new_conn_expected<F: Family>(record: &Record<F>, reuse_mode: i32) -> bool {
    match record.proto() {
        proto::TCP => match record.state {
            tcp::TIME_WAIT | tcp::CLOSE => true,
            tcp::FIN_WAIT => reuse_mode & 2 != 0 && record.has(Flags::NO_OUTPUT),
            _ => false,
        },
        proto::SCTP => record.state == sctp::CLOSED,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
