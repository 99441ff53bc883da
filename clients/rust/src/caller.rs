//! Caller: who makes the call that is to be judged. Who finds that out is the application; nothing
//! here verifies a token or a secret.

use std::time::SystemTime;

use crate::proto;

/// An API credential of a company, with the user and the token of the call, if it has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub(crate) company: String,
    pub(crate) credential: String,
    pub(crate) user: String,
    pub(crate) token: Option<Token>,
}

impl Caller {
    /// A credential of a company, by their ids.
    pub fn new(company: impl Into<String>, credential: impl Into<String>) -> Self {
        let (company, credential) = (company.into(), credential.into());
        Self { company, credential, user: String::new(), token: None }
    }

    /// On behalf of this user.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// With this token, which the application has verified.
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

    /// The user on whose behalf the call is made: as said by [`user`](Self::user), else by the
    /// token.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        let token = self.token.as_ref().map(|token| token.user.as_str());
        [Some(self.user.as_str()), token].into_iter().flatten().find(|user| !user.is_empty())
    }
}

/// Facts of an access token that the application has verified. They only ever narrow; a token
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
    /// A token with these scopes.
    pub fn new(scopes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { scopes: scopes.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Minted for this audience.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = audience.into();
        self
    }

    /// Minted in the name of this user.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// When it was issued.
    #[must_use]
    pub fn issued_at(mut self, time: SystemTime) -> Self {
        self.issued_at = Some(time);
        self
    }

    /// When it ends.
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
