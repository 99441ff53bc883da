//! Calls: how many of each were answered, and how. Each core counts for itself.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::{Response, StatusCode};
use tonic::Code;

use crate::metrics::{Counted, Counter};
use crate::policy::keyring::MAX_KEYS;
use crate::policy::revision::Revision;
use crate::wire::access;

/// How many codes there are (gRPC's status codes 0 to 16).
const CODES: usize = 17;

/// One core's calls.
pub(crate) struct CallCounters {
    /// By the place of the path in [`access::PATHS`], all others last, then by code.
    answered: Vec<[Counter; CODES]>,
    /// How many are under way.
    pub(crate) under_way: Arc<AtomicUsize>,
    /// How many of each key are, by its creation revision.
    of_keys: Mutex<HashMap<Revision, Arc<AtomicUsize>, foldhash::fast::RandomState>>,
    /// How many requests were no gRPC calls.
    not_grpc: Counter,
    /// How many connections it has.
    pub(crate) open: Arc<AtomicUsize>,
    /// How many calls were still open when the time to drain was over.
    pub(crate) cut: Counter,
}

impl Default for CallCounters {
    fn default() -> Self {
        let answered = (0..=access::PATHS.len()).map(|_| Default::default()).collect();
        let (under_way, open) = (Arc::default(), Arc::default());
        let (of_keys, not_grpc, cut) = (Mutex::default(), Counter::default(), Counter::default());
        Self { answered, under_way, of_keys, not_grpc, open, cut }
    }
}

impl CallCounters {
    /// Counts a call that was answered so, and says with which code. A stream counts as it begins.
    pub(crate) fn answered<B>(&self, path: usize, response: &Response<B>) -> Code {
        if response.status() != StatusCode::OK {
            self.not_grpc.inc();
            return Code::Ok;
        }
        let status = response.headers().get("grpc-status");
        let code = status.map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()));
        if let Some(count) = self.answered.get(path).and_then(|codes| codes.get(code as usize)) {
            count.inc();
        }
        code
    }

    /// One more call under way of this key, and how many there are with it.
    pub(crate) fn one_more_of(&self, key: Revision) -> (Counted, usize) {
        let mut all = self.of_keys.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_KEYS * 2 {
            // Most of them are of keys that were deleted.
            all.retain(|_, count| Arc::strong_count(count) > 1);
        }
        Counted::one_more(all.entry(key).or_default())
    }

    /// How many calls were answered: those of each path and code that were any.
    pub(crate) fn read(all: &[Arc<Self>]) -> Vec<(&'static str, Code, u64)> {
        let paths = access::PATHS.iter().copied().chain(["other"]).enumerate();
        let codes = || (0..).take(CODES).map(Code::from_i32).enumerate();
        let of = |path: usize, code: usize| -> u64 {
            let counts = all.iter().filter_map(|core| core.answered.get(path)?.get(code));
            counts.map(Counter::read).sum()
        };
        paths
            .flat_map(|(n, path)| codes().map(move |(m, code)| (n, path, m, code)))
            .map(|(n, path, m, code)| (path, code, of(n, m)))
            .filter(|(_, _, count)| *count > 0)
            .collect()
    }

    /// How many calls were still open when the time to drain was over.
    pub(crate) fn cut(all: &[Arc<Self>]) -> u64 {
        all.iter().map(|core| core.cut.read()).sum()
    }

    /// How many requests were no gRPC calls.
    pub(crate) fn not_grpc(all: &[Arc<Self>]) -> u64 {
        all.iter().map(|core| core.not_grpc.read()).sum()
    }

    /// How many calls are under way, and how many connections there are.
    pub(crate) fn in_flight(all: &[Arc<Self>]) -> (usize, usize) {
        let sum = |of: fn(&Self) -> &AtomicUsize| {
            all.iter().map(|core| of(core).load(Ordering::Relaxed)).sum()
        };
        (sum(|core| &core.under_way), sum(|core| &core.open))
    }
}
