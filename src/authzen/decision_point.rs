//! Decision point: answers the requests of the AuthZEN API. Callers are admitted as for gRPC: before a
//! body is read, and with the same limits, logs and counts.
//!
//! Not here: the connections; see `transport::http`.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use super::counters::AuthzenCounters;
use super::evaluations::Questions;
use super::json::{self, Value};
use super::metadata;
use super::refusal::{self, Refusal};
use super::route::{Endpoint, Route};
use super::search::{Search, Searched};
use crate::authority::Authority;
use crate::authority::access_log::AccessLogLine;
use crate::authority::admission::{Admission, AdmissionError, Load, URGENT_RESERVE};
use crate::authority::caller_limits::{CallerLimits, CallsByKey};
use crate::authority::noted_call::{LeaseExemption, Leased};
use crate::authority::operation::{Companies, Operation};
use crate::authority::problem::call;
use crate::authority::request_context::RequestContext;
use crate::grpc::peer::Peer;
use crate::grpc::{self, Api};
use crate::metrics::memory_budget::{Account, Reservation};
use crate::metrics::{Counted, wait_spans};
use crate::observe::otlp::{HttpTrace, TracedSender};
use crate::observe::rejected_callers::RejectedCallers;
use crate::observe::request_log::{ObservedRequest, RequestObserver};
use crate::policy::caller::Caller;
use crate::proto::{
    CheckRequest, ListCredentialsRequest, ListEffectiveScopesRequest, ListUsersRequest,
};
use crate::web::answer::{Answer, Body, Responder, Use, without_body};
use crate::web::body::{self, BodyError, BodyLimits};
use crate::wire::access::CompanyScoped;

const JSON: &str = "application/json";
/// The id by which a caller finds its request in the logs. It comes back.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Responses and questions of up to this many bytes are not counted.
const COUNTED_FROM: usize = 1 << 10;

/// Answers the requests of one worker.
#[derive(Clone)]
pub(crate) struct DecisionPoint {
    /// With the per-core state of the worker.
    pub(crate) api: Api,
    /// The public URL of the server, for the metadata.
    pub(crate) url: Arc<str>,
    /// The runtime of searches, which must not delay an evaluation.
    pub(crate) background: Handle,
    /// The limits of each key.
    pub(crate) caller_limits: Arc<CallerLimits>,
    /// The limit of requests in flight on a worker.
    pub(crate) max_in_flight: usize,
    /// The limit of a request's body, in bytes.
    pub(crate) max_message_bytes: usize,
    /// How long a request may take to arrive completely.
    pub(crate) request_timeout: Duration,
    /// Counts and logs rejected callers.
    pub(crate) rejected_callers: Arc<RejectedCallers>,
    /// Selects the requests that are traced or logged.
    pub(crate) observer: Option<Arc<RequestObserver>>,
    /// The counters of all workers.
    pub(crate) counters: Arc<AuthzenCounters>,
    /// The requests in flight on this worker, and those of each key.
    pub(crate) in_flight: Arc<AtomicUsize>,
    pub(crate) by_key: Arc<CallsByKey>,
}

/// What is known of a request when it has been answered.
#[derive(Default)]
struct Outcome {
    caller: Option<Caller>,
    line: Option<AccessLogLine>,
}

/// A request whose caller is admitted, when its body has arrived.
struct Admitted {
    admission: Admission,
    route: Route,
    body: Bytes,
    account: Account,
    context: Option<Arc<RequestContext>>,
}

/// The counts that include a request, until its response has been sent.
type InFlight = (Counted, Option<Counted>);

/// The text of a response, with the counts and the memory that it holds until it has been sent.
struct Held {
    text: Bytes,
    _memory: Option<Reservation>,
    _in_flight: InFlight,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

/// The method of the gRPC API whose callers may use an endpoint. A search for subjects is for callers that
/// may list users; those who may list credentials are among them.
fn operation(endpoint: Endpoint) -> &'static Operation {
    match endpoint {
        Endpoint::SearchSubject => ListUsersRequest::OPERATION,
        Endpoint::SearchResource | Endpoint::SearchAction => ListEffectiveScopesRequest::OPERATION,
        Endpoint::Evaluation | Endpoint::Evaluations | Endpoint::Metadata => {
            CheckRequest::OPERATION
        }
    }
}

impl DecisionPoint {
    /// The same for another worker.
    pub(crate) fn for_core(&self) -> Self {
        let (in_flight, by_key) = (Arc::default(), Arc::default());
        Self { api: self.api.for_core(), in_flight, by_key, ..self.clone() }
    }

