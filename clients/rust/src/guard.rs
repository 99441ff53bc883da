//! Guard: a tower layer that lets a call through to the service behind it if the caller may make
//! it, and else answers in its place.
//!
//! Not here: finding out who calls. The application says, and what it does not know is refused.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use http_body_util::{Either, Full};
use tonic::server::NamedService;
use tower_layer::Layer;
use tower_service::Service;

use crate::caller::Caller;
use crate::check::Check;
use crate::client::Client;
use crate::decision::{Allowed, NotAllowed};
use crate::response::ErrorFormat;

/// Guards a service: for each of its calls scopegate is asked whether the caller may make it.
///
/// Who may goes on to the service, with [`Allowed`] and [`Caller`] in the request's extensions.
/// Who may not is answered as the reason says: 401, 403 or 404 with its challenge (RFC 6750
/// section 3) and `{"error": …, "message": …}`. So is a caller whom the application does not know.
/// A question without an answer is 503 with `Retry-After`, a malformed one 400; neither goes on.
/// gRPC calls (by their content type) get `UNAUTHENTICATED`, `PERMISSION_DENIED`, `UNIMPLEMENTED`,
/// `UNAVAILABLE` and `INVALID_ARGUMENT` instead. The response's extensions have the [`NotAllowed`],
/// for an outer layer to log.
#[derive(Clone)]
pub struct Guard {
    client: Client,
    needs: Requirement,
    identify: Extract<Caller>,
    owner: Option<Extract<String>>,
    audience: String,
    prefix: String,
    own_records: bool,
    challenge: Option<HeaderValue>,
}

/// What the application reads from a request.
type Extract<T> = Arc<dyn Fn(&Parts) -> Option<T> + Send + Sync>;

/// What a call needs.
#[derive(Clone)]
enum Requirement {
    Scopes(Vec<String>),
    Endpoint,
    Grpc,
}

impl Guard {
    /// Every call needs this scope.
    pub fn scope(
        client: &Client,
        scope: impl Into<String>,
        identify: impl Fn(&Parts) -> Option<Caller> + Send + Sync + 'static,
    ) -> Self {
        Self::scopes(client, [scope], identify)
    }

    /// Every call needs all of these scopes.
    pub fn scopes(
        client: &Client,
        scopes: impl IntoIterator<Item = impl Into<String>>,
        identify: impl Fn(&Parts) -> Option<Caller> + Send + Sync + 'static,
    ) -> Self {
        Self::new(
            client,
            Requirement::Scopes(scopes.into_iter().map(Into::into).collect()),
            identify,
        )
    }

    /// A call needs what the catalog's endpoint of its method and path needs. The path is asked
    /// for as it came, not decoded and without its query (D20).
    pub fn endpoint(
        client: &Client,
        identify: impl Fn(&Parts) -> Option<Caller> + Send + Sync + 'static,
    ) -> Self {
        Self::new(client, Requirement::Endpoint, identify)
    }

    /// A call needs what the catalog's `GRPC` endpoint of its path needs.
    pub fn grpc(
        client: &Client,
        identify: impl Fn(&Parts) -> Option<Caller> + Send + Sync + 'static,
    ) -> Self {
        Self::new(client, Requirement::Grpc, identify)
    }

    fn new(
        client: &Client,
        needs: Requirement,
        identify: impl Fn(&Parts) -> Option<Caller> + Send + Sync + 'static,
    ) -> Self {
        Self {
            client: client.clone(),
            needs,
            identify: Arc::new(identify),
            owner: None,
            audience: String::new(),
            prefix: String::new(),
            own_records: false,
            challenge: None,
        }
    }

    /// Of this API: for scopes where the catalog has several audiences.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = audience.into();
        self
    }

    /// Puts this before the path that is asked for: behind a router that takes a prefix off
    /// (axum's `nest`), what came is no longer there to be seen.
    #[must_use]
    pub fn path_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Whose record is asked for, so that callers who reach no more than their own can have it
    /// (D17).
    #[must_use]
    pub fn owned_by(
        mut self,
        owner: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.owner = Some(Arc::new(owner));
        self
    }

    /// Lets callers through who reach no more than their own records, and leaves it to the service
    /// to filter: [`Allowed`] says so. Without this and without an owner they are refused (D17).
    #[must_use]
    pub fn own_records(mut self) -> Self {
        self.own_records = true;
        self
    }

    /// The `WWW-Authenticate` of a 401, for APIs whose callers do not come with Bearer tokens.
    #[must_use]
    pub fn challenge(mut self, challenge: HeaderValue) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// Who calls and may, or the answer for who may not.
    async fn authorize<B: Default + From<String>>(
        &self,
        parts: &Parts,
    ) -> Result<(Caller, Allowed), Response<B>> {
        let rendering = ErrorFormat::of(parts, self.challenge.clone());
        let Some(caller) = (self.identify)(parts) else {
            return Err(rendering.unauthenticated());
        };
        let check = self.question(parts, &caller);
        let allowed = match self.client.check(&check).await {
            Ok(decision) if self.own_records => decision.at_least_own().map_err(NotAllowed::from),
            Ok(decision) => decision.allowed().map_err(NotAllowed::from),
            Err(unanswered) => Err(unanswered.into()),
        };
        allowed.map(|allowed| (caller, allowed)).map_err(|refused| rendering.refused(refused))
    }

    fn question(&self, parts: &Parts, caller: &Caller) -> Check {
        let path = || format!("{}{}", self.prefix, parts.uri.path());
        let mut check = match &self.needs {
            Requirement::Scopes(scopes) => Check::scopes(caller, scopes),
            Requirement::Endpoint => Check::endpoint(caller, parts.method.as_str(), path()),
            Requirement::Grpc => Check::grpc(caller, path()),
        };
        if let Some(owner) = self.owner.as_ref().and_then(|owner| owner(parts)) {
            check = check.owned_by(owner);
        }
        check.audience(self.audience.clone())
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Guarded { guard: self.clone(), inner }
    }
}

/// A service behind a [`Guard`].
#[derive(Clone)]
pub struct Guarded<S> {
    guard: Guard,
    inner: S,
}

impl<S, In, Out> Service<Request<In>> for Guarded<S>
where
    S: Service<Request<In>, Response = Response<Out>> + Clone + Send + 'static,
    S::Future: Send,
    In: Send + 'static,
{
    /// The service's own body, or that of a refusal.
    type Response = Response<Either<Full<Bytes>, Out>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        // The one that is ready is taken along; its clone gets ready for the next call.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let guard = self.guard.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            match guard.authorize(&parts).await {
                Ok((caller, allowed)) => {
                    parts.extensions.insert(caller);
                    parts.extensions.insert(allowed);
                    let response = inner.call(Request::from_parts(parts, body)).await?;
                    Ok(response.map(Either::Right))
                }
                Err(refusal) => Ok(refusal.map(Either::Left)),
            }
        })
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}
