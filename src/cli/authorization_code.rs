//! `scopegate authorization-code`: what the platform's own page does after a user has logged in and has
//! chosen scopes.

use clap::Subcommand;

use super::client::{WriteArgs, on_terms, unwrap_response};
use super::credential_args::CredentialArgs;
use super::printer::{Cell, Report};
use super::time;
use crate::proto::CreateAuthorizationCodeRequest;

/// Commands of authorization codes.
#[derive(Debug, Subcommand)]
pub enum AuthorizationCodeCommand {
    /// Put a user's consent, and create an authorization code for the application of the credential.
    ///
    /// The code is shown once. The application redeems it within a minute. Without scopes the user gives
    /// none: then there is no code, and the browser is sent back with the error access_denied.
    Create {
        /// The credential of the application.
        #[command(flatten)]
        target: CredentialArgs,
        /// The id of the user who has logged in.
        user: String,
        /// The scopes that the user gives. Scopes that the user's roles do not permit are left out.
        #[arg(value_name = "SCOPE")]
        scopes: Vec<String>,
        /// The audience of the access token. By default the only one of the catalog.
        #[arg(long, value_name = "NAME")]
        audience: Option<String>,
        /// Where the browser is sent: one of the credential's redirect URIs.
        #[arg(long, value_name = "URI")]
        redirect_uri: String,
        /// The `code_challenge` of the application's request, of the method S256.
        #[arg(long, value_name = "CHALLENGE", allow_hyphen_values = true)]
        code_challenge: String,
        /// The `state` of the application's request.
        #[arg(
            long,
            value_name = "TEXT",
            allow_hyphen_values = true,
            default_value = "",
            hide_default_value = true
        )]
        state: String,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
}

/// Runs the command.
///
/// # Errors
/// The server cannot be reached, or returns an error.
pub async fn authorization_code(command: AuthorizationCodeCommand) -> anyhow::Result<bool> {
    let AuthorizationCodeCommand::Create {
        target: CredentialArgs { company, credential },
        user,
        scopes,
        audience,
        redirect_uri,
        code_challenge,
        state,
        write,
    } = command;
    let mut client = write.asking.open().await?;
    let request = on_terms!(
        write,
        CreateAuthorizationCodeRequest {
            company_id: company,
            credential_id: credential,
            user_id: user,
            audience: audience.unwrap_or_default(),
            scopes: scopes.clone(),
            redirect_uri: redirect_uri,
            code_challenge: code_challenge,
            state: state,
        }
    );
    let response = unwrap_response(client.directory.create_authorization_code(request).await)?;
    let left_out: Vec<_> =
        scopes.into_iter().filter(|scope| !response.scopes.contains(scope)).collect();
    let note = match (write.dry_run, response.code.is_empty(), response.redirect_to.is_empty()) {
        (true, ..) => format!(
            "at revision {}, nothing was changed; the change would put the consent",
            response.revision
        ),
        (false, false, _) => "send the browser to the URI now: the code is shown once".to_owned(),
        (false, true, false) => {
            "the user gives no scope, so there is no code: send the browser to the URI".to_owned()
        }
        (false, true, true) => write.not_shown("code"),
    };
    let report = Report::default()
        .fact("scopes", response.scopes.join(" "))
        .fact("not given", Cell::colored(false, left_out.join(" ")))
        .fact("code", response.code.clone())
        .fact("expires", time::text(response.expires_at.as_ref()))
        .fact("redirect to", response.redirect_to.clone())
        .revision(write.made(response.revision))
        .line(note);
    client.printer.print(&response, report)?;
    Ok(true)
}
