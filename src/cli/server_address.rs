//! Server address: where a command finds a server, a URL or the path of a Unix socket.
//!
//! Not here: how it is written; see [`super::address`]. And how it is connected to; see
//! [`super::connection`].

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use http::Uri;

/// Where a command finds a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ServerAddress {
    Url(Uri),
    Unix(PathBuf),
}

impl ServerAddress {
    pub(super) fn is_https(&self) -> bool {
        matches!(self, Self::Url(uri) if uri.scheme_str() == Some("https"))
    }

    /// The host of a URL, or nothing.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Url(uri) => uri.host().unwrap_or_default(),
            Self::Unix(_) => "",
        }
    }

    /// The host and the port, or the path, in texts.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Url(uri) => {
                let (host, port) = host_and_port(uri);
                format!("{host}:{port}")
            }
            Self::Unix(_) => self.to_string(),
        }
    }
}

impl Display for ServerAddress {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(uri) => uri.fmt(out),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

/// The host and the port of a URL.
pub(super) fn host_and_port(uri: &Uri) -> (&str, u16) {
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(usual))
}
