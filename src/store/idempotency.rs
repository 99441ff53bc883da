//! Idempotency: the stored reply of a request that a caller may send again.
//!
//! Not here: how the key and the digests are computed; see `authority::idempotency`.

use jiff::SignedDuration;

use super::proposal::Receipt;

/// How long a request is remembered that may be sent again.
pub const IDEMPOTENCY_TTL: SignedDuration = SignedDuration::from_hours(24);

/// Which request a caller may send again: a digest of the caller, the method and the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey(pub [u8; 32]);

/// What is kept of a request that was carried out, for [`IDEMPOTENCY_TTL`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReply {
    /// A digest of what was asked for.
    pub body: [u8; 32],
    /// How it was answered.
    pub reply: Vec<u8>,
}

/// What a commit remembers of its request.
pub struct IdempotencyRecord {
    /// Which request. The proposal rests on its not having been carried out.
    pub key: RequestKey,
    /// A digest of what it asks for.
    pub body: [u8; 32],
    /// Makes the answer, once the commit has its revision. Called by the writer: it must be
    /// quick, and must not wait.
    pub reply: Box<dyn FnOnce(Receipt) -> Vec<u8> + Send>,
}
