//! Checks: the requests of Check, BatchCheck, ExplainCheck and ListEffectiveScopes.

use crate::policy::query::{Query, Requirement, Subject};
use crate::policy::revision::Revision;
use crate::policy::token::PresentedToken;
use crate::proto;
use crate::wire::validate::{Auds, FieldPrefix, FieldValidator, InvalidRequest, MAX_CHECKS};

/// The query of a check, and the revision that it waits for.
pub(crate) fn check(
    request: proto::CheckRequest,
    auds: Auds<'_>,
) -> Result<(Query, Revision), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let query = fields.check(request, auds);
    fields.finish(query)
}

/// The queries of a batch, and the highest revision that one of them waits for.
pub(crate) fn batch(
    request: proto::BatchCheckRequest,
    auds: Auds<'_>,
) -> Result<(Vec<Query>, Revision), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let count = request.checks.len();
    if count == 0 {
        fields.wrong("checks", "must have at least one check");
    }
    if count > MAX_CHECKS {
        fields.too_many("checks", format!("has {count} checks, the limit is {MAX_CHECKS}"));
        return fields.finish(None);
    }
    let mut at_least = Revision::ZERO;
    let mut queries = Vec::with_capacity(count);
    for (n, check) in request.checks.into_iter().enumerate() {
        fields.prefix = FieldPrefix::Checks(n);
        if let Some((query, revision)) = fields.check(check, auds) {
            at_least = at_least.max(revision);
            queries.push(query);
        }
    }
    fields.finish(Some((queries, at_least)))
}

/// The query to explain, and the revision that it waits for.
pub(crate) fn explain(
    request: proto::ExplainCheckRequest,
    auds: Auds<'_>,
) -> Result<(Query, Revision), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let Some(check) = request.check else {
        fields.wrong("check", "must be set");
        return fields.finish(None);
    };
    fields.prefix = FieldPrefix::Check;
    let query = fields.check(check, auds);
    fields.finish(query)
}

/// The subject whose effective scopes are listed, as a query that requires nothing.
pub(crate) fn effective(
    request: proto::ListEffectiveScopesRequest,
    auds: Auds<'_>,
) -> Result<Query, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let ids = fields.company(request.company_id).zip(fields.credential(request.credential_id));
    let audience = fields.audience(&request.audience, auds);
    let token = request.token.map(|token| fields.token(token));
    let user = fields.user("user_id", request.user_id);
    fields.finish(ids.map(|(company, credential)| {
        let needs = Requirement::Scopes(vec![]);
        let subject = Subject::Known { company, credential };
        let token = token.map(PresentedToken::Stated);
        Query { subject, needs, audience, token, user, owner: None }
    }))
}
