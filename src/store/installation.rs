//! Installation: makes the store of a directory from a snapshot of another replica.
//!
//! A snapshot is a backup of a store that follows the log of the replicas. A restore begins another
//! life of the store; an installation goes on with the same one. Incarnation, revision, chain, signing
//! keys and the position in the log stay as they are, so the replica continues with the next entry.
//!
//! The snapshot has the position of its revision: the writer stores the position in the batch that
//! applies an entry, and the end of a backup is the state after its last batch.
//!
//! INVARIANT (the old store or the new one): from the first moved file on until the new store is
//! durable and verified, a marker is in the directory, and the directory is not opened as a store. The
//! replaced store is put back if the installation fails, or at the next start if it was interrupted. It
//! is kept until [`discard_replaced`], unless the disk has no room for both.
//!
//! The time mark never goes back (D19): the new store continues from the later one of the two marks.
//! The marker keeps the mark of the replaced store, also when that store was deleted.
//!
//! Not here: where a snapshot comes from, see `replicated::peer_client`; and whether its position is
//! still in the log, which only the log knows.

mod replaced_store;

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::Path;

use jiff::Timestamp;
use uuid::Uuid;

use self::replaced_store::ReplacedStore;
use super::backup::Unusable;
use super::checksum::{self, StoreChecksum};
use super::data_dir::{create, lock_dir, quietly};
use super::engine::{Engine, SledEngine, WriteBatch};
use super::high_water_mark::{HighWaterMark, MarkState};
use super::open::{PAGE_CACHE, number};
use super::replicated::LogPosition;
use super::replicated::cluster::Cluster;
use super::replicated::head::Head;
use super::restore::{self, Failure, fill, mark, marker, unmark};
use super::{Incarnation, key};
use crate::metrics::shortage;
use crate::policy::revision::Revision;

/// The first line of the marker. Behind it is the time mark of the replaced store, in milliseconds.
const MARK_TEXT: &str = "scopegate installs a snapshot here; until that is done this is no store\n";

/// Why no snapshot was installed. A store that was in the directory before is there again, unless the
/// disk had no room for both.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Another process uses the directory.
    #[error("another process uses `{0}`: wait for its end, or give another --data-dir")]
    Locked(String),
    /// The directory cannot be used.
    #[error("`{dir}` cannot be written: {told}")]
    Io {
        /// The data directory.
        dir: String,
        /// The system's error, and what to do.
        told: String,
    },
    /// The snapshot did not arrive as a whole.
    #[error("the snapshot did not arrive ({0}): ask another replica")]
    Unreadable(io::Error),
    /// The snapshot is damaged, or it is no snapshot.
    #[error("the snapshot is damaged: ask another replica")]
    Damaged,
    /// The snapshot was made by a newer version.
    #[error("the snapshot is of a newer version of scopegate: upgrade this replica")]
    Newer,
    /// The snapshot is of another incarnation than the log.
    #[error(
        "the snapshot has incarnation `{snapshot}`, and the log has `{log}`: ask another replica"
    )]
    Incarnation {
        /// The incarnation of the snapshot.
        snapshot: Incarnation,
        /// That of the log.
        log: Incarnation,
    },
    /// The snapshot is of a store of another cluster.
    #[error("the snapshot is of a replica of another cluster: ask a replica of cluster `{0}`")]
    Cluster(Uuid),
    /// The snapshot is of a store that follows no log.
    #[error("the snapshot is of a store that follows no log: ask a replica")]
    NotFollowing,
}

impl InstallError {
    /// Whether the snapshot of another replica may succeed.
    #[must_use]
    pub fn is_of_the_snapshot(&self) -> bool {
        !matches!(self, Self::Locked(_) | Self::Io { .. })
    }
}

/// An installed store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Its revision.
    pub revision: Revision,
    /// The last entry that it has applied.
    pub position: LogPosition,
}

/// Whether a snapshot is being installed in this directory, or the installation was interrupted.
pub(super) fn is_unfinished(dir: &Path) -> bool {
    marker(dir).is_ok_and(|text| text.is_some_and(|text| text.starts_with(MARK_TEXT)))
}

