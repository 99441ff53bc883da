//! Sync: the locks and atomics of the cache protocol. `tests/integration/interleavings.rs` has a
//! module of the same name whose locks and atomics a test scheduler controls.

pub(super) use std::sync::Mutex;
pub(super) use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{MutexGuard, PoisonError};

/// Locks, also after a panic of another thread: the guarded data is consistent at every step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
