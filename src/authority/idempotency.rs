//! Idempotency: requests that a caller may send again, because it did not receive the reply.
//!
//! A change with a `request_id` is recorded in the same commit. If the caller sends the request again,
//! it gets the first reply, and nothing changes.
//!
//! INVARIANT (once): a proposal has the precondition that its request was not carried out. If two
//! equal requests race, one of them conflicts and starts over. The record is looked up after the
//! snapshot is taken. If the facts of the snapshot include the first change, the look-up finds its
//! record too.

use super::Authority;
use super::error::AuthorityError;
use super::fact_cache::Snapshot;
use super::write_options::{IdempotencyKey, WriteOptions};
use crate::policy::caller::Caller;
use crate::policy::change::ChangeKind;
use crate::store::{IdempotencyRecord, Receipt, RequestKey, Store, StoreError, StoredReply};

/// The reply to a change, in a form that can be stored.
pub trait StorableReply: Send + Sized + 'static {
    /// The stored form of the reply.
    fn into_bytes(self) -> Vec<u8>;
    /// The reply from its stored form.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

/// The start of a change.
pub(super) enum IdempotencyStart<R> {
    /// The request was carried out before, with this reply.
    Before(R),
    /// The request is new: carry it out on the facts of this snapshot.
    Now(Snapshot),
}

/// The reply to store for a request, as a function of the result of the change.
pub(super) struct ReplyToStore<T> {
    request: IdempotencyKey,
    answer: Box<dyn FnOnce(T) -> Vec<u8> + Send>,
}

impl<T: 'static> ReplyToStore<T> {
    /// The idempotency record of the commit. `written` is the result for a receipt.
    pub(super) fn remember(
        self,
        options: &WriteOptions,
        kind: ChangeKind,
        written: impl FnOnce(Receipt) -> T + Send + 'static,
    ) -> IdempotencyRecord {
        let Self { request, answer } = self;
        IdempotencyRecord {
            key: key(options, kind, request),
            body: request.body,
            reply: Box::new(move |receipt| answer(written(receipt))),
        }
    }
}

/// The key of the stored reply.
fn key(options: &WriteOptions, kind: ChangeKind, request: IdempotencyKey) -> RequestKey {
    let mut digest = blake3::Hasher::new();
    // The id has a fixed length and the name of a kind has no zero byte, so the encoding is unique.
    digest.update(request.id.as_bytes()).update(kind.name().as_bytes()).update(&[0]);
    // Not the name of the caller: another caller may have the same name.
    match &options.caller {
        Caller::Internal => digest.update(&[0]),
        Caller::Anonymous => digest.update(&[1]),
        Caller::Key(key) => digest.update(&[2]).update(&key.created_at.0.to_be_bytes()),
    };
    RequestKey(*digest.finalize().as_bytes())
}

impl WriteOptions {
    /// The idempotency key, if the change must be recorded. A dry run is not recorded.
    pub(super) fn to_remember(&self) -> Option<IdempotencyKey> {
        self.request.filter(|_| !self.validate_only)
    }

    /// The reply to store for this request, if it has an idempotency key.
    pub(super) fn keep<T, R: StorableReply>(
        &self,
        answer: impl FnOnce(T) -> R + Send + 'static,
    ) -> Option<ReplyToStore<T>> {
        let request = self.to_remember()?;
        Some(ReplyToStore {
            request,
            answer: Box::new(move |written| answer(written).into_bytes()),
        })
    }
}

impl Authority {
    /// Begins a change, or returns the reply of the same request that was carried out before.
    ///
    /// # Errors
    /// The caller's key was revoked, or the `request_id` belongs to another request.
    pub(super) async fn begin<R: StorableReply>(
        &self,
        options: &WriteOptions,
        kind: ChangeKind,
    ) -> Result<IdempotencyStart<R>, AuthorityError> {
        let view = self.facts.view().await?;
        // The key that is found here becomes a precondition of the change (revoked at once).
        if !self.is_current(&options.caller) {
            return Err(AuthorityError::CallerRevoked);
        }
        let Some(request) = options.to_remember() else { return Ok(IdempotencyStart::Now(view)) };
        // After the snapshot (once).
        let key = key(options, kind, request);
        let read = move |store: &Store| store.answered(&key);
        match self.facts.read_for_change(read).await? {
            None => Ok(IdempotencyStart::Now(view)),
            Some(StoredReply { body, .. }) if body != request.body => {
                Err(AuthorityError::RequestReused(request.id))
            }
            Some(StoredReply { reply, .. }) => {
                Ok(IdempotencyStart::Before(R::from_bytes(&reply).ok_or(StoreError::Damaged)?))
            }
        }
    }
}
