//! Repeat: a request that its caller may send again, because it did not hear the answer.
//!
//! A change that carries a `request_id` is remembered in the very commit that makes it. Whoever
//! sends it again gets the first answer, with the resource as it is now, and nothing changes.
//!
//! INVARIANT (once): a proposal rests on its request not having been carried out, so of two that
//! race one conflicts and starts over. What was carried out is looked up after the view is taken,
//! so whatever the view's facts show of the first, the look-up shows too.

use uuid::Uuid;

use super::Authority;
use super::fact_cache::View;
use super::transaction::Terms;
use super::error::Refusal;
use crate::policy::caller::Caller;
use crate::policy::change::ChangeKind;
use crate::store::{Answered, Receipt, Remember, RequestKey, Store, StoreError};

/// Which request this is, if its caller may send it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// The caller's name for it.
    pub id: Uuid,
    /// A digest of all that it asks for.
    pub body: [u8; 32],
}

/// What a change is answered with, in a form that can be kept.
pub trait Reply: Send + Sized + 'static {
    /// What is kept of the reply, as bytes.
    fn into_bytes(self) -> Vec<u8>;
    /// The reply that these bytes are: what was kept of it.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

/// How a change begins.
pub(super) enum Begun<R> {
    /// It was carried out before, with this answer.
    Before(R),
    /// It is to be carried out, on the facts of this view.
    Now(View),
}

/// What is to be kept of a change's request: how it is answered, by what it does.
pub(super) struct Keep<T> {
    request: RequestId,
    answer: Box<dyn FnOnce(T) -> Vec<u8> + Send>,
}

impl<T: 'static> Keep<T> {
    /// What the commit is to remember, if `done` says what a commit with its receipt did.
    pub(super) fn remember(
        self,
        terms: &Terms,
        kind: ChangeKind,
        done: impl FnOnce(Receipt) -> T + Send + 'static,
    ) -> Remember {
        let Self { request, answer } = self;
        Remember {
            key: key(terms, kind, request),
            body: request.body,
            reply: Box::new(move |receipt| answer(done(receipt))),
        }
    }
}

/// What a request is kept under.
fn key(terms: &Terms, kind: ChangeKind, request: RequestId) -> RequestKey {
    let mut digest = blake3::Hasher::new();
    // The id has a fixed length and a kind's name has no zero: nothing runs into its neighbour.
    digest.update(request.id.as_bytes()).update(kind.name().as_bytes()).update(&[0]);
    // Not by a name, which another caller may have, or come to have.
    match &terms.caller {
        Caller::Itself => digest.update(&[0]),
        Caller::Anonymous => digest.update(&[1]),
        Caller::Key(key) => digest.update(&[2]).update(&key.created_at.0.to_be_bytes()),
    };
    RequestKey(*digest.finalize().as_bytes())
}

impl Terms {
    /// The request, if this change is to be remembered: a dry run is not.
    pub(super) fn to_remember(&self) -> Option<RequestId> {
        self.request.filter(|_| !self.validate_only)
    }

    /// What to keep of the request, if anything: this answer.
    pub(super) fn keep<T, R: Reply>(
        &self,
        answer: impl FnOnce(T) -> R + Send + 'static,
    ) -> Option<Keep<T>> {
        let request = self.to_remember()?;
        Some(Keep { request, answer: Box::new(move |done| answer(done).into_bytes()) })
    }
}

impl Authority {
    /// Begins a change, or finds that it was carried out before.
    pub(super) async fn begin<R: Reply>(
        &self,
        terms: &Terms,
        kind: ChangeKind,
    ) -> Result<Begun<R>, Refusal> {
        let view = self.facts.view().await?;
        // The change will rest on the key that is found here (revoked at once).
        if !self.stands(&terms.caller) {
            return Err(Refusal::CallerGone);
        }
        let Some(request) = terms.to_remember() else { return Ok(Begun::Now(view)) };
        // After the view (once).
        let key = key(terms, kind, request);
        let read = move |store: &dyn Store| store.answered(&key);
        match self.facts.read_for_change(read).await? {
            None => Ok(Begun::Now(view)),
            Some(Answered { body, .. }) if body != request.body => {
                Err(Refusal::RequestReused(request.id))
            }
            Some(Answered { reply, .. }) => {
                Ok(Begun::Before(R::from_bytes(&reply).ok_or(StoreError::Damaged)?))
            }
        }
    }
}
