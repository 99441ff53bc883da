//! Timeout: ends a call when the server makes no progress.
//!
//! The limit applies between two signs of progress, not to the whole call. A sign of progress is that
//! the server accepts a part of the request, begins its response, or sends a part of it. So a large
//! backup may take any time, and a server that stops during the backup is detected.
//!
//! Time in which the command itself waits for its input or for the reader of its output is not
//! counted. Not here: pings, which detect a stopped server on a stream that may be silent for long;
//! see [`super::connection`].

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tonic::Status;
use tonic::body::Body as TonicBody;
use tonic::codegen::{Service, StdError};
use tonic::transport::Channel;

use super::diagnosis::{self, Unreachable};
use super::server_address::ServerAddress;

/// A channel whose calls end when the server makes no progress.
#[derive(Clone)]
pub(super) struct Timeout {
    channel: Channel,
    address: ServerAddress,
    /// Whether the server has responded to a call. Then a later failure needs no diagnosis of the address.
    has_answered: Arc<AtomicBool>,
    limit: Duration,
    /// Whether the limit applies between the messages of a response, too. A stream of events is silent
    /// while no event happens.
    applies_to_responses: bool,
}

impl Timeout {
    pub(super) fn new(
        channel: Channel,
        address: ServerAddress,
        limit: Duration,
        applies_to_responses: bool,
    ) -> Self {
        Self { channel, address, has_answered: Arc::default(), limit, applies_to_responses }
    }

    /// The same channel with another limit.
    pub(super) fn with_limit(&self, limit: Duration) -> Self {
        Self { limit, ..self.clone() }
    }
}

impl Service<Request<TonicBody>> for Timeout {
    type Response = Response<TonicBody>;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, StdError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        self.channel.poll_ready(context).map_err(StdError::from)
    }

    fn call(&mut self, request: Request<TonicBody>) -> Self::Future {
        let (limit, sent) = (self.limit, CallProgress::new());
        let progress = sent.clone();
        let request = request.map(|body| TonicBody::new(RequestBody { body, progress }));
        let limit_in_response = self.applies_to_responses.then_some(limit);
        let response = self.channel.call(request);
        let (address, has_answered) = (self.address.clone(), Arc::clone(&self.has_answered));
        Box::pin(async move {
            tokio::pin!(response);
            let mut deadline = Instant::now() + limit;
            loop {
                let response = tokio::select! {
                    result = &mut response => match result {
                        Ok(response) => response,
                        Err(error) if has_answered.load(Ordering::Relaxed) => {
                            return Err(error.into());
                        }
                        Err(error) => {
                            return Err(match diagnosis::of_call(&address, &error).await {
                                Some(found) => unreachable(found).into(),
                                None => error.into(),
                            });
                        }
                    },
                    () = sleep_until(deadline) => match sent.deadline(limit) {
                        later if later > Instant::now() => {
                            deadline = later;
                            continue;
                        }
                        _ => return Err(silent(limit).into()),
                    }
                };
                if !is_of_grpc(&response) {
                    return Err(unreachable(diagnosis::of_http_status(
                        &address,
                        response.status(),
                    ))
                    .into());
                }
                has_answered.store(true, Ordering::Relaxed);
                return Ok(response.map(|body| {
                    TonicBody::new(ResponseBody {
                        body,
                        limit: limit_in_response,
                        stall_timer: None,
                    })
                }));
            }
        })
    }
}

/// Whether a response is a gRPC response. Otherwise a proxy or another server sent it.
fn is_of_grpc<B>(response: &Response<B>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
        || response.headers().contains_key("grpc-status")
}

fn unreachable(found: Unreachable) -> Status {
    let mut status = Status::unavailable(found.to_string());
    status.set_source(Arc::new(found));
    status
}

fn silent(limit: Duration) -> Status {
    Status::deadline_exceeded(format!(
        "the server has been silent for {} s: check that it runs, or raise --timeout",
        limit.as_secs()
    ))
}

/// When the server last accepted a part of a request; None while the command has no next part.
#[derive(Clone)]
struct CallProgress(Arc<Mutex<Option<Instant>>>);

impl CallProgress {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(Instant::now()))))
    }

    fn set(&self, when: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = when;
    }

    fn deadline(&self, limit: Duration) -> Instant {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.unwrap_or_else(Instant::now) + limit
    }
}

/// The body of a request. The transport polls its next part when the server accepts data.
struct RequestBody {
    body: TonicBody,
    progress: CallProgress,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(context);
        this.progress.set(frame.is_ready().then(Instant::now));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response.
struct ResponseBody {
    body: TonicBody,
    limit: Option<Duration>,
    /// The timer of the wait for the next part.
    stall_timer: Option<Pin<Box<Sleep>>>,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.stall_timer = None;
            return Poll::Ready(frame);
        }
        let Some(limit) = this.limit else {
            return Poll::Pending;
        };
        ready!(
            this.stall_timer.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(context)
        );
        Poll::Ready(Some(Err(silent(limit))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
