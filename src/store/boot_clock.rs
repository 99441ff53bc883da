//! Boot clock: the time since the machine started, in nanoseconds.
//!
//! It also counts the time for which the machine was suspended, and no program can set it. A process that was
//! stopped must learn how late it is, so the clock is read anew each time.

use rustix::time::{ClockId, clock_gettime};

/// The time since the machine started, in nanoseconds.
#[must_use]
pub fn now() -> u64 {
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    // Elsewhere the monotonic clock counts the same, or stands still with the machine.
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}
