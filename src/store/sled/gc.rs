//! Sweep: removes, a little at a time, what nobody can reach or what has been kept long enough.
//!
//! Three things: what deleted companies, users and credentials left under their births; requests
//! that were remembered for their time; changes older than their retention. None of it is a fact
//! that an answer could rest on, so no step is flushed or announced: after a crash it is done
//! again.
//!
//! INVARIANT (believed): what is kept for a time is removed by the time that is believed, which is
//! never an end that was told while the machine's clock was doubted.
//!
//! INVARIANT (no silent gap): the step that removes changes also moves the mark up to which they
//! are gone, in one batch. Whoever reads changes and then the mark knows if some were missing.

use jiff::{SignedDuration, Timestamp};
use sled::{IVec, Tree};

use super::backup_feed::BackupFeeds;
use super::checksum::{StoreChecksum, WriteBatch};
use super::chunked;
use super::engine_error::{EngineError, unavailable};
use super::usage::SharedUsage;
use crate::policy::id::Name;
use crate::policy::revision::Revision;
use crate::store::key::Dead;
use crate::store::{Fact, FactKey, IDEMPOTENCY_TTL, StoreError, key, record};

/// The most keys that one step looks at.
const STEP: usize = 500;

/// What is still to be removed.
pub(super) struct GarbageCollector {
    dead: Vec<Dead>,
    /// How far the consents of the last of the dead have been looked through.
    looked_at: Option<IVec>,
    /// How long changes are kept; none: for ever.
    pub(super) audit_log_retention: Option<SignedDuration>,
    /// The change by which an operator last brought time back, and the time from then on.
    pub(super) clock_accepted: Option<(Revision, Timestamp)>,
    /// It failed, and is left alone until the next start.
    failed: bool,
}

impl GarbageCollector {
    pub(super) fn of(tree: &Tree) -> Result<Self, EngineError> {
        let dead: Result<Vec<_>, EngineError> = tree
            .scan_prefix(key::all_dead())
            .keys()
            .map(|place| key::dead_of(&place?).ok_or(EngineError::Damage))
            .collect();
        let clock_accepted = clock_accepted(tree)?;
        let (dead, audit_log_retention, failed) = (dead?, None, false);
        Ok(Self { dead, looked_at: None, audit_log_retention, clock_accepted, failed })
    }

    /// These were deleted, and that is durable.
    pub(super) fn add(&mut self, dead: Vec<Dead>) {
        // Behind the one that is being swept: its place is the last.
        self.dead.splice(0..0, dead);
    }

    /// Does a step at the time that is believed, with the mark that is on the disk; says whether
    /// there may be more to do at once.
    pub(super) fn step(
        &mut self,
        tree: &Tree,
        (tally, usage): (&mut StoreChecksum, &SharedUsage),
        taps: &mut BackupFeeds,
        times: (Timestamp, Timestamp),
        head: Revision,
    ) -> bool {
        if self.failed {
            return false;
        }
        self.try_step(tree, (tally, usage), taps, times, head).unwrap_or_else(|error| {
            tracing::warn!(%error, "sweeping failed; it is tried again at the next start");
            self.failed = true;
            false
        })
    }

    fn try_step(
        &mut self,
        tree: &Tree,
        (tally, usage): (&mut StoreChecksum, &SharedUsage),
        taps: &mut BackupFeeds,
        (now, mark): (Timestamp, Timestamp),
        head: Revision,
    ) -> Result<bool, StoreError> {
        let mut batch = WriteBatch::default();
        let more = match self.dead.last().copied() {
            Some(dead) => {
                if self.collect(dead, tree, &mut batch)? {
                    batch.remove(key::dead(dead));
                    self.dead.pop();
                    self.looked_at = None;
                }
                true
            }
            None => {
                let forgotten =
                    expire_requests(tree, (now, mark), self.clock_accepted, &mut batch)?;
                let trimmed = self.compact_log(tree, now, head, &mut batch)?;
                if forgotten + trimmed == 0 {
                    return Ok(false);
                }
                true
            }
        };
        batch.apply_counted(tree, tally, usage)?;
        taps.hand_over(batch);
        Ok(more)
    }

    /// Removes some of what someone left, and says whether that was the last of it.
    fn collect(
        &mut self,
        dead: Dead,
        tree: &Tree,
        batch: &mut WriteBatch,
    ) -> Result<bool, StoreError> {
        let (company, prefixes) = match dead {
            Dead::Credential(company, birth) => {
                return self.bury_consents(company, birth, tree, batch);
            }
            Dead::User(company, user) => (None, vec![key::consents_of(company, user)]),
            Dead::Company(company) => {
                let (credentials, users) = (key::credentials(company), key::users(company));
                let (credentials, users) = (credentials.bytes().to_vec(), users.bytes().to_vec());
                let (consents, secrets) = (key::consents(company), key::secrets(company));
                let holders = key::all_holders(company);
                (Some(company), vec![credentials, users, consents, secrets, holders])
            }
        };
        let mut left = STEP;
        for prefix in prefixes {
            for entry in tree.scan_prefix(prefix).take(left) {
                let (place, value) = entry.map_err(|error| unavailable(&error))?;
                if let Some((company, secret)) = key::secret_of(&place) {
                    remove_owner(tree, company, secret, batch)?;
                }
                remove(batch, place, &value)?;
                left -= 1;
            }
        }
        if left > 0
            && let Some(company) = company
        {
            batch.remove(key::fact(&FactKey::Impact(company)));
        }
        Ok(left > 0)
    }

