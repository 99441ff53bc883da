//! Guard: a tower layer that calls the inner service only if scopegate allows the request, and
//! sends an error response otherwise.
//!
//! The guard does not authenticate. `Caller::of_request` passes the header `Authorization` on to the
//! server, or the application returns a caller that it has authenticated. A request without a caller
//! gets 401.

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

/// Guards a service: it sends a check to scopegate for each request.
///
/// An allowed request reaches the service, with [`Allowed`] and [`Caller`] in its extensions. A
/// denied request gets 401, 403 or 404 with a challenge (RFC 6750 section 3) and
/// `{"error": …, "message": …}`. A request without a caller gets 401. A token that the server cannot
/// verify now and a failed check get 503 with `Retry-After`, and a malformed check gets 400. gRPC requests, by their content type, get
/// `UNAUTHENTICATED`, `PERMISSION_DENIED`, `UNIMPLEMENTED`, `UNAVAILABLE` and `INVALID_ARGUMENT`
/// instead. The extensions of the response contain the [`NotAllowed`], for an outer layer to log.
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

/// A function of the application that reads a value from a request.
type Extract<T> = Arc<dyn Fn(&Parts) -> Option<T> + Send + Sync>;

/// The scopes or the endpoint to check.
#[derive(Clone)]
enum Requirement {
    Scopes(Vec<String>),
    Endpoint,
    Grpc,
}

impl Guard {
    /// Every request needs this scope.
    pub fn scope(
        client: &Client,
        scope: impl Into<String>,
        identify: impl Fn(&Parts) -> Option<Caller> + Send + Sync + 'static,
    ) -> Self {
        Self::scopes(client, [scope], identify)
    }

    /// Every request needs all of these scopes.
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

    /// A request needs the scopes of the catalog's endpoint for its method and path. The path is
    /// sent unchanged: not decoded, and without its query (D20).
    pub fn endpoint(
        client: &Client,
        identify: impl Fn(&Parts) -> Option<Caller> + Send + Sync + 'static,
    ) -> Self {
        Self::new(client, Requirement::Endpoint, identify)
    }

    /// A request needs the scopes of the catalog's `GRPC` endpoint for its path.
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

    /// Sets the audience. Required for scopes if the catalog has several audiences.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = audience.into();
        self
    }

    /// Adds this prefix to the path of the check. Required inside a router that removes a prefix
    /// from the path of a request (axum's `nest`).
    #[must_use]
    pub fn path_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Names the user who owns the requested record, so that users who may access only their own
    /// records are allowed for these (D17).
    #[must_use]
    pub fn owned_by(
        mut self,
        owner: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.owner = Some(Arc::new(owner));
        self
    }

    /// Allows users who may access only their own records. The service must filter, if [`Allowed`]
    /// says so. Without this and without an owner, the guard denies their requests (D17).
    #[must_use]
    pub fn own_records(mut self) -> Self {
        self.own_records = true;
        self
    }

    /// Sets the `WWW-Authenticate` of a 401, for APIs that do not use Bearer tokens.
    #[must_use]
    pub fn challenge(mut self, challenge: HeaderValue) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// Returns the caller of an allowed request, or the error response.
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
        allowed
            .map(|allowed| (caller.proven(&allowed), allowed))
            .map_err(|refused| rendering.refused(refused))
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

/// A service with a [`Guard`].
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
    /// The body of the service, or of an error response.
    type Response = Response<Either<Full<Bytes>, Out>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        // `poll_ready` was called on this service and not on its clone, so the call uses this one.
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
