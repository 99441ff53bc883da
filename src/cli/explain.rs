//! `scopegate explain`: shows the verdict of every layer for a check, now or in the past.

use anyhow::bail;
use clap::Args;

use super::check::{report, word};
use super::check_args::CheckQueryArgs;
use super::client::{ServerArgs, require, unwrap_response};
use super::explain_at::{self, AtArgs};
use super::lookup::Lookup;
use super::printer::Cell;
use super::suggestion;
use crate::proto::{ExplainCheckRequest, Reason};

/// Arguments of `explain`.
#[derive(Debug, Args)]
#[command(mut_arg("scopes", |scopes| scopes.required_unless_present_any(["path", "client_credential", "decision_log"])))]
pub struct ExplainArgs {
    /// The check.
    #[command(flatten)]
    query: CheckQueryArgs,

    /// The time in the past. The default is now.
    #[command(flatten)]
    at: AtArgs,

    /// The server to call, and the output format.
    #[command(flatten)]
    server: ServerArgs,
}

/// Explains the check, and prints the verdict of every layer.
///
/// # Errors
/// The server cannot be reached, or returns an error.
pub async fn explain(args: ExplainArgs) -> anyhow::Result<bool> {
    if args.at.is_given()? {
        if args.query.is_presented() {
            bail!(
                "--bearer-token and --authorization are for the decision of now: the logs have no tokens; for \
                 the past, name the company and the credential, and state the facts of the token with \
                 --token-scope and the other flags of a token"
            );
        }
        let check = args.query.request().await?;
        return explain_at::explain_at(args.at, check, &args.server).await;
    }
    let mut client = args.server.open().await?;
    let check = args.query.request().await?;
    let scopes = check.scopes.clone();
    let request = ExplainCheckRequest { check: Some(check) };
    let response = unwrap_response(client.authorization.explain_check(request).await)?;
    let rows = response.scopes.iter().flat_map(|scope| {
        scope.layers.iter().map(|verdict| {
            let reason = word(verdict.reason().as_str_name(), "REASON_");
            [
                scope.scope.clone().into(),
                word(verdict.layer().as_str_name(), "LAYER_").to_ascii_lowercase().into(),
                Cell::colored(verdict.passed, if verdict.passed { "passed" } else { &*reason }),
                verdict.detail.clone().into(),
            ]
        })
    });
    let rows: Vec<_> = rows.collect();
    let titles = Lookup::titles(&client).await;
    let titles = titles.table(response.scopes.iter().map(|scope| scope.scope.as_str()));
    let report = report(require(&response.decision)?).then(titles);
    let report = report.rows(&["SCOPE", "LAYER", "VERDICT", "DETAIL"], rows);
    client.printer.print(&response, report)?;
    if response.decision.is_some_and(|decision| decision.reason() == Reason::ScopeUnknown) {
        suggestion::warn_of_scopes(&mut client, &scopes).await;
    }
    Ok(true)
}
