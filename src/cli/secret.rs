//! `scopegate credential secret`: what a credential proves itself with.

use anyhow::bail;
use clap::Subcommand;

use super::check::word;
use super::client::{ServerArgs, WriteArgs, on_terms, require, unwrap_response};
use super::confirmation::{Confirmation, rest_on};
use super::credential::{at_stake, read, shown};
use super::credential_args::CredentialArgs;
use super::printer::{Cell, Report};
use super::prompt;
use crate::proto::{CreateSecretRequest, DeleteSecretRequest, VerifySecretRequest};

/// Commands of secrets.
#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Make a secret and show it, once. A credential has two at most.
    Create {
        /// Which.
        #[command(flatten)]
        which: CredentialArgs,
        /// How.
        #[command(flatten)]
        terms: WriteArgs,
    },
    /// End a secret.
    Delete {
        /// Which.
        #[command(flatten)]
        which: CredentialArgs,
        /// The secret's id, which is no secret.
        secret_id: String,
        /// Whether to ask first.
        #[command(flatten)]
        agreement: Confirmation,
        /// How.
        #[command(flatten)]
        terms: WriteArgs,
    },
    /// Say whether a secret, read from standard input, is a live one: exit code 0 if so, 2 if not.
    /// The secret alone is enough.
    Verify {
        /// The company's id; found by the secret if not given.
        company: Option<String>,
        /// The credential's id; found by the secret if not given.
        credential: Option<String>,
        /// Whom to ask.
        #[command(flatten)]
        asking: ServerArgs,
    },
}

/// Does what the command says.
///
/// # Errors
/// Could not ask, or the server refused.
pub(super) async fn secret(command: SecretCommand) -> anyhow::Result<bool> {
    match command {
        SecretCommand::Create { which: CredentialArgs { company, credential }, terms } => {
            let mut desk = terms.asking.open().await?;
            let request = on_terms!(
                terms,
                CreateSecretRequest { company_id: company, credential_id: credential }
            );
            let said = unwrap_response(desk.directory.create_secret(request).await)?;
            let told = match (terms.dry_run, said.secret.is_empty()) {
                (true, _) => format!(
                    "at revision {}, nothing was changed; the change would make a secret",
                    said.revision
                ),
                (false, true) => "it was shown when this request was first made".to_owned(),
                (false, false) => "keep the secret now: it is shown once".to_owned(),
            };
            let sheet = Report::default()
                .fact("secret id", said.secret_id.clone())
                .fact("secret", said.secret.clone())
                .revision(terms.made(said.revision))
                .line(told);
            desk.printer.print(&said, sheet)?;
        }
        SecretCommand::Delete { which, secret_id, agreement, terms } => {
            let mut desk = terms.asking.open().await?;
            let CredentialArgs { company, credential } = which.clone();
            let mut request = on_terms!(
                terms,
                DeleteSecretRequest {
                    company_id: company,
                    credential_id: credential,
                    secret_id: secret_id.clone(),
                }
            );
            if agreement.is_asked(&terms) {
                let now = read(&mut desk, &which).await?;
                // The server says of another id that there is none.
                if now.secret_ids.contains(&secret_id) {
                    let goes = at_stake(&now).fact("secrets", now.secret_ids.join(" "));
                    let last = if now.secret_ids.len() == 1 { ", its last one" } else { "" };
                    let question = format!("End the secret {secret_id} of {which}{last}?");
                    agreement.ask(&desk.printer, goes, &question).await?;
                    rest_on(&mut request.etag, &now.etag);
                }
            }
            let said = unwrap_response(desk.directory.delete_secret(request).await)?;
            let sheet = shown(&desk, &terms, None, require(&said.credential)?, said.revision).await;
            desk.printer.print(&said, sheet)?;
        }
        SecretCommand::Verify { company, credential, asking } => {
            // Not a flag: every user of the machine sees those.
            let secret = prompt::secret("The secret:").await?;
            let secret = secret.trim_end_matches(['\r', '\n']);
            let secret = secret.trim_start_matches('\u{feff}').to_owned();
            if secret.is_empty() {
                bail!("no secret came on standard input: put it there on a line");
            }
            let mut desk = asking.open().await?;
            let request = VerifySecretRequest {
                company_id: company.unwrap_or_default(),
                credential_id: credential.unwrap_or_default(),
                secret,
            };
            let said = unwrap_response(desk.directory.verify_secret(request).await)?;
            let verified = if said.verified { "yes" } else { "no" };
            let reason = word(said.reason().as_str_name(), "REASON_");
            let sheet = Report::default()
                .fact("verified", Cell::colored(said.verified, verified))
                .fact("company", said.company_id.clone())
                .fact("credential", said.credential_id.clone())
                .fact("secret id", said.secret_id.clone())
                .fact("reason", if said.verified { String::new() } else { reason });
            desk.printer.print(&said, sheet)?;
            return Ok(said.verified);
        }
    }
    Ok(true)
}
