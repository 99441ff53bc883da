//! Repeat: a request that its caller may send again, because it did not hear the answer.
//!
//! A change that carries a `request_id` is remembered in the very commit that makes it. Whoever
//! sends it again gets the first answer, with the resource as it is now, and nothing changes.
//!
//! INVARIANT (once): a proposal rests on its request not having been carried out, so of two that
//! race one conflicts and starts over. What was carried out is looked up after the view is taken,
//! so whatever the view's facts show of the first, the look-up shows too.

use super::Authority;
use super::error::AuthorityError;
use super::fact_cache::Snapshot;
use super::write_options::{IdempotencyKey, WriteOptions};
use crate::policy::caller::Caller;
use crate::policy::change::ChangeKind;
use crate::store::{IdempotencyRecord, Receipt, RequestKey, Store, StoreError, StoredReply};

/// What a change is answered with, in a form that can be kept.
pub trait StorableReply: Send + Sized + 'static {
    /// What is kept of the reply, as bytes.
    fn into_bytes(self) -> Vec<u8>;
    /// The reply that these bytes are: what was kept of it.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

/// How a change begins.
pub(super) enum IdempotencyStart<R> {
    /// It was carried out before, with this answer.
    Before(R),
    /// It is to be carried out, on the facts of this view.
    Now(Snapshot),
}

/// What is to be kept of a change's request: how it is answered, by what it does.
pub(super) struct ReplyToStore<T> {
    request: IdempotencyKey,
    answer: Box<dyn FnOnce(T) -> Vec<u8> + Send>,
}

impl<T: 'static> ReplyToStore<T> {
    /// What the commit is to remember, if `done` says what a commit with its receipt did.
    pub(super) fn remember(
        self,
        terms: &WriteOptions,
        kind: ChangeKind,
        done: impl FnOnce(Receipt) -> T + Send + 'static,
    ) -> IdempotencyRecord {
        let Self { request, answer } = self;
        IdempotencyRecord {
            key: key(terms, kind, request),
            body: request.body,
            reply: Box::new(move |receipt| answer(done(receipt))),
        }
    }
}

/// What a request is kept under.
fn key(terms: &WriteOptions, kind: ChangeKind, request: IdempotencyKey) -> RequestKey {
    let mut digest = blake3::Hasher::new();
    // The id has a fixed length and a kind's name has no zero: nothing runs into its neighbour.
    digest.update(request.id.as_bytes()).update(kind.name().as_bytes()).update(&[0]);
    // Not by a name, which another caller may have, or come to have.
    match &terms.caller {
        Caller::Internal => digest.update(&[0]),
        Caller::Anonymous => digest.update(&[1]),
        Caller::Key(key) => digest.update(&[2]).update(&key.created_at.0.to_be_bytes()),
    };
    RequestKey(*digest.finalize().as_bytes())
}

impl WriteOptions {
    /// The request, if this change is to be remembered: a dry run is not.
    pub(super) fn to_remember(&self) -> Option<IdempotencyKey> {
        self.request.filter(|_| !self.validate_only)
    }

    /// What to keep of the request, if anything: this answer.
    pub(super) fn keep<T, R: StorableReply>(
        &self,
        answer: impl FnOnce(T) -> R + Send + 'static,
    ) -> Option<ReplyToStore<T>> {
        let request = self.to_remember()?;
        Some(ReplyToStore { request, answer: Box::new(move |done| answer(done).into_bytes()) })
    }
}

impl Authority {
    /// Begins a change, or finds that it was carried out before.
    pub(super) async fn begin<R: StorableReply>(
        &self,
        terms: &WriteOptions,
        kind: ChangeKind,
    ) -> Result<IdempotencyStart<R>, AuthorityError> {
        let view = self.facts.view().await?;
        // The change will rest on the key that is found here (revoked at once).
        if !self.is_current(&terms.caller) {
            return Err(AuthorityError::CallerRevoked);
        }
        let Some(request) = terms.to_remember() else { return Ok(IdempotencyStart::Now(view)) };
        // After the view (once).
        let key = key(terms, kind, request);
        let read = move |store: &dyn Store| store.answered(&key);
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
