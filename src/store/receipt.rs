//! Receipt: the revision and the time of a committed change, and how long it waited for replicas.

use jiff::Timestamp;

use super::replicated::Waited;
use crate::policy::revision::Revision;

/// A committed change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The revision that it made.
    pub revision: Revision,
    /// The time of the commit; no earlier than any commit before it (D19).
    pub time: Timestamp,
    /// How it waited until every replica showed it. None: it did not wait, because there are none.
    pub waited: Option<Waited>,
}
