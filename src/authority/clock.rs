//! Clock: the time that decides, which never runs backwards, and the time that is kept (D19).
//!
//! Times are whole milliseconds, rounded up: an expiry is never noticed late. There are two:
//!
//! - The time that decides is the latest that the machine's clock ever showed. Every expiry is
//!   compared with it, in checks and in changes, so nothing revives while the process runs.
//! - The time that is kept goes to the disk: it is the store's mark, and the time of changes in
//!   the audit log. A process starts at the mark. As a rule both are the same.
//!
//! They part when the machine's clock jumps ahead by more than `JUMP` of what the monotonic
//! clock measured. Such a jump may be a mistake (a clock of the year 2099 for a minute), and a mark
//! cannot be taken back. So from then on the time that is kept goes on at the pace of the monotonic
//! clock, until the jump has lasted `DOUBT` or the machine's clock is back. The monotonic clock
//! stands still while a machine is suspended: waking up is such a jump, and is believed in ten
//! minutes. The first look of a process has none before it, and is believed.
//!
//! INVARIANT (told is kept): an end (`expires_at`) that was told to have passed lies at or before
//! the mark on the disk. While the mark is ahead of the clock, as it is nearly always, that costs
//! nothing. Where an end lies beyond it, whoever tells of it first raises the mark to that end, and
//! no further: see `Authority::keep_told`. So a process that dies in a doubtful time leaves a
//! store in which what was told to have ended has ended, and nothing else has.
//!
//! INVARIANT (removed as believed): what is kept for a time, a remembered request or a change of the
//! audit log, is removed by what the machine's clock showed and was believed, never by an end that
//! was told or by a doubted clock.
//!
//! INVARIANT (kept <= decides): the time that is kept is never later than the one that decides, so
//! a process that starts from it believes no end to be over that this one did not.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use crate::store::CLOCK_LEAD;

/// The clock is doubted that goes ahead by more than this between two looks, in milliseconds.
const JUMP: i64 = 3_600_000;
/// A clock that was doubted for so long is believed.
const DOUBT: Duration = Duration::from_secs(600);
/// The time that decides may be ahead of the clock by so much before that is worth a warning, in
/// milliseconds.
const AHEAD: i64 = 60_000;

/// The time of this process.
#[derive(Debug)]
pub struct Clock {
    /// The latest time told, in milliseconds since 1970.
    latest: AtomicI64,
    /// The latest time that was believed, in milliseconds since 1970.
    believed: AtomicI64,
    /// The latest time that is kept because it was told, in milliseconds since 1970.
    told: AtomicI64,
    /// The latest time that the machine's clock showed to this process and that was believed, in
    /// milliseconds since 1970. The store's mark at the start does not count.
    shown: AtomicI64,
    last: Mutex<Last>,
}

/// What the last look left.
#[derive(Debug, Default)]
struct Last {
    /// When it was, by the monotonic clock, and what the machine's clock showed.
    look: Option<(Instant, i64)>,
    /// Since when the machine's clock is doubted.
    doubted: Option<Instant>,
    /// Whether it was said that the time is ahead of the clock.
    warned: bool,
}

/// What a look found that an operator should know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// The machine's clock has jumped ahead by so many milliseconds.
    Jumped(i64),
    /// The jump has lasted, and is believed.
    Believed,
    /// The machine's clock has come back.
    Back,
}

impl Clock {
    /// A clock that tells no time before this one.
    #[must_use]
    pub fn starting_at(mark: Option<Timestamp>) -> Self {
        let mark = mark.map_or(0, Timestamp::as_millisecond);
        let clock = Self::at(mark);
        clock.look(system(), Instant::now());
        clock
    }

    fn at(mark: i64) -> Self {
        let [latest, believed, told] = [mark; 3].map(AtomicI64::new);
        Self { latest, believed, told, shown: AtomicI64::new(0), last: Mutex::default() }
    }

