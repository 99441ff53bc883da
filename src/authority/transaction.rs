//! Transaction: how every change is made. It reads the facts of one published revision, records each
//! read as a precondition, and stages the facts to write with their change record.
//!
//! INVARIANT (preconditions cover the reads): a plan reads facts by functions of [`Transaction`] that
//! record the read. Its fields are private to this module. A law in `tests` fails if a plan reads a fact
//! from the fact cache in another way. [`Transaction::report`] reads the store and records nothing: use
//! it for data of the response, and for data that no later change can make wrong.
//!
//! A plan is a function of the facts that it read. A commit is optimistic: if a precondition has changed,
//! the change is planned again from the newer facts, until it is committed or rejected.

#[cfg(test)]
pub(super) mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::error::AuthorityError;
use super::fact_cache::{ReadError, Snapshot};
use super::idempotency::IdempotencyStart;
use super::session::Session;
use super::write_options::WriteOptions;
use super::{ATTEMPTS, Authority, etag, idempotency};
use crate::metrics::wait_spans;
use crate::policy::caller::Caller;
use crate::policy::catalog::Catalog;
use crate::policy::change::{Change, ChangeKind};
use crate::policy::company::Company;
use crate::policy::consent::{Consent, Parties};
use crate::policy::credential::{AboveCeiling, Credential};
use crate::policy::edit::{Edit, Stamped};
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::keyring::Keyring;
use crate::policy::revision::Revision;
use crate::policy::scope::{Scope, ScopeId};
use crate::policy::secret::Secret;
use crate::policy::user::User;
use crate::store::{
    CommitError, CommitHandle, Fact, FactKey, FactWrite, IdempotencyRecord, Incarnation, Proposal,
    Receipt, ResultDetail, Store, StoreError, StoredResult, WriteResult,
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

/// A fact that a transaction can write with its change record.
pub(super) trait Resource: Stamped + Clone + Send + 'static {
    fn key(&self) -> FactKey;
    fn revision(&self) -> Revision;
    fn fact(self: Arc<Self>) -> Fact;
}

/// Why a plan is not complete.
pub(super) enum TransactionError<E = AuthorityError> {
    /// A fact could not be read at the snapshot's revision.
    Read(ReadError),
    /// The change is rejected.
    Rejected(E),
}

impl<E> From<ReadError> for TransactionError<E> {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl<E: From<AuthorityError>> From<AuthorityError> for TransactionError<E> {
    fn from(error: AuthorityError) -> Self {
        Self::Rejected(error.into())
    }
}

impl<E: From<AuthorityError>> From<StoreError> for TransactionError<E> {
    fn from(error: StoreError) -> Self {
        Self::Rejected(AuthorityError::from(error).into())
    }
}

impl<E: From<AuthorityError>> From<AboveCeiling> for TransactionError<E> {
    fn from(error: AboveCeiling) -> Self {
        Self::Rejected(AuthorityError::from(error).into())
    }
}

/// A change that is being planned.
pub(super) struct Transaction<'a> {
    session: &'a Session<'a>,
    subject: Subject<'a>,
    options: &'a WriteOptions,
    snapshot: Snapshot,
    /// The facts that were read, each with its revision; `None` for a fact that does not exist.
    reads: Vec<(FactKey, Option<Revision>)>,
    now: Option<Timestamp>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(
        session: &'a Session<'a>,
        subject: Subject<'a>,
        options: &'a WriteOptions,
        snapshot: Snapshot,
    ) -> Self {
        let mut reads = Vec::new();
        if session.caller == Caller::Anonymous {
            // No change without a key is committed after the first key was created.
            let at = (snapshot.keyring > Revision::ZERO).then_some(snapshot.keyring);
            reads.push((FactKey::Keyring, at));
        }
        Self { session, subject, options, snapshot, reads, now: None }
    }

