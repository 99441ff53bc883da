//! Check: one request for a decision. The server validates it.

use std::fmt;

use crate::caller::Caller;
use crate::proto::{CheckRequest, Endpoint};

/// A check: may this caller use these scopes, or call this endpoint, now?
/// `Debug` does not show the client's header.
#[derive(Clone)]
pub struct Check {
    pub(crate) request: CheckRequest,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authorization = self.request.authorization.as_ref().map(|_| "…".to_owned());
        CheckRequest { authorization, ..self.request.clone() }.fmt(f)
    }
}

impl Check {
    /// Checks one scope.
    #[must_use]
    pub fn scope(caller: &Caller, scope: impl Into<String>) -> Self {
        Self::scopes(caller, [scope])
    }

    /// Checks several scopes, which are all needed. A check without scopes is an error (D13).
    pub fn scopes(caller: &Caller, scopes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut check = Self::by(caller);
        check.request.scopes = scopes.into_iter().map(Into::into).collect();
        check
    }

    /// Checks an endpoint of the catalog. The path is the path of the request as it was sent, not
    /// decoded and without its query (D20).
    #[must_use]
    pub fn endpoint(caller: &Caller, method: impl Into<String>, path: impl Into<String>) -> Self {
        let mut check = Self::by(caller);
        check.request.endpoint = Some(Endpoint { method: method.into(), path: path.into() });
        check
    }

    /// May the caller call this gRPC method of the catalog, `/pkg.Service/Method`?
    #[must_use]
    pub fn grpc(caller: &Caller, method: impl Into<String>) -> Self {
        Self::endpoint(caller, "GRPC", method)
    }

    /// Of this API: needed where the catalog has several audiences and no endpoint says which.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.request.audience = audience.into();
        self
    }

    /// For a record of this user: a caller who reaches no more than their own records is then
    /// judged by whose it is (D17).
    #[must_use]
    pub fn owned_by(mut self, user: impl Into<String>) -> Self {
        self.request.resource_owner_id = user.into();
        self
    }

    /// By facts at least as new as this revision, for which the server waits up to 500 ms (within
    /// the deadline). Who has just changed something gives the change's revision.
    #[must_use]
    pub fn at_least_revision(mut self, revision: u64) -> Self {
        self.request.at_least_revision = revision;
        self
    }

    fn by(caller: &Caller) -> Self {
        let request = CheckRequest {
            company_id: caller.company.clone(),
            credential_id: caller.credential.clone(),
            user_id: caller.user.clone(),
            token: caller.token.as_ref().map(Into::into),
            authorization: caller.authorization.clone(),
            ..CheckRequest::default()
        };
        Self { request }
    }
}
