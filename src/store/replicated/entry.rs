//! Entry: the changes of one commit, as the log has them: the facts after each change, the change for
//! the audit log, and the result of its request.
//!
//! Everything else follows from these, by the function that also adds the own changes of a store to a
//! batch: see `DecidedChange`. An entry is read as a whole: if anything of it cannot be read, nothing is.
//!
//! A change that is too large for an entry lies in parts. Its entry names them, and has no changes until
//! they are read.
//!
//! Not here: whether an entry is the next one; see [`LogPosition`](super::LogPosition).

use blake3::Hash;
use jiff::Timestamp;
use prost::Message;
use uuid::Uuid;

use super::entry_parts::EntryParts;
use super::{FORMAT, LogError, hash, proto, uuid};
use crate::policy::change::Change;
use crate::policy::revision::Revision;
use crate::store::batch_builder::BatchBuilder;
use crate::store::checksum::StoreChecksum;
use crate::store::decide::get;
use crate::store::decided_change::{DecidedChange, DecidedResult, DecidedWrite};
use crate::store::engine::{Engine, EngineError};
use crate::store::error::Corrupt;
use crate::store::record::{self, moment, stamp};
use crate::store::writer::BATCH;
use crate::store::{Fact, FactKey, FactWrite, Incarnation, RequestKey, chunked, key};

/// The limit of the bytes of an entry. etcd takes 1.5 MiB in a request.
pub const MAX_BYTES: usize = 1 << 20;
/// The first format whose entries have the checksum of the facts that they replaced.
pub(super) const REPLACED_FORMAT: u32 = 2;
/// The limit of changes in an entry.
const MAX_CHANGES: usize = BATCH;
/// The first format whose entries may have parts.
pub(super) const FORMAT_OF_PARTS: u32 = 2;

/// The changes of one commit.
#[derive(Debug)]
pub struct Entry {
    /// Its number. The first entry is 1.
    pub seq: u64,
    /// The revision of its first change. Each further change has the next revision.
    pub first_revision: Revision,
    /// The incarnation of the stores of all replicas.
    pub incarnation: Incarnation,
    /// The hash of the entry before.
    pub prev: Hash,
    /// A random id, by which the replica that wrote the entry knows it.
    pub id: Uuid,
    /// The time of the commit, by the clock of that replica.
    pub time: Timestamp,
    /// Its format, which says what it may have.
    pub format: u32,
    /// The checksum of the facts that the changes replaced at the replica that wrote the entry: of each
    /// fact that a change lists, its value directly before that change. Owners of secrets and authorization
    /// codes are left out, because garbage collection may have removed them at one replica and not yet at
    /// another. None in a format without it.
    pub(super) replaced: Option<StoreChecksum>,
    /// The changes, in order. There are none while the parts are not read.
    pub(super) changes: Vec<EntryChange>,
    /// The parts that have its only change, until they are read.
    pub(super) parts: Option<EntryParts>,
}

/// A change of an entry.
#[derive(Debug)]
pub(super) struct EntryChange {
    facts: Vec<EntryFact>,
    change: Change,
    record: Vec<u8>,
    /// The idempotency key of its request, and the record of the result.
    result: Option<(RequestKey, Vec<u8>)>,
}

/// A fact after a change.
#[derive(Debug)]
struct EntryFact {
    key: FactKey,
    /// The fact; `None` if the change removed it.
    fact: Option<Fact>,
    record: Vec<u8>,
}

