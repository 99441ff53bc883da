//! Read time: when keys were read, and how old they are since.
//!
//! The age is the larger one of two. The monotonic clock may stand still while a virtual machine is
//! suspended. The wall clock can be set.
//!
//! INVARIANT (keys never get younger): an age that was returned is not followed by a smaller one, also
//! when the wall clock steps back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// The time at which a read began.
#[derive(Debug)]
pub(super) struct ReadTime {
    monotonic: Instant,
    wall: SystemTime,
    /// The largest age that was returned, in milliseconds.
    largest: AtomicU64,
}

impl ReadTime {
    pub(super) fn now() -> Self {
        let (monotonic, wall) = (Instant::now(), SystemTime::now());
        Self { monotonic, wall, largest: AtomicU64::new(0) }
    }

    /// The time since then, in whole milliseconds.
    pub(super) fn age(&self) -> Duration {
        self.age_at(self.monotonic.elapsed(), SystemTime::now())
    }

    /// The age after this time of the monotonic clock, at this time of the wall clock.
    fn age_at(&self, elapsed: Duration, wall: SystemTime) -> Duration {
        // The wall clock has stepped back to before the read: it says nothing.
        let by_wall = wall.duration_since(self.wall).unwrap_or_default();
        let age = u64::try_from(elapsed.max(by_wall).as_millis()).unwrap_or(u64::MAX);
        // Written at most once per millisecond, so the checks of two cores rarely contend.
        let mut largest = self.largest.load(Ordering::Relaxed);
        if age > largest {
            largest = age.max(self.largest.fetch_max(age, Ordering::Relaxed));
        }
        Duration::from_millis(largest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_is_the_larger_of_both_clocks_and_never_decreases() {
        let read = ReadTime::now();
        let seconds = Duration::from_secs;
        let wall = |after: u64| read.wall + seconds(after);
        for (elapsed, wall, age) in [
            (0, wall(0), 0),
            (5, wall(4), 5),
            // A suspended machine: the monotonic clock stands still.
            (6, wall(3600), 3600),
            // The wall clock steps back, also to before the read.
            (7, wall(7), 3600),
            (8, read.wall - seconds(60), 3600),
            (3601, wall(0), 3601),
        ] {
            assert_eq!(read.age_at(seconds(elapsed), wall), seconds(age), "{elapsed}");
        }
    }
}
