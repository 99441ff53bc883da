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
    /// Waits for what was missed, so that another attempt can succeed.
    pub(super) async fn wait_and_retry(&self, missed: ReadError) -> Result<(), AuthorityError> {
        match missed {
            ReadError::Younger(revision) => {
                let reached = self.facts.wait_published(revision);
                Ok(Box::pin(wait_spans::span("revision wait", reached)).await?)
            }
            ReadError::Store(error) => Err(error.into()),
        }
    }

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
