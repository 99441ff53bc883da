//! Authorization server: answers the requests of API clients, with their limits, their counters and
//! their logs.
//!
//! A client proves who it is before anything else is told. Only then it has a place among the requests
//! in flight, so a flood of wrong proofs takes no place of a right one.
//!
//! Not here: the connections; see `transport::oauth`.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::uri::Authority as UriAuthority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use super::counters::{Grant, OauthCounters};
use super::form::Form;
use super::presented_client::{CLIENT_ID, PresentedClient};
use super::refusal::{ErrorCode, KEY_UNKNOWN, Refusal, TOO_MANY, UNAVAILABLE};
use super::route::{Endpoint, Route};
use super::token::UNKNOWN_AUDIENCE;
use super::{documents, introspection, revocation, token};
use crate::authority::access_log::AccessLogLine;
use crate::authority::admission::{Load, Presented};
use crate::authority::caller_limits::{CallerLimits, CallsByKey};
use crate::authority::client_proof::{ProvenActor, ProvenSecret};
use crate::authority::code_redemption::{NamedAudience, PresentedCode};
use crate::authority::error::AuthorityError;
use crate::authority::introspection::{Introspection, Introspector};
use crate::authority::noted_call::{LeaseExemption, Leased, NotedCall};
use crate::authority::operation::Companies;
use crate::authority::request_context::RequestContext;
use crate::authority::token_issue::{IssuedToken, TokenClient, TokenRequest};
use crate::authority::token_revocation::Revocation;
use crate::authority::{Authority, Session};
use crate::grpc::Api;
use crate::grpc::peer::Peer;
use crate::metrics::memory_budget::Account;
use crate::metrics::{Counted, wait_spans};
use crate::observe::decision_log::TokenDecision;
use crate::observe::otlp::{HttpTrace, TracedSender};
use crate::observe::peer_address::PeerAddress;
use crate::observe::refused_clients::RefusedClients;
use crate::observe::rejected_callers::RejectedCallers;
use crate::observe::rejection::RejectedCaller;
use crate::observe::request_log::{ObservedRequest, RequestObserver};
use crate::policy::cause::Cause;
use crate::policy::id::{CompanyId, CredentialId, Name};
use crate::policy::reason::Reason;
use crate::policy::secret::SecretKind;
use crate::proto::CheckRequest;
use crate::web::answer::{Answer, Body, Responder, Use, without_body};
use crate::web::body::BodyLimits;
use crate::wire::access::CompanyScoped;

/// The most bytes of a form of the token endpoint, and of the endpoints whose forms have a token (T31,
/// T36).
const MAX_FORM_BYTES: usize = 16 << 10;
const MAX_TOKEN_FORM_BYTES: usize = 24 << 10;

/// The actor of a session before a client has proven who it is. It changes nothing.
const UNPROVEN: &str = "client";

/// What an authorization server is started with.
pub(crate) struct ServerSettings {
    pub(crate) api: Api,
    /// The page of the platform on which a user gives scopes, for the metadata.
    pub(crate) authorize_url: Option<Box<str>>,
    /// Selects the requests whose context is logged.
    pub(crate) observer: Option<Arc<RequestObserver>>,
    /// Counts and logs services that are rejected.
    pub(crate) rejected_callers: Arc<RejectedCallers>,
    /// How many requests of proven clients may be in flight.
    pub(crate) max_in_flight: usize,
    /// How many requests a second one client may make.
    pub(crate) requests_per_second: u32,
    /// How long a form may take to arrive.
    pub(crate) request_timeout: Duration,
    /// Whether callers of the API need a client certificate, which this server never asks for.
    pub(crate) needs_certificates: bool,
}

/// Answers the requests of API clients.
pub(crate) struct AuthorizationServer {
    settings: ServerSettings,
    limits: CallerLimits,
    by_client: CallsByKey,
    /// The requests in flight of clients and services that have proven who they are.
    in_flight: Arc<AtomicUsize>,
    /// The memory of forms.
    memory: Account,
    refused: Arc<RefusedClients>,
    pub(crate) counters: OauthCounters,
}

/// A request, when its form has arrived.
struct FormRequest<'a> {
    noted: NotedCall,
    route: Route,
    headers: &'a HeaderMap,
    /// The host that it names, in lower case and without a port.
    host: Option<Box<str>>,
    form: Form,
    peer: &'a Peer,
    context: Option<&'a Arc<RequestContext>>,
}

