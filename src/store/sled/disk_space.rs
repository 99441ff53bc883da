//! Room: how much of the disk is left, and what is no longer written when it is little.
//!
//! sled does not go on after a write that failed, and neither may anybody else (what the kernel
//! dropped is gone). So nothing is accepted that could be the write which meets the full disk,
//! and checks, which write nothing, are answered all the same.
//!
//! A change that only takes away (a key, a grant, a secret) must be possible on a full disk too.
//! For these the store keeps a reserve: blocks that the file system has allocated behind the end
//! of the log, where the log grows into, and that no other file can take. It is filled up whenever
//! it is low, as far as the disk allows: the log uses it, sled gives it back when it cuts its log,
//! and so does a start ([`release`]). The last of it is for the deletion of keys alone. Where the
//! file system cannot allocate in advance there is no reserve, and the space that is left to all is
//! counted.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FallocateFlags;

use super::data_dir::LOG;
use crate::store::{Proposal, StoreMetrics};

/// With less than this left, only changes are accepted that take away. It is for what is written
/// without a change being accepted: the rest of a batch, what is swept, and above all the pages
/// that sled moves on its own for up to a quarter of a second at a time.
pub(super) const LITTLE: u64 = 64 << 20;
/// With less than this left, the reserve included, no change is accepted.
pub(super) const NOTHING: u64 = 8 << 20;
/// With less than this left, the reserve included, only keys are deleted: what a stolen key takes
/// away with what it may change cannot use up the space to delete that key.
const KEYS_ONLY: u64 = 16 << 20;
/// How large the reserve is, and from when on it is filled up.
const RESERVE: u64 = 32 << 20;
const LOW: u64 = 26 << 20;
/// What the reserve leaves to files beside the log.
const BESIDE: u64 = 4 << 20;
/// The least by which the reserve is filled up.
const STEP: u64 = 1 << 20;
/// With less than this left nothing is swept.
pub(super) const SCARCE: u64 = LITTLE / 2;
/// How much the log may grow by a byte that is kept: a page is written anew for a few of its
/// values.
const GROWTH: u64 = 4;

/// The disk that a store is on.
pub(super) struct DiskSpace {
    dir: File,
    /// The log, to allocate blocks behind its end.
    log: File,
    measures: Arc<StoreMetrics>,
    /// Whether every change may use the reserve.
    for_all: bool,
    /// Whether there was little left at the last look.
    little: bool,
    /// Whether it was said that there is no reserve.
    said: bool,
}

/// How many bytes there are to write to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    /// Those that a process without privileges can still take.
    pub(super) free: u64,
    /// Those that the log alone can grow into.
    reserve: u64,
    for_all: bool,
}

/// What a change is for the space that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It may give something to somebody.
    Gives,
    /// It only takes away.
    TakesAway,
    /// It only deletes keys.
    DeletesKeys,
}

impl Kind {
    pub(super) fn of(proposal: &Proposal) -> Self {
        if proposal.deletes_keys() {
            Self::DeletesKeys
        } else if proposal.takes_away() {
            Self::TakesAway
        } else {
            Self::Gives
        }
    }
}

/// Which changes there is no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// All but those that take away.
    ToGive,
    /// All but those that delete keys.
    ButKeys,
    /// All.
    Any,
}

impl Space {
    /// Whether there is little left.
    pub(super) fn is_little(self) -> bool {
        self.free < LITTLE
    }

    /// Whether there is room for one more change behind so many bytes, or for which kind there
    /// is none.
    pub(super) fn admits(self, bytes: u64, kind: impl FnOnce() -> Kind) -> Result<(), Lack> {
        let growth = bytes.saturating_mul(GROWTH);
        if self.free >= LITTLE.saturating_add(growth) {
            return Ok(());
        }
        let left = self.free.saturating_add(self.reserve);
        if left < NOTHING.saturating_add(growth) {
            return Err(Lack::Any);
        }
        match kind() {
            _ if self.for_all => Ok(()),
            Kind::DeletesKeys => Ok(()),
            _ if left < KEYS_ONLY.saturating_add(growth) => Err(Lack::ButKeys),
            Kind::TakesAway => Ok(()),
            Kind::Gives => Err(Lack::ToGive),
        }
    }
}

