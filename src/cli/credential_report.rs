//! Credential report: reads one credential from the server and formats it for people.
//!
//! Not here: the commands; see `credential`, `credential_scopes` and `secret`.

use super::check::word;
use super::client::{Client, WriteArgs, require, unwrap_response};
use super::credential_args::CredentialArgs;
use super::lookup::Lookup;
use super::printer::{Cell, Report};
use super::time;
use crate::proto::{Credential, GetCredentialRequest, GrantState};

pub(super) fn facts(credential: &Credential) -> Report {
    Report::default()
        .fact("company", credential.company_id.clone())
        .fact("credential", credential.credential_id.clone())
        .fact("label", credential.label.clone())
        .fact("state", Cell::state(credential.enabled, credential.expired))
}

/// The report of a credential with its grants.
pub(super) fn report(credential: &Credential, lookup: &Lookup) -> Report {
    let grants = credential.grants.iter().map(|grant| {
        let state = word(grant.state().as_str_name(), "GRANT_STATE_").to_ascii_lowercase();
        [
            grant.scope.clone().into(),
            Cell::colored(grant.state() == GrantState::Active, state),
            lookup.since(grant.granted_at_revision).into(),
            Cell::end(grant.expires_at.as_ref(), grant.state() == GrantState::Expired),
            lookup.title(&grant.scope).into(),
        ]
    });
    facts(credential)
        .fact("expires", Cell::end(credential.expires_at.as_ref(), credential.expired))
        .fact("last seen", time::text(credential.last_seen_time.as_ref()))
        .fact("secrets", credential.secret_ids.join(" "))
        .fact("redirect uris", credential.redirect_uris.join(" "))
        .fact("tokens valid from", time::text(credential.tokens_valid_from.as_ref()))
        .fact("created", time::text(credential.create_time.as_ref()))
        .fact("updated", time::text(credential.update_time.as_ref()))
        .fact("etag", credential.etag.clone())
        .revision(credential.revision)
        .titled(&["SCOPE", "GRANT", "SINCE", "EXPIRES", "TITLE"], grants)
}

/// Reads a credential.
///
/// # Errors
/// There is no such credential, or the server returns an error.
pub(super) async fn read(
    client: &mut Client,
    target: &CredentialArgs,
) -> anyhow::Result<Credential> {
    read_at(client, target).await.0
}

/// Reads a credential, and the revision at which it was read; 0 with an error.
pub(super) async fn read_at(
    client: &mut Client,
    target: &CredentialArgs,
) -> (anyhow::Result<Credential>, u64) {
    let CredentialArgs { company, credential } = target.clone();
    let request = GetCredentialRequest { company_id: company, credential_id: credential };
    match unwrap_response(client.directory.get_credential(request).await) {
        Ok(read) => (require(&read.credential).cloned(), read.revision),
        Err(error) => (Err(error), 0),
    }
}

/// The report that the operator sees before something is removed from a credential.
pub(super) fn before_removal(credential: &Credential) -> Report {
    let seen = time::text(credential.last_seen_time.as_ref());
    let scopes = credential.effective_scopes.join(" ");
    facts(credential)
        .fact("expires", time::text(credential.expires_at.as_ref()))
        .fact("last seen", if seen.is_empty() { "never".to_owned() } else { seen })
        .fact("active scopes", if scopes.is_empty() { "none".to_owned() } else { scopes })
}

/// The report of a credential after a change, or as a dry run would leave it.
pub(super) async fn after_change(
    client: &Client,
    write: &WriteArgs,
    before: Option<String>,
    credential: &Credential,
    answered: u64,
) -> Report {
    let is_same = write.is_same(before.as_deref(), &credential.etag, credential.revision, answered);
    let is_preview = write.dry_run && !is_same;
    let lookup = lookup(client, credential, is_preview.then_some(answered)).await;
    let mut credential = credential.clone();
    if is_preview {
        credential.revision = 0;
        if credential.create_time == credential.update_time {
            // The credential does not exist yet.
            credential.create_time = None;
        }
        credential.update_time = None;
    }
    write.sheet(answered, is_same).then(report(&credential, &lookup))
}

pub(super) async fn lookup(client: &Client, credential: &Credential, last: Option<u64>) -> Lookup {
    let known = (credential.revision, credential.update_time.as_ref());
    let revisions = credential.grants.iter().map(|grant| grant.granted_at_revision);
    Lookup::of(client, &credential.company_id, known, last, revisions).await
}
