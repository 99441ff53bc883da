//! Metrics: counters, gauges and histograms, which any thread may update and read.
//!
//! An update takes a few nanoseconds and never blocks. A read of several values is not atomic.
//!
//! Not here: names and formats of the metrics; see `observe::prometheus`.

pub mod jitter;
pub mod memory_budget;
pub mod shortage;
pub mod supervise;
pub mod wait_spans;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// The time of the machine's clock, at most the latest time that [`Timestamp`] can hold.
#[must_use]
pub fn machine_time() -> Timestamp {
    Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::MAX)
}

/// A number that only increases.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// Adds `more`.
    pub fn inc_by(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The present value.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One unit of a shared count, until it is dropped.
#[derive(Debug)]
pub struct Counted(Arc<AtomicUsize>);

impl Counted {
    /// Adds one. Also returns the new number.
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

/// A number that increases and decreases.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Adds one, until the guard is dropped.
    #[must_use]
    pub fn inc(&self) -> GaugeGuard<'_> {
        self.up();
        GaugeGuard(self)
    }

    /// Adds one.
    pub fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Subtracts one.
    pub fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sets the value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The present value.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One unit of a gauge.
#[derive(Debug)]
pub struct GaugeGuard<'a>(&'a Gauge);

impl Drop for GaugeGuard<'_> {
    fn drop(&mut self) {
        self.0.down();
    }
}

/// The upper bounds of the buckets, in microseconds. The last bucket has none.
const BOUNDS: [u64; 20] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000,
    200_000, 500_000, 1_000_000, 5_000_000,
];

/// A distribution of durations.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The durations of each bucket alone; the last bucket has those above all bounds.
    buckets: [Counter; BOUNDS.len() + 1],
    nanoseconds: Counter,
}

/// The values of a [`Histogram`], or the sum of several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramSnapshot {
    /// The number of durations in each bucket.
    buckets: [u64; BOUNDS.len() + 1],
    /// The sum of all durations.
    nanoseconds: u64,
}

impl Histogram {
    /// Records a duration.
    pub fn note(&self, time: Duration) {
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let exact = time.subsec_nanos().is_multiple_of(1_000);
        let longer = |bound: &&u64| microseconds > **bound || (microseconds == **bound && !exact);
        // Most durations are short, so the search starts at the smallest bound.
        let bucket = BOUNDS.iter().take_while(longer).count();
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.inc();
        }
        self.nanoseconds.inc_by(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds the present values to a snapshot.
    pub fn add_to(&self, read: &mut HistogramSnapshot) {
        for (bucket, all) in self.buckets.iter().zip(&mut read.buckets) {
            *all += bucket.read();
        }
        read.nanoseconds += self.nanoseconds.read();
    }
}

impl HistogramSnapshot {
    /// Each bound in seconds with the number of durations in its bucket alone; infinity is last.
    pub fn classes(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e6);
        bounds.chain([f64::INFINITY]).zip(self.buckets)
    }

    /// The number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of all durations, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.nanoseconds as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_counts_in_the_bucket_of_its_least_bound() {
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
        assert_eq!(read.count(), 12, "the sum of two");
    }

    #[test]
    fn gauge_decreases_when_guards_are_dropped() {
        let gauge = Gauge::default();
        let (one, two) = (gauge.inc(), gauge.inc());
        assert_eq!(gauge.read(), 2);
        drop((one, two));
        assert_eq!(gauge.read(), 0);
    }
}
