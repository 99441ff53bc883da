//! `scopegate consent`: what one user has allowed one credential to do in their name.

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
    /// Replace what a user allows a credential, as far as the user could do it.
    Put {
        /// The credential.
        #[command(flatten)]
        target: CredentialArgs,
        /// The user's id.
        user: String,
        /// The scopes asked for; none refuses everything.
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
            let (before, since) = read(&mut client, &target, &user).await?;
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
            if let Some(now) = before.as_ref().filter(|_| confirmation.is_asked(&write)) {
                let preview = PutConsentRequest { validate_only: true, ..request.clone() };
                let preview = unwrap_response(client.directory.put_consent(preview).await)?;
                let left = &require(&preview.consent)?.scopes;
                let goes = now.scopes.iter().filter(|scope| !left.contains(scope));
                let goes: Vec<_> = goes.map(String::as_str).collect();
                if !goes.is_empty() {
                    let (goes, user) = (goes.join(" "), &now.user_id);
                    let question = format!("Take {goes} from what {user} allows {target}?");
                    confirmation.ask(&client.printer, report(now), &question).await?;
                    rest_on(&mut request.etag, &now.etag);
                }
            }
            let etag = write.compared(before.as_ref().map(|before| &before.etag));
            let response = unwrap_response(client.directory.put_consent(request).await)?;
            let given = require(&response.consent)?;
            let is_same =
                write.is_same(etag.as_deref(), &given.etag, given.revision, response.revision);
            let refused: Vec<_> =
                scopes.into_iter().filter(|scope| !given.scopes.contains(scope)).collect();
            let mut shown = given.clone();
            if write.dry_run && !is_same {
                shown.revision = 0;
            }
            let report = write.sheet(response.revision, is_same).then(report(&shown));
            // The user cannot give what they may not do themselves.
            let report = report.fact("not given", Cell::colored(false, refused.join(" ")));
            let made = Made { company: &target.company, read: since, answered: response.revision };
            let undo = undo(&mut client, &write, made, before.as_ref(), Some(given)).await;
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
            let (before, since) = read(&mut client, &target, &user).await?;
            let CredentialArgs { company, credential } = target.clone();
            let mut request = on_terms!(
                write,
                DeleteConsentRequest {
                    company_id: company,
                    credential_id: credential,
                    user_id: user,
                }
            );
            if let Some(now) = before.as_ref().filter(|_| confirmation.is_asked(&write)) {
                let question = format!("Withdraw what {} allows {target}?", now.user_id);
                confirmation.ask(&client.printer, report(now), &question).await?;
                rest_on(&mut request.etag, &now.etag);
            }
            let response = unwrap_response(client.directory.delete_consent(request).await)?;
            let made = Made { company: &target.company, read: since, answered: response.revision };
            let undo = undo(&mut client, &write, made, before.as_ref(), None).await;
            let report = write
                .gone(response.revision, "delete", "deleted")
                .then(report(require(&response.consent)?));
            client.printer.print_undoable(&response, report, undo)?;
        }
    }
    Ok(true)
}

/// A consent as it is now, none if there is none, and the revision at which it was read.
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

/// How a consent becomes what it was. The user may have lost a role since it was given, so that it
/// cannot be given again as it was: that is tried first.
async fn undo(
    client: &mut Client,
    write: &WriteArgs,
    made: Made<'_>,
    before: Option<&Consent>,
    after: Option<&Consent>,
) -> Option<Undo> {
    let undo = Undo::of(write)?;
    // A consent that was created is not undone by a line: its names were just typed.
    let before = before?;
    let sorted = |consent: &Consent| {
        let mut scopes = consent.scopes.clone();
        scopes.sort();
        scopes
    };
    if after.is_some_and(|after| sorted(after) == sorted(before)) {
        return None;
    }
    if !undo::is_alone(client, made).await {
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
    let tried = client.directory.put_consent(preview).await.ok();
    let tried = tried.and_then(|tried| tried.into_inner().consent);
    if tried.is_none_or(|tried| sorted(&tried) != sorted(before)) {
        return Undo::none(write, "the user could not give the same consent now");
    }
    let ids = [&before.company_id, &before.credential_id, &before.user_id];
    let places = ids.into_iter().chain(&before.scopes).map(String::as_str);
    Some(undo.then(&["consent", "put"], places, &["--yes"]))
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
