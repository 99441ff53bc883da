//! Ledger: every change. Read the facts at one revision, plan, commit if they still stand.
//!
//! A plan is pure; a commit is optimistic. When the facts that a plan rests on have changed,
//! it is made again from the newer ones, until it stands or is refused.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::error::AuthorityError;
use super::fact_cache::{ReadError, Snapshot};
use super::idempotency::{IdempotencyKey, ReplyToStore};
use super::{Authority, etag, shown_end};
use crate::metrics::wait_spans;
use crate::policy::caller::Caller;
use crate::policy::catalog::Catalog;
use crate::policy::change::{Author, Change, ChangeKind};
use crate::policy::company::Company;
use crate::policy::credential::Credential;
use crate::policy::edit::{Edit, Stamped};
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::revision::Revision;
use crate::policy::scope::{Scope, ScopeId};
use crate::store::{
    CommitError, CommitHandle, Fact, FactKey, FactWrite, Incarnation, Proposal, Receipt, StoreError,
};

/// The terms of a change: what its request says beside what to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Who makes it. The change is committed only if that is still so.
    pub caller: Caller,
    /// What the audit record says of who makes it, and why.
    pub author: Author,
    /// The state that the caller has seen, if it says so.
    pub etag: Option<String>,
    /// Only answer as the change would.
    pub validate_only: bool,
    /// Which request it is, if its caller may send it again.
    pub request: Option<IdempotencyKey>,
}

/// What a change did.
#[derive(Clone, Debug, PartialEq)]
pub struct Written<T> {
    /// The resource as it is after the change, or as it was last.
    pub resource: T,
    /// Its etag.
    pub etag: String,
    /// Scopes that entered the set, sorted.
    pub added: Vec<Scope>,
    /// Scopes that left the set, sorted.
    pub removed: Vec<Scope>,
    /// The change's revision, or the current one if nothing changed.
    pub revision: Revision,
}

/// One fact's change, planned.
pub(super) struct WritePlan<T> {
    pub(super) before: Option<Arc<T>>,
    pub(super) edit: Edit<T>,
    pub(super) delete: bool,
    pub(super) preconditions: Vec<(FactKey, Option<Revision>)>,
    /// Other facts that change with it.
    pub(super) beside: Vec<FactWrite>,
    /// What is kept of the request.
    pub(super) keep: Option<ReplyToStore<Written<T>>>,
}

/// What a change is about: the subject of its audit record.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) kind: ChangeKind,
    pub(super) company: &'a CompanyId,
    pub(super) credential: Option<&'a CredentialId>,
    pub(super) user: Option<&'a UserId>,
}

impl<'a> Subject<'a> {
    /// A company as a whole.
    pub(super) fn of(kind: ChangeKind, company: &'a CompanyId) -> Self {
        Self { kind, company, credential: None, user: None }
    }
}

impl<T> Written<T> {
    pub(super) fn map<U>(self, view: impl FnOnce(T) -> U) -> Written<U> {
        let Self { resource, etag, added, removed, revision } = self;
        Written { resource: view(resource), etag, added, removed, revision }
    }
}

/// A fact that a change is made of.
pub(super) trait Resource: Stamped + Clone + Send + 'static {
    fn key(&self) -> FactKey;
    fn revision(&self) -> Revision;
    fn fact(self: Arc<Self>) -> Fact;
}

/// The end of one attempt.
pub(super) enum Attempt<T> {
    Written(T),
    Again,
}

impl Authority {
    /// A company and its credential at a view's revision.
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

    /// What was told, or none after waiting for what was missed.
    pub(super) async fn or_retry<T>(
        &self,
        told: Result<T, ReadError>,
    ) -> Result<Option<T>, AuthorityError> {
        match told {
            Ok(told) => Ok(Some(told)),
            Err(missed) => self.wait_and_retry(missed).await.map(|()| None),
        }
    }

    /// Refuses an etag that is not the resource's; what does not exist has none.
    pub(super) fn check_etag(
        &self,
        terms: &WriteOptions,
        at: Option<Revision>,
    ) -> Result<(), AuthorityError> {
        match &terms.etag {
            Some(etag) if at.is_none_or(|at| *etag != self.etag(at)) => {
                Err(AuthorityError::EtagStale)
            }
            _ => Ok(()),
        }
    }

    /// Commits a plan, unless it is only to be validated or changes nothing.
    pub(super) async fn commit_plan<T: Resource>(
        &self,
        view: &Snapshot,
        plan: WritePlan<T>,
        subject: Subject<'_>,
        terms: &WriteOptions,
        now: Timestamp,
    ) -> Result<Attempt<Written<T>>, AuthorityError> {
        let nothing = plan.before.is_some() && !plan.delete && plan.edit.is_none();
        let seen_at = plan.before.as_ref().map(|before| before.revision());
        let (proposal, made) = self.propose(view, plan, subject, terms, now);
        let nowhere = Receipt { revision: view.at, time: now };
        if terms.validate_only || nothing {
            // No commit keeps the time of what is told.
            let end = shown_end(&proposal, now);
            self.keep_told(now, |_| end).await?;
        }
        if terms.validate_only {
            if !nothing {
                self.facts.store().admits(&proposal)?;
            }
            // A dry run has no revision of its own: it shows the one that would come next. What
            // it shows does not exist: its etag is that of what does.
            let next = Receipt { revision: view.at.next(), ..nowhere };
            let etag = seen_at.map(|seen| self.etag(seen)).unwrap_or_default();
            let revision = view.at;
            return Ok(Attempt::Written(Written { etag, revision, ..made.done(next) }));
        }
        if nothing {
            return Ok(Attempt::Written(made.done(nowhere)));
        }
        let committed = self.commit(proposal).await?;
        Ok(committed.map_or(Attempt::Again, |receipt| Attempt::Written(made.done(receipt))))
    }

