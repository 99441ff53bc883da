//! Service: admits a call and answers it: a check on its worker, any other call on the background
//! runtime.
//!
//! Not here: the connection of the call; see [`super::connection`]. And the handlers; see
//! [`crate::grpc`].

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body, Incoming};
use tokio::runtime::Handle;
use tokio::time::Instant;
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
use crate::authority::noted_call::{LeaseExemption, Leased, NotedCall};
use crate::authority::operation::{Effect, Operation};
use crate::authority::replica_waits::ReplicaWaits;
use crate::grpc::body_timeout::BodyTimeout;
use crate::grpc::leased_body::leased;
use crate::grpc::memory::{self, CountedBody, RequestMemory};
use crate::grpc::methods::{self, Observed};
use crate::grpc::peer::Peer;
use crate::grpc::preflight::RejectedHead;
use crate::grpc::response_body::{InFlight, ResponseBody};
use crate::grpc::unary::{self, CallBounds};
use crate::grpc::{self, Api, peer_service, reply, status, streams};
use crate::metrics::{Counted, wait_spans};
use crate::observe::connection_events::ConnectionEvents;
use crate::observe::otlp::{self, Trace};
use crate::observe::rejected_callers::RejectedCallers;
use crate::observe::rejection::RejectedCaller;
use crate::observe::request_log::{ObservedRequest, RequestObserver};
use crate::policy::caller::Caller;
use crate::policy::catalog::file;
use crate::proto::envoy::service::auth::v3 as envoy;
use crate::proto::{ApplyCatalogRequest, BatchCheckRequest, CheckRequest};
use crate::wire::access;
use crate::wire::names::code_name;

/// The health calls, which need no key.
pub(crate) const HEALTH: &str = "/grpc.health.v1.Health/";

/// The parts that each worker needs to answer calls.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) api: Api,
    /// The services of server reflection.
    pub(crate) reflection: Routes,
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

/// A response that may be sent.
type LeasedResponse = Box<Leased<Response<ResponseBody>>>;

/// A call of which nothing is recorded.
const NONE: Observed<'_> = Observed { context: None, trace: None };

impl Service {
    /// Admits a call before its message is read. `in_flight` is the number of calls on this worker,
    /// including this one.
    ///
    /// # Errors
    /// The refusal: the store is not open or has no lease, the caller is not authenticated or not
    /// permitted, or a limit is reached.
    fn admit(
        &self,
        operation: Option<&'static Operation>,
        headers: &HeaderMap,
        peer: &Peer,
        in_flight: usize,
    ) -> Result<Admission, LeasedResponse> {
        let is_reflection = operation.is_some_and(access::is_reflection);
        let exempt = NotedCall::exempt(LeaseExemption::Reflection);
        let (noted, no_lease) = match self.note() {
            Ok(noted) => (noted, None),
            // The schema can be read without a lease. A caller cannot be rejected without one.
            Err(refusal) if is_reflection => (exempt, Some(refusal)),
            Err(refusal) => return Err(refusal),
        };
        // A change that begins without a lease would have an outcome that is not known.
        let is_change = operation.is_some_and(|operation| operation.effect != Effect::Read);
        if let (true, Some(authority)) = (is_change, self.api.authority())
            && let Err(no_lease) = noted.test(authority.lease())
        {
            return Err(Box::new(no_lease.refused(status::response)));
        }
        match self.admit_noted(noted, operation, headers, peer, in_flight) {
            Ok(admission) if is_reflection => Ok(Admission { noted: exempt, ..admission }),
            Ok(admission) => Ok(admission),
            Err(status) => Err(no_lease.unwrap_or_else(|| self.refuse(noted, status))),
        }
    }

    fn admit_noted(
        &self,
        noted: NotedCall,
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
        Ok(self.api.ready()?.admit(noted, operation, presented, load)?)
    }

    /// Notes the session of the lease, before anything else is done for a call.
    ///
    /// # Errors
    /// The refusal, if the store is not open or has no session.
    fn note(&self) -> Result<NotedCall, LeasedResponse> {
        let authority = self.api.ready().map_err(|status| {
            let why = LeaseExemption::NotOpen;
            Box::new(Leased::exempt(status.into_http(), why))
        })?;
        authority.note_call().map_err(|no_lease| Box::new(no_lease.refused(status::response)))
    }