/// Makes the store of a directory from a snapshot of a replica that follows the log of this head. The
/// store that the directory has is kept beside it until [`discard_replaced`], or deleted first if the
/// disk has no room for both.
///
/// # Errors
/// Nothing was installed.
pub fn install_snapshot(
    dir: &Path,
    snapshot: impl Read,
    head: &Head,
) -> Result<Installed, InstallError> {
    install_snapshot_on::<SledEngine>(dir, snapshot, head)
}

/// As [`install_snapshot`], on another engine.
///
/// # Errors
/// As for [`install_snapshot`].
pub fn install_snapshot_on<E: Engine>(
    dir: &Path,
    snapshot: impl Read,
    head: &Head,
) -> Result<Installed, InstallError> {
    let io_error = |error| io_error(dir, &error);
    let _lock = lock(dir)?;
    let replaced = ReplacedStore::of::<E>(dir);
    // An engine may panic on data that it cannot write, and print the message.
    let (result, panic_message) = quietly(|| {
        let time_mark = begin(dir, &replaced, head.incarnation)?;
        let installed = make::<E>(dir, snapshot, head, time_mark)?;
        unmark(dir)?;
        Ok(installed)
    });
    let error = match result {
        Some(Ok(installed)) => return Ok(installed),
        Some(Err(Error::Install(error))) => error,
        Some(Err(Error::Failure(failure))) => match failure {
            Failure::Unreadable(error) => InstallError::Unreadable(error),
            Failure::Unusable(Unusable::Newer) => InstallError::Newer,
            Failure::Unusable(Unusable::BrokenOff) => {
                InstallError::Unreadable(io::ErrorKind::UnexpectedEof.into())
            }
            Failure::Unusable(Unusable::Damaged | Unusable::Foreign) => InstallError::Damaged,
            Failure::Incarnation(snapshot) => {
                InstallError::Incarnation { snapshot, log: head.incarnation }
            }
            Failure::Io(error) => io_error(error),
        },
        None => io_error(io::Error::other(panic_message)),
    };
    // Without the marker no file was moved. With it, the next start does what fails here.
    let undone = match is_unfinished(dir) {
        true => put_back(dir, &replaced).map(drop),
        false => replaced.cancel_move(),
    };
    if let Err(error) = undone {
        tracing::warn!(%error, dir = %dir.display(), "the replaced store could not be put back");
    }
    Err(error)
}

/// Puts the replaced store back if an installation was interrupted. Call it before the store is opened.
/// Returns whether the directory has a store; without one, a snapshot must be installed.
///
/// # Errors
/// The directory cannot be used. Call it again.
pub fn resume_installation(dir: &Path) -> Result<bool, InstallError> {
    let _lock = lock(dir)?;
    let replaced = ReplacedStore::of::<SledEngine>(dir);
    match is_unfinished(dir) {
        true => put_back(dir, &replaced).map_err(|error| io_error(dir, &error)),
        false => Ok(replaced.is_in_place()),
    }
}

/// Removes a store that was installed and may not be used, because the log has another history. Puts
/// back the store that it replaced, and returns whether there is one.
///
/// # Errors
/// The directory cannot be used. [`resume_installation`] completes it.
pub fn put_back_replaced(dir: &Path) -> Result<bool, InstallError> {
    let _lock = lock(dir)?;
    let replaced = ReplacedStore::of::<SledEngine>(dir);
    let done = match is_unfinished(dir) {
        true => Ok(()),
        false => replaced
            .cancel_move()
            .and_then(|()| HighWaterMark::read(dir))
            .and_then(|state| mark(dir, &text(time_of(&state, None)))),
    };
    done.and_then(|()| put_back(dir, &replaced)).map_err(|error| io_error(dir, &error))
}

/// Deletes the store that an installed one has replaced. Call it when the new store serves.
///
/// # Errors
/// The directory cannot be used. Call it again.
pub fn discard_replaced(dir: &Path) -> io::Result<()> {
    ReplacedStore::of::<SledEngine>(dir).discard()
}

/// Why the store was not made.
enum Error {
    Failure(Failure),
    Install(InstallError),
}

impl<F: Into<Failure>> From<F> for Error {
    fn from(failure: F) -> Self {
        Self::Failure(failure.into())
    }
}

fn io_error(dir: &Path, error: &io::Error) -> InstallError {
    InstallError::Io { dir: dir.display().to_string(), told: shortage::told(error) }
}

