//! Check metrics: the counters of checks, for each core, so that no two cores write to the same
//! memory. They are summed when they are read.
//!
//! Not here: how they are exported; see `transport::collector`.

use std::sync::{Arc, Mutex, PoisonError};

use crate::metrics::{Counter, Histogram, HistogramSnapshot};
use crate::policy::decision::Verdict;
use crate::policy::reason::Reason;

/// The counters of one core.
#[derive(Debug, Default)]
pub struct CheckMetrics {
    allowed: Counter,
    /// By reason, in the order of [`Reason::ALL`].
    denied: [Counter; Reason::ALL.len()],
    /// How long checks took, from the request message to the response.
    pub checks: Histogram,
    /// How long batches took.
    pub batches: Histogram,
    /// Facts that were in the cache.
    pub(super) cached: Counter,
    /// Facts that had to be read from the store.
    pub(super) read: Counter,
    /// Verifications of access tokens, in the order of [`TokenResult::ALL`].
    tokens: [Counter; TokenResult::ALL.len()],
}

/// How the verification of an access token ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenResult {
    /// Its signature and its claims are right, which was known already.
    Cached,
    /// Its signature and its claims are right.
    Valid,
    /// It is invalid.
    Invalid,
    /// There are no usable keys of its issuer.
    Unverifiable,
}

impl TokenResult {
    /// Every result.
    pub const ALL: [Self; 4] = [Self::Cached, Self::Valid, Self::Invalid, Self::Unverifiable];
}

impl CheckMetrics {
    pub(super) fn verified(&self, result: TokenResult) {
        if let Some(count) = self.tokens.get(result as usize) {
            count.inc();
        }
    }

    pub(super) fn decided(&self, verdict: &Verdict) {
        match verdict {
            Verdict::Allowed { .. } => self.allowed.inc(),
            Verdict::Denied { reason, .. } => {
                if let Some(count) = self.denied.get(*reason as usize) {
                    count.inc();
                }
            }
        }
    }
}

/// The sum of the counters of all cores.
#[derive(Clone, Debug)]
pub struct MetricsTotals {
    /// Checks that were allowed, including those of batches.
    pub allowed: u64,
    /// Checks that were denied, by reason.
    pub denied: Vec<(Reason, u64)>,
    /// How long checks took.
    pub checks: HistogramSnapshot,
    /// How long batches took.
    pub batches: HistogramSnapshot,
    /// Facts that were in the cache.
    pub cached: u64,
    /// Facts that had to be read from the store.
    pub read: u64,
    /// Verifications of access tokens, by result.
    pub tokens: Vec<(TokenResult, u64)>,
}

impl Default for MetricsTotals {
    fn default() -> Self {
        Self {
            allowed: 0,
            denied: Reason::ALL.iter().map(|reason| (*reason, 0)).collect(),
            checks: HistogramSnapshot::default(),
            batches: HistogramSnapshot::default(),
            cached: 0,
            read: 0,
            tokens: TokenResult::ALL.map(|result| (result, 0)).to_vec(),
        }
    }
}

impl MetricsTotals {
    fn add(&mut self, measures: &CheckMetrics) {
        self.allowed += measures.allowed.read();
        for ((_, all), count) in self.denied.iter_mut().zip(&measures.denied) {
            *all += count.read();
        }
        measures.checks.add_to(&mut self.checks);
        measures.batches.add_to(&mut self.batches);
        self.cached += measures.cached.read();
        self.read += measures.read.read();
        for ((_, all), count) in self.tokens.iter_mut().zip(&measures.tokens) {
            *all += count.read();
        }
    }
}

/// The counters of all cores.
#[derive(Default)]
pub(super) struct CoreRegistry(Mutex<Registered>);

#[derive(Default)]
struct Registered {
    cores: Vec<Arc<CheckMetrics>>,
    /// The counts of the cores that were dropped: a counter never decreases.
    dropped: MetricsTotals,
}

impl CoreRegistry {
    /// Registers a core, and removes the cores that were dropped.
    pub(super) fn register(&self) -> Arc<CheckMetrics> {
        let core = Arc::new(CheckMetrics::default());
        let mut registered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Registered { cores, dropped } = &mut *registered;
        cores.retain_mut(|core| match Arc::get_mut(core) {
            Some(core) => {
                dropped.add(core);
                false
            }
            None => true,
        });
        cores.push(Arc::clone(&core));
        core
    }

    /// The sum of all.
    pub(super) fn sum(&self) -> MetricsTotals {
        let registered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum = registered.dropped.clone();
        for core in &registered.cores {
            sum.add(core);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_core_keeps_its_counts() {
        let cores = CoreRegistry::default();
        for _ in 0..3 {
            let core = cores.register();
            core.cached.inc();
            core.decided(&Verdict::Denied {
                reason: Reason::ALL[0],
                fault: None,
                missing: Vec::new(),
            });
        }
        let last = cores.register();
        last.cached.inc();
        assert_eq!(cores.0.lock().expect("no panic").cores.len(), 1);
        let sum = cores.sum();
        assert_eq!((sum.cached, sum.denied[0]), (4, (Reason::ALL[0], 3)));
    }
}
