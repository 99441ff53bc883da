//! Ceiling: the company-level scopes, and what is needed to undo a restriction of them.

use super::revision::Revision;
use super::scope::{ScopeId, ScopeMap};

/// The company-level scopes, each with the revision at which it entered (D3).
pub type Ceiling = ScopeMap<Revision>;

/// The grants of one scope that an operator woke: those made from one revision on, until the
/// restriction at another (D3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoredRange {
    /// The scope's place in the ceiling when the restriction came.
    pub from: Revision,
    /// The restriction.
    pub to: Revision,
}

/// A scope's place in a ceiling that a restriction took: what an operator needs to undo it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedEntry {
    /// The scope.
    pub scope: ScopeId,
    /// When it had entered.
    pub added_at: Revision,
    /// The older grants of it that had been woken.
    pub restored: Vec<RestoredRange>,
}
