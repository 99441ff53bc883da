//! Connection: serves one connection, from the TLS handshake to its end.
//!
//! A connection ends for its age, for a drain, because it is unused, or because the peer does not
//! finish a frame or does not read.
//!
//! Not here: how calls are answered; see [`super::service`]. And when a connection is unused; see
//! [`super::activity`].

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::activity::Activity;
use super::call_counters::CallCounters;
use super::call_slots::ConnectionSlots;
use super::frame_progress::ProgressStream;
use super::inline_executor::{self, InlineExecutor};
use super::phase::Phase;
use super::service::{self, Service};
use super::settings::ConnectionLimits;
use super::socket::Socket;
use super::stall_timer::StallTimer;
use super::tls;
use super::worker::Protocol;
use crate::grpc::peer::Peer;
use crate::metrics::jitter::jittered;
use crate::observe::connection_events::EndReason;
use crate::observe::peer_address::PeerAddress;

/// How many reset streams of a connection may wait to be accepted. A client above the limit only
/// opens and resets streams (CVE-2023-44487), and its connection is closed.
pub(super) const MAX_PENDING_RESETS: usize = 20;
/// How many streams of a connection the server may reset for errors of the client before it closes
/// the connection.
pub(super) const MAX_ERROR_RESETS: usize = 1024;

/// How long a peer without an accepted call may leave the server's data unread.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(1);

/// How many unread bytes a peer may send for one stream, and for all streams of a connection. No other
/// limit counts unread bytes.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 512 << 10;

/// How many streams of a connection may be open at once.
const MAX_STREAMS: u32 = 256;

/// The limit of a header list that is read, in bytes, somewhat above 256 KiB. A call above
/// `--max-header-bytes` is rejected with a gRPC status, and a call above this limit with HTTP 431.
const MAX_HEADER_LIST: u32 = 272 << 10;

/// How long it may take to send a peer the end of its calls, or of its connection.
pub(crate) const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

impl Protocol for Service {
    fn calls(&self) -> &Arc<CallCounters> {
        &self.calls
    }

    /// Does the TLS handshake, if TLS is on, and serves the connection to its end. A Unix socket has no TLS:
    /// the mode of its file says who may connect.
    async fn accept(self: Arc<Self>, connection: Socket, mut phase: watch::Receiver<Phase>) {
        let connection = match connection {
            Socket::Tcp(connection) => connection,
            Socket::Unix(connection) => {
                let address = Some(PeerAddress::Unix);
                let peer = Arc::new(Peer { address, ..Peer::default() });
                return serve(connection, peer, self, phase).await;
            }
        };
        let address = connection.peer_addr().ok().map(PeerAddress::Tcp);
        let Some(tls) = self.tls.clone() else {
            let peer = Arc::new(Peer { address, ..Peer::default() });
            return serve(connection, peer, self, phase).await;
        };
        let handshake = tls.accept(connection);
        let events = &self.connection_events;
        match tls::finish(handshake, self.stall_timeout, events, &mut phase).await {
            Some(Ok((connection, peer))) => {
                serve(connection, Arc::new(Peer { address, ..peer }), self, phase).await;
            }
            Some(Err(error)) => {
                if let Some(reason) = tls::rejection(&error) {
                    self.rejected_callers.handshake(address, reason);
                }
            }
            None => {}
        }
    }
}

/// Serves one connection to its end.
async fn serve<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    connection: I,
    peer: Arc<Peer>,
    service: Arc<Service>,
    phase: watch::Receiver<Phase>,
) {
    let limits = ConnectionLimits {
        age: service.connection_limits.age.map(jittered),
        ..service.connection_limits
    };
    let events = Arc::clone(&service.connection_events);
    let mut stall_timer = StallTimer::new(service.stall_timeout);
    // The kernel ends a TCP connection whose peer reads nothing, and leaves a Unix one open for ever.
    let mut read_timer = match peer.address {
        Some(PeerAddress::Unix) => Some(StallTimer::new(service.stall_timeout)),
        _ => None,
    };
    let activity = Activity::new(Arc::clone(&service.calls), phase);
    let call_activity = Arc::clone(&activity);
    let slots = ConnectionSlots::default();
    let service = service_fn(move |request| {
        service::handle(Arc::clone(&service), &peer, &call_activity, &slots, request)
    });
    let (connection, progress) = ProgressStream::new(connection);
    let calls = inline_executor::PendingCalls::default();
    let executor = InlineExecutor::of(calls.clone());
    let mut connection = Box::pin(
        http2::Builder::new(calls)
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(MAX_ERROR_RESETS)
            .serve_connection(TokioIo::new(connection), service),
    );
    // A separate task waits for the end, so that a poll of the connection costs next to nothing.
    let watched = Arc::clone(&activity);
    let ended = async move { watched.ended(limits).await };
    let mut ended = AbortOnDropHandle::new(tokio::spawn(ended));
    let (mut shutdown, mut unread) = (None, None);
    poll_fn(|context| {
        if shutdown.is_none()
            && let Poll::Ready(reason) = Pin::new(&mut ended).poll(context)
        {
            let reason = reason.unwrap_or(EndReason::Drain);
            events.ended(reason);
            connection.as_mut().graceful_shutdown();
            let activity = Arc::clone(&activity);
            shutdown = Some(Box::pin(async move {
                activity.interrupt(reason, limits.grace).await;
                tokio::time::sleep(LINGER_TIMEOUT).await;
            }));
        }
        if let Some(shutdown) = &mut shutdown
            && shutdown.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(());
        }
        // The error of a closed connection needs no handling.
        let poll = |context: &mut Context<'_>| {
            progress.resume();
            connection.as_mut().poll(context).map(drop)
        };
        match executor.poll(context, poll) {
            Poll::Ready(()) => Poll::Ready(()),
            // All received data has been read.
            Poll::Pending => {
                // The server buffers errors for a peer that reads nothing and is not authenticated.
                let is_unread = progress.is_blocked() && activity.accepted() == 0;
                if is_unread {
                    let end =
                        unread.get_or_insert_with(|| Box::pin(tokio::time::sleep(UNREAD_TIMEOUT)));
                    if end.as_mut().poll(context).is_ready() {
                        return Poll::Ready(());
                    }
                } else {
                    unread = None;
                }
                if let Some(timer) = &mut read_timer
                    && timer.poll(progress.unread_write(), context).is_ready()
                {
                    return Poll::Ready(());
                }
                stall_timer.poll(progress.stalled_frame(), context)
            }
        }
    })
    .await;
    drop(connection);
    if shutdown.is_some()
        && let Some(connection) = progress.into_connection()
    {
        linger(connection).await;
    }
}

/// Reads and drops the data that a peer still sends after the GOAWAY, until the peer closes. To close
/// earlier would reset the connection, and the peer would lose the GOAWAY, which shows which of its
/// calls never began and can be repeated.
async fn linger(mut connection: impl AsyncRead + Unpin) {
    let mut unread = [0; 4096];
    let read = async { while connection.read(&mut unread).await.is_ok_and(|count| count > 0) {} };
    tokio::time::timeout(LINGER_TIMEOUT, read).await.ok();
}
