//! EntryLog: where the writer commits the entry of its own changes, before it applies them.
//!
//! Not here: how the writer decides, and how an entry is applied.

use std::sync::mpsc;

use blake3::Hash;
use tokio::sync::watch;
use uuid::Uuid;

use super::entry::Entry;
use super::{FORMAT, Followed, LogError, NewEntry};
use crate::policy::revision::Revision;
use crate::store::command_queue::CommandReply;
use crate::store::{Receipt, StoreError};

/// What became of an entry.
pub(in crate::store) enum EntryOutcome {
    /// The log has it. These sessions had a record when it was committed, besides the own one.
    Committed(Vec<Uuid>),
    /// The log does not have it, and never will: these entries came first, or the format of the log has
    /// changed.
    Behind(Vec<(Entry, Hash)>),
    /// It is not committed, or it is not known.
    Rejected(StoreError),
}

/// A log that orders the entries of all replicas.
pub(in crate::store) trait EntryLog: Send {
    /// The format in which entries are written.
    fn format(&self) -> u32;

    /// Commits an entry directly behind the one before it. It returns when the outcome is known. Until
    /// then it calls `meanwhile` now and then, and gives up when that is false.
    fn commit(&mut self, entry: &NewEntry, meanwhile: &mut dyn FnMut() -> bool) -> EntryOutcome;

    /// The log and this store have parted: nothing more is committed.
    fn failed(&self, error: LogError);

    /// Replies to the callers of committed changes when every listed session has published this revision,
    /// or has ended.
    fn acknowledge(&self, at: Revision, listed: Vec<Uuid>, committed: Vec<(CommandReply, Receipt)>);
}

/// A log without other replicas: each entry is the next one.
impl EntryLog for mpsc::Sender<Vec<u8>> {
    fn format(&self) -> u32 {
        FORMAT
    }

    fn commit(&mut self, entry: &NewEntry, _: &mut dyn FnMut() -> bool) -> EntryOutcome {
        match self.send(entry.bytes.clone()) {
            Ok(()) => EntryOutcome::Committed(Vec::new()),
            Err(_) => EntryOutcome::Rejected(StoreError::Unavailable),
        }
    }

    fn failed(&self, error: LogError) {
        tracing::error!(%error, "an entry of the log cannot be applied");
    }

    fn acknowledge(&self, _: Revision, _: Vec<Uuid>, committed: Vec<(CommandReply, Receipt)>) {
        for (reply, receipt) in committed {
            reply.send(Ok(receipt)).ok();
        }
    }
}

/// The log of a writer, and how far the writer has come in it.
pub(in crate::store) struct LogWriter {
    log: Box<dyn EntryLog>,
    followed: watch::Sender<Followed>,
}

impl LogWriter {
    pub(in crate::store) fn new(log: Box<dyn EntryLog>, followed: watch::Sender<Followed>) -> Self {
        Self { log, followed }
    }

    pub(in crate::store) fn followed(&self, followed: Followed) {
        self.followed.send_replace(followed);
    }
}

impl std::ops::Deref for LogWriter {
    type Target = dyn EntryLog;

    fn deref(&self) -> &Self::Target {
        &*self.log
    }
}

impl std::ops::DerefMut for LogWriter {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut *self.log
    }
}
