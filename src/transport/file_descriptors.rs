//! File descriptors: raises the limit of open files, and computes how many connections fit below it.
//!
//! Not here: what happens to connections above that number; see [`super::listener`].

use rustix::process::{Resource, getrlimit, setrlimit};

/// The descriptors of the store, logs, metrics and pipes.
const BASE: u64 = 256;
/// The descriptors of each worker.
const PER_WORKER: u64 = 8;

/// Raises the limit as far as the process may, and returns it. None: there is no limit.
pub(crate) fn raise() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => limit.maximum,
        Err(_) => before,
    }
}

/// The requested number of connections, or fewer if they do not fit below the limit of descriptors.
pub(crate) fn connections(requested: usize, limit: Option<u64>, workers: usize) -> usize {
    let Some(limit) = limit else { return requested };
    let reserved = BASE + PER_WORKER * workers as u64;
    // With a small limit, half of it is used: a server with few connections is better than none.
    let available = limit.saturating_sub(reserved).max(limit / 2).max(1);
    requested.min(usize::try_from(available).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_other_uses() {
        assert_eq!(connections(20_000, None, 2), 20_000);
        assert_eq!(connections(20_000, Some(1 << 20), 2), 20_000);
        assert_eq!(connections(20_000, Some(20_000), 2), 20_000 - 256 - 16);
        assert_eq!(connections(20_000, Some(300), 2), 150);
        assert_eq!(connections(20_000, Some(1), 2), 1);
        assert_eq!(connections(7, Some(300), 2), 7);
    }
}
