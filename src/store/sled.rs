//! The embedded engine: one sled tree, one writer thread.
//!
//! Reads go to the tree directly. Everything written goes through the `writer`, which
//! commits many changes with one flush.
//!
//! sled's own `flush` hands pages to the kernel and no further, so the writer also syncs the
//! log through a file handle of its own. What sled leaves unsynced beside the log, or half
//! written, is put right while the store is opened: a power cut at any moment then leaves a store
//! that opens (`tests/integration/power_loss.rs`). A value longer than `value::INLINE` is cut into
//! parts under keys of their own: sled would put a page above 128 KiB into a file beside its
//! log, which it does not sync.
//!
//! Not here: what a change means, and who is told of it beyond the [`Listener`].

mod backup;
mod exposure;
mod gather;
mod restore;
mod room;
mod sweep;
mod tally;
mod upgrade;
mod usage;
mod value;
mod witness;
mod writer;

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use std::ops::RangeInclusive;

use jiff::{SignedDuration, Timestamp};
use sled::Tree;
use tokio::sync::oneshot;

use super::backup::Backup;
use super::bounds::{Bound, Bounds};
use super::{
    Answered, Damage, Fact, FactKey, Incarnation, LEAD, Listener, Measures, Minute, Proposal,
    RequestKey, Store, StoreError, Ticket, key, record,
};
use crate::measure::shortage;
use crate::policy::change::{Author, Change, ChangeKind, FieldChange};
use crate::policy::company::Company;
use crate::policy::credential::Credential;
use crate::policy::id::{CompanyId, CredentialId, UserId};
use crate::policy::revision::Revision;
use crate::policy::scope::ScopeId;
use crate::policy::user::User;
use backup::{SledBackup, UnderWay};
pub use restore::{RestoreError, Restored, restore};
use room::Room;
use tally::{Entries, Tally};
use usage::{Pending, SharedUsage};
use witness::{Said, Witness};
use writer::{Order, Writer};

/// The version of what this program writes. A store of a later one is not opened.
const SCHEMA_VERSION: u64 = 2;
/// sled's log, and its settings.
const LOG: &str = "db";
const SETTINGS: &str = "conf";
/// How much of the tree sled keeps in memory unless told otherwise, in bytes.
const PAGE_CACHE: u64 = 64 << 20;
/// How long to wait for another process that is about to let go of the store.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait before another look.
const PAUSE: Duration = Duration::from_millis(20);
/// How many threads a store needs: those of sled, and the writer.
const THREADS: usize = 10;
/// How many changes may wait for the writer.
const QUEUE: usize = 4096;
/// How many more of those that take away: they do not have to wait until others make room.
const URGENT: usize = 256;
/// How many of these are only for changes that delete keys.
const KEYS: usize = 64;

/// Why a store cannot be opened, in a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "another process has the store in `{0}` open; stop that one, or choose another --data-dir"
    )]
    Locked(String),
    /// It does not read as what was written.
    #[error(
        "the store in `{0}` is damaged; restore it from a backup, or move the directory away to start an empty one"
    )]
    Damaged(String),
    /// It is being restored, or a restore was cut off there.
    #[error(
        "the store in `{0}` is only half restored; run `scopegate restore` again with this --data-dir"
    )]
    HalfRestored(String),
    /// A newer version wrote it.
    #[error(
        "the store in `{dir}` was written by a newer version (schema {found}, this program knows {SCHEMA_VERSION}); run that version or a later one"
    )]
    Newer {
        /// The data directory.
        dir: String,
        /// Its schema version.
        found: u64,
    },
    /// The system refused something: a permission, a file, a thread, memory. What is kept is whole
    /// as far as is known.
    #[error("the store in `{dir}` cannot be opened: {told}")]
    Refused {
        /// The data directory, or what is in it that cannot be used.
        dir: String,
        /// What the system said, and what to do.
        told: String,
    },
}

impl OpenError {
    /// Why a store that was opened cannot be used.
    #[must_use]
    pub fn of(dir: &Path, error: &StoreError) -> Self {
        let dir = dir.display().to_string();
        match error {
            StoreError::Damaged => Self::Damaged(dir),
            other => Self::Refused { dir, told: format!("{other} (the log says why)") },
        }
    }

