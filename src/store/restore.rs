//! Restore: builds a store from a backup, in an empty directory.
//!
//! INVARIANT (whole or not at all): a marker file is in the directory before any file of the store.
//! It is removed after the store is durable, was read again, and matches its checksum. A directory
//! with the marker is never opened as a store. The store is built in place and not renamed, because
//! the directory may be a mount point, such as a container's volume.
//!
//! INVARIANT (new incarnation): a restored store has a new incarnation, so that etags, page tokens
//! and cursors of the lost store are rejected. Revisions carry no incarnation. They jump ahead by
//! [`STEP`], further than the lost store can have come since the backup, so that no number stands
//! for two changes. A client that follows the log by number misses no change: the first record
//! after the gap names the revision of the backup, and a client that knows a later one learns that
//! its changes are lost. The chain of changes begins anew ([`Chain::restored`]).
//!
//! Not here: the file format, and how a replica takes over the store of another one as it is; see
//! `installation`.

use std::fs::{self, DirEntry, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;
use std::thread;
use std::time::Instant;

use jiff::Timestamp;

use super::backup::{End, Reading, Unusable};
use super::chain::Chain;
use super::checksum::{self, StoreChecksum};
use super::data_dir::{create, lock_dir, quietly};
use super::engine::{Engine, EngineError, SledEngine, WriteBatch};
use super::high_water_mark::HighWaterMark;
use super::open::{LOCK_TIMEOUT, PAGE_CACHE, PAUSE, ReadError, VerifiedStore, locked, number};
use super::replicated::head::Head;
use super::replicated::{Cluster, LogPosition, cluster};
use super::{
    FactKey, Incarnation, OpenError, REPLICATED_SCHEMA_VERSION, SCHEMA_VERSION, chunked, key,
    record,
};
use crate::metrics::shortage;
use crate::policy::change::{Author, Change, ChangeKind, FieldChange};
use crate::policy::revision::Revision;

/// How far revisions jump: more than a store can commit between a backup and its restore, and small
/// enough for thousands of restores.
const STEP: u64 = 1 << 32;
/// The marker file of a directory that is not a store yet.
const MARK: &str = "restoring";
/// Its content, and its temporary name.
const MARK_TEXT: &str = "scopegate restores a backup here; until that is done this is no store\n";
const NEW_MARK: &str = "restoring.new";
/// Names that an empty directory may contain.
const LOCK: &str = "lock";
const LOST_AND_FOUND: &str = "lost+found";
/// The size of one read, in bytes.
const READ_SIZE: usize = 1 << 20;

/// Why nothing was restored, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The directory is not empty.
    #[error("`{0}` is not empty: give a --data-dir that is empty or does not exist")]
    NotEmpty(String),
    /// Another process uses the directory.
    #[error("another process uses `{0}`: wait for its end, or give another --data-dir")]
    Locked(String),
    /// The directory cannot be used.
    #[error("`{dir}` cannot be written: {told}; or give another --data-dir")]
    Io {
        /// The data directory.
        dir: String,
        /// The system's error, and what to do.
        told: String,
    },
    /// The backup cannot be read.
    #[error("cannot be read ({0})")]
    Unreadable(io::ErrorKind),
    /// The backup is not usable.
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

impl RestoreError {
    /// Whether the error is about the backup; the caller then puts the backup's name before it.
    #[must_use]
    pub fn is_of_the_backup(&self) -> bool {
        matches!(self, Self::Unreadable(_) | Self::Unusable(_))
    }
}

/// A store that has a new incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The revision of the backup, or that of the store before the new incarnation.
    pub backup: Revision,
    /// The revision at which the store continues.
    pub revision: Revision,
    /// The new incarnation of the store.
    pub incarnation: Incarnation,
}

/// Whether a restore is in progress in this directory, or was interrupted.
pub(super) fn is_unfinished(dir: &Path) -> bool {
    dir.join(MARK).exists()
}

/// Builds a store from a backup in a directory that is empty or does not exist. It replaces the
/// files of an interrupted restore.
///
/// # Errors
/// Nothing was restored, and the directory is as empty as before.
pub fn restore(
    dir: &Path,
    backup: impl Read,
    author: Author,
    now: Timestamp,
) -> Result<Restored, RestoreError> {
    restore_on::<SledEngine>(dir, backup, author, now)
}