impl DiskSpace {
    pub(super) fn on(dir: &Path, measures: Arc<StoreMetrics>) -> io::Result<Self> {
        let log = File::options().write(true).open(dir.join(LOG))?;
        let (for_all, little, said) = (false, false, false);
        Ok(Self { dir: File::open(dir)?, log, measures, for_all, little, said })
    }

    /// Where it tells what is left.
    pub(super) fn measures(&self) -> Arc<StoreMetrics> {
        Arc::clone(&self.measures)
    }

    /// Lets every change use the reserve.
    pub(super) fn use_the_reserve(&mut self) {
        self.for_all = true;
    }

    /// How much is left. Fills up the reserve if it can.
    pub(super) fn look(&mut self) -> Space {
        let mut free = free(&self.dir);
        let mut reserve = reserve_of(&self.log);
        if let Some(more) = missing(free, reserve) {
            self.fill_up(reserve.saturating_add(more));
            (free, reserve) = (self::free(&self.dir), reserve_of(&self.log));
        }
        self.measures.room.set(free);
        self.measures.reserve.set(reserve);
        let little = free < LITTLE;
        if little != self.little {
            self.little = little;
            if little {
                tracing::error!(
                    left = free,
                    reserve,
                    "the disk is nearly full: only changes that take away are accepted"
                );
            } else {
                tracing::info!(left = free, "the disk has space again: changes are accepted");
            }
        }
        Space { free, reserve, for_all: self.for_all }
    }

    /// Has so many bytes allocated behind the end of the log.
    fn fill_up(&mut self, reserve: u64) {
        let allocated = self.log.metadata().and_then(|log| {
            // Behind the end, which stays where it is: sled goes by it.
            let flags = FallocateFlags::KEEP_SIZE;
            Ok(rustix::fs::fallocate(&self.log, flags, log.len(), reserve)?)
        });
        if let Err(error) = allocated
            && !self.said
        {
            self.said = true;
            tracing::warn!(
                %error,
                "no space can be reserved for the log, so a disk that others fill leaves none to \
                 revoke, disable or delete anything"
            );
        }
    }
}

/// Gives the reserve back to all where there is little left, so that a store can be opened: that
/// writes a file beside the log.
pub(super) fn release(dir: &Path) -> io::Result<()> {
    let path = dir.join(LOG);
    if free(&File::open(dir)?) >= LITTLE || !path.exists() {
        return Ok(());
    }
    let log = File::options().write(true).open(path)?;
    // To the length that it has: only what is allocated behind its end is cut off.
    log.set_len(log.metadata()?.len())
}

/// How many more bytes are to be reserved, if it is worth it.
fn missing(free: u64, reserve: u64) -> Option<u64> {
    if reserve >= LOW {
        return None;
    }
    let more = (RESERVE - reserve).min(free.saturating_sub(BESIDE));
    (more >= STEP).then_some(more)
}

/// How many bytes a process without privileges can take.
fn free(dir: &File) -> u64 {
    // A file system that does not say is not taken for a full one.
    rustix::fs::fstatvfs(dir)
        .ok()
        .filter(|disk| disk.f_blocks > 0)
        .map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// How many bytes are allocated behind the end of the log.
fn reserve_of(log: &File) -> u64 {
    /// What a block is in `st_blocks`, whatever the file system's are.
    const BLOCK: u64 = 512;
    log.metadata().map_or(0, |log| log.blocks().saturating_mul(BLOCK).saturating_sub(log.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_reserve_is_taken_back_as_far_as_the_disk_allows() {
        assert_eq!(missing(u64::MAX, 0), Some(RESERVE));
        assert_eq!(missing(u64::MAX, LOW), None);
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
        use Kind::{DeletesKeys, Gives, TakesAway};
        assert_eq!(admits(64, 0, Gives, false), Ok(()));
        assert_eq!(admits(63, 32, Gives, false), Err(Lack::ToGive));
        assert_eq!(admits(0, 16, TakesAway, false), Ok(()));
        for kind in [Gives, TakesAway] {
            assert_eq!(admits(4, 11, kind, false), Err(Lack::ButKeys));
            assert_eq!(admits(4, 11, kind, true), Ok(()));
            assert_eq!(admits(4, 3, kind, true), Err(Lack::Any));
        }
        assert_eq!(admits(4, 4, DeletesKeys, false), Ok(()));
        assert_eq!(admits(4, 3, DeletesKeys, false), Err(Lack::Any));
    }
}
