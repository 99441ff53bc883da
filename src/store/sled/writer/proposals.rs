//! Proposals: checks a proposal against everything before it, and adds it to the batch.

use sled::IVec;

use super::Writer;
use crate::policy::keyring::Keyring;
use crate::policy::revision::Revision;
use crate::store::sled::batch_builder::{BatchBuilder, ENTRY};
use crate::store::sled::chunked;
use crate::store::sled::disk_space::{ChangeEffect, Space, SpaceError};
use crate::store::sled::engine_error::unavailable;
use crate::store::{
    CommitError, Fact, FactKey, Outcome, Proposal, Receipt, StoreError, key, record,
};

impl Writer {
    /// Adds a proposal to the batch, if the disk has space for it and its preconditions hold.
    pub(super) fn add_if_space(
        &self,
        builder: &mut BatchBuilder,
        proposal: Proposal,
        space: Space,
    ) -> Result<Receipt, CommitError> {
        match space.admits(builder.bytes, || ChangeEffect::of(&proposal)) {
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
            let tree_key = key::reply(&idempotency.key);
            if builder.replies.contains(&idempotency.key) || self.stored(&tree_key)?.is_some() {
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
            None => self.keyring.as_deref(),
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
        let (company, before) = (proposal.company(), builder.bytes);
        builder.usage.add_steps(&proposal);
        let Proposal { writes, mut change, idempotency, .. } = proposal;
        let revision = builder.head.next();
        builder.head = revision;
        builder.time = time;
        builder.mark = builder.mark.max(builder.time);
        change.revision = revision;
        change.time = builder.time;
        for write in writes {
            builder.write(write, revision);
        }
        builder.value(key::change(revision), revision, &record::encode_change(&change));
        if let Some(company) = &change.company {
            builder.bytes += ENTRY;
            builder.batch.insert(key::change_of(company, revision), []);
        }
        let receipt = Receipt { revision, time: change.time };
        if let Some(idempotency) = idempotency {
            let bytes = record::encode_result(idempotency.body, idempotency.result);
            builder.value(key::reply(&idempotency.key), revision, &bytes);
            let millisecond = u64::try_from(change.time.as_millisecond()).unwrap_or(0);
            builder.bytes += ENTRY;
            builder.batch.insert(key::reply_time(millisecond, &idempotency.key), []);
            builder.replies.insert(idempotency.key);
        }
        builder.changes.push(change);
        let bytes = builder.bytes.saturating_sub(before);
        builder.usage.add_bytes(company, time, bytes);
        Ok(receipt)
    }

    /// The revision of a fact before the next proposal.
    fn current_revision(
        &self,
        builder: &BatchBuilder,
        key: &FactKey,
    ) -> Result<Option<Revision>, StoreError> {
        if let Some(outcome) = builder.outcomes.get(key) {
            return Ok(outcome.fact.is_some().then_some(outcome.since));
        }
        Ok(match self.stored(&key::fact(key))? {
            Some(value) => Some(chunked::revision(&value)?),
            None => None,
        })
    }

    /// The chunks of a fact's value before the next proposal.
    fn chunks(&self, builder: &BatchBuilder, key: &FactKey) -> Result<Vec<Vec<u8>>, StoreError> {
        let tree_key = key::fact(key);
        if let Some(chunks) = builder.chunks.get(&tree_key) {
            return Ok(chunks.clone());
        }
        Ok(match self.stored(&tree_key)? {
            Some(value) => chunked::chunks(&value)?,
            None => vec![],
        })
    }

    fn stored(&self, tree_key: &[u8]) -> Result<Option<IVec>, StoreError> {
        self.tree.get(tree_key).map_err(|error| unavailable(&error))
    }
}
