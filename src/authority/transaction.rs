//! Transaction: how every change is committed. It reads the facts at one revision, plans the change,
//! and commits the plan if its preconditions still hold.
//!
//! A plan is a pure function of the facts. A commit is optimistic: if a precondition has changed, the
//! change is planned again from the newer facts, until it is committed or rejected.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::error::AuthorityError;
use super::fact_cache::{ReadError, Snapshot};
use super::idempotency::ReplyToStore;
use super::write_options::WriteOptions;
use super::{Authority, etag};
use crate::metrics::wait_spans;
use crate::policy::caller::Caller;
use crate::policy::catalog::Catalog;
use crate::policy::change::{Change, ChangeKind};
use crate::policy::company::Company;
use crate::policy::credential::Credential;
use crate::policy::edit::{Edit, Stamped};
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::revision::Revision;
use crate::policy::scope::{Scope, ScopeId};
use crate::store::{
    CommitError, CommitHandle, Fact, FactKey, FactWrite, Incarnation, Proposal, Receipt, StoreError,
};

/// The result of a change.
#[derive(Clone, Debug, PartialEq)]
pub struct Written<T> {
    /// The resource after the change. After a deletion, the resource as it was before.
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
    /// Other facts that change in the same commit.
    pub(super) other_writes: Vec<FactWrite>,
    /// The reply to store for a repetition of the request.
    pub(super) keep: Option<ReplyToStore<Written<T>>>,
}

/// The subject of a change in its audit record.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) kind: ChangeKind,
    pub(super) company: &'a CompanyId,
    pub(super) credential: Option<&'a CredentialId>,
    pub(super) user: Option<&'a UserId>,
}

impl<'a> Subject<'a> {
    /// The company as a whole.
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

/// A fact that a change can write.
pub(super) trait Resource: Stamped + Clone + Send + 'static {
    fn key(&self) -> FactKey;
    fn revision(&self) -> Revision;
    fn fact(self: Arc<Self>) -> Fact;
}

/// The result of one attempt to commit.
pub(super) enum Attempt<T> {
    Written(T),
    Again,
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

    /// Rejects an etag that is not the resource's. A resource that does not exist has no etag.
    pub(super) fn check_etag(
        &self,
        options: &WriteOptions,
        at: Option<Revision>,
    ) -> Result<(), AuthorityError> {
        match &options.etag {
            Some(etag) if at.is_none_or(|at| *etag != self.etag(at)) => {
                Err(AuthorityError::EtagStale)
            }
            _ => Ok(()),
        }
    }

    /// Commits a plan, unless the request is a dry run or the plan changes nothing.
    pub(super) async fn commit_plan<T: Resource>(
        &self,
        view: &Snapshot,
        plan: WritePlan<T>,
        subject: Subject<'_>,
        options: &WriteOptions,
        now: Timestamp,
    ) -> Result<Attempt<Written<T>>, AuthorityError> {
        let nothing = plan.before.is_some() && !plan.delete && plan.edit.is_none();
        let seen_at = plan.before.as_ref().map(|before| before.revision());
        let (proposal, pending) = self.propose(view, plan, subject, options, now);
        let unchanged = Receipt { revision: view.at, time: now };
        if options.validate_only || nothing {
            // Without a commit, the reported expiry must be persisted here.
            let end = proposal.shown_end(now);
            self.persist_reported(now, |_| end).await?;
        }
        if options.validate_only {
            if !nothing {
                self.facts.store().admits(&proposal)?;
            }
            // A dry run has no revision of its own: the resource has the one that would come next.
            // That resource does not exist, so the etag is the one of the present resource.
            let next = Receipt { revision: view.at.next(), ..unchanged };
            let etag = seen_at.map(|seen| self.etag(seen)).unwrap_or_default();
            let revision = view.at;
            return Ok(Attempt::Written(Written { etag, revision, ..pending.into_written(next) }));
        }
        if nothing {
            return Ok(Attempt::Written(pending.into_written(unchanged)));
        }
        let committed = self.commit(proposal).await?;
        Ok(committed
            .map_or(Attempt::Again, |receipt| Attempt::Written(pending.into_written(receipt))))
    }