    /// Consents lie under their users: those of one credential have to be looked for.
    fn bury_consents(
        &mut self,
        company: Revision,
        credential: Revision,
        tree: &Tree,
        batch: &mut WriteBatch,
    ) -> Result<bool, StoreError> {
        let prefix = key::consents(company);
        let start = self.looked_at.take().unwrap_or_else(|| IVec::from(prefix.clone()));
        let mut looked = 0;
        for entry in tree.range(start..).take(STEP) {
            let (place, value) = entry.map_err(|error| unavailable(&error))?;
            if !place.starts_with(&prefix) {
                return Ok(true);
            }
            looked += 1;
            self.looked_at = Some(place.clone());
            if key::revision_at_end(&place) == Some(credential) {
                remove(batch, place, &value)?;
            }
        }
        Ok(looked < STEP)
    }

    /// Removes some of the changes that have been kept long enough. The last change stays: it
    /// says where the log ends.
    fn compact_log(
        &self,
        tree: &Tree,
        now: Timestamp,
        head: Revision,
        batch: &mut WriteBatch,
    ) -> Result<usize, StoreError> {
        let Some(keep) = self.audit_log_retention else { return Ok(0) };
        let oldest = now.saturating_sub(keep).unwrap_or(Timestamp::MIN);
        let mut trimmed = 0;
        for entry in tree.scan_prefix(key::changes()).take(STEP) {
            let (place, stored) = entry.map_err(|error| unavailable(&error))?;
            let revision = key::revision_at_end(&place).ok_or(StoreError::Damaged)?;
            let (_, bytes) = chunked::read(&stored, tree)?.ok_or(StoreError::Damaged)?;
            let change = record::decode_change(revision, &bytes)?;
            // One of before an operator brought time back was made no later than that.
            let accepted = self.clock_accepted.filter(|(at, _)| revision < *at);
            let time = accepted.map_or(change.time, |(_, time)| change.time.min(time));
            if revision == head || time >= oldest {
                break;
            }
            remove(batch, place, &stored)?;
            if let Some(company) = &change.company {
                batch.remove(key::change_of(company, revision));
            }
            batch.insert(key::TRIMMED, revision.0.to_be_bytes());
            trimmed += 1;
        }
        Ok(trimmed)
    }
}

/// Forgets some of the requests that have been remembered for their time.
fn expire_requests(
    tree: &Tree,
    (now, mark): (Timestamp, Timestamp),
    clock_accepted: Option<(Revision, Timestamp)>,
    batch: &mut WriteBatch,
) -> Result<usize, StoreError> {
    let oldest = now.saturating_sub(IDEMPOTENCY_TTL).unwrap_or(Timestamp::MIN);
    // No time since an operator brought time back is later than the mark: what is, is from before
    // that.
    let is_over = clock_accepted.is_some_and(|(_, accepted)| accepted < oldest);
    let scan = tree.scan_prefix(key::all_answered_at()).take(STEP);
    let mut forgotten = forget_while(tree, scan, |at| at < oldest.as_millisecond(), batch)?;
    if is_over {
        let scan = tree.scan_prefix(key::all_answered_at()).rev().take(STEP);
        forgotten += forget_while(tree, scan, |at| at > mark.as_millisecond(), batch)?;
    }
    Ok(forgotten)
}

/// Forgets requests in this order, up to the first that is to be remembered.
fn forget_while(
    tree: &Tree,
    entries: impl Iterator<Item = sled::Result<(IVec, IVec)>>,
    is_over: impl Fn(i64) -> bool,
    batch: &mut WriteBatch,
) -> Result<usize, StoreError> {
    let mut forgotten = 0;
    for entry in entries {
        let (place, _) = entry.map_err(|error| unavailable(&error))?;
        let (millisecond, request) = key::answered_of(&place).ok_or(StoreError::Damaged)?;
        if !is_over(i64::try_from(millisecond).unwrap_or(i64::MAX)) {
            break;
        }
        let answered = key::answered(&request);
        if let Some(value) = tree.get(&answered).map_err(|error| unavailable(&error))? {
            remove(batch, answered.into(), &value)?;
        }
        batch.remove(&*place);
        forgotten += 1;
    }
    Ok(forgotten)
}

/// The change by which an operator last brought time back, and the time from then on.
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

/// Removes the index entry of a secret, if it is the one of this company.
fn remove_owner(
    tree: &Tree,
    company: Revision,
    secret: Name,
    batch: &mut WriteBatch,
) -> Result<(), StoreError> {
    let key = FactKey::SecretOwner(secret);
    let place = key::fact(&key);
    let Some(stored) = tree.get(&place).map_err(|error| unavailable(&error))? else {
        return Ok(());
    };
    let (revision, bytes) = chunked::read(&stored, tree)?.ok_or(StoreError::Damaged)?;
    match record::decode(&key, revision, &bytes)? {
        Fact::SecretOwner(owner) if owner.company_created_at == company => {
            remove(batch, place.into(), &stored)
        }
        _ => Ok(()),
    }
}

/// Removes a key with its value, and the value's parts.
fn remove(batch: &mut WriteBatch, place: IVec, value: &[u8]) -> Result<(), StoreError> {
    // What is only a mark has no value.
    if !value.is_empty() {
        chunked::chunks(value)?.into_iter().for_each(|part| batch.remove(part));
    }
    batch.remove(&*place);
    Ok(())
}
