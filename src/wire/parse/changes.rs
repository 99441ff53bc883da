//! Changes: the filter of ListChanges.

use crate::authority::history::ChangeFilter;
use crate::policy::change::ChangeKind;
use crate::policy::id::CompanyId;
use crate::policy::revision::Revision;
use crate::policy::text;
use crate::proto;
use crate::wire::validate::{FieldValidator, InvalidRequest, MAX_LABEL, MAX_QUOTED};

/// The filter of a list of changes, and its company.
pub(crate) fn change_filter(
    request: proto::ListChangesRequest,
) -> Result<(Option<CompanyId>, ChangeFilter), InvalidRequest> {
    let mut fields = FieldValidator::default();
    let company = request.company_id.filter(|id| !id.is_empty());
    let company = company.and_then(|id| fields.company(id));
    let credential = (!request.credential_id.is_empty()).then_some(request.credential_id);
    if credential.is_some() && company.is_none() {
        fields.wrong("credential_id", "needs the `company_id` of its company");
    }
    let credential = credential.and_then(|id| fields.credential(id));
    let mut kinds = Vec::new();
    for (n, name) in request.kinds.iter().enumerate() {
        match ChangeKind::of(name) {
            Some(kind) if kinds.contains(&kind) => {}
            Some(kind) => kinds.push(kind),
            None => {
                let all: Vec<_> = ChangeKind::ALL.iter().map(|kind| kind.name()).collect();
                let (name, all) = (text::quoted(name, MAX_QUOTED), all.join("`, `"));
                let wrong =
                    format!("is {name}, which is not a kind of change: the kinds are `{all}`");
                fields.wrong(format!("kinds[{n}]"), wrong);
            }
        }
    }
    let start = fields.moment("start_time", request.start_time);
    let end = fields.moment("end_time", request.end_time);
    if start.zip(end).is_some_and(|(start, end)| start >= end) {
        fields.wrong("end_time", "must be later than `start_time`");
    }
    let actor = fields.line("actor", request.actor, MAX_LABEL);
    let filter = ChangeFilter {
        newest_first: request.newest_first,
        after: Some(Revision(request.after_revision)).filter(|after| *after > Revision::ZERO),
        start,
        end,
        actor: Some(actor).filter(|actor| !actor.is_empty()),
        kinds,
        credential,
    };
    fields.finish(Some((company, filter)))
}
