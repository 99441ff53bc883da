//! Write options: the parts of a change request that are the same for every change.

use uuid::Uuid;

use crate::policy::caller::Caller;
use crate::policy::change::Author;

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

/// Which request this is, if its caller may send it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The caller's name for it.
    pub id: Uuid,
    /// A digest of all that it asks for.
    pub body: [u8; 32],
}
