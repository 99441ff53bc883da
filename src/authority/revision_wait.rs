//! Revision wait: waits until a revision is published.

use std::time::Duration;

use super::Authority;
use super::error::AuthorityError;
use super::fact_cache::ReadError;
use crate::metrics::wait_spans;
use crate::policy::revision::Revision;

/// How long a check waits for its `at_least_revision`.
const REVISION_WAIT: Duration = Duration::from_millis(500);

impl Authority {
    /// Waits for the revision that a read needs, so that another attempt can succeed.
    ///
    /// # Errors
    /// The store cannot answer.
    pub(super) async fn wait_and_retry(&self, error: ReadError) -> Result<(), AuthorityError> {
        match error {
            ReadError::Younger(revision) => {
                let reached = self.facts.wait_published(revision);
                Ok(Box::pin(wait_spans::span("revision wait", reached)).await?)
            }
            ReadError::AtLeast(revision) => self.wait_for(revision).await,
            ReadError::Store(store_error) => Err(store_error.into()),
        }
    }

    /// Waits up to 500 ms for a revision.
    ///
    /// # Errors
    /// The revision was not published in time, or the store cannot answer.
    pub(super) async fn wait_for(&self, at_least: Revision) -> Result<(), AuthorityError> {
        if at_least <= self.facts.published() {
            return Ok(());
        }
        let reached = tokio::time::timeout(REVISION_WAIT, self.facts.wait_published(at_least));
        match Box::pin(wait_spans::span("revision wait", reached)).await {
            Ok(reached) => Ok(reached?),
            Err(_) => Err(AuthorityError::RevisionNotReached {
                asked: at_least,
                current: self.facts.published(),
            }),
        }
    }
}
