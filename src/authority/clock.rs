//! Clock: the time, which never runs backwards (D19).
//!
//! Times are whole milliseconds, rounded up: an expiry is never noticed late. The latest time
//! that was ever told is remembered, and the store keeps a mark ahead of it, so that a clock
//! which steps back revives nothing, also across a crash.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use jiff::Timestamp;

use crate::store::LEAD;

/// The time of this process.
#[derive(Debug)]
pub struct Clock {
    /// Milliseconds since 1970: the latest time told.
    latest: AtomicI64,
}

impl Clock {
    /// A clock that tells no time before this one.
    #[must_use]
    pub fn starting_at(mark: Option<Timestamp>) -> Self {
        Self { latest: AtomicI64::new(mark.map_or(0, Timestamp::as_millisecond)) }
    }

    /// The time. Read it after the facts.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let system = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let system = system.as_nanos().div_ceil(1_000_000);
        self.tell(i64::try_from(system).unwrap_or(i64::MAX))
    }

    fn tell(&self, system: i64) -> Timestamp {
        let latest = self.latest.load(Ordering::Relaxed);
        // Written at most once per millisecond: no core's checks wait for another's.
        let now = if system > latest {
            system.max(self.latest.fetch_max(system, Ordering::Relaxed))
        } else {
            latest
        };
        Timestamp::from_millisecond(now).unwrap_or(Timestamp::MAX)
    }

    /// The mark to keep now: no time before it is told after a crash.
    #[must_use]
    pub fn mark(&self) -> Timestamp {
        self.now().checked_add(LEAD).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_steps_back_tells_the_latest_time() {
        let clock = Clock::starting_at(None);
        assert_eq!(clock.tell(5_000).as_millisecond(), 5_000);
        assert_eq!(clock.tell(1_000).as_millisecond(), 5_000);
        assert_eq!(clock.tell(5_001).as_millisecond(), 5_001);
    }

    #[test]
    fn a_clock_starts_no_earlier_than_the_stores_mark() {
        let mark = Timestamp::from_millisecond(9_000_000_000_000).expect("a time");
        assert_eq!(Clock::starting_at(Some(mark)).now(), mark);
    }
}