fn lock(dir: &Path) -> Result<File, InstallError> {
    create(dir).map_err(|error| io_error(dir, &error))?;
    lock_dir(dir).map_err(|error| match error {
        TryLockError::WouldBlock => InstallError::Locked(dir.display().to_string()),
        TryLockError::Error(error) => io_error(dir, &error),
    })
}

/// Writes the marker, and makes room for the new store. Returns the time mark of the replaced store.
fn begin(
    dir: &Path,
    replaced: &ReplacedStore,
    incarnation: Incarnation,
) -> io::Result<Option<Timestamp>> {
    let time = match marker(dir)? {
        Some(text) if text.starts_with(MARK_TEXT) => time_in(&text),
        // A directory that is only partly restored has no store to keep.
        Some(_) => {
            mark(dir, MARK_TEXT)?;
            None
        }
        None => {
            let time = time_of(&HighWaterMark::read(dir)?, Some(incarnation));
            replaced.begin_move()?;
            mark(dir, &text(time))?;
            time
        }
    };
    replaced.complete_move()?;
    // What is left beside the replaced store is a part of a store.
    replaced.clear()?;
    replaced.make_room()?;
    Ok(time)
}

/// Removes what was installed, and puts the replaced store back. Returns whether there is one. Without
/// one, the marker stays: the directory must not become an empty store.
fn put_back(dir: &Path, replaced: &ReplacedStore) -> io::Result<bool> {
    replaced.complete_move()?;
    replaced.clear()?;
    if !replaced.put_back()? {
        return Ok(false);
    }
    unmark(dir)?;
    replaced.cancel_move()?;
    Ok(true)
}

/// The text of the marker.
fn text(time: Option<Timestamp>) -> String {
    let time = time.map_or_else(String::new, |time| time.as_millisecond().to_string());
    format!("{MARK_TEXT}{time}")
}

/// The time mark in the text of a marker.
fn time_in(text: &str) -> Option<Timestamp> {
    let time = text.strip_prefix(MARK_TEXT)?.trim().parse().ok()?;
    Timestamp::from_millisecond(time).ok()
}

/// The time mark of a store, if it is of this incarnation, or of any.
fn time_of(state: &MarkState, incarnation: Option<Incarnation>) -> Option<Timestamp> {
    match state {
        MarkState::Reached(of, _, time) => {
            incarnation.is_none_or(|expected| expected == *of).then_some(*time)
        }
        MarkState::Missing | MarkState::Unreadable => None,
    }
}

/// Builds the store, and reads it again.
fn make<E: Engine>(
    dir: &Path,
    snapshot: impl Read,
    head: &Head,
    time_mark: Option<Timestamp>,
) -> Result<Installed, Error> {
    let incarnation = head.incarnation;
    let (end, position) = {
        let engine = E::open(dir, PAGE_CACHE)?;
        let end = fill(&engine, snapshot, Some(incarnation))?;
        let position = LogPosition::stored(&engine, incarnation)?;
        let position = position.ok_or(Error::Install(InstallError::NotFollowing))?;
        let schema = number(&engine, key::SCHEMA)?.unwrap_or(0);
        let cluster = Cluster::stored(&engine, schema)?;
        if cluster.is_none_or(|cluster| cluster.id != head.cluster) {
            return Err(Error::Install(InstallError::Cluster(head.cluster)));
        }
        // A backup has every entry but the checksum.
        let mut checksum = StoreChecksum::from_number(end.checksum);
        let mut own = WriteBatch::default();
        // The clock of the other replica may be wrong, and a clock is accepted by one replica.
        own.remove(key::UNTOLD_CLOCK);
        match time_mark.and_then(|mark| u64::try_from(mark.as_millisecond()).ok()) {
            Some(mark) => own.insert(key::TIME, mark.to_be_bytes()),
            None => own.remove(key::TIME),
        }
        checksum::apply(&engine, &mut checksum, &mut own)?;
        engine.sync()?;
        (end, position)
    };
    let time = time_mark.unwrap_or(Timestamp::UNIX_EPOCH);
    HighWaterMark::open(dir, incarnation, end.revision, time)?.sync()?;
    restore::verify::<E>(dir, incarnation, end.revision)?;
    Ok(Installed { revision: end.revision, position })
}
