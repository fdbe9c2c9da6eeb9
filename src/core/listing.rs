//! Connections as listings show them, a page at a time.

use ripvs_packet::Frame;

use crate::conn::{Flags, Record};
use crate::delta::ConnEntry;
use crate::family::{V4, V6};
use crate::net::NeighEntry;
use crate::spec::Forward;
use crate::state;
use crate::types::{Af, Time};
use crate::worker::{Tables, Worker};

/// The bit of a cursor that says that the IPv4 table is done with.
const SECOND_TABLE: u64 = 1 << 63;

impl<F: Frame> Worker<F> {
    /// The neighbours.
    pub(crate) fn neighbours(&self, now: Time) -> Vec<NeighEntry> {
        let entries = self.net.neighbours().iter();
        entries.map(|neigh| neigh.entry(now)).collect()
    }

    /// Adds the connections among the next `max` records from a cursor (0: the beginning) on. The cursor that follows, none
    /// at the end.
    pub fn list(
        &self,
        now: Time,
        cursor: u64,
        max: usize,
        into: &mut Vec<ConnEntry>,
    ) -> Option<u64> {
        if cursor & SECOND_TABLE == 0 {
            let next = self.page_of::<V4>(now, cursor, max, into);
            Some(next.unwrap_or(SECOND_TABLE))
        } else {
            self.page_of::<V6>(now, cursor & !SECOND_TABLE, max, into)
                .map(|at| at | SECOND_TABLE)
        }
    }

    fn page_of<A: Tables<F>>(
        &self,
        now: Time,
        cursor: u64,
        max: usize,
        entries: &mut Vec<ConnEntry>,
    ) -> Option<u64> {
        A::table(self).dump(cursor, max, |id, record| {
            entries.push(self.entry::<A>(now, id, record))
        })
    }

    fn entry<A: Tables<F>>(
        &self,
        now: Time,
        id: crate::conn::ConnId,
        record: &Record<A>,
    ) -> ConnEntry {
        // A tunnel's end may be of the other family, which the record has no room for.
        let foreign = record
            .dest()
            .filter(|_| record.forward() == Forward::Tunnel)
            .and_then(|dest| self.services.dest(dest))
            .map(|dest| dest.spec.addr)
            .filter(|addr| Af::of(*addr) != A::AF);
        let daddr = match record.forward() {
            Forward::Bypass => A::to_ip(A::Addr::default()),
            _ => foreign.unwrap_or_else(|| A::to_ip(record.daddr())),
        };
        ConnEntry {
            proto: record.proto(),
            client: (A::to_ip(record.caddr()), record.cport()),
            virt: (A::to_ip(record.vaddr()), record.vport()),
            dest: (daddr, record.dport()),
            state: state::name(record.proto(), record.flags(), record.state),
            expires: record.expires().until(now.tick()),
            flags: record.flags().listed(),
            pe: record
                .has(Flags::TEMPLATE)
                .then(|| self.calls.of_template(A::IS_V6, id))
                .flatten()
                .map(|call_id| ("sip", call_id.to_vec())),
        }
    }
}
