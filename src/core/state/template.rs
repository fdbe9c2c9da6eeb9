//! What is kept in the state of a persistence template: bits, not a protocol's state.

/// A connection under the template got established (UDP: was answered), so it is not given up for a failed attempt.
pub const ASSURED: u8 = 1;

/// Its name in listings.
pub fn name(state: u8) -> &'static str {
    match state {
        0 => "NONE",
        ASSURED => "ASSURED",
        _ => "ERR!",
    }
}
