//! Service: admits a call and answers it: a check on its worker, any other call on the background
//! runtime.
//!
//! Not here: the connection of the call; see [`super::connection`]. And the handlers; see
//! [`crate::grpc`].

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

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
use super::health::Health;
use super::interruption::Interruptible;
use super::settings::ConnectionLimits;
use super::tls::Tls;
use crate::authority::admission::{Admission, Load, URGENT_RESERVE, Urgency};
use crate::authority::caller_limits::CallerLimits;
use crate::authority::operation::Operation;
use crate::grpc::body_timeout::BodyTimeout;
use crate::grpc::memory::{self, CountedBody, RequestMemory};
use crate::grpc::peer::Peer;
use crate::grpc::preflight::RejectedHead;
use crate::grpc::response_body::{InFlight, ResponseBody};
use crate::grpc::unary;
use crate::grpc::{self, Api, status};
use crate::metrics::{Counted, wait_spans};
use crate::observe::connection_events::ConnectionEvents;
use crate::observe::otlp::{self, Trace, TracedRequest};
use crate::observe::rejected_callers::RejectedCallers;
use crate::observe::rejection::RejectedCaller;
use crate::observe::request_log::{AccessLogLine, ObservedRequest, RequestObserver};
use crate::observe::trace_context::RequestContext;
use crate::policy::caller::Caller;
use crate::policy::revision::Revision;
use crate::proto::{BatchCheckRequest, CheckRequest};
use crate::wire::access;
use crate::wire::names::code_name;

/// The health calls, which need no key.
pub(crate) const HEALTH: &str = "/grpc.health.v1.Health/";

/// The parts that each worker needs to answer calls.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) api: Api,
    /// The generated services.
    pub(crate) routes: Routes,
    /// TLS. None: connections are plain text.
    pub(crate) tls: Option<Tls>,
    /// The runtime of calls that are no checks.
    pub(crate) background: Handle,
    /// The limit of a message, in bytes.
    pub(crate) max_message_bytes: usize,
    /// The limit of a call's headers, in bytes.
    pub(crate) max_header_bytes: usize,
    /// The health service.
    pub(crate) health: Arc<Health>,
    /// The slots of the whole server.
    pub(crate) call_slots: Arc<CallSlots>,
    /// The limit of calls in flight on a worker.
    pub(crate) max_in_flight: usize,
    /// How long a connection may be open.
    pub(crate) connection_limits: ConnectionLimits,
    /// The counts of connection events.
    pub(crate) connection_events: Arc<ConnectionEvents>,
    /// How long a peer may take for a TLS handshake, or for a frame that it has begun.
    pub(crate) stall_timeout: Duration,
    /// How long a request may take to arrive completely.
    pub(crate) request_timeout: Duration,
    /// The limits of each key.
    pub(crate) caller_limits: Arc<CallerLimits>,
    /// Counts and logs rejected callers.
    pub(crate) rejected_callers: Arc<RejectedCallers>,
    /// The counters of this worker.
    pub(crate) calls: Arc<CallCounters>,
    /// Selects the calls that are traced or logged.
    pub(crate) observer: Option<Arc<RequestObserver>>,
}

impl Service {
    /// Admits a call before its message is read. `in_flight` is the number of calls on this worker,
    /// including this one.
    ///
    /// # Errors
    /// The store is not open, the caller is not authenticated or not permitted, or a limit is reached.
    fn admit(
        &self,
        operation: Option<&'static Operation>,
        headers: &HeaderMap,
        peer: &Peer,
        in_flight: usize,
    ) -> Result<Admission, Status> {
        let max_in_flight = self.max_in_flight;
        if in_flight > max_in_flight + URGENT_RESERVE {
            return Err(status::overloaded(max_in_flight));
        }
        let (by_key, limits) = (&self.calls.by_key, &*self.caller_limits);
        let load = Load { in_flight, max_in_flight, by_key, limits };
        let presented = grpc::presented(headers, peer);
        Ok(self.api.ready()?.admit(operation, presented, load)?)
    }

