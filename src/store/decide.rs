//! Decide: checks a proposal against everything before it, and adds it to the batch.
//!
//! It only reads: the store at its head, and the batch so far. A proposal that is rejected leaves
//! nothing in the batch.
//!
//! INVARIANT (one order): once the writer runs, revisions are assigned only here, one step each, in
//! the order of the batch. A proposal is checked against everything before it.
//!
//! Not here: how a batch is applied; see `apply`.

use super::batch_builder::{BatchBuilder, ENTRY};
use super::disk_space::{ChangeEffect, Space, SpaceError};
use super::engine::{Engine, EngineError};
use super::usage::SharedUsage;
use super::{
    CommitError, Fact, FactKey, Outcome, Proposal, Receipt, StoreError, chunked, key, record,
};
use crate::policy::keyring::Keyring;
use crate::policy::revision::Revision;

/// The store at its head.
pub(super) struct ReadView<'a> {
    pub(super) engine: &'a dyn Engine,
    pub(super) usage: &'a SharedUsage,
    /// The keyring as it was last committed.
    pub(super) keyring: Option<&'a Keyring>,
    pub(super) space: Space,
}

impl ReadView<'_> {
    /// Adds a proposal to the batch, if the disk has space for it, its preconditions hold and its
    /// company is within its quotas.
    pub(super) fn decide(
        &self,
        builder: &mut BatchBuilder,
        proposal: Proposal,
    ) -> Result<Receipt, CommitError> {
        match self.space.admits(builder.bytes, || ChangeEffect::of(&proposal)) {
            Ok(()) => self.add(builder, proposal),
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
            if self.current_revision(builder, key)? != revision {
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

    /// Adds a proposal to the batch, if its preconditions hold and its company is within its
    /// quotas.
    fn add(&self, builder: &mut BatchBuilder, proposal: Proposal) -> Result<Receipt, CommitError> {
        // Preconditions come first: a create of an existing resource must report that it exists, at
        // any quota.
        self.check_preconditions(builder, &proposal)?;
        let time = builder.time.max(proposal.change.time);
        let within_quotas = self.usage.check(&builder.usage, &proposal, time);
        within_quotas.map_err(StoreError::AtBound)?;
        // Everything that can fail comes first: a rejected proposal must leave nothing in the
        // batch.
        let mut replaced = Vec::new();
        for write in &proposal.writes {
            replaced.extend(self.chunks(builder, &write.key)?);
        }
        replaced.into_iter().for_each(|chunk| builder.batch.remove(chunk));
        let (account, before) = (proposal.account(), builder.bytes);
        builder.usage.add_steps(&proposal);
        let Proposal { writes, mut change, idempotency, .. } = proposal;
        let revision = builder.head.next();
        builder.head = revision;
        builder.time = time;
        builder.mark = builder.mark.max(builder.time);
        (change.revision, change.time) = (revision, time);
        for write in writes {
            builder.write(write, revision);
        }
        let receipt = Receipt { revision, time };
        builder.change(change);
        if let Some(idempotency) = idempotency {
            let bytes = record::encode_result(idempotency.body, idempotency.result);
            builder.value(key::reply(&idempotency.key), revision, &bytes);
            let millisecond = u64::try_from(receipt.time.as_millisecond()).unwrap_or(0);
            builder.bytes += ENTRY;
            builder.batch.insert(key::reply_time(millisecond, &idempotency.key), []);
            builder.replies.insert(idempotency.key);
        }
        let bytes = builder.bytes.saturating_sub(before);
        builder.usage.add_bytes(account, time, bytes);
        Ok(receipt)
    }

    /// The revision of a fact before the next proposal.
    fn current_revision(
        &self,
        builder: &BatchBuilder,
        key: &FactKey,
    ) -> Result<Option<Revision>, EngineError> {
        if let Some(outcome) = builder.outcomes.get(key) {
            return Ok(outcome.fact.is_some().then_some(outcome.since));
        }
        Ok(match get(self.engine, &key.bytes())? {
            Some(value) => Some(chunked::revision(&value)?),
            None => None,
        })
    }

    /// The chunks of a fact's value before the next proposal.
    fn chunks(&self, builder: &BatchBuilder, key: &FactKey) -> Result<Vec<Vec<u8>>, EngineError> {
        let entry_key = key.bytes();
        if let Some(chunks) = builder.chunks.get(&entry_key) {
            return Ok(chunks.clone());
        }
        Ok(match get(self.engine, &entry_key)? {
            Some(value) => chunked::chunks(&value)?,
            None => vec![],
        })
    }
}

/// The value of a key. A panic of the engine continues here: it ends the writer, as a failed sync does,
/// because a change may not be decided on what the engine holds afterwards.
fn get(engine: &dyn Engine, entry_key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
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
