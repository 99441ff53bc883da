//! Socket: an accepted connection, of TCP or of a Unix socket.
//!
//! Not here: where connections are accepted; see [`super::listen_socket`]. And how one is served; see
//! [`super::connection`].

use std::io;
use std::os::unix::net as unix;

use tokio::net::{TcpStream, UnixStream};

/// An accepted connection, on the runtime that uses it.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// An accepted connection between two runtimes.
pub(crate) enum IdleSocket {
    Tcp(std::net::TcpStream),
    Unix(unix::UnixStream),
}

impl Socket {
    /// Takes it off its runtime.
    ///
    /// # Errors
    /// The system refused.
    pub(crate) fn detach(self) -> io::Result<IdleSocket> {
        Ok(match self {
            Self::Tcp(stream) => IdleSocket::Tcp(stream.into_std()?),
            Self::Unix(stream) => IdleSocket::Unix(stream.into_std()?),
        })
    }
}

impl IdleSocket {
    /// Puts it on the current runtime.
    ///
    /// # Errors
    /// The system refused.
    pub(crate) fn attach(self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(stream) => Socket::Tcp(TcpStream::from_std(stream)?),
            Self::Unix(stream) => Socket::Unix(UnixStream::from_std(stream)?),
        })
    }
}
