//! Measure: counts and times, noted by whoever does the work and read by whoever looks.
//!
//! To note one costs a few nanoseconds and waits for nobody. What is read is of about one moment.
//!
//! Not here: names and formats; see `observe::prometheus`.

pub mod memory_budget;
pub mod shortage;
pub mod supervise;
pub mod wait_spans;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// What the machine's clock shows; the last time that there is if it shows a later one.
#[must_use]
pub fn machine_time() -> Timestamp {
    Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::MAX)
}

/// How often something happened.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Once more.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// So many times more.
    pub fn inc_by(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How often so far.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of those that are counted, until it is dropped.
#[derive(Debug)]
pub struct Counted(Arc<AtomicUsize>);

impl Counted {
    /// One more, and how many there are with it.
    #[must_use]
    pub fn one_more(all: &Arc<AtomicUsize>) -> (Self, usize) {
        let number = all.fetch_add(1, Ordering::Relaxed) + 1;
        (Self(Arc::clone(all)), number)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many there are of something now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more, until what is returned is dropped.
    #[must_use]
    pub fn inc(&self) -> GaugeGuard<'_> {
        self.up();
        GaugeGuard(self)
    }

    /// One more.
    pub fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// So many.
    pub fn set(&self, level: u64) {
        self.0.store(level, Ordering::Relaxed);
    }

    /// How many now.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of those that a level counts.
#[derive(Debug)]
pub struct GaugeGuard<'a>(&'a Gauge);

impl Drop for GaugeGuard<'_> {
    fn drop(&mut self) {
        self.0.down();
    }
}

/// The longest times of each class but the last, in microseconds.
const BOUNDS: [u64; 20] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000,
    200_000, 500_000, 1_000_000, 5_000_000,
];

/// How long something took, time after time.
#[derive(Debug, Default)]
pub struct Histogram {
    /// How many were within each bound, and in none shorter; the last were longer than all.
    classes: [Counter; BOUNDS.len() + 1],
    nanoseconds: Counter,
}

/// What a [`Histogram`] has, summed with others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramSnapshot {
    /// How many of each class.
    classes: [u64; BOUNDS.len() + 1],
    /// All together.
    nanoseconds: u64,
}

impl Histogram {
    /// It took this long.
    pub fn note(&self, time: Duration) {
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let exact = time.subsec_nanos().is_multiple_of(1_000);
        let longer = |bound: &&u64| microseconds > **bound || (microseconds == **bound && !exact);
        // Most are short: looked for from the front.
        let class = BOUNDS.iter().take_while(longer).count();
        if let Some(class) = self.classes.get(class) {
            class.inc();
        }
        self.nanoseconds.inc_by(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds what there is so far.
    pub fn add_to(&self, read: &mut HistogramSnapshot) {
        for (class, all) in self.classes.iter().zip(&mut read.classes) {
            *all += class.read();
        }
        read.nanoseconds += self.nanoseconds.read();
    }
}

impl HistogramSnapshot {
    /// Each bound in seconds, and how many were in its class alone; infinity last.
    pub fn classes(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e6);
        bounds.chain([f64::INFINITY]).zip(self.classes)
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// All together, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.nanoseconds as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_in_the_class_of_the_least_bound_that_it_keeps() {
        let times = Histogram::default();
        for nanoseconds in [0, 1_000, 1_001, 7_000, 5_000_000_000, 5_000_000_001] {
            times.note(Duration::from_nanos(nanoseconds));
        }
        let mut read = HistogramSnapshot::default();
        times.add_to(&mut read);
        let some: Vec<_> = read.classes().filter(|(_, count)| *count > 0).collect();
        assert_eq!(some, [(1e-6, 2), (2e-6, 1), (10e-6, 1), (5.0, 1), (f64::INFINITY, 1)]);
        assert_eq!(read.count(), 6);
        assert!((read.seconds() - 10.000_009_002).abs() < 1e-12);
        times.add_to(&mut read);
        assert_eq!(read.count(), 12, "of two, the sum");
    }

    #[test]
    fn a_level_goes_down_again() {
        let level = Gauge::default();
        let (one, two) = (level.inc(), level.inc());
        assert_eq!(level.read(), 2);
        drop((one, two));
        assert_eq!(level.read(), 0);
    }
}