impl Entry {
    /// Reads an entry.
    ///
    /// # Errors
    /// It has a later format, or it is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, LogError> {
        let damaged = LogError::Damaged("entry");
        if bytes.len() > MAX_BYTES {
            return Err(damaged);
        }
        // A format that is not known may have changed any other field.
        match proto::Entry::decode(bytes) {
            Ok(entry) if entry.format > FORMAT => Err(LogError::Format { needs: entry.format }),
            Ok(entry) if entry.format > 0 => {
                let format = entry.format;
                Self::read(entry).map_err(|Corrupt| LogError::Unreadable { format })
            }
            _ => Err(damaged),
        }
    }

    fn read(entry: proto::Entry) -> Result<Self, Corrupt> {
        let parts = entry.parts.as_ref().map(EntryParts::read).transpose()?;
        let count = entry.changes.len();
        let is_count = match parts {
            Some(_) => count == 0 && entry.format >= FORMAT_OF_PARTS,
            None => (1..=MAX_CHANGES).contains(&count),
        };
        if entry.seq == 0 || !is_count {
            return Err(Corrupt);
        }
        if parts.is_some() && !(1..Revision::NEXT.0).contains(&entry.first_revision) {
            return Err(Corrupt);
        }
        let mut revision = Revision(entry.first_revision);
        let mut changes = Vec::with_capacity(count);
        for change in entry.changes {
            if revision == Revision::ZERO || revision >= Revision::NEXT {
                return Err(Corrupt);
            }
            changes.push(EntryChange::read(change, revision)?);
            revision = revision.next();
        }
        Ok(Self {
            seq: entry.seq,
            first_revision: Revision(entry.first_revision),
            incarnation: uuid(&entry.incarnation)?,
            prev: hash(&entry.prev)?,
            id: uuid(&entry.id)?,
            time: moment(entry.time)?,
            format: entry.format,
            replaced: match (entry.format >= REPLACED_FORMAT, entry.replaced.as_slice()) {
                (false, []) => None,
                (false, _) => return Err(Corrupt),
                (true, bytes) => Some(StoreChecksum::from_bytes(bytes)?),
            },
            changes,
            parts,
        })
    }

    /// Moves its only change to parts. Returns their content, which depends neither on the revision of the
    /// change nor on its time, so that parts of a catalog are those of its next entry, too; none if the
    /// entry has not one change, or another time than it.
    pub fn move_to_parts(&mut self) -> Option<Vec<u8>> {
        let [change] = self.changes.as_slice() else { return None };
        if change.change.time != self.time {
            return None;
        }
        let mut message = change.message();
        message.change = record::encode_change(&without_time(change.change.clone()));
        message.facts.iter_mut().for_each(|fact| fact.since_revision = 0);
        let content = message.encode_to_vec();
        self.changes.clear();
        self.parts = Some(EntryParts::of(&content));
        Some(content)
    }

    /// The entry with the change that its parts have. `content` is that of the parts, whose hash is right.
    ///
    /// # Errors
    /// The change cannot be read.
    pub fn with_parts(mut self, content: &[u8]) -> Result<Self, LogError> {
        let format = self.format;
        let read = || {
            let mut message = proto::EntryChange::decode(content)?;
            let change = record::decode_change(self.first_revision, &message.change)?;
            if record::encode_change(&without_time(change.clone())) != message.change {
                return Err(Corrupt);
            }
            message.change = record::encode_change(&Change { time: self.time, ..change });
            for fact in &mut message.facts {
                if std::mem::replace(&mut fact.since_revision, self.first_revision.0) != 0 {
                    return Err(Corrupt);
                }
            }
            EntryChange::read(message, self.first_revision)
        };
        let change = read().map_err(|Corrupt| LogError::Unreadable { format })?;
        (self.changes, self.parts) = (vec![change], None);
        Ok(self)
    }

    /// The bytes of the entry in the log. The next entry has their BLAKE3 hash.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        proto::Entry {
            seq: self.seq,
            first_revision: self.first_revision.0,
            incarnation: self.incarnation.as_bytes().to_vec(),
            prev: self.prev.as_bytes().to_vec(),
            id: self.id.as_bytes().to_vec(),
            time: Some(stamp(self.time)),
            format: self.format,
            changes: self.changes.iter().map(EntryChange::message).collect(),
            replaced: self.replaced.map_or_else(Vec::new, |sum| sum.bytes().to_vec()),
            parts: self.parts.as_ref().map(EntryParts::message),
        }
        .encode_to_vec()
    }

    /// Adds the changes to a batch of a store that has applied the entry before. False: the facts that
    /// they replace here are not those that they replaced at the replica that wrote the entry.
    pub(in crate::store) fn add_to(
        self,
        builder: &mut BatchBuilder,
        engine: &dyn Engine,
    ) -> Result<bool, LogError> {
        let (log, store) = (self.first_revision, builder.head.next());
        if log != store {
            return Err(LogError::Revision { log, store });
        }
        if self.parts.is_some() {
            return Err(LogError::Unreadable { format: self.format });
        }
        let mut replaced = StoreChecksum::default();
        for change in self.changes {
            let decided = change.decided(builder, engine)?;
            replaced = replaced.plus(decided.replaced());
            builder.add(decided);
        }
        Ok(self.replaced.is_none_or(|at_writer| at_writer == replaced))
    }
}

impl EntryChange {
    /// The change as an entry has it.
    pub(super) fn of(decided: &DecidedChange) -> Self {
        let facts = decided.writes.iter().map(|DecidedWrite { write, record, .. }| EntryFact {
            key: write.key.clone(),
            fact: write.after.clone(),
            record: record.clone(),
        });
        Self {
            facts: facts.collect(),
            change: decided.change.clone(),
            record: decided.record.clone(),
            result: decided.result.as_ref().map(|result| (result.key, result.record.clone())),
        }
    }

