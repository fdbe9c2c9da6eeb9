//! SCTP's states, as ip_vs_proto_sctp.c has them: those of the real server (RFC 9260, 4), with the steps of setting up an
//! association, which there are part of CLOSED, told apart.

use super::View;

/// Of a connection before its first packet.
pub const NONE: u8 = 0;
/// The client's first INIT: a short time, in case it is dropped.
pub const INIT1: u8 = 1;
/// A further INIT of the client's.
pub const INIT: u8 = 2;
/// The server sent INIT ACK.
pub const COOKIE_SENT: u8 = 3;
/// The client sent COOKIE ECHO.
pub const COOKIE_REPLIED: u8 = 4;
/// The server sent INIT.
pub const COOKIE_WAIT: u8 = 5;
/// The client sent INIT ACK.
pub const COOKIE: u8 = 6;
/// The server sent COOKIE ECHO.
pub const COOKIE_ECHOED: u8 = 7;
/// Data may flow.
pub const ESTABLISHED: u8 = 8;
/// The server wants to end.
pub const SHUTDOWN_SENT: u8 = 9;
/// The client wants to end.
pub const SHUTDOWN_RECEIVED: u8 = 10;
/// The server agreed to end.
pub const SHUTDOWN_ACK_SENT: u8 = 11;
/// The server answered INIT by ABORT.
pub const REJECTED: u8 = 12;
/// Ended.
pub const CLOSED: u8 = 13;
/// How many states there are.
pub const STATES: usize = 14;

const NAMES: [&str; STATES] = [
    "NONE",
    "INIT1",
    "INIT",
    "C-SENT",
    "C-REPLIED",
    "C-WAIT",
    "COOKIE",
    "C-ECHOED",
    "ESTABLISHED",
    "S-SENT",
    "S-RECEIVED",
    "S-ACK-SENT",
    "REJECTED",
    "CLOSED",
];

// Types of chunks (RFC 9260, 3.2; 12 and 13: RFC 9260, appendix A).
const CHUNK_INIT: u8 = 1;
const CHUNK_INIT_ACK: u8 = 2;
const CHUNK_ABORT: u8 = 6;
const CHUNK_SHUTDOWN: u8 = 7;
const CHUNK_SHUTDOWN_ACK: u8 = 8;
const CHUNK_ERROR: u8 = 9;
const CHUNK_COOKIE_ECHO: u8 = 10;
const CHUNK_COOKIE_ACK: u8 = 11;
const CHUNK_SHUTDOWN_COMPLETE: u8 = 14;

/// Bytes of a chunk's header: type, flags, length (of the whole chunk, big-endian).
const CHUNK_HEADER: usize = 4;

/// What a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Event {
    /// DATA, SACK, HEARTBEAT and all that is not below.
    Data,
    Init,
    InitAck,
    CookieEcho,
    CookieAck,
    Shutdown,
    ShutdownAck,
    ShutdownComplete,
    Error,
    Abort,
}

impl Event {
    /// The event in what follows SCTP's common header, up to the end of the IP packet; none where there is no chunk.
    ///
    /// The first chunk says it, but for an ABORT right behind a COOKIE ECHO or COOKIE ACK: control chunks may stand before
    /// one (RFC 9260, 3.3.7).
    pub fn of_chunks(chunks: &[u8]) -> Option<Event> {
        let [kind, _, high, low] = *chunks.first_chunk::<CHUNK_HEADER>()?;
        if kind == CHUNK_COOKIE_ECHO || kind == CHUNK_COOKIE_ACK {
            let length = usize::from(u16::from_be_bytes([high, low]));
            let second = chunks
                .get(length.next_multiple_of(4)..)
                .and_then(|rest| rest.first_chunk::<CHUNK_HEADER>());
            if length >= CHUNK_HEADER && second.is_some_and(|header| header[0] == CHUNK_ABORT) {
                return Some(Event::Abort);
            }
        }
        Some(match kind {
            CHUNK_INIT => Event::Init,
            CHUNK_INIT_ACK => Event::InitAck,
            CHUNK_COOKIE_ECHO => Event::CookieEcho,
            CHUNK_COOKIE_ACK => Event::CookieAck,
            CHUNK_SHUTDOWN => Event::Shutdown,
            CHUNK_SHUTDOWN_ACK => Event::ShutdownAck,
            CHUNK_SHUTDOWN_COMPLETE => Event::ShutdownComplete,
            CHUNK_ERROR => Event::Error,
            CHUNK_ABORT => Event::Abort,
            _ => Event::Data,
        })
    }
}

