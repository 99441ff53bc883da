//! `scopegate company restrict`: the impact preview, the confirmation, and the restriction.
//!
//! The restriction carries the etag of the preview, so that it does exactly what the preview showed.

use anyhow::bail;
use clap::Args;

use super::cell::Cell;
use super::client::{Client, WriteArgs, on_terms, require, unwrap_response};
use super::lookup::Lookup;
use super::prompt;
use super::report::{self, Report};
use super::time;
use super::undo::Undo;
use crate::proto::{
    AddCompanyScopesRequest, RestrictCompanyScopesRequest, RestrictCompanyScopesResponse,
};

/// The arguments of a restriction.
#[derive(Debug, Args)]
pub struct RestrictArgs {
    /// The company's id.
    company: String,

    /// The scopes. The scopes that imply them are removed, too.
    #[arg(required = true, value_name = "SCOPE")]
    scopes: Vec<String>,

    /// Do not ask for confirmation. Needs --affected.
    #[arg(long, requires = "affected")]
    yes: bool,

    /// The exact number of credentials that may lose a scope.
    #[arg(long, requires = "yes", value_name = "N")]
    affected: Option<u64>,

    /// Options of the change.
    #[command(flatten)]
    write: WriteArgs,
}

/// Restricts, after the operator has confirmed the impact.
///
/// # Errors
/// The server cannot be reached or returns an error, or the operator has not confirmed.
pub(super) async fn restrict(args: RestrictArgs) -> anyhow::Result<bool> {
    let RestrictArgs { company, scopes, yes: _, affected, write } = args;
    let mut client = write.asking.open().await?;
    let request = on_terms!(
        write,
        RestrictCompanyScopesRequest {
            company_id: company.clone(),
            scopes: scopes,
            acknowledge_impact: false,
        }
    );
    let preview = RestrictCompanyScopesRequest { validate_only: true, ..request.clone() };
    let preview = unwrap_response(client.authorization.restrict_company_scopes(preview).await)?;
    if write.dry_run {
        let mut line = format!("at revision {}, nothing was changed", preview.revision);
        let report = if preview.restricted_scopes.is_empty() {
            line.push_str("; nothing to change: the company has none of these scopes");
            Report::default().line(line)
        } else {
            let titles = Lookup::titles(&client).await;
            Report::default().line(line).then(impact_report(&company, &preview, &titles))
        };
        client.printer.print(&preview, report.fact("etag", preview.etag.clone()))?;
        return Ok(true);
    }
    let count = preview.affected_credential_count;
    if preview.restricted_scopes.is_empty() {
        client.printer.print(
            &preview,
            Report::default().line("nothing to change: the company has none of these scopes"),
        )?;
        return Ok(true);
    }
    if let Some(expected) = affected {
        if expected != count {
            if client.printer.is_for_people() {
                client.printer.print_stderr(impact_report(
                    &company,
                    &preview,
                    &Lookup::titles(&client).await,
                ))?;
            }
            bail!(
                "nothing was restricted, since not {expected} but {count} would lose a scope: look \
                 at who they are, and say --affected {count} if that is right"
            );
        }
    } else if write.etag.is_empty() {
        // An --etag is that of an earlier preview, which the operator has seen.
        let is_interactive = prompt::is_interactive();
        // With `--output json` standard error has only the line of the error.
        if is_interactive || client.printer.is_for_people() {
            client.printer.print_stderr(impact_report(
                &company,
                &preview,
                &Lookup::titles(&client).await,
            ))?;
        }
        if !is_interactive {
            bail!(
                "nothing was restricted, because there is no terminal to confirm it on: run it on a terminal, or \
                 say --yes --affected {count} if this is what you want"
            );
        }
        let question = format!("Take {} from {company}?", preview.restricted_scopes.join(" "));
        if !prompt::confirm(&question).await? {
            bail!("nothing was restricted");
        }
    }
    let etag = if write.etag.is_empty() { preview.etag } else { write.etag.clone() };
    let request = RestrictCompanyScopesRequest { etag, ..request };
    let response = unwrap_response(client.authorization.restrict_company_scopes(request).await)?;
    let report = Report::default()
        .fact("company", require(&response.company)?.company_id.clone())
        .fact("restricted", response.restricted_scopes.join(" "))
        .fact("affected credentials", response.affected_credential_count)
        .fact("revision", response.revision);
    let undo = undo(&mut client, &write, &company, &response).await;
    client.printer.print_undoable(&response, report, undo)?;
    Ok(true)
}

/// The undo of a restriction, if a dry run shows that adding the scopes back adds exactly these. By the
/// current catalog they may imply scopes that the company did not have.
async fn undo(
    client: &mut Client,
    write: &WriteArgs,
    company: &str,
    response: &RestrictCompanyScopesResponse,
) -> Option<Undo> {
    if response.restricted_scopes.is_empty() {
        return None;
    }
    let dry_run = AddCompanyScopesRequest {
        company_id: company.to_owned(),
        scopes: response.restricted_scopes.clone(),
        validate_only: true,
        ..AddCompanyScopesRequest::default()
    };
    let would = client.authorization.add_company_scopes(dry_run).await.ok();
    let mut added = would.map(|would| would.into_inner().added_scopes).unwrap_or_default();
    let mut removed = response.restricted_scopes.clone();
    added.sort();
    removed.sort();
    if added != removed {
        return Undo::none(write, "the company would not get exactly these scopes back");
    }
    let revision = response.revision.to_string();
    let arguments =
        || std::iter::once(company).chain(response.restricted_scopes.iter().map(String::as_str));
    let undo = Undo::of(write)?.then(&["company", "add-scopes"], arguments(), &[]);
    Some(undo.then(&["company", "restore-grants"], arguments(), &["--restricted-at", &revision]))
}

/// The credentials that would lose a scope.
fn impact_report(
    company: &str,
    preview: &RestrictCompanyScopesResponse,
    titles: &Lookup,
) -> Report {
    let scopes = preview.restricted_scopes.join(" ");
    let count = preview.affected_credential_count;
    let credentials = report::count(count, "credential", "credentials");
    let colon = if count > 0 { ":" } else { "" };
    let rows = preview.affected_credentials.iter().map(|affected| {
        let seen = time::text(affected.last_seen_time.as_ref());
        [
            affected.credential_id.clone().into(),
            affected.label.clone().into(),
            Cell::state(affected.enabled, affected.expired),
            if seen.is_empty() { "never".into() } else { seen.into() },
            affected.scopes.join(" ").into(),
        ]
    });
    let shown = preview.affected_credentials.len() as u64;
    let report = Report::default()
        .line(format!("{credentials} of {company} would lose {scopes}{colon}"))
        .then(titles.table(preview.restricted_scopes.iter().map(String::as_str)))
        .rows(&["CREDENTIAL", "LABEL", "STATE", "LAST SEEN", "LOSES"], rows);
    if count <= shown {
        return report;
    }
    let more = count - shown;
    report.line(format!(
        "and {more} more: scopegate credential list {company} --scope SCOPE lists all"
    ))
}