    /// The same, by what a panic said while it was read.
    #[must_use]
    pub fn of_panic(dir: &Path, said: &str) -> Self {
        let dir = dir.display().to_string();
        match shortage::number_in(said) {
            Some(number) => Self::Refused { dir, told: shortage::told_by_number(number) },
            None => Self::Damaged(dir),
        }
    }
}

/// The embedded engine.
pub struct SledStore {
    tree: Tree,
    incarnation: Incarnation,
    opened_at: Revision,
    time_mark: Option<Timestamp>,
    upgraded_from: Option<u64>,
    /// The time mark that is on the disk, in milliseconds.
    time_kept: Arc<AtomicI64>,
    measures: Arc<Measures>,
    usage: SharedUsage,
    /// What the writer is made of, until it is started.
    parts: Mutex<Option<Parts>>,
    orders: Orders,
    backups: UnderWay,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The last to go: until then the directory is this process's.
    _held: File,
}

/// What is done with a store of an older schema.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OlderSchema {
    /// It is brought to that of this program.
    Upgrade,
    /// It is only read, as it is.
    Keep,
}

/// The writer, its queue, and the way to its thread.
type Parts = (Writer, mpsc::Receiver<Order>, mpsc::Sender<Start>);

/// What the writer's thread waits for.
type Start = (Writer, mpsc::Receiver<Order>, Arc<dyn Listener>);

/// The way to the writer, until the engine is closed.
#[derive(Clone)]
struct Orders {
    sender: Arc<Mutex<Option<mpsc::SyncSender<Order>>>>,
    measures: Arc<Measures>,
}

