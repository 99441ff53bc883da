//! Credential scopes: grants, revokes, replaces and resets the scopes of one credential.
//!
//! Not here: grants for all holders of a scope; see `scope_holders`. The undo of a change; see
//! `scope_undo`.

use prost_types::Timestamp;

use super::client::{Client, WriteArgs, moved, on_terms, require, unwrap_response};
use super::confirmation::{Confirmation, rest_on, still_so};
use super::credential_args::CredentialArgs;
use super::credential_report::{at_stake, read_at, shown};
use super::failure;
use super::printer::Report;
use super::scope_undo::{self, Change};
use super::undo::{Made, Undo};
use crate::proto::{
    Credential, GrantScopesRequest, ReplaceScopesRequest, ResetScopesRequest, RevokeScopesRequest,
};

/// Grants scopes to a credential.
///
/// # Errors
/// The server cannot be reached or returns an error, or the operator does not confirm.
pub(super) async fn grant(
    target: &CredentialArgs,
    scopes: Vec<String>,
    expires_at: Option<Timestamp>,
    write: &WriteArgs,
) -> anyhow::Result<()> {
    let mut client = write.asking.open().await?;
    let (before, since) = read_at(&mut client, target).await;
    let before = before.ok();
    let CredentialArgs { company, credential } = target.clone();
    let request = on_terms!(
        write,
        GrantScopesRequest {
            company_id: company,
            credential_id: credential,
            scopes: scopes,
            expires_at: expires_at,
        }
    );
    let response = unwrap_response(client.authorization.grant_scopes(request).await)?;
    let moved = (response.added_scopes.as_slice(), [].as_slice());
    let ends = before.as_ref().zip(response.credential.as_ref());
    let ends = ends.map(|(before, after)| scope_undo::moved_ends(before, after));
    let etag = write.compared(before.as_ref().map(|before| &before.etag));
    let made = Made { company: &target.company, read: since, answered: response.revision };
    let undo = undo(&mut client, write, target, made, before, &response.credential, moved).await;
    let report =
        shown(&client, write, etag, require(&response.credential)?, response.revision).await;
    let (no_longer, later) = ends.unwrap_or_default();
    let report = moved_scopes(report, moved)
        .fact("no longer ends", no_longer.join(" "))
        .fact("ends later", later.join(" "));
    client.printer.print_undoable(&response, report, undo)
}

/// Revokes scopes of a credential. Asks before other scopes, which imply them, are revoked too.
///
/// # Errors
/// The server cannot be reached or returns an error, or the operator does not confirm.
pub(super) async fn revoke(
    target: &CredentialArgs,
    scopes: Vec<String>,
    confirmation: Confirmation,
    write: &WriteArgs,
) -> anyhow::Result<()> {
    let mut client = write.asking.open().await?;
    let (before, since) = read_at(&mut client, target).await;
    let CredentialArgs { company, credential } = target.clone();
    let mut request = on_terms!(
        write,
        RevokeScopesRequest {
            company_id: company,
            credential_id: credential,
            scopes: scopes.clone(),
        }
    );
    if confirmation.is_asked(write) {
        let now = before.as_ref().map_err(failure::again)?;
        let ask = RevokeScopesRequest { validate_only: true, ..request.clone() };
        let preview = unwrap_response(client.authorization.revoke_scopes(ask.clone()).await)?;
        let besides = without(&preview.removed_scopes, &scopes);
        // What is named goes by its name.
        if !besides.is_empty() {
            let goes = at_stake(now).fact("removed", preview.removed_scopes.join(" "));
            let question =
                format!("Take {} from {target}, too, which imply these?", besides.join(" "));
            confirmation.ask(&client.printer, goes, &question).await?;
            rest_on(&mut request.etag, &now.etag);
            // The catalog has a say, too.
            let again = unwrap_response(client.authorization.revoke_scopes(ask).await)?;
            still_so(&preview.removed_scopes, &again.removed_scopes)?;
        }
    }
    let response = unwrap_response(client.authorization.revoke_scopes(request).await)?;
    let moved = ([].as_slice(), response.removed_scopes.as_slice());
    let before = before.ok();
    let etag = write.compared(before.as_ref().map(|before| &before.etag));
    let made = Made { company: &target.company, read: since, answered: response.revision };
    let undo = undo(&mut client, write, target, made, before, &response.credential, moved).await;
    let report =
        shown(&client, write, etag, require(&response.credential)?, response.revision).await;
    client.printer.print_undoable(&response, moved_scopes(report, moved), undo)
}

