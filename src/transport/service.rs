//! Service: answers a call, here if it is a check, and elsewhere if it may be long.
//!
//! Not here: the connection that it came by; see [`super::connection`].

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::service::Routes;
use tower::ServiceExt;

use super::activity::Activity;
use super::call_counters::CallCounters;
use super::call_slots::{CallKind, CallSlot, CallSlots, ConnectionSlots};
use super::caller_limits::{self, CallerLimits};
use super::health::Health;
use super::interruption::Interruptible;
use super::settings::ConnectionLimits;
use super::tls::Tls;
use crate::grpc::access;
use crate::grpc::body_timeout::BodyTimeout;
use crate::grpc::memory::{self, CountedBody, RequestMemory, Urgency};
use crate::grpc::peer::Peer;
use crate::grpc::preflight::Unfit;
use crate::grpc::unary::{self, InFlight, Reply};
use crate::grpc::{self, Api, status};
use crate::metrics::{Counted, wait_spans};
use crate::observe::connection_events::ConnectionEvents;
use crate::observe::otlp::{self, Trace, TracedRequest};
use crate::observe::rejected_callers::RejectedCallers;
use crate::observe::rejection::{RejectedCaller, RejectionReason};
use crate::observe::request_log::{AccessLogLine, ObservedRequest, RequestObserver};
use crate::observe::trace_context::RequestContext;
use crate::policy::caller::Caller;
use crate::policy::revision::Revision;
use crate::proto::CheckRequest;

/// The paths that go by the shortest way.
pub(crate) const CHECK: &str = "/scopegate.v1.AuthorizationService/Check";
pub(crate) const BATCH_CHECK: &str = "/scopegate.v1.AuthorizationService/BatchCheck";

/// The calls that anybody may make.
pub(crate) const HEALTH: &str = "/grpc.health.v1.Health/";

/// How many calls above `--max-in-flight` a core takes on of those by which operators take rights
/// away.
const URGENT: usize = 64;

/// The calls whose messages come one after another, for as long as the caller likes.
const STREAMS: [&str; 2] =
    ["/scopegate.v1.DirectoryService/ImportCredentials", "/grpc.reflection."];

/// What every core answers with.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) api: Api,
    /// Every call, by the generated services.
    pub(crate) routes: Routes,
    /// What connections begin with, if it is not plain text.
    pub(crate) tls: Option<Tls>,
    /// Where calls run that are no checks.
    pub(crate) background: Handle,
    /// The most bytes of a message.
    pub(crate) max_message_bytes: usize,
    /// The most bytes of a call's headers.
    pub(crate) max_header_bytes: usize,
    /// What is said of health.
    pub(crate) health: Arc<Health>,
    /// The places of calls that have some.
    pub(crate) call_slots: Arc<CallSlots>,
    /// The most calls under way on a core.
    pub(crate) max_in_flight: usize,
    /// How long a connection lives.
    pub(crate) connection_limits: ConnectionLimits,
    /// What is counted of connections.
    pub(crate) connection_events: Arc<ConnectionEvents>,
    /// How long a peer may take for a handshake, or for a frame that it has begun.
    pub(crate) stall_timeout: Duration,
    /// How long a request may take to come as a whole.
    pub(crate) request_timeout: Duration,
    /// How much of the server one key may take.
    pub(crate) caller_limits: Arc<CallerLimits>,
    /// Logs the callers that are refused.
    pub(crate) rejected_callers: Arc<RejectedCallers>,
    /// What is counted on this core.
    pub(crate) calls: Arc<CallCounters>,
    /// Who wants to know of single calls, if anybody does.
    pub(crate) observer: Option<Arc<RequestObserver>>,
}

/// A call that may be made: its caller, and the places in flight that it takes.
struct Admitted {
    caller: Caller,
    urgency: Urgency,
    /// The place that it takes of those of its key.
    place: Option<Counted>,
}

