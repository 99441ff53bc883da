//! MembersView: the records of all sessions, as this replica last saw them.
//!
//! A record may be deleted by any replica that has seen the same renewal for the time after which
//! the session's replica no longer answers by it: the record's [lapse time](lapse_time). The time
//! counts from the arrival of the answer that first showed the renewal. The renewal was stored
//! before that, and it began even earlier, so the replica's own time is over sooner.
//!
//! Not here: who reads the records, and who deletes them; see `members_task`.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use prost::Message;
use uuid::Uuid;

use super::etcd::RangeAnswer;
use super::member_record::MemberRecord;
use super::{keys, proto};
use crate::policy::id::Name;
use crate::policy::revision::Revision;

/// The least margin for clocks whose rates differ, and for stops that a clock does not count.
const LEAST_MARGIN: Duration = Duration::from_secs(2);
/// The lapse time of the longest `ttl` that a record may have. It is that of a damaged record.
const LONGEST_LAPSE_TIME: Duration = Duration::from_secs(75);

/// For how long a renewal must have been seen before another replica may delete the record of a
/// session with this `ttl`.
#[must_use]
pub fn lapse_time(ttl: Duration) -> Duration {
    ttl + LEAST_MARGIN.max(ttl / 4)
}

/// The records of all sessions, sorted by session.
#[derive(Clone, Debug, Default)]
pub struct MembersView {
    /// When the answer with these records came, in nanoseconds of the boot clock. Zero: none came.
    pub at: u64,
    members: Vec<Member>,
}

/// The record of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The session.
    pub session: Uuid,
    /// The record. `None` if it is damaged.
    pub record: Option<MemberRecord>,
    /// When the answer came that first showed this renewal, in nanoseconds of the boot clock. A
    /// change of `fenced` alone is not a renewal.
    pub since: u64,
    bytes: Bytes,
}

impl MembersView {
    /// The view after an answer that came at `now` and has all keys of the records.
    #[must_use]
    pub fn next(&self, now: u64, answer: &RangeAnswer) -> Self {
        let member = |key: &str, bytes: &Bytes| {
            let session = keys::session(key).filter(|session| keys::member(*session) == key)?;
            Some(match self.get(session) {
                Some(seen) => seen.next(now, bytes),
                None => Member::new(session, now, bytes),
            })
        };
        let members = answer.pairs.iter().filter_map(|pair| member(&pair.key, &pair.value));
        let mut members: Vec<_> = members.collect();
        members.sort_by_key(|member| member.session);
        Self { at: now, members }
    }

    /// The record of a session, if it exists.
    #[must_use]
    pub fn get(&self, session: Uuid) -> Option<&Member> {
        let at = self.members.binary_search_by_key(&session, |member| member.session).ok()?;
        self.members.get(at)
    }

    /// How far the clock of each replica is ahead of this one, by its last renewal; `now` is the time of
    /// the boot clock, and `clock` that of this replica's clock. It is too low by the time for which a
    /// renewal was on its way.
    #[must_use]
    pub fn clocks_ahead(&self, now: u64, clock: Timestamp) -> BTreeMap<Name, SignedDuration> {
        let mut all = BTreeMap::new();
        for member in &self.members {
            let Some(record) = &member.record else { continue };
            let ahead = member.clock_ahead(record, now, clock);
            // A name has several records for a while after its replica has begun another session.
            let most = all.entry(record.name.clone()).or_insert(ahead);
            *most = ahead.max(*most);
        }
        all
    }

    /// All records.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }
}

impl Member {
    fn new(session: Uuid, now: u64, bytes: &Bytes) -> Self {
        let record = MemberRecord::decode(bytes).ok().filter(|record| record.session == session);
        Self { session, record, since: now, bytes: bytes.clone() }
    }

    /// The member after an answer that has these bytes.
    fn next(&self, now: u64, bytes: &Bytes) -> Self {
        if *bytes == self.bytes {
            return self.clone();
        }
        let next = Self::new(self.session, now, bytes);
        let renewal = |member: &Self| {
            member.record.clone().map(|record| MemberRecord { fenced: false, ..record })
        };
        match (renewal(self), renewal(&next)) {
            (Some(old), Some(new)) if old == new => Self { since: self.since, ..next },
            _ => next,
        }
    }

    /// The bytes of the record, as they were seen.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes of the same record with `fenced`. Fields that this version does not know stay.
    pub(super) fn fenced_bytes(&self) -> Bytes {
        // Two encoded messages, one after the other, are their merge.
        let fenced = proto::Record { fenced: true, ..proto::Record::default() }.encode_to_vec();
        [&self.bytes, fenced.as_slice()].concat().into()
    }

    /// Whether the record tells that its replica has published this revision.
    #[must_use]
    pub fn has_published(&self, revision: Revision) -> bool {
        self.record.as_ref().is_some_and(|record| record.published >= revision)
    }

    /// Whether another replica has ended the session.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.fenced)
    }

    /// For how long a renewal must have been seen before the record may be deleted.
    #[must_use]
    pub fn lapse_time(&self) -> Duration {
        self.record.as_ref().map_or(LONGEST_LAPSE_TIME, |record| lapse_time(record.ttl))
    }

    /// How far the clock of its replica, whose record this is, is ahead of this one; see
    /// [`MembersView::clocks_ahead`].
    pub(super) fn clock_ahead(
        &self,
        record: &MemberRecord,
        now: u64,
        clock: Timestamp,
    ) -> SignedDuration {
        let age = SignedDuration::from_nanos_i128(now.saturating_sub(self.since).into());
        clock.duration_until(record.clock).saturating_add(age)
    }

    /// Whether the renewal has been seen for the lapse time, by the boot clock: the replica does not
    /// answer by it any more, and any replica may delete the record with exactly these bytes.
    #[must_use]
    pub fn has_lapsed(&self, now: u64) -> bool {
        u128::from(now.saturating_sub(self.since)) >= self.lapse_time().as_nanos()
    }
}
