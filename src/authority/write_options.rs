//! Write options: the parts of a change request that are the same for every change.

use uuid::Uuid;

/// The options of a change: the fields that every change request has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// The reason for the audit record.
    pub reason: String,
    /// The person or system on whose behalf the caller says to act, for the audit record.
    pub on_behalf_of: String,
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

impl WriteOptions {
    /// The idempotency key, if the change must be recorded. A dry run is not recorded.
    pub(super) fn to_remember(&self) -> Option<IdempotencyKey> {
        self.request.filter(|_| !self.validate_only)
    }
}
