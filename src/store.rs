//! Floor 1, what is kept: facts, their index, and the log of changes, committed as one.
//!
//! An engine implements [`Store`]; there is one, embedded, in [`sled`]. A change reaches it as
//! a [`Proposal`]: the facts that it rests on, and those that it leaves behind. The engine
//! commits it only if what it rests on still stands, earlier changes of the same batch included.
//!
//! INVARIANT (durable before known): a revision is told to the [`CommitObserver`] as durable, and to
//! whoever proposed it, only when a crash can no longer erase it.
//!
//! Not here: caches and decisions (floor 2), and any knowledge of what a change means.

pub mod backup;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
mod key;
mod metrics;
pub mod quota;
mod record;
pub mod sled;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;

pub use self::metrics::StoreMetrics;
use crate::policy::catalog::Catalog;
use crate::policy::change::{Change, Stamped};
use crate::policy::company::Company;
use crate::policy::consent::{Consent, Parties};
use crate::policy::credential::Credential;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::keyring::Keyring;
use crate::policy::revision::Revision;
use crate::policy::scope::ScopeId;
use crate::policy::secret::{Secret, SecretOwner};
use crate::policy::user::User;
use quota::{Quota, Reached};

/// Which life of the store this is: a restored backup is another one. Etags and page tokens
/// carry it, so that those of another life are refused.
pub type Incarnation = uuid::Uuid;

/// A minute, counted from 1970.
pub type Minute = u32;

/// What a fact is kept and cached under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FactKey {
    /// The catalog.
    Catalog,
    /// The keyring.
    Keyring,
    /// A company, by id.
    Company(CompanyId),
    /// A credential, by its company's birth and its id: nothing of an earlier company of the
    /// same id can answer (D3).
    Credential(Revision, CredentialId),
    /// A company's impact revision, by its birth: the last change of any of its credentials (D7).
    Impact(Revision),
    /// A user, by the company's birth and the user's id.
    User(Revision, UserId),
    /// A user's consent to a credential, by their births.
    Consent(Parties),
    /// A secret, by the company's birth and its public id.
    Secret(Revision, Name),
    /// Whose a secret is, by its public id.
    SecretOwner(Name),
}

/// A fact.
#[derive(Clone, Debug)]
pub enum Fact {
    /// The catalog.
    Catalog(Arc<Catalog>),
    /// The keyring.
    Keyring(Arc<Keyring>),
    /// A company.
    Company(Arc<Company>),
    /// A credential.
    Credential(Arc<Credential>),
    /// A company's impact revision.
    Impact(Revision),
    /// A user.
    User(Arc<User>),
    /// A user's consent to a credential.
    Consent(Arc<Consent>),
    /// A secret.
    Secret(Arc<Secret>),
    /// Whose a secret is.
    SecretOwner(Arc<SecretOwner>),
}

impl Fact {
    /// The revision that last changed it.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Catalog(catalog) => catalog.revision,
            Self::Keyring(keyring) => keyring.revision,
            Self::Company(company) => company.revision,
            Self::Credential(credential) => credential.revision,
            Self::Impact(revision) => *revision,
            Self::User(user) => user.revision,
            Self::Consent(consent) => consent.revision,
            Self::Secret(secret) => secret.revision,
            Self::SecretOwner(owner) => owner.revision,
        }
    }

    /// Gives it the revision and time of its commit.
    fn stamp(&mut self, revision: Revision, time: Timestamp) {
        match self {
            Self::Catalog(catalog) => Arc::make_mut(catalog).revision = revision,
            Self::Keyring(keyring) => Arc::make_mut(keyring).stamp(revision, time),
            Self::Company(company) => Arc::make_mut(company).stamp(revision, time),
            Self::Credential(credential) => Arc::make_mut(credential).stamp(revision, time),
            Self::Impact(at) => *at = revision,
            Self::User(user) => Arc::make_mut(user).stamp(revision, time),
            Self::Consent(consent) => Arc::make_mut(consent).stamp(revision, time),
            Self::Secret(secret) => Arc::make_mut(secret).revision = revision,
            Self::SecretOwner(owner) => Arc::make_mut(owner).revision = revision,
        }
    }
}

/// One fact's step in a proposal. The proposal rests on `before`.
#[derive(Clone, Debug)]
pub struct FactWrite {
    /// Which fact.
    pub key: FactKey,
    /// As it was read; none if it does not exist.
    pub before: Option<Fact>,
    /// As it shall be; none if it shall not exist.
    pub after: Option<Fact>,
}

/// Which request a caller may send again: a digest of the caller, the method and the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey(pub [u8; 32]);

/// What is kept of a request that was carried out, for [`IDEMPOTENCY_TTL`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReply {
    /// A digest of what was asked for.
    pub body: [u8; 32],
    /// How it was answered.
    pub reply: Vec<u8>,
}

