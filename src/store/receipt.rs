//! Receipt: the revision and the time of a committed change.

use jiff::Timestamp;

use crate::policy::revision::Revision;

/// A committed change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The revision that it made.
    pub revision: Revision,
    /// The time of the commit; no earlier than any commit before it (D19).
    pub time: Timestamp,
}
