//! Durable time: the time mark in the store, and the times of changes in the audit log (D19).
//!
//! Not here: the clock itself; see [`super::clock`].

use std::time::Duration;

use jiff::Timestamp;

use super::{Authority, clock, transaction};
use crate::metrics::wait_spans;
use crate::store::{CommitHandle, Fact, Proposal, Receipt, StoreError};

impl Authority {
    /// Has the store remember the time, ahead of it by [`CLOCK_LEAD`](crate::store::CLOCK_LEAD); to be called more often
    /// than that.
    pub fn keep_time(&self) {
        self.facts.store().mark_time(self.clock.mark(), self.clock.believed());
        self.clock.warn_if_ahead();
    }

    /// By how much the time that decides is ahead of the machine's clock.
    #[must_use]
    pub fn clock_ahead(&self) -> Duration {
        self.clock.ahead()
    }

    /// Before an answer is told, has the last end that it tells of on the disk, if that lies beyond
    /// the mark: after a crash it must not lie ahead again (D19). `told_since` is asked with the
    /// mark that is on the disk.
    ///
    /// # Errors
    /// The store cannot keep it.
    pub(super) async fn keep_told(
        &self,
        now: Timestamp,
        told_since: impl FnOnce(Timestamp) -> Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let store = self.facts.store();
        // Nearly always: the mark is kept ahead of the time.
        let on_disk = store.time_kept();
        if now <= on_disk {
            return Ok(());
        }
        let Some(end) = told_since(on_disk).map(clock::rounded_up) else { return Ok(()) };
        if end <= on_disk {
            return Ok(());
        }
        let kept = store.keep_time(end)?;
        Box::pin(wait_spans::span("time mark", kept)).await.map_err(|_| StoreError::Unavailable)?;
        self.clock.raise(end);
        Ok(())
    }

    /// The time of a change as the audit log shall have it: the one that it was planned at, or,
    /// while that is doubted, the one that is kept, and no earlier than an end that its facts show.
    pub(super) fn time_of(&self, proposal: &Proposal) -> Timestamp {
        let planned = proposal.change.time;
        let kept = self.clock.of_change(planned);
        if kept >= planned {
            return planned;
        }
        let end = shown_end(proposal, planned).map(clock::rounded_up);
        end.map_or(kept, |end| kept.max(end))
    }

    /// Queues a proposal, with the time that its change shall have. Of its receipt the clock is to be
    /// told: see [`Self::answered`].
    pub(super) fn queue(&self, mut proposal: Proposal) -> Result<CommitHandle, StoreError> {
        proposal.change.time = self.time_of(&proposal);
        self.facts.store().commit(proposal)
    }

    /// The answer to a queued proposal; none if what it rests on has changed. Its time is on the disk
    /// now, whatever the machine's clock says.
    pub(super) async fn answered(
        &self,
        ticket: CommitHandle,
    ) -> Result<Option<Receipt>, StoreError> {
        let receipt = transaction::await_commit(ticket).await?;
        if let Some(receipt) = &receipt {
            self.clock.raise(receipt.time);
        }
        Ok(receipt)
    }
}

/// The last end that the facts of a proposal show to have passed at this time.
pub(super) fn shown_end(proposal: &Proposal, now: Timestamp) -> Option<Timestamp> {
    let facts = proposal.steps.iter().flat_map(|step| [&step.before, &step.after]);
    let ends = facts.flatten().filter_map(|fact| match fact {
        Fact::Credential(credential) => credential.ends().filter(|end| *end <= now).max(),
        _ => None,
    });
    ends.max()
}
