//! GarbageCollector: removes unreachable and expired data in small steps.
//!
//! It removes three kinds of data: keys of deleted companies, users and credentials; stored replies
//! after their time; changes after their retention. No answer depends on any of it, so no step is
//! flushed or announced. After a crash the step is done again.
//!
//! INVARIANT (removed as believed): retention follows the believed time. An expiry that was
//! reported while the machine's clock was doubted never counts.
//!
//! INVARIANT (no silent gap): a step that removes changes also moves the retention mark, in the
//! same batch. A reader that reads changes and then the mark knows whether some are missing.

use jiff::{SignedDuration, Timestamp};
use sled::{IVec, Tree};

use super::backup_feed::BackupFeeds;
use super::checksum::{StoreChecksum, WriteBatch};
use super::chunked;
use super::engine_error::{EngineError, unavailable};
use super::usage::SharedUsage;
use crate::policy::id::Name;
use crate::policy::revision::Revision;
use crate::store::key::Tombstone;
use crate::store::{Fact, FactKey, IDEMPOTENCY_TTL, StoreError, key, record};

/// The limit of keys that one step reads.
const STEP: usize = 500;

/// The data that is still to be removed.
pub(super) struct GarbageCollector {
    tombstones: Vec<Tombstone>,
    /// The position in the scan of consents for the last tombstone.
    scan_position: Option<IVec>,
    /// The retention of changes; `None` keeps them for ever.
    pub(super) audit_log_retention: Option<SignedDuration>,
    /// The change by which an operator last set the time back, and the time from which the store
    /// continued.
    pub(super) clock_accepted: Option<(Revision, Timestamp)>,
    /// A step failed; no more is done until the next start.
    failed: bool,
}

impl GarbageCollector {
    pub(super) fn of(tree: &Tree) -> Result<Self, EngineError> {
        let tombstones: Result<Vec<_>, EngineError> = tree
            .scan_prefix(key::all_tombstones())
            .keys()
            .map(|tree_key| key::tombstone_of(&tree_key?).ok_or(EngineError::Damage))
            .collect();
        let clock_accepted = clock_accepted(tree)?;
        let (tombstones, audit_log_retention, failed) = (tombstones?, None, false);
        Ok(Self { tombstones, scan_position: None, audit_log_retention, clock_accepted, failed })
    }

    /// Adds tombstones whose deletion is durable.
    pub(super) fn add(&mut self, tombstones: Vec<Tombstone>) {
        // The tombstone in progress is the last one and must stay last.
        self.tombstones.splice(0..0, tombstones);
    }

    /// Does one step, with the believed time and the durable time mark. Returns whether there may
    /// be more to do at once.
    pub(super) fn step(
        &mut self,
        tree: &Tree,
        (checksum, usage): (&mut StoreChecksum, &SharedUsage),
        feeds: &mut BackupFeeds,
        times: (Timestamp, Timestamp),
        head: Revision,
    ) -> bool {
        if self.failed {
            return false;
        }
        self.try_step(tree, (checksum, usage), feeds, times, head).unwrap_or_else(|error| {
            tracing::warn!(%error, "garbage collection failed; it is tried again at the next start");
            self.failed = true;
            false
        })
    }

    fn try_step(
        &mut self,
        tree: &Tree,
        (checksum, usage): (&mut StoreChecksum, &SharedUsage),
        feeds: &mut BackupFeeds,
        (now, mark): (Timestamp, Timestamp),
        head: Revision,
    ) -> Result<bool, StoreError> {
        let mut batch = WriteBatch::default();
        let more = match self.tombstones.last().copied() {
            Some(tombstone) => {
                if self.collect(tombstone, tree, &mut batch)? {
                    batch.remove(key::tombstone(tombstone));
                    self.tombstones.pop();
                    self.scan_position = None;
                }
                true
            }
            None => {
                let expired = expire_requests(tree, (now, mark), self.clock_accepted, &mut batch)?;
                let compacted = self.compact_log(tree, now, head, &mut batch)?;
                if expired + compacted == 0 {
                    return Ok(false);
                }
                true
            }
        };
        batch.apply_counted(tree, checksum, usage)?;
        feeds.send(batch);
        Ok(more)
    }

