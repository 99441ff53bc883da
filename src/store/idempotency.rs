//! Idempotency: the stored reply of a request that a caller may send again.
//!
//! Not here: how the key and the digests are computed; see `authority::idempotency`.

use jiff::SignedDuration;

use super::receipt::Receipt;

/// How long the store keeps the reply to a request that the caller may send again.
pub const IDEMPOTENCY_TTL: SignedDuration = SignedDuration::from_hours(24);

/// The key of a request that a caller may send again: a digest of the caller, the method and the
/// request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey(pub [u8; 32]);

/// The stored reply to a committed request. The store keeps it for [`IDEMPOTENCY_TTL`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReply {
    /// A digest of the request's content. A different digest under the same key means another
    /// request.
    pub body: [u8; 32],
    /// The reply.
    pub reply: Vec<u8>,
}

/// The request of a proposal, for which the commit stores a reply.
pub struct IdempotencyRecord {
    /// The key of the request. It is a precondition that no reply is stored for it.
    pub key: RequestKey,
    /// A digest of the request.
    pub body: [u8; 32],
    /// Makes the reply from the receipt of the commit. The writer calls it: it must be quick and
    /// must not block.
    pub reply: Box<dyn FnOnce(Receipt) -> Vec<u8> + Send>,
}
