//! Checks: the requests of Check, BatchCheck, ExplainCheck and ListEffectiveScopes.

use std::collections::HashSet;

use crate::policy::query::{Request, Requirement};
use crate::policy::revision::Revision;
use crate::proto;
use crate::wire::validate::{
    Auds, FieldPrefix, FieldValidator, InvalidRequest, MAX_CHECKS, MAX_CLIENT_CREDENTIALS,
    RawSubject,
};

/// The request of a check, and the revision that it waits for.
pub(crate) fn check(
    request: proto::CheckRequest,
    auds: Auds<'_>,
) -> Result<(Request, Revision), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let request = fields.check(request, auds);
    fields.finish(request)
}

/// The requests of a batch, and the highest revision that one of them waits for.
pub(crate) fn batch(
    request: proto::BatchCheckRequest,
    auds: Auds<'_>,
) -> Result<(Vec<Request>, Revision), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let count = request.checks.len();
    if count == 0 {
        fields.wrong("checks", "must have at least one check");
    }
    if count > MAX_CHECKS {
        fields.too_many("checks", format!("has {count} checks, the limit is {MAX_CHECKS}"));
        return fields.finish(None);
    }
    let presented = request.checks.iter().filter_map(|check| {
        let token = check.bearer_token.as_deref().map(|token| ("bearer_token", token));
        token.or(check.authorization.as_deref().map(|header| ("authorization", header)))
    });
    let credentials = presented.collect::<HashSet<_>>().len();
    if credentials > MAX_CLIENT_CREDENTIALS {
        let limit = format!(
            "has {credentials} distinct credentials of clients, the limit is {MAX_CLIENT_CREDENTIALS}: \
             send several batches"
        );
        fields.too_many("checks", limit);
        return fields.finish(None);
    }
    let mut at_least = Revision::ZERO;
    let mut requests = Vec::with_capacity(count);
    for (n, check) in request.checks.into_iter().enumerate() {
        fields.prefix = FieldPrefix::Checks(n);
        if let Some((request, revision)) = fields.check(check, auds) {
            at_least = at_least.max(revision);
            requests.push(request);
        }
    }
    fields.finish(Some((requests, at_least)))
}

/// The request to explain, and the revision that it waits for.
pub(crate) fn explain(
    request: proto::ExplainCheckRequest,
    auds: Auds<'_>,
) -> Result<(Request, Revision), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let Some(check) = request.check else {
        fields.wrong("check", "must be set");
        return fields.finish(None);
    };
    fields.prefix = FieldPrefix::Check;
    let request = fields.check(check, auds);
    fields.finish(request)
}

/// The subject whose effective scopes are listed, as a request that requires nothing.
pub(crate) fn effective(
    request: proto::ListEffectiveScopesRequest,
    auds: Auds<'_>,
) -> Result<Request, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let subject = fields.subject(RawSubject {
        company: request.company_id,
        credential: request.credential_id,
        token: request.token,
        bearer_token: request.bearer_token,
        authorization: request.authorization,
    });
    let audience = fields.audience(&request.audience, auds);
    let user = fields.user("user_id", request.user_id);
    let needs = Requirement::Scopes(vec![]);
    fields.finish(subject.map(|subject| subject.request(needs, audience, user, None)))
}
