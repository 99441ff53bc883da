//! Health: the service `grpc.health.v1`, which needs no key.
//!
//! A request must therefore be small, arrive within a second, and get one of the few slots of its
//! connection: see [`super::call_slots`]. The worker of the connection answers it and waits for
//! nothing else.
//!
//! The server and its services serve while the store is open and its lease holds: then calls are answered.
//! The service [`LIVE`] serves as long as a restart would not help.
//!
//! At shutdown a watch sends NOT_SERVING and ends. A stream that never ends would delay every drain
//! up to its timeout.
//!
//! Not here: when the server serves; see `server::run`.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
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
use crate::authority::admission::Urgency;
use crate::authority::noted_call::NotedCall;
use crate::grpc::body_timeout::{self, BodyTimeout};
use crate::grpc::response_body::{self, ResponseBody};
use crate::grpc::status;
use crate::grpc::unary::{self, CallBounds};
use crate::metrics::memory_budget::MemoryBudget;
use crate::store::lease::Lease;

/// The limit of a message, in bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 10;
/// How long a request may take to arrive completely.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// The name of the service that serves from the first moment until the server drains, with or without a
/// lease. A restart helps only a server that does not answer for it.
pub(crate) const LIVE: &str = "live";
/// How often the watches look at a lease that may end.
const LEASE_PERIOD: Duration = Duration::from_millis(50);

/// The state of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServingState {
    /// The store is not open.
    Starting,
    /// The store is open, and its lease does not hold.
    CutOff,
    Serving,
    /// The server shuts down, and watches end.
    Ending,
}

impl ServingState {
    /// The status of a service in this state.
    fn of(self, is_live: bool) -> ServingStatus {
        match self {
            Self::Serving => ServingStatus::Serving,
            Self::Starting | Self::CutOff if is_live => ServingStatus::Serving,
            Self::Starting | Self::CutOff | Self::Ending => ServingStatus::NotServing,
        }
    }
}

/// The health service.
pub(crate) struct Health {
    state: watch::Sender<ServingState>,
    /// The lease of the store, once it is open.
    lease: OnceLock<Arc<Lease>>,
    services: Vec<&'static str>,
    memory: Arc<MemoryBudget>,
}

impl Health {
    /// The health of these services. None of them serves yet.
    pub(crate) fn of(services: Vec<&'static str>, memory: Arc<MemoryBudget>) -> Arc<Self> {
        let (state, lease) = (watch::Sender::new(ServingState::Starting), OnceLock::new());
        Arc::new(Self { state, lease, services, memory })
    }

    /// From now on reports every service as SERVING while this lease holds.
    pub(crate) fn serve_under(&self, lease: Arc<Lease>) {
        self.lease.get_or_init(|| lease);
        self.update();
    }

    /// Tells the watches of each beginning and end of the lease, if it may end.
    pub(crate) async fn follow_lease(self: Arc<Self>) {
        let mut period = tokio::time::interval(LEASE_PERIOD);
        loop {
            period.tick().await;
            self.update();
        }
    }

    /// Tells the watches the state of this moment.
    fn update(&self) {
        self.state.send_if_modified(|state| {
            let next = self.now(*state);
            std::mem::replace(state, next) != next
        });
    }

    /// The state of this moment, if it was this when it was last seen.
    fn now(&self, seen: ServingState) -> ServingState {
        let Some(lease) = self.lease.get() else { return seen };
        match seen {
            ServingState::Ending => seen,
            _ if NotedCall::on(lease).is_ok_and(|noted| noted.test(lease).is_ok()) => {
                ServingState::Serving
            }
            _ => ServingState::CutOff,
        }
    }

    /// Reports every service as NOT_SERVING, and ends the watches.
    pub(crate) fn end(&self) {
        self.state.send_replace(ServingState::Ending);
    }

    /// The kind of call of this method. None: there is no such method.
    pub(crate) fn kind(method: &str) -> Option<CallKind> {
        match method {
            "Check" => Some(CallKind::HealthCheck),
            "Watch" => Some(CallKind::HealthWatch),
            _ => None,
        }
    }

    /// Answers a call that holds a slot.
    pub(crate) async fn answer<B>(
        self: Arc<Self>,
        kind: CallKind,
        slot: CallSlot,
        deadline: Option<Duration>,
        body: B,
    ) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes, Error: Into<body_timeout::Error>> + Unpin,
    {
        let body = BodyTimeout::new(body, REQUEST_TIMEOUT);
        let account = || self.memory.shared();
        let response = if kind == CallKind::HealthWatch {
            match unary::message(deadline, body, MAX_MESSAGE_BYTES, &account, unary::decode).await {
                Ok(request) => {
                    let watch = self.watch(&request);
                    unary::reply(ResponseBody::Other(tonic::body::Body::new(watch)))
                }
                Err(status) => status.into_http(),
            }
        } else {
            let check = async |message| Ok(unary::write(&self.check(&unary::decode(message)?)?));
            let urgency = Urgency::Read;
            let bounds = CallBounds { deadline, max_len: MAX_MESSAGE_BYTES, urgency };
            unary::unary(bounds, body, account, check).await
        };
        slot.hold(response)
    }

    fn knows(&self, request: &HealthCheckRequest) -> bool {
        self.services.contains(&request.service.as_str())
    }

    fn check(&self, request: &HealthCheckRequest) -> Result<HealthCheckResponse, Status> {
        if !self.knows(request) {
            return Err(status::no_such_service());
        }
        let seen = *self.state.borrow();
        Ok(response(self.now(seen).of(request.service == LIVE)))
    }

    fn watch(&self, request: &HealthCheckRequest) -> HealthWatchBody {
        let states = WatchStream::new(self.state.subscribe());
        let (is_known, is_live) = (self.knows(request), request.service == LIVE);
        HealthWatchBody { states, is_known, is_live, sent: None, ends: false }
    }
}

/// The response with this status.
fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// The reply to a watch: the current status of a service, and each new one. For a client that does not
/// read, only the latest status is kept. The name of an unknown service is not kept.
struct HealthWatchBody {
    states: WatchStream<ServingState>,
    is_known: bool,
    is_live: bool,
    /// The status that was sent last.
    sent: Option<ServingStatus>,
    /// Whether only the trailers remain to be sent.
    ends: bool,
}

impl Body for HealthWatchBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        while !self.ends {
            let state = ready!(Pin::new(&mut self.states).poll_next(context));
            let state = state.unwrap_or(ServingState::Ending);
            self.ends = state == ServingState::Ending;
            let status = match self.is_known {
                true => state.of(self.is_live),
                false => ServingStatus::ServiceUnknown,
            };
            if self.sent.replace(status) != Some(status) {
                return Poll::Ready(Some(Ok(Frame::data(unary::write(&response(status))))));
            }
        }
        if self.sent.take().is_none() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::trailers(response_body::ok_trailers()))))
    }

    fn is_end_stream(&self) -> bool {
        self.ends && self.sent.is_none()
    }
}
