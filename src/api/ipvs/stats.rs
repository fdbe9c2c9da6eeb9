//! Counters and rates of a service or dest.

use serde::Serialize;

use crate::nl::{u32_at, u64_at, Table, Writer};

/// Attribute numbers of both forms; those from conns to outpkts and from cps on have 4 bytes in the older one.
const CONNS: u16 = 1;
const INPKTS: u16 = 2;
const OUTPKTS: u16 = 3;
const INBYTES: u16 = 4;
const OUTBYTES: u16 = 5;
const CPS: u16 = 6;
const INPPS: u16 = 7;
const OUTPPS: u16 = 8;
const INBPS: u16 = 9;
const OUTBPS: u16 = 10;

/// Counters since the start or the last zeroing, and rates per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Connections scheduled.
    pub conns: u64,
    /// Packets from clients.
    pub inpkts: u64,
    /// Packets to clients.
    pub outpkts: u64,
    /// Bytes from clients.
    pub inbytes: u64,
    /// Bytes to clients.
    pub outbytes: u64,
    /// Connections a second.
    pub cps: u64,
    /// Packets from clients a second.
    pub inpps: u64,
    /// Packets to clients a second.
    pub outpps: u64,
    /// Bytes from clients a second.
    pub inbps: u64,
    /// Bytes to clients a second.
    pub outbps: u64,
}

impl Stats {
    fn rows(&self) -> [(u16, u64); 10] {
        [
            (CONNS, self.conns),
            (INPKTS, self.inpkts),
            (OUTPKTS, self.outpkts),
            (INBYTES, self.inbytes),
            (OUTBYTES, self.outbytes),
            (CPS, self.cps),
            (INPPS, self.inpps),
            (OUTPPS, self.outpps),
            (INBPS, self.inbps),
            (OUTBPS, self.outbps),
        ]
    }

    /// Writes the older form: all but the bytes cut to 32 bits, as the kernel does.
    pub(super) fn encode32(&self, w: &mut Writer) {
        for (kind, value) in self.rows() {
            match kind {
                INBYTES | OUTBYTES => w.u64(kind, value),
                _ => w.u32(kind, value as u32),
            }
        }
    }

    /// Writes the newer form.
    pub(super) fn encode64(&self, w: &mut Writer) {
        for (kind, value) in self.rows() {
            w.u64(kind, value);
        }
    }

    /// Reads the newer form, or else the older one; what is missing is 0.
    pub(super) fn decode(newer: Option<&[u8]>, older: Option<&[u8]>) -> Stats {
        let table = Table::<11>::new(newer.or(older).unwrap_or(&[]));
        let number = |kind| match table.get(kind) {
            Some(value) => u64_at(value, 0)
                .or_else(|| u32_at(value, 0).map(u64::from))
                .unwrap_or(0),
            None => 0,
        };
        Stats {
            conns: number(CONNS),
            inpkts: number(INPKTS),
            outpkts: number(OUTPKTS),
            inbytes: number(INBYTES),
            outbytes: number(OUTBYTES),
            cps: number(CPS),
            inpps: number(INPPS),
            outpps: number(OUTPPS),
            inbps: number(INBPS),
            outbps: number(OUTBPS),
        }
    }
}
