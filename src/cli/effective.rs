//! `scopegate effective`: everything that a check would allow.

use clap::Args;

use super::check::word;
use super::check_args::SubjectArgs;
use super::client::{ServerArgs, unwrap_response};
use super::lookup::Lookup;
use super::printer::Report;
use super::suggestion;

/// For whom to list it.
#[derive(Debug, Args)]
pub struct EffectiveArgs {
    /// On whose part is asked.
    #[command(flatten)]
    caller: SubjectArgs,

    /// Whom to ask, and how to write the answer.
    #[command(flatten)]
    asking: ServerArgs,
}

/// Asks, and prints the scopes.
///
/// # Errors
/// Could not ask.
pub async fn effective(args: EffectiveArgs) -> anyhow::Result<bool> {
    let mut desk = args.asking.open().await?;
    let request = args.caller.everything();
    let (company, credential) = (request.company_id.clone(), request.credential_id.clone());
    let said = unwrap_response(desk.authorization.list_effective_scopes(request).await)?;
    let lookup = Lookup::titles(&desk).await;
    let rows = said.scopes.iter().map(|effective| {
        let reach = word(effective.reach().as_str_name(), "REACH_");
        [effective.scope.clone().into(), reach.into(), lookup.title(&effective.scope).into()]
    });
    let rows: Vec<_> = rows.collect();
    let none = rows.is_empty();
    let mut sheet = Report::default().titled(&["SCOPE", "REACH", "TITLE"], rows);
    if none {
        sheet = sheet.line("nothing is allowed; `scopegate explain` with a scope says why");
    }
    desk.printer.print(&said, sheet)?;
    if none {
        suggestion::warn_of_credential(&mut desk, &company, &credential).await;
    }
    Ok(true)
}
