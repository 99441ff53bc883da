//! Restore: makes a store of a backup, in a directory that has nothing yet.
//!
//! INVARIANT (whole or not at all): a mark lies in the directory before anything else of the
//! store, and is taken away when all of it is on the disk, was read again, and adds up. No store
//! is opened beside the mark. It is made in its place and not moved there, since a directory may
//! be one that cannot be replaced, as that of a container's volume.
//!
//! INVARIANT (another life): a restored store has an incarnation of its own, so that etags, page
//! tokens and cursors of the lost one are refused. Revisions carry none: they jump ahead by
//! [`STEP`], further than the lost store can have come since the backup. So no number stands for
//! two changes, and who follows the log by number misses none: the record that stands behind the
//! gap says from where it jumped, and whoever was told of a later one knows that it was lost.
//!
//! Not here: the file's form.

use std::fs::{self, DirEntry, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;
use std::thread;
use std::time::Instant;

use jiff::Timestamp;
use sled::Batch;

use super::checksum::{StoreChecksum, WriteBatch};
use super::data_dir::{LOG, PAGE_CACHE, config, create, lock_dir, quietly, recover_files};
use super::engine_error::EngineError;
use super::high_water_mark::HighWaterMark;
use super::open::{LOCK_TIMEOUT, OlderSchema, PAUSE, THREADS, number};
use super::{SCHEMA_VERSION, SledStore, chunked};
use crate::metrics::shortage;
use crate::policy::change::{Author, Change, ChangeKind, FieldChange};
use crate::policy::revision::Revision;
use crate::store::backup::{End, Reading, Unusable};
use crate::store::{Incarnation, Store, key, record};

/// How far revisions jump: more than a store can commit in the time for which anybody would go
/// on with the last backup, and small enough for thousands of restores.
const STEP: u64 = 1 << 32;
/// Lies in a directory that is no store yet.
const MARK: &str = "restoring";
/// What is in it, and under which name it is written.
const SIGN: &str = "scopegate restores a backup here; until that is done this is no store\n";
const NEW_MARK: &str = "restoring.new";
/// What a directory may have that counts as empty.
const LOCK: &str = "lock";
const LOST_AND_FOUND: &str = "lost+found";
/// How many bytes are read at once.
const PIECE: usize = 1 << 20;

/// Why nothing was restored, in a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is something in the directory.
    #[error("`{0}` is not empty: give a --data-dir that is empty or does not exist")]
    NotEmpty(String),
    /// Another process has it.
    #[error("another process uses `{0}`: wait for its end, or give another --data-dir")]
    Locked(String),
    /// The directory cannot be used.
    #[error("`{dir}` cannot be written: {told}; or give another --data-dir")]
    Io {
        /// The data directory.
        dir: String,
        /// What the system said, and what to do.
        told: String,
    },
    /// The backup cannot be read.
    #[error("cannot be read ({0})")]
    Unreadable(io::ErrorKind),
    /// The backup is not to be used.
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

impl RestoreError {
    /// Whether it is about the backup, whose name is to stand before it.
    #[must_use]
    pub fn is_of_the_backup(&self) -> bool {
        matches!(self, Self::Unreadable(_) | Self::Unusable(_))
    }
}

/// A restored store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The revision that the backup is of.
    pub backup: Revision,
    /// The revision at which the store goes on.
    pub revision: Revision,
    /// Which life of the store this is.
    pub incarnation: Incarnation,
}

/// Whether a restore is under way in this directory, or was cut off there.
pub(super) fn is_unfinished(dir: &Path) -> bool {
    dir.join(MARK).exists()
}

/// Makes a store of a backup in a directory that is empty or does not exist. What another restore
/// left there when it was cut off is replaced.
///
/// # Errors
/// Nothing was restored, and nothing is left there.
pub fn restore(
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
    let held = match lock_dir(dir) {
        Ok(held) => held,
        Err(TryLockError::WouldBlock) => return Err(RestoreError::Locked(name)),
        Err(TryLockError::Error(error)) => return Err(io_error(error)),
    };
    // Whoever had it until now may have made a store there.
    if !is_free(dir).map_err(io_error)? {
        return Err(RestoreError::NotEmpty(name));
    }
    // Without its own threads sled waits for them for ever.
    shortage::threads(THREADS).map_err(io_error)?;
    // sled panics on what it cannot write, and prints it.
    let (made, said) = quietly(|| {
        mark(dir)?;
        let restored = make(dir, backup, author, now, &held)?;
        fs::remove_file(dir.join(MARK))?;
        File::open(dir)?.sync_all()?;
        Ok(restored)
    });
    let failure = match made {
        Some(Ok(restored)) => return Ok(restored),
        Some(Err(Failure::Unusable(unusable))) => unusable.into(),
        Some(Err(Failure::Unreadable(error))) => RestoreError::Unreadable(error),
        Some(Err(Failure::Io(error))) => io_error(error),
        None => io_error(io::Error::other(said)),
    };
    // The mark goes last: what cannot be removed is no store.
    if clear(dir).and_then(|()| fs::remove_file(dir.join(MARK))).is_ok() {
        fs::remove_file(dir.join(LOCK)).ok();
        if !existed {
            fs::remove_dir(dir).ok();
        }
    }
    Err(failure)
}

