//! Idempotency: what a committed request changed, for a request that its caller may send again.
//!
//! The resource of a request may be large, and may have changed when the request is sent again. So the
//! store keeps the revision and the names, and the repeated request reads the current resource.
//!
//! Not here: how the key and the digests are computed; see `authority::idempotency`.

use jiff::SignedDuration;

use crate::policy::catalog::difference::CatalogDifference;
use crate::policy::id::Name;
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;

/// How long the store keeps the result of a request that the caller may send again.
pub const IDEMPOTENCY_TTL: SignedDuration = SignedDuration::from_hours(24);

/// The key of a request that a caller may send again: a digest of the caller, the method and the
/// request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey(pub [u8; 32]);

/// A committed request. The store keeps it for [`IDEMPOTENCY_TTL`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResult {
    /// A digest of the request's content. A different digest under the same key means another
    /// request.
    pub body: [u8; 32],
    /// The revision that the request made.
    pub revision: Revision,
    /// What it changed; none if an earlier version of the program stored it.
    pub result: Option<WriteResult>,
}

/// What a committed request changed, in addition to the resource that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteResult {
    /// Scopes that entered the set, sorted.
    pub added: Vec<Scope>,
    /// Scopes that left the set, sorted.
    pub removed: Vec<Scope>,
    /// The part that only some requests have.
    pub detail: ResultDetail,
}

/// The part of a result that only some requests have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ResultDetail {
    /// Nothing else.
    #[default]
    None,
    /// The public id of the secret or API key that was created.
    Id(Name),
    /// How many credentials hold a scope again.
    Restored(u64),
    /// The affected credentials of a restriction: their number, and the etag of the preview.
    Impact(u64, String),
    /// The difference from the catalog before, and how many companies and credentials lost a scope.
    Catalog(Box<CatalogDifference>, u64, u64),
}

impl ResultDetail {
    /// The public id of the secret or API key that was created.
    #[must_use]
    pub fn into_id(self) -> Option<Name> {
        match self {
            Self::Id(id) => Some(id),
            _ => None,
        }
    }
}

/// The request of a proposal, for which the commit stores a result.
#[derive(Clone)]
pub struct IdempotencyRecord {
    /// The key of the request. It is a precondition that no result is stored for it.
    pub key: RequestKey,
    /// A digest of the request.
    pub body: [u8; 32],
    /// What the request changes.
    pub result: WriteResult,
}
