//! Memory: how much this process may use, and what to keep of it at hand unless told otherwise.

use std::num::NonZeroUsize;

use sysinfo::{Process, ProcessRefreshKind, ProcessesToUpdate, System, get_current_pid};

/// Bytes that a fact at hand takes, about.
const FACT: u64 = 1 << 10;

/// Room for a few of the largest messages, however little memory there is.
const CALL_MEMORY_MIN: u64 = 32 << 20;

/// What is kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShare {
    /// How many facts.
    pub cache_entries: u64,
    /// How much of the store's pages, in MiB as they are on disk.
    pub page_cache_mib: u32,
    /// How many bytes may be held for callers: see [`crate::metrics::memory_budget`].
    pub call_memory: u64,
}

impl MemoryShare {
    /// What befits a process of so many cores: a quarter of its memory for facts, and a
    /// thirty-second for pages, which take twice as much in memory as on disk; neither less nor
    /// more than what is of use. A sixteenth is for what is held for callers.
    #[must_use]
    pub fn for_cores(cores: NonZeroUsize) -> Self {
        Self::of(allowed(), cores)
    }

    fn of(memory: u64, cores: NonZeroUsize) -> Self {
        // Beside what all share, each core may keep half as many for itself.
        let halves = 2 + cores.get() as u64;
        Self {
            cache_entries: (memory / 4 / FACT * 2 / halves).clamp(50_000, 4_000_000),
            page_cache_mib: u32::try_from(memory / (32 << 20)).unwrap_or(u32::MAX).clamp(64, 512),
            call_memory: (memory / 16).max(CALL_MEMORY_MIN),
        }
    }
}

/// The bytes of memory that this process may use: the machine's, or what its container, or the
/// service that it is, may have of them. 0 if it cannot be known.
fn allowed() -> u64 {
    let Ok(mut system) = System::new() else { return 0 };
    system.refresh_memory();
    let process = get_current_pid().ok();
    if let Some(id) = process {
        let nothing_else = ProcessRefreshKind::nothing();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[id]), false, nothing_else);
    }
    let process = process.and_then(|id| system.process(id)).and_then(Process::cgroup_limits);
    let limits = [process, system.cgroup_limits()].into_iter().flatten();
    limits.map(|limits| limits.total_memory).fold(system.total_memory(), u64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_grows_with_the_memory_between_bounds() {
        let of = |mib: u64, cores| {
            let cores = NonZeroUsize::new(cores).expect("some");
            let MemoryShare { cache_entries, page_cache_mib, .. } =
                MemoryShare::of(mib << 20, cores);
            (cache_entries, page_cache_mib)
        };
        assert_eq!(of(0, 1), (50_000, 64));
        assert_eq!(of(512, 2), (65_536, 64));
        assert_eq!(of(4 << 10, 2), (524_288, 128));
        assert_eq!(of(4 << 10, 14), (131_072, 128), "more cores keep more for themselves");
        assert_eq!(of(1 << 20, 16), (4_000_000, 512));
    }

    #[test]
    fn the_memory_of_this_process_is_known() {
        assert!(allowed() > 64 << 20, "no machine that runs this has less");
    }
}
