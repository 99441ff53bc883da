//! Edit: a fact before its commit, with what would change.
//!
//! Not here: the committed change; see [`super::change`].

use jiff::Timestamp;

use super::ceiling::RemovedEntry;
use super::change::FieldChange;
use super::revision::Revision;
use super::scope::ScopeId;

/// A planned change of a fact: the fact after it, and the differences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit<T> {
    /// The fact after the change.
    pub after: T,
    /// Scopes that entered the set, or became active in it, by id.
    pub added: Vec<ScopeId>,
    /// Scopes that left the set, by id.
    pub removed: Vec<ScopeId>,
    /// Entries that are removed from a ceiling, so that the restriction can be undone.
    pub displaced: Vec<RemovedEntry>,
    /// Other fields that changed.
    pub fields: Vec<FieldChange>,
}

impl<T: Clone> Edit<T> {
    /// An edit that leaves the fact as it is.
    #[must_use]
    pub fn none(before: &T) -> Self {
        Self::to(before.clone())
    }
}

impl<T> Edit<T> {
    /// An edit with this fact after it and no differences.
    #[must_use]
    pub fn to(after: T) -> Self {
        Self { after, added: vec![], removed: vec![], displaced: vec![], fields: vec![] }
    }

    /// Whether nothing changes: such an edit is not committed (D18).
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.fields.is_empty()
    }
}

/// A fact that gets its revision and time when it is committed.
pub trait Stamped {
    /// Replaces [`Revision::NEXT`] by the assigned revision, and sets the time.
    fn stamp(&mut self, revision: Revision, time: Timestamp);
}
