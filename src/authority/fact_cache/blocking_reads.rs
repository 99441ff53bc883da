//! Blocking reads: store scans and catalog parsing, on threads that may block, a bounded number at
//! a time.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::FactCache;
use crate::metrics::wait_spans;
use crate::store::{Store, StoreError};

impl FactCache {
    /// Runs a read of the store that is no fact's, on a thread that may wait for the disk, and
    /// waits until everything that it may have seen is published.
    ///
    /// # Errors
    /// Those of the read.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read_by(&self.scans, read).await
    }

    /// The same for a change: it does not wait behind lists.
    ///
    /// # Errors
    /// Those of the read.
    pub async fn read_for_change<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read_by(&self.reads_for_changes, read).await
    }

    async fn read_by<T: Send + 'static>(
        &self,
        places: &Arc<Semaphore>,
        read: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = Arc::clone(&self.store);
        let found = in_place(places, move || read(&*store));
        let found =
            wait_spans::span("store scan", found).await.unwrap_or(Err(StoreError::Damaged))?;
        self.wait_published(self.admission.read_horizon()).await?;
        Ok(found)
    }

    /// Runs the parsing of a catalog, on a thread of its own and one at a time.
    ///
    /// # Errors
    /// It panicked.
    pub async fn parse<T: Send + 'static>(
        &self,
        parse: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        in_place(&self.parses, parse).await.ok_or(StoreError::Unavailable)
    }
}

/// Runs work on a thread that may wait, in one of these places. The place is taken until the work
/// is done, also when nothing waits for it any more: a caller that cancels and calls again gets
/// no second one. None if the work panicked.
async fn in_place<T: Send + 'static>(
    places: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    let work = move || {
        let _place = place;
        work()
    };
    tokio::task::spawn_blocking(work).await.ok()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_that_nothing_waits_for_any_more_keeps_its_place() {
        let places = Arc::new(Semaphore::new(1));
        let (begun, has_begun) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let work = tokio::spawn({
            let places = Arc::clone(&places);
            async move {
                let work = move || {
                    begun.send(()).ok();
                    ended.recv().ok();
                };
                in_place(&places, work).await
            }
        });
        let begun = tokio::task::spawn_blocking(move || has_begun.recv());
        begun.await.expect("no panic").expect("begun");
        work.abort();
        assert!(work.await.is_err(), "cancelled");
        assert_eq!(places.available_permits(), 0);
        end.send(()).expect("it still runs");
        assert_eq!(in_place(&places, || 7).await, Some(7));
    }
}
