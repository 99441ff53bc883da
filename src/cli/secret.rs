//! `scopegate credential secret`: the commands of the secrets that authenticate a credential.

use anyhow::bail;
use clap::Subcommand;

use super::check::word;
use super::client::{ServerArgs, WriteArgs, on_terms, require, unwrap_response};
use super::confirmation::{Confirmation, rest_on};
use super::credential_args::CredentialArgs;
use super::credential_report::{after_change, before_removal, read};
use super::printer::{Cell, Report};
use super::prompt;
use crate::proto::{CreateSecretRequest, DeleteSecretRequest, VerifySecretRequest};

/// The maximum length of a secret in bytes.
const MAX_SECRET: u64 = 4 << 10;

/// Commands of secrets.
#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Create a secret, and show it once. A credential has at most two.
    Create {
        /// The credential.
        #[command(flatten)]
        target: CredentialArgs,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Delete a secret.
    Delete {
        /// The credential.
        #[command(flatten)]
        target: CredentialArgs,
        /// The id of the secret. It is not confidential.
        secret_id: String,
        /// Whether to ask for confirmation.
        #[command(flatten)]
        confirmation: Confirmation,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Verify a secret from standard input. The exit code is 0 if it is valid, and 2 if not. The
    /// ids are optional.
    Verify {
        /// The id of the company. By default the secret identifies it.
        company: Option<String>,
        /// The id of the credential. By default the secret identifies it.
        credential: Option<String>,
        /// The server to call.
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// Runs the command.
///
/// # Errors
/// The server cannot be reached, or returns an error.
pub(super) async fn secret(command: SecretCommand) -> anyhow::Result<bool> {
    match command {
        SecretCommand::Create { target: CredentialArgs { company, credential }, write } => {
            let mut client = write.asking.open().await?;
            let request = on_terms!(
                write,
                CreateSecretRequest { company_id: company, credential_id: credential }
            );
            let response = unwrap_response(client.directory.create_secret(request).await)?;
            let note = match (write.dry_run, response.secret.is_empty()) {
                (true, _) => format!(
                    "at revision {}, nothing was changed; the change would create a secret",
                    response.revision
                ),
                (false, true) => write.not_shown("secret"),
                (false, false) => "keep the secret now: it is shown once".to_owned(),
            };
            let report = Report::default()
                .fact("secret id", response.secret_id.clone())
                .fact("secret", response.secret.clone())
                .revision(write.made(response.revision))
                .line(note);
            client.printer.print(&response, report)?;
        }
        SecretCommand::Delete { target, secret_id, confirmation, write } => {
            let mut client = write.asking.open().await?;
            let CredentialArgs { company, credential } = target.clone();
            let mut request = on_terms!(
                write,
                DeleteSecretRequest {
                    company_id: company,
                    credential_id: credential,
                    secret_id: secret_id.clone(),
                }
            );
            if confirmation.is_asked(&write) {
                let current = read(&mut client, &target).await?;
                // For an unknown id, the request below returns the error.
                if current.secret_ids.contains(&secret_id) {
                    let removal_report =
                        before_removal(&current).fact("secrets", current.secret_ids.join(" "));
                    let last = if current.secret_ids.len() == 1 { ", its last one" } else { "" };
                    let question = format!("Delete the secret {secret_id} of {target}{last}?");
                    confirmation.ask(&client.printer, removal_report, &question).await?;
                    rest_on(&mut request.etag, &current.etag);
                }
            }
            let response = unwrap_response(client.directory.delete_secret(request).await)?;
            let report = after_change(
                &client,
                &write,
                None,
                require(&response.credential)?,
                response.revision,
            )
            .await;
            client.printer.print(&response, report)?;
        }
        SecretCommand::Verify { company, credential, server } => {
            // The secret is not a flag, because all users of the machine can see the flags of a
            // process.
            let secret = prompt::secret("The secret:", MAX_SECRET).await?;
            let secret = secret.trim_end_matches(['\r', '\n']);
            let secret = secret.trim_start_matches('\u{feff}').to_owned();
            if secret.is_empty() {
                bail!("no secret came on standard input: write it there on one line");
            }
            let mut client = server.open().await?;
            let request = VerifySecretRequest {
                company_id: company.unwrap_or_default(),
                credential_id: credential.unwrap_or_default(),
                secret,
            };
            let response = unwrap_response(client.directory.verify_secret(request).await)?;
            let verified = if response.verified { "yes" } else { "no" };
            let reason = word(response.reason().as_str_name(), "REASON_");
            let report = Report::default()
                .fact("verified", Cell::colored(response.verified, verified))
                .fact("company", response.company_id.clone())
                .fact("credential", response.credential_id.clone())
                .fact("secret id", response.secret_id.clone())
                .fact("reason", if response.verified { String::new() } else { reason });
            client.printer.print(&response, report)?;
            return Ok(response.verified);
        }
    }
    Ok(true)
}