/// As [`restore`], on another engine.
///
/// # Errors
/// As for [`restore`].
pub fn restore_on<E: Engine>(
    dir: &Path,
    backup: impl Read,
    author: Author,
    now: Timestamp,
) -> Result<Restored, RestoreError> {
    let name = dir.display().to_string();
    let io_error =
        |error: io::Error| RestoreError::Io { dir: name.clone(), told: shortage::told(&error) };
    let existed = dir.exists();
    if existed && !is_free(dir).map_err(io_error)? {
        return Err(RestoreError::NotEmpty(name));
    }
    create(dir).map_err(io_error)?;
    let _lock = match lock_dir(dir) {
        Ok(lock) => lock,
        Err(TryLockError::WouldBlock) => return Err(RestoreError::Locked(name)),
        Err(TryLockError::Error(error)) => return Err(io_error(error)),
    };
    // Another process may have created a store before the lock was taken.
    if !is_free(dir).map_err(io_error)? {
        return Err(RestoreError::NotEmpty(name));
    }
    // An engine may panic on data that it cannot write, and print the message.
    let (result, panic_message) = quietly(|| {
        mark(dir, MARK_TEXT)?;
        clear(dir)?;
        let restored = make::<E>(dir, backup, author, now)?;
        unmark(dir)?;
        Ok(restored)
    });
    let failure = match result {
        Some(Ok(restored)) => return Ok(restored),
        Some(Err(Failure::Unusable(unusable))) => unusable.into(),
        Some(Err(Failure::Unreadable(error))) => RestoreError::Unreadable(error.kind()),
        Some(Err(Failure::Incarnation(_))) => Unusable::Damaged.into(),
        Some(Err(Failure::Io(error))) => io_error(error),
        None => io_error(io::Error::other(panic_message)),
    };
    // The marker is removed last: if another file cannot be removed, the directory must not count
    // as a store.
    if clear(dir).and_then(|()| fs::remove_file(dir.join(MARK))).is_ok() {
        fs::remove_file(dir.join(LOCK)).ok();
        if !existed {
            fs::remove_dir(dir).ok();
        }
    }
    Err(failure)
}

/// Why the store was not built.
pub(super) enum Failure {
    Unusable(Unusable),
    Unreadable(io::Error),
    /// It is of this incarnation, which was not expected.
    Incarnation(Incarnation),
    Io(io::Error),
}

impl From<Unusable> for Failure {
    fn from(unusable: Unusable) -> Self {
        Self::Unusable(unusable)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Io(error) => Self::Io(error),
            // The data in the directory came from the backup.
            EngineError::Damaged => Unusable::Damaged.into(),
            EngineError::Panicked(error) => (*error).into(),
            EngineError::Locked => Self::Io(io::Error::other(error)),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Engine(error) => error.into(),
            ReadError::Newer(_) => Unusable::Newer.into(),
        }
    }
}

