//! Caller: the credential, the user and the token of a check. The server authenticates the client by
//! its header `Authorization`, or the application does it and states the ids. This module verifies
//! neither tokens nor secrets.

use std::fmt;
use std::time::SystemTime;

use http::header::AUTHORIZATION;
use http::request::Parts;

use crate::decision::Allowed;
use crate::proto;

/// An API credential of a company, with the user and the token of the request, if it has any.
/// `Debug` does not show the header.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Caller {
    pub(crate) company: String,
    pub(crate) credential: String,
    pub(crate) user: String,
    pub(crate) token: Option<Token>,
    pub(crate) authorization: Option<String>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { company, credential, user, token, authorization } = self;
        let mut shown = f.debug_struct("Caller");
        shown.field("company", company).field("credential", credential).field("user", user);
        shown
            .field("token", token)
            .field("authorization", &authorization.as_ref().map(|_| "…"))
            .finish()
    }
}

impl Caller {
    /// Creates a caller from the ids of a company and of its credential. The application must have
    /// authenticated the client.
    pub fn new(company: impl Into<String>, credential: impl Into<String>) -> Self {
        Self { company: company.into(), credential: credential.into(), ..Self::default() }
    }

    /// Creates a caller from the client's header `Authorization`, as the client sent it. The server
    /// verifies it: an access token, a secret, or HTTP Basic.
    pub fn authorization(header: impl Into<String>) -> Self {
        Self { authorization: Some(header.into()), ..Self::default() }
    }

    /// Creates a caller from the header `Authorization` of a request, for a
    /// [`Guard`](crate::Guard). `None` if the request has no such header.
    #[must_use]
    pub fn of_request(parts: &Parts) -> Option<Self> {
        let header = parts.headers.get(AUTHORIZATION)?;
        // The server denies a header that is not UTF-8, in whatever form it gets it.
        Some(Self::authorization(String::from_utf8_lossy(header.as_bytes())))
    }

    /// This caller with the ids that the server has proven.
    pub(crate) fn proven(self, allowed: &Allowed) -> Self {
        let (company, credential) = (allowed.company_id.clone(), allowed.credential_id.clone());
        Self { company, credential, user: allowed.user_id.clone(), ..self }
    }

    /// Sets the user on whose behalf the call is made.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// Sets the token. The application must have verified it.
    #[must_use]
    pub fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// The company's id. Empty if only the header names it, until the server has allowed the call.
    #[must_use]
    pub fn company_id(&self) -> &str {
        &self.company
    }

    /// The credential's id, as [`company_id`](Self::company_id).
    #[must_use]
    pub fn credential_id(&self) -> &str {
        &self.credential
    }

    /// The user on whose behalf the call is made: the one that [`user`](Self::user) has set, or
    /// else the user of the token.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        let token = self.token.as_ref().map(|token| token.user.as_str());
        [Some(self.user.as_str()), token].into_iter().flatten().find(|user| !user.is_empty())
    }
}

/// Facts of an access token that the application has verified. They only narrow a decision. A token
/// without scopes allows nothing (D16).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    audience: String,
    scopes: Vec<String>,
    issued_at: Option<SystemTime>,
    expires_at: Option<SystemTime>,
    user: String,
}

impl Token {
    /// Creates a token with these scopes.
    pub fn new(scopes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { scopes: scopes.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Sets the audience that the token was issued for.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = audience.into();
        self
    }

    /// Sets the user for whom the token was issued.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// Sets the time at which the token was issued.
    #[must_use]
    pub fn issued_at(mut self, time: SystemTime) -> Self {
        self.issued_at = Some(time);
        self
    }

    /// Sets the time at which the token expires.
    #[must_use]
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.expires_at = Some(time);
        self
    }
}

impl From<&Token> for proto::Token {
    fn from(token: &Token) -> Self {
        Self {
            audience: token.audience.clone(),
            scopes: token.scopes.clone(),
            issued_at: token.issued_at.map(Into::into),
            expires_at: token.expires_at.map(Into::into),
            user_id: token.user.clone(),
        }
    }
}
