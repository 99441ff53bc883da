//! Reader: reads the facts of one published snapshot for one session, and records each read. A change
//! makes its preconditions from the record.
//!
//! Not here: the reads of a check, which have a cache of their own; see [`super::check`].

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::error::AuthorityError;
use super::fact_cache::{ReadError, Snapshot};
use super::session::Session;
use super::{ATTEMPTS, Authority};
use crate::policy::caller::Caller;
use crate::policy::catalog::Catalog;
use crate::policy::company::{Company, ImpactRevision};
use crate::policy::credential::{AboveCeiling, Credential};
use crate::policy::id::{CompanyId, CredentialId};
use crate::policy::keyring::Keyring;
use crate::policy::revision::Revision;
use crate::policy::scope::{Scope, ScopeId};
use crate::store::{FactKey, FactKind, Store, StoreError};

/// Why a plan or a read is not complete.
pub(super) enum TransactionError<E = AuthorityError> {
    /// A fact could not be read at the snapshot's revision.
    Read(ReadError),
    /// It is rejected.
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

/// A reader of the facts of one snapshot.
pub(super) struct Reader<'a> {
    session: &'a Session<'a>,
    snapshot: Snapshot,
    /// The facts that were read, each with its revision; `None` for a fact that does not exist.
    reads: Vec<(FactKey, Option<Revision>)>,
    now: Option<Timestamp>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(session: &'a Session<'a>, snapshot: Snapshot) -> Self {
        let mut reads = Vec::new();
        if session.caller == Caller::Anonymous {
            // No change without a key is committed after the first key was created.
            let at = (snapshot.keyring > Revision::ZERO).then_some(snapshot.keyring);
            reads.push((FactKey::Keyring, at));
        }
        Self { session, snapshot, reads, now: None }
    }

    /// The session, the revision of the facts, and the record of the reads.
    pub(super) fn into_parts(
        self,
    ) -> (&'a Session<'a>, Revision, Vec<(FactKey, Option<Revision>)>) {
        (self.session, self.snapshot.at, self.reads)
    }

    /// The session.
    pub(super) fn session(&self) -> &'a Session<'a> {
        self.session
    }

    /// The revision of the facts.
    pub(super) fn revision(&self) -> Revision {
        self.snapshot.at
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

    /// A fact; none if it does not exist.
    pub(super) async fn find<T: FactKind>(
        &mut self,
        key: T::Key<'_>,
    ) -> Result<Option<Arc<T>>, ReadError> {
        let fact = self.authority().facts.get::<T>(self.snapshot.at, key, None).await?;
        self.record(T::key_of(key).to_key(), fact.as_ref().map(|fact| fact.revision()));
        Ok(fact)
    }

    /// A company.
    ///
    /// # Errors
    /// It does not exist, or cannot be read.
    pub(super) async fn company<E: From<AuthorityError>>(
        &mut self,
        id: &CompanyId,
    ) -> Result<Arc<Company>, TransactionError<E>> {
        let company = self.find(id).await?;
        Ok(company.ok_or_else(|| AuthorityError::CompanyNotFound(id.clone()))?)
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
        let credential = self.find((&company.created_at, id)).await?.ok_or_else(missing)?;
        Ok((company, credential))
    }

    /// The impact revision of a company (D7).
    pub(super) async fn impact_revision(
        &mut self,
        company: &Company,
    ) -> Result<Option<Revision>, ReadError> {
        let impact = self.find::<ImpactRevision>(&company.created_at).await?;
        Ok(impact.map(|impact| impact.revision))
    }

    /// The impact revision of a company, for the response alone: it is no precondition.
    pub(super) async fn reported_impact_revision(
        &self,
        company: &Company,
    ) -> Result<Option<Revision>, ReadError> {
        let facts = &self.authority().facts;
        let impact = facts.get::<ImpactRevision>(self.snapshot.at, &company.created_at, None).await;
        #[cfg(test)]
        super::transaction::tests::forget_read(&FactKey::Impact(company.created_at));
        Ok(impact?.map(|impact| impact.revision))
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

    /// Reads data of the store that is no precondition: data of the response, or data that no later change
    /// can make wrong.
    pub(super) async fn report<R: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        self.authority().facts.read_for_change(read).await
    }

    /// The time of the change, which is read once. Call it after all facts are read (D19).
    pub(super) fn now(&mut self) -> Timestamp {
        *self.now.get_or_insert_with(|| self.session.authority.clock.now())
    }
}

impl<'s> Session<'s> {
    /// Reads facts of one snapshot. If a fact is younger than the snapshot, it starts over.
    ///
    /// # Errors
    /// What the reads report, or facts that change in every attempt.
    pub(super) async fn read<'t, R, P>(
        &'t self,
        read: impl Fn(Reader<'t>) -> P,
    ) -> Result<R, AuthorityError>
    where
        's: 't,
        P: Future<Output = Result<R, TransactionError>>,
    {
        for _ in 0..ATTEMPTS {
            match read(Reader::new(self, self.authority.facts.view().await?)).await {
                Ok(read) => return Ok(read),
                Err(TransactionError::Rejected(error)) => return Err(error),
                Err(TransactionError::Read(error)) => self.authority.wait_and_retry(error).await?,
            }
        }
        Err(StoreError::Unavailable.into())
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