    /// Removes some keys of a tombstone, and returns whether these were the last.
    fn collect(
        &mut self,
        tombstone: Tombstone,
        tree: &Tree,
        batch: &mut WriteBatch,
    ) -> Result<bool, StoreError> {
        let (company, prefixes) = match tombstone {
            Tombstone::Credential(company, created_at) => {
                return self.collect_consents(company, created_at, tree, batch);
            }
            Tombstone::User(company, user) => (None, vec![key::consents_of(company, user)]),
            Tombstone::Company(company) => {
                let (credentials, users) = (key::credentials(company), key::users(company));
                let (credentials, users) = (credentials.bytes().to_vec(), users.bytes().to_vec());
                let (consents, secrets) = (key::consents(company), key::secrets(company));
                let holders = key::all_holders(company);
                (Some(company), vec![credentials, users, consents, secrets, holders])
            }
        };
        let mut remaining = STEP;
        for prefix in prefixes {
            for entry in tree.scan_prefix(prefix).take(remaining) {
                let (tree_key, value) = entry.map_err(|error| unavailable(&error))?;
                if let Some((company, secret)) = key::secret_of(&tree_key) {
                    remove_owner(tree, company, secret, batch)?;
                }
                remove(batch, tree_key, &value)?;
                remaining -= 1;
            }
        }
        if remaining > 0
            && let Some(company) = company
        {
            batch.remove(key::fact(&FactKey::Impact(company)));
        }
        Ok(remaining > 0)
    }

    /// The keys of consents begin with the user, so the consents of one credential are found by a
    /// scan.
    fn collect_consents(
        &mut self,
        company: Revision,
        credential: Revision,
        tree: &Tree,
        batch: &mut WriteBatch,
    ) -> Result<bool, StoreError> {
        let prefix = key::consents(company);
        let start = self.scan_position.take().unwrap_or_else(|| IVec::from(prefix.clone()));
        let mut scanned = 0;
        for entry in tree.range(start..).take(STEP) {
            let (tree_key, value) = entry.map_err(|error| unavailable(&error))?;
            if !tree_key.starts_with(&prefix) {
                return Ok(true);
            }
            scanned += 1;
            self.scan_position = Some(tree_key.clone());
            if key::revision_at_end(&tree_key) == Some(credential) {
                remove(batch, tree_key, &value)?;
            }
        }
        Ok(scanned < STEP)
    }

    /// Removes some changes after their retention. The last change stays: it marks the end of the
    /// log.
    fn compact_log(
        &self,
        tree: &Tree,
        now: Timestamp,
        head: Revision,
        batch: &mut WriteBatch,
    ) -> Result<usize, StoreError> {
        let Some(keep) = self.audit_log_retention else { return Ok(0) };
        let oldest = now.saturating_sub(keep).unwrap_or(Timestamp::MIN);
        let mut compacted = 0;
        for entry in tree.scan_prefix(key::changes()).take(STEP) {
            let (tree_key, stored) = entry.map_err(|error| unavailable(&error))?;
            let revision = key::revision_at_end(&tree_key).ok_or(StoreError::Damaged)?;
            let (_, bytes) = chunked::read(&stored, tree)?.ok_or(StoreError::Damaged)?;
            let change = record::decode_change(revision, &bytes)?;
            // A change from before an operator set the time back counts as made no later than that.
            let accepted = self.clock_accepted.filter(|(at, _)| revision < *at);
            let time = accepted.map_or(change.time, |(_, time)| change.time.min(time));
            if revision == head || time >= oldest {
                break;
            }
            remove(batch, tree_key, &stored)?;
            if let Some(company) = &change.company {
                batch.remove(key::change_of(company, revision));
            }
            batch.insert(key::COMPACTED, revision.0.to_be_bytes());
            compacted += 1;
        }
        Ok(compacted)
    }
}

