//! Head: the end of the log of the replicas. Every commit replaces it.
//!
//! Not here: how it is read and replaced.

use blake3::Hash;
use jiff::Timestamp;
use prost::Message;
use uuid::Uuid;

use super::{FORMAT, LogError, LogPosition, NewEntry, OLDEST_FORMAT, hash, proto, uuid};
use crate::policy::revision::Revision;
use crate::store::Incarnation;
use crate::store::error::Corrupt;
use crate::store::record::{moment, stamp};

/// The context of the hash before the first entry, so that no entry hashes like it.
const ROOT: &str = "scopegate 2026-11 root of the log of replicas";

/// The end of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The random id of the cluster. It is new whenever a cluster is initialised.
    pub cluster: Uuid,
    /// The incarnation of the stores of all replicas.
    pub incarnation: Incarnation,
    /// The number of the last entry; zero before the first one.
    pub seq: u64,
    /// The last revision of that entry.
    pub revision: Revision,
    /// The hash of that entry. The next entry has it as `prev`.
    pub hash: Hash,
    /// The time of that entry.
    pub time: Timestamp,
    /// The bytes of all entries, with their parts, since the cluster was initialised.
    pub bytes: u64,
    /// The bytes of those entries that the log no longer has.
    pub truncated_bytes: u64,
    /// The format in which entries are written.
    pub format: u32,
    /// Whether the log accepts entries.
    pub state: HeadState,
}

/// Whether the log accepts entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadState {
    /// Entries are committed, and replicas join.
    Open,
    /// No entry is committed, and no replica joins. The random id distinguishes this closing from
    /// every other.
    Closed(Uuid),
}

impl Head {
    /// The head before the first entry of a cluster, whose stores are at this revision. Two clusters
    /// with copies of one store have logs that differ from the first entry on.
    #[must_use]
    pub fn first(
        cluster: Uuid,
        incarnation: Incarnation,
        revision: Revision,
        time: Timestamp,
    ) -> Self {
        let ids = [*cluster.as_bytes(), *incarnation.as_bytes()].concat();
        let hash = Hash::from_bytes(blake3::derive_key(ROOT, &ids));
        let (seq, bytes, truncated_bytes) = (0, 0, 0);
        let (format, state) = (FORMAT, HeadState::Open);
        Self {
            cluster,
            incarnation,
            seq,
            revision,
            hash,
            time,
            bytes,
            truncated_bytes,
            format,
            state,
        }
    }

    /// Checks that this program reads and writes the format of the log.
    ///
    /// # Errors
    /// It is too late or too early.
    pub fn check_format(&self) -> Result<(), LogError> {
        match self.format {
            needs if needs > FORMAT => Err(LogError::Format { needs }),
            has if has < OLDEST_FORMAT => Err(LogError::OldFormat { has }),
            _ => Ok(()),
        }
    }

    /// The position of a store that has applied all entries.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        LogPosition { incarnation: self.incarnation, seq: self.seq, hash: self.hash }
    }

    /// The head after this entry.
    #[must_use]
    pub(in crate::store) fn after(&self, entry: &NewEntry) -> Self {
        Self {
            seq: entry.after.seq,
            revision: entry.revision,
            hash: entry.after.hash,
            time: entry.time,
            bytes: self.bytes.saturating_add(entry.size()),
            ..self.clone()
        }
    }

    /// Reads a head.
    ///
    /// # Errors
    /// It is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, LogError> {
        Self::read(bytes).map_err(|Corrupt| LogError::Damaged("head"))
    }

    fn read(bytes: &[u8]) -> Result<Self, Corrupt> {
        let head = proto::Head::decode(bytes)?;
        let state = match (head.state(), head.closing_id.as_slice()) {
            (proto::HeadState::Open, []) => HeadState::Open,
            (proto::HeadState::Closed, id) => HeadState::Closed(uuid(id)?),
            _ => return Err(Corrupt),
        };
        if head.format == 0 {
            return Err(Corrupt);
        }
        Ok(Self {
            cluster: uuid(&head.cluster)?,
            incarnation: uuid(&head.incarnation)?,
            seq: head.seq,
            revision: Revision(head.revision),
            hash: hash(&head.hash)?,
            time: moment(head.time)?,
            bytes: head.bytes,
            truncated_bytes: head.truncated_bytes,
            format: head.format,
            state,
        })
    }

    /// The bytes of the head in the log.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (state, closing_id) = match self.state {
            HeadState::Open => (proto::HeadState::Open, Vec::new()),
            HeadState::Closed(id) => (proto::HeadState::Closed, id.as_bytes().to_vec()),
        };
        proto::Head {
            cluster: self.cluster.as_bytes().to_vec(),
            incarnation: self.incarnation.as_bytes().to_vec(),
            seq: self.seq,
            revision: self.revision.0,
            hash: self.hash.as_bytes().to_vec(),
            time: Some(stamp(self.time)),
            bytes: self.bytes,
            truncated_bytes: self.truncated_bytes,
            format: self.format,
            state: state.into(),
            closing_id,
        }
        .encode_to_vec()
    }
}