    fn read(change: proto::EntryChange, revision: Revision) -> Result<Self, Corrupt> {
        let facts = change.facts.into_iter().map(|fact| EntryFact::read(fact, revision));
        let facts = facts.collect::<Result<_, Corrupt>>()?;
        let (record, result) = (change.change, change.result);
        let change = record::decode_change(revision, &record)?;
        // The store adds the chain. It must not add one to a record that has one, nor store a field
        // that this version does not know.
        if record::encode_change(&change) != record {
            return Err(Corrupt);
        }
        let result = result.map(|proto::EntryResult { request, record }| {
            record::decode_result(revision, &record)?;
            Ok::<_, Corrupt>((RequestKey(request.try_into().map_err(|_| Corrupt)?), record))
        });
        Ok(Self { facts, change, record, result: result.transpose()? })
    }

    /// The message of the change.
    pub(super) fn message(&self) -> proto::EntryChange {
        let since_revision = self.change.revision.0;
        let facts = self.facts.iter().map(|EntryFact { key, fact, record }| proto::EntryFact {
            key: key.bytes(),
            since_revision,
            record: fact.is_some().then(|| record.clone()),
        });
        let result = self.result.as_ref().map(|(key, record)| proto::EntryResult {
            request: key.0.to_vec(),
            record: record.clone(),
        });
        proto::EntryChange { facts: facts.collect(), change: self.record.clone(), result }
    }

    /// The change as it is added to this batch, with what it replaces in the store.
    fn decided(
        self,
        builder: &BatchBuilder,
        engine: &dyn Engine,
    ) -> Result<DecidedChange, EngineError> {
        let writes = self.facts.into_iter().map(|EntryFact { key, fact, record }| {
            let entry_key = key.bytes();
            let value = builder.value_of(engine, &entry_key)?;
            let before = builder.fact(engine, &key, value.as_deref())?;
            let replaced = builder.replaced(engine, &entry_key, value.as_deref())?;
            Ok(DecidedWrite { write: FactWrite { key, before, after: fact }, record, replaced })
        });
        let writes = writes.collect::<Result<_, EngineError>>()?;
        let result = self.result.map(|(key, record)| {
            let replaced = earlier_result(builder, engine, &key)?;
            Ok::<_, EngineError>(DecidedResult { key, record, replaced })
        });
        let result = result.transpose()?;
        Ok(DecidedChange { writes, change: self.change, record: self.record, result })
    }
}

impl EntryFact {
    fn read(fact: proto::EntryFact, revision: Revision) -> Result<Self, Corrupt> {
        let key = FactKey::from_bytes(&fact.key).ok_or(Corrupt)?;
        if fact.since_revision != revision.0 {
            return Err(Corrupt);
        }
        let record = fact.record;
        let fact = record.as_ref().map(|record| record::decode(&key, revision, record));
        Ok(Self { key, fact: fact.transpose()?, record: record.unwrap_or_default() })
    }
}

/// A change as parts have it.
fn without_time(change: Change) -> Change {
    Change { time: Timestamp::UNIX_EPOCH, ..change }
}

/// The keys of an earlier result of this request. The replica that wrote the entry has collected the
/// result after its time; this one may not have yet.
fn earlier_result(
    builder: &BatchBuilder,
    engine: &dyn Engine,
    request: &RequestKey,
) -> Result<Vec<Vec<u8>>, EngineError> {
    let value = builder.value_of(engine, &key::reply(request))?;
    let Some(value) = value else { return Ok(Vec::new()) };
    let (mut keys, revision) = (chunked::chunks(&value)?, chunked::revision(&value)?);
    if let Some(time) = time_of(builder, engine, revision)? {
        let millisecond = u64::try_from(time.as_millisecond()).unwrap_or(0);
        keys.push(key::reply_time(millisecond, request));
    }
    Ok(keys)
}

/// The time of an earlier change; `None` if the audit log no longer has the change.
fn time_of(
    builder: &BatchBuilder,
    engine: &dyn Engine,
    revision: Revision,
) -> Result<Option<Timestamp>, EngineError> {
    if let Some(pending) = builder.changes.iter().find(|change| change.revision == revision) {
        return Ok(Some(pending.time));
    }
    let Some(value) = get(engine, &key::change(revision))? else { return Ok(None) };
    let (_, record) = chunked::read(&value, engine)?.ok_or(Corrupt)?;
    Ok(Some(record::decode_change(revision, &record)?.time))
}
