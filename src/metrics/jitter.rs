//! Jitter: varies a time, so that things that began together do not end or repeat together.

use std::hash::BuildHasher;
use std::time::Duration;

/// The time, longer or shorter by up to a tenth.
#[must_use]
pub fn jittered(time: Duration) -> Duration {
    let random = foldhash::quality::RandomState::default().hash_one(());
    time.mul_f64(0.9 + (random % 1_000) as f64 / 5_000.0)
}
