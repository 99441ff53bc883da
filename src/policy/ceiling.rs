//! Ceiling: the scopes of a company, and the data for undoing a restriction.

use super::revision::Revision;
use super::scope::{ScopeId, ScopeMap};

/// The company-level scopes, each with the revision at which it entered (D3).
pub type Ceiling = ScopeMap<Revision>;

/// A range of grants of one scope that an operator reactivated: those made from one revision on,
/// until the restriction at another (D3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoredRange {
    /// The revision at which the scope had entered the ceiling when the restriction came.
    pub from: Revision,
    /// The revision of the restriction.
    pub to: Revision,
}

/// An entry that a restriction removed from a ceiling. It contains what is needed to undo the
/// restriction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedEntry {
    /// The scope.
    pub scope: ScopeId,
    /// The revision at which the scope had entered.
    pub added_at: Revision,
    /// The ranges of older grants of the scope that had been reactivated.
    pub restored: Vec<RestoredRange>,
}