    /// Answers a request, before its id is put on the response.
    async fn respond<B>(
        &self,
        request: Request<B>,
        route: Option<Route>,
        peer: &Peer,
        context: Option<Arc<RequestContext>>,
        outcome: &mut Outcome,
    ) -> Leased<Response<Body>>
    where
        B: http_body::Body<Data = Bytes, Error: Send> + Send + Unpin,
    {
        let ids = request_ids(request.headers());
        let finished = |response| with_ids(response, &ids);
        let is_head = request.method() == Method::HEAD;
        let of_path = |response| {
            let response = if is_head { without_body(response) } else { response };
            Leased::exempt(finished(response), LeaseExemption::Paths)
        };
        let Some(route) = route else {
            return of_path(Refusal::no_such_path().into_response());
        };
        if !route.endpoint.has(request.method()) {
            return of_path(Refusal::no_such_method(route.endpoint).into_response());
        }
        if route.endpoint == Endpoint::Metadata {
            return of_path(metadata::metadata(&self.url, &route.base));
        }
        let Ok(authority) = self.api.ready() else {
            let response = Refusal::from(call::not_ready()).into_response();
            return Leased::exempt(finished(response), LeaseExemption::NotOpen);
        };
        let refused = |error| finished(Refusal::from(error).into_response());
        // Before anything of the store is read.
        let noted = match authority.note_call() {
            Ok(noted) => noted,
            Err(no_lease) => return no_lease.refused(refused),
        };
        let (place, in_flight) = Counted::one_more(&self.in_flight);
        let load = Load {
            in_flight,
            max_in_flight: self.max_in_flight,
            by_key: &self.by_key,
            limits: &self.caller_limits,
        };
        let path = route.endpoint.path();
        let admitted = if in_flight > self.max_in_flight + URGENT_RESERVE {
            Err(call::overloaded(self.max_in_flight).into())
        } else {
            let presented = grpc::presented(request.headers(), peer);
            let has_key = !matches!(presented.key, Ok(None));
            let operation = Some(operation(route.endpoint));
            let admission = authority.admit(noted, operation, presented, load);
            admission.map_err(|error| Refusal::of_admission(error, has_key))
        };
        let answered = match admitted {
            Ok(admission) => {
                outcome.caller = Some(admission.caller.clone());
                let method = path.trim_start_matches('/');
                outcome.line = admission.access_log_line(method, context.as_ref());
                self.answer_admitted(request, route, admission, context, place).await
            }
            Err(refusal) => Err(refusal),
        };
        let response = answered.unwrap_or_else(|mut refusal| {
            self.rejected_callers.call(peer.address, path, refusal.rejected.take().map(|it| *it));
            refusal.into_response()
        });
        noted.answer(authority.lease(), finished(response), refused)
    }

    /// Reads the body of an admitted request, and answers it.
    async fn answer_admitted<B>(
        &self,
        request: Request<B>,
        route: Route,
        mut admission: Admission,
        context: Option<Arc<RequestContext>>,
        place: Counted,
    ) -> Result<Response<Body>, Refusal>
    where
        B: http_body::Body<Data = Bytes, Error: Send> + Send + Unpin,
    {
        let (head, body) = request.into_parts();
        let of_key = admission.in_flight.take();
        let account = self.caller_limits.account(admission.caller.key());
        let limits = BodyLimits {
            bytes: self.max_message_bytes,
            time: self.request_timeout,
            account: &account,
        };
        let (body, memory) = body::read(body, &limits).await?;
        if !body::has_type(&head.headers, JSON) {
            return Err(Refusal::malformed("the content type is not application/json"));
        }
        let admitted = Admitted { admission, route, body, account: account.clone(), context };
        let text = match admitted.route.endpoint {
            Endpoint::Evaluation | Endpoint::Evaluations | Endpoint::Metadata => {
                evaluations(self.api.ready().map_err(|_| call::not_ready())?, admitted).await?
            }
            Endpoint::SearchSubject | Endpoint::SearchResource | Endpoint::SearchAction => {
                let (api, limits) = (self.api.clone(), Arc::clone(&self.caller_limits));
                let found = async move { search(&api, &limits, admitted).await };
                let running = self.background.spawn(wait_spans::propagate(found));
                // An error: the search panicked, or the runtime shuts down.
                AbortOnDropHandle::new(running).await.map_err(|_| call::internal())??
            }
        };
        drop(memory);
        held(text, &account, (place, of_key))
    }
}

