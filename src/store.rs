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
mod record;
pub mod sled;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;

pub use self::error::{CommitError, StoreError};
pub use self::fact::{Fact, FactKey};
pub use self::idempotency::{IDEMPOTENCY_TTL, IdempotencyRecord, RequestKey, StoredReply};
pub use self::metrics::StoreMetrics;
pub use self::observer::{CommitObserver, Outcome};
pub use self::proposal::{FactWrite, Proposal, Receipt};
use crate::policy::change::Change;
use crate::policy::company::Company;
use crate::policy::credential::Credential;
use crate::policy::id::{CompanyId, CredentialId, UserId};
use crate::policy::revision::Revision;
use crate::policy::scope::ScopeId;
use crate::policy::user::User;
use quota::Quota;

/// Which life of the store this is: a restored backup is another one. Etags and page tokens
/// carry it, so that those of another life are refused.
pub type Incarnation = uuid::Uuid;

/// A minute, counted from 1970.
pub type Minute = u32;

/// How far ahead of the time the store's mark is kept. After a crash the clock starts at the
/// mark: what expires within this lead may end that much early, and never late (D19).
pub const CLOCK_LEAD: Duration = Duration::from_secs(2);

/// The answer to a proposal, when it comes.
pub type CommitHandle = oneshot::Receiver<Result<Receipt, CommitError>>;

/// An engine.
pub trait Store: Send + Sync {
    /// Which life of the store this is.
    fn incarnation(&self) -> Incarnation;

    /// The last revision that was committed before the engine was opened.
    fn opened_at(&self) -> Revision;

    /// The latest time that was ever relied on before the engine was opened (D19).
    fn time_mark(&self) -> Option<Timestamp>;

    /// What it tells of its work.
    fn measures(&self) -> &StoreMetrics;

    /// Starts the writer. Before it, nothing can be committed.
    fn start(&self, listener: Arc<dyn CommitObserver>);

    /// Reads one fact. What it sees may not be durable yet; see [`CommitObserver::before_apply`].
    ///
    /// # Errors
    /// The engine cannot answer.
    fn get(&self, key: &FactKey) -> Result<Option<Fact>, StoreError>;

    /// Companies behind this id, by id.
    ///
    /// # Errors
    /// The engine cannot answer.
    fn companies(
        &self,
        after: Option<&CompanyId>,
        limit: usize,
    ) -> Result<Vec<Company>, StoreError>;

    /// Credentials of a company behind this id, by id.
    ///
    /// # Errors
    /// The engine cannot answer.
    fn credentials(
        &self,
        company: Revision,
        after: Option<&CredentialId>,
        limit: usize,
    ) -> Result<Vec<Credential>, StoreError>;

    /// Credentials of a company that have a grant of this scope in whatever state, behind this
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

    /// Users of a company behind this id, by id.
    ///
    /// # Errors
    /// The engine cannot answer.
    fn users(
        &self,
        company: Revision,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<User>, StoreError>;

    /// Changes behind this revision up to that one, of one company or of all, in order and
    /// without a gap.
    ///
    /// # Errors
    /// The engine cannot answer, or one of them may no longer be kept.
    fn changes(
        &self,
        company: Option<&CompanyId>,
        after: Revision,
        up_to: Revision,
        limit: usize,
    ) -> Result<Vec<Change>, StoreError>;

    /// As [`Self::changes`], from the last of them back.
    ///
    /// # Errors
    /// The engine cannot answer, or one of them may no longer be kept.
    fn changes_back(
        &self,
        company: Option<&CompanyId>,
        after: Revision,
        up_to: Revision,
        limit: usize,
    ) -> Result<Vec<Change>, StoreError>;

    /// What is kept of a request, if it was carried out. What it sees may not be durable yet; see
    /// [`CommitObserver::before_apply`].
    ///
    /// # Errors
    /// The engine cannot answer.
    fn answered(&self, request: &RequestKey) -> Result<Option<StoredReply>, StoreError>;

    /// Queues a change. The ticket is answered when it is durable, or refused.
    ///
    /// # Errors
    /// The queue is full, or the engine stopped.
    fn commit(&self, proposal: Proposal) -> Result<CommitHandle, StoreError>;

    /// Refuses a change that [`Self::commit`] would refuse by a bound of its company
    /// ([`bounds`]), if nothing else was committed before it.
    ///
    /// # Errors
    /// The company is at a bound.
    fn admits(&self, proposal: &Proposal) -> Result<(), StoreError>;

    /// Refuses so many more of a kind for the company of this creation; of a company that does
    /// not exist yet, [`Revision::NEXT`].
    ///
    /// # Errors
    /// The company would be above the bound.
    fn has_room(&self, company: Revision, bound: Quota, more: u64) -> Result<(), StoreError>;

    /// The minute in which the credential of this birth was last asked for, as far as it was noted.
    ///
    /// # Errors
    /// The engine cannot answer.
    fn last_seen(&self, credential: Revision) -> Result<Option<Minute>, StoreError>;

    /// Notes in which minute credentials were asked for, by their births. Returns at once; a
    /// crash may forget it.
    fn note_seen(&self, seen: Vec<(Revision, Minute)>);

    /// Notes that no time before this one may be relied on again (D19), and the time that is
    /// believed. What is kept for a time ends by the believed time alone: the mark may be an end
    /// that was told while the machine's clock was wrong. Returns at once.
    fn mark_time(&self, time: Timestamp, believed: Timestamp);

    /// The time mark that is on the disk now: a crash brings back no time before it (D19).
    fn time_kept(&self) -> Timestamp;

    /// As [`Self::mark_time`] for a time that may not be believed, with a receiver that is answered
    /// when the mark is on the disk. No later change has an earlier time.
    ///
    /// # Errors
    /// The queue is full, or the engine stopped.
    fn keep_time(&self, time: Timestamp) -> Result<oneshot::Receiver<()>, StoreError>;

    /// Begins a backup, which goes on beside changes. It may wait for the disk.
    ///
    /// # Errors
    /// The engine cannot answer, or enough backups are under way.
    fn backup(&self) -> Result<Box<dyn backup::Backup>, StoreError>;

    /// Commits what is queued, stops the writer, and lets go of the files.
    fn close(&self);
}
