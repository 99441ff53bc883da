//! Transaction: how every change is made. It reads the facts of one published revision, records each
//! read as a precondition, and stages the facts to write with their change record.
//!
//! INVARIANT (preconditions cover the reads): a plan reads facts by its [`Reader`], which records each
//! read. A law in `tests` fails if a plan reads a fact from the fact cache in another way.
//! `Reader::report` reads the store and records nothing: use it for data of the response, and for data
//! that no later change can make wrong.
//!
//! A plan is a function of the facts that it read. A commit is optimistic: if a precondition has changed,
//! the change is planned again from the newer facts, until it is committed or rejected.

#[cfg(test)]
pub(super) mod tests;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use jiff::Timestamp;

use super::error::AuthorityError;
use super::idempotency::IdempotencyStart;
pub(super) use super::reader::{Reader, TransactionError};
use super::session::Session;
use super::write_options::WriteOptions;
use super::{ATTEMPTS, etag, idempotency};
use crate::metrics::wait_spans;
use crate::policy::caller::Caller;
use crate::policy::change::{Change, ChangeKind};
use crate::policy::edit::Edit;
use crate::policy::id::{CompanyId, CredentialId, UserId};
use crate::policy::revision::Revision;
use crate::policy::scope::{Scope, ScopeId};
use crate::store::{
    CommitError, CommitHandle, Fact, FactKind, FactWrite, IdempotencyRecord, Incarnation, Proposal,
    Receipt, ResultDetail, StoreError, StoredResult, WriteResult,
};

/// The result of a change.
#[derive(Clone, Debug, PartialEq)]
pub struct Written<T> {
    /// The resource after the change. After a deletion, the resource as it was before. If the caller
    /// sent the request again, the resource as it is now; none if it does not exist.
    pub resource: Option<T>,
    /// Its etag; empty without a resource.
    pub etag: String,
    /// Scopes that entered the set, sorted.
    pub added: Vec<Scope>,
    /// Scopes that left the set, sorted.
    pub removed: Vec<Scope>,
    /// The change's revision, or the current one if nothing changed.
    pub revision: Revision,
}

impl<T> Written<T> {
    pub(super) fn map<U>(self, view: impl FnOnce(T) -> U) -> Written<U> {
        let Self { resource, etag, added, removed, revision } = self;
        Written { resource: resource.map(view), etag, added, removed, revision }
    }
}

/// The result of a transaction: what it wrote with the data of its plan, or what the same request wrote
/// when it was sent first.
pub(super) enum Outcome<T, X> {
    Written(Written<T>, X),
    Repeated(StoredResult),
}

/// What a change is about, for its audit record.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) kind: ChangeKind,
    pub(super) company: Option<&'a CompanyId>,
    pub(super) credential: Option<&'a CredentialId>,
    pub(super) user: Option<&'a UserId>,
}

impl<'a> Subject<'a> {
    /// A fact of the whole store.
    pub(super) fn store(kind: ChangeKind) -> Self {
        Self { kind, company: None, credential: None, user: None }
    }

    /// A company as a whole.
    pub(super) fn of(kind: ChangeKind, company: &'a CompanyId) -> Self {
        Self { company: Some(company), ..Self::store(kind) }
    }
}

/// A change that is being planned. It reads facts by its [`Reader`].
pub(super) struct Transaction<'a> {
    reader: Reader<'a>,
    subject: Subject<'a>,
    options: &'a WriteOptions,
}

impl<'a> Deref for Transaction<'a> {
    type Target = Reader<'a>;

    fn deref(&self) -> &Reader<'a> {
        &self.reader
    }
}

impl DerefMut for Transaction<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.reader
    }
}

impl<'a> Transaction<'a> {
    fn new(reader: Reader<'a>, subject: Subject<'a>, options: &'a WriteOptions) -> Self {
        Self { reader, subject, options }
    }

    /// Rejects an etag that is not that of this revision. A resource that does not exist has none.
    pub(super) fn check_etag(&self, at: Option<Revision>) -> Result<(), AuthorityError> {
        match &self.options.etag {
            Some(etag) if at.is_none_or(|at| *etag != self.session().authority.etag(at)) => {
                Err(AuthorityError::EtagStale)
            }
            _ => Ok(()),
        }
    }

