//! GroupCommit: decides whether the writer waits for more changes before a sync.
//!
//! A sync costs the same for one change as for a thousand, so concurrent changes should share one.
//! A client that makes one change after another would only be delayed by waiting. The writer
//! therefore waits only if recent changes came together, and never longer than a commit takes:
//! without the wait, a change would lose that time waiting for the sync of others.

use std::time::Duration;

/// After this many batches of one change each, the writer no longer waits.
const SOLO_STREAK: u32 = 8;
/// With this many changes in the batch, the writer does not wait for more.
const TARGET_BATCH: usize = 64;
/// The limit of the wait, on a disk of any speed.
const MAX_WAIT: Duration = Duration::from_millis(2);

/// Statistics of the last batches.
#[derive(Debug, Default)]
pub(super) struct GroupCommit {
    /// For how many more batches the writer waits, if no other change comes.
    batches_to_wait: u32,
    /// The duration of the last commit.
    last_commit: Duration,
}

impl GroupCommit {
    /// How long to wait for more changes, with `queued` of them in the batch.
    pub(super) fn wait(&self, queued: usize) -> Option<Duration> {
        (self.batches_to_wait > 0 && queued < TARGET_BATCH).then(|| self.last_commit.min(MAX_WAIT))
    }

    /// Notes a commit of this many changes and its duration.
    pub(super) fn committed(&mut self, changes: usize, took: Duration) {
        self.batches_to_wait =
            if changes > 1 { SOLO_STREAK } else { self.batches_to_wait.saturating_sub(1) };
        self.last_commit = took;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_that_come_together_wait_for_each_other() {
        let took = Duration::from_micros(300);
        let mut group_commit = GroupCommit::default();
        assert_eq!(group_commit.wait(1), None);
        group_commit.committed(1, took);
        assert_eq!(group_commit.wait(1), None, "one after the other");
        group_commit.committed(2, took);
        assert_eq!(group_commit.wait(1), Some(took));
        assert_eq!(group_commit.wait(TARGET_BATCH), None, "enough are here");
        for _ in 1..SOLO_STREAK {
            group_commit.committed(1, took);
            assert_eq!(group_commit.wait(1), Some(took), "the next may not be alone");
        }
        group_commit.committed(1, took);
        assert_eq!(group_commit.wait(1), None, "alone again");
    }

    #[test]
    fn the_wait_is_bounded_on_a_slow_disk() {
        let mut group_commit = GroupCommit::default();
        group_commit.committed(3, Duration::from_secs(1));
        assert_eq!(group_commit.wait(1), Some(MAX_WAIT));
    }
}