    /// The kind of a health call, its slot and its deadline.
    ///
    /// # Errors
    /// The method is unknown, the request cannot be read, or no slot is free.
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

/// Answers one call.
///
/// The executor moves the future of a check, so the future holds only the body of the request. The
/// futures of other calls are boxed.
pub(crate) fn handle(
    service: Arc<Service>,
    peer: &Peer,
    activity: &Arc<Activity>,
    own_slots: &ConnectionSlots,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> + use<> {
    enum DispatchedCall<H, F> {
        Unfit(RejectedHead),
        Rejected(Box<Status>),
        Check(Option<Duration>, Caller, Incoming),
        Health(Pin<Box<H>>),
        Other(Pin<Box<F>>, Option<CallSlot>),
    }
    let path = request.uri().path();
    let operation = access::operation(path);
    let interruptible = Interruptible::new(activity, operation, path);
    let (mut counted, mut of_key, mut open, mut known) = (None, None, None, None);
    let call = if let Some(unfit) = RejectedHead::of(&request, service.max_header_bytes) {
        DispatchedCall::Unfit(unfit)
    } else if operation.is_none()
        && let Some(method) = path.strip_prefix(HEALTH)
    {
        match service.admit_health(method, request.headers(), own_slots) {
            // Only the body of the request is kept.
            Ok((kind, slot, deadline)) => {
                activity.probe();
                open = Some(activity.open());
                let health = Arc::clone(&service.health);
                let body = request.into_body();
                DispatchedCall::Health(Box::pin(health.answer(kind, slot, deadline, body)))
            }
            Err(status) => DispatchedCall::Rejected(Box::new(status)),
        }
    } else {
        let (one, in_flight) = Counted::one_more(&service.calls.in_flight);
        counted = Some(one);
        let observer = service.observer.as_ref();
        let observed = observer.and_then(|observer| observer.observe(request.headers()));
        match (
            service.admit(operation, request.headers(), peer, in_flight),
            unary::deadline(request.headers()),
        ) {
            (Err(status), _) => {
                // A rejected call is not in flight while its response waits to be sent.
                counted = None;
                DispatchedCall::Rejected(Box::new(status))
            }
            (Ok(mut admission), Ok(deadline))
                if access::is_method_of::<CheckRequest>(admission.operation)
                    && observed.is_none()
                    && unary::is_supported(request.headers()) =>
            {
                activity.accept();
                of_key = admission.in_flight.take();
                DispatchedCall::Check(deadline, admission.caller, request.into_body())
            }
            (Ok(mut admission), deadline) => {
                of_key = admission.in_flight.take();
                let slot = match access::is_reflection(admission.operation) {
                    false => Ok(None),
                    true => service.call_slots.take(CallKind::Reflection, own_slots).map(Some),
                };
                match slot {
                    Ok(slot) => {
                        activity.accept();
                        open = Some(activity.open());
                        known = Some(admission.caller.clone());
                        let service = Arc::clone(&service);
                        let call = call(service, request, deadline, admission, observed);
                        DispatchedCall::Other(Box::pin(call), slot)
                    }
                    Err(status) => DispatchedCall::Rejected(Box::new(status)),
                }
            }
        }
    };
    let address = peer.address;
    async move {
        let in_flight = InFlight(counted, of_key);
        let response = match call {
            DispatchedCall::Check(deadline, caller, body) => {
                let key = caller.key();
                let account = || service.caller_limits.account(key);
                let decide = async |check| {
                    service.api.decide(service.api.authorize(caller, &check)?, check, None).await
                };
                let body = BodyTimeout::new(body, service.request_timeout);
                let read = unary::count_and_decode;
                let answer =
                    unary::unary(deadline, body, service.max_message_bytes, account, read, decide);
                interruptible.answer(answer).await
            }
            DispatchedCall::Health(call) => interruptible.answer(call).await,
            DispatchedCall::Other(call, None) => interruptible.answer(call).await,
            DispatchedCall::Other(call, Some(slot)) => slot.hold(interruptible.answer(call).await),
            DispatchedCall::Unfit(unfit) => unfit.into_response(service.max_header_bytes),
            DispatchedCall::Rejected(status) => status.into_http(),
        };
        let code = service.calls.count(operation, &response);
        let rejected =
            RejectedCaller::of(code, &response).map(|rejected| rejected.of_caller(known.as_ref()));
        let known_path = operation.map_or("other", |operation| operation.path);
        service.rejected_callers.call(address, known_path, rejected);
        Ok(match open {
            // A stream is open until its last frame. Other responses are whole messages.
            Some(open) if response.body().is_stream() => response.map(|body| {
                let body = interruptible.body(body, open, in_flight);
                ResponseBody::Other(tonic::body::Body::new(body))
            }),
            _ => response.map(|body| body.in_flight(in_flight)),
        })
    }
}

/// Answers a call that is not a single check, or that is observed.
async fn call(
    service: Arc<Service>,
    request: Request<Incoming>,
    deadline: Result<Option<Duration>, Status>,
    admission: Admission,
    observed: Option<ObservedRequest>,
) -> Response<ResponseBody> {
    let deadline = match deadline {
        Ok(deadline) => deadline,
        Err(status) => return status.into_http(),
    };
    let caller = &admission.caller;
    let line = match admission.operation.is_logged {
        true => AccessLogLine::begin(&request, caller, observed.as_ref()),
        false => None,
    };
    let trace = observed.as_ref().and_then(|observed| observed.trace(request.uri().path(), caller));
    let context = observed.map(|observed| observed.context);
    let steps = trace.as_ref().map(Trace::steps);
    let answered = run(&service, request, deadline, admission, context, trace.as_ref());
    let response = wait_spans::scope(steps, answered).await;
    if let Some(trace) = trace {
        trace.finish(&response);
    }
    if let Some(line) = line {
        line.write(code_name(otlp::code(&response).into()));
    }
    response
}

/// Answers a call on this worker if it is a check or a batch, else by the generated services.
async fn run(
    service: &Service,
    mut request: Request<Incoming>,
    deadline: Option<Duration>,
    Admission { operation, caller, urgency, .. }: Admission,
    context: Option<Arc<RequestContext>>,
    trace: Option<&Trace>,
) -> Response<ResponseBody> {
    let api = &service.api;
    let key = caller.key();
    let account = || service.caller_limits.account(key);
    if access::is_method_of::<CheckRequest>(operation) && unary::is_supported(request.headers()) {
        let decide = async |check: CheckRequest| {
            let request = trace.map(|_| TracedRequest::of(&check));
            let response =
                api.decide(api.authorize(caller, &check)?, check, context.as_ref()).await?;
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
    if access::is_method_of::<BatchCheckRequest>(operation)
        && unary::is_supported(request.headers())
    {
        let decide = async |batch| {
            let response =
                api.decide_all(api.authorize(caller, &batch)?, batch, context.as_ref()).await?;
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
    if let Some(context) = context {
        request.extensions_mut().insert(context);
    }
    dispatch_routes(service, request, deadline, operation, key, urgency).await
}

/// Answers a call by the generated services, on the background runtime.
async fn dispatch_routes(
    service: &Service,
    request: Request<Incoming>,
    deadline: Option<Duration>,
    operation: &'static Operation,
    key: Option<Revision>,
    urgency: Urgency,
) -> Response<ResponseBody> {
    let (routes, time) = (service.routes.clone(), service.request_timeout);
    let (limits, account) =
        (Arc::clone(&service.caller_limits), service.caller_limits.account(key));
    let running =
        AbortOnDropHandle::new(service.background.spawn(wait_spans::propagate(async move {
            let memory = RequestMemory::of(&account);
            let held = memory.clone();
            let request = if operation.is_stream {
                request.map(|body| tonic::body::Body::new(CountedBody::stream(body, memory)))
            } else {
                let with_timeout =
                    |body| CountedBody::unary(BodyTimeout::new(body, time), memory, urgency);
                request.map(|body| tonic::body::Body::new(with_timeout(body)))
            };
            let answered = async {
                let permit = limits.acquire_list(key, operation).await;
                match permit.map_err(status::too_many_lists) {
                    Ok(_permit) => routes.oneshot(request).await,
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
        Ok(Ok(response)) => status::with_details(response).map(ResponseBody::Other),
        Ok(Err(never)) => match never {},
        // The call panicked, or the runtime shuts down.
        Err(_) => status::internal().into_http(),
    }
}
