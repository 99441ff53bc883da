//! Call counters: the numbers of answered calls, calls in flight and connections, for each worker.
//!
//! Not here: limits; see [`super::call_slots`] and `authority::admission`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Response, StatusCode};
use tonic::Code;

use crate::authority::caller_limits::CallsByKey;
use crate::authority::operation::Operation;
use crate::metrics::Counter;
use crate::wire::access::{ENVOY_CHECK, OPERATIONS, OTHER};

/// The number of gRPC status codes (0 to 16).
const CODES: usize = 17;

/// The counters of one worker.
pub(crate) struct CallCounters {
    /// The answered calls, by the index of the operation (all other paths last), and by code.
    answered: Vec<[Counter; CODES]>,
    /// The calls in flight.
    pub(crate) in_flight: Arc<AtomicUsize>,
    /// The calls in flight of each key.
    pub(crate) by_key: CallsByKey,
    /// The requests that were no gRPC calls.
    not_grpc: Counter,
    /// The open connections.
    pub(crate) connections: Arc<AtomicUsize>,
    /// The calls that were still open at the drain timeout.
    pub(crate) cut: Counter,
}

impl Default for CallCounters {
    fn default() -> Self {
        let answered = (0..=OTHER).map(|_| Default::default()).collect();
        let (in_flight, connections) = (Arc::default(), Arc::default());
        let (by_key, not_grpc, cut) =
            (CallsByKey::default(), Counter::default(), Counter::default());
        Self { answered, in_flight, by_key, not_grpc, connections, cut }
    }
}

impl CallCounters {
    /// Counts a response, and returns its code. A stream counts when it begins.
    pub(crate) fn count<B>(&self, operation: Option<&Operation>, response: &Response<B>) -> Code {
        if response.status() != StatusCode::OK {
            self.not_grpc.inc();
            return Code::Ok;
        }
        let status = response.headers().get("grpc-status");
        let code = status.map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()));
        let index = operation.map_or(OTHER, |operation| operation.index);
        if let Some(counter) = self.answered.get(index).and_then(|codes| codes.get(code as usize)) {
            counter.inc();
        }
        code
    }

    /// The numbers of answered calls, by path and code, without zeros.
    pub(crate) fn read(all: &[Arc<Self>]) -> Vec<(&'static str, Code, u64)> {
        let own = OPERATIONS.iter().map(|operation| operation.path);
        let paths = own.chain([ENVOY_CHECK.path, "other"]).enumerate();
        let codes = || (0..).take(CODES).map(Code::from_i32).enumerate();
        let sum = |path: usize, code: usize| -> u64 {
            let counts = all.iter().filter_map(|worker| worker.answered.get(path)?.get(code));
            counts.map(Counter::read).sum()
        };
        paths
            .flat_map(|(n, path)| codes().map(move |(m, code)| (n, path, m, code)))
            .map(|(n, path, m, code)| (path, code, sum(n, m)))
            .filter(|(_, _, count)| *count > 0)
            .collect()
    }

    /// The number of calls that were still open at the drain timeout.
    pub(crate) fn cut(all: &[Arc<Self>]) -> u64 {
        all.iter().map(|worker| worker.cut.read()).sum()
    }

    /// The number of requests that were no gRPC calls.
    pub(crate) fn not_grpc(all: &[Arc<Self>]) -> u64 {
        all.iter().map(|worker| worker.not_grpc.read()).sum()
    }

    /// The numbers of calls in flight and of open connections.
    pub(crate) fn in_flight(all: &[Arc<Self>]) -> (usize, usize) {
        let sum = |of: fn(&Self) -> &AtomicUsize| {
            all.iter().map(|worker| of(worker).load(Ordering::Relaxed)).sum()
        };
        (sum(|worker| &worker.in_flight), sum(|worker| &worker.connections))
    }
}