impl Service {
    /// Who makes a call, if it may make it at all: before anything of its message is read.
    /// `in_flight` is how many calls there are with it on this core.
    fn admit<B>(
        &self,
        request: &Request<B>,
        peer: &Peer,
        in_flight: usize,
    ) -> Result<Admitted, Status> {
        let path = request.uri().path();
        if in_flight > self.max_in_flight + URGENT {
            return Err(status::overloaded(self.max_in_flight));
        }
        let caller = self.api.caller(request.headers(), peer)?;
        let urgent = caller_limits::is_urgent(&caller, path);
        let more = if urgent { URGENT } else { 0 };
        if in_flight > self.max_in_flight + more {
            return Err(status::overloaded(self.max_in_flight));
        }
        let roles = access::roles(path).ok_or_else(status::unknown_method)?;
        if !caller.roles().intersects(roles) {
            return Err(RejectedCaller::caller(
                status::not_permitted(),
                RejectionReason::Role,
                &caller,
            ));
        }
        let urgency = match access::is_change(path) {
            true if urgent => Urgency::Urgent,
            true => Urgency::Change,
            false => Urgency::Read,
        };
        let Caller::Key(key) = &caller else {
            return Ok(Admitted { caller, urgency, place: None });
        };
        let (place, in_flight) = self.calls.one_more_of(key.created_at);
        let most = (self.max_in_flight + more).div_ceil(2);
        if in_flight > most {
            return Err(status::too_many_of_key(most));
        }
        if access::is_rated(path) {
            self.caller_limits.count(key, urgent, Instant::now()).map_err(status::rate_limited)?;
        }
        Ok(Admitted { caller, urgency, place: Some(place) })
    }

    /// Which kind of health call it is, its place, and its deadline.
    fn admit_health(
        &self,
        method: &str,
        headers: &HeaderMap,
        own: &ConnectionSlots,
    ) -> Result<(CallKind, CallSlot, Option<Duration>), Status> {
        let kind = Health::kind(method).ok_or_else(status::unknown_method)?;
        let deadline = unary::deadline(headers)?;
        if !unary::is_supported(headers) {
            return Err(status::compressed());
        }
        Ok((kind, self.call_slots.take(kind, own)?, deadline))
    }
}

