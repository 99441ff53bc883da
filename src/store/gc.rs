//! GarbageCollector: removes unreachable and expired data in small steps.
//!
//! It removes four kinds of data: keys of deleted companies, users and credentials; stored results
//! after their time; authorization codes, when no token lives that they were redeemed for; changes
//! after their retention. No answer depends on any of it, so no step is
//! flushed or announced. After a crash the step is done again.
//!
//! INVARIANT (removed as believed): retention follows the believed time. An expiry that was
//! reported while the machine's clock was doubted never counts.
//!
//! INVARIANT (no silent gap): a step that removes changes also moves the retention mark, in the
//! same batch. A reader that reads changes and then the mark knows whether some are missing.

use std::ops::Bound;

use super::engine::{Engine, EngineError, Entry, WriteBatch};
use super::key::Tombstone;
use super::{Fact, FactKey, IDEMPOTENCY_TTL, chunked, key, record};
use crate::policy::id::Name;
use crate::policy::revision::Revision;
use crate::policy::token::authorization_code::{LIFETIME, is_forgotten};
use jiff::{SignedDuration, Timestamp};

/// The limit of keys that one step reads.
const STEP: usize = 500;

/// The data that is still to be removed.
pub(super) struct GarbageCollector {
    tombstones: Vec<Tombstone>,
    /// The position in the scan of consents for the last tombstone.
    scan_position: Option<Vec<u8>>,
    /// The retention of changes; `None` keeps them for ever.
    pub(super) audit_log_retention: Option<SignedDuration>,
    /// The change by which an operator last set the time back, and the time from which the store
    /// continued.
    pub(super) clock_accepted: Option<(Revision, Timestamp)>,
    /// A step failed; no more is done until the next start.
    failed: bool,
}

impl GarbageCollector {
    pub(super) fn of(engine: &dyn Engine) -> Result<Self, EngineError> {
        let tombstones: Result<Vec<_>, EngineError> = engine
            .scan(&key::all_tombstones())
            .map(|entry| key::tombstone_of(&entry?.0).ok_or(EngineError::Damaged))
            .collect();
        let clock_accepted = clock_accepted(engine)?;
        let (tombstones, audit_log_retention, failed) = (tombstones?, None, false);
        Ok(Self { tombstones, scan_position: None, audit_log_retention, clock_accepted, failed })
    }

    /// Adds tombstones whose deletion is durable.
    pub(super) fn add(&mut self, tombstones: Vec<Tombstone>) {
        // The tombstone in progress is the last one and must stay last.
        self.tombstones.splice(0..0, tombstones);
    }

    /// Whether all keys of deleted companies, users and credentials are removed.
    pub(super) fn has_no_tombstone(&self) -> bool {
        self.tombstones.is_empty()
    }

    /// The removals of the next step, with the believed time and the durable time mark; `None` if
    /// there is nothing to do now. The batch must be applied before the next step.
    pub(super) fn step(
        &mut self,
        engine: &dyn Engine,
        times: (Timestamp, Timestamp),
        head: Revision,
    ) -> Result<Option<WriteBatch>, EngineError> {
        if self.failed {
            return Ok(None);
        }
        self.try_step(engine, times, head).or_else(|error| match error {
            EngineError::Panicked(_) => Err(error),
            error => {
                tracing::warn!(%error, "garbage collection failed; it is tried again at the next start");
                self.failed = true;
                Ok(None)
            }
        })
    }

    fn try_step(
        &mut self,
        engine: &dyn Engine,
        times: (Timestamp, Timestamp),
        head: Revision,
    ) -> Result<Option<WriteBatch>, EngineError> {
        let (now, _) = times;
        let mut batch = WriteBatch::default();
        let Some(tombstone) = self.tombstones.last().copied() else {
            let expired = expire_requests(engine, times, self.clock_accepted, &mut batch)?;
            let expired = expired + expire_codes(engine, times, self.clock_accepted, &mut batch)?;
            let compacted = self.compact_log(engine, now, head, &mut batch)?;
            return Ok((expired + compacted > 0).then_some(batch));
        };
        if self.collect(tombstone, engine, &mut batch)? {
            batch.remove(key::tombstone(tombstone));
            self.tombstones.pop();
            self.scan_position = None;
        }
        Ok(Some(batch))
    }

