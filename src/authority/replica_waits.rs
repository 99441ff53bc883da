//! ReplicaWaits: for which replicas a call waited before it was answered, and how long.
//!
//! Not here: the wait itself; see [`crate::store::replicated`]. And how a transport tells it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::replicated::Waited;

/// The waits of one call.
#[derive(Debug, Default)]
pub struct ReplicaWaits(Mutex<Option<Waited>>);

impl ReplicaWaits {
    /// The waits so far as one. None: the call did not wait, because it made no change, or because the
    /// process is not one of several.
    #[must_use]
    pub fn take(&self) -> Option<Waited> {
        self.lock().take()
    }

    /// Notes a wait that follows those before it.
    pub(super) fn note(&self, Waited { time, waited_for }: Waited) {
        let mut noted = self.lock();
        let all = noted.get_or_insert_default();
        all.time += time;
        all.waited_for.extend(waited_for);
        all.waited_for.sort_unstable();
        all.waited_for.dedup();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Waited>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
