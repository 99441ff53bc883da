//! BatchBuilder: collects the keys and values of one batch.
//!
//! Not here: whether a change may be added; see `decide`, and `replicated` for changes of other
//! replicas.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::chain::Chain;
use super::checksum::StoreChecksum;
use super::decide::get;
use super::decided_change::{DecidedChange, DecidedResult, DecidedWrite, ReplacedValue};
use super::engine::{Engine, EngineError, WriteBatch};
use super::error::Corrupt;
use super::key::Tombstone;
use super::replicated::LogPosition;
use super::usage::Pending;
use super::{
    Fact, FactKey, FactKind, FactWrite, Minute, Outcome, RequestKey, chunked, key, record,
};
use crate::policy::change::{Change, ChangeKind};
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
    /// The time of the last entry of the log, if the store has one.
    pub(super) entry_time: Timestamp,
    pub(super) chain: Chain,
    /// The position in the log of the replicas after the batch, if the store has one.
    pub(super) position: Option<LogPosition>,
    /// The number of values that the last change has so far.
    pub(super) values: u32,
    /// Its approximate size in bytes.
    pub(super) bytes: u64,
    pub(super) outcomes: HashMap<FactKey, Outcome>,
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
    /// Adds last-seen minutes. In the store of a replica, to which others tell theirs, the later one of a
    /// credential stays.
    pub(super) fn last_seen(
        &mut self,
        engine: &dyn Engine,
        seen: impl Iterator<Item = (Revision, Minute)>,
    ) {
        for (credential, minute) in seen {
            if self.position.is_some() {
                // No decision depends on it, so one that cannot be read is replaced.
                let stored = self.value_of(engine, &key::seen(credential)).ok().flatten();
                let stored = stored.and_then(|bytes| bytes.try_into().ok());
                if stored.is_some_and(|bytes| Minute::from_be_bytes(bytes) >= minute) {
                    continue;
                }
            }
            self.batch.insert(key::seen(credential), minute.to_be_bytes());
            self.other = true;
        }
    }

    /// The revision of a fact before the next change; `None` if there is no such fact.
    pub(super) fn current_revision(
        &self,
        engine: &dyn Engine,
        key: &FactKey,
    ) -> Result<Option<Revision>, EngineError> {
        if let Some(outcome) = self.outcomes.get(key) {
            return Ok(outcome.fact.is_some().then_some(outcome.since));
        }
        Ok(match get(engine, &key.bytes())? {
            Some(value) => Some(chunked::revision(&value)?),
            None => None,
        })
    }

    /// The value of a key before the next change.
    pub(super) fn value_of(
        &self,
        engine: &dyn Engine,
        entry_key: &[u8],
    ) -> Result<Option<Vec<u8>>, EngineError> {
        match self.batch.get(entry_key) {
            Some(pending) => Ok(pending.map(<[u8]>::to_vec)),
            None => get(engine, entry_key),
        }
    }

    /// What a change of a fact with this value replaces.
    pub(super) fn replaced(
        &self,
        engine: &dyn Engine,
        entry_key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<ReplacedValue, EngineError> {
        let Some(value) = value else { return Ok(ReplacedValue::default()) };
        let checksum = match self.position {
            Some(_) if !key::is_garbage_somewhere(entry_key) => {
                let read = |chunk: &[u8]| self.value_of(engine, chunk);
                StoreChecksum::of_value(entry_key, value, read)?
            }
            _ => StoreChecksum::default(),
        };
        Ok(ReplacedValue { chunks: chunked::chunks(value)?, checksum })
    }

    /// A fact before the next change. `value` is its value.
    pub(super) fn fact(
        &self,
        engine: &dyn Engine,
        key: &FactKey,
        value: Option<&[u8]>,
    ) -> Result<Option<Fact>, EngineError> {
        if let Some(outcome) = self.outcomes.get(key) {
            return Ok(outcome.fact.clone());
        }
        let Some(value) = value else { return Ok(None) };
        let (revision, bytes) = chunked::read(value, engine)?.ok_or(Corrupt)?;
        Ok(Some(record::decode(key, revision, &bytes)?))
    }

    /// Adds a change: its facts, their index entries, what it makes garbage, its record in the log
    /// and the result of its request. Every store that adds the same changes has the same entries.
    pub(super) fn add(&mut self, decided: DecidedChange) {
        let (account, bytes) = (decided.account(), self.bytes);
        let DecidedChange { writes, change, record, result } = decided;
        let (revision, time) = (change.revision, change.time);
        self.usage.add_writes(writes.iter().map(|decided| &decided.write));
        for chunk in writes.iter().flat_map(|decided| &decided.replaced.chunks) {
            self.batch.remove(chunk.clone());
        }
        (self.head, self.values) = (revision, 0);
        for DecidedWrite { write, record, .. } in writes {
            self.write(write, &record, &change);
        }
        self.change(change, record);
        if let Some(DecidedResult { key, record, replaced }) = result {
            replaced.into_iter().for_each(|old| self.batch.remove(old));
            self.value(key::reply(&key), revision, &record);
            let millisecond = u64::try_from(time.as_millisecond()).unwrap_or(0);
            self.bytes += ENTRY;
            self.batch.insert(key::reply_time(millisecond, &key), []);
            self.replies.insert(key);
        }
        self.usage.add_bytes(account, time, self.bytes.saturating_sub(bytes));
    }

    fn value(&mut self, entry_key: Vec<u8>, revision: Revision, bytes: &[u8]) {
        self.values += 1;
        self.bytes += ENTRY + bytes.len() as u64;
        chunked::put(&mut self.batch, entry_key, revision, self.values, bytes);
    }

    /// Adds a change, which has its revision and time, to the log. `record` is without its chain.
    pub(super) fn change(&mut self, change: Change, record: Vec<u8>) {
        let bytes = record::chained(record, &mut self.chain);
        self.value(key::change(change.revision), change.revision, &bytes);
        if let Some(company) = &change.company {
            self.bytes += ENTRY;
            self.batch.insert(key::change_of(company, change.revision), []);
        }
        self.changes.push(change);
    }

    /// Adds the write of a fact, with the fact's record.
    fn write(&mut self, write: FactWrite, record: &[u8], change: &Change) {
        let revision = change.revision;
        let FactWrite { key, before, after } = write;
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
                self.remove(FactKey::Secret(credential.company, secret.clone()), revision);
                self.remove(FactKey::SecretOwner(secret.clone()), revision);
            }
            self.add_tombstone(Tombstone::Credential(credential.company, credential.created_at));
        }
        if let (FactKey::Secret(_, id), None) = (&key, &after) {
            self.remove(FactKey::SecretOwner(id.clone()), revision);
        }
        let company = match &key {
            // A revocation of tokens changes neither the grants nor the state of the credential. The kind
            // decides: a store whose time was set back reads `before` otherwise than another one.
            FactKey::Credential(company, _) if !revokes_tokens(change.kind) => Some(*company),
            _ => None,
        };
        match after {
            Some(fact) => self.put(key, fact, record, revision),
            None => self.remove(key, revision),
        }
        if let Some(company) = company {
            let impact = Arc::new(ImpactRevision { company, revision });
            // Its record is empty.
            self.put(impact.key(), impact.into_fact(), &[], revision);
        }
    }

    fn add_tombstone(&mut self, tombstone: Tombstone) {
        self.batch.insert(key::tombstone(tombstone), []);
        self.tombstones.push(tombstone);
    }

    fn put(&mut self, key: FactKey, fact: Fact, record: &[u8], revision: Revision) {
        self.value(key.bytes(), revision, record);
        self.outcomes.insert(key.clone(), Outcome { key, since: revision, fact: Some(fact) });
    }

    fn remove(&mut self, key: FactKey, revision: Revision) {
        self.batch.remove(key.bytes());
        self.outcomes.insert(key.clone(), Outcome { key, since: revision, fact: None });
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

/// Whether a change of a credential revokes tokens. It changes nothing else then.
fn revokes_tokens(kind: ChangeKind) -> bool {
    matches!(kind, ChangeKind::RevokeToken | ChangeKind::RevokeTokens)
}
