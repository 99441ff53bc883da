//! Room: how much of the disk is left, and what is no longer written when it is little.
//!
//! sled does not go on after a write that failed, and neither may anybody else (what the kernel
//! dropped is gone). So nothing is accepted that could be the write which meets the full disk,
//! and checks, which write nothing, are answered all the same.

use std::fs::File;
use std::io;
use std::path::Path;

/// With less than this left, no change is accepted. It is for what is written without a change
/// being accepted: the rest of a batch, what is swept, and above all the pages that sled moves
/// on its own for up to a quarter of a second at a time.
pub(super) const RESERVE: u64 = 64 << 20;
/// With less than this left, nothing at all is written.
pub(super) const FLOOR: u64 = 8 << 20;
/// How much the log may grow by a byte that is kept: a page is written anew for a few of its
/// values.
pub(super) const GROWTH: u64 = 4;

/// The disk that a store is on.
pub(super) struct Room {
    dir: File,
    /// Whether it was said that there is little left.
    said: bool,
}

impl Room {
    pub(super) fn on(dir: &Path) -> io::Result<Self> {
        Ok(Self { dir: File::open(dir)?, said: false })
    }

    /// How many bytes are left, for a process without privileges.
    pub(super) fn left(&mut self) -> u64 {
        // A file system that does not say is not taken for a full one.
        let left = rustix::fs::fstatvfs(&self.dir)
            .ok()
            .filter(|disk| disk.f_blocks > 0)
            .map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        let little = left < RESERVE;
        if little != self.said {
            self.said = little;
            if little {
                tracing::error!(left, "the disk is nearly full: no change is accepted");
            } else {
                tracing::info!(left, "the disk has space again: changes are accepted");
            }
        }
        left
    }
}
