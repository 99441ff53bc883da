//! Listen socket: a bound address that accepts connections, by TCP or by a Unix socket.
//!
//! Not here: the file of a Unix socket; see [`super::socket_file`]. And what is done with connections; see
//! [`super::listener`].

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};

use super::error::TransportError;
use super::listen_address::ListenAddress;
use super::socket::Socket;
use super::socket_file::SocketFile;
use crate::observe::peer_address::PeerAddress;

/// How many connections may wait to be accepted.
pub(super) const BACKLOG: i32 = 1024;

/// After this time without traffic the kernel probes a peer. A peer that does not answer is given
/// up after twice this time.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// A bound address that accepts connections.
pub(crate) enum ListenSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What was bound.
pub(crate) struct Bound {
    pub(crate) socket: ListenSocket,
    /// Where it is bound: with the port that the system chose, if none was given.
    pub(crate) address: ListenAddress,
    /// The file of a Unix socket.
    pub(crate) file: Option<SocketFile>,
}

impl Bound {
    /// Binds an address. The file of a Unix socket gets this mode.
    ///
    /// # Errors
    /// Somebody uses the address, or the system refused.
    pub(crate) fn bind(address: &ListenAddress, mode: u32) -> Result<Self, TransportError> {
        let cannot = |error: io::Error| {
            TransportError::of_system(&format!("cannot listen on {address}"), &error)
        };
        match address {
            ListenAddress::Tcp(address) => {
                let (listener, address) = bind_tcp(*address).map_err(cannot)?;
                let (socket, address) = (ListenSocket::Tcp(listener), ListenAddress::Tcp(address));
                Ok(Self { socket, address, file: None })
            }
            ListenAddress::Unix(path) => {
                let (file, listener) = SocketFile::bind(path, mode)?;
                let listener = UnixListener::from_std(listener).map_err(cannot)?;
                let (socket, address) = (ListenSocket::Unix(listener), address.clone());
                Ok(Self { socket, address, file: Some(file) })
            }
        }
    }
}

impl ListenSocket {
    /// The next connection and its peer.
    pub(crate) fn poll_accept(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(Socket, PeerAddress)>> {
        Poll::Ready(match self {
            Self::Tcp(listener) => {
                ready!(listener.poll_accept(context)).and_then(|(connection, peer)| {
                    set_options(&connection)?;
                    Ok((Socket::Tcp(connection), PeerAddress::Tcp(peer)))
                })
            }
            Self::Unix(listener) => ready!(listener.poll_accept(context))
                .map(|(connection, _)| (Socket::Unix(connection), PeerAddress::Unix)),
        })
    }
}

/// Binds a TCP address. Also returns the address that it got: where the machine has no IPv6, every address
/// is that of IPv4.
pub(super) fn bind_tcp(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let bound = match bind_exactly(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && has_no_ipv6(&error) => {
            let instead = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
            tracing::info!(%address, %instead, "this machine has no IPv6: listening on IPv4 only");
            bind_exactly(instead)
        }
        bound => bound,
    };
    let listener = bound?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Whether an address cannot be bound because the machine has no IPv6.
fn has_no_ipv6(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable
        || Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT)
}

/// Binds a TCP address. `[::]` also accepts connections of IPv4, whatever the default of the system is.
fn bind_exactly(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        SockRef::from(&socket).set_only_v6(false)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG.unsigned_abs())
}

/// Lets the kernel find out whether a silent peer is still there. HTTP/2 pings would read the clock
/// for every frame.
///
/// The user timeout also ends a connection whose peer is there but reads nothing: Linux counts the
/// time for which the peer's window is closed like the time without an acknowledgement. A Unix socket has
/// no such option: see [`super::connection`].
fn set_options(connection: &TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let socket = SockRef::from(connection);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_IDLE / 3);
    socket.set_tcp_keepalive(&keepalive.with_retries(3))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(KEEPALIVE_IDLE * 2))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_without_ipv6_is_told_from_a_used_port() {
        let of = |errno: Errno| has_no_ipv6(&errno.into());
        assert!(of(Errno::AFNOSUPPORT));
        assert!(of(Errno::ADDRNOTAVAIL));
        assert!(!of(Errno::ADDRINUSE));
        assert!(!of(Errno::ACCESS));
    }
}
