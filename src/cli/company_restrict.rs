//! `scopegate company restrict`: the audit first, then the question, then the restriction with
//! the audit's etag, so that what is restricted is what was seen.

use anyhow::bail;
use clap::Args;

use super::client::{Client, WriteArgs, on_terms, require, unwrap_response};
use super::lookup::Lookup;
use super::printer::{self, Cell, Report};
use super::prompt;
use super::time;
use super::undo::Undo;
use crate::proto::{
    AddCompanyScopesRequest, RestrictCompanyScopesRequest, RestrictCompanyScopesResponse,
};

/// What to restrict.
#[derive(Debug, Args)]
pub struct RestrictArgs {
    /// The company's id.
    company: String,

    /// The scopes; those that imply them go too.
    #[arg(required = true, value_name = "SCOPE")]
    scopes: Vec<String>,

    /// Do not ask. Needs --affected.
    #[arg(long, requires = "affected")]
    yes: bool,

    /// How many credentials may lose a scope by it, exactly.
    #[arg(long, requires = "yes", value_name = "N")]
    affected: Option<u64>,

    /// How.
    #[command(flatten)]
    terms: WriteArgs,
}

/// Restricts, if whoever decides has seen what it does.
///
/// # Errors
/// Could not ask, or nobody agreed.
pub(super) async fn restrict(args: RestrictArgs) -> anyhow::Result<bool> {
    let RestrictArgs { company, scopes, yes: _, affected, terms } = args;
    let mut desk = terms.asking.open().await?;
    let request = on_terms!(
        terms,
        RestrictCompanyScopesRequest {
            company_id: company.clone(),
            scopes: scopes,
            acknowledge_impact: false,
        }
    );
    let audit = RestrictCompanyScopesRequest { validate_only: true, ..request.clone() };
    let audit = unwrap_response(desk.authorization.restrict_company_scopes(audit).await)?;
    if terms.dry_run {
        let mut line = format!("at revision {}, nothing was changed", audit.revision);
        let sheet = if audit.restricted_scopes.is_empty() {
            line.push_str("; nothing to change: the company has none of these scopes");
            Report::default().line(line)
        } else {
            let titles = Lookup::titles(&desk).await;
            Report::default().line(line).then(impact_report(&company, &audit, &titles))
        };
        desk.printer.print(&audit, sheet.fact("etag", audit.etag.clone()))?;
        return Ok(true);
    }
    let count = audit.affected_credential_count;
    if audit.restricted_scopes.is_empty() {
        desk.printer.print(
            &audit,
            Report::default().line("nothing to change: the company has none of these scopes"),
        )?;
        return Ok(true);
    }
    if let Some(expected) = affected {
        if expected != count {
            if desk.printer.is_for_people() {
                desk.printer.print_stderr(impact_report(
                    &company,
                    &audit,
                    &Lookup::titles(&desk).await,
                ))?;
            }
            bail!(
                "nothing was restricted, since not {expected} but {count} would lose a scope: look \
                 at who they are, and say --affected {count} if that is right"
            );
        }
    } else if terms.etag.is_empty() {
        // With the etag of an audit, what it saw is agreed to.
        let is_answered = prompt::is_interactive();
        // A program reads one line of JSON on standard error.
        if is_answered || desk.printer.is_for_people() {
            desk.printer.print_stderr(impact_report(
                &company,
                &audit,
                &Lookup::titles(&desk).await,
            ))?;
        }
        if !is_answered {
            bail!(
                "nothing was restricted, since nobody can be asked here: run it on a terminal, or \
                 say --yes --affected {count} if this is what you want"
            );
        }
        let question = format!("Take {} from {company}?", audit.restricted_scopes.join(" "));
        if !prompt::confirm(&question).await? {
            bail!("nothing was restricted");
        }
    }
    let etag = if terms.etag.is_empty() { audit.etag } else { terms.etag.clone() };
    let request = RestrictCompanyScopesRequest { etag, ..request };
    let done = unwrap_response(desk.authorization.restrict_company_scopes(request).await)?;
    let sheet = Report::default()
        .fact("company", require(&done.company)?.company_id.clone())
        .fact("restricted", done.restricted_scopes.join(" "))
        .fact("affected credentials", done.affected_credential_count)
        .fact("revision", done.revision);
    let undo = undo(&mut desk, &terms, &company, &done).await;
    desk.printer.print_undoable(&done, sheet, undo)?;
    Ok(true)
}

/// How a restriction that was wrong is undone: if the scopes come back alone, as a dry run says. By
/// the present catalog they may imply what the company did not have.
async fn undo(
    desk: &mut Client,
    terms: &WriteArgs,
    company: &str,
    done: &RestrictCompanyScopesResponse,
) -> Option<Undo> {
    if done.restricted_scopes.is_empty() {
        return None;
    }
    let trial = AddCompanyScopesRequest {
        company_id: company.to_owned(),
        scopes: done.restricted_scopes.clone(),
        validate_only: true,
        ..AddCompanyScopesRequest::default()
    };
    let tried = desk.authorization.add_company_scopes(trial).await.ok();
    let mut comes = tried.map(|tried| tried.into_inner().added_scopes).unwrap_or_default();
    let mut went = done.restricted_scopes.clone();
    comes.sort();
    went.sort();
    if comes != went {
        return Undo::none(terms, "the company would not get exactly these scopes back");
    }
    let revision = done.revision.to_string();
    let places =
        || std::iter::once(company).chain(done.restricted_scopes.iter().map(String::as_str));
    let undo = Undo::of(terms)?.then(&["company", "add-scopes"], places(), &[]);
    Some(undo.then(&["company", "restore-grants"], places(), &["--restricted-at", &revision]))
}

/// Who would break.
fn impact_report(company: &str, audit: &RestrictCompanyScopesResponse, titles: &Lookup) -> Report {
    let scopes = audit.restricted_scopes.join(" ");
    let count = audit.affected_credential_count;
    let credentials = printer::count(count, "credential", "credentials");
    let colon = if count > 0 { ":" } else { "" };
    let rows = audit.affected_credentials.iter().map(|affected| {
        let seen = time::text(affected.last_seen_time.as_ref());
        [
            affected.credential_id.clone().into(),
            affected.label.clone().into(),
            Cell::state(affected.enabled, affected.expired),
            if seen.is_empty() { "never".into() } else { seen.into() },
            affected.scopes.join(" ").into(),
        ]
    });
    let shown = audit.affected_credentials.len() as u64;
    let sheet = Report::default()
        .line(format!("{credentials} of {company} would lose {scopes}{colon}"))
        .then(titles.table(audit.restricted_scopes.iter().map(String::as_str)))
        .rows(&["CREDENTIAL", "LABEL", "STATE", "LAST SEEN", "LOSES"], rows);
    if count <= shown {
        return sheet;
    }
    let more = count - shown;
    sheet.line(format!(
        "and {more} more: scopegate credential list {company} --scope SCOPE lists all"
    ))
}
