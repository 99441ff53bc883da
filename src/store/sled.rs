//! Sled: the embedded engine, one sled tree and one writer thread.
//!
//! Reads go to the tree directly. All writes go through the `writer`, which commits many changes
//! with one flush.
//!
//! sled's own `flush` only hands pages to the kernel. The writer therefore also syncs the log
//! through its own file handle. sled leaves some files beside the log unsynced or half written;
//! `data_dir` repairs them before sled opens the store. A store therefore opens after a power cut
//! at any moment (`tests/integration/power_loss.rs`). A value longer than `chunked::INLINE` is
//! divided into chunks under their own keys, because sled puts a page above 128 KiB into a file
//! beside its log and does not sync that file.
//!
//! Not here: the meaning of a change, and the actions of the [`CommitObserver`].

mod backup;
mod backup_feed;
mod batch_builder;
mod checksum;
mod chunked;
mod command_queue;
mod data_dir;
mod disk_space;
mod engine_error;
mod gc;
mod group_commit;
mod high_water_mark;
mod open;
mod open_error;
mod permissions;
mod restore;
mod upgrade;
mod usage;
mod writer;

use std::fs::File;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use jiff::Timestamp;
use sled::Tree;
use tokio::sync::oneshot;

use super::backup::Backup;
use super::quota::Quota;
use super::{
    CommitHandle, CommitObserver, Fact, FactKey, Incarnation, Minute, Proposal, RequestKey, Store,
    StoreError, StoreMetrics, StoredResult, key, record,
};
use crate::policy::change::Change;
use crate::policy::company::Company;
use crate::policy::credential::Credential;
use crate::policy::id::{CompanyId, CredentialId, UserId};
use crate::policy::revision::Revision;
use crate::policy::scope::ScopeId;
use crate::policy::user::User;
use backup::{ActiveBackups, SledBackup};
use command_queue::{CommandQueue, KEYS, QUEUE, URGENT, WriterCommand};
use engine_error::unavailable;
pub use open_error::OpenError;
pub use restore::{RestoreError, Restored, restore};
use usage::{Pending, SharedUsage};
use writer::Writer;

/// The schema version that this program writes. It does not open a store of a later version.
const SCHEMA_VERSION: u64 = 2;

/// The embedded engine.
pub struct SledStore {
    tree: Tree,
    incarnation: Incarnation,
    opened_at: Revision,
    time_mark: Option<Timestamp>,
    upgraded_from: Option<u64>,
    /// The durable time mark, in milliseconds.
    durable_time: Arc<AtomicI64>,
    metrics: Arc<StoreMetrics>,
    usage: SharedUsage,
    /// The parts of the writer, until it is started.
    setup: Mutex<Option<Setup>>,
    commands: CommandQueue,
    backups: ActiveBackups,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Locks the directory for this process. It is the last field, so it is dropped last.
    _lock: File,
}

/// The writer, the receiver of its commands, and the sender that starts its thread.
type Setup = (Writer, mpsc::Receiver<WriterCommand>, mpsc::Sender<Start>);

/// The message that starts the writer's thread.
type Start = (Writer, mpsc::Receiver<WriterCommand>, Arc<dyn CommitObserver>);

