//! The connection table of one worker and one address family: records, the index that finds them, and the wheel that
//! expires them. Knows what makes connections equal, not what they mean: states, counters and who controls whom are the
//! callers' business.
//!
//! A record never moves, so a [`ConnId`] stays good as long as its connection lives. A table is laid out for its limit
//! beforehand (the memory of records is touched as it fills, that of the index a little at a time when there are services),
//! and no operation takes longer the more connections there are.

mod flags;
mod index;
mod key;
mod record;
mod table;
mod wheel;

pub use flags::Flags;
pub use key::{Endpoints, Key, NewConn, OutKey};
pub(crate) use key::{Ports, Tuple};
pub use record::{Control, Record};
pub(crate) use table::LONGEST;
pub use table::{ConnTable, Expiry, TableFull, DELAYED, INITIAL_TIMEOUT};

/// The place of a connection's record in its table. Given anew when the connection is gone; who keeps one for longer keeps
/// the record's generation with it ([`ConnTable::holds`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u32);
