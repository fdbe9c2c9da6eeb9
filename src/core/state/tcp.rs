//! TCP's states, as ip_vs_proto_tcp.c has them: they follow the flags of packets, without regard to sequence numbers.

use super::View;

/// Of a connection before its first packet.
pub const NONE: u8 = 0;
/// Data may flow.
pub const ESTABLISHED: u8 = 1;
/// The server began.
pub const SYN_SENT: u8 = 2;
/// The client began.
pub const SYN_RECV: u8 = 3;
/// The server ended its side first, or the client did and its side is all that is seen.
pub const FIN_WAIT: u8 = 4;
/// Both sides ended.
pub const TIME_WAIT: u8 = 5;
/// Reset.
pub const CLOSE: u8 = 6;
/// The client ended its side first.
pub const CLOSE_WAIT: u8 = 7;
/// Waits for the last acknowledgement. No transition leads here; synchronisation may.
pub const LAST_ACK: u8 = 8;
/// Expected by an application helper.
pub const LISTEN: u8 = 9;
/// The server answered, but the client is not believed yet (`secure_tcp`).
pub const SYNACK: u8 = 10;
/// How many states there are.
pub const STATES: usize = 11;

/// FIN in the byte of flags (RFC 9293, 3.1).
pub const FIN: u8 = 0x01;
/// SYN.
pub const SYN: u8 = 0x02;
/// RST.
pub const RST: u8 = 0x04;
/// ACK.
pub const ACK: u8 = 0x10;

const NAMES: [&str; STATES] = [
    "NONE",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "SYNACK",
];

/// What a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// SYN, with or without ACK.
    Syn,
    /// FIN.
    Fin,
    /// ACK alone.
    Ack,
    /// RST, whatever else.
    Rst,
}

impl Event {
    /// The event in a byte of flags; none if there is none of the four.
    pub fn of_flags(flags: u8) -> Option<Event> {
        match flags {
            f if f & RST != 0 => Some(Event::Rst),
            f if f & SYN != 0 => Some(Event::Syn),
            f if f & FIN != 0 => Some(Event::Fin),
            f if f & ACK != 0 => Some(Event::Ack),
            _ => None,
        }
    }
}

// Names of two letters, to see the tables as tables.
const ES: u8 = ESTABLISHED;
const SS: u8 = SYN_SENT;
const SR: u8 = SYN_RECV;
const FW: u8 = FIN_WAIT;
const TW: u8 = TIME_WAIT;
const CL: u8 = CLOSE;
const CW: u8 = CLOSE_WAIT;
const LA: u8 = LAST_ACK;
const LI: u8 = LISTEN;
const SA: u8 = SYNACK;

/// Next states: a block for each view, a row for each event, a column for each state.
type Table = [[[u8; STATES]; 4]; 3];

#[rustfmt::skip]
const USUAL: Table = [
    [ //   NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA    from the client
        [  SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR ], // SYN
        [  CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW ], // FIN
        [  ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES ], // ACK
        [  CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR ], // RST
    ],
    [ //   NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA    from the server
        [  SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR ], // SYN
        [  TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW ], // FIN
        [  ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES ], // ACK
        [  CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL ], // RST
    ],
    [ //   NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA    from the client, alone
        [  SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR ], // SYN
        [  CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW ], // FIN
        [  ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES ], // ACK
        [  CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL ], // RST
    ],
];

/// In times of attack a client is not believed until the server has sent it more than its SYN.
#[rustfmt::skip]
const SECURE: Table = [
    [ //   NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA    from the client
        [  SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA ], // SYN
        [  CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA ], // FIN
        [  ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA ], // ACK
        [  CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL ], // RST
    ],
    [ //   NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA    from the server
        [  SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA ], // SYN
        [  TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW ], // FIN
        [  ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES ], // ACK
        [  CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL ], // RST
    ],
    [ //   NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA    from the client, alone
        [  SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA ], // SYN
        [  CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW ], // FIN
        [  ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES ], // ACK
        [  CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL ], // RST
    ],
];

/// The state after a packet. One without any flag that counts closes the connection (`set_tcp_state`).
#[inline]
pub fn next(secure: bool, view: View, event: Option<Event>, state: u8) -> u8 {
    let Some(event) = event else { return CLOSE };
    let table = if secure { &SECURE } else { &USUAL };
    table[view as usize][event as usize]
        .get(usize::from(state))
        .copied()
        .unwrap_or(CLOSE)
}

/// Whether a connection in this state counts as active.
pub fn is_active(state: u8) -> bool {
    matches!(state, ESTABLISHED | SYN_SENT | SYN_RECV | SYNACK)
}

/// The state's name in listings.
pub fn name(state: u8) -> &'static str {
    NAMES.get(usize::from(state)).copied().unwrap_or("ERR!")
}
