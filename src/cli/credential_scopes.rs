//! Credential scopes: grants, revokes, replaces and resets the scopes of one credential.
//!
//! Not here: grants for all holders of a scope; see `scope_holders`. The undo of a change; see
//! `scope_undo`.

use prost_types::Timestamp;

use super::client::{Client, WriteArgs, moved, on_terms, require, unwrap_response};
use super::confirmation::{Confirmation, rest_on, still_so};
use super::credential_args::CredentialArgs;
use super::credential_report::{after_change, before_removal, read_at};
use super::failure;
use super::printer::Report;
use super::scope_undo::{self, ScopeChange};
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
    let (before, read_revision) = read_at(&mut client, target).await;
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
    let later_expiries = before.as_ref().zip(response.credential.as_ref());
    let later_expiries =
        later_expiries.map(|(before, after)| scope_undo::later_expiries(before, after));
    let etag = write.compared(before.as_ref().map(|before| &before.etag));
    let change =
        Made { company: &target.company, read: read_revision, answered: response.revision };
    let undo = undo(&mut client, write, target, change, before, &response.credential, moved).await;
    let report =
        after_change(&client, write, etag, require(&response.credential)?, response.revision).await;
    let (never, later) = later_expiries.unwrap_or_default();
    let report = with_moved(report, moved)
        .fact("no longer expires", never.join(" "))
        .fact("expires later", later.join(" "));
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
    let (before, read_revision) = read_at(&mut client, target).await;
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
        let current = before.as_ref().map_err(failure::again)?;
        let preview_request = RevokeScopesRequest { validate_only: true, ..request.clone() };
        let preview =
            unwrap_response(client.authorization.revoke_scopes(preview_request.clone()).await)?;
        let implying = without(&preview.removed_scopes, &scopes);
        // Scopes that were named need no confirmation.
        if !implying.is_empty() {
            let removal_report =
                before_removal(current).fact("removed", preview.removed_scopes.join(" "));
            let question = format!(
                "Also remove {} from {target}, which imply the named scopes?",
                implying.join(" ")
            );
            confirmation.ask(&client.printer, removal_report, &question).await?;
            rest_on(&mut request.etag, &current.etag);
            // The result also depends on the catalog, which the etag does not cover.
            let again = unwrap_response(client.authorization.revoke_scopes(preview_request).await)?;
            still_so(&preview.removed_scopes, &again.removed_scopes)?;
        }
    }
    let response = unwrap_response(client.authorization.revoke_scopes(request).await)?;
    let moved = ([].as_slice(), response.removed_scopes.as_slice());
    let before = before.ok();
    let etag = write.compared(before.as_ref().map(|before| &before.etag));
    let change =
        Made { company: &target.company, read: read_revision, answered: response.revision };
    let undo = undo(&mut client, write, target, change, before, &response.credential, moved).await;
    let report =
        after_change(&client, write, etag, require(&response.credential)?, response.revision).await;
    client.printer.print_undoable(&response, with_moved(report, moved), undo)
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
    let (before, read_revision) = read_at(&mut client, target).await;
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
        let current = before.as_ref().map_err(failure::again)?;
        let preview_request = ReplaceScopesRequest { validate_only: true, ..request.clone() };
        let preview =
            unwrap_response(client.authorization.replace_scopes(preview_request.clone()).await)?;
        if !preview.removed_scopes.is_empty() {
            let removal_report =
                moved(before_removal(current), &preview.added_scopes, &preview.removed_scopes);
            let removed = preview.removed_scopes.join(" ");
            let question = format!("Remove {removed} from {target}?");
            confirmation.ask(&client.printer, removal_report, &question).await?;
            rest_on(&mut request.etag, &current.etag);
            // The result also depends on the catalog and the ceiling of the company, which the etag
            // does not cover.
            let again =
                unwrap_response(client.authorization.replace_scopes(preview_request).await)?;
            let changed_now = (&again.added_scopes, &again.removed_scopes);
            still_so(&(&preview.added_scopes, &preview.removed_scopes), &changed_now)?;
        }
    }
    let response = unwrap_response(client.authorization.replace_scopes(request).await)?;
    let moved = (response.added_scopes.as_slice(), response.removed_scopes.as_slice());
    let before = before.ok();
    let etag = write.compared(before.as_ref().map(|before| &before.etag));
    let change =
        Made { company: &target.company, read: read_revision, answered: response.revision };
    let undo = undo(&mut client, write, target, change, before, &response.credential, moved).await;
    let report =
        after_change(&client, write, etag, require(&response.credential)?, response.revision).await;
    client.printer.print_undoable(&response, with_moved(report, moved), undo)
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
    let (before, read_revision) = read_at(&mut client, target).await;
    let CredentialArgs { company, credential } = target.clone();
    let mut request =
        on_terms!(write, ResetScopesRequest { company_id: company, credential_id: credential });
    if confirmation.is_asked(write) {
        let current = before.as_ref().map_err(failure::again)?;
        let preview_request = ResetScopesRequest { validate_only: true, ..request.clone() };
        let preview =
            unwrap_response(client.authorization.reset_scopes(preview_request.clone()).await)?;
        // A reset usually adds scopes, so any change needs a confirmation.
        if !preview.added_scopes.is_empty() || !preview.removed_scopes.is_empty() {
            let removal_report =
                moved(before_removal(current), &preview.added_scopes, &preview.removed_scopes);
            let (gains, loses) = (preview.added_scopes.len(), preview.removed_scopes.len());
            let question = format!(
                "Set {target} to all of the company's scopes? It gains {gains} and loses {loses}."
            );
            confirmation.ask(&client.printer, removal_report, &question).await?;
            rest_on(&mut request.etag, &current.etag);
            // The result also depends on the catalog and the ceiling of the company, which the etag
            // does not cover.
            let again = unwrap_response(client.authorization.reset_scopes(preview_request).await)?;
            let changed_now = (&again.added_scopes, &again.removed_scopes);
            still_so(&(&preview.added_scopes, &preview.removed_scopes), &changed_now)?;
        }
    }
    let response = unwrap_response(client.authorization.reset_scopes(request).await)?;
    let moved = (response.added_scopes.as_slice(), response.removed_scopes.as_slice());
    let before = before.ok();
    let etag = write.compared(before.as_ref().map(|before| &before.etag));
    let change =
        Made { company: &target.company, read: read_revision, answered: response.revision };
    let undo = undo(&mut client, write, target, change, before, &response.credential, moved).await;
    let report =
        after_change(&client, write, etag, require(&response.credential)?, response.revision).await;
    let summary = if write.dry_run { "would be set" } else { "is set" };
    let summary = format!("{target} {summary} to all of the company's scopes");
    let report = Report::default().line(summary).then(report);
    client.printer.print_undoable(&response, with_moved(report, moved), undo)
}

fn without(scopes: &[String], named: &[String]) -> Vec<String> {
    scopes.iter().filter(|scope| !named.contains(scope)).cloned().collect()
}

fn with_moved(report: Report, (added, removed): (&[String], &[String])) -> Report {
    moved(report, added, removed)
}

/// The undo command of a change of scopes. `None` for a dry run, or if the state before is not
/// known.
async fn undo(
    client: &mut Client,
    write: &WriteArgs,
    target: &CredentialArgs,
    change: Made<'_>,
    before: Option<Credential>,
    after: &Option<Credential>,
    (added, removed): (&[String], &[String]),
) -> Option<Undo> {
    if write.dry_run {
        return None;
    }
    let (before, after) = (&before?, after.as_ref()?);
    scope_undo::undo(
        client,
        write,
        target,
        ScopeChange { made: change, before, after, added, removed },
    )
    .await
}
