//! Edit: a fact before its commit, with what would change.
//!
//! Not here: the committed change; see [`super::change`].

use jiff::Timestamp;

use super::ceiling::RemovedEntry;
use super::change::FieldChange;
use super::revision::Revision;
use super::scope::ScopeId;

/// A fact before and after, and what moved between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit<T> {
    /// The fact as it would be.
    pub after: T,
    /// Scopes that entered the set, or became active in it, by id.
    pub added: Vec<ScopeId>,
    /// Scopes that left the set, by id.
    pub removed: Vec<ScopeId>,
    /// CallSlots in a ceiling that were taken, so that it can be undone.
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
    /// An edit that leads to this fact, and moves nothing that is counted here.
    #[must_use]
    pub fn to(after: T) -> Self {
        Self { after, added: vec![], removed: vec![], displaced: vec![], fields: vec![] }
    }

    /// Whether nothing would change: such an edit is not committed (D18).
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.fields.is_empty()
    }
}

/// Facts that learn their revision and time only when they are committed.
pub trait Stamped {
    /// Replaces [`Revision::NEXT`] everywhere by the revision assigned, and notes the time.
    fn stamp(&mut self, revision: Revision, time: Timestamp);
}