/// What a commit remembers of its request.
pub struct IdempotencyRecord {
    /// Which request. The proposal rests on its not having been carried out.
    pub key: RequestKey,
    /// A digest of what it asks for.
    pub body: [u8; 32],
    /// Makes the answer, once the commit has its revision. Called by the writer: it must be
    /// quick, and must not wait.
    pub reply: Box<dyn FnOnce(Receipt) -> Vec<u8> + Send>,
}

/// How far ahead of the time the store's mark is kept. After a crash the clock starts at the
/// mark: what expires within this lead may end that much early, and never late (D19).
pub const CLOCK_LEAD: Duration = Duration::from_secs(2);

/// How long a request is remembered that may be sent again.
pub const IDEMPOTENCY_TTL: SignedDuration = SignedDuration::from_hours(24);

/// A change to commit. Revision and time of the change are the engine's to fill in.
pub struct Proposal {
    /// The facts that it only rests on, each at the revision that was read; none for a fact
    /// that does not exist.
    pub preconditions: Vec<(FactKey, Option<Revision>)>,
    /// The key of its caller, by its id and creation revision, which must still be in the keyring.
    /// Other keys may have come and gone: a change does not wait for a quiet keyring.
    pub caller: Option<(Name, Revision)>,
    /// The facts that it changes.
    pub steps: Vec<FactWrite>,
    /// What the log will say. Its time is the earliest that the commit may have.
    pub change: Change,
    /// What to remember of the request, if it may be sent again.
    pub remember: Option<IdempotencyRecord>,
}

impl FactWrite {
    /// Whether it gives nothing to anybody: what it leaves behind is less than there was.
    fn takes_away(&self, now: Timestamp) -> bool {
        match (&self.before, &self.after) {
            (Some(_), None) => true,
            (Some(Fact::Company(before)), Some(Fact::Company(after))) => after.narrows(before),
            (Some(Fact::Credential(before)), Some(Fact::Credential(after))) => {
                after.narrows(before, now)
            }
            (Some(Fact::User(before)), Some(Fact::User(after))) => after.narrows(before),
            (Some(Fact::Consent(before)), Some(Fact::Consent(after))) => after.narrows(before),
            (Some(Fact::Keyring(before)), Some(Fact::Keyring(after))) => after.narrows(before),
            _ => false,
        }
    }
}

impl Proposal {
    /// Whether it gives nothing to anybody. Such a change is accepted on a disk that has no space
    /// for others: a stolen key can be revoked there.
    #[must_use]
    pub fn takes_away(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|step| step.takes_away(self.change.time))
    }

    /// Whether it only deletes keys. The last of the space and of the queue is for these: whatever
    /// a stolen key did with the rest, it can be deleted.
    #[must_use]
    pub fn deletes_keys(&self) -> bool {
        self.takes_away() && self.steps.iter().all(|step| step.key == FactKey::Keyring)
    }
}

/// A committed change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The revision that it made.
    pub revision: Revision,
    /// When it was committed; no earlier than any commit before it (D19).
    pub time: Timestamp,
}

/// Why a proposal was not committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A fact that it rests on has changed: read again and propose again.
    #[error("a fact that the change rests on has changed")]
    Conflict,
    /// The engine cannot commit.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the engine cannot answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// More changes wait than the engine's queue holds.
    #[error("too many changes wait to be committed")]
    Busy,
    /// There is too little space left for a change that gives something to somebody.
    #[error(
        "the disk is nearly full: until space is freed, only changes that take away are accepted \
         (revoke, restrict, disable, delete)"
    )]
    NearlyFull,
    /// There is too little space left for any change but the deletion of keys.
    #[error("the disk is nearly full: until space is freed, nothing but keys can be deleted")]
    KeysOnly,
    /// There is too little space left to change anything. What is kept can be read.
    #[error("the disk is full: nothing is changed until space is freed")]
    Full,
    /// The company has as much as it may have.
    #[error("`{name}` {0}", name = .0.bound.name())]
    AtBound(Reached),
    /// The disk failed, or the engine is closed. Nothing more will be acknowledged.
    #[error("the store cannot answer")]
    Unavailable,
    /// What is kept does not read as what was written.
    #[error("the store is damaged")]
    Damaged,
    /// As many backups are under way as there may be.
    #[error("two backups are under way: wait for the end of one")]
    TooManyBackups,
    /// More was changed while a backup was made than its client has taken in time.
    #[error(
        "changes have overtaken the backup: make it again, nearer to the server or to a faster disk"
    )]
    BackupTooSlow,
    /// Changes up to this revision were asked for and are no longer kept.
    #[error(
        "changes up to revision {0} are no longer kept: read the state anew, and go on after it"
    )]
    Compacted(Revision),
}

/// Bytes that are not what was written.
#[derive(Debug)]
struct Corrupt;

impl From<prost::DecodeError> for Corrupt {
    fn from(_: prost::DecodeError) -> Self {
        Self
    }
}

impl From<Corrupt> for StoreError {
    fn from(_: Corrupt) -> Self {
        Self::Damaged
    }
}

/// The answer to a proposal, when it comes.
pub type CommitHandle = oneshot::Receiver<Result<Receipt, CommitError>>;

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