    /// The time that decides. Read it after the facts.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        time(self.tell(system()))
    }

    fn tell(&self, system: i64) -> i64 {
        let latest = self.latest.load(Ordering::Relaxed);
        // Written at most once per millisecond: no core's checks wait for another's.
        if system > latest {
            system.max(self.latest.fetch_max(system, Ordering::Relaxed))
        } else {
            latest
        }
    }

    /// The time that is kept.
    #[must_use]
    pub fn kept(&self) -> Timestamp {
        self.look(system(), Instant::now());
        time(self.read_kept())
    }

    fn read_kept(&self) -> i64 {
        self.believed.load(Ordering::Acquire).max(self.told.load(Ordering::Acquire))
    }

    /// The time that the audit log shall say of a change that was planned at this time: the same,
    /// unless that is doubted.
    #[must_use]
    pub fn of_change(&self, planned: Timestamp) -> Timestamp {
        // Within the jump nothing is doubted: no look is needed.
        if planned.as_millisecond() <= self.believed.load(Ordering::Acquire).saturating_add(JUMP) {
            return planned;
        }
        planned.min(self.kept())
    }

    /// The mark to keep now: no time before it is told after a crash.
    #[must_use]
    pub fn mark(&self) -> Timestamp {
        self.look(system(), Instant::now());
        let believed = time(self.believed.load(Ordering::Acquire));
        let ahead = believed.checked_add(CLOCK_LEAD).unwrap_or(Timestamp::MAX);
        // No further than what was told, where that is later.
        ahead.max(time(self.told.load(Ordering::Acquire)))
    }

    /// The time by which may be removed what was kept for its time. It stands still while the
    /// machine's clock is doubted, and no end that was told and no mark of before moves it.
    #[must_use]
    pub fn believed(&self) -> Timestamp {
        time(self.shown.load(Ordering::Acquire))
    }

    /// This time is on the disk: it is kept, whatever the clock says.
    pub fn raise(&self, time: Timestamp) {
        self.told.fetch_max(time.as_millisecond(), Ordering::AcqRel);
    }

    /// By how much the time that decides is ahead of the machine's clock.
    #[must_use]
    pub fn ahead(&self) -> Duration {
        let ahead = self.latest.load(Ordering::Relaxed).saturating_sub(system());
        Duration::from_millis(u64::try_from(ahead).unwrap_or(0))
    }

    /// Says once that the time is ahead of the clock, for as long as it is; to be called every
    /// second or so.
    pub fn warn_if_ahead(&self) {
        let shown = system();
        let (latest, kept) = (self.latest.load(Ordering::Relaxed), self.read_kept());
        let (ahead, kept_ahead) = (latest.saturating_sub(shown), kept.saturating_sub(shown).max(0));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_ahead = ahead > AHEAD;
        let (ahead_seconds, store_ahead_seconds) = (ahead / 1_000, kept_ahead / 1_000);
        if !is_ahead && last.warned {
            tracing::info!("the machine's clock has caught up with the store's time");
        } else if is_ahead && !last.warned && latest.saturating_sub(kept) > AHEAD {
            tracing::warn!(
                ahead_seconds,
                store_ahead_seconds,
                "this process decides by a time ahead of the machine's clock, which has stepped \
                 back: what ended by that time stays ended until the clock has caught up; if the \
                 clock is right, restart the server, which starts from the store's time"
            );
        } else if is_ahead && !last.warned {
            tracing::warn!(
                ahead_seconds,
                store_ahead_seconds,
                "the store's time is ahead of the machine's clock: what ends between the two has \
                 ended already; put the clock right, or, if it is right, start the server once \
                 with --accept-clock"
            );
        }
        last.warned = is_ahead;
    }

    /// Looks at both clocks.
    fn look(&self, system: i64, at: Instant) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let found = self.see(&mut last, system, at);
        drop(last);
        match found {
            None => {}
            Some(Found::Jumped(by)) => tracing::warn!(
                by_seconds = by / 1_000,
                "the machine's clock has jumped ahead: what ends before its time has ended, and \
                 the store keeps this time only if the clock still shows it in ten minutes"
            ),
            Some(Found::Believed) => {
                tracing::warn!(
                    "the machine's clock has kept its jump: its time is kept from now on"
                );
            }
            Some(Found::Back) => {
                tracing::warn!("the machine's clock is back from its jump, which was not kept");
            }
        }
    }

    fn see(&self, last: &mut Last, system: i64, at: Instant) -> Option<Found> {
        self.tell(system);
        let believe = |time| self.believed.fetch_max(time, Ordering::AcqRel);
        let believe_clock = || {
            self.shown.fetch_max(system, Ordering::AcqRel);
            believe(system);
        };
        let Some((before, showed)) = last.look else {
            last.look = Some((at, system));
            believe_clock();
            return None;
        };
        let passed = at.saturating_duration_since(before).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        // What is below a millisecond is left to the next look: many looks do not stop time.
        let seen = before.checked_add(Duration::from_millis(passed)).unwrap_or(at);
        last.look = Some((seen, system));
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        let expected = self.believed.load(Ordering::Acquire).saturating_add(passed);
        if system <= expected.saturating_add(JUMP) {
            believe_clock();
            return last.doubted.take().map(|_| Found::Back);
        }
        // Every jump has to last, also one that follows another.
        let moved = system.saturating_sub(showed).saturating_sub(passed);
        let since = match last.doubted {
            Some(since) if moved.saturating_abs() <= JUMP => since,
            _ => {
                last.doubted = Some(at);
                believe(expected);
                return Some(Found::Jumped(system.saturating_sub(expected)));
            }
        };
        if at.saturating_duration_since(since) < DOUBT {
            believe(expected);
            return None;
        }
        last.doubted = None;
        believe_clock();
        Some(Found::Believed)
    }
}

