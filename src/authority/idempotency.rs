//! Idempotency: requests that a caller may send again, because it did not receive the response.
//!
//! A change with a `request_id` is recorded in the same commit. If the caller sends the request again,
//! the response has the first revision, ids and scopes, and the resource as it is now. Nothing changes.
//!
//! INVARIANT (once): a proposal has the precondition that its request was not carried out. If two
//! equal requests race, one of them conflicts and starts over. The record is looked up after the
//! snapshot is taken. If the facts of the snapshot include the first change, the look-up finds its
//! record too.

use super::error::AuthorityError;
use super::fact_cache::Snapshot;
use super::queries::Read;
use super::session::Session;
use super::transaction::Written;
use super::write_options::{IdempotencyKey, WriteOptions};
use crate::policy::caller::Caller;
use crate::policy::change::ChangeKind;
use crate::policy::id::Name;
use crate::policy::revision::Revision;
use crate::store::{RequestKey, ResultDetail, Store, StoreError, StoredResult, WriteResult};

/// The start of a change.
pub(super) enum IdempotencyStart {
    /// The request was carried out before.
    Repeated(StoredResult),
    /// The request is new: carry it out on the facts of this snapshot.
    New(Snapshot),
}

/// The key of the stored result.
pub(super) fn key(caller: &Caller, kind: ChangeKind, request: IdempotencyKey) -> RequestKey {
    let mut digest = blake3::Hasher::new();
    // The id has a fixed length and the name of a kind has no zero byte, so the encoding is unique.
    digest.update(request.id.as_bytes()).update(kind.name().as_bytes()).update(&[0]);
    // Not the name of the caller: another caller may have the same name.
    match caller {
        Caller::Internal => digest.update(&[0]),
        Caller::Anonymous => digest.update(&[1]),
        Caller::Key(key) => digest.update(&[2]).update(&key.created_at.0.to_be_bytes()),
    };
    RequestKey(*digest.finalize().as_bytes())
}

impl Session<'_> {
    /// A snapshot of the facts for a change.
    ///
    /// # Errors
    /// The caller's key was revoked, or the store cannot answer.
    pub(super) async fn snapshot(&self) -> Result<Snapshot, AuthorityError> {
        let snapshot = self.authority.facts.view().await?;
        // The key that is found here becomes a precondition of the change (revoked at once).
        if !self.authority.is_current(&self.caller) {
            return Err(AuthorityError::CallerRevoked);
        }
        Ok(snapshot)
    }

    /// Begins a change, or returns the result of the same request that was carried out before.
    ///
    /// # Errors
    /// The caller's key was revoked, or the `request_id` belongs to another request.
    pub(super) async fn begin(
        &self,
        kind: ChangeKind,
        options: &WriteOptions,
    ) -> Result<IdempotencyStart, AuthorityError> {
        let snapshot = self.snapshot().await?;
        let Some(request) = options.to_remember() else {
            return Ok(IdempotencyStart::New(snapshot));
        };
        // After the snapshot (once).
        let key = key(&self.caller, kind, request);
        let read = move |store: &Store| store.answered(&key);
        match self.authority.facts.read_for_change(read).await? {
            None => Ok(IdempotencyStart::New(snapshot)),
            Some(stored) if stored.body != request.body => {
                Err(AuthorityError::RequestReused(request.id))
            }
            Some(stored) => Ok(IdempotencyStart::Repeated(stored)),
        }
    }

    /// What a request changed that was carried out before. An earlier version of the program stored no
    /// result; then the change record has most of it.
    async fn result_of(&self, stored: StoredResult) -> Result<(Revision, WriteResult), StoreError> {
        let StoredResult { revision, result, .. } = stored;
        if let Some(result) = result {
            return Ok((revision, result));
        }
        let before = Revision(revision.0.saturating_sub(1));
        let read = move |store: &Store| store.changes(None, before, revision, 1);
        let change = match self.authority.facts.read_for_change(read).await {
            Err(StoreError::Compacted(_)) => None,
            found => found?.pop(),
        };
        let Some(change) = change else { return Ok((revision, WriteResult::default())) };
        let id = change.fields.iter().find_map(|field| match field.field.as_str() {
            "key_id" => Some(field.after.as_str()),
            // The last of a list.
            "secret_ids" => field.after.rsplit(',').next(),
            _ => None,
        });
        let id = id.map(|id| id.trim_matches(['[', ']', '"'])).and_then(|id| Name::parse(id).ok());
        let detail = id.map_or(ResultDetail::None, ResultDetail::Id);
        Ok((revision, WriteResult { added: change.added, removed: change.removed, detail }))
    }

    /// The response to a request that was carried out before, with the resource as it is now.
    pub(super) async fn repeated<T>(
        &self,
        stored: StoredResult,
        current: impl Future<Output = Result<Read<T>, AuthorityError>>,
    ) -> Result<(Written<T>, ResultDetail), AuthorityError> {
        let (written, detail) = self.repeated_without(stored).await?;
        match current.await {
            Ok(Read { resource, etag, .. }) => {
                Ok((Written { resource: Some(resource), etag, ..written }, detail))
            }
            Err(
                AuthorityError::CompanyNotFound(..)
                | AuthorityError::CredentialNotFound(..)
                | AuthorityError::UserNotFound(..)
                | AuthorityError::ConsentNotFound(..)
                | AuthorityError::KeyNotFound(..),
            ) => Ok((written, detail)),
            Err(other) => Err(other),
        }
    }

    /// The response to a request that was carried out before and has no resource, or deleted it.
    pub(super) async fn repeated_without<T>(
        &self,
        stored: StoredResult,
    ) -> Result<(Written<T>, ResultDetail), AuthorityError> {
        let (revision, WriteResult { added, removed, detail }) = self.result_of(stored).await?;
        let (resource, etag) = (None, String::new());
        Ok((Written { resource, etag, added, removed, revision }, detail))
    }
}
