//! `scopegate consent`: what one user has allowed one credential to do in their name.

use clap::Subcommand;

use super::asking::{Asking, Desk, Terms, answer, on_terms, whole};
use super::printer::{Sheet, Words};
use super::which::Which;
use crate::proto::{Consent, DeleteConsentRequest, GetConsentRequest, PutConsentRequest};

/// Commands of consents.
#[derive(Debug, Subcommand)]
pub enum ConsentCommand {
    /// Replace what a user allows a credential, as far as the user could do it.
    Put {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// The user's id.
        user: String,
        /// The scopes asked for; none refuses everything.
        #[arg(value_name = "SCOPE")]
        scopes: Vec<String>,
        /// How.
        #[command(flatten)]
        terms: Terms,
    },
    /// Show a consent.
    Get {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// The user's id.
        user: String,
        /// Whom to ask.
        #[command(flatten)]
        asking: Asking,
    },
    /// Withdraw a consent.
    Delete {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// The user's id.
        user: String,
        /// How.
        #[command(flatten)]
        terms: Terms,
    },
}

/// Does what the command says.
///
/// # Errors
/// Could not ask, or the server refused.
pub async fn consent(command: ConsentCommand) -> anyhow::Result<bool> {
    match command {
        ConsentCommand::Put { which: Which { company, credential }, user, scopes, terms } => {
            let mut desk = terms.asking.open().await?;
            let request = on_terms!(
                terms,
                PutConsentRequest {
                    company_id: company,
                    credential_id: credential,
                    user_id: user,
                    scopes: scopes.clone(),
                }
            );
            let before = etag(&desk, &terms, &request).await;
            let said = answer(desk.directory.put_consent(request).await)?;
            let given = whole(&said.consent)?;
            let is_same =
                terms.is_same(before.as_deref(), &given.etag, given.revision, said.revision);
            let refused: Vec<_> =
                scopes.into_iter().filter(|scope| !given.scopes.contains(scope)).collect();
            let mut shown = given.clone();
            if terms.dry_run && !is_same {
                shown.revision = 0;
            }
            let sheet = terms.sheet(said.revision, is_same).then(sheet(&shown));
            // The user cannot give what they may not do themselves.
            let sheet = sheet.fact("not given", Words::news(false, refused.join(" ")));
            desk.printer.print(&said, sheet)?;
        }
        ConsentCommand::Get { which: Which { company, credential }, user, asking } => {
            let mut desk = asking.open().await?;
            let request =
                GetConsentRequest { company_id: company, credential_id: credential, user_id: user };
            let said = answer(desk.directory.get_consent(request).await)?;
            desk.printer.print(&said, sheet(whole(&said.consent)?))?;
        }
        ConsentCommand::Delete { which: Which { company, credential }, user, terms } => {
            let mut desk = terms.asking.open().await?;
            let request = on_terms!(
                terms,
                DeleteConsentRequest {
                    company_id: company,
                    credential_id: credential,
                    user_id: user,
                }
            );
            let said = answer(desk.directory.delete_consent(request).await)?;
            let sheet =
                terms.gone(said.revision, "delete", "deleted").then(sheet(whole(&said.consent)?));
            desk.printer.print(&said, sheet)?;
        }
    }
    Ok(true)
}

fn sheet(consent: &Consent) -> Sheet {
    let none = consent.scopes.is_empty();
    Sheet::default()
        .fact("company", consent.company_id.clone())
        .fact("credential", consent.credential_id.clone())
        .fact("user", consent.user_id.clone())
        .fact("scopes", if none { "none".to_owned() } else { consent.scopes.join(" ") })
        .fact("etag", consent.etag.clone())
        .revision(consent.revision)
}

/// The etag of a consent before it is put, if that is of use.
async fn etag(desk: &Desk, terms: &Terms, request: &PutConsentRequest) -> Option<String> {
    if !terms.compares() {
        return None;
    }
    let PutConsentRequest { company_id, credential_id, user_id, .. } = request.clone();
    let request = GetConsentRequest { company_id, credential_id, user_id };
    let read = desk.directory.clone().get_consent(request).await;
    Some(read.ok()?.into_inner().consent?.etag)
}
