//! Caller: the credential, the user and the token of a check. The application authenticates the
//! client; this module verifies neither tokens nor secrets.

use std::time::SystemTime;

use crate::proto;

/// An API credential of a company, with the user and the token of the request, if it has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub(crate) company: String,
    pub(crate) credential: String,
    pub(crate) user: String,
    pub(crate) token: Option<Token>,
}

impl Caller {
    /// Creates a caller from the ids of a company and of its credential.
    pub fn new(company: impl Into<String>, credential: impl Into<String>) -> Self {
        let (company, credential) = (company.into(), credential.into());
        Self { company, credential, user: String::new(), token: None }
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

    /// The company's id.
    #[must_use]
    pub fn company_id(&self) -> &str {
        &self.company
    }

    /// The credential's id.
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
