//! `scopegate check`: one decision.

use std::io::{self, Write};

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::json;

use super::{connect, said};
use crate::config::{CheckArgs, Output};
use crate::proto::authorization_service_client::AuthorizationServiceClient;
use crate::proto::{CheckRequest, CheckResponse, Decision, Reach, Reason};

/// Asks, and prints the answer. True if allowed.
///
/// # Errors
/// Could not ask.
pub async fn check(args: CheckArgs) -> anyhow::Result<bool> {
    let mut client = AuthorizationServiceClient::new(connect(&args.server).await?);
    let request = CheckRequest {
        company_id: args.company,
        credential_id: args.credential,
        scopes: args.scopes,
        audience: args.audience,
        ..CheckRequest::default()
    };
    let answer = client.check(request).await.map_err(|status| said(&status))?.into_inner();
    match args.output {
        Output::Table => writeln!(io::stdout(), "{}", table(&answer))?,
        Output::Json => writeln!(io::stdout(), "{:#}", json(&answer))?,
    }
    Ok(answer.decision() == Decision::Allowed)
}

fn table(answer: &CheckResponse) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            table.add_row([name, &value]);
        }
    };
    row("decision", word(answer.decision().as_str_name(), "DECISION_"));
    if answer.decision() == Decision::Allowed {
        row("reach", word(answer.reach().as_str_name(), "REACH_"));
    } else {
        row("reason", word(answer.reason().as_str_name(), "REASON_"));
        row("missing", answer.missing_scopes.join(" "));
        row("http", format!("{} {}", answer.http_status, answer.error));
        row("message", answer.message.clone());
    }
    row("revision", answer.revision.to_string());
    table
}

/// The names are those of the contract's JSON.
fn json(answer: &CheckResponse) -> serde_json::Value {
    json!({
        "decision": answer.decision().as_str_name(),
        "reason": Reason::as_str_name(&answer.reason()),
        "missingScopes": answer.missing_scopes,
        "reach": Reach::as_str_name(&answer.reach()),
        "httpStatus": answer.http_status,
        "error": answer.error,
        "message": answer.message,
        "revision": answer.revision.to_string(),
    })
}

fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}
