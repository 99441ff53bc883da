//! DecidingTime: the time by which a process decides, which never runs backwards (D19).
//!
//! It is the latest time that the machine's clock ever showed to this process, and not earlier than the
//! store's time mark. A replica also follows the clocks of other replicas that are a little ahead, so that
//! an expiry passes at all replicas at nearly the same time. The distance is limited by the machine's
//! clock: however many replicas follow one another, a wrong clock moves none of them by more than
//! [`CLOCK_LEAD`].
//!
//! Times are whole milliseconds since 1970, rounded up, so an expiry is never applied late.
//!
//! Not here: the time that goes to the disk; see `authority::clock`. And whose clock is wrong; see
//! `replicated::clocks`.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use jiff::Timestamp;

use super::CLOCK_LEAD;

/// The time by which a process decides.
#[derive(Debug)]
pub struct DecidingTime {
    latest: AtomicI64,
    /// The store's mark at the start.
    mark: i64,
}

impl DecidingTime {
    /// A time that is never before the store's mark.
    #[must_use]
    pub fn starting_at(mark: Option<Timestamp>) -> Self {
        let mark = mark.map_or(0, Timestamp::as_millisecond);
        Self { latest: AtomicI64::new(mark), mark }
    }

    /// The time after the machine's clock showed this one.
    pub fn advance(&self, machine: i64) -> i64 {
        let latest = self.latest.load(Ordering::Relaxed);
        // Written at most once per millisecond, so the checks of two cores rarely contend.
        if machine > latest {
            machine.max(self.latest.fetch_max(machine, Ordering::Relaxed))
        } else {
            latest
        }
    }

    /// The latest time so far.
    #[must_use]
    pub fn latest(&self) -> i64 {
        self.latest.load(Ordering::Relaxed)
    }

    /// The time that other replicas are told. The mark is ahead of the time by its lead, which a restart
    /// must not pass on.
    #[must_use]
    pub fn told(&self) -> Timestamp {
        timestamp(self.told_at(machine_milliseconds()))
    }

    fn told_at(&self, machine: i64) -> i64 {
        match self.advance(machine) {
            latest if latest > self.mark => latest,
            _ => machine.max(self.mark.saturating_sub(lead())),
        }
    }

    /// Follows the time that another replica told, if the machine's clock is not further behind than
    /// [`CLOCK_LEAD`].
    pub fn follow(&self, told: Timestamp) {
        self.follow_at(told.as_millisecond(), machine_milliseconds());
    }

    fn follow_at(&self, told: i64, machine: i64) {
        if told <= machine.saturating_add(lead()) {
            self.latest.fetch_max(told, Ordering::Relaxed);
        }
    }
}

/// The time of the machine's clock in milliseconds since 1970, rounded up.
#[must_use]
pub fn machine_milliseconds() -> i64 {
    let machine = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(machine.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

fn lead() -> i64 {
    i64::try_from(CLOCK_LEAD.as_millis()).unwrap_or(i64::MAX)
}

fn timestamp(millisecond: i64) -> Timestamp {
    Timestamp::from_millisecond(millisecond).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starting_at(mark: i64) -> DecidingTime {
        DecidingTime::starting_at(Some(timestamp(mark)))
    }

    #[test]
    fn clock_that_steps_back_shows_the_latest_time() {
        let time = starting_at(0);
        assert_eq!(time.advance(5_000), 5_000);
        assert_eq!(time.advance(1_000), 5_000);
        assert_eq!(time.advance(5_001), 5_001);
    }

    #[test]
    fn others_are_told_the_time_without_the_lead_of_the_mark() {
        let time = starting_at(12_000);
        assert_eq!(time.told_at(9_000), 10_000, "it was told before the restart");
        assert_eq!(time.told_at(11_000), 11_000);
        assert_eq!(time.latest(), 12_000, "it decides by the mark");
        assert_eq!(time.told_at(12_001), 12_001);
        assert_eq!(time.told_at(5_000), 12_001, "the clock has stepped back");
    }

    #[test]
    fn a_clock_follows_no_other_one_by_more_than_two_seconds() {
        let time = starting_at(0);
        time.advance(10_000);
        time.follow_at(12_000, 10_000);
        assert_eq!(time.latest(), 12_000);
        // The second one follows a third. The own machine's clock is what counts.
        time.follow_at(12_001, 10_000);
        time.follow_at(11_000, 10_000);
        assert_eq!((time.latest(), time.told_at(10_000)), (12_000, 12_000));
        time.follow_at(12_001, 10_001);
        assert_eq!(time.latest(), 12_001);
    }
}
