//! Write options: the parts of a change request that are the same for every change.

use uuid::Uuid;

use crate::policy::caller::Caller;
use crate::policy::change::Author;

/// The options of a change: the fields that every change request has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// The caller. The change is committed only if the caller is still valid at the commit.
    pub caller: Caller,
    /// The actor and the reason for the audit record.
    pub author: Author,
    /// The etag of the state that the caller has read, if it sends one.
    pub etag: Option<String>,
    /// Dry run: validate and answer, and change nothing.
    pub validate_only: bool,
    /// The idempotency key, if the caller may send the request again.
    pub request: Option<IdempotencyKey>,
}

/// Identifies a request that its caller may send again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The `request_id`.
    pub id: Uuid,
    /// A digest of the content of the request.
    pub body: [u8; 32],
}
