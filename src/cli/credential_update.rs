//! Credential update: changes a credential's label, expiry, redirect URIs or state, and prints how to
//! undo it.
//!
//! Not here: its scopes; see `credential_scopes`.

use prost_types::Timestamp;

use super::client::{WriteArgs, on_terms, require, unwrap_response};
use super::company::mask;
use super::confirmation::{Confirmation, rest_on};
use super::credential_args::CredentialArgs;
use super::credential_report::{after_change, before_removal, read_at};
use super::failure;
use super::time;
use super::undo::{self, Made, Undo};
use crate::proto::{Credential, UpdateCredentialRequest};

pub(super) async fn set_enabled(
    company: String,
    credential: String,
    enabled: bool,
    write: &WriteArgs,
    confirmation: Option<Confirmation>,
) -> anyhow::Result<()> {
    let request = on_terms!(
        write,
        UpdateCredentialRequest {
            company_id: company,
            credential_id: credential,
            label: String::new(),
            enabled: enabled,
            expires_at: None,
            redirect_uris: vec![],
            update_mask: mask("enabled"),
        }
    );
    update(request, write, confirmation).await
}

/// Updates a credential. With `confirmation`, it asks before an active credential is disabled or
/// gets an earlier expiry, and before a credential loses redirect URIs.
pub(super) async fn update(
    mut request: UpdateCredentialRequest,
    write: &WriteArgs,
    confirmation: Option<Confirmation>,
) -> anyhow::Result<()> {
    let mut client = write.asking.open().await?;
    let (company, credential) = (request.company_id.clone(), request.credential_id.clone());
    let target = CredentialArgs { company, credential };
    let (before, read_revision) = read_at(&mut client, &target).await;
    if let Some(confirmation) = confirmation.filter(|confirmation| confirmation.is_asked(write)) {
        let current = before.as_ref().map_err(failure::again)?;
        let names = |path: &str| {
            request.update_mask.iter().flat_map(|mask| &mask.paths).any(|name| name == path)
        };
        let is_expired = |end: Option<&Timestamp>| end.is_some_and(time::is_past);
        let disables = names("enabled") && !request.enabled && current.enabled;
        let end = request.expires_at.as_ref().filter(|_| names("expires_at"));
        let is_earlier = |end: &&Timestamp| {
            current.expires_at.is_none_or(|old_expiry| {
                (end.seconds, end.nanos) < (old_expiry.seconds, old_expiry.nanos)
            })
        };
        let earlier = end.filter(|_| !is_expired(current.expires_at.as_ref())).filter(is_earlier);
        let removed = removed_uris(current, &request.redirect_uris);
        let removed = removed.filter(|_| names("redirect_uris")).collect::<Vec<_>>();
        let mut questions = Vec::new();
        if disables || earlier.is_some() {
            questions.push(match earlier {
                Some(end) if !is_expired(Some(end)) && !disables => {
                    let (end, old_expiry) = (time::text(Some(end)), current.expires_at.as_ref());
                    let old_expiry = old_expiry
                        .map_or("never".to_owned(), |old_expiry| time::text(Some(old_expiry)));
                    format!(
                        "Deny every check of {target} from {end} on? The current expiry is \
                         {old_expiry}."
                    )
                }
                _ => {
                    let until = if disables { "enabled" } else { "given a later expiry" };
                    format!("Deny every check of {target}, until it is {until}?")
                }
            });
        }
        if !removed.is_empty() {
            let uris = removed.join(" and ");
            questions.push(format!("Create no more authorization codes of {target} for {uris}?"));
        }
        if !questions.is_empty() {
            let question = questions.join(" ");
            confirmation.ask(&client.printer, before_removal(current), &question).await?;
            rest_on(&mut request.etag, &current.etag);
        }
    }
    let mask = request.update_mask.clone().unwrap_or_default().paths;
    let response = unwrap_response(client.directory.update_credential(request).await)?;
    let after = require(&response.credential)?;
    let before = before.ok();
    let etag = write.compared(before.as_ref().map(|before| &before.etag));
    let report = after_change(&client, write, etag, after, response.revision).await;
    let change =
        Made { company: &target.company, read: read_revision, answered: response.revision };
    let undo = match before.and_then(|before| undo_of_update(write, &target, &mask, &before, after))
    {
        Some(_) if !undo::is_alone(&mut client, change).await => Undo::of_several(write),
        undo => undo,
    };
    client.printer.print_undoable(&response, report, undo)
}

/// The redirect URIs of a credential that are not among the others.
fn removed_uris<'a>(
    credential: &'a Credential,
    others: &'a [String],
) -> impl Iterator<Item = &'a str> {
    let uris = credential.redirect_uris.iter();
    uris.filter(|uri| !others.contains(uri)).map(String::as_str)
}

/// The undo command of an update of the fields in `mask`. `None` if none of them changed.
fn undo_of_update(
    write: &WriteArgs,
    target: &CredentialArgs,
    mask: &[String],
    before: &Credential,
    after: &Credential,
) -> Option<Undo> {
    let ids = [target.company.as_str(), target.credential.as_str()];
    let names = |path: &str| mask.iter().any(|name| name == path);
    if names("enabled") && before.enabled != after.enabled {
        let undo = Undo::of(write)?;
        return Some(match before.enabled {
            true => undo.then(&["credential", "enable"], ids, &[]),
            false => undo.then(&["credential", "disable"], ids, &["--yes"]),
        });
    }
    let mut flags = Vec::new();
    if names("label") && before.label != after.label {
        flags.push(format!("--label={}", before.label));
    }
    if names("expires_at") && before.expires_at != after.expires_at {
        match &before.expires_at {
            Some(end) => flags.push(format!("--expires-at={}", time::to_the_nanosecond(end)?)),
            None => flags.push("--never-expires".to_owned()),
        }
    }
    if names("redirect_uris") && before.redirect_uris != after.redirect_uris {
        flags.extend(before.redirect_uris.iter().map(|uri| format!("--redirect-uri={uri}")));
        if before.redirect_uris.is_empty() {
            flags.push("--no-redirect-uris".to_owned());
        }
    }
    if flags.is_empty() {
        return None;
    }
    // The undo may give a sooner end than the one now, or remove redirect URIs.
    let ends_sooner = before.expires_at.is_some() && before.expires_at != after.expires_at;
    if ends_sooner || removed_uris(after, &before.redirect_uris).next().is_some() {
        flags.push("--yes".to_owned());
    }
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    Some(Undo::of(write)?.then(&["credential", "update"], ids, &flags))
}
