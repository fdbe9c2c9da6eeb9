//! State that outlives a restart: what the journal holds is applied before anybody is served, and the tables are written
//! down whole when the journal has grown.

use std::io::ErrorKind;
use std::path::Path;

use ripvs_api::nl::Writer;
use ripvs_api::{ipvs, Errno, Incoming, Refusal, Request};

use super::client::Client;
use super::Control;
use crate::journal::{self, Journal, Records};

impl Control {
    /// Restores what the state directory holds, and keeps it from here on.
    ///
    /// # Errors
    /// The directory cannot be used, in words.
    pub fn open_journal(&mut self, dir: &Path) -> Result<(), String> {
        let fail = |error: std::io::Error| {
            let remedy = match error.kind() {
                ErrorKind::PermissionDenied => {
                    "give the user that ripvsd runs as the right to write there"
                }
                ErrorKind::ReadOnlyFilesystem => "its file system is read-only",
                ErrorKind::StorageFull => "make room there",
                _ => "it has to be a directory of ripvsd's own, which it makes where it can",
            };
            let dir = dir.display();
            format!("cannot use the state directory {dir}: {error}; {remedy}, or name another by `state_dir` or --state-dir")
        };
        let mut restored = journal::restore(dir).map_err(fail)?;
        for warning in &restored.warnings {
            log::warn!("journal: {warning}");
        }
        let messages = std::mem::take(&mut restored.messages);
        let (mut applied, mut refused) = (0, 0);
        for message in &messages {
            for incoming in Incoming::read(message) {
                let ended = match &incoming.request {
                    Ok(request) => self.replay(request),
                    Err(errno) => Err((*errno).into()),
                };
                match ended {
                    Ok(()) => applied += 1,
                    Err(refusal) => {
                        refused += 1;
                        log::warn!(
                            "journal: {:?} cannot be restored: {refusal}",
                            incoming.request
                        );
                    }
                }
            }
        }
        let (services, dests) = self.master.counts();
        if !messages.is_empty() {
            log::info!(
                "restored from {}: {services} services with {dests} dests, {applied} changes in all{}",
                dir.display(),
                if refused > 0 { format!(", {refused} refused") } else { String::new() }
            );
        }
        let state = self.state();
        self.journal = Some(Journal::open(dir, restored, state).map_err(fail)?);
        Ok(())
    }

    /// The messages that make the present state out of the configuration.
    pub(super) fn state(&self) -> Records {
        let (mut records, mut message) = (Records::new(), Writer::new());
        let mut add = |request: Request| {
            message.clear();
            request.encode(0, &mut message);
            records.push(message.as_bytes());
        };
        let ours = self.network.requests().into_iter().map(Request::Ripvs);
        let exactness = self.master.exactness().requests();
        ours.chain(self.settings.requests())
            .chain(exactness.into_iter().map(Request::Ripvs))
            .for_each(&mut add);
        for request in self.master.requests() {
            add(Request::Ipvs(request));
        }
        records
    }

    /// Writes what the changes since the last time are to be restored from. Where that fails, those who made them hear it.
    pub(super) fn write_journal(&mut self, clients: &mut [Client]) {
        let Some(journal) = self.journal.as_mut().filter(|journal| journal.is_behind()) else {
            return;
        };
        if let Err(error) = journal.write() {
            let refusal = unwritten(&error);
            for client in clients {
                client.refuse_batch(journal.batch(), &refusal);
            }
        }
    }

    /// Writes the state down whole if the journal has grown.
    pub(super) fn compact(&mut self) {
        let wanted = self.journal.as_mut().is_some_and(Journal::wants_compaction);
        if !wanted {
            return;
        }
        self.rewrite_journal();
    }

    /// Writes the state down whole.
    pub(super) fn rewrite_journal(&mut self) {
        if self.journal.is_none() {
            return;
        }
        let state = self.state();
        if let Some(journal) = &mut self.journal {
            if let Err(error) = journal.compact(state) {
                log::warn!("journal: it cannot be compacted: {error}");
            }
        }
    }
}

/// What a client hears of a change that is in effect and would not survive a restart.
pub(super) fn unwritten(error: &std::io::Error) -> Refusal {
    let errno = Errno(error.raw_os_error().unwrap_or(Errno::IO.0));
    let text = format!("in effect, but it cannot be written to the journal: {error}");
    Refusal::new(errno, text)
}

/// Whether a change is one that a restart is to bring back. Zeroed counters are not: all begin at nought then.
pub(super) fn outlives(request: &Request) -> bool {
    !matches!(request, Request::Ipvs(ipvs::Request::Zero(_)))
}
