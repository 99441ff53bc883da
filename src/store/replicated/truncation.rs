//! Truncation: up to which entry the log may be deleted.
//!
//! An entry may be deleted when every session has published it, and no replica that was away for a short
//! time needs it. A replica that was away for longer installs a snapshot. With fewer than two sessions
//! the log is kept for longer, because it may be the only second copy of a change.
//!
//! The entries that were committed before this process started have no marks. They are deleted with the
//! first marked one, which is younger.
//!
//! Not here: the deletion, which is a part of the transaction of a commit; see
//! [`entries_up_to`](super::keys::entries_up_to). And the parts of large entries, which are deleted with
//! them; see [`EntryParts`](super::entry_parts::EntryParts).

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

use crate::policy::revision::Revision;

/// The commit of each entry whose number is a multiple of this one truncates the log.
const INTERVAL: u64 = 256;
/// The number of entries between two marks: the log is truncated at marks only.
const MARK_INTERVAL: u64 = 16;
/// Entries older than this may be deleted.
const AGE: SignedDuration = SignedDuration::from_mins(10);
/// Entries before the last so many bytes of the log may be deleted.
const BYTES: u64 = 256 << 20;
/// The same with fewer than two sessions, whatever the age of the entries.
const BYTES_ALONE: u64 = 512 << 20;

/// An entry of the log, and the state after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogMark {
    /// The number of the entry.
    pub seq: u64,
    /// Its last revision.
    pub revision: Revision,
    /// The time of its commit.
    pub time: Timestamp,
    /// The bytes of all entries up to this one, as the head has them.
    pub bytes: u64,
}

/// Marks of the entries that were applied since the start and are in the log.
#[derive(Debug, Default)]
pub struct Truncation(VecDeque<LogMark>);

impl Truncation {
    /// Whether the commit of the entry of this number truncates the log.
    #[must_use]
    pub fn is_due(seq: u64) -> bool {
        seq.is_multiple_of(INTERVAL)
    }

    /// Notes an entry that was applied, an own one or that of another replica.
    pub fn applied(&mut self, mark: LogMark) {
        if mark.seq.is_multiple_of(MARK_INTERVAL) {
            self.0.push_back(mark);
        }
    }

    /// The last entry that may be deleted with all before it, if any may. `published` is what each listed
    /// session has told, and `bytes` are those of all entries since the cluster was initialised.
    #[must_use]
    pub fn end(&self, published: &[Revision], bytes: u64, now: Timestamp) -> Option<LogMark> {
        let is_done = |mark: &&LogMark| {
            let behind = bytes.saturating_sub(mark.bytes);
            published.iter().all(|published| *published >= mark.revision)
                && match published {
                    [_, _, ..] => behind >= BYTES || now.duration_since(mark.time) >= AGE,
                    _ => behind >= BYTES_ALONE,
                }
        };
        // The times of several clocks have no order, so the first entry that is kept ends it.
        self.0.iter().take_while(is_done).last().copied()
    }

    /// Notes that the entries up to this number were deleted.
    pub fn deleted(&mut self, seq: u64) {
        while self.0.front().is_some_and(|mark| mark.seq <= seq) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_000_000, 0);
    const MIB: u64 = 1 << 20;

    /// Marks with these numbers, which are the revisions, too: an hour old, and without bytes behind
    /// them.
    fn marks(seqs: &[u64]) -> Truncation {
        let mut marks = Truncation::default();
        for seq in seqs {
            marks.applied(mark(*seq, 3600, 1_000 * MIB));
        }
        marks
    }

    fn mark(seq: u64, age: i64, bytes: u64) -> LogMark {
        let time = NOW - SignedDuration::from_secs(age);
        LogMark { seq, revision: Revision(seq), time, bytes }
    }

    fn end(marks: &Truncation, published: &[u64]) -> Option<u64> {
        let published: Vec<_> = published.iter().copied().map(Revision).collect();
        marks.end(&published, 1_000 * MIB, NOW).map(|mark| mark.seq)
    }

    #[test]
    fn entry_is_kept_until_every_session_has_published_it() {
        let marks = marks(&[16, 32, 48, 64]);
        assert_eq!(end(&marks, &[64, 99]), Some(64));
        assert_eq!(end(&marks, &[47, 99, 64]), Some(32));
        assert_eq!(end(&marks, &[99, 48]), Some(48));
        assert_eq!(end(&marks, &[15, 99]), None);
    }

    #[test]
    fn entry_is_kept_for_ten_minutes_or_256_mebibytes() {
        let end_of = |age, bytes| {
            let mut marks = Truncation::default();
            marks.applied(mark(16, age, bytes));
            end(&marks, &[99, 99])
        };
        assert_eq!(end_of(600, 1_000 * MIB), Some(16));
        assert_eq!(end_of(599, 1_000 * MIB), None);
        assert_eq!(end_of(0, 744 * MIB), Some(16));
        assert_eq!(end_of(0, 744 * MIB + 1), None);
        assert_eq!(end_of(-100, 744 * MIB + 1), None, "the clock of another replica is ahead");
    }

    #[test]
    fn with_fewer_than_two_sessions_only_512_mebibytes_count() {
        for published in [&[99][..], &[]] {
            let mut marks = Truncation::default();
            marks.applied(mark(16, 3600, 488 * MIB));
            marks.applied(mark(32, 3600, 488 * MIB + 1));
            assert_eq!(end(&marks, published), Some(16));
        }
        let mut marks = Truncation::default();
        marks.applied(mark(16, 3600, 0));
        assert_eq!(end(&marks, &[15]), None, "the one session has not published it");
    }

    #[test]
    fn no_entry_before_one_that_is_kept_is_passed_over() {
        let mut marks = Truncation::default();
        for (seq, age) in [(16, 700), (32, 10), (48, 700)] {
            marks.applied(mark(seq, age, 1_000 * MIB));
        }
        assert_eq!(end(&marks, &[99, 99]), Some(16));
    }

    #[test]
    fn marks_are_few_and_forgotten_with_their_entries() {
        let all: Vec<_> = (1..=100).collect();
        let mut marks = marks(&all);
        assert_eq!(marks.0.len(), 6);
        marks.deleted(48);
        assert_eq!(marks.0.front().map(|mark| mark.seq), Some(64));
        assert_eq!(end(&marks, &[63, 99]), None);
        assert_eq!(
            [0, 255, 256, 257, 512].map(Truncation::is_due),
            [true, false, true, false, true]
        );
    }
}
