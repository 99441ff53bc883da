//! RetryBudget: limits the retries of a client. A retry takes a whole token and a response returns
//! a tenth, so that retries do not double the load of an outage.

use std::sync::atomic::{AtomicU32, Ordering};

/// A retry, in tenths of a token.
const RETRY: u32 = 10;

pub(crate) struct RetryBudget {
    full: u32,
    tenths: AtomicU32,
}

impl RetryBudget {
    /// Creates a full budget for this number of retries.
    pub(crate) fn of(retries: u32) -> Self {
        let full = retries.saturating_mul(RETRY);
        Self { full, tenths: AtomicU32::new(full) }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&self) -> bool {
        self.tenths
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(RETRY))
            .is_ok()
    }

    /// Returns a tenth of a token.
    pub(crate) fn refill(&self) {
        // Without earlier retries this is only a load.
        if self.tenths.load(Ordering::Relaxed) < self.full {
            let more = |left: u32| (left < self.full).then(|| left + 1);
            self.tenths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_answers_are_worth_a_retry() {
        let budget = RetryBudget::of(2);
        assert!(budget.take() && budget.take() && !budget.take());
        (0..9).for_each(|_| budget.refill());
        assert!(!budget.take());
        budget.refill();
        assert!(budget.take() && !budget.take());
    }

    #[test]
    fn answers_save_up_no_more_than_a_full_budget() {
        let budget = RetryBudget::of(1);
        (0..100).for_each(|_| budget.refill());
        assert!(budget.take() && !budget.take());
    }

    #[test]
    fn a_budget_of_none_has_none() {
        let budget = RetryBudget::of(0);
        (0..100).for_each(|_| budget.refill());
        assert!(!budget.take());
    }
}
