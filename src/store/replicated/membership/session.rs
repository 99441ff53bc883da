//! Session: the life of one record, and the beats that renew it.
//!
//! Until when a replica may answer follows from the time at which a beat was sent, never from the time
//! of its answer: etcd carried the beat out between the two, and another replica may have seen its
//! bytes at once.
//!
//! A beat without an answer is sent again with the same bytes. The second sending fails if etcd has
//! carried out the first. etcd then shows the record, and it has exactly the bytes that were sent.
//! These bytes are random and no other process writes them, so etcd carried out an earlier sending, and
//! no process has changed the record since. The beat counts, from the time of its first sending on, because
//! any of the earlier ones may be the one that etcd carried out. If the record has any other bytes, or
//! does not exist, then the session is over.
//!
//! Not here: when a session begins and ends; see [`Member`](super::member::Member).

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use super::super::etcd::{Compare, Operation, Range, Txn, TxnAnswer};
use super::super::head::Head;
use super::super::member_record::{MemberRecord, PeerToken};
use super::super::{FORMAT, ReplicaReport, Settings, keys};
use super::nanoseconds;
use crate::policy::revision::Revision;

/// How soon a beat is sent again after an error that came at once.
const RESEND_AFTER: u64 = 200_000_000;

/// How far a session has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The transaction that creates the record has no answer yet.
    Creating,
    /// The record exists. The replica must still apply the entries up to this head.
    CatchingUp(Box<Head>),
    /// The replica may answer calls, by the session of this number.
    Answering(u64),
}

/// The life of one record.
#[derive(Debug)]
pub(super) struct Session {
    pub stage: Stage,
    /// The record as it was sent last.
    record: MemberRecord,
    key: String,
    /// The bytes that the record has by the last answer.
    bytes: Bytes,
    unanswered: Option<Unanswered>,
    /// When the last beat was sent first.
    began_beat: u64,
    /// Until when the replica may answer, by the boot clock.
    until: u64,
}

/// What a record tells when it is sent.
pub(super) struct Told {
    pub published: Revision,
    /// The time of the replica's clock.
    pub clock: Timestamp,
    pub report: ReplicaReport,
}

/// A beat without an answer.
#[derive(Debug)]
struct Unanswered {
    bytes: Bytes,
    first_sent: u64,
    last_sent: u64,
}

impl Session {
    /// A new session, whose record is created by a transaction that is sent now.
    pub(super) fn new(settings: &Settings, version: &str, told: Told, now: u64) -> Self {
        let Told { published, clock, report } = told;
        let session = Uuid::new_v4();
        let mut token = [0; 32];
        // Each id has 122 random bits.
        let ids = [Uuid::new_v4(), Uuid::new_v4()];
        let random = ids.iter().flat_map(|id| id.as_bytes());
        token.iter_mut().zip(random).for_each(|(byte, random)| *byte = *random);
        let record = MemberRecord {
            session,
            name: settings.name.clone(),
            count: 0,
            random: Uuid::new_v4().into_bytes(),
            published,
            fenced: false,
            ttl: settings.ttl,
            clock,
            started: clock,
            speaks: FORMAT,
            version: version.to_owned(),
            advertise: settings.advertise.clone(),
            peer_token: PeerToken(token),
            report,
        };
        Self {
            stage: Stage::Creating,
            key: keys::member(session),
            bytes: record.encode().into(),
            unanswered: None,
            began_beat: now,
            until: now.saturating_add(nanoseconds(record.ttl)),
            record,
        }
    }

    pub(super) fn id(&self) -> Uuid {
        self.record.session
    }

    pub(super) fn peer_token(&self) -> PeerToken {
        self.record.peer_token.clone()
    }

    /// Until when the replica may answer, by the boot clock.
    pub(super) fn until(&self) -> u64 {
        self.until
    }

    /// The transaction that creates the record, and reads the head and all records. It is sent once: if it has no answer, etcd may carry it
    /// out much later.
    pub(super) fn creation(&self) -> Txn {
        Txn {
            compares: vec![Compare::Absent(self.key.clone())],
            then: vec![
                self.put(&self.bytes),
                Operation::Range(Range::key(keys::HEAD)),
                Operation::Range(Range::under(keys::MEMBERS)),
            ],
            or_else: vec![],
        }
    }

    /// When the next beat is due: as soon as a revision was published that the record does not have, and
    /// after a quarter of the time to live.
    pub(super) fn beat_at(&self, published: Revision) -> u64 {
        match &self.unanswered {
            Some(beat) => beat.last_sent.saturating_add(RESEND_AFTER),
            None if published > self.record.published => 0,
            None => self.began_beat.saturating_add(nanoseconds(self.record.ttl / 4)),
        }
    }

    /// The transaction of a beat that is sent now: the one without an answer, or a new one.
    pub(super) fn beat(&mut self, told: Told, now: u64) -> Txn {
        if self.unanswered.is_none() {
            self.began_beat = now;
            self.record.count += 1;
            self.record.random = Uuid::new_v4().into_bytes();
            self.record.published = told.published;
            self.record.clock = told.clock;
            self.record.report = told.report;
        }
        let bytes = self.record.encode().into();
        let beat =
            self.unanswered.get_or_insert(Unanswered { bytes, first_sent: now, last_sent: now });
        beat.last_sent = now;
        let bytes = beat.bytes.clone();
        Txn {
            compares: vec![Compare::Is(self.key.clone(), self.bytes.clone())],
            then: vec![self.put(&bytes), Operation::Range(Range::key(keys::HEAD))],
            or_else: vec![
                Operation::Range(Range::key(&self.key)),
                Operation::Range(Range::key(keys::HEAD)),
            ],
        }
    }

    /// Prolongs the time by the answer to a beat, and returns when the beat was sent first. None: the
    /// record is not the own one any more, and the session is over.
    pub(super) fn renew(&mut self, answer: &TxnAnswer) -> Option<u64> {
        let beat = self.unanswered.take()?;
        let record = || answer.ranges.first()?.pairs.first();
        let sent = if answer.succeeded {
            beat.last_sent
        } else if record().is_some_and(|record| record.value == beat.bytes) {
            beat.first_sent
        } else {
            return None;
        };
        self.bytes = beat.bytes;
        self.until = self.until.max(sent.saturating_add(nanoseconds(self.record.ttl)));
        Some(beat.first_sent)
    }

    fn put(&self, bytes: &Bytes) -> Operation {
        Operation::Put(self.key.clone(), bytes.clone())
    }
}
