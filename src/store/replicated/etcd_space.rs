//! EtcdSpace: how full the database of etcd is, and which changes wait until it has space again.
//!
//! At its quota etcd rejects every write. Then no replica can renew its lease, and all of them stop. So
//! the replicas cease to write what can wait long before: first imports, then all changes that add
//! something. Changes that remove access are always committed.
//!
//! Not here: what makes space; see `compaction` and `truncation`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::etcd::Client;
use crate::metrics::Gauge;

/// How often the nodes of etcd are asked.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// For how long an answer counts, in nanoseconds. After that the size is unknown, and nothing waits.
const VALID: u64 = 60_000_000_000;
/// Imports wait while more than this part of the quota is in use.
const IMPORT_PART: u64 = 4;
/// Only changes that remove access are committed while more than this part of the quota is in use.
const CHANGE_PART: u64 = 2;

/// What the log of the replicas has space for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) enum LogSpace {
    /// Every change.
    Ample,
    /// Every change but those of an import.
    NoImports,
    /// Only changes that remove access.
    OnlyNarrowing,
}

/// How full the database of etcd is.
pub struct EtcdSpace {
    /// The quota of the database, in bytes.
    quota: u64,
    /// The bytes that are in use at the fullest node that answered, by the last answers.
    pub used: Gauge,
    /// What there was space for by these answers, and when they came by the boot clock.
    last: Mutex<Option<(LogSpace, u64)>>,
    clock: fn() -> u64,
}

impl EtcdSpace {
    pub(super) fn new(quota: u64, clock: fn() -> u64) -> Self {
        Self { quota, used: Gauge::default(), last: Mutex::default(), clock }
    }

    /// The quota of the database, in bytes.
    #[must_use]
    pub fn quota(&self) -> u64 {
        self.quota
    }

    /// What there is space for, as far as it is known.
    pub(super) fn log_space(&self) -> LogSpace {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match last {
            Some((space, at)) if (self.clock)().saturating_sub(at) < VALID => space,
            _ => LogSpace::Ample,
        }
    }

    /// Asks all nodes now and then, for as long as it is polled.
    pub(super) async fn measure(&self, client: &Client) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let nodes = client.status(ANSWER).await;
            // Without an answer, the last ones count until they are too old.
            if let Some(used) = nodes.iter().flatten().map(|node| node.db_size_in_use).max() {
                self.note(used);
            }
        }
    }

    fn note(&self, used: u64) {
        self.used.set(used);
        let space = match used {
            used if used > self.quota / CHANGE_PART => LogSpace::OnlyNarrowing,
            used if used > self.quota / IMPORT_PART => LogSpace::NoImports,
            _ => LogSpace::Ample,
        };
        let last = (space, (self.clock)());
        let before = self.last.lock().unwrap_or_else(PoisonError::into_inner).replace(last);
        let quota = self.quota;
        match before.map_or(LogSpace::Ample, |(space, _)| space) {
            before if before == space => {}
            _ => match space {
                LogSpace::Ample => {
                    tracing::info!(used, quota, "the database of etcd has space for all changes");
                }
                LogSpace::NoImports => tracing::warn!(
                    used,
                    quota,
                    "the database of etcd uses more than a quarter of its quota: imports wait"
                ),
                LogSpace::OnlyNarrowing => tracing::error!(
                    used,
                    quota,
                    "the database of etcd uses more than half of its quota: only changes that remove \
                     access are accepted"
                ),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local!(static NOW: Cell<u64> = const { Cell::new(0) });

    #[test]
    fn imports_wait_first_and_old_answers_do_not_count() {
        let space = EtcdSpace::new(1000, || NOW.get());
        assert_eq!(space.log_space(), LogSpace::Ample, "it is not known");
        for (used, expected) in [
            (250, LogSpace::Ample),
            (251, LogSpace::NoImports),
            (500, LogSpace::NoImports),
            (501, LogSpace::OnlyNarrowing),
            (2000, LogSpace::OnlyNarrowing),
        ] {
            space.note(used);
            assert_eq!((space.log_space(), space.used.read()), (expected, used));
        }
        NOW.set(VALID - 1);
        assert_eq!(space.log_space(), LogSpace::OnlyNarrowing);
        NOW.set(VALID);
        assert_eq!(space.log_space(), LogSpace::Ample);
    }
}