impl SledStore {
    /// The ids after `after` under a prefix, with their values.
    fn scan(
        &self,
        prefix: &key::Prefix,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(Box<str>, sled::IVec)>, StoreError> {
        let mut results = Vec::new();
        // The key after `x` is `x\0`: no id has that byte.
        let start = match after {
            Some(id) => [&prefix.last_of(id), "\0".as_bytes()].concat(),
            None => prefix.bytes().to_vec(),
        };
        for entry in self.tree.range(start..) {
            let (key, value) = entry.map_err(|error| unavailable(&error))?;
            let Some(id) = key.starts_with(prefix.bytes()).then(|| prefix.id(&key)) else {
                break;
            };
            if results.len() == limit {
                break;
            }
            results.push((id.ok_or(StoreError::Damaged)?.into(), value));
        }
        Ok(results)
    }

    /// The change of this revision.
    fn change(&self, revision: Revision) -> Result<Change, StoreError> {
        let stored = self.tree.get(key::change(revision)).map_err(|error| unavailable(&error))?;
        let stored = stored.map(|stored| chunked::read(&stored, &self.tree)).transpose()?.flatten();
        match stored {
            Some((_, bytes)) => Ok(record::decode_change(revision, &bytes)?),
            None => match self.compacted_to()? {
                compacted if compacted >= revision => Err(StoreError::Compacted(compacted)),
                _ => Err(StoreError::Damaged),
            },
        }
    }

    /// The changes of these index entries, all of which are after a revision.
    fn changes_at(
        &self,
        entries: impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>,
        after: Revision,
    ) -> Result<Vec<Change>, StoreError> {
        let mut results = Vec::new();
        for entry in entries {
            let (tree_key, _) = entry.map_err(|error| unavailable(&error))?;
            let revision = key::revision_at_end(&tree_key).ok_or(StoreError::Damaged)?;
            results.push(self.change(revision)?);
        }
        // Read after the changes (no silent gap).
        let compacted = self.compacted_to()?;
        if compacted > after { Err(StoreError::Compacted(compacted)) } else { Ok(results) }
    }

    /// The last revision whose change garbage collection removed.
    fn compacted_to(&self) -> Result<Revision, StoreError> {
        let stored = self.tree.get(key::COMPACTED).map_err(|error| unavailable(&error))?;
        let number = |bytes: sled::IVec| <[u8; 8]>::try_from(&*bytes).map(u64::from_be_bytes);
        let compacted = stored.map(number).transpose().map_err(|_| StoreError::Damaged)?;
        Ok(Revision(compacted.unwrap_or(0)))
    }

    fn fact(&self, key: &FactKey, stored: &[u8]) -> Result<Option<Fact>, StoreError> {
        match chunked::read(stored, &self.tree)? {
            Some((revision, bytes)) => Ok(Some(record::decode(key, revision, &bytes)?)),
            // A chunk is missing: the value was replaced after `stored` was read.
            None => self.get(key),
        }
    }
}

impl Store for SledStore {
    fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    fn opened_at(&self) -> Revision {
        self.opened_at
    }

    fn time_mark(&self) -> Option<Timestamp> {
        self.time_mark
    }

    fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    fn start(&self, observer: Arc<dyn CommitObserver>) {
        let setup = self.setup.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((writer, commands, start_sender)) = setup
            && let Err(mpsc::SendError((.., observer))) =
                start_sender.send((writer, commands, observer))
        {
            // The writer thread is gone, so nothing can be committed.
            observer.failed();
        }
    }

    fn get(&self, key: &FactKey) -> Result<Option<Fact>, StoreError> {
        let tree_key = key::fact(key);
        loop {
            let Some(stored) = self.tree.get(&tree_key).map_err(|error| unavailable(&error))?
            else {
                return Ok(None);
            };
            if let Some((revision, bytes)) = chunked::read(&stored, &self.tree)? {
                return Ok(Some(record::decode(key, revision, &bytes)?));
            }
            // A chunk is missing: the value was replaced meanwhile, or it is corrupt.
            if self.tree.get(&tree_key).map_err(|error| unavailable(&error))?.as_ref()
                == Some(&stored)
            {
                return Err(StoreError::Damaged);
            }
        }
    }

    fn companies(
        &self,
        after: Option<&CompanyId>,
        limit: usize,
    ) -> Result<Vec<Company>, StoreError> {
        let mut results = Vec::new();
        for (id, stored) in self.scan(&key::companies(), after.map(CompanyId::as_str), limit)? {
            let id = CompanyId::parse(id).map_err(|_| StoreError::Damaged)?;
            if let Some(Fact::Company(company)) = self.fact(&FactKey::Company(id), &stored)? {
                results.push(Arc::unwrap_or_clone(company));
            }
        }
        Ok(results)
    }

    fn credentials(
        &self,
        company: Revision,
        after: Option<&CredentialId>,
        limit: usize,
    ) -> Result<Vec<Credential>, StoreError> {
        let mut results = Vec::new();
        let prefix = key::credentials(company);
        for (id, stored) in self.scan(&prefix, after.map(CredentialId::as_str), limit)? {
            let id = CredentialId::parse(id).map_err(|_| StoreError::Damaged)?;
            let fact = self.fact(&FactKey::Credential(company, id), &stored)?;
            if let Some(Fact::Credential(credential)) = fact {
                results.push(Arc::unwrap_or_clone(credential));
            }
        }
        Ok(results)
    }

    fn holders(
        &self,
        company: Revision,
        scope: ScopeId,
        after: Option<&CredentialId>,
        limit: usize,
    ) -> Result<Vec<CredentialId>, StoreError> {
        let results =
            self.scan(&key::holders(company, scope), after.map(CredentialId::as_str), limit)?;
        results
            .into_iter()
            .map(|(id, _)| CredentialId::parse(id).map_err(|_| StoreError::Damaged))
            .collect()
    }