/// Whether the first chunk is an ABORT (`is_sctp_abort`).
pub fn is_abort(chunks: &[u8]) -> bool {
    chunks.len() >= CHUNK_HEADER && chunks[0] == CHUNK_ABORT
}

// Names of two letters, to see the table as a table.
const I1: u8 = INIT1;
const IN: u8 = INIT;
const CS: u8 = COOKIE_SENT;
const CR: u8 = COOKIE_REPLIED;
const CW: u8 = COOKIE_WAIT;
const CO: u8 = COOKIE;
const CE: u8 = COOKIE_ECHOED;
const ES: u8 = ESTABLISHED;
const SS: u8 = SHUTDOWN_SENT;
const SR: u8 = SHUTDOWN_RECEIVED;
const SA: u8 = SHUTDOWN_ACK_SENT;
const RJ: u8 = REJECTED;
const CL: u8 = CLOSED;

/// Next states: a block for each view, a row for each event, a column for each state.
#[rustfmt::skip]
const TABLE: [[[u8; STATES]; 10]; 3] = [
    [ //  NO  I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL    from the client
        [ ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL ], // data
        [ I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN ], // INIT
        [ CW, CW, CW, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL ], // INIT ACK
        [ CR, IN, IN, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL ], // COOKIE ECHO
        [ ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL ], // COOKIE ACK
        [ SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL ], // SHUTDOWN
        [ CL, IN, IN, CS, CR, CW, CO, CE, ES, CL, SR, CL, RJ, CL ], // SHUTDOWN ACK
        [ CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, SR, CL, RJ, CL ], // SHUTDOWN COMPLETE
        [ CL, I1, IN, CS, CR, CW, CO, CL, ES, SS, SR, SA, RJ, CL ], // ERROR
        [ CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL ], // ABORT
    ],
    [ //  NO  I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL    from the server
        [ ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL ], // data
        [ CW, CW, CW, CW, CW, CW, CW, CW, ES, CW, CW, CW, CW, CW ], // INIT
        [ CS, CS, CS, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL ], // INIT ACK
        [ CE, CE, CE, CE, CE, CE, CE, CE, ES, SS, SR, SA, RJ, CL ], // COOKIE ECHO
        [ ES, ES, ES, ES, ES, ES, ES, ES, ES, SS, SR, SA, RJ, CL ], // COOKIE ACK
        [ SS, SS, SS, SS, SS, SS, SS, SS, SS, SS, SR, SA, RJ, CL ], // SHUTDOWN
        [ SA, SA, SA, SA, SA, CW, CO, CE, ES, SA, SA, SA, RJ, CL ], // SHUTDOWN ACK
        [ CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL ], // SHUTDOWN COMPLETE
        [ CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, SR, SA, RJ, CL ], // ERROR
        [ CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL ], // ABORT
    ],
    [ //  NO  I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL    from the client, alone
        [ ES, I1, IN, CS, CR, ES, CO, CE, ES, SS, SR, SA, RJ, CL ], // data
        [ I1, IN, IN, IN, IN, IN, CO, CE, ES, SS, SR, SA, IN, IN ], // INIT
        [ CE, CE, CE, CE, CE, CE, CO, CE, ES, SS, SR, SA, RJ, CL ], // INIT ACK
        [ ES, ES, ES, ES, ES, ES, CO, CE, ES, SS, SR, SA, RJ, CL ], // COOKIE ECHO
        [ ES, I1, IN, ES, ES, CW, ES, ES, ES, SS, SR, SA, RJ, CL ], // COOKIE ACK
        [ SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL ], // SHUTDOWN
        [ CL, IN, IN, CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL ], // SHUTDOWN ACK
        [ CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, CL, CL, RJ, CL ], // SHUTDOWN COMPLETE
        [ CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL ], // ERROR
        [ CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL ], // ABORT
    ],
];

/// The state after a packet.
#[inline]
pub fn next(view: View, event: Event, state: u8) -> u8 {
    TABLE[view as usize][event as usize]
        .get(usize::from(state))
        .copied()
        .unwrap_or(CLOSED)
}

/// The state's name in listings.
pub fn name(state: u8) -> &'static str {
    NAMES.get(usize::from(state)).copied().unwrap_or("ERR!")
}
