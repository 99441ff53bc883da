//! Counters: the requests of the AuthZEN API, by endpoint and status.
//!
//! Not here: the names of the metrics; see `transport::collector`.

use super::route::Endpoint;
use crate::metrics::Counter;

/// The statuses of responses.
const STATUSES: [u16; 8] = [200, 400, 401, 403, 404, 405, 413, 503];

/// The counters of all workers.
#[derive(Default)]
pub(crate) struct AuthzenCounters(
    /// By endpoint, all other paths last, and by status.
    [[Counter; STATUSES.len()]; Endpoint::ALL.len() + 1],
);

impl AuthzenCounters {
    /// Counts a response.
    pub(super) fn answered(&self, endpoint: Option<Endpoint>, status: u16) {
        let index = endpoint.map_or(Endpoint::ALL.len(), |endpoint| endpoint as usize);
        let status = STATUSES.iter().position(|known| *known == status);
        if let Some(counter) = status.and_then(|status| self.0.get(index)?.get(status)) {
            counter.inc();
        }
    }

    /// The numbers of responses, by endpoint and status, without zeros.
    pub(crate) fn requests(&self) -> impl Iterator<Item = (&'static str, u16, u64)> {
        let names = Endpoint::ALL.map(Endpoint::name).into_iter().chain(["other"]);
        names.zip(&self.0).flat_map(|(name, counters)| {
            let counts = STATUSES.into_iter().zip(counters);
            let counts = counts.map(move |(status, count)| (name, status, count.read()));
            counts.filter(|(_, _, count)| *count > 0)
        })
    }
}