/// Removes some stored replies after their time.
fn expire_requests(
    tree: &Tree,
    (now, mark): (Timestamp, Timestamp),
    clock_accepted: Option<(Revision, Timestamp)>,
    batch: &mut WriteBatch,
) -> Result<usize, StoreError> {
    let oldest = now.saturating_sub(IDEMPOTENCY_TTL).unwrap_or(Timestamp::MIN);
    // After an operator set the time back, no new time is later than the mark. A later one is from
    // before that.
    let is_expired = clock_accepted.is_some_and(|(_, accepted)| accepted < oldest);
    let scan = tree.scan_prefix(key::all_reply_times()).take(STEP);
    let mut expired = expire_while(tree, scan, |at| at < oldest.as_millisecond(), batch)?;
    if is_expired {
        let scan = tree.scan_prefix(key::all_reply_times()).rev().take(STEP);
        expired += expire_while(tree, scan, |at| at > mark.as_millisecond(), batch)?;
    }
    Ok(expired)
}

/// Removes stored replies in this order, up to the first that has not expired.
fn expire_while(
    tree: &Tree,
    entries: impl Iterator<Item = sled::Result<(IVec, IVec)>>,
    is_expired: impl Fn(i64) -> bool,
    batch: &mut WriteBatch,
) -> Result<usize, StoreError> {
    let mut expired = 0;
    for entry in entries {
        let (tree_key, _) = entry.map_err(|error| unavailable(&error))?;
        let (millisecond, request) = key::reply_time_of(&tree_key).ok_or(StoreError::Damaged)?;
        if !is_expired(i64::try_from(millisecond).unwrap_or(i64::MAX)) {
            break;
        }
        let reply_key = key::reply(&request);
        if let Some(value) = tree.get(&reply_key).map_err(|error| unavailable(&error))? {
            remove(batch, reply_key.into(), &value)?;
        }
        batch.remove(&*tree_key);
        expired += 1;
    }
    Ok(expired)
}

/// The change by which an operator last set the time back, and the time from which the store
/// continued.
pub(super) fn clock_accepted(tree: &Tree) -> Result<Option<(Revision, Timestamp)>, EngineError> {
    let Some(bytes) = tree.get(key::CLOCK_ACCEPTED)? else { return Ok(None) };
    let read = || {
        let (revision, time) = bytes.split_first_chunk::<8>()?;
        let time = i64::from_be_bytes(time.try_into().ok()?);
        let revision = Revision(u64::from_be_bytes(*revision));
        Some((revision, Timestamp::from_millisecond(time).ok()?))
    };
    read().map(Some).ok_or(EngineError::Damage)
}

/// Removes the index entry of a secret, if it belongs to this company.
fn remove_owner(
    tree: &Tree,
    company: Revision,
    secret: Name,
    batch: &mut WriteBatch,
) -> Result<(), StoreError> {
    let key = FactKey::SecretOwner(secret);
    let tree_key = key::fact(&key);
    let Some(stored) = tree.get(&tree_key).map_err(|error| unavailable(&error))? else {
        return Ok(());
    };
    let (revision, bytes) = chunked::read(&stored, tree)?.ok_or(StoreError::Damaged)?;
    match record::decode(&key, revision, &bytes)? {
        Fact::SecretOwner(owner) if owner.company_created_at == company => {
            remove(batch, tree_key.into(), &stored)
        }
        _ => Ok(()),
    }
}

/// Removes a key with its value and the value's chunks.
fn remove(batch: &mut WriteBatch, tree_key: IVec, value: &[u8]) -> Result<(), StoreError> {
    // An index entry has no value.
    if !value.is_empty() {
        chunked::chunks(value)?.into_iter().for_each(|part| batch.remove(part));
    }
    batch.remove(&*tree_key);
    Ok(())
}
