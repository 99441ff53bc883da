//! Clock: the time that decides, which never runs backwards (D19).
//!
//! Checks and changes compare every expiry with the [`DecidingTime`], so no expired grant becomes active
//! again while the process runs. Times are whole milliseconds, rounded up, so an expiry is never applied
//! late.
//!
//! Not here: the time that goes to the disk, which does not follow a jump of the machine's clock at
//! once; see `persisted`.

mod persisted;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use self::persisted::PersistedTime;
use crate::store::{CLOCK_LEAD, DecidingTime, machine_milliseconds};

/// The deciding time may be ahead of the machine's clock by this many milliseconds before a warning
/// is logged.
const WARN_AHEAD: i64 = 60_000;

/// The clock of this process.
#[derive(Debug)]
pub struct Clock {
    time: Arc<DecidingTime>,
    persisted: PersistedTime,
    /// Whether the warning that the deciding time is ahead was logged.
    warned: Mutex<bool>,
}

impl Clock {
    /// A clock that decides by this time, which starts at the store's mark.
    #[must_use]
    pub fn of(time: Arc<DecidingTime>) -> Self {
        let clock = Self::unobserved(time);
        clock.observe(machine_milliseconds(), Instant::now());
        clock
    }

    fn unobserved(time: Arc<DecidingTime>) -> Self {
        let persisted = PersistedTime::at(time.latest());
        Self { time, persisted, warned: Mutex::default() }
    }

    /// The deciding time. Read it after the facts.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        timestamp(self.time.advance(machine_milliseconds()))
    }

    /// The time to persist, without the lead of the mark.
    #[must_use]
    pub fn persisted(&self) -> Timestamp {
        self.observe(machine_milliseconds(), Instant::now());
        timestamp(self.persisted.read())
    }

    /// The time in the audit log of a change that was planned at this time: the same time, unless it
    /// is doubted.
    #[must_use]
    pub fn of_change(&self, planned: Timestamp) -> Timestamp {
        // Below the jump limit no time is doubted, so the clocks need not be read.
        if self.persisted.is_plausible(planned.as_millisecond()) {
            return planned;
        }
        planned.min(self.persisted())
    }

    /// The mark to persist now. After a crash, the deciding time starts at it.
    #[must_use]
    pub fn mark(&self) -> Timestamp {
        self.observe(machine_milliseconds(), Instant::now());
        let believed = timestamp(self.persisted.believed());
        let ahead = believed.checked_add(CLOCK_LEAD).unwrap_or(Timestamp::MAX);
        // Where a reported expiry is later, the mark is that expiry and no later.
        ahead.max(timestamp(self.persisted.reported()))
    }

    /// The time by which retention removes data. It stands still while the machine's clock is
    /// doubted. Reported expiries and earlier marks do not move it.
    #[must_use]
    pub fn believed(&self) -> Timestamp {
        timestamp(self.persisted.shown())
    }

    /// Records that this time is durable, whatever the machine's clock shows.
    pub fn raise(&self, time: Timestamp) {
        self.persisted.raise(time.as_millisecond());
    }

    /// By how much the deciding time is ahead of the machine's clock.
    #[must_use]
    pub fn ahead(&self) -> Duration {
        let ahead = self.time.latest().saturating_sub(machine_milliseconds());
        Duration::from_millis(u64::try_from(ahead).unwrap_or(0))
    }

    /// Logs a warning once while the deciding time is ahead of the machine's clock. Call it about
    /// every second.
    pub fn warn_if_ahead(&self) {
        let machine = machine_milliseconds();
        let (latest, persisted) = (self.time.latest(), self.persisted.read());
        let ahead = latest.saturating_sub(machine);
        let persisted_ahead = persisted.saturating_sub(machine).max(0);
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_ahead = ahead > WARN_AHEAD;
        let (ahead_seconds, store_ahead_seconds) = (ahead / 1_000, persisted_ahead / 1_000);
        if !is_ahead && *warned {
            tracing::info!("the machine's clock has caught up with the store's time");
        } else if is_ahead && !*warned && latest.saturating_sub(persisted) > WARN_AHEAD {
            tracing::warn!(
                ahead_seconds,
                store_ahead_seconds,
                "this process decides by a time ahead of the machine's clock, which has stepped \
                 back: expiries before that time stay passed until the clock has caught up; if the \
                 clock is right, restart the server, which starts from the store's time"
            );
        } else if is_ahead && !*warned {
            tracing::warn!(
                ahead_seconds,
                store_ahead_seconds,
                "the store's time is ahead of the machine's clock: expiries between the two have \
                 passed already; correct the clock, or, if it is right, start the server once \
                 with --accept-clock"
            );
        }
        *warned = is_ahead;
    }

    /// Compares the machine's clock with the monotonic clock.
    fn observe(&self, machine: i64, at: Instant) {
        self.time.advance(machine);
        self.persisted.observe(machine, at);
    }
}

fn timestamp(millisecond: i64) -> Timestamp {
    Timestamp::from_millisecond(millisecond).unwrap_or(Timestamp::MAX)
}

/// The first whole millisecond at which this time has passed.
pub(super) fn rounded_up(end: Timestamp) -> Timestamp {
    // Truncation goes towards 1970, so it rounds up for times before 1970.
    let millisecond = end.as_millisecond();
    let is_short = i128::from(millisecond) * 1_000_000 < end.as_nanosecond();
    timestamp(millisecond.saturating_add(is_short.into()))
}

#[cfg(test)]
mod tests;
