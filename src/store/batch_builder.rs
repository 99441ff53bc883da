//! BatchBuilder: collects the keys and values of one batch.
//!
//! Not here: whether a proposal may be added; see `decide`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::chain::Chain;
use super::engine::WriteBatch;
use super::key::Tombstone;
use super::usage::Pending;
use super::{
    Fact, FactKey, FactKind, FactWrite, Minute, Outcome, RequestKey, chunked, key, record,
};
use crate::policy::change::Change;
use crate::policy::company::ImpactRevision;
use crate::policy::credential::Credential;
use crate::policy::revision::Revision;

/// The approximate size of a key with the engine's overhead, in bytes.
pub(super) const ENTRY: u64 = 100;

/// A batch that is not applied yet.
#[derive(Default)]
pub(super) struct BatchBuilder {
    pub(super) batch: WriteBatch,
    pub(super) head: Revision,
    pub(super) time: Timestamp,
    pub(super) mark: Timestamp,
    pub(super) chain: Chain,
    pub(super) values: u32,
    /// Its approximate size in bytes.
    pub(super) bytes: u64,
    pub(super) outcomes: HashMap<FactKey, Outcome>,
    /// The chunks of the values that this batch writes, by the keys of the values.
    pub(super) chunks: HashMap<Vec<u8>, Vec<Vec<u8>>>,
    pub(super) tombstones: Vec<Tombstone>,
    /// How the batch changes the counts and the written bytes of companies.
    pub(super) usage: Pending,
    /// The changes of this batch, in order.
    pub(super) changes: Vec<Change>,
    /// The requests whose replies this batch stores.
    pub(super) replies: HashSet<RequestKey>,
    /// Whether the batch writes something that moves neither head nor time mark.
    pub(super) other: bool,
}

impl BatchBuilder {
    pub(super) fn last_seen(&mut self, seen: impl Iterator<Item = (Revision, Minute)>) {
        for (credential, minute) in seen {
            self.batch.insert(key::seen(credential), minute.to_be_bytes());
            self.other = true;
        }
    }

    pub(super) fn value(&mut self, entry_key: Vec<u8>, revision: Revision, bytes: &[u8]) {
        self.values += 1;
        self.bytes += ENTRY + bytes.len() as u64;
        chunked::put(&mut self.batch, entry_key, revision, self.values, bytes);
    }

    /// Adds a change, which has its revision and time, to the log.
    pub(super) fn change(&mut self, change: Change) {
        let bytes = record::encode_chained(&change, &mut self.chain);
        self.value(key::change(change.revision), change.revision, &bytes);
        if let Some(company) = &change.company {
            self.bytes += ENTRY;
            self.batch.insert(key::change_of(company, change.revision), []);
        }
        self.changes.push(change);
    }

    pub(super) fn write(&mut self, write: FactWrite, revision: Revision) {
        let FactWrite { key, before, mut after } = write;
        if let Some(fact) = &mut after {
            fact.stamp(revision, self.time);
        }
        self.index(before.as_ref(), after.as_ref());
        if let (Some(Fact::Company(company)), None) = (&before, &after) {
            self.add_tombstone(Tombstone::Company(company.created_at));
        }
        if let (Some(Fact::User(user)), None) = (&before, &after) {
            self.add_tombstone(Tombstone::User(user.company, user.created_at));
        }
        if let (Some(Fact::Credential(credential)), None) = (&before, &after) {
            self.batch.remove(key::seen(credential.created_at));
            for secret in &credential.secrets {
                // A secret is small enough to have no chunks.
                self.put(FactKey::Secret(credential.company, secret.clone()), None, revision);
                self.put(FactKey::SecretOwner(secret.clone()), None, revision);
            }
            self.add_tombstone(Tombstone::Credential(credential.company, credential.created_at));
        }
        if let (FactKey::Secret(_, id), None) = (&key, &after) {
            self.put(FactKey::SecretOwner(id.clone()), None, revision);
        }
        let company = match &key {
            // A revocation of tokens changes neither the grants nor the state of the credential.
            FactKey::Credential(company, _) if !revokes_tokens(before.as_ref(), after.as_ref()) => {
                Some(*company)
            }
            _ => None,
        };
        self.put(key, after, revision);
        if let Some(company) = company {
            let impact = Arc::new(ImpactRevision { company, revision });
            self.put(impact.key(), Some(impact.into_fact()), revision);
        }
    }

    fn add_tombstone(&mut self, tombstone: Tombstone) {
        self.batch.insert(key::tombstone(tombstone), []);
        self.tombstones.push(tombstone);
    }

    fn put(&mut self, key: FactKey, fact: Option<Fact>, revision: Revision) {
        let entry_key = key.bytes();
        match &fact {
            Some(fact) => {
                let bytes = record::encode(fact);
                self.value(entry_key.clone(), revision, &bytes);
                let chunks = bytes.len().div_ceil(chunked::INLINE);
                if chunks > 1 {
                    let chunks = u32::try_from(chunks).unwrap_or(u32::MAX);
                    let chunks = (0..chunks).map(|index| key::chunk(revision, self.values, index));
                    self.chunks.insert(entry_key, chunks.collect());
                } else {
                    self.chunks.insert(entry_key, Vec::new());
                }
            }
            None => {
                self.batch.remove(entry_key.clone());
                self.chunks.insert(entry_key, Vec::new());
            }
        }
        self.outcomes.insert(key.clone(), Outcome { key, since: revision, fact });
    }

    /// Updates the index of holders for a credential's grants.
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

/// Whether the write of a credential revokes tokens. It changes nothing else then.
fn revokes_tokens(before: Option<&Fact>, after: Option<&Fact>) -> bool {
    match (before, after) {
        (Some(Fact::Credential(before)), Some(Fact::Credential(after))) => {
            before.revoked_tokens != after.revoked_tokens
        }
        _ => false,
    }
}
