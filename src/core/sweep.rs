//! With `expire_nodest_conn`, a removed dest's connections end with it: they are searched for, a bounded number of records a
//! round (`ip_vs_expire_nodest_conn_flush`, net/netfilter/ipvs/ip_vs_conn.c).

use ripvs_packet::Frame;

use crate::conn::ConnId;
use crate::family::{V4, V6};
use crate::types::Time;
use crate::worker::{Tables, Worker};

/// Records looked at in one round.
const STEP: usize = 512;

/// How far a search has come: the cursor in each family's table, `None` where there is nothing to search.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    cursors: [Option<u64>; 2],
    found: Vec<ConnId>,
}

impl Sweep {
    /// Begins a search, or begins it anew.
    pub fn begin(&mut self) {
        self.cursors = [Some(0); 2];
    }
}

impl<F: Frame> Worker<F> {
    /// Goes on with the search, if there is one.
    pub(crate) fn sweep(&mut self, now: Time) {
        self.sweep_of::<V4>(now);
        self.sweep_of::<V6>(now);
    }

    fn sweep_of<A: Tables<F>>(&mut self, now: Time) {
        let family = usize::from(A::IS_V6);
        let Some(cursor) = self.sweep.cursors[family] else {
            return;
        };
        let mut found = std::mem::take(&mut self.sweep.found);
        self.sweep.cursors[family] = A::table(self).dump(cursor, STEP, |id, record| {
            let dest = record.dest().and_then(|dest| self.services.dest(dest));
            if dest.is_some_and(|dest| !dest.available) {
                found.push(id);
            }
        });
        for id in found.drain(..) {
            let control = A::table(self).get(id).and_then(|record| record.control());
            self.drop_conn::<A>(now, id);
            // What controlled it goes as well, if it controls nothing else.
            if let Some(control) = control.filter(|control| control.worker == self.id) {
                self.drop_conn::<A>(now, control.id);
            }
        }
        self.sweep.found = found;
    }
}
