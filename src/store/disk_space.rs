//! DiskSpace: the free space of the disk, and which changes are rejected when it is low.
//!
//! The store stops after a failed write, because the kernel may have dropped the pages. Changes are therefore rejected before a write can meet a full disk. Checks write nothing
//! and are always answered.
//!
//! A change that only removes access (a key, a grant, a secret) must be possible on a full disk,
//! too. For these the store keeps a reserve: blocks that the file system has allocated after the
//! end of the engine's file ([`Engine::file_name`](super::engine::Engine::file_name)), here called
//! the log. The log grows into them, and no other file can take them. The reserve is refilled
//! whenever it is low, as far as the disk allows: the log uses it up, sled releases it when it
//! truncates its log, and a start releases it, too (`release`). The last part of it is
//! for the deletion of keys alone. On a file system without preallocation there is no reserve, and
//! only the free space counts.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use tokio::sync::watch;

use super::{Proposal, StoreMetrics};
use crate::policy::change::ChangeKind;

/// Below this many free bytes, only changes that remove access are accepted. The space is for
/// writes that no change causes directly: the rest of a batch, garbage collection, and above all
/// the pages that sled moves for up to a quarter of a second at a time.
pub const LOW_SPACE: u64 = 64 << 20;
/// Below this many free bytes, the reserve included, no change is accepted.
pub(super) const HARD_MINIMUM: u64 = 8 << 20;
/// Below this many free bytes, the reserve included, only keys are deleted. A stolen key can
/// therefore not use up the space that its own deletion needs.
const KEYS_ONLY: u64 = 16 << 20;
/// The size of the reserve, and the size below which it is refilled, in bytes.
const RESERVE: u64 = 32 << 20;
const REFILL_BELOW: u64 = 26 << 20;
/// The free bytes that the reserve leaves to other files.
const LEFT_FOR_OTHERS: u64 = 4 << 20;
/// The smallest refill, in bytes.
const MIN_REFILL: u64 = 1 << 20;
/// Below this many free bytes there is no garbage collection.
pub(super) const GC_MINIMUM: u64 = LOW_SPACE / 2;
/// With fewer free bytes, the reserve included, a replica ends its session and applies no entry of the
/// replicas' log: a failed write would end the process.
const REPLICA_MINIMUM: u64 = KEYS_ONLY;
/// With so many it joins again.
const REPLICA_AGAIN: u64 = 2 * REPLICA_MINIMUM;
/// What [`DiskState`] tells of the free bytes is a multiple of this.
const TOLD: u64 = 1 << 20;
/// How many bytes the log may grow per stored byte: sled rewrites a page for a few of its values.
const GROWTH: u64 = 4;

/// The disk that a store is on.
pub(super) struct DiskSpace {
    dir: File,
    /// The log, to allocate blocks behind its end.
    log: File,
    metrics: Arc<StoreMetrics>,
    /// Whether every change may use the reserve.
    for_all: bool,
    /// Whether the space was low at the last measurement.
    low: bool,
    /// Whether the log already says that there is no reserve.
    warned: bool,
    /// The bytes that could be written at the last measurement, the reserve included.
    remaining: u64,
    state: watch::Sender<DiskState>,
}

/// What the last measurement found, for the replica that the process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskState {
    /// The free bytes, rounded down to MiB; none if the file system does not tell.
    pub free_bytes: Option<u64>,
    /// Whether a replica must not answer calls, because it may not be able to apply the next entry.
    pub is_exhausted: bool,
}

impl DiskState {
    /// The state after a measurement.
    fn next(self, space: Space) -> Self {
        let remaining = space.free.saturating_add(space.reserve);
        let limit = if self.is_exhausted { REPLICA_AGAIN } else { REPLICA_MINIMUM };
        let free_bytes = (space.free < u64::MAX).then_some(space.free / TOLD * TOLD);
        Self { free_bytes, is_exhausted: remaining < limit }
    }
}

/// The bytes that can be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    /// Free bytes for a process without privileges.
    pub(super) free: u64,
    /// Reserved bytes that only the log can use.
    reserve: u64,
    for_all: bool,
}

/// The effect of a change, which decides how much of the space it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangeEffect {
    /// It may grant something.
    Widens,
    /// It only removes access.
    Narrows,
    /// It only deletes keys, or tells that the clock was set right. Before that, no key may be valid.
    DeletesKeys,
}

impl ChangeEffect {
    pub(super) fn of(proposal: &Proposal) -> Self {
        if proposal.deletes_keys() || proposal.change.kind == ChangeKind::AcceptClock {
            Self::DeletesKeys
        } else if proposal.takes_away() {
            Self::Narrows
        } else {
            Self::Widens
        }
    }
}

