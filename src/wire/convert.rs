//! Convert: messages that the CLI has received or built, as values of the domain, so that a command
//! can compute a decision or replay a change by itself.
//!
//! Not here: another parser; every field is read by [`super::parse`] and [`super::validate`].

use super::parse;
use super::validate::{FieldValidator, InvalidRequest, malformed};
use crate::policy::change::{Author, Change, ChangeKind, FieldChange};
use crate::policy::query::Query;
use crate::policy::revision::Revision;
use crate::proto;

/// The query of a check.
///
/// # Errors
/// A field is malformed.
pub(crate) fn query_from_proto(check: proto::CheckRequest) -> Result<Query, InvalidRequest> {
    // A command has the catalog's `aud` strings only as a part of its own facts.
    let field = if check.authorization.is_some() { "authorization" } else { "bearer_token" };
    let (request, _) = parse::check(check, &|_| None)?;
    match request.client {
        None => Ok(request.query),
        Some(_) => {
            Err(malformed(field, "is verified by a server; here, give the facts of the token"))
        }
    }
}

/// A change of the audit log.
///
/// # Errors
/// A field is malformed, or this version does not know the kind of the change.
pub(crate) fn change(change: proto::Change) -> Result<Change, InvalidRequest> {
    let mut fields = FieldValidator::default();
    let kind = ChangeKind::of(&change.kind);
    if kind.is_none() {
        fields.wrong(
            "kind",
            format_args!(
                "of revision {} is `{}`, which this version does not know: use the server's \
                 version",
                change.revision, change.kind
            ),
        );
    }
    let time = fields.moment("time", Some(change.time.unwrap_or_default()));
    let some = |id: &String| !id.is_empty();
    let company = Some(change.company_id).filter(some).map(|id| fields.company(id));
    let credential = Some(change.credential_id).filter(some).map(|id| fields.credential(id));
    let user = fields.user("user_id", change.user_id);
    // A change of the catalog or of a ceiling has as many scopes as it needs.
    let added = fields.scopes("added_scopes", change.added_scopes, usize::MAX);
    let removed = fields.scopes("removed_scopes", change.removed_scopes, usize::MAX);
    let field = |field: proto::FieldChange| FieldChange {
        field: field.field,
        before: field.before,
        after: field.after,
    };
    let parsed = kind.zip(time).map(|(kind, time)| Change {
        revision: Revision(change.revision),
        time,
        // The CLI prints the author from the message.
        author: Author::default(),
        kind,
        company: company.flatten(),
        credential: credential.flatten(),
        user,
        added,
        removed,
        displaced: vec![],
        fields: change.fields.into_iter().map(field).collect(),
    });
    fields.finish(parsed)
}
