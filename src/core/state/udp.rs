//! UDP has one state. Every packet starts its time anew.

/// The only state.
pub const NORMAL: u8 = 0;

/// Its name in listings.
pub fn name(state: u8) -> &'static str {
    match state {
        NORMAL => "UDP",
        _ => "ERR!",
    }
}
