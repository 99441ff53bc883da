//! Sync: the atomics of the lease. `tests/integration/lease.rs` has a module of the same name whose
//! atomics a test scheduler controls.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
