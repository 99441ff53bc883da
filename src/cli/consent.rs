//! `scopegate consent`: the scopes that a user lets a credential use on the user's behalf.

use clap::Subcommand;
use tonic::Code;

use super::client::{Client, ServerArgs, WriteArgs, on_terms, require, unwrap_response};
use super::confirmation::{Confirmation, rest_on};
use super::credential_args::CredentialArgs;
use super::printer::{Cell, Report};
use super::undo::{self, Made, Undo};
use crate::proto::{Consent, DeleteConsentRequest, GetConsentRequest, PutConsentRequest};

/// Commands of consents.
#[derive(Debug, Subcommand)]
pub enum ConsentCommand {
    /// Set the scopes that a user allows a credential. Scopes that the user's roles do not permit
    /// are left out.
    Put {
        /// The credential.
        #[command(flatten)]
        target: CredentialArgs,
        /// The user's id.
        user: String,
        /// The scopes. Without any, the consent allows nothing.
        #[arg(value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Whether to ask for confirmation.
        #[command(flatten)]
        confirmation: Confirmation,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Show a consent.
    Get {
        /// The credential.
        #[command(flatten)]
        target: CredentialArgs,
        /// The user's id.
        user: String,
        /// The server to call.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Withdraw a consent.
    Delete {
        /// The credential.
        #[command(flatten)]
        target: CredentialArgs,
        /// The user's id.
        user: String,
        /// Whether to ask for confirmation.
        #[command(flatten)]
        confirmation: Confirmation,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
}

/// Runs the command.
///
/// # Errors
/// The server cannot be reached, or returns an error.
pub async fn consent(command: ConsentCommand) -> anyhow::Result<bool> {
    match command {
        ConsentCommand::Put { target, user, scopes, confirmation, write } => {
            let mut client = write.asking.open().await?;
            let (before, read_revision) = read(&mut client, &target, &user).await?;
            let CredentialArgs { company, credential } = target.clone();
            let mut request = on_terms!(
                write,
                PutConsentRequest {
                    company_id: company,
                    credential_id: credential,
                    user_id: user,
                    scopes: scopes.clone(),
                }
            );
            if let Some(current) = before.as_ref().filter(|_| confirmation.is_asked(&write)) {
                let preview = PutConsentRequest { validate_only: true, ..request.clone() };
                let preview = unwrap_response(client.directory.put_consent(preview).await)?;
                let kept = &require(&preview.consent)?.scopes;
                let removed = current.scopes.iter().filter(|scope| !kept.contains(scope));
                let removed: Vec<_> = removed.map(String::as_str).collect();
                if !removed.is_empty() {
                    let (removed, user) = (removed.join(" "), &current.user_id);
                    let question =
                        format!("Remove {removed} from the consent of {user} for {target}?");
                    confirmation.ask(&client.printer, report(current), &question).await?;
                    rest_on(&mut request.etag, &current.etag);
                }
            }
            let etag = write.compared(before.as_ref().map(|before| &before.etag));
            let response = unwrap_response(client.directory.put_consent(request).await)?;
            let after = require(&response.consent)?;
            let is_same =
                write.is_same(etag.as_deref(), &after.etag, after.revision, response.revision);
            let left_out: Vec<_> =
                scopes.into_iter().filter(|scope| !after.scopes.contains(scope)).collect();
            let mut displayed = after.clone();
            if write.dry_run && !is_same {
                displayed.revision = 0;
            }
            let report = write.sheet(response.revision, is_same).then(report(&displayed));
            // A user cannot consent to scopes that the user's roles do not permit.
            let report = report.fact("not given", Cell::colored(false, left_out.join(" ")));
            let change =
                Made { company: &target.company, read: read_revision, answered: response.revision };
            let undo = undo(&mut client, &write, change, before.as_ref(), Some(after)).await;
            client.printer.print_undoable(&response, report, undo)?;
        }
        ConsentCommand::Get { target: CredentialArgs { company, credential }, user, server } => {
            let mut client = server.open().await?;
            let request =
                GetConsentRequest { company_id: company, credential_id: credential, user_id: user };
            let response = unwrap_response(client.directory.get_consent(request).await)?;
            client.printer.print(&response, report(require(&response.consent)?))?;
        }
        ConsentCommand::Delete { target, user, confirmation, write } => {
            let mut client = write.asking.open().await?;
            let (before, read_revision) = read(&mut client, &target, &user).await?;
            let CredentialArgs { company, credential } = target.clone();
            let mut request = on_terms!(
                write,
                DeleteConsentRequest {
                    company_id: company,
                    credential_id: credential,
                    user_id: user,
                }
            );
            if let Some(current) = before.as_ref().filter(|_| confirmation.is_asked(&write)) {
                let question = format!("Withdraw the consent of {} for {target}?", current.user_id);
                confirmation.ask(&client.printer, report(current), &question).await?;
                rest_on(&mut request.etag, &current.etag);
            }
            let response = unwrap_response(client.directory.delete_consent(request).await)?;
            let change =
                Made { company: &target.company, read: read_revision, answered: response.revision };
            let undo = undo(&mut client, &write, change, before.as_ref(), None).await;
            let report = write
                .gone(response.revision, "delete", "deleted")
                .then(report(require(&response.consent)?));
            client.printer.print_undoable(&response, report, undo)?;
        }
    }
    Ok(true)
}

/// The current consent, if there is one, and the revision at which it was read.
async fn read(
    client: &mut Client,
    target: &CredentialArgs,
    user: &str,
) -> anyhow::Result<(Option<Consent>, u64)> {
    let CredentialArgs { company, credential } = target.clone();
    let user = user.to_owned();
    let request =
        GetConsentRequest { company_id: company, credential_id: credential, user_id: user };
    match client.directory.get_consent(request).await {
        Err(status) if status.code() == Code::NotFound => Ok((None, 0)),
        read => unwrap_response(read).map(|read| (read.consent, read.revision)),
    }
}

/// The command that restores the previous consent. The user may have lost a role since, so that the
/// same consent is not possible any more: a dry run tests that first.
async fn undo(
    client: &mut Client,
    write: &WriteArgs,
    change: Made<'_>,
    before: Option<&Consent>,
    after: Option<&Consent>,
) -> Option<Undo> {
    let undo = Undo::of(write)?;
    // A new consent gets no undo command: the operator has just typed its ids.
    let before = before?;
    let sorted_scopes = |consent: &Consent| {
        let mut scopes = consent.scopes.clone();
        scopes.sort();
        scopes
    };
    if after.is_some_and(|after| sorted_scopes(after) == sorted_scopes(before)) {
        return None;
    }
    if !undo::is_alone(client, change).await {
        return Undo::of_several(write);
    }
    let preview = PutConsentRequest {
        company_id: before.company_id.clone(),
        credential_id: before.credential_id.clone(),
        user_id: before.user_id.clone(),
        scopes: before.scopes.clone(),
        validate_only: true,
        ..PutConsentRequest::default()
    };
    let preview = client.directory.put_consent(preview).await.ok();
    let preview = preview.and_then(|preview| preview.into_inner().consent);
    if preview.is_none_or(|preview| sorted_scopes(&preview) != sorted_scopes(before)) {
        return Undo::none(write, "the roles of the user do not permit the same consent now");
    }
    let ids = [&before.company_id, &before.credential_id, &before.user_id];
    let arguments = ids.into_iter().chain(&before.scopes).map(String::as_str);
    Some(undo.then(&["consent", "put"], arguments, &["--yes"]))
}

fn report(consent: &Consent) -> Report {
    let none = consent.scopes.is_empty();
    Report::default()
        .fact("company", consent.company_id.clone())
        .fact("credential", consent.credential_id.clone())
        .fact("user", consent.user_id.clone())
        .fact("scopes", if none { "none".to_owned() } else { consent.scopes.join(" ") })
        .fact("etag", consent.etag.clone())
        .revision(consent.revision)
}