    fn users(
        &self,
        company: Revision,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<User>, StoreError> {
        let mut results = Vec::new();
        for (id, stored) in self.scan(&key::users(company), after.map(UserId::as_str), limit)? {
            let id = UserId::parse(id).map_err(|_| StoreError::Damaged)?;
            if let Some(Fact::User(user)) = self.fact(&FactKey::User(company, id), &stored)? {
                results.push(Arc::unwrap_or_clone(user));
            }
        }
        Ok(results)
    }

    fn changes(
        &self,
        company: Option<&CompanyId>,
        after: Revision,
        up_to: Revision,
        limit: usize,
    ) -> Result<Vec<Change>, StoreError> {
        let range = changes_between(company, after, up_to);
        if range.is_empty() {
            return Ok(Vec::new());
        }
        self.changes_at(self.tree.range(range).take(limit), after)
    }

    fn changes_back(
        &self,
        company: Option<&CompanyId>,
        after: Revision,
        up_to: Revision,
        limit: usize,
    ) -> Result<Vec<Change>, StoreError> {
        let range = changes_between(company, after, up_to);
        if range.is_empty() {
            return Ok(Vec::new());
        }
        self.changes_at(self.tree.range(range).rev().take(limit), after)
    }

    fn answered(&self, request: &RequestKey) -> Result<Option<StoredResult>, StoreError> {
        let stored = self.tree.get(key::reply(request)).map_err(|error| unavailable(&error))?;
        // If the result expires between the two reads, it is not found.
        let Some(stored) = stored else { return Ok(None) };
        let Some((revision, bytes)) = chunked::read(&stored, &self.tree)? else { return Ok(None) };
        Ok(Some(record::decode_result(revision, &bytes)?))
    }

    fn commit(&self, proposal: Proposal) -> Result<CommitHandle, StoreError> {
        let (reply, handle) = oneshot::channel();
        // Concurrent callers may exceed this limit by a few; the bound of the channel is exact.
        let waiting = self.metrics.waiting.read();
        let is_full = waiting >= QUEUE as u64 && !proposal.takes_away();
        if is_full || (waiting >= (QUEUE + URGENT - KEYS) as u64 && !proposal.deletes_keys()) {
            return Err(StoreError::Busy);
        }
        self.commands.queue(WriterCommand::Commit(Box::new(proposal), reply))?;
        Ok(handle)
    }

    fn admits(&self, proposal: &Proposal) -> Result<(), StoreError> {
        let time = proposal.change.time;
        self.usage.check(&Pending::default(), proposal, time).map_err(StoreError::AtBound)
    }

    fn check_quota(&self, company: Revision, bound: Quota, more: u64) -> Result<(), StoreError> {
        self.usage.check_more(company, bound, more).map_err(StoreError::AtBound)
    }

    fn last_seen(&self, credential: Revision) -> Result<Option<Minute>, StoreError> {
        let stored = self.tree.get(key::seen(credential)).map_err(|error| unavailable(&error))?;
        let minute = |bytes: sled::IVec| <[u8; 4]>::try_from(&*bytes).map(Minute::from_be_bytes);
        stored.map(minute).transpose().map_err(|_| StoreError::Damaged)
    }

    fn note_last_seen(&self, seen: Vec<(Revision, Minute)>) {
        if !seen.is_empty() {
            self.commands.queue_behind(WriterCommand::Seen(seen)).ok();
        }
    }

    fn mark_time(&self, time: Timestamp, believed: Timestamp) {
        // If the queue is full, the commits in it carry the time.
        self.commands.queue_behind(WriterCommand::MarkTime { time, believed }).ok();
    }

    fn durable_time(&self) -> Timestamp {
        let millisecond = self.durable_time.load(Ordering::Acquire);
        Timestamp::from_millisecond(millisecond).unwrap_or(Timestamp::MAX)
    }

    fn persist_time(&self, time: Timestamp) -> Result<oneshot::Receiver<()>, StoreError> {
        let (reply, durable) = oneshot::channel();
        self.commands.queue_behind(WriterCommand::PersistTime(time, reply))?;
        Ok(durable)
    }

    fn backup(&self) -> Result<Box<dyn Backup>, StoreError> {
        if self.setup.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            // The writer is not started, so no feed can be registered.
            return Err(StoreError::Unavailable);
        }
        let (tree, commands) = (self.tree.clone(), self.commands.clone());
        Ok(Box::new(SledBackup::begin(tree, self.incarnation, commands, &self.backups)?))
    }

    fn close(&self) {
        self.commands.close();
        self.setup.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // If the writer panicked, it has reported that to its observer.
        thread.map(JoinHandle::join);
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.close();
    }
}

/// The keys of the changes after one revision and up to another.
fn changes_between(
    company: Option<&CompanyId>,
    after: Revision,
    up_to: Revision,
) -> RangeInclusive<Vec<u8>> {
    match company {
        Some(id) => key::change_of(id, after.next())..=key::change_of(id, up_to),
        None => key::change(after.next())..=key::change(up_to),
    }
}
