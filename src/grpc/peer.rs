//! Peer: who is at the other end of a connection, as far as the connection itself proves it.
//!
//! Made once per connection. Not here: what a peer may do, and how a certificate is verified and
//! read; the server's `tls` does that.

use std::net::SocketAddr;
use std::sync::Arc;

/// Who is at the other end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The names of the client certificate that was verified: its URIs, such as
    /// `spiffe://example.org/gateway`, and its DNS names, in the certificate's order. Empty if it
    /// has none; none if there was no certificate, as on any connection without TLS or without
    /// `--tls-client-ca`.
    pub certificate: Option<Arc<[String]>>,
    /// Where it connects from, if that is known.
    pub address: Option<SocketAddr>,
}
