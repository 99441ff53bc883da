//! Proposals: checks a proposal against everything before it, and adds it to the batch.

use sled::IVec;

use super::Writer;
use crate::policy::keyring::Keyring;
use crate::policy::revision::Revision;
use crate::store::sled::batch_builder::{BatchBuilder, ENTRY};
use crate::store::sled::chunked;
use crate::store::sled::disk_space::{Kind, Lack, Space};
use crate::store::sled::engine_error::unavailable;
use crate::store::{
    CommitError, Fact, FactKey, Outcome, Proposal, Receipt, StoreError, StoredReply, key, record,
};

impl Writer {
    /// Adds a proposal to the draft, if the disk has room for it and what it rests on stands.
    pub(super) fn add_if_room(
        &self,
        draft: &mut BatchBuilder,
        proposal: Proposal,
        space: Space,
    ) -> Result<Receipt, CommitError> {
        match space.admits(draft.bytes, || Kind::of(&proposal)) {
            Ok(()) => self.add(draft, proposal),
            Err(Lack::ToGive) => Err(StoreError::NearlyFull.into()),
            Err(Lack::ButKeys) => Err(StoreError::KeysOnly.into()),
            Err(Lack::Any) => Err(StoreError::Full.into()),
        }
    }

    /// Refuses a proposal if something that it rests on has changed.
    fn stands(&self, draft: &BatchBuilder, proposal: &Proposal) -> Result<(), CommitError> {
        let Proposal { preconditions, caller, steps, remember, .. } = proposal;
        if let Some(remember) = remember {
            let place = key::answered(&remember.key);
            if draft.answered.contains(&remember.key) || self.stored(&place)?.is_some() {
                return Err(CommitError::Conflict);
            }
        }
        let steps_rest_on =
            steps.iter().map(|step| (&step.key, step.before.as_ref().map(Fact::revision)));
        for (key, revision) in preconditions.iter().map(|(key, at)| (key, *at)).chain(steps_rest_on)
        {
            if self.current(draft, key)? != revision {
                return Err(CommitError::Conflict);
            }
        }
        if let Some((id, created_at)) = caller {
            let key = self.keyring(draft).and_then(|keyring| keyring.get(id.as_str()));
            if key.is_none_or(|key| key.created_at != *created_at) {
                return Err(CommitError::Conflict);
            }
        }
        Ok(())
    }

    /// The keyring in front of the next proposal.
    fn keyring<'a>(&'a self, draft: &'a BatchBuilder) -> Option<&'a Keyring> {
        match draft.outcomes.get(&FactKey::Keyring) {
            Some(Outcome { fact: Some(Fact::Keyring(keyring)), .. }) => Some(keyring),
            Some(_) => None,
            None => self.keyring.as_deref(),
        }
    }

    /// Adds a proposal to the draft, if what it rests on stands and its company is below its
    /// bounds.
    fn add(&self, draft: &mut BatchBuilder, proposal: Proposal) -> Result<Receipt, CommitError> {
        // First: what exists already is said to exist, whatever the bounds are.
        self.stands(draft, &proposal)?;
        let time = draft.time.max(proposal.change.time);
        let admitted = self.usage.admits(&draft.usage, &proposal, time);
        admitted.map_err(StoreError::AtBound)?;
        // What can fail comes first: a proposal that is refused leaves nothing in the draft.
        let mut replaced = Vec::new();
        for step in &proposal.steps {
            replaced.extend(self.parts(draft, &step.key)?);
        }
        replaced.into_iter().for_each(|part| draft.batch.remove(part));
        let (company, before) = (proposal.company(), draft.bytes);
        draft.usage.add_steps(&proposal);
        let Proposal { steps, mut change, remember, .. } = proposal;
        let revision = draft.head.next();
        draft.head = revision;
        draft.time = time;
        draft.mark = draft.mark.max(draft.time);
        change.revision = revision;
        change.time = draft.time;
        for step in steps {
            draft.step(step, revision);
        }
        draft.value(key::change(revision), revision, &record::encode_change(&change));
        if let Some(company) = &change.company {
            draft.bytes += ENTRY;
            draft.batch.insert(key::change_of(company, revision), []);
        }
        let receipt = Receipt { revision, time: change.time };
        if let Some(remember) = remember {
            let answered = StoredReply { body: remember.body, reply: (remember.reply)(receipt) };
            let bytes = record::encode_answered(answered);
            draft.value(key::answered(&remember.key), revision, &bytes);
            let millisecond = u64::try_from(change.time.as_millisecond()).unwrap_or(0);
            draft.bytes += ENTRY;
            draft.batch.insert(key::answered_at(millisecond, &remember.key), []);
            draft.answered.insert(remember.key);
        }
        draft.changes.push(change);
        let bytes = draft.bytes.saturating_sub(before);
        draft.usage.add_bytes(company, time, bytes);
        Ok(receipt)
    }

    /// The revision that a fact has in front of the next proposal.
    fn current(&self, draft: &BatchBuilder, key: &FactKey) -> Result<Option<Revision>, StoreError> {
        if let Some(outcome) = draft.outcomes.get(key) {
            return Ok(outcome.fact.is_some().then_some(outcome.since));
        }
        Ok(match self.stored(&key::fact(key))? {
            Some(value) => Some(chunked::revision(&value)?),
            None => None,
        })
    }

    /// The parts of the value that a fact has in front of the next proposal.
    fn parts(&self, draft: &BatchBuilder, key: &FactKey) -> Result<Vec<Vec<u8>>, StoreError> {
        let place = key::fact(key);
        if let Some(parts) = draft.written.get(&place) {
            return Ok(parts.clone());
        }
        Ok(match self.stored(&place)? {
            Some(value) => chunked::chunks(&value)?,
            None => vec![],
        })
    }

    fn stored(&self, place: &[u8]) -> Result<Option<IVec>, StoreError> {
        self.tree.get(place).map_err(|error| unavailable(&error))
    }
}
