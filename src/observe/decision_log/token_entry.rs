//! Token entry: a token that was issued or refused, and the line that is written for it.
//!
//! Not here: the token. No line has its text, nor a secret; `jti` names it.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::entry::truncated;
use crate::authority::request_context::{Parent, RequestContext};
use crate::policy::cause::{Cause, DenialCause};
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::wire::names::reason_name;

/// A token that was issued or refused.
#[derive(Clone, Debug, Default)]
pub struct TokenDecision {
    /// The request.
    pub context: Option<Arc<RequestContext>>,
    /// The client, if it proved who it is.
    pub client: Option<(CompanyId, CredentialId)>,
    /// The name of the grant.
    pub grant: Option<&'static str>,
    /// The user of an exchange.
    pub user: Option<UserId>,
    /// The audience.
    pub audience: Option<Name>,
    /// The scopes of the token, or the requested ones.
    pub scopes: Vec<Scope>,
    /// The `jti` of the token, and the revision of its issue.
    pub issued: Option<(String, Revision)>,
    /// The error code of a refusal. None: the token was issued.
    pub error: Option<&'static str>,
    /// The cause of the refusal, if a decision was.
    pub cause: Option<Cause>,
    /// Refusals of clients that proved nothing: their address, and their number. None is the address of
    /// those that are too many to be counted apart.
    pub refused: Option<(Option<IpAddr>, u64)>,
}

/// A queued token decision.
pub(super) struct TokenLogEntry {
    pub(super) time: Timestamp,
    /// The number of scopes, if the list is truncated.
    scopes_count: Option<usize>,
    pub(super) decision: TokenDecision,
}

/// One line of the log.
#[derive(Serialize)]
pub(super) struct TokenLogLine<'a> {
    time: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x_request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    company_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audience: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scopes: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
}

impl TokenLogEntry {
    pub(super) fn new(mut decision: TokenDecision) -> Self {
        let (scopes, scopes_count) = truncated(&decision.scopes);
        decision.scopes = scopes;
        Self { time: crate::metrics::machine_time(), scopes_count, decision }
    }

    /// The approximate memory of the entry, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        let scopes = self.decision.scopes.iter().map(|scope| scope.as_str().len() + 16);
        (size_of::<Self>() + 512 + scopes.sum::<usize>()) as u64
    }
}

impl<'a> TokenLogLine<'a> {
    /// The line of an entry.
    pub(super) fn of(entry: &'a TokenLogEntry) -> Self {
        let decision = &entry.decision;
        let context = decision.context.as_deref();
        let client = decision.client.as_ref();
        Self {
            time: entry.time.to_string(),
            kind: "token",
            revision: decision.issued.as_ref().map(|(_, revision)| revision.0),
            x_request_id: context.and_then(|context| context.request_id.as_deref()),
            trace_id: context.and_then(|context| context.parent.as_ref()).map(Parent::trace),
            company_id: client.map(|(company, _)| company.as_str()),
            credential_id: client.map(|(_, credential)| credential.as_str()),
            grant: decision.grant,
            user_id: decision.user.as_ref().map(|user| user.as_str()),
            audience: decision.audience.as_ref().map(|audience| audience.as_str()),
            scopes: decision.scopes.iter().map(|scope| scope.as_str()).collect(),
            scopes_count: entry.scopes_count,
            jti: decision.issued.as_ref().map(|(id, _)| id.as_str()),
            decision: if decision.error.is_some() { "REFUSED" } else { "ISSUED" },
            error: decision.error,
            reason: decision.cause.map(|cause| reason_name(cause.reason)),
            cause: decision.cause.and_then(|cause| cause.fault).map(DenialCause::word),
            address: decision.refused.and_then(|(address, _)| address).map(|ip| ip.to_string()),
            count: decision.refused.map(|(_, count)| count),
        }
    }
}
