//! `scopegate effective`: lists all scopes that a check would allow.

use clap::Args;

use super::check::word;
use super::check_args::SubjectArgs;
use super::client::{ServerArgs, unwrap_response};
use super::lookup::Lookup;
use super::printer::Report;
use super::suggestion;

/// Arguments of `effective`.
#[derive(Debug, Args)]
pub struct EffectiveArgs {
    /// The subject of the checks.
    #[command(flatten)]
    subject: SubjectArgs,

    /// The server to call, and the output format.
    #[command(flatten)]
    server: ServerArgs,
}

/// Lists the scopes, and prints them.
///
/// # Errors
/// The server cannot be reached, or returns an error.
pub async fn effective(args: EffectiveArgs) -> anyhow::Result<bool> {
    let mut client = args.server.open().await?;
    let request = args.subject.effective_scopes_request().await?;
    let named = (request.company_id.clone(), request.credential_id.clone());
    let is_stated = request.bearer_token.is_none() && request.authorization.is_none();
    let response = unwrap_response(client.authorization.list_effective_scopes(request).await)?;
    let lookup = Lookup::titles(&client).await;
    let rows = response.scopes.iter().map(|effective| {
        let reach = word(effective.reach().as_str_name(), "REACH_");
        [effective.scope.clone().into(), reach.into(), lookup.title(&effective.scope).into()]
    });
    let rows: Vec<_> = rows.collect();
    let is_empty = rows.is_empty();
    let mut report = Report::default().titled(&["SCOPE", "REACH", "TITLE"], rows);
    if is_empty {
        report =
            report.line("no scope is allowed: run `scopegate explain` with a scope to see why");
    }
    client.printer.print(&response, report)?;
    if is_empty && is_stated {
        let (company, credential) = named;
        suggestion::warn_of_credential(&mut client, &company, &credential).await;
    }
    Ok(true)
}
