//! Gather: whether it pays to wait for more changes before a sync.
//!
//! A sync costs the same for one change as for a thousand. Changes that come at the same time are
//! committed together if the writer waits for the rest of them; one who makes a change after the
//! other would only be held up. So it waits when changes came together of late, and never longer
//! than a commit takes: what a change loses by waiting for others it would have lost by waiting
//! for theirs.

use std::time::Duration;

/// How many batches of one change each it takes to believe that changes come one by one.
const SOLO_STREAK: u32 = 8;
/// With so many at hand there is no need for more.
const TARGET_BATCH: usize = 64;
/// The longest wait, however slow the disk.
const MAX_WAIT: Duration = Duration::from_millis(2);

/// What is known of the last batches.
#[derive(Debug, Default)]
pub(super) struct GroupCommit {
    /// How many more batches to wait for others, if none comes.
    hope: u32,
    /// How long the last commit took.
    took: Duration,
}

impl GroupCommit {
    /// How long to wait for more changes, with so many at hand.
    pub(super) fn wait(&self, at_hand: usize) -> Option<Duration> {
        (self.hope > 0 && at_hand < TARGET_BATCH).then(|| self.took.min(MAX_WAIT))
    }

    /// So many changes were committed together, which took so long.
    pub(super) fn committed(&mut self, changes: usize, took: Duration) {
        self.hope = if changes > 1 { SOLO_STREAK } else { self.hope.saturating_sub(1) };
        self.took = took;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_that_come_together_wait_for_each_other() {
        let took = Duration::from_micros(300);
        let mut gather = GroupCommit::default();
        assert_eq!(gather.wait(1), None);
        gather.committed(1, took);
        assert_eq!(gather.wait(1), None, "one after the other");
        gather.committed(2, took);
        assert_eq!(gather.wait(1), Some(took));
        assert_eq!(gather.wait(TARGET_BATCH), None, "enough are here");
        for _ in 1..SOLO_STREAK {
            gather.committed(1, took);
            assert_eq!(gather.wait(1), Some(took), "the next may not be alone");
        }
        gather.committed(1, took);
        assert_eq!(gather.wait(1), None, "alone again");
    }

    #[test]
    fn a_slow_disk_makes_nobody_wait_longer_than_the_longest() {
        let mut gather = GroupCommit::default();
        gather.committed(3, Duration::from_secs(1));
        assert_eq!(gather.wait(1), Some(MAX_WAIT));
    }
}
