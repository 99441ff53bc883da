//! Peer: what a connection proves about who is at its other end.
//!
//! Not here: what that is worth; see `policy::keyring`.

use std::sync::Arc;

/// Who is at the other end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The URI and DNS names (SANs) of the verified client certificate, in order; none if there
    /// is no client certificate.
    pub certificate: Option<Arc<[String]>>,
}