    /// Removes some keys of a tombstone, and returns whether these were the last.
    fn collect(
        &mut self,
        tombstone: Tombstone,
        engine: &dyn Engine,
        batch: &mut WriteBatch,
    ) -> Result<bool, EngineError> {
        let (company, prefixes) = match tombstone {
            Tombstone::Credential(company, created_at) => {
                return self.collect_consents(company, created_at, engine, batch);
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
            for entry in engine.scan(&prefix).take(remaining) {
                let (entry_key, value) = entry?;
                if let Some((company, secret)) = key::secret_of(&entry_key) {
                    remove_owner(engine, company, secret, batch)?;
                }
                remove(batch, entry_key, &value)?;
                remaining -= 1;
            }
        }
        if remaining > 0
            && let Some(company) = company
        {
            batch.remove(FactKey::Impact(company).bytes());
        }
        Ok(remaining > 0)
    }

    /// The keys of consents begin with the user, so the consents of one credential are found by a
    /// scan.
    fn collect_consents(
        &mut self,
        company: Revision,
        credential: Revision,
        engine: &dyn Engine,
        batch: &mut WriteBatch,
    ) -> Result<bool, EngineError> {
        let prefix = key::consents(company);
        let start = self.scan_position.take().unwrap_or_else(|| prefix.clone());
        let mut scanned = 0;
        for entry in engine.range(Bound::Included(&start), Bound::Unbounded).take(STEP) {
            let (entry_key, value) = entry?;
            if !entry_key.starts_with(&prefix) {
                return Ok(true);
            }
            scanned += 1;
            self.scan_position = Some(entry_key.clone());
            if key::revision_at_end(&entry_key) == Some(credential) {
                remove(batch, entry_key, &value)?;
            }
        }
        Ok(scanned < STEP)
    }

    /// Removes some changes after their retention. The last change stays: it marks the end of the
    /// log.
    fn compact_log(
        &self,
        engine: &dyn Engine,
        now: Timestamp,
        head: Revision,
        batch: &mut WriteBatch,
    ) -> Result<usize, EngineError> {
        let Some(keep) = self.audit_log_retention else { return Ok(0) };
        let oldest = now.saturating_sub(keep).unwrap_or(Timestamp::MIN);
        let mut compacted = 0;
        for entry in engine.scan(&key::changes()).take(STEP) {
            let (entry_key, stored) = entry?;
            let revision = key::revision_at_end(&entry_key).ok_or(EngineError::Damaged)?;
            let (_, bytes) = chunked::read(&stored, engine)?.ok_or(EngineError::Damaged)?;
            let change = record::decode_change(revision, &bytes)?;
            // A change from before an operator set the time back counts as made no later than that.
            let accepted = self.clock_accepted.filter(|(at, _)| revision < *at);
            let time = accepted.map_or(change.time, |(_, time)| change.time.min(time));
            if revision == head || time >= oldest {
                break;
            }
            remove(batch, entry_key, &stored)?;
            if let Some(company) = &change.company {
                batch.remove(key::change_of(company, revision));
            }
            batch.insert(key::COMPACTED, revision.0.to_be_bytes());
            compacted += 1;
        }
        Ok(compacted)
    }
}

/// Removes some stored results after their time.
fn expire_requests(
    engine: &dyn Engine,
    (now, mark): (Timestamp, Timestamp),
    clock_accepted: Option<(Revision, Timestamp)>,
    batch: &mut WriteBatch,
) -> Result<usize, EngineError> {
    let oldest = now.saturating_sub(IDEMPOTENCY_TTL).unwrap_or(Timestamp::MIN);
    // After an operator set the time back, no new time is later than the mark. A later one is from
    // before that.
    let is_expired = clock_accepted.is_some_and(|(_, accepted)| accepted < oldest);
    let scan = engine.scan(&key::all_reply_times()).take(STEP);
    let mut expired = expire_while(engine, scan, |at| at < oldest.as_millisecond(), batch)?;
    if is_expired {
        let scan = engine.scan(&key::all_reply_times()).rev().take(STEP);
        expired += expire_while(engine, scan, |at| at > mark.as_millisecond(), batch)?;
    }
    Ok(expired)
}

/// Removes some authorization codes that nothing can need any more.
fn expire_codes(
    engine: &dyn Engine,
    (now, mark): (Timestamp, Timestamp),
    clock_accepted: Option<(Revision, Timestamp)>,
    batch: &mut WriteBatch,
) -> Result<usize, EngineError> {
    let prefix = key::authorization_codes();
    let scan = engine.scan(&prefix).take(STEP);
    let mut expired = remove_codes(scan, |expiry| is_forgotten(expiry, now), batch)?;
    // From before an operator set the time back: all codes ended then (T27).
    if let Some((accepted, _)) = clock_accepted {
        let latest = mark.as_second().saturating_add(LIFETIME);
        for entry in engine.scan(&prefix).rev().take(STEP) {
            let (entry_key, value) = entry?;
            if key::expiry_of_code(&entry_key).ok_or(EngineError::Damaged)? <= latest {
                break;
            }
            // A later one is of a clock that is ahead of the mark.
            if chunked::revision(&value)? < accepted {
                remove(batch, entry_key, &value)?;
                expired += 1;
            }
        }
    }
    Ok(expired)
}

/// Removes authorization codes in this order, up to the first that is still needed.
fn remove_codes(
    entries: impl Iterator<Item = Result<Entry, EngineError>>,
    is_expired: impl Fn(i64) -> bool,
    batch: &mut WriteBatch,
) -> Result<usize, EngineError> {
    let mut removed = 0;
    for entry in entries {
        let (entry_key, value) = entry?;
        if !is_expired(key::expiry_of_code(&entry_key).ok_or(EngineError::Damaged)?) {
            break;
        }
        remove(batch, entry_key, &value)?;
        removed += 1;
    }
    Ok(removed)
}

/// Removes stored results in this order, up to the first that has not expired.
fn expire_while(
    engine: &dyn Engine,
    entries: impl Iterator<Item = Result<Entry, EngineError>>,
    is_expired: impl Fn(i64) -> bool,
    batch: &mut WriteBatch,
) -> Result<usize, EngineError> {
    let mut expired = 0;
    for entry in entries {
        let (entry_key, _) = entry?;
        let (millisecond, request) = key::reply_time_of(&entry_key).ok_or(EngineError::Damaged)?;
        if !is_expired(i64::try_from(millisecond).unwrap_or(i64::MAX)) {
            break;
        }
        let reply_key = key::reply(&request);
        if let Some(value) = engine.get(&reply_key)? {
            remove(batch, reply_key, &value)?;
        }
        batch.remove(entry_key);
        expired += 1;
    }
    Ok(expired)
}

/// The change by which an operator last set the time back, and the time from which the store
/// continued.
pub(super) fn clock_accepted(
    engine: &dyn Engine,
) -> Result<Option<(Revision, Timestamp)>, EngineError> {
    let Some(bytes) = engine.get(key::CLOCK_ACCEPTED)? else { return Ok(None) };
    let read = || {
        let (revision, time) = bytes.split_first_chunk::<8>()?;
        let time = i64::from_be_bytes(time.try_into().ok()?);
        let revision = Revision(u64::from_be_bytes(*revision));
        Some((revision, Timestamp::from_millisecond(time).ok()?))
    };
    read().map(Some).ok_or(EngineError::Damaged)
}

/// Removes the index entry of a secret, if it belongs to this company.
fn remove_owner(
    engine: &dyn Engine,
    company: Revision,
    secret: Name,
    batch: &mut WriteBatch,
) -> Result<(), EngineError> {
    let key = FactKey::SecretOwner(secret);
    let entry_key = key.bytes();
    let Some(stored) = engine.get(&entry_key)? else {
        return Ok(());
    };
    let (revision, bytes) = chunked::read(&stored, engine)?.ok_or(EngineError::Damaged)?;
    match record::decode(&key, revision, &bytes)? {
        Fact::SecretOwner(owner) if owner.company_created_at == company => {
            remove(batch, entry_key, &stored)
        }
        _ => Ok(()),
    }
}

/// Removes a key with its value and the value's chunks.
fn remove(batch: &mut WriteBatch, entry_key: Vec<u8>, value: &[u8]) -> Result<(), EngineError> {
    // An index entry has no value.
    if !value.is_empty() {
        chunked::chunks(value)?.into_iter().for_each(|part| batch.remove(part));
    }
    batch.remove(entry_key);
    Ok(())
}
