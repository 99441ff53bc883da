//! Credential update: changes a credential's label, expiry or state, and prints how to undo it.
//!
//! Not here: its scopes; see `credential_scopes`.

use prost_types::Timestamp;

use super::client::{WriteArgs, on_terms, require, unwrap_response};
use super::company::mask;
use super::confirmation::{Confirmation, rest_on};
use super::credential_args::CredentialArgs;
use super::credential_report::{at_stake, read_at, shown};
use super::failure;
use super::time;
use super::undo::{self, Made, Undo};
use crate::proto::{Credential, UpdateCredentialRequest};

pub(super) async fn able(
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
            update_mask: mask("enabled"),
        }
    );
    update(request, write, confirmation).await
}

/// Updates. With an agreement it asks before a credential that works is disabled or ended.
pub(super) async fn update(
    mut request: UpdateCredentialRequest,
    write: &WriteArgs,
    confirmation: Option<Confirmation>,
) -> anyhow::Result<()> {
    let mut client = write.asking.open().await?;
    let (company, credential) = (request.company_id.clone(), request.credential_id.clone());
    let target = CredentialArgs { company, credential };
    let (before, since) = read_at(&mut client, &target).await;
    if let Some(confirmation) = confirmation.filter(|confirmation| confirmation.is_asked(write)) {
        let now = before.as_ref().map_err(failure::again)?;
        let names = |path: &str| {
            request.update_mask.iter().flat_map(|mask| &mask.paths).any(|name| name == path)
        };
        let is_over = |end: Option<&Timestamp>| end.is_some_and(time::is_past);
        let disables = names("enabled") && !request.enabled && now.enabled;
        let end = request.expires_at.as_ref().filter(|_| names("expires_at"));
        let is_sooner = |end: &&Timestamp| {
            now.expires_at.is_none_or(|then| (end.seconds, end.nanos) < (then.seconds, then.nanos))
        };
        let sooner = end.filter(|_| !is_over(now.expires_at.as_ref())).filter(is_sooner);
        if disables || sooner.is_some() {
            let question = match sooner {
                Some(end) if !is_over(Some(end)) && !disables => {
                    let (end, then) = (time::text(Some(end)), now.expires_at.as_ref());
                    let then = then.map_or("never".to_owned(), |then| time::text(Some(then)));
                    format!("Deny every check of {target} from {end} on? So far it ends {then}.")
                }
                _ => {
                    let until = if disables { "enabled" } else { "given a later end" };
                    format!("Deny every check of {target}, until it is {until}?")
                }
            };
            confirmation.ask(&client.printer, at_stake(now), &question).await?;
            rest_on(&mut request.etag, &now.etag);
        }
    }
    let mask = request.update_mask.clone().unwrap_or_default().paths;
    let response = unwrap_response(client.directory.update_credential(request).await)?;
    let after = require(&response.credential)?;
    let before = before.ok();
    let etag = write.compared(before.as_ref().map(|before| &before.etag));
    let report = shown(&client, write, etag, after, response.revision).await;
    let made = Made { company: &target.company, read: since, answered: response.revision };
    let undo = match before.and_then(|before| undo_of_update(write, &target, &mask, &before, after))
    {
        Some(_) if !undo::is_alone(&mut client, made).await => Undo::of_several(write),
        undo => undo,
    };
    client.printer.print_undoable(&response, report, undo)
}

/// How an update of these fields is undone, if it changed one.
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
        // It may be a sooner end than the one now.
        if before.expires_at.is_some() {
            flags.push("--yes".to_owned());
        }
    }
    if flags.is_empty() {
        return None;
    }
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    Some(Undo::of(write)?.then(&["credential", "update"], ids, &flags))
}
