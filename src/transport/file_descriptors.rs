//! Descriptors: how many files and sockets the process may have open, and how many of them may be
//! callers' connections.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors that are no callers' connections: the store, logs, metrics, the CLI's pipes.
const OWN: u64 = 256;
/// Those that each core needs for itself.
const PER_CORE: u64 = 8;

/// Raises the limit as far as the process may, and returns it. None is no limit.
pub(crate) fn raise() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => limit.maximum,
        Err(_) => before,
    }
}

/// As many connections as are asked for, or as few as fit below the limit of descriptors.
pub(crate) fn connections(asked: usize, limit: Option<u64>, cores: usize) -> usize {
    let Some(limit) = limit else { return asked };
    let own = OWN + PER_CORE * cores as u64;
    // With a small limit, half of it: a server with few connections is better than none.
    let most = limit.saturating_sub(own).max(limit / 2).max(1);
    asked.min(usize::try_from(most).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        assert_eq!(connections(20_000, None, 2), 20_000);
        assert_eq!(connections(20_000, Some(1 << 20), 2), 20_000);
        assert_eq!(connections(20_000, Some(20_000), 2), 20_000 - 256 - 16);
        assert_eq!(connections(20_000, Some(300), 2), 150);
        assert_eq!(connections(20_000, Some(1), 2), 1);
        assert_eq!(connections(7, Some(300), 2), 7);
    }
}
