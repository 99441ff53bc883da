//! `scopegate check`: asks the server for one decision.

use clap::Args;

use super::check_args::CheckQueryArgs;
use super::client::{ServerArgs, unwrap_response};
use super::failure;
use super::printer::{Cell, Report};
use super::suggestion;
use crate::proto::{CheckResponse, Decision, Reason};

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The check.
    #[command(flatten)]
    query: CheckQueryArgs,

    /// The server to call, and the output format.
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the check, and prints the decision. True if it is allowed.
///
/// # Errors
/// The server cannot be reached, or returns an error.
pub async fn check(args: CheckArgs) -> anyhow::Result<bool> {
    let mut client = args.server.open().await?;
    let request = args.query.request().await?;
    let scopes = request.scopes.clone();
    let has_list = request.scopes.iter().any(|scope| scope.contains(','));
    let response = unwrap_response(client.authorization.check(request).await)?;
    client.printer.print(&response, report(&response))?;
    if has_list && response.reason() == Reason::ScopeUnknown {
        failure::warn("separate scopes by spaces: a comma is a part of a scope's name");
    }
    if response.reason() == Reason::ScopeUnknown {
        suggestion::warn_of_scopes(&mut client, &scopes).await;
    }
    Ok(response.decision() == Decision::Allowed)
}

/// The report of a decision.
pub(super) fn report(answer: &CheckResponse) -> Report {
    let allowed = answer.decision() == Decision::Allowed;
    let decision = word(answer.decision().as_str_name(), "DECISION_");
    let report = Report::default().fact("decision", Cell::colored(allowed, decision));
    let report = if allowed {
        report.fact("reach", word(answer.reach().as_str_name(), "REACH_"))
    } else {
        report
            .fact("reason", word(answer.reason().as_str_name(), "REASON_"))
            .fact("missing", answer.missing_scopes.join(" "))
            .fact("http", format!("{} {}", answer.http_status, answer.error))
            .fact("message", answer.message.clone())
    };
    report
        .fact("company", answer.company_id.clone())
        .fact("credential", answer.credential_id.clone())
        .fact("user", answer.user_id.clone())
        .fact("revision", answer.revision)
}

/// The name of an enum value without its prefix.
pub(super) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}
