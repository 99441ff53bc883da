//! Observer: the interface through which the store reports commits.

use super::fact::{Fact, FactKey};
use crate::policy::change::Change;
use crate::policy::revision::Revision;

/// A fact after a batch of changes.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The key of the fact.
    pub key: FactKey,
    /// The revision that last changed it.
    pub since: Revision,
    /// The fact; none if it no longer exists.
    pub fact: Option<Fact>,
}

/// An observer of commits. The writer thread calls it, once or more per batch.
pub trait CommitObserver: Send + Sync {
    /// The facts of these keys are about to change, at the latest in revision `last`. A read of the
    /// store may return the new facts from now on. They are not durable yet, so no decision may use
    /// them.
    fn before_apply(&self, last: Revision, keys: &[FactKey]);
    /// The batch is durable. `outcomes` are its facts.
    fn durable(&self, last: Revision, outcomes: Vec<Outcome>);
    /// The changes of the batch, in order. It is called after [`Self::durable`] and before the
    /// writer replies to any caller.
    fn published(&self, _changes: Vec<Change>) {}
    /// The disk failed. It is unknown whether the batch survives, and the store stops for good.
    fn failed(&self);
}
