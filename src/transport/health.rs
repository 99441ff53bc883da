//! Health: `grpc.health.v1`, which anybody may ask without a key.
//!
//! So a request is small, comes within a second, and has one of the few places of its connection:
//! see [`super::call_slots`]. It is answered where it comes in, and never waits for anything else.
//!
//! Watches are told of the end and then end: a stream that never ends would hold up every drain
//! for as long as it may take.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame};
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tonic::Status;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::call_slots::{CallKind, CallSlot};
use crate::grpc::body_timeout::{self, BodyTimeout};
use crate::grpc::status;
use crate::grpc::unary::{self, Reply};
use crate::metrics::memory_budget::MemoryBudget;

/// The most bytes of a message.
const MAX_MESSAGE: usize = 1 << 10;
/// How long a request may take to come as a whole.
const REQUEST_TIME: Duration = Duration::from_secs(1);

/// How the services do, all alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    NotServing,
    Serving,
    /// Not any more, and no watch goes on.
    Ending,
}

/// What is said of each service.
pub(crate) struct Health {
    state: watch::Sender<State>,
    services: Vec<&'static str>,
    memory: Arc<MemoryBudget>,
}

impl Health {
    /// Of these services, none of which does its work yet.
    pub(crate) fn of(services: Vec<&'static str>, memory: Arc<MemoryBudget>) -> Arc<Self> {
        Arc::new(Self { state: watch::Sender::new(State::NotServing), services, memory })
    }

    /// Says that every service does its work.
    pub(crate) fn set_serving(&self) {
        self.state.send_replace(State::Serving);
    }

    /// Says that no service does its work any more, and ends the watches.
    pub(crate) fn end(&self) {
        self.state.send_replace(State::Ending);
    }

    /// Which kind of call has this method, if there is one.
    pub(crate) fn kind(method: &str) -> Option<CallKind> {
        match method {
            "Check" => Some(CallKind::HealthCheck),
            "Watch" => Some(CallKind::HealthWatch),
            _ => None,
        }
    }

    /// Answers a call that has a place.
    pub(crate) async fn answer<B>(
        self: Arc<Self>,
        kind: CallKind,
        place: CallSlot,
        deadline: Option<Duration>,
        body: B,
    ) -> Response<Reply>
    where
        B: Body<Data = Bytes, Error: Into<body_timeout::Error>> + Unpin,
    {
        let body = BodyTimeout::new(body, REQUEST_TIME);
        let account = || self.memory.shared();
        let response = if kind == CallKind::HealthWatch {
            match unary::message(deadline, body, MAX_MESSAGE, &account, unary::decode).await {
                Ok(request) => {
                    let watch = self.watch(&request);
                    unary::reply(Reply::Other(tonic::body::Body::new(watch)))
                }
                Err(status) => status.into_http(),
            }
        } else {
            let check = async |request| self.check(&request);
            unary::unary(deadline, body, MAX_MESSAGE, account, unary::decode, check).await
        };
        place.kept_by(response)
    }

    fn knows(&self, request: &HealthCheckRequest) -> bool {
        self.services.contains(&request.service.as_str())
    }

    fn check(&self, request: &HealthCheckRequest) -> Result<HealthCheckResponse, Status> {
        if !self.knows(request) {
            return Err(status::no_such_service());
        }
        Ok(said(match *self.state.borrow() {
            State::Serving => ServingStatus::Serving,
            State::NotServing | State::Ending => ServingStatus::NotServing,
        }))
    }

    fn watch(&self, request: &HealthCheckRequest) -> Watch {
        let states = WatchStream::new(self.state.subscribe());
        Watch { states, is_known: self.knows(request), told: None, ends: false }
    }
}

fn said(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// The reply to one who watches a service: its status, and each other one. Only the last is kept
/// for one who does not read, and nothing of the name of a service that is not known.
struct Watch {
    states: WatchStream<State>,
    is_known: bool,
    told: Option<ServingStatus>,
    /// Whether only the trailers are left.
    ends: bool,
}

impl Body for Watch {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        while !self.ends {
            let state = ready!(Pin::new(&mut self.states).poll_next(context));
            let state = state.unwrap_or(State::Ending);
            self.ends = state == State::Ending;
            let status = match state {
                _ if !self.is_known => ServingStatus::ServiceUnknown,
                State::Serving => ServingStatus::Serving,
                State::NotServing | State::Ending => ServingStatus::NotServing,
            };
            if self.told.replace(status) != Some(status) {
                return Poll::Ready(Some(Ok(Frame::data(unary::write(&said(status))))));
            }
        }
        if self.told.take().is_none() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::trailers(unary::ok_trailers()))))
    }

    fn is_end_stream(&self) -> bool {
        self.ends && self.told.is_none()
    }
}