    /// Plans the creation of a fact. It is a precondition that the fact does not exist.
    pub(super) fn create<T: FactKind>(self, edit: Edit<T>) -> Planned<T, ()> {
        self.put(None, edit)
    }

    /// Plans the replacement of a fact, or its creation if there is none.
    pub(super) fn put<T: FactKind>(self, before: Option<Arc<T>>, edit: Edit<T>) -> Planned<T, ()> {
        self.plan(before, edit, false)
    }

    /// Plans the deletion of a fact. The edit has the differences for the change record.
    pub(super) fn delete<T: FactKind>(self, before: Arc<T>, edit: Edit<T>) -> Planned<T, ()> {
        self.plan(Some(before), edit, true)
    }

    fn plan<T: FactKind>(
        mut self,
        before: Option<Arc<T>>,
        edit: Edit<T>,
        delete: bool,
    ) -> Planned<T, ()> {
        let is_unchanged = before.is_some() && !delete && edit.is_none();
        let Edit { after, added, removed, displaced, fields } = edit;
        let mut names = |ids: &[ScopeId]| match ids {
            [] => vec![],
            ids => self.catalog().names(ids),
        };
        let (added, removed) = (names(&added), names(&removed));
        let now = self.now();
        let Self { reader, subject, options } = self;
        let (session, read_at, reads) = reader.into_parts();
        let seen_at = before.as_ref().map(|before| before.revision());
        let write = FactWrite {
            key: after.key(),
            before: before.map(FactKind::into_fact),
            after: (!delete).then(|| Arc::new(after.clone()).into_fact()),
        };
        let change = Change {
            revision: Revision::NEXT,
            time: now,
            author: session.author(&options.reason, &options.on_behalf_of),
            kind: subject.kind,
            company: subject.company.cloned(),
            credential: subject.credential.cloned(),
            user: subject.user.cloned(),
            added,
            removed,
            displaced,
            fields,
        };
        let caller = match &session.caller {
            Caller::Key(key) => Some((key.id.clone(), key.created_at)),
            Caller::Internal | Caller::Anonymous => None,
        };
        let idempotency = options.to_remember().map(|request| IdempotencyRecord {
            key: idempotency::key(&session.caller, subject.kind, request),
            body: request.body,
            result: WriteResult::default(),
        });
        let proposal =
            Proposal { preconditions: reads, caller, writes: vec![write], change, idempotency };
        Planned {
            proposal,
            after,
            still_exists: !is_unchanged && !delete,
            is_unchanged,
            seen_at,
            read_at,
            detail: ResultDetail::None,
            context: (),
        }
    }
}

/// A planned change: the proposal to the store, and the data for the response.
pub(super) struct Planned<T, X> {
    proposal: Proposal,
    after: T,
    /// The resource changes, and exists after the commit.
    still_exists: bool,
    is_unchanged: bool,
    /// The revision of the resource before the change.
    seen_at: Option<Revision>,
    /// The revision of the facts.
    read_at: Revision,
    detail: ResultDetail,
    context: X,
}

impl<T: FactKind, X> Planned<T, X> {
    /// Adds the write of another fact to the change.
    pub(super) fn with_write(mut self, write: FactWrite) -> Self {
        self.proposal.writes.push(write);
        self
    }

    /// Sets the names of the scopes that the change adds and removes.
    pub(super) fn with_scopes(mut self, added: Vec<Scope>, removed: Vec<Scope>) -> Self {
        (self.proposal.change.added, self.proposal.change.removed) = (added, removed);
        self
    }

    /// Commits the change also if the edit has no differences.
    pub(super) fn even_if_unchanged(self) -> Self {
        Self { is_unchanged: false, still_exists: true, ..self }
    }

    /// Sets the detail that is stored for a repetition of the request.
    pub(super) fn with_detail(self, detail: ResultDetail) -> Self {
        Self { detail, ..self }
    }