    /// The response of a call, when it is complete, or the refusal of a call whose session ended.
    fn test(
        &self,
        noted: NotedCall,
        response: Response<ResponseBody>,
    ) -> Leased<Response<ResponseBody>> {
        match self.api.authority() {
            Some(authority) => leased(noted, authority.lease(), response),
            // The store is not open, so nothing of it was read.
            None => Leased::exempt(response, LeaseExemption::NotOpen),
        }
    }

    /// The refusal of a call that noted a session.
    fn refuse(&self, noted: NotedCall, status: Status) -> LeasedResponse {
        Box::new(self.test(noted, status.into_http()))
    }

    /// The bounds of a unary call.
    fn bounds(&self, deadline: Option<Duration>, urgency: Urgency) -> CallBounds {
        CallBounds { deadline, max_len: self.max_message_bytes, urgency }
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
    enum DispatchedCall<H, P, F> {
        Rejected(LeasedResponse),
        Check(NotedCall, Option<Duration>, Caller, Incoming, &'static Operation),
        Health(Pin<Box<H>>),
        Peer(Pin<Box<P>>),
        Other(Pin<Box<F>>),
    }
    let path = request.uri().path();
    let operation = access::operation(path);
    let is_batch = operation.is_some_and(access::is_method_of::<BatchCheckRequest>);
    let interruptible = Interruptible::new(activity, operation, path);
    let peer_method = peer_service::method(&service.api, path);
    let (mut counted, mut of_key, mut open, mut known) = (None, None, None, None);
    let call = if let Some(unfit) = RejectedHead::of(&request, service.max_header_bytes) {
        let response = unfit.into_response(service.max_header_bytes);
        DispatchedCall::Rejected(Box::new(Leased::exempt(response, LeaseExemption::UnfitHead)))
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
            Err(status) => {
                let why = LeaseExemption::Health;
                DispatchedCall::Rejected(Box::new(Leased::exempt(status.into_http(), why)))
            }
        }
    } else if peer_method.is_some() {
        match peer_service::admit(&service.api, request.headers()) {
            Ok(()) => {
                activity.accept();
                open = Some(activity.open());
                let call = peer_call(Arc::clone(&service), request);
                DispatchedCall::Peer(Box::pin(call))
            }
            Err(status) => {
                let why = LeaseExemption::Peer;
                DispatchedCall::Rejected(Box::new(Leased::exempt(status.into_http(), why)))
            }
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
            (Err(refusal), _) => {
                // A rejected call is not in flight while its response waits to be sent.
                counted = None;
                DispatchedCall::Rejected(refusal)
            }
            (Ok(mut admission), Ok(deadline))
                if is_single_check(admission.operation)
                    && observed.is_none()
                    && unary::is_supported(request.headers()) =>
            {
                activity.accept();
                of_key = admission.in_flight.take();
                let Admission { noted, caller, operation, .. } = admission;
                DispatchedCall::Check(noted, deadline, caller, request.into_body(), operation)
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
                        let call = call(service, request, deadline, admission, observed, slot);
                        DispatchedCall::Other(Box::pin(call))
                    }
                    Err(status) => {
                        DispatchedCall::Rejected(service.refuse(admission.noted, status))
                    }
                }
            }
        }
    };
    let address = peer.address;
    async move {
        let in_flight = InFlight(counted, of_key);
        let response = match call {
            DispatchedCall::Check(noted, deadline, caller, body, operation) => {
                let key = caller.key();
                let account = || service.caller_limits.account(key);
                let until = deadline.map(|time| Instant::now() + time);
                let check = async |message| {
                    single_check(&service.api, operation, caller, NONE, until, message).await
                };
                let body = BodyTimeout::new(body, service.request_timeout);
                let bounds = service.bounds(deadline, Urgency::Read);
                let answered = unary::unary(bounds, body, account, check);
                interruptible.answer(answered, |response| service.test(noted, response)).await
            }
            DispatchedCall::Health(call) => {
                let exempt = |response| Leased::exempt(response, LeaseExemption::Health);
                interruptible.answer(call, exempt).await
            }
            DispatchedCall::Peer(call) => {
                let exempt = |response| Leased::exempt(response, LeaseExemption::Peer);
                interruptible.answer(call, exempt).await
            }
            DispatchedCall::Other(call) => interruptible.answer(call, |response| response).await,
            DispatchedCall::Rejected(refusal) => *refusal,
        };
        // Nothing changes the response from here on, except that its end may be an interruption.
        let response = response.into_inner();
        let code = service.calls.count(operation, &response);
        let rejected =
            RejectedCaller::of(code, &response).map(|rejected| rejected.of_caller(known.as_ref()));
        let known_path =
            operation.map(|operation| operation.path).or(peer_method).unwrap_or("other");
        service.rejected_callers.call(address, known_path, rejected);
        Ok(match open {
            // A call is open until its last frame is sent. A batch of checks is too frequent to pay for
            // that: its one message is in flight until it is sent, and that is enough.
            Some(open) if !is_batch && !response.body().is_end_stream() => response.map(|body| {
                let body = interruptible.body(body, open, in_flight);
                ResponseBody::Other(tonic::body::Body::new(body))
            }),
            _ => response.map(|body| body.in_flight(in_flight)),
        })
    }
}

