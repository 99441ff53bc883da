//! Store: the facts, their indexes and the change log, committed together.
//!
//! An engine implements [`Store`]. There is one, embedded, in [`sled`]. A change reaches it as
//! a [`Proposal`]: the facts that it read (its preconditions) and the facts that it writes. The
//! engine commits a proposal only if its preconditions hold after all earlier changes, those of
//! the same batch included.
//!
//! INVARIANT (durable before known): the engine reports a revision to the [`CommitObserver`] and
//! to the caller of [`Store::commit`] only when a crash can no longer erase it.
//!
//! Not here: caches and decisions (`authority`, `policy`), and the meaning of a change.

pub mod backup;
mod error;
mod fact;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
mod idempotency;
mod key;
mod metrics;
mod observer;
mod proposal;
pub mod quota;
mod receipt;
mod record;
pub mod sled;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;

pub use self::error::{CommitError, StoreError};
pub use self::fact::{Fact, FactKey};
pub use self::idempotency::{
    IDEMPOTENCY_TTL, IdempotencyRecord, RequestKey, ResultDetail, StoredResult, WriteResult,
};
pub use self::metrics::StoreMetrics;
pub use self::observer::{CommitObserver, Outcome};
pub use self::proposal::{FactWrite, Proposal};
pub use self::receipt::Receipt;
use crate::policy::change::Change;
use crate::policy::company::Company;
use crate::policy::credential::Credential;
use crate::policy::id::{CompanyId, CredentialId, UserId};
use crate::policy::revision::Revision;
use crate::policy::scope::ScopeId;
use crate::policy::user::User;
use quota::Quota;

/// The incarnation of a store; a restored backup has a new one. Etags and page tokens carry it, so
/// that those of another incarnation are rejected.
pub type Incarnation = uuid::Uuid;

/// A minute, counted from 1970.
pub type Minute = u32;

/// How far the durable time mark is ahead of the time. After a crash the clock starts at the mark:
/// an expiry within this lead may come that much early, and never late (D19).
pub const CLOCK_LEAD: Duration = Duration::from_secs(2);

/// Resolves to the result of a proposal.
pub type CommitHandle = oneshot::Receiver<Result<Receipt, CommitError>>;

/// A storage engine.
pub trait Store: Send + Sync {
    /// The incarnation of the store.
    fn incarnation(&self) -> Incarnation;

    /// The last revision that was committed before the engine was opened.
    fn opened_at(&self) -> Revision;

    /// The durable time mark when the engine was opened (D19).
    fn time_mark(&self) -> Option<Timestamp>;

    /// The metrics of the engine.
    fn metrics(&self) -> &StoreMetrics;

    /// Starts the writer. Before that, nothing can be committed.
    fn start(&self, observer: Arc<dyn CommitObserver>);

    /// Reads one fact. The fact may not be durable yet; see [`CommitObserver::before_apply`].
    ///
    /// # Errors
    /// The engine cannot answer.
    fn get(&self, key: &FactKey) -> Result<Option<Fact>, StoreError>;

    /// Companies after this id, by id.
    ///
    /// # Errors
    /// The engine cannot answer.
    fn companies(
        &self,
        after: Option<&CompanyId>,
        limit: usize,
    ) -> Result<Vec<Company>, StoreError>;

    /// Credentials of a company after this id, by id.
    ///
    /// # Errors
    /// The engine cannot answer.
    fn credentials(
        &self,
        company: Revision,
        after: Option<&CredentialId>,
        limit: usize,
    ) -> Result<Vec<Credential>, StoreError>;

    /// The ids of credentials of a company that have a grant of this scope in any state, after this
    /// id, by id.
    ///
    /// # Errors
    /// The engine cannot answer.
    fn holders(
        &self,
        company: Revision,
        scope: ScopeId,
        after: Option<&CredentialId>,
        limit: usize,
    ) -> Result<Vec<CredentialId>, StoreError>;

    /// Users of a company after this id, by id.
    ///
    /// # Errors
    /// The engine cannot answer.
    fn users(
        &self,
        company: Revision,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<User>, StoreError>;

    /// Changes after one revision up to another, of one company or of all, in order and without a
    /// gap.
    ///
    /// # Errors
    /// The engine cannot answer, or garbage collection may have removed one of the changes.
    fn changes(
        &self,
        company: Option<&CompanyId>,
        after: Revision,
        up_to: Revision,
        limit: usize,
    ) -> Result<Vec<Change>, StoreError>;

    /// As [`Self::changes`], in descending order.
    ///
    /// # Errors
    /// The engine cannot answer, or garbage collection may have removed one of the changes.
    fn changes_back(
        &self,
        company: Option<&CompanyId>,
        after: Revision,
        up_to: Revision,
        limit: usize,
    ) -> Result<Vec<Change>, StoreError>;

    /// The stored result of a request, if it was committed. It may not be durable yet; see
    /// [`CommitObserver::before_apply`].
    ///
    /// # Errors
    /// The engine cannot answer.
    fn answered(&self, request: &RequestKey) -> Result<Option<StoredResult>, StoreError>;

    /// Queues a change. The handle resolves when the change is durable, or rejected.
    ///
    /// # Errors
    /// The queue is full, or the engine has stopped.
    fn commit(&self, proposal: Proposal) -> Result<CommitHandle, StoreError>;

    /// Rejects a change that [`Self::commit`] would reject by a quota of its company ([`quota`]),
    /// if nothing else was committed before it.
    ///
    /// # Errors
    /// The company has reached a quota.
    fn admits(&self, proposal: &Proposal) -> Result<(), StoreError>;

    /// Rejects `more` of a quota for the company of this creation revision; [`Revision::NEXT`]
    /// stands for a company that does not exist yet.
    ///
    /// # Errors
    /// The company would exceed the quota.
    fn check_quota(&self, company: Revision, bound: Quota, more: u64) -> Result<(), StoreError>;

    /// The minute in which the credential of this creation revision was last used, as far as it was
    /// stored.
    ///
    /// # Errors
    /// The engine cannot answer.
    fn last_seen(&self, credential: Revision) -> Result<Option<Minute>, StoreError>;

    /// Stores in which minute credentials were last used, by their creation revisions. Returns at
    /// once; a crash may lose it.
    fn note_last_seen(&self, seen: Vec<(Revision, Minute)>);

    /// Raises the time mark: no time before `time` may be relied on again (D19). Also sets the
    /// believed time. Retention follows the believed time alone, because the mark may be an expiry
    /// that was reported while the machine's clock was wrong. Returns at once.
    fn mark_time(&self, time: Timestamp, believed: Timestamp);

    /// The durable time mark: after a crash the time is no earlier (D19).
    fn durable_time(&self) -> Timestamp;

    /// As [`Self::mark_time`], for a time that may not be believed. The receiver resolves when the
    /// mark is durable. No later change has an earlier time.
    ///
    /// # Errors
    /// The queue is full, or the engine has stopped.
    fn persist_time(&self, time: Timestamp) -> Result<oneshot::Receiver<()>, StoreError>;

    /// Begins a backup, while changes continue. It may wait for the disk.
    ///
    /// # Errors
    /// The engine cannot answer, or too many backups are in progress.
    fn backup(&self) -> Result<Box<dyn backup::Backup>, StoreError>;

    /// Commits the queued changes, stops the writer, and closes the files.
    fn close(&self);
}
