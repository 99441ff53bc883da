//! Decide: checks a proposal against everything before it, and gives it its revision and time.
//!
//! It only reads: the store at its head, and the batch so far.
//!
//! INVARIANT (one order): once the writer runs, revisions are assigned only here, one step each, in
//! the order of the batch. A proposal is checked against everything before it.
//!
//! Not here: what a change adds to a batch; see `batch_builder`. How a batch is applied; see `apply`.

use jiff::Timestamp;

use super::batch_builder::BatchBuilder;
use super::decided_change::{DecidedChange, DecidedWrite};
use super::disk_space::{ChangeEffect, Space, SpaceError};
use super::engine::{Engine, EngineError};
use super::replicated::LogSpace;
use super::usage::SharedUsage;
use super::{CLOCK_LEAD, CommitError, Fact, FactKey, Outcome, Proposal, StoreError, key, record};
use crate::policy::keyring::Keyring;

/// The store at its head.
pub(super) struct ReadView<'a> {
    pub(super) engine: &'a dyn Engine,
    pub(super) usage: &'a SharedUsage,
    /// The keyring as it was last committed.
    pub(super) keyring: Option<&'a Keyring>,
    pub(super) space: Space,
    pub(super) log_space: LogSpace,
}

impl ReadView<'_> {
    /// The next change of the batch, if the disk and the log have space for it, its preconditions hold and its
    /// company is within its quotas.
    pub(super) fn decide(
        &self,
        builder: &BatchBuilder,
        proposal: Proposal,
    ) -> Result<DecidedChange, CommitError> {
        match self.space.admits(builder.bytes, || ChangeEffect::of(&proposal)) {
            Ok(())
                if self.log_space == LogSpace::OnlyNarrowing
                    && ChangeEffect::of(&proposal) == ChangeEffect::Widens =>
            {
                Err(StoreError::LogNearlyFull.into())
            }
            Ok(()) => self.checked(builder, proposal),
            Err(SpaceError::NearlyFull) => Err(StoreError::NearlyFull.into()),
            Err(SpaceError::KeysOnly) => Err(StoreError::KeysOnly.into()),
            Err(SpaceError::Full) => Err(StoreError::Full.into()),
        }
    }

    /// Rejects a proposal if a precondition no longer holds.
    fn check_preconditions(
        &self,
        builder: &BatchBuilder,
        proposal: &Proposal,
    ) -> Result<(), CommitError> {
        let Proposal { preconditions, caller, writes, idempotency, .. } = proposal;
        if let Some(idempotency) = idempotency {
            let entry_key = key::reply(&idempotency.key);
            let is_pending = builder.replies.contains(&idempotency.key);
            if is_pending || get(self.engine, &entry_key)?.is_some() {
                return Err(CommitError::Conflict);
            }
        }
        let read_by_writes =
            writes.iter().map(|write| (&write.key, write.before.as_ref().map(Fact::revision)));
        for (key, revision) in
            preconditions.iter().map(|(key, at)| (key, *at)).chain(read_by_writes)
        {
            if builder.current_revision(self.engine, key)? != revision {
                return Err(CommitError::Conflict);
            }
        }
        if let Some((id, created_at)) = caller {
            let key = self.keyring(builder).and_then(|keyring| keyring.get(id.as_str()));
            if key.is_none_or(|key| key.created_at != *created_at) {
                return Err(CommitError::Conflict);
            }
        }
        Ok(())
    }

    /// The keyring before the next proposal.
    fn keyring<'a>(&'a self, builder: &'a BatchBuilder) -> Option<&'a Keyring> {
        match builder.outcomes.get(&FactKey::Keyring) {
            Some(Outcome { fact: Some(Fact::Keyring(keyring)), .. }) => Some(keyring),
            Some(_) => None,
            None => self.keyring,
        }
    }

    /// The next change of the batch, if its preconditions hold and its company is within its quotas.
    fn checked(
        &self,
        builder: &BatchBuilder,
        proposal: Proposal,
    ) -> Result<DecidedChange, CommitError> {
        // Preconditions come first: a create of an existing resource must report that it exists, at
        // any quota.
        self.check_preconditions(builder, &proposal)?;
        let time = builder.time.max(after_entry(proposal.change.time, builder.entry_time));
        let within_quotas = self.usage.check(&builder.usage, &proposal, time);
        within_quotas.map_err(StoreError::AtBound)?;
        let Proposal { writes, mut change, idempotency, .. } = proposal;
        let revision = builder.head.next();
        let writes = writes.into_iter().map(|write| {
            let entry_key = write.key.bytes();
            let value = builder.value_of(self.engine, &entry_key)?;
            let replaced = builder.replaced(self.engine, &entry_key, value.as_deref())?;
            Ok(DecidedWrite::new(write, replaced, revision, time))
        });
        let writes = writes.collect::<Result<_, EngineError>>()?;
        (change.revision, change.time) = (revision, time);
        let record = record::encode_change(&change);
        Ok(DecidedChange { writes, change, record, result: idempotency.map(Into::into) })
    }
}

