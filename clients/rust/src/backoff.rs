//! Backoff: how long to wait before another attempt.

use std::time::Duration;

const LONGEST: Duration = Duration::from_millis(100);

/// Delays that double from 10 ms to 100 ms. A random part of up to a half is subtracted, so that
/// calls that failed together do not retry together.
#[derive(Clone)]
pub(crate) struct Backoff {
    next: Duration,
    /// Differs from call to call.
    dice: usize,
}

impl Backoff {
    pub(crate) fn new(dice: usize) -> Self {
        Self { next: Duration::from_millis(10), dice }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let eighths = u32::try_from(self.dice % 5).unwrap_or_default();
        let pause = self.next / 2 + self.next / 8 * eighths;
        self.next = (self.next * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pause_is_longer_than_the_longest_or_none() {
        for dice in [0, 3, 4, usize::MAX] {
            let mut backoff = Backoff::new(dice);
            let all = Vec::from_iter((0..10).map(|_| backoff.next()));
            assert!(all.iter().all(|pause| (Duration::from_millis(5)..=LONGEST).contains(pause)));
            assert!(all.is_sorted());
        }
    }
}
