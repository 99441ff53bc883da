//! Connection: a caller's, from its first byte to the end that it hears of.
//!
//! It ends by its own age, by a drain, because it is unused, or by a peer that begins what it does not
//! end.
//!
//! Not here: what its calls are answered; see [`super::service`]. And when it is not used; see
//! [`super::activity`].

use std::future::poll_fn;
use std::hash::BuildHasher;
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
use super::call_slots::ConnectionSlots;
use super::frame_progress::ProgressStream;
use super::inline_executor::{self, InlineExecutor};
use super::phase::Phase;
use super::service::{self, Service};
use super::settings::ConnectionLimits;
use super::stall_timer::StallTimer;
use super::tls;
use crate::grpc::peer::Peer;
use crate::observe::connection_events::EndReason;

/// How many calls of a connection may wait to be begun although their caller took them back.
/// Above it a caller does nothing but begin and take back (CVE-2023-44487), and is cut off.
const RESETS: usize = 20;
/// How many calls of a connection may be ended for its own faults before it is cut off.
const RESETS_FOR_ERRORS: usize = 1024;

/// How long a peer may take nothing of what it is told, before a call of it was accepted.
const UNREAD: Duration = Duration::from_secs(1);

/// How many bytes of a call, and of all calls of a connection, a peer may send before they are
/// read: what is not read yet is counted by nothing else.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 512 << 10;

/// How many calls of a connection may be open at once.
const MAX_STREAMS: u32 = 256;

/// The largest header list that is read, somewhat above 256 KiB. `--max-header-bytes` bounds what
/// is answered, by gRPC's own status: from here on a call is refused by HTTP's 431.
const MAX_HEADER_LIST: u32 = 272 << 10;

/// How long it may take to send a peer the end of its calls, or of its connection.
pub(crate) const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Shakes hands with who connects, if that is asked for, and serves the connection to its end.
pub(crate) async fn accept(
    connection: tokio::net::TcpStream,
    service: Arc<Service>,
    mut phase: watch::Receiver<Phase>,
) {
    let address = connection.peer_addr().ok();
    let Some(tls) = &service.tls else {
        let peer = Arc::new(Peer { address, ..Peer::default() });
        return serve(connection, peer, service, phase).await;
    };
    let handshake = tokio::time::timeout(service.stall_timeout, tls.accept(connection));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
    };
    match shaken {
        Ok(Ok((connection, peer))) => {
            serve(connection, Arc::new(Peer { address, ..peer }), service, phase).await;
        }
        // Anybody can cause these, so they are no warnings.
        Ok(Err(error)) => {
            service.connection_events.handshakes.inc();
            if let Some(why) = tls::refusal(&error) {
                service.rejected_callers.handshake(address, why);
            }
            tracing::debug!(%error, "a TLS handshake failed");
        }
        Err(_) => {
            service.connection_events.handshakes.inc();
            tracing::debug!("a TLS handshake took too long");
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
        age: service.connection_limits.age.map(jitter),
        ..service.connection_limits
    };
    let events = Arc::clone(&service.connection_events);
    let mut stall_timer = StallTimer::new(service.stall_timeout);
    let activity = Activity::new(Arc::clone(&service.calls), phase);
    let used = Arc::clone(&activity);
    let places = ConnectionSlots::default();
    let service = service_fn(move |request| {
        service::handle(Arc::clone(&service), &peer, &used, &places, request)
    });
    let (connection, pace) = ProgressStream::new(connection);
    let calls = inline_executor::PendingCalls::default();
    let turn = InlineExecutor::of(calls.clone());
    let mut connection = Box::pin(
        http2::Builder::new(calls)
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_pending_accept_reset_streams(RESETS)
            .max_local_error_reset_streams(RESETS_FOR_ERRORS)
            .serve_connection(TokioIo::new(connection), service),
    );
    // A task of its own: to look whether it is over costs each turn next to nothing.
    let watched = Arc::clone(&activity);
    let ended = async move { watched.ended(limits).await };
    let mut ended = AbortOnDropHandle::new(tokio::spawn(ended));
    let (mut last, mut unread) = (None, None);
    poll_fn(|context| {
        if last.is_none()
            && let Poll::Ready(cause) = Pin::new(&mut ended).poll(context)
        {
            let cause = cause.unwrap_or(EndReason::Drain);
            events.ended(cause);
            connection.as_mut().graceful_shutdown();
            let activity = Arc::clone(&activity);
            last = Some(Box::pin(async move {
                activity.interrupt(cause, limits.grace).await;
                tokio::time::sleep(LINGER_TIMEOUT).await;
            }));
        }
        if let Some(last) = &mut last
            && last.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(());
        }
        // Whoever is gone is gone: its error concerns nobody here.
        let look = |context: &mut Context<'_>| {
            pace.read_on();
            connection.as_mut().poll(context).map(drop)
        };
        match turn.take(context, look) {
            Poll::Ready(()) => Poll::Ready(()),
            // All that has come was read.
            Poll::Pending => {
                // Refusals that are not read are held for a peer of which nothing is known.
                let is_unread = pace.is_blocked() && activity.accepted() == 0;
                if is_unread {
                    let end = unread.get_or_insert_with(|| Box::pin(tokio::time::sleep(UNREAD)));
                    if end.as_mut().poll(context).is_ready() {
                        return Poll::Ready(());
                    }
                } else {
                    unread = None;
                }
                stall_timer.poll(&pace, context)
            }
        }
    })
    .await;
    drop(connection);
    if last.is_some()
        && let Some(connection) = pace.into_connection()
    {
        linger(connection).await;
    }
}

/// Reads what is still on its way from a peer that was told that this is the end, until it has
/// heard that. To close before would reset the connection, and what it was told would be lost:
/// which of its calls were never begun, and can be made again.
async fn linger(mut connection: impl AsyncRead + Unpin) {
    let mut unread = [0; 4096];
    let read = async { while connection.read(&mut unread).await.is_ok_and(|count| count > 0) {} };
    tokio::time::timeout(LINGER_TIMEOUT, read).await.ok();
}

/// A time, give or take a tenth: connections made together do not all end together.
fn jitter(time: Duration) -> Duration {
    let dice = foldhash::quality::RandomState::default().hash_one(());
    time.mul_f64(0.9 + (dice % 1_000) as f64 / 5_000.0)
}