    /// Sets the data that the response needs.
    pub(super) fn with_context<Y>(self, context: Y) -> Planned<T, Y> {
        let Self { proposal, after, still_exists, is_unchanged, seen_at, read_at, detail, .. } =
            self;
        Planned { proposal, after, still_exists, is_unchanged, seen_at, read_at, detail, context }
    }

    /// The proposal to the store.
    pub(super) fn into_proposal(mut self) -> Proposal {
        self.complete();
        #[cfg(test)]
        tests::assert_covered(&self.proposal);
        self.proposal
    }

    /// Completes the proposal: a fact that is written has its precondition in the write.
    fn complete(&mut self) {
        let Proposal { preconditions, writes, change, idempotency, .. } = &mut self.proposal;
        preconditions.retain(|(key, at)| {
            let of = |write: &&FactWrite| write.key == *key;
            let is_same = |write: &FactWrite| write.before.as_ref().map(Fact::revision) == *at;
            !writes.iter().find(of).is_some_and(is_same)
        });
        if let Some(record) = idempotency {
            record.result = WriteResult {
                added: change.added.clone(),
                removed: change.removed.clone(),
                detail: std::mem::take(&mut self.detail),
            };
        }
    }

    /// The result of a commit at this revision and time. A resource that is deleted, or does not change, has the
    /// etag that it was read with.
    fn written(
        mut after: T,
        (added, removed): (Vec<Scope>, Vec<Scope>),
        unstamped: Option<Revision>,
        incarnation: Incarnation,
        (revision, time): (Revision, Timestamp),
    ) -> Written<T> {
        if unstamped.is_none() {
            after.stamp(revision, time);
        }
        let etag = etag::of(incarnation, unstamped.unwrap_or(revision));
        Written { resource: Some(after), etag, added, removed, revision }
    }
}

impl<'s> Session<'s> {
    /// Makes a change: plans it from the facts, and commits the plan if its preconditions still hold. A
    /// dry run, and a plan that changes nothing, are not committed.
    ///
    /// # Errors
    /// The plan is rejected, the caller's key was revoked, the `request_id` belongs to another request,
    /// or other changes of the same facts came first in every attempt.
    pub(super) async fn write<'t, T, X, E, P>(
        &'t self,
        subject: Subject<'t>,
        options: &'t WriteOptions,
        plan: impl Fn(Transaction<'t>) -> P,
    ) -> Result<Outcome<T, X>, E>
    where
        's: 't,
        T: FactKind,
        E: From<AuthorityError>,
        P: Future<Output = Result<Planned<T, X>, TransactionError<E>>>,
    {
        for _ in 0..ATTEMPTS {
            let snapshot = match self.begin(subject.kind, options).await {
                Ok(IdempotencyStart::New(snapshot)) => snapshot,
                Ok(IdempotencyStart::Repeated(result)) => {
                    self.settle(options).await?;
                    return Ok(Outcome::Repeated(result));
                }
                Err(error) => return Err(self.refused(error, options).await.into()),
            };
            let reader = Reader::new(self, snapshot);
            let planned = match plan(Transaction::new(reader, subject, options)).await {
                Ok(planned) => planned,
                Err(TransactionError::Rejected(error)) => {
                    self.settle(options).await?;
                    return Err(error);
                }
                Err(TransactionError::Read(error)) => {
                    self.authority.wait_and_retry(error).await?;
                    continue;
                }
            };
            match self.commit(planned, options).await {
                Ok(Some((written, context))) => return Ok(Outcome::Written(written, context)),
                Ok(None) => {}
                Err(error) => return Err(self.refused(error, options).await.into()),
            }
        }
        Err(self.refused(AuthorityError::Conflict, options).await.into())
    }

    /// Waits until every replica shows what the answer tells. A repeat of a change, a change that changes
    /// nothing, and a refusal that rests on facts acknowledge a state, as a committed change does.
    pub(super) async fn everywhere(&self) -> Result<(), AuthorityError> {
        let store = self.authority.facts.store();
        self.note_wait(store.everywhere(self.authority.published()).await?);
        Ok(())
    }

    /// As [`Self::everywhere`]. A dry run waits for nothing.
    async fn settle(&self, options: &WriteOptions) -> Result<(), AuthorityError> {
        if options.validate_only { Ok(()) } else { self.everywhere().await }
    }

