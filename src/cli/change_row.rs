//! Change row: the parts of an audit log entry as text, for lines and table rows.
//!
//! Not here: the commands that list and stream changes; see `history` and `watch`.

use super::printer;
use super::time;
use crate::proto::Change;

/// One change as a line of text.
pub(super) fn line(change: &Change) -> String {
    let time = time::text(change.time.as_ref());
    let reason =
        if change.reason.is_empty() { String::new() } else { format!("({})", change.reason) };
    let parts = [
        change.revision.to_string(),
        time,
        actor(change),
        change.kind.clone(),
        resource(change),
        if printer::is_on_a_terminal() { summary(change) } else { full(change) },
        reason,
    ];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(" ")
}

/// The caller that made the change, and the person on whose behalf.
pub(super) fn actor(change: &Change) -> String {
    match change.on_behalf_of.as_str() {
        "" => change.actor.clone(),
        person => format!("{} for {person}", change.actor),
    }
}

/// The ids of the changed resource, joined by slashes, the company first.
pub(super) fn resource(change: &Change) -> String {
    let ids = [&change.company_id, &change.credential_id, &change.user_id];
    let ids: Vec<_> = ids.into_iter().filter(|id| !id.is_empty()).map(String::as_str).collect();
    ids.join("/")
}

/// The maximum number of scopes and fields in a summary. Programs get all of them.
const MAX_ITEMS: usize = 8;
/// The maximum length of a field's value in a summary, in characters.
const MAX_VALUE_CHARS: usize = 40;

/// The changed scopes and fields, cut to the length of a table cell.
pub(super) fn summary(change: &Change) -> String {
    describe(change, MAX_ITEMS, MAX_VALUE_CHARS)
}

/// All changed scopes and fields.
pub(super) fn full(change: &Change) -> String {
    describe(change, usize::MAX, usize::MAX)
}

/// A list of names for people, cut after `max` names.
fn names(value: &str, max: usize) -> String {
    let Ok(names) = serde_json::from_str::<Vec<String>>(value) else { return value.to_owned() };
    let shown = names.get(..max).unwrap_or(&names).join(" ");
    match names.len().saturating_sub(max) {
        _ if names.is_empty() => "none".to_owned(),
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn describe(change: &Change, max: usize, max_chars: usize) -> String {
    let added = change.added_scopes.iter().map(|scope| format!("+{scope}"));
    let removed = change.removed_scopes.iter().map(|scope| format!("-{scope}"));
    let fields = change.fields.iter().map(|field| {
        let shown = |value: &str| match value.char_indices().nth(max_chars) {
            _ if value.is_empty() => "none".to_owned(),
            _ if max < usize::MAX && value.starts_with('[') => names(value, max),
            Some((end, _)) => format!("{}…", value.get(..end).unwrap_or_default()),
            None => value.to_owned(),
        };
        match (shown(&field.before), shown(&field.after)) {
            // A new resource, or one without this value.
            (before, after) if before == "none" && after == "none" => {
                format!("{}: none", field.field)
            }
            (before, after) => format!("{}: {before} -> {after}", field.field),
        }
    });
    let mut parts: Vec<_> = added.chain(removed).chain(fields).collect();
    if parts.len() > max {
        let more = parts.len() - max;
        parts.truncate(max);
        parts.push(format!("and {more} more"));
    }
    parts.join(" ")
}
