//! Http: the connections of the listeners for plain HTTP, by HTTP/1.1 and HTTP/2.
//!
//! Each of them may come from the internet, so a connection is bounded before its peer has proven who it
//! is: by a timeout for the TLS handshake, for the head and for the body of a request, by the time until
//! the first proof, and by few and small streams.
//!
//! Not here: how a request is answered; see [`crate::oauth`] and [`crate::authzen`]. How many connections
//! a listener may have; see [`super::listener`].

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::activity::Activity;
use super::call_counters::CallCounters;
use super::connection::{LINGER_TIMEOUT, MAX_ERROR_RESETS, MAX_PENDING_RESETS};
use super::phase::Phase;
use super::settings::ConnectionLimits;
use super::socket::Socket;
use super::tls::{self, Tls};
use super::worker::Protocol;
use crate::grpc::peer::Peer;
use crate::metrics::Counted;
use crate::metrics::jitter::jittered;
use crate::observe::connection_events::ConnectionEvents;
use crate::observe::peer_address::PeerAddress;
use crate::observe::rejected_callers::RejectedCallers;
use crate::web::answer::{Responder, Use};

/// Whom a listener asks for a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientCertificates {
    /// No peer.
    Never,
    /// Every peer, if the server has CAs of client certificates.
    AsCallers,
}

/// The limits of the streams of an HTTP/2 connection.
#[derive(Clone, Copy)]
pub(crate) struct StreamLimits {
    /// How many may be open at once.
    max_streams: u32,
    /// How many unread bytes a peer may send for one stream.
    stream_window: u32,
    /// How many for all streams.
    connection_window: u32,
}

impl StreamLimits {
    /// Those of API clients, whose requests are small.
    pub(crate) const CLIENTS: Self =
        Self { max_streams: 16, stream_window: 32 << 10, connection_window: 64 << 10 };
    /// Those of callers.
    pub(crate) const CALLERS: Self =
        Self { max_streams: 256, stream_window: 256 << 10, connection_window: 512 << 10 };
}

/// The smallest limit of a request's head that hyper allows for HTTP/1.1, in bytes.
const MIN_HEAD_BYTES: usize = 8 << 10;

/// Serves the connections of one listener.
pub(crate) struct HttpConnections<R> {
    /// Answers the requests.
    pub(crate) responder: Arc<R>,
    pub(crate) streams: StreamLimits,
    pub(crate) client_certificates: ClientCertificates,
    /// TLS. None: connections are plain text.
    pub(crate) tls: Option<Tls>,
    pub(crate) calls: Arc<CallCounters>,
    pub(crate) connection_limits: ConnectionLimits,
    pub(crate) connection_events: Arc<ConnectionEvents>,
    /// How long a peer may take for a TLS handshake.
    pub(crate) stall_timeout: Duration,
    /// The limit of a request's headers, in bytes.
    pub(crate) max_header_bytes: usize,
    /// Counts and logs peers whose certificate is rejected.
    pub(crate) rejected_callers: Arc<RejectedCallers>,
}

impl<R: Responder> Protocol for HttpConnections<R> {
    fn calls(&self) -> &Arc<CallCounters> {
        &self.calls
    }

    /// Does the TLS handshake, if TLS is on, and serves the connection to its end.
    async fn accept(self: Arc<Self>, connection: Socket, mut phase: watch::Receiver<Phase>) {
        // This listener has no Unix socket.
        let Socket::Tcp(connection) = connection else { return };
        let address = connection.peer_addr().ok().map(PeerAddress::Tcp);
        let Some(tls) = self.tls.clone() else {
            let peer = Peer { address, ..Peer::default() };
            return self.serve(connection, peer, phase).await;
        };
        let handshake = tls.accept_http(connection, self.client_certificates);
        let events = &self.connection_events;
        match tls::finish(handshake, self.stall_timeout, events, &mut phase).await {
            Some(Ok((connection, peer))) => {
                self.serve(connection, Peer { address, ..peer }, phase).await;
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

impl<R: Responder> HttpConnections<R> {
    async fn serve<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        connection: I,
        peer: Peer,
        phase: watch::Receiver<Phase>,
    ) {
        let limits = ConnectionLimits {
            age: self.connection_limits.age.map(jittered),
            ..self.connection_limits
        };
        let activity = Activity::new(Arc::clone(&self.calls), phase);
        let peer = Arc::new(peer);
        let (responder, calls) = (Arc::clone(&self.responder), Arc::clone(&self.calls));
        let of_requests = Arc::clone(&activity);
        let service = service_fn(move |request: Request<Incoming>| {
            let (responder, peer) = (Arc::clone(&responder), Arc::clone(&peer));
            let (activity, calls) = (Arc::clone(&of_requests), Arc::clone(&calls));
            async move {
                let _open = activity.open();
                let _counted = Counted::one_more(&calls.in_flight);
                let answer = responder.answer(request, &peer).await;
                match answer.use_of_connection {
                    Use::Proven => activity.accept(),
                    Use::Public => activity.probe(),
                    Use::Unproven => {}
                }
                Ok::<_, Infallible>(answer.response.into_inner())
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            // It also counts while a connection waits for its next request. A connection without a
            // proven client ends earlier: see `Activity`.
            .header_read_timeout(self.connection_limits.idle)
            .max_buf_size(self.max_header_bytes.max(MIN_HEAD_BYTES));
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.streams.max_streams)
            .initial_stream_window_size(self.streams.stream_window)
            .initial_connection_window_size(self.streams.connection_window)
            .max_header_list_size(u32::try_from(self.max_header_bytes).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(MAX_ERROR_RESETS);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(connection), service));
        let reason = tokio::select! {
            // The error of a closed connection needs no handling.
            _ = connection.as_mut() => return,
            reason = activity.ended(limits) => reason,
        };
        self.connection_events.ended(reason);
        connection.as_mut().graceful_shutdown();
        let interrupted = async {
            activity.interrupt(reason, limits.grace).await;
            tokio::time::sleep(LINGER_TIMEOUT).await;
        };
        tokio::select! {
            _ = connection.as_mut() => {}
            () = interrupted => self.calls.cut.inc_by(activity.open_calls()),
        }
    }
}