/// Who sent a request, if that is proven.
#[derive(Default)]
enum Sender {
    #[default]
    Unproven,
    Client(CompanyId, CredentialId),
    /// A service, with the name of its key.
    Service(String),
}

impl Sender {
    /// Its name in the logs, and the actor of its changes.
    fn name(&self) -> String {
        match self {
            Self::Unproven => String::new(),
            Self::Client(company, credential) => format!("client {company}/{credential}"),
            Self::Service(name) => name.clone(),
        }
    }

    /// The same for a span; none if nothing is proven.
    fn traced(&self) -> Option<TracedSender<'_>> {
        let client = match self {
            Self::Unproven => return None,
            Self::Client(company, credential) => Some((company, credential)),
            Self::Service(_) => None,
        };
        Some(TracedSender { name: self.name(), client })
    }
}

impl AuthorizationServer {
    pub(crate) fn new(settings: ServerSettings) -> Self {
        let memory = &settings.api.memory;
        let limits = CallerLimits::new(settings.requests_per_second, Arc::clone(memory));
        let memory = memory.unproven();
        let refused = RefusedClients::new(settings.api.decisions.clone());
        let (by_client, in_flight) = (CallsByKey::default(), Arc::default());
        let counters = OauthCounters::default();
        Self { settings, limits, by_client, in_flight, memory, refused, counters }
    }

    /// Logs the refusals that have no line yet.
    pub(crate) fn summarize(&self) {
        self.refused.summarize();
    }

    async fn respond<B>(
        &self,
        noted: NotedCall,
        request: Request<B>,
        route: Option<Route>,
        peer: &Peer,
        context: Option<&Arc<RequestContext>>,
        sender: &mut Sender,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes, Error: Send> + Send + Unpin,
    {
        match route {
            None => plain(StatusCode::NOT_FOUND, "there is nothing at this path"),
            Some(Route { endpoint, .. }) if !endpoint.has(request.method()) => {
                let mut response =
                    plain(StatusCode::METHOD_NOT_ALLOWED, "this path has no such method");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static(endpoint.allow()));
                response
            }
            Some(Route { endpoint, .. }) if endpoint.is_document() => {
                self.document(endpoint).await.unwrap_or_else(Refusal::into_response)
            }
            Some(route) => {
                let (parts, body) = request.into_parts();
                let head = (&parts.uri, &parts.headers);
                let answered = match self.form(&route, head, body).await {
                    Ok(form) => {
                        let (headers, host) = (&parts.headers, host(&parts.uri, &parts.headers));
                        let request =
                            FormRequest { noted, route, headers, host, form, peer, context };
                        self.answer_form(&request, sender).await
                    }
                    Err(refusal) => Err(refusal),
                };
                answered.unwrap_or_else(Refusal::into_response)
            }
        }
    }

    fn authority(&self) -> Result<&Authority, Refusal> {
        self.settings.api.ready().map_err(|_| UNAVAILABLE)
    }

    async fn document(&self, endpoint: Endpoint) -> Result<Response<Body>, Refusal> {
        let authority = self.authority()?;
        match endpoint {
            Endpoint::Jwks => documents::jwks(authority).await,
            // With --oauth the server has a name as an issuer.
            _ => {
                let issuer = authority.own_issuer().ok_or(UNAVAILABLE)?;
                Ok(documents::metadata(issuer, self.settings.authorize_url.as_deref()))
            }
        }
    }

    async fn form<B: http_body::Body<Data = Bytes, Error: Send> + Send + Unpin>(
        &self,
        route: &Route,
        head: (&http::Uri, &HeaderMap),
        body: B,
    ) -> Result<Form, Refusal> {
        let (known, bytes) = match route.endpoint {
            Endpoint::Introspect => (introspection::PARAMETERS, MAX_TOKEN_FORM_BYTES),
            Endpoint::Revoke => (revocation::PARAMETERS, MAX_TOKEN_FORM_BYTES),
            _ => (token::PARAMETERS, MAX_FORM_BYTES),
        };
        let (time, account) = (self.settings.request_timeout, &self.memory);
        Form::read(head, body, known, BodyLimits { bytes, time, account }).await
    }