/// The changes for which the space does not suffice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpaceError {
    /// All except changes that only remove access.
    NearlyFull,
    /// All except deletions of keys.
    KeysOnly,
    /// All.
    Full,
}

impl Space {
    /// Whether the space is low.
    pub(super) fn is_low(self) -> bool {
        self.free < LOW_SPACE
    }

    /// Checks that the space suffices for one more change after this many bytes of the batch.
    pub(super) fn admits(
        self,
        bytes: u64,
        kind: impl FnOnce() -> ChangeEffect,
    ) -> Result<(), SpaceError> {
        let growth = bytes.saturating_mul(GROWTH);
        if self.free >= LOW_SPACE.saturating_add(growth) {
            return Ok(());
        }
        let remaining = self.free.saturating_add(self.reserve);
        if remaining < HARD_MINIMUM.saturating_add(growth) {
            return Err(SpaceError::Full);
        }
        match kind() {
            _ if self.for_all => Ok(()),
            ChangeEffect::DeletesKeys => Ok(()),
            _ if remaining < KEYS_ONLY.saturating_add(growth) => Err(SpaceError::KeysOnly),
            ChangeEffect::Narrows => Ok(()),
            ChangeEffect::Widens => Err(SpaceError::NearlyFull),
        }
    }
}

impl DiskSpace {
    /// The disk of this directory, and the file in it that grows.
    pub(super) fn open(dir: &Path, log: &str, metrics: Arc<StoreMetrics>) -> io::Result<Self> {
        let log = File::options().write(true).open(dir.join(log))?;
        let (for_all, low, warned) = (false, false, false);
        let (dir, state) = (File::open(dir)?, watch::Sender::default());
        Ok(Self { dir, log, metrics, for_all, low, warned, remaining: u64::MAX, state })
    }

    /// Lets every change use the reserve.
    pub(super) fn use_the_reserve(&mut self) {
        self.for_all = true;
    }

    /// What each measurement finds.
    pub(super) fn state(&self) -> watch::Receiver<DiskState> {
        self.state.subscribe()
    }

    /// Whether a replica must apply no entry, by the last measurement.
    pub(super) fn is_exhausted(&self) -> bool {
        self.state.borrow().is_exhausted
    }

    /// Whether a replica may apply entries of so many bytes, by the last measurement. If not, the disk is
    /// exhausted.
    pub(super) fn admits_entries(&self, bytes: impl FnOnce() -> u64) -> bool {
        if self.low {
            let needed = HARD_MINIMUM.saturating_add(bytes().saturating_mul(GROWTH));
            self.state.send_if_modified(|state| {
                let is_new = !state.is_exhausted && self.remaining < needed;
                state.is_exhausted |= is_new;
                is_new
            });
        }
        !self.is_exhausted()
    }

    /// Measures the space, and refills the reserve if possible.
    pub(super) fn measure(&mut self) -> Space {
        let mut free = free(&self.dir);
        let mut reserve = reserve_of(&self.log);
        if let Some(more) = missing(free, reserve) {
            self.fill_up(reserve.saturating_add(more));
            (free, reserve) = (self::free(&self.dir), reserve_of(&self.log));
        }
        self.metrics.room.set(free);
        self.metrics.reserve.set(reserve);
        let low = free < LOW_SPACE;
        if low != self.low {
            self.low = low;
            if low {
                tracing::error!(
                    left = free,
                    reserve,
                    "the disk is nearly full: only changes that remove access are accepted"
                );
            } else {
                tracing::info!(left = free, "the disk has space again: all changes are accepted");
            }
        }
        let space = Space { free, reserve, for_all: self.for_all };
        self.remaining = free.saturating_add(reserve);
        self.state.send_if_modified(|state| {
            let next = state.next(space);
            std::mem::replace(state, next) != next
        });
        space
    }

    /// Allocates this many bytes after the end of the log.
    fn fill_up(&mut self, reserve: u64) {
        let allocated = self.log.metadata().and_then(|log| {
            // The length of the file does not change: sled relies on it.
            let flags = FallocateFlags::KEEP_SIZE;
            Ok(rustix::fs::fallocate(&self.log, flags, log.len(), reserve)?)
        });
        if let Err(error) = allocated
            && !self.warned
        {
            self.warned = true;
            tracing::warn!(
                %error,
                "no space can be reserved for the log: if other files fill the disk, nothing can \
                 be revoked, disabled or deleted"
            );
        }
    }
}

