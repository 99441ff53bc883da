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
        /// Which.
        #[command(flatten)]
        which: CredentialArgs,
        /// The user's id.
        user: String,
        /// The scopes asked for; none refuses everything.
        #[arg(value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Whether to ask first.
        #[command(flatten)]
        agreement: Confirmation,
        /// How.
        #[command(flatten)]
        terms: WriteArgs,
    },
    /// Show a consent.
    Get {
        /// Which.
        #[command(flatten)]
        which: CredentialArgs,
        /// The user's id.
        user: String,
        /// Whom to ask.
        #[command(flatten)]
        asking: ServerArgs,
    },
    /// Withdraw a consent.
    Delete {
        /// Which.
        #[command(flatten)]
        which: CredentialArgs,
        /// The user's id.
        user: String,
        /// Whether to ask first.
        #[command(flatten)]
        agreement: Confirmation,
        /// How.
        #[command(flatten)]
        terms: WriteArgs,
    },
}

/// Does what the command says.
///
/// # Errors
/// Could not ask, or the server refused.
pub async fn consent(command: ConsentCommand) -> anyhow::Result<bool> {
    match command {
        ConsentCommand::Put { which, user, scopes, agreement, terms } => {
            let mut desk = terms.asking.open().await?;
            let (before, since) = read(&mut desk, &which, &user).await?;
            let CredentialArgs { company, credential } = which.clone();
            let mut request = on_terms!(
                terms,
                PutConsentRequest {
                    company_id: company,
                    credential_id: credential,
                    user_id: user,
                    scopes: scopes.clone(),
                }
            );
            if let Some(now) = before.as_ref().filter(|_| agreement.is_asked(&terms)) {
                let trial = PutConsentRequest { validate_only: true, ..request.clone() };
                let trial = unwrap_response(desk.directory.put_consent(trial).await)?;
                let left = &require(&trial.consent)?.scopes;
                let goes = now.scopes.iter().filter(|scope| !left.contains(scope));
                let goes: Vec<_> = goes.map(String::as_str).collect();
                if !goes.is_empty() {
                    let (goes, user) = (goes.join(" "), &now.user_id);
                    let question = format!("Take {goes} from what {user} allows {which}?");
                    agreement.ask(&desk.printer, sheet(now), &question).await?;
                    rest_on(&mut request.etag, &now.etag);
                }
            }
            let etag = terms.compared(before.as_ref().map(|before| &before.etag));
            let said = unwrap_response(desk.directory.put_consent(request).await)?;
            let given = require(&said.consent)?;
            let is_same =
                terms.is_same(etag.as_deref(), &given.etag, given.revision, said.revision);
            let refused: Vec<_> =
                scopes.into_iter().filter(|scope| !given.scopes.contains(scope)).collect();
            let mut shown = given.clone();
            if terms.dry_run && !is_same {
                shown.revision = 0;
            }
            let sheet = terms.sheet(said.revision, is_same).then(sheet(&shown));
            // The user cannot give what they may not do themselves.
            let sheet = sheet.fact("not given", Cell::colored(false, refused.join(" ")));
            let made = Made { company: &which.company, read: since, answered: said.revision };
            let undo = undo(&mut desk, &terms, made, before.as_ref(), Some(given)).await;
            desk.printer.print_undoable(&said, sheet, undo)?;
        }
        ConsentCommand::Get { which: CredentialArgs { company, credential }, user, asking } => {
            let mut desk = asking.open().await?;
            let request =
                GetConsentRequest { company_id: company, credential_id: credential, user_id: user };
            let said = unwrap_response(desk.directory.get_consent(request).await)?;
            desk.printer.print(&said, sheet(require(&said.consent)?))?;
        }
        ConsentCommand::Delete { which, user, agreement, terms } => {
            let mut desk = terms.asking.open().await?;
            let (before, since) = read(&mut desk, &which, &user).await?;
            let CredentialArgs { company, credential } = which.clone();
            let mut request = on_terms!(
                terms,
                DeleteConsentRequest {
                    company_id: company,
                    credential_id: credential,
                    user_id: user,
                }
            );
            if let Some(now) = before.as_ref().filter(|_| agreement.is_asked(&terms)) {
                let question = format!("Withdraw what {} allows {which}?", now.user_id);
                agreement.ask(&desk.printer, sheet(now), &question).await?;
                rest_on(&mut request.etag, &now.etag);
            }
            let said = unwrap_response(desk.directory.delete_consent(request).await)?;
            let made = Made { company: &which.company, read: since, answered: said.revision };
            let undo = undo(&mut desk, &terms, made, before.as_ref(), None).await;
            let sheet =
                terms.gone(said.revision, "delete", "deleted").then(sheet(require(&said.consent)?));
            desk.printer.print_undoable(&said, sheet, undo)?;
        }
    }
    Ok(true)
}

/// A consent as it is now, none if there is none, and the revision at which it was read.
async fn read(
    desk: &mut Client,
    which: &CredentialArgs,
    user: &str,
) -> anyhow::Result<(Option<Consent>, u64)> {
    let CredentialArgs { company, credential } = which.clone();
    let user = user.to_owned();
    let request =
        GetConsentRequest { company_id: company, credential_id: credential, user_id: user };
    match desk.directory.get_consent(request).await {
        Err(status) if status.code() == Code::NotFound => Ok((None, 0)),
        read => unwrap_response(read).map(|read| (read.consent, read.revision)),
    }
}

/// How a consent becomes what it was. The user may have lost a role since it was given, so that it
/// cannot be given again as it was: that is tried first.
async fn undo(
    desk: &mut Client,
    terms: &WriteArgs,
    made: Made<'_>,
    before: Option<&Consent>,
    after: Option<&Consent>,
) -> Option<Undo> {
    let undo = Undo::of(terms)?;
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
    if !undo::is_alone(desk, made).await {
        return Undo::of_several(terms);
    }
    let trial = PutConsentRequest {
        company_id: before.company_id.clone(),
        credential_id: before.credential_id.clone(),
        user_id: before.user_id.clone(),
        scopes: before.scopes.clone(),
        validate_only: true,
        ..PutConsentRequest::default()
    };
    let tried = desk.directory.put_consent(trial).await.ok();
    let tried = tried.and_then(|tried| tried.into_inner().consent);
    if tried.is_none_or(|tried| sorted(&tried) != sorted(before)) {
        return Undo::none(terms, "the user could not give the same consent now");
    }
    let ids = [&before.company_id, &before.credential_id, &before.user_id];
    let places = ids.into_iter().chain(&before.scopes).map(String::as_str);
    Some(undo.then(&["consent", "put"], places, &["--yes"]))
}

fn sheet(consent: &Consent) -> Report {
    let none = consent.scopes.is_empty();
    Report::default()
        .fact("company", consent.company_id.clone())
        .fact("credential", consent.credential_id.clone())
        .fact("user", consent.user_id.clone())
        .fact("scopes", if none { "none".to_owned() } else { consent.scopes.join(" ") })
        .fact("etag", consent.etag.clone())
        .revision(consent.revision)
}
