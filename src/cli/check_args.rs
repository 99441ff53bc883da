//! Question: what a check asks, in flags.

use clap::Args;
use prost_types::Timestamp;

use super::credential_args::CredentialArgs;
use super::time;
use crate::proto::{CheckRequest, Endpoint, ListEffectiveScopesRequest, Token};

/// On whose part is asked.
#[derive(Debug, Args)]
pub struct SubjectArgs {
    /// Whose call it is.
    #[command(flatten)]
    target: CredentialArgs,

    /// The audience, where the catalog has several.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    audience: String,

    /// The user on whose behalf the call is made.
    #[arg(long, default_value = "", hide_default_value = true)]
    user: String,

    /// The call comes with an access token; every other --token-… flag says so too.
    #[arg(long)]
    token: bool,

    /// The token's scopes, one flag for each; without any, it allows nothing.
    #[arg(long, value_name = "SCOPE")]
    token_scope: Vec<String>,

    /// What the token was minted for: an audience's name or one of its `aud` strings; the audience
    /// that is named, if not given.
    #[arg(long, value_name = "AUDIENCE")]
    token_audience: Option<String>,

    /// When the token was issued, as RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = time::exact)]
    token_issued_at: Option<Timestamp>,

    /// When the token ends, as RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = time::exact)]
    token_expires_at: Option<Timestamp>,

    /// The user in whose name the token was minted.
    #[arg(long, value_name = "USER")]
    token_user: Option<String>,
}

/// What is asked.
#[derive(Debug, Args)]
pub struct CheckQueryArgs {
    /// On whose part is asked.
    #[command(flatten)]
    caller: SubjectArgs,

    /// The scopes, all of which are needed.
    #[arg(required_unless_present = "path", conflicts_with = "path", value_name = "SCOPE")]
    scopes: Vec<String>,

    /// Instead of scopes: the method of the call, such as `GET`, or `GRPC`.
    #[arg(long, alias = "endpoint-method", requires = "path")]
    method: Option<String>,

    /// Instead of scopes: the path of the call, such as `/users/7`, or `/pkg.Service/Method`.
    #[arg(long, alias = "endpoint-path", requires = "method")]
    path: Option<String>,

    /// The user whose record is asked for.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "USER")]
    resource_owner: String,

    /// Wait, up to 500 ms, until this revision is in force.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REVISION")]
    at_least_revision: u64,
}

impl SubjectArgs {
    fn bearer(&self) -> Option<Token> {
        let present = self.token
            || !self.token_scope.is_empty()
            || self.token_audience.is_some()
            || self.token_issued_at.is_some()
            || self.token_expires_at.is_some()
            || self.token_user.is_some();
        present.then(|| Token {
            audience: self.token_audience.clone().unwrap_or_else(|| self.audience.clone()),
            scopes: self.token_scope.clone(),
            issued_at: self.token_issued_at,
            expires_at: self.token_expires_at,
            user_id: self.token_user.clone().unwrap_or_default(),
        })
    }

    /// A request for everything that they may do.
    pub(super) fn everything(self) -> ListEffectiveScopesRequest {
        ListEffectiveScopesRequest {
            token: self.bearer(),
            company_id: self.target.company,
            credential_id: self.target.credential,
            audience: self.audience,
            user_id: self.user,
        }
    }
}

impl CheckQueryArgs {
    /// The request that asks it.
    pub(super) fn request(self) -> CheckRequest {
        let Self { caller, scopes, method, path, resource_owner, at_least_revision } = self;
        CheckRequest {
            token: caller.bearer(),
            company_id: caller.target.company,
            credential_id: caller.target.credential,
            scopes,
            endpoint: method.zip(path).map(|(method, path)| Endpoint { method, path }),
            audience: caller.audience,
            user_id: caller.user,
            resource_owner_id: resource_owner,
            at_least_revision,
        }
    }
}