    async fn answer_form(
        &self,
        request: &FormRequest<'_>,
        sender: &mut Sender,
    ) -> Result<Response<Body>, Refusal> {
        match request.route.endpoint {
            Endpoint::Introspect => self.introspect(request, sender).await,
            Endpoint::Revoke => self.revoke(request, sender).await,
            _ => {
                let grant = token::grant_of(&request.form);
                let mut decision = TokenDecision {
                    context: request.context.cloned(),
                    grant: Some(grant.name()),
                    ..TokenDecision::default()
                };
                let result = self.issue(request, sender, &mut decision).await;
                if let Sender::Client(company, credential) = &*sender {
                    decision.client = Some((company.clone(), credential.clone()));
                }
                self.record(grant, decision, &result);
                result.map(|token| token::issued(&token, grant))
            }
        }
    }

    /// Counts and logs a token that was issued or refused.
    fn record(
        &self,
        grant: Grant,
        mut decision: TokenDecision,
        result: &Result<IssuedToken, Refusal>,
    ) {
        match result {
            Ok(token) => {
                self.counters.issued(grant);
                decision.user.clone_from(&token.user);
                decision.audience.clone_from(&token.audience);
                decision.scopes.clone_from(&token.scopes);
                decision.issued = Some((token.id.clone(), token.revision));
            }
            Err(refusal) => {
                self.counters.refused(grant, refusal.code);
                decision.error = Some(refusal.code.word());
                decision.cause = refusal.cause;
            }
        }
        // The others are counted by address: see `RefusedClients`.
        if let (Some(_), Some(log)) = (&decision.client, &self.settings.api.decisions) {
            log.token(decision);
        }
    }

    /// Issues a token.
    async fn issue(
        &self,
        request: &FormRequest<'_>,
        sender: &mut Sender,
        decision: &mut TokenDecision,
    ) -> Result<IssuedToken, Refusal> {
        let form = &request.form;
        let authority = self.authority()?;
        let company = request.route.company.as_ref();
        let actor = token::actor_token(form)?;
        let presented = PresentedClient::of(request.headers, form)?;
        let (secret, _places);
        let client = match (presented, actor) {
            (PresentedClient::Nothing, Some(token)) => {
                _places = self.prove_actor(request, sender, token).await?;
                TokenClient::Actor { token, secret: None, company }
            }
            (presented, actor) => {
                (secret, _places) = self.prove(request, sender, presented).await?;
                match actor {
                    None => TokenClient::Secret(&secret),
                    Some(token) => TokenClient::Actor { token, secret: Some(&secret), company },
                }
            }
        };
        let name = sender.name();
        let session = session(authority, &name, request);
        let catalog = session.catalog().await?.resource;
        if let (Grant::AuthorizationCode, TokenClient::Secret(client)) =
            (token::grant_of(form), client)
        {
            let code = token::code(form)?;
            // The code has its audience, whatever the host.
            let audience = token::audience(form, None, &catalog);
            let audience = match &audience {
                Ok(audience) => audience.as_ref().map_or(NamedAudience::None, NamedAudience::Known),
                Err(_) => NamedAudience::Unknown,
            };
            let presented = PresentedCode {
                code: &code,
                redirect_uri: form.get("redirect_uri"),
                verifier: form.get("code_verifier"),
                audience,
            };
            return Ok(session.redeem_code(client, presented).await??);
        }
        let (grant, scopes) = (token::grant(form)?, token::scopes(form)?);
        let audience = token::audience(form, request.host.as_deref(), &catalog)?;
        decision.audience.clone_from(&audience);
        decision.scopes = scopes.clone().unwrap_or_default();
        Ok(session.issue_token(&TokenRequest { client, grant, audience, scopes }).await??)
    }

    /// Proves the client by an access token of its own. Returns its places among the requests in flight.
    async fn prove_actor(
        &self,
        request: &FormRequest<'_>,
        sender: &mut Sender,
        token: &str,
    ) -> Result<(Counted, Counted), Refusal> {
        const NOT_PROVEN: Refusal = Refusal::request(
            "The parameter actor_token is not a valid token of the client itself.",
        );
        let session = session(self.authority()?, UNPROVEN, request);
        let proven = session.prove_actor(token, request.route.company.as_ref()).await?;
        let id = request.form.get(CLIENT_ID);
        let is_named = |proven: &ProvenActor| {
            id.is_none_or(|id| id == proven.company.as_str() || id == proven.credential.as_str())
        };
        let proven = proven.filter(is_named).ok_or_else(|| {
            self.refused(request, Reason::TokenInvalid.into());
            NOT_PROVEN
        })?;
        *sender = Sender::Client(proven.company.clone(), proven.credential.clone());
        let (place, load) = self.load();
        Ok((place, load.admit_client(proven.credential_created_at())?))
    }