/// Answers one call: a check here, anything else elsewhere.
///
/// The future of a check is moved about by whoever runs it, so it holds no more of the request
/// than its body; what is not a check is boxed.
pub(crate) fn handle(
    service: Arc<Service>,
    peer: &Peer,
    activity: &Arc<Activity>,
    own_places: &ConnectionSlots,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Reply>, Infallible>> + use<> {
    enum Call<H, F> {
        Unfit(Unfit),
        Refused(Box<Status>),
        Check(Option<Duration>, Admitted, Incoming),
        Health(Pin<Box<H>>),
        Other(Pin<Box<F>>, Option<CallSlot>),
    }
    let path = request.uri().path();
    // Checks come first there.
    let place = access::PATHS.iter().position(|known| *known == path);
    let place = place.unwrap_or(access::PATHS.len());
    let interruptible = Interruptible::new(activity, path);
    let (mut counted, mut of_key, mut open, mut known) = (None, None, None, None);
    let call = if let Some(unfit) = Unfit::of(&request, service.max_header_bytes) {
        Call::Unfit(unfit)
    } else if place == access::PATHS.len()
        && let Some(method) = path.strip_prefix(HEALTH)
    {
        match service.admit_health(method, request.headers(), own_places) {
            // Nothing of the request is kept but its body.
            Ok((kind, place, deadline)) => {
                activity.probe();
                open = Some(activity.open());
                let health = Arc::clone(&service.health);
                let body = request.into_body();
                Call::Health(Box::pin(health.answer(kind, place, deadline, body)))
            }
            Err(status) => Call::Refused(Box::new(status)),
        }
    } else {
        let (one, in_flight) = Counted::one_more(&service.calls.under_way);
        counted = Some(one);
        let observer = service.observer.as_ref();
        let observed = observer.and_then(|observer| observer.observe(request.headers()));
        match (service.admit(&request, peer, in_flight), unary::deadline(request.headers())) {
            (Err(status), _) => {
                // It takes no place from others while it waits for its turn to be told so.
                counted = None;
                Call::Refused(Box::new(status))
            }
            (Ok(mut admitted), Ok(deadline))
                if path == CHECK
                    && observed.is_none()
                    && unary::is_supported(request.headers()) =>
            {
                activity.accept();
                of_key = admitted.place.take();
                Call::Check(deadline, admitted, request.into_body())
            }
            (Ok(mut admitted), deadline) => {
                of_key = admitted.place.take();
                // What may be called and is not of this program is the reflection.
                let place = match place < access::PATHS.len() {
                    true => Ok(None),
                    false => service.call_slots.take(CallKind::Reflection, own_places).map(Some),
                };
                match place {
                    Ok(place) => {
                        activity.accept();
                        open = Some(activity.open());
                        known = Some(admitted.caller.clone());
                        let service = Arc::clone(&service);
                        let call = call(service, request, deadline, admitted, observed);
                        Call::Other(Box::pin(call), place)
                    }
                    Err(status) => Call::Refused(Box::new(status)),
                }
            }
        }
    };
    let address = peer.address;
    async move {
        let in_flight = InFlight(counted, of_key);
        let response = match call {
            Call::Check(deadline, Admitted { caller, .. }, body) => {
                let key = caller.key();
                let account = || service.caller_limits.account(key);
                let decide = async |check| {
                    service.api.decide(service.api.asked_by(caller, check)?, None).await
                };
                let body = BodyTimeout::new(body, service.request_timeout);
                let read = unary::count_and_decode;
                let answer =
                    unary::unary(deadline, body, service.max_message_bytes, account, read, decide);
                interruptible.answer(answer).await
            }
            Call::Health(call) => interruptible.answer(call).await,
            Call::Other(call, None) => interruptible.answer(call).await,
            Call::Other(call, Some(place)) => place.kept_by(interruptible.answer(call).await),
            Call::Unfit(unfit) => unfit.into_response(service.max_header_bytes),
            Call::Refused(status) => status.into_http(),
        };
        let code = service.calls.answered(place, &response);
        let refused =
            RejectedCaller::of(code, &response).map(|refused| refused.of_caller(known.as_ref()));
        let known_path = access::PATHS.get(place).copied().unwrap_or("other");
        service.rejected_callers.call(address, known_path, refused);
        Ok(match open {
            // A stream is open until its last word. The others are whole messages.
            Some(open) if response.body().is_stream() => response.map(|body| {
                let body = interruptible.body(body, open, in_flight);
                Reply::Other(tonic::body::Body::new(body))
            }),
            _ => response.map(|body| body.in_flight(in_flight)),
        })
    }
}

/// Answers a call that is no check of one thing, or one that is observed.
async fn call(
    service: Arc<Service>,
    request: Request<Incoming>,
    deadline: Result<Option<Duration>, Status>,
    Admitted { caller, urgency, .. }: Admitted,
    observed: Option<ObservedRequest>,
) -> Response<Reply> {
    let deadline = match deadline {
        Ok(deadline) => deadline,
        Err(status) => return status.into_http(),
    };
    let path = request.uri().path();
    // Health calls and checks are too many for the access log, and decisions have their own log.
    let has_line = !path.starts_with(HEALTH) && ![CHECK, BATCH_CHECK].contains(&path);
    let line =
        if has_line { AccessLogLine::begin(&request, &caller, observed.as_ref()) } else { None };
    let trace =
        observed.as_ref().and_then(|observed| observed.trace(request.uri().path(), &caller));
    let origin = observed.map(|observed| observed.context);
    let steps = trace.as_ref().map(Trace::steps);
    let asker = Asker { caller, urgency };
    let answered = run(&service, request, deadline, asker, origin, trace.as_ref());
    let response = wait_spans::noted(steps, answered).await;
    if let Some(trace) = trace {
        trace.finish(&response);
    }
    if let Some(line) = line {
        line.write(grpc::code_name(otlp::code(&response).into()));
    }
    response
}

/// The caller of a call, and whether the call may be refused for want of memory.
struct Asker {
    caller: Caller,
    urgency: Urgency,
}

/// Answers a call, here or elsewhere.
async fn run(
    service: &Service,
    mut request: Request<Incoming>,
    deadline: Option<Duration>,
    Asker { caller, urgency }: Asker,
    origin: Option<Arc<RequestContext>>,
    trace: Option<&Trace>,
) -> Response<Reply> {
    let api = &service.api;
    let path = request.uri().path();
    let key = caller.key();
    let account = || service.caller_limits.account(key);
    if path == CHECK && unary::is_supported(request.headers()) {
        let decide = async |check: CheckRequest| {
            let request = trace.map(|_| TracedRequest::of(&check));
            let response = api.decide(api.asked_by(caller, check)?, origin.as_ref()).await?;
            if let (Some(trace), Some(request)) = (trace, request) {
                trace.record_decision(request, &response);
            }
            Ok(response)
        };
        let body = BodyTimeout::new(request.into_body(), service.request_timeout);
        let read = unary::count_and_decode;
        return unary::unary(deadline, body, service.max_message_bytes, account, read, decide)
            .await;
    }
    if path == BATCH_CHECK && unary::is_supported(request.headers()) {
        let decide = async |batch| {
            let response = api.decide_all(api.asked_by(caller, batch)?, origin.as_ref()).await?;
            if let Some(trace) = trace {
                trace.record_batch(&response);
            }
            Ok(response)
        };
        let body = BodyTimeout::new(request.into_body(), service.request_timeout);
        let read = unary::count_and_decode;
        return unary::unary(deadline, body, service.max_message_bytes, account, read, decide)
            .await;
    }
    unary::keep_own(request.headers_mut());
    request.extensions_mut().insert(caller);
    if let Some(origin) = origin {
        request.extensions_mut().insert(origin);
    }
    dispatch_routes(service, request, deadline, key, urgency).await
}

/// Has the generated services answer.
async fn dispatch_routes(
    service: &Service,
    request: Request<Incoming>,
    deadline: Option<Duration>,
    key: Option<Revision>,
    urgency: Urgency,
) -> Response<Reply> {
    let (routes, time) = (service.routes.clone(), service.request_timeout);
    let (limits, account) =
        (Arc::clone(&service.caller_limits), service.caller_limits.account(key));
    let running =
        AbortOnDropHandle::new(service.background.spawn(wait_spans::propagate(async move {
            let memory = RequestMemory::of(&account);
            let held = memory.clone();
            let request = if STREAMS.iter().any(|path| request.uri().path().starts_with(path)) {
                request.map(|body| tonic::body::Body::new(CountedBody::stream(body, memory)))
            } else {
                let timely =
                    |body| CountedBody::unary(BodyTimeout::new(body, time), memory, urgency);
                request.map(|body| tonic::body::Body::new(timely(body)))
            };
            let answered = async {
                let turn = limits.turn_to_list(key, request.uri().path()).await;
                match turn.map_err(status::too_many_lists) {
                    Ok(_turn) => routes.oneshot(request).await,
                    Err(status) => Ok(status.into_http()),
                }
            };
            let answered = match deadline {
                None => answered.await,
                Some(time) => match tokio::time::timeout(time, answered).await {
                    Ok(answered) => answered,
                    Err(_) => Ok(status::deadline_exceeded().into_http()),
                },
            };
            drop(held);
            match answered {
                Ok(response) => Ok(memory::held(response, account, urgency).await),
                Err(never) => Err(never),
            }
        })));
    match running.await {
        Ok(Ok(response)) => status::with_details(response).map(Reply::Other),
        Ok(Err(never)) => match never {},
        // The call panicked, or the runtime ends.
        Err(_) => status::internal().into_http(),
    }
}
