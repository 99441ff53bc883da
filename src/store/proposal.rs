//! Proposal: a change to commit, with the facts that it read and the facts that it writes.
//!
//! Not here: how the store checks and commits it.

use std::sync::Arc;

use jiff::Timestamp;

use super::fact::{Fact, FactKey, FactKind};
use super::idempotency::IdempotencyRecord;
use crate::policy::change::Change;
use crate::policy::id::Name;
use crate::policy::revision::Revision;

/// The write of one fact. It is a precondition that the fact is still `before`.
#[derive(Clone, Debug)]
pub struct FactWrite {
    /// The key of the fact.
    pub key: FactKey,
    /// The fact as it was read; `None` if it did not exist.
    pub before: Option<Fact>,
    /// The fact after the commit; `None` if the commit removes it.
    pub after: Option<Fact>,
}

/// A change to commit. The store sets the revision and the time of the change.
#[derive(Clone)]
pub struct Proposal {
    /// Facts that the plan read and does not write, each with the revision that was read; `None`
    /// for a fact that does not exist.
    pub preconditions: Vec<(FactKey, Option<Revision>)>,
    /// The API key of the caller, by its id and creation revision. It must still be in the keyring.
    /// Changes of other keys do not matter, so a change does not wait for the keyring to be quiet.
    pub caller: Option<(Name, Revision)>,
    /// The facts that it writes.
    pub writes: Vec<FactWrite>,
    /// The change for the change log. Its time is the earliest that the commit may have.
    pub change: Change,
    /// The request whose reply the commit stores, if the caller may send it again.
    pub idempotency: Option<IdempotencyRecord>,
}

impl FactWrite {
    /// The creation of a fact.
    #[must_use]
    pub fn create<T: FactKind>(fact: T) -> Self {
        Self { key: fact.key(), before: None, after: Some(Arc::new(fact).into_fact()) }
    }

    /// The deletion of a fact.
    #[must_use]
    pub fn delete<T: FactKind>(fact: Arc<T>) -> Self {
        Self { key: fact.key(), before: Some(fact.into_fact()), after: None }
    }

    /// Whether the write only removes access: the new fact grants no more than the old one.
    fn takes_away(&self, now: Timestamp) -> bool {
        match (&self.before, &self.after) {
            (Some(_), None) => true,
            (Some(Fact::Company(before)), Some(Fact::Company(after))) => after.narrows(before),
            (Some(Fact::Credential(before)), Some(Fact::Credential(after))) => {
                after.narrows(before, now)
            }
            (Some(Fact::User(before)), Some(Fact::User(after))) => after.narrows(before),
            (Some(Fact::Consent(before)), Some(Fact::Consent(after))) => after.narrows(before),
            (Some(Fact::Keyring(before)), Some(Fact::Keyring(after))) => after.narrows(before),
            (Some(Fact::SigningKeys(before)), Some(Fact::SigningKeys(after))) => {
                after.narrows(before)
            }
            _ => false,
        }
    }
}

impl Proposal {
    /// The last expiry that the facts of the proposal show to have passed at this time.
    #[must_use]
    pub fn shown_end(&self, now: Timestamp) -> Option<Timestamp> {
        let facts = self.writes.iter().flat_map(|step| [&step.before, &step.after]);
        let ends = facts.flatten().filter_map(|fact| match fact {
            Fact::Credential(credential) => credential.ends().filter(|end| *end <= now).max(),
            _ => None,
        });
        ends.max()
    }

    /// Whether the proposal only removes access. Such a change is accepted when the disk has no
    /// space for others, so that a stolen key can be revoked then.
    #[must_use]
    pub fn takes_away(&self) -> bool {
        !self.writes.is_empty()
            && self.writes.iter().all(|write| write.takes_away(self.change.time))
    }

    /// Whether the proposal only deletes API keys. The last part of the space and of the queue is
    /// reserved for these: a stolen key can be deleted after it has used up the rest.
    #[must_use]
    pub fn deletes_keys(&self) -> bool {
        self.takes_away() && self.writes.iter().all(|write| write.key == FactKey::Keyring)
    }
}
