//! Blocking reads: store scans and catalog parsing, on threads that may block, a bounded number at
//! a time.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::FactCache;
use crate::metrics::wait_spans;
use crate::store::{Store, StoreError};

impl FactCache {
    /// Runs a scan of the store on a thread that may block, then waits until every revision that the
    /// scan may have seen is published.
    ///
    /// # Errors
    /// The errors of `read`.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read_by(&self.scans, read).await
    }

    /// The same for a change, which does not wait for the scans of lists.
    ///
    /// # Errors
    /// The errors of `read`.
    pub async fn read_for_change<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read_by(&self.reads_for_changes, read).await
    }

    async fn read_by<T: Send + 'static>(
        &self,
        permits: &Arc<Semaphore>,
        read: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = Arc::clone(&self.store);
        let result = run_blocking(permits, move || read(&store));
        let result =
            wait_spans::span("store scan", result).await.unwrap_or(Err(StoreError::Damaged))?;
        self.wait_published(self.coherence.read_horizon()).await?;
        Ok(result)
    }

    /// Parses a catalog on a thread that may block, one at a time.
    ///
    /// # Errors
    /// `parse` panicked.
    pub async fn parse<T: Send + 'static>(
        &self,
        parse: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        run_blocking(&self.parses, parse).await.ok_or(StoreError::Unavailable)
    }
}

/// Runs work with a permit on a thread that may block. The work keeps its permit until it returns,
/// also if its caller was cancelled, so a caller that cancels and calls again gets no second
/// permit. None if the work panicked.
async fn run_blocking<T: Send + 'static>(
    permits: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    let work = move || {
        let _permit = permit;
        work()
    };
    tokio::task::spawn_blocking(work).await.ok()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn cancelled_work_keeps_its_permit() {
        let permits = Arc::new(Semaphore::new(1));
        let (begun, has_begun) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let work = tokio::spawn({
            let permits = Arc::clone(&permits);
            async move {
                let work = move || {
                    begun.send(()).ok();
                    ended.recv().ok();
                };
                run_blocking(&permits, work).await
            }
        });
        let begun = tokio::task::spawn_blocking(move || has_begun.recv());
        begun.await.expect("no panic").expect("begun");
        work.abort();
        assert!(work.await.is_err(), "cancelled");
        assert_eq!(permits.available_permits(), 0);
        end.send(()).expect("it still runs");
        assert_eq!(run_blocking(&permits, || 7).await, Some(7));
    }
}
