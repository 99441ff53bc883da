//! Observer: the interface through which the engine reports commits.

use super::fact::{Fact, FactKey};
use crate::policy::change::Change;
use crate::policy::revision::Revision;

/// A fact that a batch of changes left behind.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which fact.
    pub key: FactKey,
    /// The revision that last changed it.
    pub since: Revision,
    /// The fact; none if it no longer exists.
    pub fact: Option<Fact>,
}

/// Who is told of commits, on the engine's writer thread, batch by batch.
pub trait CommitObserver: Send + Sync {
    /// These facts are about to change, at the latest in this revision. Reads of the store may
    /// see them from now on; nobody may rely on them yet.
    fn before_apply(&self, last: Revision, keys: &[FactKey]);
    /// The batch is durable: these are the facts that it left behind.
    fn durable(&self, last: Revision, outcomes: Vec<Outcome>);
    /// The changes of the batch, in order, once the listener has been told that it is durable and
    /// before anybody else is.
    fn published(&self, _changes: Vec<Change>) {}
    /// The disk failed. Whether the batch survives is unknown, and the engine stops for good.
    fn failed(&self);
}