    /// The error of a change, when every replica shows the facts that it rests on.
    async fn refused(&self, error: AuthorityError, options: &WriteOptions) -> AuthorityError {
        let is_of_facts = match &error {
            AuthorityError::Store(error) => matches!(error, StoreError::AtBound(_)),
            _ => true,
        };
        match is_of_facts {
            true => self.settle(options).await.err().unwrap_or(error),
            false => error,
        }
    }

    /// The proposal of a change that is committed elsewhere: an import commits many at once.
    ///
    /// # Errors
    /// As for [`Self::write`].
    pub(super) async fn proposal<'t, T, X, P>(
        &'t self,
        subject: Subject<'t>,
        options: &'t WriteOptions,
        plan: impl Fn(Transaction<'t>) -> P,
    ) -> Result<Proposal, AuthorityError>
    where
        's: 't,
        T: FactKind,
        P: Future<Output = Result<Planned<T, X>, TransactionError>>,
    {
        for _ in 0..ATTEMPTS {
            let reader = Reader::new(self, self.snapshot().await?);
            match plan(Transaction::new(reader, subject, options)).await {
                Ok(planned) => return Ok(planned.into_proposal()),
                Err(TransactionError::Rejected(error)) => return Err(error),
                Err(TransactionError::Read(error)) => self.authority.wait_and_retry(error).await?,
            }
        }
        Err(AuthorityError::Conflict)
    }

    /// Commits a plan, unless the request is a dry run or the plan changes nothing. None if a
    /// precondition no longer holds.
    async fn commit<T: FactKind, X>(
        &self,
        mut planned: Planned<T, X>,
        options: &WriteOptions,
    ) -> Result<Option<(Written<T>, X)>, AuthorityError> {
        planned.complete();
        #[cfg(test)]
        tests::assert_covered(&planned.proposal);
        let Planned {
            proposal, after, still_exists, is_unchanged, seen_at, read_at, context, ..
        } = planned;
        let authority = self.authority;
        let now = proposal.change.time;
        let scopes = (proposal.change.added.clone(), proposal.change.removed.clone());
        let incarnation = authority.incarnation();
        let unstamped = seen_at.filter(|_| !still_exists);
        let written = |at| Planned::<T, X>::written(after, scopes, unstamped, incarnation, at);
        let read = (read_at, now);
        if options.validate_only || is_unchanged {
            // Without a commit, the reported expiry must be persisted here.
            let end = proposal.shown_end(now);
            authority.persist_reported(now, |_| end).await?;
        }
        if is_unchanged && !options.validate_only {
            self.settle(options).await?;
            return Ok(Some((written(read), context)));
        }
        if options.validate_only {
            if !is_unchanged {
                authority.facts.store().admits(&proposal)?;
            }
            // A dry run has no revision of its own: the resource has the one that would come next.
            // That resource does not exist, so the etag is the one of the present resource.
            let next = (read_at.next(), now);
            let etag = seen_at.map(|seen| authority.etag(seen)).unwrap_or_default();
            let written = Written { etag, revision: read_at, ..written(next) };
            return Ok(Some((written, context)));
        }
        let handle = authority.queue(proposal)?;
        let receipt = authority.await_receipt(handle).await?;
        Ok(receipt.map(|Receipt { revision, time, waited }| {
            self.note_wait(waited);
            (written((revision, time)), context)
        }))
    }
}

/// Waits for the receipt of a queued proposal; none if a precondition failed.
pub(super) async fn await_commit(handle: CommitHandle) -> Result<Option<Receipt>, StoreError> {
    let revision = |answer: &Result<Result<Receipt, _>, _>| {
        let receipt = answer.as_ref().ok()?.as_ref().ok()?;
        Some(receipt.revision.0)
    };
    match wait_spans::span_to_revision("commit", handle, revision).await {
        Ok(Ok(receipt)) => Ok(Some(receipt)),
        Ok(Err(CommitError::Conflict)) => Ok(None),
        Ok(Err(CommitError::Store(error))) => Err(error),
        Err(_) => Err(StoreError::Unavailable),
    }
}
