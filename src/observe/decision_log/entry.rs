//! Entry: a queued decision, and the line that is written for it.
//!
//! Not here: who writes it; see [`super::writer`].

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::authority::request_context::{Parent, RequestContext};
use crate::policy::caller::Caller;
use crate::policy::cause::DenialCause;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::query::Requirement;
use crate::policy::reason::Reason;
use crate::policy::revision::Revision;
use crate::policy::scope::Scope;
use crate::policy::token::VerifiedToken;
use crate::wire::names::reason_name;

/// The limit of scopes in a list of a line.
const MAX_NAMES: usize = 20;

/// A queued decision. It has only the fields of its line.
pub(super) struct DecisionLogEntry {
    pub(super) time: Timestamp,
    pub(super) caller: Caller,
    pub(super) context: Option<Arc<RequestContext>>,
    /// None: the client did not prove who it is.
    pub(super) company: Option<CompanyId>,
    pub(super) credential: Option<CredentialId>,
    /// The token, if the server verified it. Nothing of another token may be in the log (T7).
    pub(super) token: Option<Arc<VerifiedToken>>,
    pub(super) requirement: Requirement,
    /// The number of requested scopes, if the list is truncated.
    pub(super) scopes_count: Option<usize>,
    pub(super) audience: Option<Name>,
    pub(super) user: Option<UserId>,
    pub(super) owner: Option<UserId>,
    /// The reason of a denial. None: allowed.
    pub(super) denied: Option<Reason>,
    /// The cause of the denial, if its reason has several.
    pub(super) cause: Option<DenialCause>,
    pub(super) missing: Vec<Scope>,
    pub(super) missing_count: Option<usize>,
    pub(super) revision: Revision,
}

impl DecisionLogEntry {
    /// The approximate memory of the entry, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        let names = |scopes: &[Scope]| scopes.iter().map(|s| s.as_str().len() + 16).sum::<usize>();
        let requirement = match &self.requirement {
            Requirement::Scopes(scopes) => names(scopes),
            Requirement::Endpoint { method, path } => method.len() + path.as_str().len(),
            Requirement::Template { method, template } => method.len() + template.to_string().len(),
            Requirement::Resource(asked) => {
                asked.kind.len() + asked.id.len() + asked.action.len() + size_of_val(&**asked)
            }
        };
        let users = [&self.user, &self.owner].into_iter().flatten();
        let users = users.map(|user| user.as_str().len()).sum::<usize>();
        let company = self.company.as_ref().map_or(0, |id| id.as_str().len());
        let credential = self.credential.as_ref().map_or(0, |id| id.as_str().len());
        let token = self.token.as_ref().map_or(0, |token| token.bytes());
        let ids = company + credential + users + token;
        (size_of::<Self>() + 128 + ids + requirement + names(&self.missing)) as u64
    }
}

/// One line of the log.
#[derive(Serialize)]
pub(super) struct DecisionLogLine<'a> {
    time: String,
    revision: u64,
    caller: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<&'a str>,
    // The caller's header, not the `request_id` field of the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    x_request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    company_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_issuer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<&'a str>>,
    // The number of scopes, if the list is truncated.
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audience: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_owner_id: Option<&'a str>,
    decision: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_scopes: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_scopes_count: Option<usize>,
}

impl<'a> DecisionLogLine<'a> {
    /// The line of an entry.
    pub(super) fn of(entry: &'a DecisionLogEntry) -> Self {
        let context = entry.context.as_deref();
        let names = |scopes: &'a [Scope]| scopes.iter().map(|scope| scope.as_str()).collect();
        let (mut scopes, mut method, mut path, mut resource) = (None, None, None, None);
        match &entry.requirement {
            Requirement::Scopes(needed) => scopes = Some(names(needed)),
            Requirement::Endpoint { method: own, path: text } => {
                (method, path) = (Some(&**own), Some(Cow::Borrowed(text.as_str())));
            }
            Requirement::Template { method: own, template } => {
                (method, path) = (Some(&**own), Some(Cow::Owned(template.to_string())));
            }
            Requirement::Resource(asked) => resource = Some(&**asked),
        }
        Self {
            time: entry.time.to_string(),
            revision: entry.revision.0,
            caller: entry.caller.name(),
            key_id: match &entry.caller {
                Caller::Key(key) => Some(key.id.as_str()),
                _ => None,
            },
            x_request_id: context.and_then(|context| context.request_id.as_deref()),
            trace_id: context.and_then(|context| context.parent.as_ref()).map(Parent::trace),
            company_id: entry.company.as_ref().map(|id| id.as_str()),
            credential_id: entry.credential.as_ref().map(|id| id.as_str()),
            token_issuer: entry.token.as_ref().map(|token| &*token.issuer.name),
            token_id: entry.token.as_ref().and_then(|token| token.id.as_deref()),
            scopes,
            scopes_count: entry.scopes_count,
            method,
            path,
            resource_type: resource.map(|asked| &*asked.kind),
            resource_id: resource.map(|asked| &*asked.id),
            action: resource.map(|asked| &*asked.action),
            audience: entry.audience.as_ref().map(|name| name.as_str()),
            user_id: entry.user.as_ref().map(|user| user.as_str()),
            resource_owner_id: entry.owner.as_ref().map(|user| user.as_str()),
            decision: if entry.denied.is_some() { "DENIED" } else { "ALLOWED" },
            reason: entry.denied.map_or("ALLOWED", reason_name),
            cause: entry.cause.map(DenialCause::word),
            missing_scopes: names(&entry.missing),
            missing_scopes_count: entry.missing_count,
        }
    }
}

/// The first scopes, and the number of all of them if there are more.
pub(super) fn truncated(scopes: &[Scope]) -> (Vec<Scope>, Option<usize>) {
    let count = scopes.len();
    (scopes.iter().take(MAX_NAMES).cloned().collect(), (count > MAX_NAMES).then_some(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_has_twenty_names_and_their_number() {
        let all: Vec<_> =
            (0..21).map(|n| Scope::parse(format!("s:{n}")).expect("a scope")).collect();
        let (names, count) = truncated(&all);
        assert_eq!((names.len(), count), (20, Some(21)));
        let (names, count) = truncated(&all[..20]);
        assert_eq!((names.len(), count), (20, None));
    }
}
