//! Calls: how many of each were answered, and how. Each core counts for itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Response;
use tonic::Code;

use crate::grpc::access;
use crate::measure::Count;

/// How many codes there are (gRPC's status codes 0 to 16).
const CODES: usize = 17;

/// One core's calls.
pub(super) struct Calls {
    /// By the place of the path in [`access::PATHS`], all others last, then by code.
    answered: Vec<[Count; CODES]>,
    /// How many are under way.
    pub(super) under_way: Arc<AtomicUsize>,
    /// How many calls of health are under way, beside those.
    pub(super) probes: Arc<AtomicUsize>,
    /// How many connections it has.
    pub(super) open: Arc<AtomicUsize>,
}

impl Default for Calls {
    fn default() -> Self {
        let answered = (0..=access::PATHS.len()).map(|_| Default::default()).collect();
        let (under_way, probes, open) = (Arc::default(), Arc::default(), Arc::default());
        Self { answered, under_way, probes, open }
    }
}

impl Calls {
    /// Counts a call that was answered so, and says with which code. A stream counts as it begins.
    pub(super) fn answered<B>(&self, path: usize, response: &Response<B>) -> Code {
        let status = response.headers().get("grpc-status");
        let code = status.map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()));
        if let Some(count) = self.answered.get(path).and_then(|codes| codes.get(code as usize)) {
            count.one();
        }
        code
    }

    /// How many calls were answered: those of each path and code that were any.
    pub(super) fn read(all: &[Arc<Self>]) -> Vec<(&'static str, Code, u64)> {
        let paths = access::PATHS.iter().copied().chain(["other"]).enumerate();
        let codes = || (0..).take(CODES).map(Code::from_i32).enumerate();
        let of = |path: usize, code: usize| -> u64 {
            let counts = all.iter().filter_map(|core| core.answered.get(path)?.get(code));
            counts.map(Count::read).sum()
        };
        paths
            .flat_map(|(n, path)| codes().map(move |(m, code)| (n, path, m, code)))
            .map(|(n, path, m, code)| (path, code, of(n, m)))
            .filter(|(_, _, count)| *count > 0)
            .collect()
    }

    /// How many calls are under way, and how many connections there are.
    pub(super) fn now(all: &[Arc<Self>]) -> (usize, usize) {
        let sum = |of: fn(&Self) -> &AtomicUsize| {
            all.iter().map(|core| of(core).load(Ordering::Relaxed)).sum()
        };
        (sum(|core| &core.under_way), sum(|core| &core.open))
    }
}

/// One of those that are counted, until it is dropped.
pub(super) struct Counted(Arc<AtomicUsize>);

impl Counted {
    /// One more, and how many there are with it.
    pub(super) fn one_more(all: &Arc<AtomicUsize>) -> (Self, usize) {
        let number = all.fetch_add(1, Ordering::Relaxed) + 1;
        (Self(Arc::clone(all)), number)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
