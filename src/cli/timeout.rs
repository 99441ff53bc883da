//! Timeout: how long a command waits for a server that says nothing.
//!
//! Each call has one limit, between two signs of progress and not for the whole: the server takes a
//! part of the request, begins its reply, or sends a part of it. A large backup takes its time, and
//! a server that was stopped in the middle of one is noticed.
//!
//! Time in which the command itself waits, for its input or for whoever reads its output, is not
//! counted. Not here: pings, which notice a stopped server where a call may be silent for long; see
//! [`super::connection`].

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tonic::Status;
use tonic::body::Body as TonicBody;
use tonic::codegen::{Service, StdError};
use tonic::transport::Channel;

use super::diagnosis::{self, Unreachable};

/// A channel whose calls end when the server makes no progress.
#[derive(Clone)]
pub(super) struct Timeout {
    channel: Channel,
    /// Where the server is.
    uri: Uri,
    /// Whether it has answered a call: then it is no other server than was meant.
    has_answered: Arc<AtomicBool>,
    limit: Duration,
    /// Whether it counts between the messages of a reply, too. A stream of events is silent for as
    /// long as nothing happens.
    counts_in_replies: bool,
}

impl Timeout {
    pub(super) fn new(
        channel: Channel,
        uri: Uri,
        limit: Duration,
        counts_in_replies: bool,
    ) -> Self {
        Self { channel, uri, has_answered: Arc::default(), limit, counts_in_replies }
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
        let (limit, sent) = (self.limit, Progress::new());
        let progress = sent.clone();
        let request = request.map(|body| TonicBody::new(RequestBody { body, progress }));
        let limit_in_reply = self.counts_in_replies.then_some(limit);
        let reply = self.channel.call(request);
        let (uri, has_answered) = (self.uri.clone(), Arc::clone(&self.has_answered));
        Box::pin(async move {
            tokio::pin!(reply);
            let mut deadline = Instant::now() + limit;
            loop {
                let response = tokio::select! {
                    response = &mut reply => match response {
                        Ok(response) => response,
                        Err(error) if has_answered.load(Ordering::Relaxed) => {
                            return Err(error.into());
                        }
                        Err(error) => {
                            return Err(match diagnosis::of_call(&uri, &error).await {
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
                    return Err(
                        unreachable(diagnosis::of_http_status(&uri, response.status())).into()
                    );
                }
                has_answered.store(true, Ordering::Relaxed);
                return Ok(response.map(|body| {
                    TonicBody::new(ReplyBody { body, limit: limit_in_reply, silence: None })
                }));
            }
        })
    }
}

/// Whether an answer is one of gRPC: others are of a proxy, or of another server.
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
        "the server has been silent for {} s: see whether it runs, or raise --timeout",
        limit.as_secs()
    ))
}

/// When the server last took a part of a request; nothing while the next part is not there yet.
#[derive(Clone)]
struct Progress(Arc<Mutex<Option<Instant>>>);

impl Progress {
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

/// A request's body, whose parts are asked for as the server takes them.
struct RequestBody {
    body: TonicBody,
    progress: Progress,
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

/// A reply's body.
struct ReplyBody {
    body: TonicBody,
    limit: Option<Duration>,
    /// Runs while a part is waited for.
    silence: Option<Pin<Box<Sleep>>>,
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.silence = None;
            return Poll::Ready(frame);
        }
        let Some(limit) = this.limit else {
            return Poll::Pending;
        };
        ready!(this.silence.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(context));
        Poll::Ready(Some(Err(silent(limit))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
