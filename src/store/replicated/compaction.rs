//! Compaction: removes the history of etcd, which otherwise keeps each value that a key ever had.
//!
//! The key `compacted` has a revision of etcd. A replica that finds the note old enough replaces it by the
//! present revision. If its transaction wins, it compacts to the revision of the note before. So the
//! history goes back to at least one note, however many replicas there are. Nothing rests on the history:
//! a watch that missed a part of it ends, and its owner reads the keys. Compaction takes no key away.
//!
//! The age of a note is how long this replica has seen its bytes, so no clock of another one counts. A
//! transaction or a compaction that gets no answer is not sent again: the next note does its work.
//!
//! Not here: the entries that the log no longer needs; see `truncation`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use prost::Message;

use super::etcd::{Client, Compare, EtcdError, Operation, Range, Txn};
use super::etcd_space::{EtcdSpace, LogSpace};
use super::head::Head;
use super::{LogError, keys, proto};
use crate::metrics::machine_time;
use crate::policy::id::Name;
use crate::store::boot_clock;
use crate::store::error::Corrupt;
use crate::store::record::{moment, stamp};

/// How often the note is read.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long etcd may take to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// The age at which a note is replaced, in nanoseconds.
const AGE: u64 = 300_000_000_000;
/// The same while etcd is nearly full, so that what was deleted is soon free.
const AGE_NEARLY_FULL: u64 = 20_000_000_000;
/// A note is also replaced when entries of this many bytes were put since.
const BYTES: u64 = 128 << 20;
/// With a small quota it is this part of the quota.
const QUOTA_PART: u64 = 32;

/// The note under the key `compacted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactionNote {
    /// The revision of etcd to which its history is compacted with the next note.
    pub etcd_revision: i64,
    /// The bytes of all entries at that revision, as the head has them.
    pub bytes: u64,
    /// The replica that made the note.
    pub replica: Name,
    /// When it did, by its clock.
    pub time: Timestamp,
}

impl CompactionNote {
    /// Reads a note.
    ///
    /// # Errors
    /// It is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, LogError> {
        let read = || {
            let note = proto::Compacted::decode(bytes)?;
            Ok(Self {
                etcd_revision: note.etcd_revision,
                bytes: note.bytes,
                replica: Name::parse(note.replica).map_err(|_| Corrupt)?,
                time: moment(note.time)?,
            })
        };
        read().map_err(|Corrupt| LogError::Damaged("note of the compaction"))
    }

    fn encode(&self) -> Vec<u8> {
        proto::Compacted {
            etcd_revision: self.etcd_revision,
            bytes: self.bytes,
            replica: self.replica.to_string(),
            time: Some(stamp(self.time)),
        }
        .encode_to_vec()
    }
}

/// Compacts the history of etcd for one replica.
pub(super) struct Compaction {
    client: Arc<Client>,
    replica: Name,
    space: Arc<EtcdSpace>,
    /// The bytes of the note that was last seen, and since when, by the boot clock.
    seen: Option<(Bytes, u64)>,
}

impl Compaction {
    pub(super) fn new(client: Arc<Client>, replica: Name, space: Arc<EtcdSpace>) -> Self {
        Self { client, replica, space, seen: None }
    }

    /// Compacts now and then, for as long as it is polled.
    pub(super) async fn run(mut self) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match self.step().await {
                Ok(()) => {}
                Err(CompactionError::Etcd(error)) if !error.is_certain() => {
                    tracing::debug!(%error, "etcd gave no answer about its history");
                }
                Err(error) => tracing::warn!(
                    %error,
                    "the history of etcd is not compacted: allow it, or compact it in another way and \
                     write `compact=off` in the URL of --replicate"
                ),
            }
        }
    }

    async fn step(&mut self) -> Result<(), CompactionError> {
        let ranges = [keys::COMPACTED, keys::HEAD].map(|key| Operation::Range(Range::key(key)));
        let txn = Txn { then: ranges.to_vec(), ..Txn::default() };
        let answer = self.client.txn(&txn, ANSWER).await?;
        let mut values = answer.ranges.iter().map(|range| range.pairs.first());
        let mut value = || values.next().flatten().map(|pair| pair.value.clone());
        let (note, Some(head)) = (value(), value()) else { return Ok(()) };
        let head = Head::decode(&head)?;
        let now = boot_clock::now();
        let before = match &note {
            None => None,
            Some(bytes) => {
                let is_same = self.seen.as_ref().is_some_and(|(seen, _)| seen == bytes);
                if !is_same {
                    self.seen = Some((bytes.clone(), now));
                }
                Some(CompactionNote::decode(bytes)?)
            }
        };
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        if before.as_ref().is_some_and(|before| !self.is_due(before, &head, now - since)) {
            return Ok(());
        }
        let next = CompactionNote {
            etcd_revision: answer.revision,
            bytes: head.bytes,
            replica: self.replica.clone(),
            time: machine_time(),
        };
        let key = || keys::COMPACTED.to_owned();
        let compare = match note {
            Some(bytes) => Compare::Is(key(), bytes),
            None => Compare::Absent(key()),
        };
        let put = Operation::Put(key(), next.encode().into());
        let txn = Txn { compares: vec![compare], then: vec![put], or_else: Vec::new() };
        let is_own = self.client.txn(&txn, ANSWER).await?.succeeded;
        let Some(before) = before.filter(|_| is_own) else { return Ok(()) };
        match self.client.compact(before.etcd_revision, ANSWER).await {
            // Others use this etcd, too, or it compacts by itself.
            Err(error) if error.is_compacted() => {}
            done => done?,
        }
        tracing::debug!(revision = before.etcd_revision, "the history of etcd was compacted");
        Ok(())
    }

    /// Whether a note that was seen for so many nanoseconds is to be replaced.
    fn is_due(&self, note: &CompactionNote, head: &Head, age: u64) -> bool {
        let limit = BYTES.min(self.space.quota() / QUOTA_PART);
        let is_nearly_full = self.space.log_space() > LogSpace::Ample;
        // The bytes begin at zero again when a cluster is initialised again.
        head.bytes.saturating_sub(note.bytes) >= limit
            || age >= if is_nearly_full { AGE_NEARLY_FULL } else { AGE }
    }
}

/// Why the history is not compacted.
#[derive(Debug, thiserror::Error)]
enum CompactionError {
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    #[error(transparent)]
    Log(#[from] LogError),
}
