//! Durable time: the time mark in the store, and the times of changes in the audit log (D19).
//!
//! Not here: the clock itself; see [`super::clock`].

use std::time::Duration;

use jiff::Timestamp;

use super::{Authority, clock, transaction};
use crate::metrics::wait_spans;
use crate::store::{CommitHandle, Proposal, Receipt, StoreError};

impl Authority {
    /// Writes the time mark to the store, ahead of the time by
    /// [`CLOCK_LEAD`](crate::store::CLOCK_LEAD). Call it more often than that.
    pub fn keep_time(&self) {
        self.facts.store().mark_time(self.clock.mark(), self.clock.believed());
        self.clock.warn_if_ahead();
    }

    /// By how much the deciding time is ahead of the machine's clock.
    #[must_use]
    pub fn clock_ahead(&self) -> Duration {
        self.clock.ahead()
    }

    /// Makes the last expiry that an answer reports durable, before the answer is sent, if it lies
    /// beyond the durable time mark. After a crash it must not lie in the future again (D19).
    /// `reported` gets the durable mark and returns that expiry.
    ///
    /// # Errors
    /// The store cannot write the mark.
    pub(super) async fn persist_reported(
        &self,
        now: Timestamp,
        reported: impl FnOnce(Timestamp) -> Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let store = self.facts.store();
        // This is nearly always so: the mark is ahead of the time.
        let on_disk = store.durable_time();
        if now <= on_disk {
            return Ok(());
        }
        let Some(end) = reported(on_disk).map(clock::rounded_up) else { return Ok(()) };
        if end <= on_disk {
            return Ok(());
        }
        let written = store.persist_time(end)?;
        Box::pin(wait_spans::span("time mark", written))
            .await
            .map_err(|_| StoreError::Unavailable)?;
        self.clock.raise(end);
        Ok(())
    }

    /// The time of a change in the audit log: the time at which it was planned. While that time is
    /// doubted, it is the persisted time, and no earlier than an expiry that the facts of the change
    /// show to have passed.
    pub(super) fn time_of(&self, proposal: &Proposal) -> Timestamp {
        let planned = proposal.change.time;
        let persisted = self.clock.of_change(planned);
        if persisted >= planned {
            return planned;
        }
        let end = proposal.shown_end(planned).map(clock::rounded_up);
        end.map_or(persisted, |end| persisted.max(end))
    }

    /// Queues a proposal with the time of its change. Pass the handle to [`Self::await_receipt`], which
    /// raises the clock.
    pub(super) fn queue(&self, mut proposal: Proposal) -> Result<CommitHandle, StoreError> {
        proposal.change.time = self.time_of(&proposal);
        self.facts.store().commit(proposal)
    }

    /// Commits the change by which an operator set the time of this replica back to the clock, if the log
    /// of the replicas does not have it yet. Call it before calls are answered.
    ///
    /// # Errors
    /// The change is not committed, or not everywhere.
    pub async fn tell_accepted_clock(&self) -> Result<(), StoreError> {
        let Some(change) = self.facts.store().untold_clock()? else { return Ok(()) };
        let (preconditions, writes) = (vec![], vec![]);
        let proposal = Proposal { preconditions, caller: None, writes, change, idempotency: None };
        self.await_receipt(self.queue(proposal)?).await?;
        Ok(())
    }

    /// Waits for the receipt of a queued proposal; none if a precondition failed. The time of the
    /// change is durable then, whatever the machine's clock shows.
    pub(super) async fn await_receipt(
        &self,
        handle: CommitHandle,
    ) -> Result<Option<Receipt>, StoreError> {
        let receipt = match transaction::await_commit(handle).await {
            // The writer ended. The log of the replicas may have the change.
            Err(StoreError::Unavailable) if self.replica().is_some() => {
                return Err(StoreError::NotYetEverywhere(None));
            }
            receipt => receipt?,
        };
        if let Some(receipt) = &receipt {
            // The time may be that of the entry before it, which is a little ahead of this clock.
            self.clock.raise(receipt.time.min(self.clock.now()));
        }
        Ok(receipt)
    }
}