/// Whether this is a check of one request, by this API or by Envoy's.
fn is_single_check(operation: &'static Operation) -> bool {
    access::is_method_of::<CheckRequest>(operation)
        || access::is_method_of::<envoy::CheckRequest>(operation)
}

/// Answers a check of one request.
async fn single_check(
    api: &Api,
    operation: &'static Operation,
    caller: Caller,
    observed: Observed<'_>,
    until: Option<Instant>,
    message: Bytes,
) -> Result<Bytes, Status> {
    if access::is_method_of::<envoy::CheckRequest>(operation) {
        // Boxed, so that the future of a check has none of its state.
        return Box::pin(methods::envoy_check(api, caller, observed, until, message)).await;
    }
    methods::check(api, caller, observed, until, message).await
}

/// Answers a call of another replica on the background runtime.
async fn peer_call(
    service: Arc<Service>,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    if !unary::is_supported(request.headers()) {
        return status::compressed().into_http();
    }
    unary::keep_own(request.headers_mut());
    let (api, within) = (service.api.clone(), service.request_timeout);
    let running = service.background.spawn(peer_service::answer(api, request, within));
    match AbortOnDropHandle::new(running).await {
        Ok(response) => response.map(ResponseBody::Other),
        // The call panicked, or the runtime shuts down.
        Err(_) => status::internal().into_http(),
    }
}

/// Answers a call that is not a single check, or that is observed. The slot is held until its response is
/// sent.
async fn call(
    service: Arc<Service>,
    request: Request<Incoming>,
    deadline: Result<Option<Duration>, Status>,
    admission: Admission,
    observed: Option<ObservedRequest>,
    slot: Option<CallSlot>,
) -> Leased<Response<ResponseBody>> {
    let noted = admission.noted;
    let deadline = match deadline {
        Ok(deadline) => deadline,
        Err(status) => return service.test(noted, status.into_http()),
    };
    let caller = &admission.caller;
    let method = request.uri().path().trim_start_matches('/');
    let context = observed.as_ref().map(|observed| &observed.context);
    let line = admission.access_log_line(method, context);
    let trace = observed.as_ref().and_then(|observed| observed.trace(request.uri().path(), caller));
    let context = observed.map(|observed| observed.context);
    let steps = trace.as_ref().map(Trace::steps);
    let observed = Observed { context: context.as_ref(), trace: trace.as_ref() };
    let answered = run(&service, request, deadline, admission, observed);
    let response = wait_spans::scope(steps, answered).await;
    let response = match slot {
        Some(slot) => slot.hold(response),
        None => response,
    };
    // Before the log and the trace, so that they name the code that is sent.
    let response = service.test(noted, response);
    if let Some(trace) = trace {
        trace.finish(response.get());
    }
    if let Some(line) = line {
        line.write(code_name(otlp::code(response.get()).into()));
    }
    response
}

