//! Seen: when a credential was last asked for, in steps of minutes.
//!
//! Checks note it in memory; the store learns of it in the background, and a crash may forget
//! the last of it: it is for people who audit, and no decision rests on it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::policy::credential::Credential;
use crate::policy::revision::Revision;
use crate::store::{Minute, Store, StoreError};

const SHARDS: usize = 64;

/// How many places there are for what was noted just now.
const PLACES: usize = 1 << 16;
/// The bits of a place that hold a minute: enough until the year 2033, and then again.
const MINUTE_BITS: u32 = 25;

/// What was seen since it was last taken.
pub(super) struct LastUsed {
    /// Who was noted last in each place, and in which minute: that one need not be noted again.
    just_now: Vec<AtomicU64>,
    /// By a credential's created_at, which no two share.
    shards: Vec<Mutex<HashMap<Revision, Minute>>>,
}

impl LastUsed {
    pub(super) fn new() -> Self {
        Self {
            just_now: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    fn shard(&self, credential: Revision) -> Option<&Mutex<HashMap<Revision, Minute>>> {
        let place = credential.0 % SHARDS as u64;
        self.shards.get(usize::try_from(place).unwrap_or(0))
    }

    /// Notes that a credential was asked for now.
    pub(super) fn touch(&self, credential: Revision, now: Timestamp) {
        let minute = Minute::try_from(now.as_second() / 60).unwrap_or(0);
        let place = usize::try_from(credential.0).unwrap_or(0) % PLACES;
        let Some(just_now) = self.just_now.get(place) else { return };
        let noted = credential.0 << MINUTE_BITS | u64::from(minute) & ((1 << MINUTE_BITS) - 1);
        if just_now.load(Ordering::Relaxed) == noted {
            return;
        }
        just_now.store(noted, Ordering::Relaxed);
        let Some(shard) = self.shard(credential) else { return };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.entry(credential).and_modify(|last| *last = minute.max(*last)).or_insert(minute);
    }

    /// When a credential was last asked for, as far as it is still here.
    fn last(&self, credential: Revision) -> Option<Minute> {
        let shard = self.shard(credential)?.lock().unwrap_or_else(PoisonError::into_inner);
        shard.get(&credential).copied()
    }

    /// When a credential was last asked for: here, or as the store was told.
    pub(super) fn last_of(
        &self,
        store: &dyn Store,
        credential: &Credential,
    ) -> Result<Option<Timestamp>, StoreError> {
        self.last_since(store, credential.created_at, credential.create_time)
    }

    /// When what was made in this revision was last asked for. A minute is rounded down, and a
    /// clock may be brought back: never earlier than it was made.
    pub(super) fn last_since(
        &self,
        store: &dyn Store,
        created_at: Revision,
        create_time: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        let last = match self.last(created_at) {
            Some(minute) => Some(minute),
            None => store.last_seen(created_at)?,
        };
        Ok(last.and_then(time).map(|time| time.max(create_time)))
    }

    /// Takes everything, for the store. What is asked for meanwhile is noted anew. A later time
    /// than the one that is kept is doubted, and noted as that.
    pub(super) fn take(&self, kept: Timestamp) -> Vec<(Revision, Minute)> {
        let kept = Minute::try_from(kept.as_second() / 60).unwrap_or(Minute::MAX);
        let take = |shard: &Mutex<HashMap<_, _>>| {
            std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner))
        };
        self.shards.iter().flat_map(take).map(|(who, minute)| (who, minute.min(kept))).collect()
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
    fn what_is_seen_is_kept_by_the_minute_until_it_is_taken() {
        let seen = LastUsed::new();
        let at = |second| Timestamp::from_second(second).expect("a time");
        seen.touch(Revision(7), at(125));
        seen.touch(Revision(7), at(61));
        seen.touch(Revision(71), at(600));
        assert_eq!((seen.last(Revision(7)), seen.last(Revision(8))), (Some(2), None));
        let mut taken = seen.take(at(600));
        taken.sort_unstable();
        assert_eq!(taken, [(Revision(7), 2), (Revision(71), 10)]);
        assert_eq!(seen.last(Revision(7)), None);
        // Two in one place displace each other, and both are noted.
        for revision in [9, 9 + PLACES as u64, 9] {
            seen.touch(Revision(revision), at(900));
        }
        assert_eq!(
            seen.take(at(899)).iter().map(|(_, minute)| *minute).collect::<Vec<_>>(),
            [14; 2]
        );
    }
}
