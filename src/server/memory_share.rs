//! Memory share: the default sizes of caches and buffers, from the memory that this process may use.
//!
//! Not here: how the memory of calls is counted; see [`crate::metrics::memory_budget`].

use sysinfo::{Process, ProcessRefreshKind, ProcessesToUpdate, System, get_current_pid};

/// The approximate memory of a cached fact, in bytes.
const FACT_BYTES: u64 = 1 << 10;

/// The lower limit of the memory for calls, in bytes: a few of the largest messages fit.
const CALL_MEMORY_MIN: u64 = 32 << 20;

/// The default sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShare {
    /// The number of cached facts.
    pub cache_entries: u64,
    /// The store's page cache, in MiB of pages as they are on disk.
    pub page_cache_mib: u32,
    /// The memory for requests and replies, in bytes: see [`crate::metrics::memory_budget`].
    pub call_memory: u64,
}

impl MemoryShare {
    /// The sizes for this process: a quarter of its memory for facts and this many verified tokens, a
    /// thirty-second for pages, which take twice as much in memory as on disk, and a sixteenth for
    /// calls. Each is kept within useful limits.
    #[must_use]
    pub fn of_process(tokens: u64) -> Self {
        Self::of(allowed(), tokens)
    }

    fn of(memory: u64, tokens: u64) -> Self {
        // A fact and a token take about the same memory.
        Self {
            cache_entries: (memory / 4 / FACT_BYTES)
                .saturating_sub(tokens)
                .clamp(50_000, 4_000_000),
            page_cache_mib: u32::try_from(memory / (32 << 20)).unwrap_or(u32::MAX).clamp(64, 512),
            call_memory: (memory / 16).max(CALL_MEMORY_MIN),
        }
    }
}

/// The memory that this process may use, in bytes: the machine's memory, or the limit of its
/// container or service. 0 if it is unknown.
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
    fn sizes_grow_with_memory_within_limits() {
        let of = |mib: u64| {
            let MemoryShare { cache_entries, page_cache_mib, .. } = MemoryShare::of(mib << 20, 0);
            (cache_entries, page_cache_mib)
        };
        assert_eq!(of(0), (50_000, 64));
        assert_eq!(of(512), (131_072, 64));
        assert_eq!(of(4 << 10), (1_048_576, 128));
        assert_eq!(of(1 << 20), (4_000_000, 512));
    }

    #[test]
    fn memory_of_this_process_is_known() {
        assert!(allowed() > 64 << 20, "a machine that runs this test has more");
    }
}
