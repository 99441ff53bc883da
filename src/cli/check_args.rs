//! Check arguments: the flags that describe a check.

use anyhow::bail;
use clap::Args;
use prost_types::Timestamp;

use super::client_credential_args::{ClientCredentialArgs, ClientCredentialText};
use super::time;
use crate::proto::{CheckRequest, Endpoint, ListEffectiveScopesRequest, Token};

/// The subject of a check: a credential, a user and a token.
#[derive(Debug, Args)]
pub struct SubjectArgs {
    /// The company's id.
    #[arg(required_unless_present = "client_credential")]
    company: Option<String>,

    /// The credential's id.
    #[arg(required_unless_present = "client_credential")]
    credential: Option<String>,

    /// What the client presents to prove who it is.
    #[command(flatten)]
    presented: ClientCredentialArgs,

    /// The company's id, if the client's token leaves it to the request. If the token has it, it must be
    /// the same.
    #[arg(long = "company", requires = "client_credential", value_name = "COMPANY")]
    named_company: Option<String>,

    /// The credential's id, in the same way.
    #[arg(long = "credential", requires = "client_credential", value_name = "CREDENTIAL")]
    named_credential: Option<String>,

    /// The audience of the call. Required if the catalog has several.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    audience: String,

    /// The user on whose behalf the call is made.
    #[arg(long, default_value = "", hide_default_value = true)]
    user: String,

    /// The call carries an access token. Every other --token-… flag implies this one.
    #[arg(long)]
    token: bool,

    /// A scope of the token; repeat the flag for each. A token without scopes allows nothing.
    #[arg(long, value_name = "SCOPE")]
    token_scope: Vec<String>,

    /// The audience that the token was issued for: the name of an audience or one of its `aud`
    /// strings. The default is --audience.
    #[arg(long, value_name = "AUDIENCE")]
    token_audience: Option<String>,

    /// The time at which the token was issued, in RFC 3339 format.
    #[arg(long, value_name = "TIME", value_parser = time::exact)]
    token_issued_at: Option<Timestamp>,

    /// The time at which the token expires, in RFC 3339 format.
    #[arg(long, value_name = "TIME", value_parser = time::exact)]
    token_expires_at: Option<Timestamp>,

    /// The user that the token was issued for.
    #[arg(long, value_name = "USER")]
    token_user: Option<String>,
}

/// A check: a subject, and the scopes or the endpoint.
#[derive(Debug, Args)]
pub struct CheckQueryArgs {
    /// The subject of a check: a credential, a user and a token.
    #[command(flatten)]
    subject: SubjectArgs,

    /// The scopes of the check. It is allowed only if the subject has all of them.
    #[arg(
        required_unless_present_any = ["path", "client_credential"],
        conflicts_with = "path",
        value_name = "SCOPE"
    )]
    scopes: Vec<String>,

    /// The method of the call, such as `GET`, or `GRPC`. Use it with --path, instead of scopes.
    #[arg(long, alias = "endpoint-method", requires = "path")]
    method: Option<String>,

    /// The path of the call, such as `/users/7`, or `/pkg.Service/Method`. Use it with --method,
    /// instead of scopes.
    #[arg(long, alias = "endpoint-path", requires = "method")]
    path: Option<String>,

    /// The user that owns the requested record.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "USER")]
    resource_owner: String,

    /// Wait up to 500 ms until the server has this revision.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REVISION")]
    at_least_revision: u64,
}

impl SubjectArgs {
    /// Whether the client proves itself who it is by a token or a header.
    pub(super) fn is_presented(&self) -> bool {
        self.presented.is_given()
    }

    /// The check of this subject, without a requirement. If a client presents what names it, the
    /// positional arguments are scopes.
    async fn check(self) -> anyhow::Result<CheckRequest> {
        let token = self.to_token();
        let positional = [self.company, self.credential].map(Option::unwrap_or_default);
        let named = [self.named_company, self.named_credential].map(Option::unwrap_or_default);
        let (ids, scopes) = match self.presented.is_given() {
            true => (named, positional.into_iter().filter(|scope| !scope.is_empty()).collect()),
            false => (positional, vec![]),
        };
        let [company_id, credential_id] = ids;
        let ClientCredentialText { bearer_token, authorization } = self.presented.read().await?;
        Ok(CheckRequest {
            company_id,
            credential_id,
            scopes,
            audience: self.audience,
            token,
            bearer_token,
            authorization,
            user_id: self.user,
            ..CheckRequest::default()
        })
    }

    fn to_token(&self) -> Option<Token> {
        let is_given = self.token
            || !self.token_scope.is_empty()
            || self.token_audience.is_some()
            || self.token_issued_at.is_some()
            || self.token_expires_at.is_some()
            || self.token_user.is_some();
        is_given.then(|| Token {
            audience: self.token_audience.clone().unwrap_or_else(|| self.audience.clone()),
            scopes: self.token_scope.clone(),
            issued_at: self.token_issued_at,
            expires_at: self.token_expires_at,
            user_id: self.token_user.clone().unwrap_or_default(),
        })
    }

    /// The request for all scopes that a check of this subject would allow.
    ///
    /// # Errors
    /// A file of what the client presents cannot be read, or there are ids beside it.
    pub(super) async fn effective_scopes_request(
        self,
    ) -> anyhow::Result<ListEffectiveScopesRequest> {
        let check = self.check().await?;
        if !check.scopes.is_empty() {
            bail!(
                "the token or the header names the client: name the ids, if they are needed, with --company \
                 and --credential"
            );
        }
        Ok(ListEffectiveScopesRequest {
            company_id: check.company_id,
            credential_id: check.credential_id,
            audience: check.audience,
            token: check.token,
            bearer_token: check.bearer_token,
            authorization: check.authorization,
            user_id: check.user_id,
        })
    }
}

impl CheckQueryArgs {
    /// Whether the client proves itself who it is by a token or a header.
    pub(super) fn is_presented(&self) -> bool {
        self.subject.is_presented()
    }

    /// The request of this check.
    ///
    /// # Errors
    /// A file of what the client presents cannot be read.
    pub(super) async fn request(self) -> anyhow::Result<CheckRequest> {
        let Self { subject, scopes, method, path, resource_owner, at_least_revision } = self;
        let mut check = subject.check().await?;
        check.scopes.extend(scopes);
        Ok(CheckRequest {
            endpoint: method.zip(path).map(|(method, path)| Endpoint { method, path }),
            resource_owner_id: resource_owner,
            at_least_revision,
            ..check
        })
    }
}
