//! Peer address: where a connection comes from, as the logs name it.
//!
//! Not here: what the connection proves of its peer; see `grpc::peer`.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, SocketAddr};

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    /// A peer with an IP address.
    Tcp(SocketAddr),
    /// A process of this machine, by a Unix socket.
    Unix,
}

/// The machine that a connection comes from: its address without the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PeerHost {
    Ip(IpAddr),
    /// This machine, by a Unix socket.
    Unix,
}

impl PeerAddress {
    /// The address and the port, if it has them.
    #[must_use]
    pub fn tcp(self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(address),
            Self::Unix => None,
        }
    }

    /// Whether the peer is on this machine.
    #[must_use]
    pub fn is_local(self) -> bool {
        match self {
            // An IPv6 socket maps IPv4 addresses into IPv6.
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix => true,
        }
    }

    pub(crate) fn host(self) -> PeerHost {
        match self {
            Self::Tcp(address) => PeerHost::Ip(address.ip()),
            Self::Unix => PeerHost::Unix,
        }
    }
}

/// The name of a peer without an address.
const UNIX: &str = "unix";

impl Display for PeerAddress {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(out),
            Self::Unix => out.write_str(UNIX),
        }
    }
}

impl Display for PeerHost {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(out),
            Self::Unix => out.write_str(UNIX),
        }
    }
}