/// Replaces the scopes of a credential. Asks before any are removed.
///
/// # Errors
/// The server cannot be reached or returns an error, or the operator does not confirm.
pub(super) async fn replace(
    target: &CredentialArgs,
    scopes: Vec<String>,
    allow_empty: bool,
    confirmation: Confirmation,
    write: &WriteArgs,
) -> anyhow::Result<()> {
    let mut client = write.asking.open().await?;
    let (before, since) = read_at(&mut client, target).await;
    let CredentialArgs { company, credential } = target.clone();
    let mut request = on_terms!(
        write,
        ReplaceScopesRequest {
            company_id: company,
            credential_id: credential,
            scopes: scopes,
            allow_empty: allow_empty,
        }
    );
    if confirmation.is_asked(write) {
        let now = before.as_ref().map_err(failure::again)?;
        let ask = ReplaceScopesRequest { validate_only: true, ..request.clone() };
        let preview = unwrap_response(client.authorization.replace_scopes(ask.clone()).await)?;
        if !preview.removed_scopes.is_empty() {
            let goes = moved(at_stake(now), &preview.added_scopes, &preview.removed_scopes);
            let removed = preview.removed_scopes.join(" ");
            let question = format!("Take {removed} from {target}?");
            confirmation.ask(&client.printer, goes, &question).await?;
            rest_on(&mut request.etag, &now.etag);
            // The company's ceiling and the catalog have a say, too.
            let again = unwrap_response(client.authorization.replace_scopes(ask).await)?;
            let moves = (&again.added_scopes, &again.removed_scopes);
            still_so(&(&preview.added_scopes, &preview.removed_scopes), &moves)?;
        }
    }
    let response = unwrap_response(client.authorization.replace_scopes(request).await)?;
    let moved = (response.added_scopes.as_slice(), response.removed_scopes.as_slice());
    let before = before.ok();
    let etag = write.compared(before.as_ref().map(|before| &before.etag));
    let made = Made { company: &target.company, read: since, answered: response.revision };
    let undo = undo(&mut client, write, target, made, before, &response.credential, moved).await;
    let report =
        shown(&client, write, etag, require(&response.credential)?, response.revision).await;
    client.printer.print_undoable(&response, moved_scopes(report, moved), undo)
}

/// Sets the scopes of a credential to those of its company. Asks before any are added or removed.
///
/// # Errors
/// The server cannot be reached or returns an error, or the operator does not confirm.
pub(super) async fn reset(
    target: &CredentialArgs,
    confirmation: Confirmation,
    write: &WriteArgs,
) -> anyhow::Result<()> {
    let mut client = write.asking.open().await?;
    let (before, since) = read_at(&mut client, target).await;
    let CredentialArgs { company, credential } = target.clone();
    let mut request =
        on_terms!(write, ResetScopesRequest { company_id: company, credential_id: credential });
    if confirmation.is_asked(write) {
        let now = before.as_ref().map_err(failure::again)?;
        let ask = ResetScopesRequest { validate_only: true, ..request.clone() };
        let preview = unwrap_response(client.authorization.reset_scopes(ask.clone()).await)?;
        // A reset mostly widens, so it is asked about as soon as it changes anything.
        if !preview.added_scopes.is_empty() || !preview.removed_scopes.is_empty() {
            let goes = moved(at_stake(now), &preview.added_scopes, &preview.removed_scopes);
            let (gains, loses) = (preview.added_scopes.len(), preview.removed_scopes.len());
            let question = format!(
                "Set {target} to all of the company's scopes? It gains {gains} and loses \
                 {loses}."
            );
            confirmation.ask(&client.printer, goes, &question).await?;
            rest_on(&mut request.etag, &now.etag);
            // The company's ceiling and the catalog have a say, too.
            let again = unwrap_response(client.authorization.reset_scopes(ask).await)?;
            let moves = (&again.added_scopes, &again.removed_scopes);
            still_so(&(&preview.added_scopes, &preview.removed_scopes), &moves)?;
        }
    }
    let response = unwrap_response(client.authorization.reset_scopes(request).await)?;
    let moved = (response.added_scopes.as_slice(), response.removed_scopes.as_slice());
    let before = before.ok();
    let etag = write.compared(before.as_ref().map(|before| &before.etag));
    let made = Made { company: &target.company, read: since, answered: response.revision };
    let undo = undo(&mut client, write, target, made, before, &response.credential, moved).await;
    let report =
        shown(&client, write, etag, require(&response.credential)?, response.revision).await;
    let set = if write.dry_run { "would be set" } else { "is set" };
    let set = format!("{target} {set} to all of the company's scopes");
    let report = Report::default().line(set).then(report);
    client.printer.print_undoable(&response, moved_scopes(report, moved), undo)
}

fn without(scopes: &[String], named: &[String]) -> Vec<String> {
    scopes.iter().filter(|scope| !named.contains(scope)).cloned().collect()
}

fn moved_scopes(report: Report, (added, removed): (&[String], &[String])) -> Report {
    moved(report, added, removed)
}

/// How a change of scopes is undone, if what was there before is known.
async fn undo(
    client: &mut Client,
    write: &WriteArgs,
    target: &CredentialArgs,
    made: Made<'_>,
    before: Option<Credential>,
    after: &Option<Credential>,
    (added, removed): (&[String], &[String]),
) -> Option<Undo> {
    if write.dry_run {
        return None;
    }
    let (before, after) = (&before?, after.as_ref()?);
    scope_undo::undo(client, write, target, Change { made, before, after, added, removed }).await
}