/// What the machine's clock shows, in milliseconds since 1970, rounded up.
fn system() -> i64 {
    let system = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(system.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

fn time(millisecond: i64) -> Timestamp {
    Timestamp::from_millisecond(millisecond).unwrap_or(Timestamp::MAX)
}

/// The whole millisecond from which on this time has passed.
pub(super) fn rounded_up(end: Timestamp) -> Timestamp {
    // Towards 1970, which is up before it.
    let millisecond = end.as_millisecond();
    let is_short = i128::from(millisecond) * 1_000_000 < end.as_nanosecond();
    time(millisecond.saturating_add(is_short.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_750_000_000_000;
    const HOUR: i64 = 3_600_000;

    /// A clock, and both clocks of its machine.
    struct Machine(Clock, Instant, i64);

    impl Machine {
        fn new() -> Self {
            let machine = Self(Clock::at(0), Instant::now(), NOON);
            machine.0.look(NOON, machine.1);
            machine
        }

        /// Time passes, by so many seconds.
        fn pass(&mut self, seconds: i64) -> Option<Found> {
            self.1 += Duration::from_secs(seconds.unsigned_abs());
            self.set(seconds * 1_000)
        }

        /// The machine's clock is set forward, or back.
        fn set(&mut self, by: i64) -> Option<Found> {
            self.2 += by;
            let mut last = self.0.last.lock().expect("a look");
            self.0.see(&mut last, self.2, self.1)
        }

        /// The time that decides and the one that is kept, as of noon.
        fn times(&self) -> (i64, i64) {
            (self.0.latest.load(Ordering::Relaxed) - NOON, self.0.read_kept() - NOON)
        }
    }

    #[test]
    fn a_clock_that_steps_back_tells_the_latest_time() {
        let clock = Clock::at(0);
        assert_eq!(clock.tell(5_000), 5_000);
        assert_eq!(clock.tell(1_000), 5_000);
        assert_eq!(clock.tell(5_001), 5_001);
    }

    #[test]
    fn a_clock_starts_no_earlier_than_the_stores_mark() {
        let mark = Timestamp::from_millisecond(9_000_000_000_000).expect("a time");
        let clock = Clock::starting_at(Some(mark));
        assert_eq!((clock.now(), clock.kept()), (mark, mark));
        assert!(clock.believed() < mark, "the mark may be an end that was told");
        let clock = Clock::starting_at(None);
        assert!(
            clock.kept() >= Timestamp::now().checked_sub(CLOCK_LEAD).expect("a time"),
            "believed"
        );
    }

    #[test]
    fn d19_a_jump_is_kept_once_it_has_lasted() {
        let mut machine = Machine::new();
        assert_eq!((machine.pass(1), machine.set(HOUR)), (None, None), "an hour is none");
        assert_eq!(machine.times(), (HOUR + 1_000, HOUR + 1_000));
        assert_eq!(machine.set(HOUR + 1), Some(Found::Jumped(HOUR + 1)));
        assert_eq!(machine.times(), (2 * HOUR + 1_001, HOUR + 1_000));
        for n in 1..600 {
            assert_eq!(machine.pass(1), None);
            assert_eq!(machine.times(), (2 * HOUR + 1_001 + n * 1_000, HOUR + 1_000 + n * 1_000));
            machine.0.raise(time(NOON + HOUR + 1_500));
            assert_eq!(machine.0.believed(), time(NOON + HOUR + 1_000), "nothing is removed by it");
        }
        assert_eq!(machine.pass(1), Some(Found::Believed));
        assert_eq!(machine.0.believed(), time(NOON + 2 * HOUR + 601_001));
        assert_eq!(machine.times(), (2 * HOUR + 601_001, 2 * HOUR + 601_001));
    }

    #[test]
    fn d19_looks_within_a_millisecond_do_not_stop_a_doubted_clock() {
        let mut machine = Machine::new();
        machine.set(2 * HOUR);
        for n in 1..=1_000 {
            machine.1 += Duration::from_micros(300);
            machine.set(i64::from(n % 3 == 0));
        }
        assert_eq!(machine.times(), (2 * HOUR + 333, 300));
    }

    #[test]
    fn d19_a_jump_that_does_not_last_is_not_kept_and_revives_nothing() {
        let mut machine = Machine::new();
        let years = 73 * 8_766 * HOUR;
        assert_eq!(machine.set(years), Some(Found::Jumped(years)));
        assert_eq!(machine.pass(500), None);
        // Another jump has to last as well, in either direction.
        assert_eq!(machine.set(2 * HOUR), Some(Found::Jumped(years + 2 * HOUR)));
        assert_eq!(machine.pass(500), None);
        assert_eq!(machine.set(-3 * HOUR), Some(Found::Jumped(years - HOUR)));
        assert_eq!(machine.pass(599), None);
        assert_eq!(machine.times().1, 1_599_000, "the pace of the monotonic clock");
        assert_eq!(machine.set(HOUR - years), Some(Found::Back));
        assert_eq!(machine.times(), (years + 2 * HOUR + 1_000_000, 1_599_000));
        machine.pass(10_000);
        assert_eq!(machine.times(), (years + 2 * HOUR + 1_000_000, 11_599_000));
    }

    #[test]
    fn d19_what_was_told_raises_the_time_that_is_kept_and_nothing_else_does() {
        let mut machine = Machine::new();
        machine.set(10 * HOUR);
        let told = time(NOON + 2 * HOUR);
        machine.0.raise(told);
        assert_eq!(machine.times(), (10 * HOUR, 2 * HOUR));
        machine.0.raise(time(NOON));
        machine.pass(300);
        assert_eq!(machine.times(), (10 * HOUR + 300_000, 2 * HOUR), "no further than was told");
        assert_eq!(machine.set(-10 * HOUR), Some(Found::Back));
        assert_eq!(machine.times(), (10 * HOUR + 300_000, 2 * HOUR));
        machine.set(10 * HOUR);
        machine.set(-9 * HOUR);
        assert_eq!(machine.times(), (10 * HOUR + 300_000, 2 * HOUR), "believed, and less");
        // A clock that lags behind and catches up has not jumped.
        machine.set(-5 * HOUR);
        machine.pass(60);
        assert_eq!(machine.set(5 * HOUR), None);
        assert_eq!(machine.times(), (10 * HOUR + 300_000, 2 * HOUR));
        machine.pass(2 * 3_600);
        assert_eq!(machine.times(), (10 * HOUR + 300_000, 3 * HOUR + 360_000));
    }

    #[test]
    fn an_end_within_a_millisecond_has_passed_at_its_end() {
        let at = |nanosecond| Timestamp::from_nanosecond(nanosecond).expect("a time");
        assert_eq!(rounded_up(at(5_000_000)), at(5_000_000));
        assert_eq!(rounded_up(at(5_000_001)), at(6_000_000));
        assert_eq!(rounded_up(at(-1)), at(0));
    }
}