    async fn introspect(
        &self,
        request: &FormRequest<'_>,
        sender: &mut Sender,
    ) -> Result<Response<Body>, Refusal> {
        let authority = self.authority()?;
        let key = service_key(request.headers);
        let (service, client, _places);
        let (session, who) = match key {
            Some(key) => {
                (service, _places) = self.service(authority, request, sender, key)?;
                (service, Introspector::Service)
            }
            None => {
                let presented = PresentedClient::of(request.headers, &request.form)?;
                let (proven, places) = self.prove(request, sender, presented).await?;
                (client, _places) = (proven, Some(places));
                (session(authority, UNPROVEN, request), Introspector::Client(&client))
            }
        };
        let token = request.form.get("token").ok_or(TOKEN_MISSING)?;
        let audience = request.form.get("audience").map(Name::parse).transpose();
        let audience = audience.map_err(|_| UNKNOWN_AUDIENCE)?;
        let company = request.route.company.as_ref();
        match session.introspect(who, token, company, audience.as_ref()).await? {
            Introspection::Active(token) => Ok(introspection::active(&token)),
            Introspection::Inactive => Ok(introspection::inactive()),
            Introspection::Unverifiable => Err(Refusal::new(
                ErrorCode::TemporarilyUnavailable,
                Reason::TokenUnverifiable.remedy(),
            )),
        }
    }

    async fn revoke(
        &self,
        request: &FormRequest<'_>,
        sender: &mut Sender,
    ) -> Result<Response<Body>, Refusal> {
        let authority = self.authority()?;
        let presented = PresentedClient::of(request.headers, &request.form)?;
        let (client, _places) = self.prove(request, sender, presented).await?;
        let token = request.form.get("token").ok_or(TOKEN_MISSING)?;
        let credential = client.credential_created_at();
        if !self.limits.count_revocation(credential, Instant::now()) {
            return Err(TOO_MANY);
        }
        let actor = client.actor();
        let session = session(authority, &actor, request);
        let revocation = session.revoke_token(&client, token).await?;
        if !matches!(revocation, Revocation::Revoked(Some(_))) {
            self.limits.uncount_revocation(credential, Instant::now());
        }
        revocation::response(revocation)
    }

    /// The client that proves itself by a secret, and its places among the requests in flight.
    async fn prove(
        &self,
        request: &FormRequest<'_>,
        sender: &mut Sender,
        presented: PresentedClient,
    ) -> Result<(ProvenSecret, (Counted, Counted)), Refusal> {
        let company = request.route.company.as_ref();
        let proven = match presented {
            PresentedClient::Secret(credential) => {
                let session = session(self.authority()?, UNPROVEN, request);
                session.prove_client(&credential, company).await?
            }
            PresentedClient::Nothing => Err(Reason::CredentialUnknown.into()),
        };
        let proven = proven.map_err(|cause| self.refused(request, cause))?;
        *sender = Sender::Client(proven.company.clone(), proven.credential.clone());
        let (place, load) = self.load();
        let of_client = load.admit_client(proven.credential_created_at())?;
        Ok((proven, (place, of_client)))
    }

    /// The refusal of a client that has proven nothing, which is counted for its line in the log.
    fn refused(&self, request: &FormRequest<'_>, cause: Cause) -> Refusal {
        self.refused.note(request.peer.address.and_then(PeerAddress::tcp), cause);
        cause.into()
    }

    /// The session of a service, and its places among the requests in flight (T36).
    fn service<'s>(
        &self,
        authority: &'s Authority,
        request: &FormRequest<'s>,
        sender: &mut Sender,
        key: &str,
    ) -> Result<(Session<'s>, Option<(Counted, Counted)>), Refusal> {
        if self.settings.needs_certificates {
            return Err(KEY_UNKNOWN);
        }
        let presented = Presented { key: Ok(Some(key)), certificate: &[] };
        let (place, load) = self.load();
        let admission =
            authority.admit(request.noted, Some(CheckRequest::OPERATION), presented, load);
        let admission = admission.map_err(|error| {
            let rejected = RejectedCaller::of_admission(&error);
            let callers = &self.settings.rejected_callers;
            callers.call(request.peer.address, Endpoint::Introspect.path(), rejected);
            Refusal::from(error)
        })?;
        *sender = Sender::Service(admission.caller.name().to_owned());
        let session = authority.authorize(admission.caller, &Companies::None);
        let session = session.map_err(|_| KEY_UNKNOWN)?.of_request(request.context);
        Ok((session, admission.in_flight.map(|of_key| (place, of_key))))
    }

    /// A place among the requests in flight, and the load with it.
    fn load(&self) -> (Counted, Load<'_>) {
        let (place, in_flight) = Counted::one_more(&self.in_flight);
        let (max_in_flight, limits) = (self.settings.max_in_flight, &self.limits);
        (place, Load { in_flight, max_in_flight, by_key: &self.by_client, limits })
    }
}