    /// What a plan proposes to the store, and what it makes of its resource.
    pub(super) fn propose<T: Resource>(
        &self,
        view: &Snapshot,
        plan: WritePlan<T>,
        subject: Subject<'_>,
        terms: &WriteOptions,
        now: Timestamp,
    ) -> (Proposal, PendingWrite<T>) {
        let WritePlan { before, edit, delete, mut preconditions, beside, keep } = plan;
        preconditions.extend(require_keyring(view, &terms.caller));
        let nothing = before.is_some() && !delete && edit.is_none();
        let Edit { after, added, removed, displaced, fields } = edit;
        let (added, removed) = (view.catalog.names(&added), view.catalog.names(&removed));
        let incarnation = self.incarnation();
        let made =
            PendingWrite { after, added, removed, lives_on: !nothing && !delete, incarnation };
        let change = Change {
            revision: Revision::NEXT,
            time: now,
            author: terms.author.clone(),
            kind: subject.kind,
            company: Some(subject.company.clone()),
            credential: subject.credential.cloned(),
            user: subject.user.cloned(),
            added: made.added.clone(),
            removed: made.removed.clone(),
            displaced,
            fields,
        };
        let step = FactWrite {
            key: made.after.key(),
            before: before.map(Resource::fact),
            after: (!delete).then(|| Arc::new(made.after.clone()).fact()),
        };
        let steps = [step].into_iter().chain(beside).collect();
        let remember = keep.map(|keep| {
            let made = made.clone();
            keep.remember(terms, subject.kind, |receipt| made.done(receipt))
        });
        let caller = key_of(&terms.caller);
        (Proposal { preconditions, caller, writes: steps, change, idempotency: remember }, made)
    }

    /// Commits a proposal; none if what it rests on has changed.
    pub(super) async fn commit(
        &self,
        proposal: Proposal,
    ) -> Result<Option<Receipt>, AuthorityError> {
        let ticket = self.queue(proposal)?;
        Ok(self.answered(ticket).await?)
    }
}

/// The answer to a queued proposal; none if what it rests on has changed.
pub(super) async fn await_commit(ticket: CommitHandle) -> Result<Option<Receipt>, StoreError> {
    let revision = |answer: &Result<Result<Receipt, _>, _>| {
        let receipt = answer.as_ref().ok()?.as_ref().ok()?;
        Some(receipt.revision.0)
    };
    match wait_spans::step_to("commit", ticket, revision).await {
        Ok(Ok(receipt)) => Ok(Some(receipt)),
        Ok(Err(CommitError::Conflict)) => Ok(None),
        Ok(Err(CommitError::Store(error))) => Err(error),
        Err(_) => Err(StoreError::Unavailable),
    }
}

/// What a plan made of its resource.
#[derive(Clone)]
pub(super) struct PendingWrite<T> {
    after: T,
    added: Vec<Scope>,
    removed: Vec<Scope>,
    /// It was changed, and still exists.
    lives_on: bool,
    incarnation: Incarnation,
}

impl<T: Resource> PendingWrite<T> {
    /// What a commit with this receipt did.
    fn done(self, receipt: Receipt) -> Written<T> {
        let Self { mut after, added, removed, lives_on, incarnation } = self;
        let Receipt { revision, time } = receipt;
        if lives_on {
            after.stamp(revision, time);
        }
        let etag = etag::of(incarnation, after.revision());
        Written { resource: after, etag, added, removed, revision }
    }
}

/// A change means the scopes of this catalog.
pub(super) fn require_catalog(view: &Snapshot) -> (FactKey, Option<Revision>) {
    let revision = view.catalog.revision;
    (FactKey::Catalog, (revision > Revision::ZERO).then_some(revision))
}

/// The key that a change's caller must still have at the commit (revoked at once).
pub(super) fn key_of(caller: &Caller) -> Option<(Name, Revision)> {
    match caller {
        Caller::Key(key) => Some((key.id.clone(), key.created_at)),
        Caller::Internal | Caller::Anonymous => None,
    }
}

/// A change without a key stands only as long as the keyring is the one that let it in: from the
/// first key on, no such change is committed.
pub(super) fn require_keyring(
    view: &Snapshot,
    caller: &Caller,
) -> Option<(FactKey, Option<Revision>)> {
    let at = (view.keyring > Revision::ZERO).then_some(view.keyring);
    match caller {
        Caller::Anonymous => Some((FactKey::Keyring, at)),
        Caller::Internal | Caller::Key(_) => None,
    }
}

/// A change of a credential stands only under the ceiling that it was planned under.
pub(super) fn require_company(company: &Company) -> (FactKey, Option<Revision>) {
    (FactKey::Company(company.id.clone()), Some(company.revision))
}

/// For how many unknown scopes the catalog is searched for the one that was meant.
const MAX_PROPOSALS: usize = 5;

/// The numbers of these scopes, once each, in the order named.
pub(super) fn resolve(
    catalog: &Catalog,
    field: &'static str,
    scopes: &[Scope],
) -> Result<Vec<ScopeId>, AuthorityError> {
    let mut found = Vec::with_capacity(scopes.len());
    let (mut seen, mut unknown) = (HashSet::new(), Vec::new());
    for (place, scope) in scopes.iter().enumerate() {
        match catalog.id(scope) {
            Some(id) => found.extend(seen.insert(id).then_some(id)),
            None => unknown.push((place, scope.clone())),
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
