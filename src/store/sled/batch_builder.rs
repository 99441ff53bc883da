//! BatchBuilder: collects the keys and values of one batch.
//!
//! Not here: whether a proposal may be added; see `writer::proposals`.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::checksum::WriteBatch;
use super::chunked;
use super::usage::Pending;
use crate::policy::change::Change;
use crate::policy::credential::Credential;
use crate::policy::revision::Revision;
use crate::store::key::Dead;
use crate::store::{Fact, FactKey, FactWrite, Minute, Outcome, RequestKey, key, record};

/// About how many bytes a key has with what sled adds to it.
pub(super) const ENTRY: u64 = 100;

/// One batch in the making.
#[derive(Default)]
pub(super) struct BatchBuilder {
    pub(super) batch: WriteBatch,
    pub(super) head: Revision,
    pub(super) time: Timestamp,
    pub(super) mark: Timestamp,
    pub(super) values: u32,
    /// About how many bytes it has.
    pub(super) bytes: u64,
    pub(super) outcomes: HashMap<FactKey, Outcome>,
    /// The parts of the values that this batch wrote, by their place.
    pub(super) written: HashMap<Vec<u8>, Vec<Vec<u8>>>,
    pub(super) dead: Vec<Dead>,
    /// How much it moves of what companies have, and writes of theirs.
    pub(super) usage: Pending,
    /// The changes of this batch, in order.
    pub(super) changes: Vec<Change>,
    /// The requests that this batch answers.
    pub(super) answered: HashSet<RequestKey>,
    /// Whether there is something to write that moves neither head nor mark.
    pub(super) other: bool,
}

impl BatchBuilder {
    pub(super) fn seen(&mut self, seen: impl Iterator<Item = (Revision, Minute)>) {
        for (credential, minute) in seen {
            self.batch.insert(key::seen(credential), minute.to_be_bytes());
            self.other = true;
        }
    }

    pub(super) fn value(&mut self, place: Vec<u8>, revision: Revision, bytes: &[u8]) {
        self.values += 1;
        self.bytes += ENTRY + bytes.len() as u64;
        chunked::put(&mut self.batch, place, revision, self.values, bytes);
    }

    pub(super) fn step(&mut self, step: FactWrite, revision: Revision) {
        let FactWrite { key, before, mut after } = step;
        if let Some(fact) = &mut after {
            fact.stamp(revision, self.time);
        }
        self.index(before.as_ref(), after.as_ref());
        if let (Some(Fact::Company(company)), None) = (&before, &after) {
            self.bury(Dead::Company(company.created_at));
        }
        if let (Some(Fact::User(user)), None) = (&before, &after) {
            self.bury(Dead::User(user.company, user.created_at));
        }
        if let (Some(Fact::Credential(credential)), None) = (&before, &after) {
            self.batch.remove(key::seen(credential.created_at));
            for secret in &credential.secrets {
                // Small enough to have no parts.
                self.put(FactKey::Secret(credential.company, secret.clone()), None, revision);
                self.put(FactKey::SecretOwner(secret.clone()), None, revision);
            }
            self.bury(Dead::Credential(credential.company, credential.created_at));
        }
        if let (FactKey::Secret(_, id), None) = (&key, &after) {
            self.put(FactKey::SecretOwner(id.clone()), None, revision);
        }
        let company = match &key {
            FactKey::Credential(company, _) => Some(*company),
            _ => None,
        };
        self.put(key, after, revision);
        if let Some(company) = company {
            self.put(FactKey::Impact(company), Some(Fact::Impact(revision)), revision);
        }
    }

    fn bury(&mut self, dead: Dead) {
        self.batch.insert(key::dead(dead), []);
        self.dead.push(dead);
    }

    fn put(&mut self, key: FactKey, fact: Option<Fact>, revision: Revision) {
        let place = key::fact(&key);
        match &fact {
            Some(fact) => {
                let bytes = record::encode(fact);
                self.value(place.clone(), revision, &bytes);
                let parts = bytes.len().div_ceil(chunked::INLINE);
                if parts > 1 {
                    let parts = u32::try_from(parts).unwrap_or(u32::MAX);
                    let parts = (0..parts).map(|part| key::part(revision, self.values, part));
                    self.written.insert(place, parts.collect());
                } else {
                    self.written.insert(place, Vec::new());
                }
            }
            None => {
                self.batch.remove(place.clone());
                self.written.insert(place, Vec::new());
            }
        }
        self.outcomes.insert(key.clone(), Outcome { key, since: revision, fact });
    }

    /// Keeps the index of holders in step with a credential's grants.
    fn index(&mut self, before: Option<&Fact>, after: Option<&Fact>) {
        fn credential(fact: Option<&Fact>) -> Option<&Credential> {
            match fact {
                Some(Fact::Credential(credential)) => Some(credential),
                _ => None,
            }
        }
        let (before, after) = (credential(before), credential(after));
        if let Some(old) = before {
            for (scope, _) in old.grants.iter() {
                if !after.is_some_and(|new| new.grants.contains(scope)) {
                    self.bytes += ENTRY;
                    self.batch.remove(key::holder(old.company, scope, &old.id));
                }
            }
        }
        if let Some(new) = after {
            for (scope, _) in new.grants.iter() {
                if !before.is_some_and(|old| old.grants.contains(scope)) {
                    self.bytes += ENTRY;
                    self.batch.insert(key::holder(new.company, scope, &new.id), []);
                }
            }
        }
    }
}