impl Orders {
    fn sender(&self) -> Result<mpsc::SyncSender<Order>, StoreError> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sender.ok_or(StoreError::Unavailable)
    }

    /// Queues an order, if there is room for it.
    fn queue(&self, order: Order) -> Result<(), StoreError> {
        let sender = self.sender()?;
        // Before the writer may count it down.
        self.measures.waiting.up();
        sender.try_send(order).map_err(|error| {
            self.measures.waiting.down();
            match error {
                mpsc::TrySendError::Full(_) => StoreError::Busy,
                mpsc::TrySendError::Disconnected(_) => StoreError::Unavailable,
            }
        })
    }

    /// Queues an order that must not take the places of what takes away.
    fn queue_behind(&self, order: Order) -> Result<(), StoreError> {
        if self.measures.waiting.read() >= QUEUE as u64 {
            return Err(StoreError::Busy);
        }
        self.queue(order)
    }

    /// Queues an order as soon as there is room for it.
    fn wait_for(&self, order: Order) -> Result<(), StoreError> {
        let sender = self.sender()?;
        self.measures.waiting.up();
        sender.send(order).map_err(|_| {
            self.measures.waiting.down();
            StoreError::Unavailable
        })
    }

    fn close(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl SledStore {
    /// Whether there is something in this directory that could be a store.
    #[must_use]
    pub fn exists(dir: &Path) -> bool {
        dir.join(LOG).exists()
    }

    /// Opens the store in this directory, or makes an empty one.
    ///
    /// # Errors
    /// Says why not, and what to do.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_with_page_cache(dir, PAGE_CACHE)
    }

    /// As [`Self::open`], with so many bytes of pages kept in memory. What sled counts is the
    /// pages as they are on disk: in memory they take about twice as much.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_with_page_cache(dir: &Path, bytes: u64) -> Result<Self, OpenError> {
        let patience = Instant::now() + PATIENCE;
        loop {
            match Self::open_now(dir, bytes) {
                // Whoever has it may be about to let go.
                Err(OpenError::Locked(_)) if Instant::now() < patience => thread::sleep(PAUSE),
                opened => return opened,
            }
        }
    }

    fn open_now(dir: &Path, page_cache: u64) -> Result<Self, OpenError> {
        let name = dir.display().to_string();
        let io_error = |error: &io::Error| refused(dir, error);
        create(dir).map_err(|error| io_error(&error))?;
        let held = match hold(dir) {
            Ok(held) => held,
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(name)),
            Err(TryLockError::Error(error)) => return Err(io_error(&error)),
        };
        if restore::is_unfinished(dir) {
            return Err(OpenError::HalfRestored(name));
        }
        // Without its own threads sled waits for them for ever.
        shortage::threads(THREADS).map_err(|error| io_error(&error))?;
        // sled panics on what it cannot read, and prints it: here it becomes one sentence.
        let (opened, said) = quietly(|| Self::read(dir, page_cache, held, OlderSchema::Upgrade));
        match opened {
            Some(Ok(store)) => {
                exposure::warn(dir);
                Ok(store)
            }
            Some(Err(Trouble::Newer(found))) => Err(OpenError::Newer { dir: name, found }),
            Some(Err(Trouble::Sled(error))) => Err(open_error(dir, &error, &said)),
            Some(Err(Trouble::Damage)) => Err(OpenError::Damaged(name)),
            Some(Err(Trouble::Store(error))) => Err(OpenError::of(dir, &error)),
            None => Err(OpenError::of_panic(dir, &said)),
        }
    }

    /// Keeps changes for this long, and no longer; to be said before the writer is started. The
    /// last change always stays.
    #[must_use]
    pub fn keeping_changes_for(self, retention: SignedDuration) -> Self {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((writer, ..)) = &mut *parts {
            writer.keep_changes(retention);
        }
        drop(parts);
        self
    }

    /// Keeps every company within these bounds; to be said before the writer is started. Without
    /// it there are none.
    #[must_use]
    pub fn bounding_companies(self, bounds: Bounds) -> Self {
        self.usage.bound_by(bounds);
        self
    }

    /// Lets every change use the space that is reserved for those that take away; to be said
    /// before the writer is started. It is for the way back, when nobody has a key any more.
    #[must_use]
    pub fn using_the_reserve(self) -> Self {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((writer, ..)) = &mut *parts {
            writer.use_the_reserve();
        }
        drop(parts);
        self
    }

    /// Brings the store's time back to the machine's clock, by an audited change, if it is ahead
    /// of it by more than the mark always is; to be called before the writer is started. Says
    /// from which time, if so (D19).
    ///
    /// # Errors
    /// The disk failed.
    pub fn accept_clock(
        &mut self,
        now: Timestamp,
        author: Author,
    ) -> Result<Option<Timestamp>, StoreError> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((writer, ..)) = &mut *parts else { return Err(StoreError::Unavailable) };
        let (_, before) = writer.reached();
        // Whole milliseconds, as all times.
        let now = Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now);
        if before <= now.checked_add(LEAD).unwrap_or(Timestamp::MAX) {
            return Ok(None);
        }
        writer.accept_clock(Change {
            revision: Revision::NEXT,
            time: now,
            author,
            kind: ChangeKind::AcceptClock,
            company: None,
            credential: None,
            user: None,
            added: vec![],
            removed: vec![],
            displaced: vec![],
            fields: FieldChange::time("time", Some(before), Some(now)).into_iter().collect(),
        })?;
        (self.opened_at, self.time_mark) = (writer.reached().0, Some(now));
        Ok(Some(before))
    }

    /// The schema that the store had before it was opened, if this program has upgraded it.
    #[must_use]
    pub fn upgraded_from(&self) -> Option<u64> {
        self.upgraded_from
    }

    fn read(dir: &Path, page_cache: u64, held: File, older: OlderSchema) -> Result<Self, Trouble> {
        room::release(dir)?;
        settle(dir)?;
        let db = config(dir, page_cache).open()?;
        let tree: Tree = (*db).clone();
        let log = File::open(dir.join(LOG))?;
        // The names of the log and of the snapshot that was just made: sled does not sync them.
        File::open(dir)?.sync_all()?;
        let witness = Witness::ask(dir)?;
        if tree.get(key::SCHEMA)?.is_none() {
            // sled opens a log that it cannot follow as an empty one: a store that was made here
            // before must not come back as a new one.
            if !tree.is_empty() || !matches!(witness, Said::Nothing) {
                return Err(Trouble::Damage);
            }
            let mut first = Entries::default();
            first.insert(key::SCHEMA, SCHEMA_VERSION.to_be_bytes());
            first.insert(key::INCARNATION, *Incarnation::new_v4().as_bytes());
            first.insert(key::HEAD, 0_u64.to_be_bytes());
            first.apply(&tree, &mut Tally::default())?;
            tree.flush()?;
        }
        // What a killed process had only handed to the kernel is durable before it is known.
        log.sync_all()?;
        let schema = number(&tree, key::SCHEMA)?.ok_or(Trouble::Damage)?;
        if schema > SCHEMA_VERSION {
            return Err(Trouble::Newer(schema));
        }
        let (mut tally, usage) = Tally::of(&tree)?;
        if Tally::kept(&tree)? != Some(tally) {
            return Err(Trouble::Damage);
        }
        let incarnation = tree.get(key::INCARNATION)?.ok_or(Trouble::Damage)?;
        let incarnation = Incarnation::from_slice(&incarnation).map_err(|_| Trouble::Damage)?;
        let opened_at = Revision(number(&tree, key::HEAD)?.ok_or(Trouble::Damage)?);
        if let Some((last, _)) = tree.scan_prefix(key::changes()).next_back().transpose()?
            && key::revision_at_end(&last) != Some(opened_at)
        {
            return Err(Trouble::Damage);
        }
        let time_mark = number(&tree, key::TIME)?.map(i64::try_from).transpose();
        let time_mark = time_mark.map_err(|_| Trouble::Damage)?;
        let time_mark = time_mark.map(Timestamp::from_millisecond).transpose();
        let mut time_mark = time_mark.map_err(|_| Trouble::Damage)?;
        let accepted = sweep::clock_accepted(&tree)?.map_or(Revision::ZERO, |(at, _)| at);
        match witness {
            Said::Nothing => {
                if opened_at > Revision::ZERO {
                    tracing::warn!(
                        dir = %dir.display(), revision = %opened_at,
                        "the store has no `witness` file, so it cannot be told whether an older \
                         state of it was put back: compare the revision with a backup or a log; \
                         the file is made anew"
                    );
                }
            }
            Said::Reached(life, reached, mark) if life == incarnation && reached <= opened_at => {
                // Its time is the later one if the log had no room for it, or has lost its end.
                // It does not count if an operator brought time back since.
                if reached >= accepted {
                    time_mark = time_mark.max(Some(mark));
                }
            }
            Said::Reached(..) | Said::Nonsense => return Err(Trouble::Damage),
        }
        let upgraded_from = match older {
            OlderSchema::Upgrade if schema < SCHEMA_VERSION => {
                upgrade::upgrade(&tree, &mut tally, &log, schema)?;
                Some(schema)
            }
            _ => None,
        };
        let mark = time_mark.unwrap_or(Timestamp::UNIX_EPOCH);
        let witness = Witness::take(dir, incarnation, opened_at, mark)?;
        let (send, receive) = mpsc::sync_channel(QUEUE + URGENT);
        // Now, so that a store which could not change anything is not opened.
        let (begin, begins) = mpsc::channel::<Start>();
        let thread = thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            if let Ok((writer, orders, listener)) = begins.recv() {
                writer.run(&orders, listener);
            }
        })?;
        let measures = Arc::<Measures>::default();
        let counted = Arc::clone(&measures);
        let mut room = Room::on(dir, Arc::clone(&measures))?;
        // From the start, not only from the first change on.
        room.look();
        let of_tree = (tally, usage.clone());
        let writer = Writer::new(tree.clone(), of_tree, log, witness, room, opened_at, time_mark)?;
        let time_kept = writer.kept();
        Ok(Self {
            tree,
            incarnation,
            opened_at,
            time_mark,
            upgraded_from,
            time_kept,
            measures,
            usage,
            parts: Mutex::new(Some((writer, receive, begin))),
            orders: Orders { sender: Arc::new(Mutex::new(Some(send))), measures: counted },
            backups: UnderWay::default(),
            thread: Mutex::new(Some(thread)),
            _held: held,
        })
    }

    /// The ids behind `after` under a prefix, with their values.
    fn scan(
        &self,
        prefix: &key::Prefix,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(Box<str>, sled::IVec)>, StoreError> {
        let mut found = Vec::new();
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
            if found.len() == limit {
                break;
            }
            found.push((id.ok_or(StoreError::Damaged)?.into(), value));
        }
        Ok(found)
    }

    /// The change of this revision.
    fn change(&self, revision: Revision) -> Result<Change, StoreError> {
        let stored = self.tree.get(key::change(revision)).map_err(|error| unavailable(&error))?;
        let stored = stored.map(|stored| value::read(&stored, &self.tree)).transpose()?.flatten();
        match stored {
            Some((_, bytes)) => Ok(record::decode_change(revision, &bytes)?),
            None => match self.trimmed()? {
                trimmed if trimmed >= revision => Err(StoreError::NoLongerKept(trimmed)),
                _ => Err(StoreError::Damaged),
            },
        }
    }

    /// The changes of these entries, all of which are behind a revision.
    fn changes_at(
        &self,
        entries: impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>,
        after: Revision,
    ) -> Result<Vec<Change>, StoreError> {
        let mut found = Vec::new();
        for entry in entries {
            let (place, _) = entry.map_err(|error| unavailable(&error))?;
            let revision = key::revision_at_end(&place).ok_or(StoreError::Damaged)?;
            found.push(self.change(revision)?);
        }
        // Read after the changes (no silent gap).
        let trimmed = self.trimmed()?;
        if trimmed > after { Err(StoreError::NoLongerKept(trimmed)) } else { Ok(found) }
    }

    /// The last revision whose change is no longer kept.
    fn trimmed(&self) -> Result<Revision, StoreError> {
        let stored = self.tree.get(key::TRIMMED).map_err(|error| unavailable(&error))?;
        let number = |bytes: sled::IVec| <[u8; 8]>::try_from(&*bytes).map(u64::from_be_bytes);
        let trimmed = stored.map(number).transpose().map_err(|_| StoreError::Damaged)?;
        Ok(Revision(trimmed.unwrap_or(0)))
    }

    fn fact(&self, key: &FactKey, stored: &[u8]) -> Result<Option<Fact>, StoreError> {
        match value::read(stored, &self.tree)? {
            Some((revision, bytes)) => Ok(Some(record::decode(key, revision, &bytes)?)),
            // A part is gone since: the value was replaced after `stored` was read.
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

    fn measures(&self) -> &Measures {
        &self.measures
    }

    fn start(&self, listener: Arc<dyn Listener>) {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((writer, orders, begin)) = parts
            && let Err(mpsc::SendError((.., listener))) = begin.send((writer, orders, listener))
        {
            // There is no thread that could commit anything.
            listener.failed();
        }
    }

    fn get(&self, key: &FactKey) -> Result<Option<Fact>, StoreError> {
        let place = key::fact(key);
        loop {
            let Some(stored) = self.tree.get(&place).map_err(|error| unavailable(&error))? else {
                return Ok(None);
            };
            if let Some((revision, bytes)) = value::read(&stored, &self.tree)? {
                return Ok(Some(record::decode(key, revision, &bytes)?));
            }
            // A part is gone: either the value has been replaced meanwhile, or it is damaged.
            if self.tree.get(&place).map_err(|error| unavailable(&error))?.as_ref() == Some(&stored)
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
        let mut found = Vec::new();
        for (id, stored) in self.scan(&key::companies(), after.map(CompanyId::as_str), limit)? {
            let id = CompanyId::parse(id).map_err(|_| StoreError::Damaged)?;
            if let Some(Fact::Company(company)) = self.fact(&FactKey::Company(id), &stored)? {
                found.push(Arc::unwrap_or_clone(company));
            }
        }
        Ok(found)
    }

    fn credentials(
        &self,
        company: Revision,
        after: Option<&CredentialId>,
        limit: usize,
    ) -> Result<Vec<Credential>, StoreError> {
        let mut found = Vec::new();
        let prefix = key::credentials(company);
        for (id, stored) in self.scan(&prefix, after.map(CredentialId::as_str), limit)? {
            let id = CredentialId::parse(id).map_err(|_| StoreError::Damaged)?;
            let fact = self.fact(&FactKey::Credential(company, id), &stored)?;
            if let Some(Fact::Credential(credential)) = fact {
                found.push(Arc::unwrap_or_clone(credential));
            }
        }
        Ok(found)
    }

    fn holders(
        &self,
        company: Revision,
        scope: ScopeId,
        after: Option<&CredentialId>,
        limit: usize,
    ) -> Result<Vec<CredentialId>, StoreError> {
        let found =
            self.scan(&key::holders(company, scope), after.map(CredentialId::as_str), limit)?;
        found
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
        let mut found = Vec::new();
        for (id, stored) in self.scan(&key::users(company), after.map(UserId::as_str), limit)? {
            let id = UserId::parse(id).map_err(|_| StoreError::Damaged)?;
            if let Some(Fact::User(user)) = self.fact(&FactKey::User(company, id), &stored)? {
                found.push(Arc::unwrap_or_clone(user));
            }
        }
        Ok(found)
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

    fn answered(&self, request: &RequestKey) -> Result<Option<Answered>, StoreError> {
        let stored = self.tree.get(key::answered(request)).map_err(|error| unavailable(&error))?;
        // Forgotten between two reads, it is forgotten.
        let Some(stored) = stored else { return Ok(None) };
        let Some((_, bytes)) = value::read(&stored, &self.tree)? else { return Ok(None) };
        Ok(Some(record::decode_answered(&bytes)?))
    }

    fn commit(&self, proposal: Proposal) -> Result<Ticket, StoreError> {
        let (answer, ticket) = oneshot::channel();
        // What comes at this moment may go a little above; the channel has the last word.
        let waiting = self.measures.waiting.read();
        let is_full = waiting >= QUEUE as u64 && !proposal.takes_away();
        if is_full || (waiting >= (QUEUE + URGENT - KEYS) as u64 && !proposal.deletes_keys()) {
            return Err(StoreError::Busy);
        }
        self.orders.queue(Order::Commit(Box::new(proposal), answer))?;
        Ok(ticket)
    }

    fn admits(&self, proposal: &Proposal) -> Result<(), StoreError> {
        let time = proposal.change.time;
        self.usage.admits(&Pending::default(), proposal, time).map_err(StoreError::AtBound)
    }

    fn has_room(&self, company: Revision, bound: Bound, more: u64) -> Result<(), StoreError> {
        self.usage.has_room(company, bound, more).map_err(StoreError::AtBound)
    }

    fn last_seen(&self, credential: Revision) -> Result<Option<Minute>, StoreError> {
        let stored = self.tree.get(key::seen(credential)).map_err(|error| unavailable(&error))?;
        let minute = |bytes: sled::IVec| <[u8; 4]>::try_from(&*bytes).map(Minute::from_be_bytes);
        stored.map(minute).transpose().map_err(|_| StoreError::Damaged)
    }

    fn note_seen(&self, seen: Vec<(Revision, Minute)>) {
        if !seen.is_empty() {
            self.orders.queue_behind(Order::Seen(seen)).ok();
        }
    }

    fn mark_time(&self, time: Timestamp, believed: Timestamp) {
        // With the queue full, the commits that fill it carry the time.
        self.orders.queue_behind(Order::MarkTime { time, believed }).ok();
    }

    fn time_kept(&self) -> Timestamp {
        let kept = self.time_kept.load(Ordering::Acquire);
        Timestamp::from_millisecond(kept).unwrap_or(Timestamp::MAX)
    }

    fn keep_time(&self, time: Timestamp) -> Result<oneshot::Receiver<()>, StoreError> {
        let (told, kept) = oneshot::channel();
        self.orders.queue_behind(Order::KeepTime(time, told))?;
        Ok(kept)
    }

    fn backup(&self) -> Result<Box<dyn Backup>, StoreError> {
        if self.parts.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            // There is nobody yet to hand anything over.
            return Err(StoreError::Unavailable);
        }
        let (tree, orders) = (self.tree.clone(), self.orders.clone());
        Ok(Box::new(SledBackup::begin(tree, self.incarnation, orders, &self.backups)?))
    }

    fn close(&self) {
        self.orders.close();
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The writer has told its listener if it panicked.
        thread.map(JoinHandle::join);
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.close();
    }
}

/// Runs something that may panic, and says what was said of it instead of printing it.
fn quietly<T>(work: impl FnOnce() -> T) -> (Option<T>, String) {
    let said = Arc::new(Mutex::new(String::new()));
    let hook = panic::take_hook();
    let heard = Arc::clone(&said);
    panic::set_hook(Box::new(move |what| {
        heard.lock().unwrap_or_else(PoisonError::into_inner).push_str(&what.to_string());
    }));
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(hook);
    let said = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (done.ok(), said)
}

/// Why sled does not open a store. It often panics on what the system refused, or wraps it.
fn open_error(dir: &Path, error: &sled::Error, said: &str) -> OpenError {
    let name = dir.display().to_string();
    let text = format!("{error:?} {said}");
    if text.contains("could not acquire lock") {
        return OpenError::Locked(name);
    }
    match error {
        sled::Error::Io(error) if error.raw_os_error().is_some() => refused(dir, error),
        _ if shortage::number_in(&text).is_some() => OpenError::of_panic(dir, &text),
        sled::Error::Io(error) => match error.kind() {
            // What sled says of a log that it cannot follow.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other => {
                OpenError::Damaged(name)
            }
            _ => refused(dir, error),
        },
        _ => OpenError::Damaged(name),
    }
}

/// What the system refused, and for which path where that can be told.
fn refused(dir: &Path, error: &io::Error) -> OpenError {
    let of_permission = error.kind() == io::ErrorKind::PermissionDenied;
    let culprit = of_permission.then(|| not_permitted(dir)).flatten();
    let dir = culprit.as_deref().unwrap_or(dir).display().to_string();
    OpenError::Refused { dir, told: shortage::told(error) }
}

/// The first path of a store that this process may not read and write.
fn not_permitted(dir: &Path) -> Option<PathBuf> {
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let files = match fs::read_dir(dir) {
        Ok(files) => files,
        Err(error) => return refused(&error).then(|| dir.to_path_buf()),
    };
    files.filter_map(|file| Some(file.ok()?.path())).filter(|path| path.is_file()).find(|path| {
        File::options().read(true).write(true).open(path).is_err_and(|error| refused(&error))
    })
}

/// Makes the directory, so that it is found again after a crash.
fn create(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    // What is in it is nobody else's to read: all facts, and the hashes of all secrets.
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    match dir.canonicalize()?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Takes the directory for this process alone.
fn hold(dir: &Path) -> Result<File, TryLockError> {
    let path = dir.join("lock");
    let lock = File::options().create(true).truncate(false).write(true).open(path);
    let lock = lock.map_err(TryLockError::Error)?;
    lock.try_lock()?;
    Ok(lock)
}

fn config(dir: &Path, page_cache: u64) -> sled::Config {
    sled::Config::new().path(dir).cache_capacity(page_cache)
}

/// Puts right what sled does not survive if the power goes while it is written.
fn settle(dir: &Path) -> Result<(), Trouble> {
    // A snapshot gets its name when it is whole, but sled looks for one under its first name too,
    // and refuses a store with half of one. What it is made from is still there.
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "generating") {
            fs::remove_file(path)?;
        }
    }
    // sled never syncs the settings that it writes into a new store, and opens nothing with half
    // of them. They are made elsewhere and put in place whole, before there is a log.
    let draft = dir.join("draft");
    if draft.exists() {
        fs::remove_dir_all(&draft)?;
    }
    if !dir.join(SETTINGS).exists() && !dir.join(LOG).exists() {
        drop(config(&draft, PAGE_CACHE).open()?);
        File::open(draft.join(SETTINGS))?.sync_all()?;
        fs::rename(draft.join(SETTINGS), dir.join(SETTINGS))?;
        File::open(dir)?.sync_all()?;
        fs::remove_dir_all(&draft)?;
    }
    Ok(())
}

/// Why a store does not open.
enum Trouble {
    Sled(sled::Error),
    Newer(u64),
    Damage,
    Store(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged => Self::Damage,
            other => Self::Store(other),
        }
    }
}

impl From<sled::Error> for Trouble {
    fn from(error: sled::Error) -> Self {
        Self::Sled(error)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Sled(sled::Error::Io(error))
    }
}

impl From<Damage> for Trouble {
    fn from(_: Damage) -> Self {
        Self::Damage
    }
}

/// Where changes behind a revision and up to another lie.
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

fn number(tree: &Tree, key: &[u8]) -> Result<Option<u64>, Trouble> {
    let Some(bytes) = tree.get(key)? else {
        return Ok(None);
    };
    let bytes = <[u8; 8]>::try_from(&*bytes).map_err(|_| Trouble::Damage)?;
    Ok(Some(u64::from_be_bytes(bytes)))
}

/// What sled says stays in the log: no driver's words reach a client.
fn unavailable(error: &sled::Error) -> StoreError {
    tracing::error!(%error, "reading the store failed");
    match error {
        sled::Error::Corruption { .. } => StoreError::Damaged,
        _ => StoreError::Unavailable,
    }
}
