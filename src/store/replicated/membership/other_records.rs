//! OtherRecords: the records of other sessions, and since when each has its present bytes.
//!
//! A record is live if it is not fenced, and its bytes are younger than the time after which any
//! replica may delete it. A replica whose clock is behind that of a live record would allow what has expired
//! there (D19), so it does not join.
//!
//! Not here: who deletes a record.

use std::collections::HashMap;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::super::etcd::Pair;
use super::super::member_record::MemberRecord;
use super::super::members_view::lapse_time;
use super::nanoseconds;
use crate::policy::id::Name;

/// How far the clock of a replica that joins may be behind that of a live record.
const MAX_BEHIND: SignedDuration = SignedDuration::from_secs(5);

/// The records of other sessions.
#[derive(Debug, Default)]
pub(super) struct OtherRecords {
    /// By key: the bytes, and the time of the boot clock when they were seen first.
    records: HashMap<String, (Bytes, u64)>,
}

impl OtherRecords {
    /// Notes all records that exist now.
    pub(super) fn see(&mut self, pairs: &[Pair], now: u64) {
        let mut before = std::mem::take(&mut self.records);
        self.records.extend(pairs.iter().map(|pair| {
            let known = before.remove(&pair.key).filter(|(bytes, _)| *bytes == pair.value);
            (pair.key.clone(), known.unwrap_or_else(|| (pair.value.clone(), now)))
        }));
    }

    /// The live record whose clock is the furthest ahead of this time, and by how much, if that is more
    /// than a replica that joins may be behind.
    pub(super) fn ahead_of(&self, clock: Timestamp, now: u64) -> Option<(Name, SignedDuration)> {
        let live = self.records.values().filter_map(|(bytes, since)| {
            // A damaged record has no clock.
            let record = MemberRecord::decode(bytes).ok()?;
            let end = since.saturating_add(nanoseconds(lapse_time(record.ttl)));
            (!record.fenced && now < end).then_some(record)
        });
        let ahead = live.map(|record| (record.clock.duration_since(clock), record.name));
        let (by, name) = ahead.max_by_key(|(by, _)| *by)?;
        (by > MAX_BEHIND).then_some((name, by))
    }
}
