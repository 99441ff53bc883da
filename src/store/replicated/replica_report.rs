//! ReplicaReport: what a replica tells the others about itself, besides its session.
//!
//! Each part of the replica notes what it knows. The next renewal of the record has it.
//!
//! Not here: who reads it, and what follows from it.

use std::time::Duration;

use blake3::Hash;

use super::{hash, proto};
use crate::policy::id::Name;
use crate::store::error::Corrupt;

/// What a replica tells about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaReport {
    /// The replicas whose clocks are ahead of this one's, sorted.
    pub ahead: Vec<Name>,
    /// The free bytes of the disk that has the store; none before they were measured.
    pub free_bytes: Option<u64>,
    /// How many entries of other replicas replaced other facts here than at the replica that wrote the
    /// entry, since the process started.
    pub diverged: u64,
    /// How long the replica keeps changes in its audit log; none without a limit.
    pub audit_log_retention: Option<Duration>,
    /// The BLAKE3 hash of the catalog in the file that the replica was started with, if it has one.
    pub catalog: Option<Hash>,
}

impl ReplicaReport {
    pub(super) fn read(report: proto::Report) -> Result<Self, Corrupt> {
        let name = |text: String| Name::parse(text).map_err(|_| Corrupt);
        let ahead: Vec<_> = report.ahead.into_iter().map(name).collect::<Result<_, _>>()?;
        if !ahead.is_sorted_by(|a, b| a < b) {
            return Err(Corrupt);
        }
        let retention = report.audit_log_retention.map(Duration::try_from).transpose();
        Ok(Self {
            ahead,
            free_bytes: report.free_bytes,
            diverged: report.diverged,
            audit_log_retention: retention.map_err(|_| Corrupt)?,
            catalog: report.catalog.map(|bytes| hash(&bytes)).transpose()?,
        })
    }

    pub(super) fn message(&self) -> proto::Report {
        proto::Report {
            ahead: self.ahead.iter().map(ToString::to_string).collect(),
            free_bytes: self.free_bytes,
            diverged: self.diverged,
            audit_log_retention: self.audit_log_retention.and_then(|time| time.try_into().ok()),
            catalog: self.catalog.map(|hash| hash.as_bytes().to_vec()),
        }
    }
}
