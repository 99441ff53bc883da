//! Peer: the remote end of a connection, as far as the connection proves it. The listener makes it once
//! for each connection.
//!
//! Not here: what a peer may do; see [`crate::authority::admission`]. Nor how a certificate is verified; see
//! `transport::tls`.

use std::sync::Arc;

use crate::observe::peer_address::PeerAddress;

/// The remote end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The names of the client certificate that was verified: its URIs, such as
    /// `spiffe://example.org/gateway`, and its DNS names, in the certificate's order. Empty if the
    /// certificate has none. `None` if there was no certificate, as on any connection without TLS, on a
    /// Unix socket, or without `--tls-client-ca`.
    pub certificate: Option<Arc<[String]>>,
    /// The remote address, if it is known.
    pub address: Option<PeerAddress>,
}