/// Why a store was not made.
enum Failure {
    Unusable(Unusable),
    Unreadable(io::ErrorKind),
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

impl From<sled::Error> for Failure {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => Self::Io(error),
            other => Self::Io(io::Error::other(other)),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(trouble: EngineError) -> Self {
        match trouble {
            EngineError::Sled(error) => error.into(),
            // What lies there is what the backup said.
            EngineError::Newer(_) => Unusable::Newer.into(),
            EngineError::Damage => Unusable::Damaged.into(),
            EngineError::Store(error) => Self::Io(io::Error::other(error)),
        }
    }
}

/// Whether the directory has nothing, or only what a restore left that was cut off.
fn is_free(dir: &Path) -> io::Result<bool> {
    // A file of that name alone says nothing: whatever lies beside the mark is removed.
    if fs::read(dir.join(MARK)).is_ok_and(|text| text == SIGN.as_bytes()) {
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

/// Whether it is the directory that ext4 has in the root of every file system, and that only root
/// may read.
fn is_of_the_file_system(entry: &DirEntry) -> io::Result<bool> {
    Ok(entry.file_name() == LOST_AND_FOUND && entry.file_type()?.is_dir())
}

/// Marks the directory as no store, and removes everything else.
fn mark(dir: &Path) -> io::Result<()> {
    let mut file = File::create(dir.join(NEW_MARK))?;
    file.write_all(SIGN.as_bytes())?;
    file.sync_all()?;
    fs::rename(dir.join(NEW_MARK), dir.join(MARK))?;
    File::open(dir)?.sync_all()?;
    clear(dir)
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

/// Makes the store, and reads it again.
fn make(
    dir: &Path,
    backup: impl Read,
    author: Author,
    now: Timestamp,
    held: &File,
) -> Result<Restored, Failure> {
    recover_files(dir)?;
    let (incarnation, backup, revision, time) = {
        let tree = (*config(dir, PAGE_CACHE).open()?).clone();
        let end = fill(&tree, backup)?;
        let incarnation = Incarnation::new_v4();
        let (revision, time) = finish(&tree, end, incarnation, author, now)?;
        tree.flush()?;
        (incarnation, end.revision, revision, time)
    };
    File::open(dir.join(LOG))?.sync_all()?;
    HighWaterMark::take(dir, incarnation, revision, time)?.sync()?;
    // As every start does, from the disk: it adds up, or the backup did not.
    let store = read_again(dir, held)?;
    if store.incarnation() != incarnation || store.opened_at() != revision {
        return Err(Unusable::Damaged.into());
    }
    Ok(Restored { backup, revision, incarnation })
}

/// Opens the store that was just made, with the schema that its backup has, as soon as sled's threads have let go of its files.
fn read_again(dir: &Path, held: &File) -> Result<SledStore, Failure> {
    let patience = Instant::now() + LOCK_TIMEOUT;
    loop {
        match SledStore::read(dir, PAGE_CACHE, held.try_clone()?, OlderSchema::Keep) {
            Err(EngineError::Sled(sled::Error::Io(error)))
                if error.to_string().contains("could not acquire lock")
                    && Instant::now() < patience =>
            {
                thread::sleep(PAUSE);
            }
            read => return Ok(read?),
        }
    }
}

/// Puts everything that a backup has into the tree.
fn fill(tree: &sled::Tree, mut backup: impl Read) -> Result<End, Failure> {
    let mut reading = Reading::default();
    let mut piece = vec![0; PIECE];
    loop {
        let length = match backup.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::Unreadable(error.kind())),
        };
        reading.read(piece.get(..length).unwrap_or_default(), |entries| {
            let mut batch = Batch::default();
            entries.puts.into_iter().for_each(|(place, value)| batch.insert(place, value));
            entries.removals.into_iter().for_each(|place| batch.remove(place));
            Ok::<_, Failure>(tree.apply_batch(batch)?)
        })?;
        if reading.begin().is_some_and(|begin| begin.schema > SCHEMA_VERSION) {
            return Err(Unusable::Newer.into());
        }
    }
    let incarnation = reading.begin().map(|begin| begin.incarnation);
    let end = reading.finish()?;
    let kept = tree.get(key::INCARNATION)?;
    let same = kept.as_deref() == incarnation.as_ref().map(|of| of.as_bytes().as_slice());
    if !same || number(tree, key::HEAD)? != Some(end.revision.0) {
        return Err(Unusable::Damaged.into());
    }
    Ok(end)
}

/// Begins another life: a new incarnation, at a revision further ahead.
fn finish(
    tree: &sled::Tree,
    end: End,
    incarnation: Incarnation,
    author: Author,
    now: Timestamp,
) -> Result<(Revision, Timestamp), Failure> {
    let revision = Revision(end.revision.0.saturating_add(STEP));
    // Time goes on where it was (D19).
    let kept = number(tree, key::TIME)?.and_then(|time| i64::try_from(time).ok());
    let kept = kept.and_then(|time| Timestamp::from_millisecond(time).ok());
    let time = now.max(end.time_mark).max(kept.unwrap_or(end.time_mark));
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
    let change = record::encode_change(&change);
    chunked::put(&mut last, key::change(revision), revision, 1, &change);
    last.insert(key::INCARNATION, *incarnation.as_bytes());
    last.insert(key::HEAD, revision.0.to_be_bytes());
    let mark = u64::try_from(time.as_millisecond()).unwrap_or(0);
    last.insert(key::TIME, mark.to_be_bytes());
    last.apply(tree, &mut StoreChecksum::from_number(end.tally))
        .map_err(|_| io::Error::other("sled"))?;
    Ok((revision, time))
}