impl Responder for AuthorizationServer {
    async fn answer<B>(&self, request: Request<B>, peer: &Peer) -> Answer
    where
        B: http_body::Body<Data = Bytes, Error: Send> + Send + Unpin,
    {
        let observer = self.settings.observer.as_ref();
        let observed = observer.and_then(|observer| observer.observe(request.headers()));
        let trace = observed.as_ref().and_then(ObservedRequest::http_trace);
        let context = observed.map(|observed| observed.context);
        let route = Route::of(request.uri().path());
        let endpoint = route.as_ref().map(|route| route.endpoint);
        let path = endpoint.map_or("other", Endpoint::path);
        let line = AccessLogLine::begin(path.trim_start_matches('/'), context.as_ref());
        let mut sender = Sender::default();
        let method = request.method().clone();
        let steps = trace.as_ref().map(HttpTrace::steps);
        let responding = async {
            let Ok(authority) = self.authority() else {
                return Leased::exempt(UNAVAILABLE.into_response(), LeaseExemption::NotOpen);
            };
            // Before anything of the store is read.
            let noted = match authority.note_call() {
                Ok(noted) => noted,
                Err(no_lease) => return no_lease.refused(refused),
            };
            let context = context.as_ref();
            let responding = self.respond(noted, request, route, peer, context, &mut sender);
            let response = responding.await;
            let response = if method == Method::HEAD { without_body(response) } else { response };
            noted.answer(authority.lease(), response, refused)
        };
        let response = wait_spans::scope(steps, responding).await;
        let status = response.get().status();
        self.counters.answered(endpoint, status.as_u16());
        if let Some(line) = line {
            line.of_caller(sender.name()).write(status.as_str());
        }
        let is_limited = status == StatusCode::TOO_MANY_REQUESTS;
        if let (Some(trace), Some(traced), false) = (trace, sender.traced(), is_limited) {
            trace.finish(&method, path, traced, status);
        }
        let use_of_connection = match (sender, endpoint) {
            (Sender::Client(..) | Sender::Service(_), _) => Use::Proven,
            (_, Some(endpoint)) if endpoint.is_document() => Use::Public,
            _ => Use::Unproven,
        };
        Answer { response, use_of_connection }
    }
}

/// The parameter of introspection and revocation is missing.
const TOKEN_MISSING: Refusal = Refusal::request("The parameter token is missing.");

/// The response to a request that is not answered.
fn refused(error: AuthorityError) -> Response<Body> {
    Refusal::from(error).into_response()
}

/// A session of this actor.
fn session<'s>(authority: &'s Authority, actor: &'s str, request: &FormRequest<'s>) -> Session<'s> {
    authority.internal_session(actor).of_request(request.context)
}

/// The key of a service, if a request presents one.
fn service_key(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(header), None) = (all.next(), all.next()) else { return None };
    let (scheme, key) = header.to_str().ok()?.split_once(' ')?;
    let key = key.trim_start_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && key.starts_with(SecretKind::Key.prefix()))
        .then_some(key)
}

/// The host that a request names, in lower case and without a port and a final dot. None if it names
/// none or several.
fn host(uri: &http::Uri, headers: &HeaderMap) -> Option<Box<str>> {
    let host = match uri.authority() {
        Some(authority) => authority.host().to_ascii_lowercase(),
        None => {
            let mut all = headers.get_all(HOST).iter();
            let (Some(host), None) = (all.next(), all.next()) else { return None };
            let authority: UriAuthority = host.to_str().ok()?.parse().ok()?;
            authority.host().to_ascii_lowercase()
        }
    };
    Some(host.trim_end_matches('.').into())
}

/// A response with a sentence.
fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
