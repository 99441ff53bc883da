//! Persisted time: the time that goes to the disk, as the store's time mark and as the time of changes
//! in the audit log (D19).
//!
//! A process starts at the mark. As a rule the persisted time is the deciding time. The two differ
//! when the machine's clock jumps ahead of the monotonic clock by more than `JUMP`. Such a jump may
//! be a mistake (a clock that shows the year 2099 for a minute), and a mark cannot be taken back. From
//! then on the persisted time advances with the monotonic clock, until the jump has lasted for
//! `DOUBT` or the machine's clock is back. The monotonic clock stands still while the machine is
//! suspended. A resume is therefore such a jump, which is believed after ten minutes. The first
//! observation of a process has none before it, and is believed.
//!
//! INVARIANT (reported is kept): an expiry that was reported lies at or before the durable time mark.
//! The mark is nearly always ahead of the clock, so this costs nothing. Where an expiry lies beyond
//! the mark, the call that reports it first raises the mark to that expiry and no further: see
//! `Authority::persist_reported`. If a process crashes while the clock is doubted, the store has
//! every expiry that was reported, and no other.
//!
//! INVARIANT (removed as believed): retention removes idempotency records and changes of the audit
//! log by the time that the machine's clock showed and that was believed. It never follows a reported
//! expiry or a doubted clock.
//!
//! INVARIANT (kept <= decides): the persisted time is never later than the deciding time. A process
//! that starts from it therefore takes no expiry as passed that this process did not.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The machine's clock is doubted if it advances by more than this between two observations, in
/// milliseconds.
const JUMP: i64 = 3_600_000;
/// A clock that was doubted for this long is believed.
const DOUBT: Duration = Duration::from_secs(600);

/// The time that goes to the disk.
#[derive(Debug)]
pub(super) struct PersistedTime {
    /// The latest time that was believed, in milliseconds since 1970.
    believed: AtomicI64,
    /// The latest time that is durable because it was reported, in milliseconds since 1970.
    reported: AtomicI64,
    /// The latest time that the machine's clock showed to this process and that was believed, in
    /// milliseconds since 1970. The store's mark at the start does not count.
    shown: AtomicI64,
    last: Mutex<LastObservation>,
}

/// The state after the last observation.
#[derive(Debug, Default)]
struct LastObservation {
    /// Its time by the monotonic clock, and by the machine's clock.
    at: Option<(Instant, i64)>,
    /// Since when the machine's clock is doubted.
    doubted_since: Option<Instant>,
}

/// A finding that is logged for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockEvent {
    /// The machine's clock has jumped ahead by this many milliseconds.
    Jumped(i64),
    /// The jump has lasted, and is believed.
    Believed,
    /// The machine's clock has come back.
    Back,
}

impl PersistedTime {
    pub(super) fn at(mark: i64) -> Self {
        let [believed, reported] = [mark; 2].map(AtomicI64::new);
        Self { believed, reported, shown: AtomicI64::new(0), last: Mutex::default() }
    }

    /// The persisted time.
    pub(super) fn read(&self) -> i64 {
        self.believed().max(self.reported())
    }

    /// The latest time that was believed.
    pub(super) fn believed(&self) -> i64 {
        self.believed.load(Ordering::Acquire)
    }

    /// The latest time that is durable because it was reported.
    pub(super) fn reported(&self) -> i64 {
        self.reported.load(Ordering::Acquire)
    }

    /// The latest believed time that the machine's clock showed to this process.
    pub(super) fn shown(&self) -> i64 {
        self.shown.load(Ordering::Acquire)
    }

    /// Records that this time is durable.
    pub(super) fn raise(&self, time: i64) {
        self.reported.fetch_max(time, Ordering::AcqRel);
    }

    /// Whether a time is so near to the believed time that it is not doubted.
    pub(super) fn is_plausible(&self, time: i64) -> bool {
        time <= self.believed().saturating_add(JUMP)
    }

    /// Compares both clocks, and logs a finding.
    pub(super) fn observe(&self, machine: i64, at: Instant) {
        match self.find(machine, at) {
            None => {}
            Some(ClockEvent::Jumped(by)) => tracing::warn!(
                by_seconds = by / 1_000,
                "the machine's clock has jumped ahead: expiries before its time have passed now; the \
                 store persists this time only if the clock still shows it in ten minutes"
            ),
            Some(ClockEvent::Believed) => {
                tracing::warn!(
                    "the jump of the machine's clock has lasted: the store persists its time from now on"
                );
            }
            Some(ClockEvent::Back) => {
                tracing::warn!(
                    "the machine's clock is back from its jump, which was not persisted"
                );
            }
        }
    }

    /// Compares the machine's clock with the monotonic clock.
    pub(super) fn find(&self, machine: i64, at: Instant) -> Option<ClockEvent> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let believe = |time| self.believed.fetch_max(time, Ordering::AcqRel);
        let believe_clock = || {
            self.shown.fetch_max(machine, Ordering::AcqRel);
            believe(machine);
        };
        let Some((before, showed)) = last.at else {
            last.at = Some((at, machine));
            believe_clock();
            return None;
        };
        let passed = at.saturating_duration_since(before).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        // Fractions of a millisecond count for the next observation, so that frequent observations
        // do not stop the time.
        let observed = before.checked_add(Duration::from_millis(passed)).unwrap_or(at);
        last.at = Some((observed, machine));
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        let expected = self.believed().saturating_add(passed);
        if machine <= expected.saturating_add(JUMP) {
            believe_clock();
            return last.doubted_since.take().map(|_| ClockEvent::Back);
        }
        // Every jump has to last, also one that follows another.
        let moved = machine.saturating_sub(showed).saturating_sub(passed);
        let since = match last.doubted_since {
            Some(since) if moved.saturating_abs() <= JUMP => since,
            _ => {
                last.doubted_since = Some(at);
                believe(expected);
                return Some(ClockEvent::Jumped(machine.saturating_sub(expected)));
            }
        };
        if at.saturating_duration_since(since) < DOUBT {
            believe(expected);
            return None;
        }
        last.doubted_since = None;
        believe_clock();
        Some(ClockEvent::Believed)
    }
}
