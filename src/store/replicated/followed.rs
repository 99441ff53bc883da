//! Followed: how far a replica has come in the log.

use super::LogPosition;
use crate::policy::revision::Revision;

/// The last entry that a replica has applied. It is durable, and its revision is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The entry.
    pub position: LogPosition,
    /// Its last revision.
    pub revision: Revision,
}
