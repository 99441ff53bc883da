//! Last used: when a credential or a key was last used, to the minute.
//!
//! Checks record uses in memory, and a background task writes them to the store. A crash may lose the
//! latest uses. They inform operators, and no decision depends on them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::policy::credential::Credential;
use crate::policy::revision::Revision;
use crate::store::{Minute, Store, StoreError};

const SHARDS: usize = 64;

/// How many slots remember the latest use.
const SLOTS: usize = 1 << 16;
/// The bits of a slot that hold a minute. They wrap in the year 2033, which is harmless.
const MINUTE_BITS: u32 = 25;

/// The uses since the last write to the store.
pub(super) struct LastUsed {
    /// The latest credential of each slot, with its minute. The same use need not be recorded again.
    latest: Vec<AtomicU64>,
    /// By the creation revision of a credential, which is unique.
    shards: Vec<Mutex<HashMap<Revision, Minute>>>,
}

impl LastUsed {
    pub(super) fn new() -> Self {
        Self {
            latest: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    fn shard(&self, credential: Revision) -> Option<&Mutex<HashMap<Revision, Minute>>> {
        let index = credential.0 % SHARDS as u64;
        self.shards.get(usize::try_from(index).unwrap_or(0))
    }

    /// Records that a credential is used now.
    pub(super) fn touch(&self, credential: Revision, now: Timestamp) {
        let minute = Minute::try_from(now.as_second() / 60).unwrap_or(0);
        let index = usize::try_from(credential.0).unwrap_or(0) % SLOTS;
        let Some(latest) = self.latest.get(index) else { return };
        let entry = credential.0 << MINUTE_BITS | u64::from(minute) & ((1 << MINUTE_BITS) - 1);
        if latest.load(Ordering::Relaxed) == entry {
            return;
        }
        latest.store(entry, Ordering::Relaxed);
        let Some(shard) = self.shard(credential) else { return };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.entry(credential).and_modify(|last| *last = minute.max(*last)).or_insert(minute);
    }

    /// When a credential was last used, if that is not in the store yet.
    fn last(&self, credential: Revision) -> Option<Minute> {
        let shard = self.shard(credential)?.lock().unwrap_or_else(PoisonError::into_inner);
        shard.get(&credential).copied()
    }

    /// When a credential was last used, from memory or from the store.
    pub(super) fn last_of(
        &self,
        store: &Store,
        credential: &Credential,
    ) -> Result<Option<Timestamp>, StoreError> {
        self.last_since(store, credential.created_at, credential.create_time)
    }

    /// When the credential or key of this creation revision was last used. It is never earlier than
    /// the creation, although a minute is rounded down and the clock may be set back.
    pub(super) fn last_since(
        &self,
        store: &Store,
        created_at: Revision,
        create_time: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        let last = match self.last(created_at) {
            Some(minute) if store.replica().is_none() => Some(minute),
            // Another replica may have told a later one.
            noted => noted.max(store.last_seen(created_at)?),
        };
        Ok(last.and_then(time).map(|time| time.max(create_time)))
    }

    /// Takes all uses, for the store. Later uses are recorded anew. A time after the persisted time is
    /// doubted, and is replaced by the persisted time.
    pub(super) fn take(&self, persisted: Timestamp) -> Vec<(Revision, Minute)> {
        let persisted = Minute::try_from(persisted.as_second() / 60).unwrap_or(Minute::MAX);
        let take = |shard: &Mutex<HashMap<_, _>>| {
            std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner))
        };
        self.shards
            .iter()
            .flat_map(take)
            .map(|(credential, minute)| (credential, minute.min(persisted)))
            .collect()
    }
}

/// A minute as a time.
fn time(minute: Minute) -> Option<Timestamp> {
    Timestamp::from_second(i64::from(minute) * 60).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_recorded_by_the_minute_until_they_are_taken() {
        let last_used = LastUsed::new();
        let at = |second| Timestamp::from_second(second).expect("a time");
        last_used.touch(Revision(7), at(125));
        last_used.touch(Revision(7), at(61));
        last_used.touch(Revision(71), at(600));
        assert_eq!((last_used.last(Revision(7)), last_used.last(Revision(8))), (Some(2), None));
        let mut taken = last_used.take(at(600));
        taken.sort_unstable();
        assert_eq!(taken, [(Revision(7), 2), (Revision(71), 10)]);
        assert_eq!(last_used.last(Revision(7)), None);
        // Two credentials of one slot displace each other, and both are recorded.
        for revision in [9, 9 + SLOTS as u64, 9] {
            last_used.touch(Revision(revision), at(900));
        }
        assert_eq!(
            last_used.take(at(899)).iter().map(|(_, minute)| *minute).collect::<Vec<_>>(),
            [14; 2]
        );
    }
}