    /// The proposal of a plan to the store, and the resource that the plan makes.
    pub(super) fn propose<T: Resource>(
        &self,
        view: &Snapshot,
        plan: WritePlan<T>,
        subject: Subject<'_>,
        options: &WriteOptions,
        now: Timestamp,
    ) -> (Proposal, PendingWrite<T>) {
        let WritePlan { before, edit, delete, mut preconditions, other_writes, keep } = plan;
        preconditions.extend(require_keyring(view, &options.caller));
        let nothing = before.is_some() && !delete && edit.is_none();
        let Edit { after, added, removed, displaced, fields } = edit;
        let (added, removed) = (view.catalog.names(&added), view.catalog.names(&removed));
        let incarnation = self.incarnation();
        let pending =
            PendingWrite { after, added, removed, still_exists: !nothing && !delete, incarnation };
        let change = Change {
            revision: Revision::NEXT,
            time: now,
            author: options.author.clone(),
            kind: subject.kind,
            company: Some(subject.company.clone()),
            credential: subject.credential.cloned(),
            user: subject.user.cloned(),
            added: pending.added.clone(),
            removed: pending.removed.clone(),
            displaced,
            fields,
        };
        let step = FactWrite {
            key: pending.after.key(),
            before: before.map(Resource::fact),
            after: (!delete).then(|| Arc::new(pending.after.clone()).fact()),
        };
        let steps = [step].into_iter().chain(other_writes).collect();
        let remember = keep.map(|keep| {
            let pending = pending.clone();
            keep.remember(options, subject.kind, |receipt| pending.into_written(receipt))
        });
        let caller = key_of(&options.caller);
        (Proposal { preconditions, caller, writes: steps, change, idempotency: remember }, pending)
    }

    /// Commits a proposal; none if a precondition failed.
    pub(super) async fn commit(
        &self,
        proposal: Proposal,
    ) -> Result<Option<Receipt>, AuthorityError> {
        let handle = self.queue(proposal)?;
        Ok(self.await_receipt(handle).await?)
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

/// The resource that a plan makes, before its commit.
#[derive(Clone)]
pub(super) struct PendingWrite<T> {
    after: T,
    added: Vec<Scope>,
    removed: Vec<Scope>,
    /// The resource changes, and exists after the commit.
    still_exists: bool,
    incarnation: Incarnation,
}

impl<T: Resource> PendingWrite<T> {
    /// The result of a commit with this receipt.
    fn into_written(self, receipt: Receipt) -> Written<T> {
        let Self { mut after, added, removed, still_exists, incarnation } = self;
        let Receipt { revision, time } = receipt;
        if still_exists {
            after.stamp(revision, time);
        }
        let etag = etag::of(incarnation, after.revision());
        Written { resource: after, etag, added, removed, revision }
    }
}

/// The precondition that the catalog is the one whose scopes the change names.
pub(super) fn require_catalog(view: &Snapshot) -> (FactKey, Option<Revision>) {
    let revision = view.catalog.revision;
    (FactKey::Catalog, (revision > Revision::ZERO).then_some(revision))
}

/// The key of the caller, which must still exist at the commit (revoked at once).
pub(super) fn key_of(caller: &Caller) -> Option<(Name, Revision)> {
    match caller {
        Caller::Key(key) => Some((key.id.clone(), key.created_at)),
        Caller::Internal | Caller::Anonymous => None,
    }
}

/// The precondition of a change without a key: the keyring has not changed since the caller was
/// accepted. After the first key was created, no such change is committed.
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

/// The precondition that the company, with its ceiling, is the one that the change was planned for.
pub(super) fn require_company(company: &Company) -> (FactKey, Option<Revision>) {
    (FactKey::Company(company.id.clone()), Some(company.revision))
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