impl Responder for DecisionPoint {
    async fn answer<B>(&self, request: Request<B>, peer: &Peer) -> Answer
    where
        B: http_body::Body<Data = Bytes, Error: Send> + Send + Unpin,
    {
        let observer = self.observer.as_ref();
        let observed = observer.and_then(|observer| observer.observe(request.headers()));
        let trace = observed.as_ref().and_then(ObservedRequest::http_trace);
        let context = observed.map(|observed| observed.context);
        let method = trace.is_some().then(|| request.method().clone());
        let route = Route::of(request.uri().path());
        let endpoint = route.as_ref().map(|route| route.endpoint);
        let mut outcome = Outcome::default();
        let steps = trace.as_ref().map(HttpTrace::steps);
        let responding = self.respond(request, route, peer, context, &mut outcome);
        let response = wait_spans::scope(steps, responding).await;
        let status = response.get().status();
        self.counters.answered(endpoint, status.as_u16());
        if let Some(line) = outcome.line {
            line.write(status.as_str());
        }
        if let (Some(trace), Some(method), Some(caller)) = (trace, method, &outcome.caller) {
            let path = endpoint.map_or("other", Endpoint::path);
            let sender = TracedSender { name: caller.name().to_owned(), client: None };
            trace.finish(&method, path, sender, status);
        }
        let use_of_connection = match (&outcome.caller, endpoint) {
            (Some(_), _) => Use::Proven,
            (None, Some(Endpoint::Metadata)) => Use::Public,
            (None, _) => Use::Unproven,
        };
        Answer { response, use_of_connection }
    }
}

/// The text of the decision, or of the decisions, on a request.
async fn evaluations(
    authority: &Authority,
    Admitted { admission, route, body, account, context }: Admitted,
) -> Result<Bytes, Refusal> {
    let value = parse(&body)?;
    let questions = match route.endpoint {
        Endpoint::Evaluations => Questions::read(value)?,
        _ => Questions::read_one(value)?,
    };
    let mut companies: Vec<_> = questions.companies(&route.base).into_iter().collect();
    companies.extend(route.base.company().map(|company| company.as_str()));
    let session = authority.authorize(admission.caller, &Companies::Each(companies))?;
    let session = session.of_request(context.as_ref());
    let _memory = reserve(questions.weight(), &account)?;
    text(&questions.decide(&session, &route.base).await?)
}

/// The text of the results of a search.
async fn search(
    api: &Api,
    limits: &CallerLimits,
    Admitted { admission, route, body, account, context }: Admitted,
) -> Result<Bytes, Refusal> {
    let authority = api.ready().map_err(|_| call::not_ready())?;
    let search = Search::read(parse(&body)?, &route, authority.incarnation())?;
    let caller = admission.caller;
    let is_permitted = search.searched != Searched::Credentials
        || caller.roles().intersects(ListCredentialsRequest::OPERATION.roles);
    if !is_permitted {
        return Err(Refusal::of_admission(AdmissionError::Role(caller), true));
    }
    let permit = limits.acquire_list(caller.key(), ListUsersRequest::OPERATION).await;
    let _permit = permit.map_err(call::too_many_lists)?;
    let companies = search.company().into_iter();
    let companies = companies.chain(route.base.company().map(|company| company.as_str()));
    let session = authority.authorize(caller, &Companies::Each(companies.collect()))?;
    let session = session.of_request(context.as_ref());
    let _memory = reserve(search.weight(), &account)?;
    text(&search.find(&session).await?)
}

/// Reads the JSON object of a body.
fn parse(body: &Bytes) -> Result<Value<'_>, Refusal> {
    json::parse(body).map_err(|error| {
        Refusal::malformed(format!("the body is not a JSON object as it must be: {error}"))
    })
}

/// Reserves memory for what is made of a request.
fn reserve(bytes: usize, account: &Account) -> Result<Option<Reservation>, Refusal> {
    if bytes <= COUNTED_FROM {
        return Ok(None);
    }
    let reserved = account.reserve(bytes as u64);
    reserved.map(Some).map_err(|exhausted| BodyError::NoMemory(exhausted).into())
}

fn text(answer: &impl Serialize) -> Result<Bytes, Refusal> {
    serde_json::to_vec(answer).map(Bytes::from).map_err(|_| call::internal().into())
}

/// A response with this text. Its memory is reserved, and its request is in flight, until it has been
/// sent.
fn held(text: Bytes, account: &Account, in_flight: InFlight) -> Result<Response<Body>, Refusal> {
    let memory = reserve(text.len(), account)?;
    let held = Held { text, _memory: memory, _in_flight: in_flight };
    let mut response = refusal::json(StatusCode::OK, &());
    *response.body_mut() = Body::new(Bytes::from_owner(held));
    Ok(response)
}

/// The ids of a request, which come back.
fn request_ids(headers: &HeaderMap) -> Vec<http::HeaderValue> {
    headers.get_all(REQUEST_ID).iter().cloned().collect()
}

fn with_ids(mut response: Response<Body>, ids: &[http::HeaderValue]) -> Response<Body> {
    for id in ids {
        response.headers_mut().append(REQUEST_ID, id.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_list_credentials_may_search_subjects() {
        let (credentials, users) = (ListCredentialsRequest::OPERATION, ListUsersRequest::OPERATION);
        for role in credentials.roles.iter() {
            assert!(users.roles.has(role), "{role}");
        }
        assert!(users.reads_page, "so searches of one key wait for each other");
    }
}