/// Whether the directory is empty, or contains only an interrupted restore.
fn is_free(dir: &Path) -> io::Result<bool> {
    // The content is compared, because all other files beside the marker are removed.
    if fs::read(dir.join(MARK)).is_ok_and(|text| text == MARK_TEXT.as_bytes()) {
        return Ok(true);
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != LOCK && name != NEW_MARK && !is_of_the_file_system(&entry)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the entry is `lost+found`, which ext4 has in the root of every file system and only root
/// may read.
fn is_of_the_file_system(entry: &DirEntry) -> io::Result<bool> {
    Ok(entry.file_name() == LOST_AND_FOUND && entry.file_type()?.is_dir())
}

/// Writes the marker, with this text.
pub(super) fn mark(dir: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(dir.join(NEW_MARK))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(dir.join(NEW_MARK), dir.join(MARK))?;
    File::open(dir)?.sync_all()
}

/// The text of the marker, if there is one.
pub(super) fn marker(dir: &Path) -> io::Result<Option<String>> {
    match fs::read(dir.join(MARK)) {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the marker, after the store is durable.
pub(super) fn unmark(dir: &Path) -> io::Result<()> {
    fs::remove_file(dir.join(MARK))?;
    File::open(dir)?.sync_all()
}

fn clear(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == LOCK || name == MARK || is_of_the_file_system(&entry)? {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Builds the store, and reads it again.
fn make<E: Engine>(
    dir: &Path,
    backup: impl Read,
    author: Author,
    now: Timestamp,
) -> Result<Restored, Failure> {
    let (incarnation, backup, revision, time) = {
        let engine = E::open(dir, PAGE_CACHE)?;
        let end = fill(&engine, backup, None)?;
        let incarnation = Incarnation::new_v4();
        let (revision, time) = finish(&engine, end, incarnation, None, author, now)?;
        engine.sync()?;
        (incarnation, end.revision, revision, time)
    };
    HighWaterMark::open(dir, incarnation, revision, time)?.sync()?;
    verify::<E>(dir, incarnation, revision)?;
    Ok(Restored { backup, revision, incarnation })
}

/// Reads the new store from the disk, as every start does: a wrong checksum means a corrupt backup. It
/// keeps the schema of its backup until it is opened.
pub(super) fn verify<E: Engine>(
    dir: &Path,
    incarnation: Incarnation,
    revision: Revision,
) -> Result<(), Failure> {
    let store = reopen::<E>(dir)?;
    if store.incarnation != incarnation || store.head != revision {
        return Err(Unusable::Damaged.into());
    }
    Ok(())
}

/// Reads the new store, as soon as the engine's threads have closed its files.
fn reopen<E: Engine>(dir: &Path) -> Result<VerifiedStore, Failure> {
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match VerifiedStore::read::<E>(dir, PAGE_CACHE, None) {
            Err(ReadError::Engine(EngineError::Locked)) if Instant::now() < deadline => {
                thread::sleep(PAUSE);
            }
            read => return Ok(read?),
        }
    }
}

/// Puts all entries of a backup into the engine. With `expected`, a backup of another incarnation is
/// refused at its beginning.
pub(super) fn fill(
    engine: &dyn Engine,
    mut backup: impl Read,
    expected: Option<Incarnation>,
) -> Result<End, Failure> {
    let mut reading = Reading::default();
    let mut buffer = vec![0; READ_SIZE];
    loop {
        let length = match backup.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::Unreadable(error)),
        };
        reading.read(buffer.get(..length).unwrap_or_default(), |entries| {
            let mut batch = WriteBatch::default();
            entries.puts.into_iter().for_each(|(entry_key, value)| batch.insert(entry_key, value));
            entries.removals.into_iter().for_each(|entry_key| batch.remove(entry_key));
            Ok::<_, Failure>(engine.apply(&batch)?)
        })?;
        let Some(begin) = reading.begin() else { continue };
        if begin.schema > SCHEMA_VERSION {
            return Err(Unusable::Newer.into());
        }
        if expected.is_some_and(|expected| expected != begin.incarnation) {
            return Err(Failure::Incarnation(begin.incarnation));
        }
    }
    let incarnation = reading.begin().map(|begin| begin.incarnation);
    let end = reading.finish()?;
    let stored = engine.get(key::INCARNATION)?;
    let same = stored.as_deref() == incarnation.as_ref().map(|of| of.as_bytes().as_slice());
    if !same || number(engine, key::HEAD)? != Some(end.revision.0) {
        return Err(Unusable::Damaged.into());
    }
    Ok(end)
}

/// Begins another incarnation of the store in this directory, which follows the log of a new cluster
/// from its first head on, and returns that head. Initialisation is complete when the head is in etcd.
///
/// # Errors
/// The store cannot be opened or written. It is as it was, or has begun the other incarnation.
pub fn begin_again(
    dir: &Path,
    cluster: uuid::Uuid,
    author: Author,
    now: Timestamp,
) -> Result<Head, OpenError> {
    let (Restored { incarnation, revision, .. }, time) =
        new_incarnation(dir, Some(cluster), author, now)?;
    Ok(Head::first(cluster, incarnation, revision, time))
}

/// Begins another incarnation of the store in this directory, which belongs to no cluster.
///
/// # Errors
/// The store cannot be opened or written. It is as it was, or has begun the other incarnation.
pub fn begin_alone(dir: &Path, author: Author, now: Timestamp) -> Result<Restored, OpenError> {
    Ok(new_incarnation(dir, None, author, now)?.0)
}

/// Begins another incarnation of a store where it is. Revisions jump as those of a restore do, because
/// changes of the last incarnation may be missing here. Returns the time of the jump, too.
fn new_incarnation(
    dir: &Path,
    cluster: Option<uuid::Uuid>,
    author: Author,
    now: Timestamp,
) -> Result<(Restored, Timestamp), OpenError> {
    locked(dir, |_lock| {
        let mut store = VerifiedStore::read::<SledEngine>(dir, PAGE_CACHE, None)?;
        store.upgrade()?;
        let end = End {
            revision: store.head,
            checksum: store.checksum.number(),
            time_mark: store.time_mark.unwrap_or(Timestamp::UNIX_EPOCH),
        };
        let (backup, incarnation) = (end.revision, Incarnation::new_v4());
        // The file names the incarnation. If this is interrupted, the store has none, which is no error.
        HighWaterMark::remove(dir)?;
        let engine = &*store.engine;
        let author = author.clone();
        let (revision, time) = finish(engine, end, incarnation, cluster, author, now)?;
        engine.sync()?;
        HighWaterMark::open(dir, incarnation, revision, time)?.sync()?;
        Ok((Restored { backup, revision, incarnation }, time))
    })
}

/// Sets a new incarnation and a revision further ahead, and the cluster that the store belongs to from
/// then on.
fn finish(
    engine: &dyn Engine,
    end: End,
    incarnation: Incarnation,
    cluster: Option<uuid::Uuid>,
    author: Author,
    now: Timestamp,
) -> Result<(Revision, Timestamp), EngineError> {
    let revision = Revision(end.revision.0.saturating_add(STEP));
    // The time continues from the store's time (D19).
    let stored = number(engine, key::TIME)?.and_then(|time| i64::try_from(time).ok());
    let stored = stored.and_then(|time| Timestamp::from_millisecond(time).ok());
    let time = now.max(end.time_mark).max(stored.unwrap_or(end.time_mark));
    // Times are whole milliseconds, rounded up.
    let time = Timestamp::from_millisecond(time.as_millisecond() + 1).unwrap_or(time);
    let from = FieldChange::new_text("backup_revision", &end.revision.to_string());
    let change = Change {
        revision,
        time,
        author,
        kind: ChangeKind::RestoreBackup,
        company: None,
        credential: None,
        user: None,
        added: vec![],
        removed: vec![],
        displaced: vec![],
        fields: from.into_iter().collect(),
    };
    let mut last = WriteBatch::default();
    // A backup of a schema without chains has none; the upgrade begins one.
    let change = record::encode_change(&change);
    let change = match engine.get(key::CHAIN)? {
        Some(chain) => {
            let chain = Chain::from_bytes(&chain).ok_or(EngineError::Damaged)?;
            let mut chain = chain.restored(incarnation);
            let change = record::chained(change, &mut chain);
            last.insert(key::CHAIN, chain.bytes());
            change
        }
        None => change,
    };
    chunked::put(&mut last, key::change(revision), revision, 1, &change);
    last.insert(key::INCARNATION, *incarnation.as_bytes());
    last.insert(key::HEAD, revision.0.to_be_bytes());
    let log = cluster.map(|id| {
        let head = Head::first(id, incarnation, revision, time);
        (Cluster { id, etcd_cluster_id: None }, LogPosition::of(&head))
    });
    // A restored store follows no log: that of the backup has another incarnation. The backup of an
    // older schema keeps it, and the store is upgraded when it is opened.
    if log.is_some() || number(engine, key::SCHEMA)? == Some(REPLICATED_SCHEMA_VERSION) {
        cluster::write(&mut last, log);
    }
    // A signing key that was deleted after the backup must not become valid again. The restore ends all own
    // tokens, so no key is missed; a server that issues tokens makes a new one.
    let signing_keys = FactKey::SigningKeys.bytes();
    if let Some(stored) = engine.get(&signing_keys)? {
        let parts = chunked::chunks(&stored)?;
        parts.into_iter().for_each(|part| last.remove(part));
        last.remove(signing_keys);
    }
    let mark = u64::try_from(time.as_millisecond()).unwrap_or(0);
    last.insert(key::TIME, mark.to_be_bytes());
    last.remove(key::UNTOLD_CLOCK);
    last.insert(key::RESTORED, mark.to_be_bytes());
    checksum::apply(engine, &mut StoreChecksum::from_number(end.checksum), &mut last)?;
    Ok((revision, time))
}
