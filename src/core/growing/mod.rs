//! Tables that grow in small steps, so that the packets behind a change wait for none of them to be copied: [`Numbered`]
//! for what has a number, [`GrowMap`] for what is found by a key, [`Chunked`] for lists. They hold what operators add in the
//! ten-thousands; what has a limit known beforehand, as connections, is laid out for it instead.

mod chunked;
mod map;
mod numbered;

pub(crate) use chunked::Chunked;
pub(crate) use map::GrowMap;
pub(crate) use numbered::Numbered;
