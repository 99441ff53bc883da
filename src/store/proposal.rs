//! Proposal: a change to commit, with the facts that it read and the facts that it writes.
//!
//! Not here: how the engine checks and commits it.

use jiff::Timestamp;

use super::fact::{Fact, FactKey};
use super::idempotency::IdempotencyRecord;
use crate::policy::change::Change;
use crate::policy::id::Name;
use crate::policy::revision::Revision;

/// One fact's step in a proposal. The proposal rests on `before`.
#[derive(Clone, Debug)]
pub struct FactWrite {
    /// Which fact.
    pub key: FactKey,
    /// As it was read; none if it does not exist.
    pub before: Option<Fact>,
    /// As it shall be; none if it shall not exist.
    pub after: Option<Fact>,
}

/// A change to commit. Revision and time of the change are the engine's to fill in.
pub struct Proposal {
    /// The facts that it only rests on, each at the revision that was read; none for a fact
    /// that does not exist.
    pub preconditions: Vec<(FactKey, Option<Revision>)>,
    /// The key of its caller, by its id and creation revision, which must still be in the keyring.
    /// Other keys may have come and gone: a change does not wait for a quiet keyring.
    pub caller: Option<(Name, Revision)>,
    /// The facts that it changes.
    pub steps: Vec<FactWrite>,
    /// What the log will say. Its time is the earliest that the commit may have.
    pub change: Change,
    /// What to remember of the request, if it may be sent again.
    pub remember: Option<IdempotencyRecord>,
}

impl FactWrite {
    /// Whether it gives nothing to anybody: what it leaves behind is less than there was.
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
            _ => false,
        }
    }
}

impl Proposal {
    /// Whether it gives nothing to anybody. Such a change is accepted on a disk that has no space
    /// for others: a stolen key can be revoked there.
    #[must_use]
    pub fn takes_away(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|step| step.takes_away(self.change.time))
    }

    /// Whether it only deletes keys. The last of the space and of the queue is for these: whatever
    /// a stolen key did with the rest, it can be deleted.
    #[must_use]
    pub fn deletes_keys(&self) -> bool {
        self.takes_away() && self.steps.iter().all(|step| step.key == FactKey::Keyring)
    }
}

/// A committed change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The revision that it made.
    pub revision: Revision,
    /// When it was committed; no earlier than any commit before it (D19).
    pub time: Timestamp,
}