/// Answers a call: on this worker if it is a check or a batch, else on the background runtime.
async fn run(
    service: &Service,
    mut request: Request<Incoming>,
    deadline: Option<Duration>,
    Admission { operation, caller, urgency, .. }: Admission,
    observed: Observed<'_>,
) -> Response<ResponseBody> {
    if !unary::is_supported(request.headers()) {
        return status::compressed().into_http();
    }
    let api = &service.api;
    let key = caller.key();
    let limits = Arc::clone(&service.caller_limits);
    let mut bounds = service.bounds(deadline, urgency);
    let until = deadline.map(|time| Instant::now() + time);
    if is_single_check(operation) {
        let body = BodyTimeout::new(request.into_body(), service.request_timeout);
        let check =
            async |message| single_check(api, operation, caller, observed, until, message).await;
        return unary::unary(bounds, body, || limits.account(key), check).await;
    }
    if access::is_method_of::<BatchCheckRequest>(operation) {
        let body = BodyTimeout::new(request.into_body(), service.request_timeout);
        let check =
            async |message| methods::batch_check(api, caller, observed, until, message).await;
        return unary::unary(bounds, body, || limits.account(key), check).await;
    }
    unary::keep_own(request.headers_mut());
    if access::is_method_of::<ApplyCatalogRequest>(operation) {
        // A catalog may be larger than any other message.
        bounds.max_len = bounds.max_len.max(file::MAX_LEN + 4096);
    }
    let has_streams = access::is_reflection(operation)
        || streams::operations().iter().any(|stream| std::ptr::eq(*stream, operation));
    let (api, time) = (api.clone(), service.request_timeout);
    let reflection = service.reflection.clone();
    let answered = async move {
        if has_streams {
            return stream(&api, reflection, operation, caller, request, (bounds, time), &limits)
                .await;
        }
        let body = BodyTimeout::new(request.into_body(), time);
        let waits = ReplicaWaits::default();
        let method = async |message| {
            let permit = limits.acquire_list(key, operation).await;
            let _permit = permit.map_err(status::too_many_lists)?;
            methods::other(&api, operation, caller, until, &waits, message).await
        };
        let mut response = unary::unary(bounds, body, || limits.account(key), method).await;
        let replica = || Some(api.authority()?.replica()?.settings());
        if let (Some(waited), Some(replica)) = (waits.take(), replica()) {
            reply::tell_waited(response.headers_mut(), &replica.name, &waited);
        }
        response
    };
    let running = service.background.spawn(wait_spans::propagate(answered));
    // An error: the call panicked, or the runtime shuts down.
    AbortOnDropHandle::new(running).await.unwrap_or_else(|_| status::internal().into_http())
}

/// Answers a call with streams, or one of server reflection.
async fn stream(
    api: &Api,
    reflection: Routes,
    operation: &'static Operation,
    caller: Caller,
    request: Request<Incoming>,
    (CallBounds { deadline, max_len, urgency }, time): (CallBounds, Duration),
    limits: &CallerLimits,
) -> Response<ResponseBody> {
    let account = limits.account(caller.key());
    let memory = RequestMemory::of(&account);
    let held = memory.clone();
    let request = request.map(|body| match operation.is_stream {
        true => tonic::body::Body::new(CountedBody::new(body, memory)),
        false => tonic::body::Body::new(CountedBody::new(BodyTimeout::new(body, time), memory)),
    });
    let answered = async {
        if access::is_reflection(operation) {
            return reflection.oneshot(request).await.unwrap_or_else(|never| match never {});
        }
        let answered = streams::answer(api, operation, caller, request, max_len).await;
        answered.unwrap_or_else(|| status::unknown_method().into_http())
    };
    let response = match deadline {
        None => answered.await,
        Some(time) => match tokio::time::timeout(time, answered).await {
            Ok(response) => response,
            Err(_) => status::deadline_exceeded().into_http(),
        },
    };
    drop(held);
    let response = memory::held(response, account, urgency).await;
    status::with_details(response).map(ResponseBody::Other)
}