/// Releases the reserve if the space is low, so that a store can be opened: opening writes a file
/// beside the log.
pub(super) fn release(dir: &Path, log: &str) -> io::Result<()> {
    let path = dir.join(log);
    if free(&File::open(dir)?) >= LOW_SPACE || !path.exists() {
        return Ok(());
    }
    let log = File::options().write(true).open(path)?;
    // Setting the same length cuts off only the blocks after the end.
    log.set_len(log.metadata()?.len())
}

/// How many more bytes to reserve, if a refill is worth it.
fn missing(free: u64, reserve: u64) -> Option<u64> {
    if reserve >= REFILL_BELOW {
        return None;
    }
    let more = (RESERVE - reserve).min(free.saturating_sub(LEFT_FOR_OTHERS));
    (more >= MIN_REFILL).then_some(more)
}

/// Whether a second store of this size fits on the disk of this directory.
pub(super) fn has_room(dir: &Path, bytes: u64) -> io::Result<bool> {
    Ok(free(&File::open(dir)?) >= bytes.saturating_add(LOW_SPACE))
}

/// Free bytes for a process without privileges.
fn free(dir: &File) -> u64 {
    // A file system that reports no size does not count as full.
    rustix::fs::fstatvfs(dir)
        .ok()
        .filter(|disk| disk.f_blocks > 0)
        .map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The number of bytes allocated after the end of the log.
fn reserve_of(log: &File) -> u64 {
    /// The unit of `st_blocks`, on every file system.
    const BLOCK: u64 = 512;
    log.metadata().map_or(0, |log| log.blocks().saturating_mul(BLOCK).saturating_sub(log.len()))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::policy::change::{Author, Change};
    use crate::policy::revision::Revision;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_reserve_is_taken_back_as_far_as_the_disk_allows() {
        assert_eq!(missing(u64::MAX, 0), Some(RESERVE));
        assert_eq!(missing(u64::MAX, REFILL_BELOW), None);
        assert_eq!(missing(40 * MIB, 8 * MIB), Some(RESERVE - 8 * MIB));
        assert_eq!(missing(10 * MIB, 8 * MIB), Some(6 * MIB));
        assert_eq!(missing(4 * MIB, 0), None);
        assert_eq!(missing(0, 0), None);
    }

    #[test]
    fn the_last_of_the_space_is_for_the_deletion_of_keys() {
        let admits = |free, reserve, kind, for_all| {
            Space { free: free * MIB, reserve: reserve * MIB, for_all }.admits(0, || kind)
        };
        use ChangeEffect::{DeletesKeys, Narrows, Widens};
        assert_eq!(admits(64, 0, Widens, false), Ok(()));
        assert_eq!(admits(63, 32, Widens, false), Err(SpaceError::NearlyFull));
        assert_eq!(admits(0, 16, Narrows, false), Ok(()));
        for kind in [Widens, Narrows] {
            assert_eq!(admits(4, 11, kind, false), Err(SpaceError::KeysOnly));
            assert_eq!(admits(4, 11, kind, true), Ok(()));
            assert_eq!(admits(4, 3, kind, true), Err(SpaceError::Full));
        }
        assert_eq!(admits(4, 4, DeletesKeys, false), Ok(()));
        assert_eq!(admits(4, 3, DeletesKeys, false), Err(SpaceError::Full));
    }

    #[test]
    fn a_clock_that_was_set_right_is_told_as_long_as_keys_are_deleted() {
        let proposal = |kind| Proposal {
            preconditions: vec![],
            caller: None,
            writes: vec![],
            change: Change {
                revision: Revision::NEXT,
                time: Timestamp::UNIX_EPOCH,
                author: Author::default(),
                kind,
                company: None,
                credential: None,
                user: None,
                added: vec![],
                removed: vec![],
                displaced: vec![],
                fields: vec![],
            },
            idempotency: None,
        };
        assert_eq!(ChangeEffect::of(&proposal(ChangeKind::AcceptClock)), ChangeEffect::DeletesKeys);
        assert_eq!(ChangeEffect::of(&proposal(ChangeKind::ApplyCatalog)), ChangeEffect::Widens);
    }

    #[test]
    fn replica_joins_again_only_with_twice_the_space() {
        let mut state = DiskState::default();
        for (free, reserve, expected) in [
            (0, 32, false),
            (0, 16, false),
            (10, 5, true),
            (10, 21, true),
            (0, 32, false),
            (31, 0, false),
        ] {
            state =
                state.next(Space { free: free * MIB + 1, reserve: reserve * MIB, for_all: true });
            let expected = DiskState { free_bytes: Some(free * MIB), is_exhausted: expected };
            assert_eq!(state, expected);
        }
        let unknown = state.next(Space { free: u64::MAX, reserve: 0, for_all: false });
        assert_eq!(unknown, DiskState::default());
    }
}