    fn authority(&self) -> &'a Authority {
        self.session.authority
    }

    fn record(&mut self, key: FactKey, revision: Option<Revision>) {
        // The keyring may be read twice at different revisions. Then both are preconditions, and the
        // commit conflicts.
        if !self.reads.iter().any(|(known, at)| *known == key && *at == revision) {
            self.reads.push((key, revision));
        }
    }

    /// The catalog.
    pub(super) fn catalog(&mut self) -> Arc<Catalog> {
        let catalog = Arc::clone(&self.snapshot.catalog);
        let revision = catalog.revision;
        self.record(FactKey::Catalog, (revision > Revision::ZERO).then_some(revision));
        catalog
    }

    /// The ids of these scopes, once each, in the order of the request.
    ///
    /// # Errors
    /// The catalog lacks a scope.
    pub(super) fn resolve(
        &mut self,
        field: &'static str,
        scopes: &[Scope],
    ) -> Result<Vec<ScopeId>, AuthorityError> {
        resolve(&self.catalog(), field, scopes)
    }

    /// A company; none if it does not exist.
    pub(super) async fn find_company(
        &mut self,
        id: &CompanyId,
    ) -> Result<Option<Arc<Company>>, ReadError> {
        let company = self.authority().facts.company(self.snapshot.at, id).await?;
        self.record(FactKey::Company(id.clone()), company.as_ref().map(|found| found.revision));
        Ok(company)
    }

    /// A company.
    ///
    /// # Errors
    /// It does not exist, or cannot be read.
    pub(super) async fn company<E: From<AuthorityError>>(
        &mut self,
        id: &CompanyId,
    ) -> Result<Arc<Company>, TransactionError<E>> {
        let company = self.find_company(id).await?;
        Ok(company.ok_or_else(|| AuthorityError::CompanyNotFound(id.clone()))?)
    }

    /// A credential; none if it does not exist.
    pub(super) async fn find_credential(
        &mut self,
        company: &Company,
        id: &CredentialId,
    ) -> Result<Option<Arc<Credential>>, ReadError> {
        let of = company.created_at;
        let credential = self.authority().facts.credential(self.snapshot.at, of, id).await?;
        let revision = credential.as_ref().map(|found| found.revision);
        self.record(FactKey::Credential(of, id.clone()), revision);
        Ok(credential)
    }

    /// A credential and its company.
    ///
    /// # Errors
    /// One of them does not exist, or cannot be read.
    pub(super) async fn credential(
        &mut self,
        company_id: &CompanyId,
        id: &CredentialId,
    ) -> Result<(Arc<Company>, Arc<Credential>), TransactionError> {
        let company = self.company(company_id).await?;
        let missing = || AuthorityError::CredentialNotFound(company_id.clone(), id.clone());
        let credential = self.find_credential(&company, id).await?.ok_or_else(missing)?;
        Ok((company, credential))
    }

    /// A user; none if it does not exist.
    pub(super) async fn find_user(
        &mut self,
        company: &Company,
        id: &UserId,
    ) -> Result<Option<Arc<User>>, ReadError> {
        let of = company.created_at;
        let user = self.authority().facts.user(self.snapshot.at, of, id).await?;
        self.record(FactKey::User(of, id.clone()), user.as_ref().map(|found| found.revision));
        Ok(user)
    }

    /// A consent; none if it does not exist.
    pub(super) async fn find_consent(
        &mut self,
        parties: Parties,
    ) -> Result<Option<Arc<Consent>>, ReadError> {
        let consent = self.authority().facts.consent(self.snapshot.at, parties).await?;
        let revision = consent.as_ref().map(|found| found.revision);
        self.record(FactKey::Consent(parties), revision);
        Ok(consent)
    }

    /// A secret of a company; none if it does not exist.
    pub(super) async fn find_secret(
        &mut self,
        company: &Company,
        id: &Name,
    ) -> Result<Option<Arc<Secret>>, ReadError> {
        let of = company.created_at;
        let secret = self.authority().facts.secret(self.snapshot.at, of, id).await?;
        self.record(FactKey::Secret(of, id.clone()), secret.as_ref().map(|found| found.revision));
        Ok(secret)
    }

    /// The impact revision of a company (D7).
    pub(super) async fn impact_revision(
        &mut self,
        company: &Company,
    ) -> Result<Option<Revision>, ReadError> {
        let revision = self.authority().facts.impact(self.snapshot.at, company.created_at).await?;
        self.record(FactKey::Impact(company.created_at), revision);
        Ok(revision)
    }

    /// The impact revision of a company, for the response alone: it is no precondition.
    pub(super) async fn reported_impact_revision(
        &self,
        company: &Company,
    ) -> Result<Option<Revision>, ReadError> {
        let read = self.authority().facts.impact(self.snapshot.at, company.created_at).await;
        #[cfg(test)]
        tests::forget_read(&FactKey::Impact(company.created_at));
        read
    }

    /// The keyring. It may be newer than the other facts.
    ///
    /// # Errors
    /// The caller's key was revoked.
    pub(super) fn keyring(&mut self) -> Result<Arc<Keyring>, AuthorityError> {
        let keyring = Arc::clone(&self.authority().facts.keyring());
        self.record(FactKey::Keyring, keyring.is_used().then_some(keyring.revision));
        // Checked against this keyring or a newer one, which would conflict (revoked at once).
        if !self.authority().is_current(&self.session.caller) {
            return Err(AuthorityError::CallerRevoked);
        }
        Ok(keyring)
    }

    /// Reads data of the store for the response alone. It is no precondition, so the change must not
    /// depend on it.
    pub(super) async fn report<R: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        self.authority().facts.read_for_change(read).await
    }

    /// The time of the change, which is read once. Call it after all facts are read (D19).
    pub(super) fn now(&mut self) -> Timestamp {
        *self.now.get_or_insert_with(|| self.session.authority.clock.now())
    }

    /// Rejects an etag that is not that of this revision. A resource that does not exist has none.
    pub(super) fn check_etag(&self, at: Option<Revision>) -> Result<(), AuthorityError> {
        match &self.options.etag {
            Some(etag) if at.is_none_or(|at| *etag != self.authority().etag(at)) => {
                Err(AuthorityError::EtagStale)
            }
            _ => Ok(()),
        }
    }

    /// Plans the creation of a fact. It is a precondition that the fact does not exist.
    pub(super) fn create<T: Resource>(self, edit: Edit<T>) -> Planned<T, ()> {
        self.put(None, edit)
    }

    /// Plans the replacement of a fact, or its creation if there is none.
    pub(super) fn put<T: Resource>(self, before: Option<Arc<T>>, edit: Edit<T>) -> Planned<T, ()> {
        self.plan(before, edit, false)
    }

    /// Plans the deletion of a fact. The edit has the differences for the change record.
    pub(super) fn delete<T: Resource>(self, before: Arc<T>, edit: Edit<T>) -> Planned<T, ()> {
        self.plan(Some(before), edit, true)
    }

    fn plan<T: Resource>(
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
        let Self { session, subject, options, snapshot, reads, .. } = self;
        let seen_at = before.as_ref().map(|before| before.revision());
        let write = FactWrite {
            key: after.key(),
            before: before.map(Resource::fact),
            after: (!delete).then(|| Arc::new(after.clone()).fact()),
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
            read_at: snapshot.at,
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

impl<T: Resource, X> Planned<T, X> {
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

    /// The result of a commit with this receipt.
    fn written(
        mut after: T,
        (added, removed): (Vec<Scope>, Vec<Scope>),
        still_exists: bool,
        incarnation: Incarnation,
        Receipt { revision, time }: Receipt,
    ) -> Written<T> {
        if still_exists {
            after.stamp(revision, time);
        }
        let etag = etag::of(incarnation, after.revision());
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
        T: Resource,
        E: From<AuthorityError>,
        P: Future<Output = Result<Planned<T, X>, TransactionError<E>>>,
    {
        for _ in 0..ATTEMPTS {
            let snapshot = match self.begin(subject.kind, options).await? {
                IdempotencyStart::New(snapshot) => snapshot,
                IdempotencyStart::Repeated(result) => return Ok(Outcome::Repeated(result)),
            };
            let transaction = Transaction::new(self, subject, options, snapshot);
            let planned = match plan(transaction).await {
                Ok(planned) => planned,
                Err(TransactionError::Rejected(error)) => return Err(error),
                Err(TransactionError::Read(error)) => {
                    self.authority.wait_and_retry(error).await?;
                    continue;
                }
            };
            if let Some((written, context)) = self.commit(planned, options).await? {
                return Ok(Outcome::Written(written, context));
            }
        }
        Err(AuthorityError::Conflict.into())
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
        T: Resource,
        P: Future<Output = Result<Planned<T, X>, TransactionError>>,
    {
        for _ in 0..ATTEMPTS {
            let snapshot = self.snapshot().await?;
            match plan(Transaction::new(self, subject, options, snapshot)).await {
                Ok(planned) => return Ok(planned.into_proposal()),
                Err(TransactionError::Rejected(error)) => return Err(error),
                Err(TransactionError::Read(error)) => self.authority.wait_and_retry(error).await?,
            }
        }
        Err(AuthorityError::Conflict)
    }

    /// Commits a plan, unless the request is a dry run or the plan changes nothing. None if a
    /// precondition no longer holds.
    async fn commit<T: Resource, X>(
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
        let written =
            |receipt| Planned::<T, X>::written(after, scopes, still_exists, incarnation, receipt);
        let read = Receipt { revision: read_at, time: now };
        if options.validate_only || is_unchanged {
            // Without a commit, the reported expiry must be persisted here.
            let end = proposal.shown_end(now);
            authority.persist_reported(now, |_| end).await?;
        }
        if is_unchanged && !options.validate_only {
            return Ok(Some((written(read), context)));
        }
        if options.validate_only {
            if !is_unchanged {
                authority.facts.store().admits(&proposal)?;
            }
            // A dry run has no revision of its own: the resource has the one that would come next.
            // That resource does not exist, so the etag is the one of the present resource.
            let next = Receipt { revision: read_at.next(), ..read };
            let etag = seen_at.map(|seen| authority.etag(seen)).unwrap_or_default();
            let written = Written { etag, revision: read_at, ..written(next) };
            return Ok(Some((written, context)));
        }
        let handle = authority.queue(proposal)?;
        let receipt = authority.await_receipt(handle).await?;
        Ok(receipt.map(|receipt| (written(receipt), context)))
    }
}

impl Authority {
    /// A company and its credential at the snapshot's revision.
    pub(super) async fn credential_of(
        &self,
        view: &Snapshot,
        company: &CompanyId,
        id: &CredentialId,
    ) -> Result<(Option<Arc<Company>>, Option<Arc<Credential>>), ReadError> {
        let Some(company) = self.facts.company(view.at, company).await? else {
            return Ok((None, None));
        };
        let credential = self.facts.credential(view.at, company.created_at, id).await?;
        Ok((Some(company), credential))
    }

    /// The value of a read. None after a wait for the revision that the read needs: then start over.
    pub(super) async fn or_retry<T>(
        &self,
        read: Result<T, ReadError>,
    ) -> Result<Option<T>, AuthorityError> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(error) => self.wait_and_retry(error).await.map(|()| None),
        }
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

/// For how many unknown scopes the error proposes a similar scope.
const MAX_PROPOSALS: usize = 5;

/// The ids of these scopes, once each, in the order of the request.
///
/// # Errors
/// The catalog lacks a scope.
pub(super) fn resolve(
    catalog: &Catalog,
    field: &'static str,
    scopes: &[Scope],
) -> Result<Vec<ScopeId>, AuthorityError> {
    let mut found = Vec::with_capacity(scopes.len());
    let (mut seen, mut unknown) = (HashSet::new(), Vec::new());
    for (index, scope) in scopes.iter().enumerate() {
        match catalog.id(scope) {
            Some(id) => found.extend(seen.insert(id).then_some(id)),
            None => unknown.push((index, scope.clone())),
        }
    }
    if unknown.is_empty() {
        return Ok(found);
    }
    let near = unknown.iter().take(MAX_PROPOSALS).filter_map(|(_, scope)| {
        catalog.nearest_scope(scope).map(|near| (scope.clone(), near.clone()))
    });
    let near = near.collect();
    Err(AuthorityError::ScopesUnknown { field, unknown, near })
}