/// The time of a change that was planned at this time of the own clock, and comes after an entry of the
/// log: that of the entry, if a right clock may have shown it. The own clock and the time mark do not
/// follow a wrong clock.
fn after_entry(planned: Timestamp, entry: Timestamp) -> Timestamp {
    let latest = planned.checked_add(CLOCK_LEAD).unwrap_or(Timestamp::MAX);
    if entry <= latest { planned.max(entry) } else { planned }
}

/// The value of a key. A panic of the engine continues here: it ends the writer, as a failed sync does,
/// because a change may not be decided on what the engine holds afterwards.
pub(super) fn get(engine: &dyn Engine, entry_key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
    match engine.get(entry_key) {
        Err(EngineError::Panicked(error)) => std::panic::resume_unwind(error),
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;
    use std::panic::catch_unwind;
    use std::path::Path;

    use super::*;
    use crate::store::engine::{Entries, WriteBatch};

    #[test]
    fn time_of_a_change_is_that_of_the_entry_before_it_if_a_right_clock_may_have_shown_it() {
        let at = |ms| Timestamp::from_millisecond(ms).expect("a time");
        let after = |planned, entry| after_entry(at(planned), at(entry)).as_millisecond();
        assert_eq!(after(10_000, 9_000), 10_000);
        assert_eq!(after(10_000, 12_000), 12_000);
        assert_eq!(after(10_000, 12_001), 10_000);
        assert_eq!(after(10_000, 0), 10_000);
    }

    /// An engine after a panic, or with corrupt data.
    struct Failed(fn() -> EngineError);

    impl Engine for Failed {
        fn file_name() -> &'static str {
            "none"
        }

        fn open(_: &Path, _: u64) -> Result<Self, EngineError> {
            Err(EngineError::Damaged)
        }

        fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
            Err((self.0)())
        }

        fn range(&self, _: Bound<&[u8]>, _: Bound<&[u8]>) -> Entries<'_> {
            Box::new(std::iter::once_with(|| Err((self.0)())))
        }

        fn apply(&self, _: &WriteBatch) -> Result<(), EngineError> {
            Err((self.0)())
        }

        fn sync(&self) -> Result<(), EngineError> {
            Err((self.0)())
        }
    }

    #[test]
    fn nothing_is_decided_after_a_panic_of_the_engine() {
        let panicked = || get(&Failed(|| EngineError::Panicked(EngineError::Damaged.into())), b"k");
        assert!(catch_unwind(panicked).is_err(), "the writer's thread ends");
        let damaged = || get(&Failed(|| EngineError::Damaged), b"k");
        assert!(catch_unwind(damaged).expect("it answers").is_err(), "one change is rejected");
    }
}
