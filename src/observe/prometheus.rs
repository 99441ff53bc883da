//! Prometheus: the HTTP endpoint that a scraper reads, on a port of its own.
//!
//! Not here: the counters ([`crate::metrics`]) and the collector that reads them all
//! (`transport::collector`).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use super::connection_events::ConnectionEvents;

/// How many connections may be open. Above it the oldest is closed: a scrape is answered in less
/// time than it takes to open the others.
const MAX_CONNECTIONS: usize = 64;
/// How long the head of a request may take, from the start of its connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(1);
/// The limit of a request's head, in bytes. It is the smallest that hyper allows.
const MAX_HEAD_BYTES: usize = 8 << 10;
/// How long a connection may take in all.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait when no connection can be accepted, for example when all file handles are
/// taken.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Answers scrapes for as long as the process runs.
pub(crate) async fn serve(
    listener: Arc<TcpListener>,
    registry: Arc<Registry>,
    events: Arc<ConnectionEvents>,
) {
    // In the order in which they were accepted.
    let mut open: VecDeque<AbortOnDropHandle<()>> = VecDeque::with_capacity(MAX_CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= MAX_CONNECTIONS {
                    open.pop_front();
                }
                let registry = Arc::clone(&registry);
                open.push_back(AbortOnDropHandle::new(tokio::spawn(async move {
                    tokio::time::timeout(CONNECTION_TIMEOUT, handle(connection, registry))
                        .await
                        .ok();
                })));
            }
            Err(error) => {
                tracing::debug!(%error, "a connection for metrics could not be accepted");
                events.not_scraped();
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

async fn handle(connection: TcpStream, registry: Arc<Registry>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&registry, request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(connection), service);
    // A scraper that went away needs no reply.
    connection.await.ok();
}

fn answer(registry: &Registry, method: &Method, path: &str) -> Response<String> {
    let plain = |status: StatusCode, text: &str| {
        let mut response = Response::new(format!("{text}\n"));
        *response.status_mut() = status;
        response
    };
    if path != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "there is only /metrics here");
    }
    if method != Method::GET && method != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "metrics are only read");
    }
    let mut text = String::new();
    if encode(&mut text, registry).is_err() {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written");
    }
    let mut response = Response::new(text);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}
