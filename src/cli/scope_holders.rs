//! `scopegate credential grant --scope-holders`: scopes for every credential that holds another,
//! after a scope of the catalog was split.
//!
//! Each credential is a change of its own, in the audit log like any other. What is refused stays as
//! it is and is listed at the end. Companies and credentials are read a page at a time.

use std::io::{self, IsTerminal};

use anyhow::{anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use prost_types::Timestamp;
use serde::Serialize;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::client::{Client, Limit, Pages, WriteArgs, unwrap_response};
use super::failure::{self, CommandError, server_error};
use super::printer::{Cell, Report, count};
use super::prompt;
use crate::proto::{
    Credential, Grant, GrantScopesRequest, ListCompaniesRequest, ListCredentialsRequest,
};

/// How many grants are made at once.
const IN_FLIGHT: usize = 8;
/// The most refusals that are listed; all are counted.
const LISTED: usize = 1_000;

/// What to grant.
pub(super) struct Given {
    /// The scopes.
    pub(super) scopes: Vec<String>,
    /// When the grants end.
    pub(super) expires_at: Option<Timestamp>,
    /// Whether to grant without a question.
    pub(super) yes: bool,
}

/// A credential that was not given the scopes, or a company whose credentials cannot be listed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Refused {
    company_id: String,
    credential_id: String,
    message: String,
    /// The server's answer.
    #[serde(skip)]
    why: Option<CommandError>,
}

/// What came of it.
#[derive(Default)]
struct Tally {
    granted: u64,
    unchanged: u64,
    refused: u64,
    listed: Vec<Refused>,
    /// The last revision that a page of credentials was read at.
    revision: u64,
}

/// A page of credentials that hold the scope, or why a company has none.
enum Step {
    Holders(Vec<Credential>),
    Refused(Refused),
}

/// Grants scopes to all holders of a scope. False if any grant was refused.
///
/// # Errors
/// No answer, the question was not answered with yes, or no credential can have such a grant.
pub(super) async fn to_holders(
    scope: &str,
    companies: Vec<String>,
    given: Given,
    terms: &WriteArgs,
) -> anyhow::Result<bool> {
    if given.scopes.is_empty() {
        bail!("name the scopes to grant to the holders of {scope}");
    }
    if !terms.etag.is_empty() || !terms.request_id.is_empty() {
        bail!(
            "--etag and --request-id are of one change, and --scope-holders makes many: leave them \
             out; run again, it changes nothing of what is done"
        );
    }
    let mut desk = terms.asking.open().await?;
    let total = match given.yes || terms.dry_run {
        true => None,
        false => match agreed(&mut desk, scope, &companies, &given).await? {
            Some(total) => Some(total),
            None => {
                let none = format!("no credential holds {scope}: nothing to grant");
                return finish(&desk, terms, &Tally::default(), Report::default().line(none));
            }
        },
    };
    let progress = progress(total);
    let mut tally = Tally::default();
    let granted = grant(&mut desk, scope, companies, &given, terms, &mut tally, &progress).await;
    progress.finish_and_clear();
    if let Err(error) = granted {
        let text = format!(
            "{error:#}; before that {} {} granted the scopes: run it again, it changes nothing of \
             what is done",
            count(tally.granted, "credential", "credentials"),
            if terms.dry_run { "would be" } else { "were" }
        );
        return Err(failure::reworded(&error, text));
    }
    finish(&desk, terms, &tally, Report::default())
}

/// How many credentials there are, once the operator has agreed. None if there are none.
async fn agreed(
    desk: &mut Client,
    scope: &str,
    companies: &[String],
    given: &Given,
) -> anyhow::Result<Option<u64>> {
    let mut holders = Holders::of(scope, companies.to_vec());
    let (mut credentials, mut of, mut last) = (0_u64, 0_u64, String::new());
    while let Some(step) = holders.next(desk).await? {
        let found = match step {
            Step::Holders(found) => found,
            Step::Refused(refused) => {
                return Err(refused.why.map_or_else(|| anyhow!(refused.message), Into::into));
            }
        };
        for credential in &found {
            if credential.company_id != last {
                of += 1;
                last.clone_from(&credential.company_id);
            }
        }
        credentials += found.len() as u64;
    }
    if credentials == 0 {
        return Ok(None);
    }
    let whom = format!(
        "{} of {}",
        count(credentials, "credential", "credentials"),
        count(of, "company", "companies")
    );
    let scopes = given.scopes.join(" ");
    if !prompt::is_interactive() {
        bail!(
            "nothing was granted: {whom} would be given {scopes}, and there is no terminal to ask \
             on; run it on a terminal, or add --yes if this is what you want"
        );
    }
    if !prompt::confirm(&format!("Grant {scopes} to {whom}, all that hold {scope}?")).await? {
        bail!("nothing was granted");
    }
    Ok(Some(credentials))
}

async fn grant(
    desk: &mut Client,
    scope: &str,
    companies: Vec<String>,
    given: &Given,
    terms: &WriteArgs,
    tally: &mut Tally,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let mut holders = Holders::of(scope, companies);
    let mut flight = JoinSet::new();
    let mut ended = Ok(());
    'all: loop {
        let next = holders.next(desk).await;
        tally.revision = tally.revision.max(holders.revision);
        let found = match next {
            Ok(Some(Step::Holders(found))) => found,
            Ok(Some(Step::Refused(refused))) => {
                tally.refuse(refused);
                continue;
            }
            Ok(None) => break,
            Err(error) => {
                ended = Err(error);
                break;
            }
        };
        for credential in found {
            if flight.len() >= IN_FLIGHT
                && let Some(done) = flight.join_next().await
            {
                progress.inc(1);
                ended = tally.take(done?);
                if ended.is_err() {
                    break 'all;
                }
            }
            let request = GrantScopesRequest {
                company_id: credential.company_id.clone(),
                credential_id: credential.credential_id.clone(),
                scopes: given.scopes.clone(),
                expires_at: given.expires_at,
                etag: String::new(),
                validate_only: terms.dry_run,
                request_id: String::new(),
                reason: terms.reason.clone(),
                on_behalf_of: terms.on_behalf_of.clone(),
            };
            let mut client = desk.authorization.clone();
            flight.spawn(async move {
                let said = client.grant_scopes(request).await;
                (credential, said.map(|said| said.into_inner().credential))
            });
        }
    }
    // What is on its way is waited for, and counted.
    while let Some(done) = flight.join_next().await {
        progress.inc(1);
        let taken = tally.take(done?);
        ended = ended.and(taken);
    }
    ended
}

impl Tally {
    /// Counts an answer.
    ///
    /// # Errors
    /// It is one that every other credential would get too.
    fn take(
        &mut self,
        (before, said): (Credential, Result<Option<Credential>, Status>),
    ) -> anyhow::Result<()> {
        match said {
            Ok(after) => {
                let is_other = after.is_some_and(|after| differ(&before.grants, &after.grants));
                match is_other {
                    true => self.granted += 1,
                    false => self.unchanged += 1,
                }
                Ok(())
            }
            Err(status) => match status.code() {
                Code::FailedPrecondition
                | Code::NotFound
                | Code::PermissionDenied
                | Code::Aborted
                | Code::ResourceExhausted => {
                    self.refuse(Refused {
                        company_id: before.company_id,
                        credential_id: before.credential_id,
                        message: status.message().to_owned(),
                        why: None,
                    });
                    Ok(())
                }
                _ => Err(server_error(&status)),
            },
        }
    }

    fn refuse(&mut self, refused: Refused) {
        self.refused += 1;
        if self.listed.len() < LISTED {
            self.listed.push(refused);
        }
    }
}

/// Whether grants count otherwise, or end at another time. When they were made says nothing of it.
fn differ(before: &[Grant], after: &[Grant]) -> bool {
    let what = |grant: &Grant| (grant.scope.clone(), grant.state, grant.expires_at);
    !before.iter().map(what).eq(after.iter().map(what))
}

fn finish(desk: &Client, terms: &WriteArgs, tally: &Tally, sheet: Report) -> anyhow::Result<bool> {
    let rows = tally.listed.iter().map(|refused| {
        let company: Cell = refused.company_id.clone().into();
        [company, refused.credential_id.clone().into(), refused.message.clone().into()]
    });
    let sheet = match terms.dry_run {
        true => {
            let revision = tally.revision;
            sheet.line(format!("at revision {revision}, nothing was changed; it would be:"))
        }
        false => sheet,
    };
    let sheet = sheet
        .fact("granted", tally.granted)
        .fact("unchanged, since they held it", tally.unchanged)
        .fact("refused", Cell::colored(tally.refused == 0, tally.refused.to_string()))
        .rows(&["COMPANY", "CREDENTIAL", "REFUSED, SINCE"], rows);
    let sheet = match tally.refused.saturating_sub(tally.listed.len() as u64) {
        0 => sheet,
        more => sheet.line(format!("and {more} more: put these right, and run it again")),
    };
    // Of the contract's style, though no message of it: numbers of 64 bits are strings there.
    let value = serde_json::json!({
        "validateOnly": terms.dry_run,
        "grantedCredentialCount": tally.granted.to_string(),
        "unchangedCredentialCount": tally.unchanged.to_string(),
        "refusedCredentialCount": tally.refused.to_string(),
        "refused": tally.listed,
    });
    desk.printer.print_value(&value, sheet)?;
    Ok(tally.refused == 0)
}

/// A bar on a terminal, of as many as there are if that is known.
fn progress(total: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{bar:40} {pos} of {len}, {eta} to go"),
        None => (ProgressBar::new_spinner(), "{spinner} {pos} credentials"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Where a walk over all holders is.
struct Holders {
    scope: String,
    /// The companies of the page, still to be walked, last first.
    companies: Vec<String>,
    /// Whether they were named, and are all.
    named: bool,
    pages: Option<Pages>,
    /// The company that is walked, and where in it.
    now: Option<(String, Pages)>,
    /// The revision that the last page was read at.
    revision: u64,
}

impl Holders {
    fn of(scope: &str, mut companies: Vec<String>) -> Self {
        companies.sort_by(|a, b| b.cmp(a));
        companies.dedup();
        let named = !companies.is_empty();
        let pages = (!named).then(|| Pages::of(Limit::default()));
        Self { scope: scope.to_owned(), companies, named, pages, now: None, revision: 0 }
    }

    /// The next page; none at the end.
    async fn next(&mut self, desk: &mut Client) -> anyhow::Result<Option<Step>> {
        loop {
            if self.now.is_none() {
                self.now = self.companies.pop().map(|id| (id, Pages::of(Limit::default())));
            }
            let Some((company, pages)) = &mut self.now else {
                let Some(pages) = &mut self.pages else { return Ok(None) };
                let request = ListCompaniesRequest {
                    page_size: pages.size(),
                    page_token: pages.token.clone(),
                };
                let page = unwrap_response(desk.directory.list_companies(request).await)?;
                self.revision = page.revision;
                let more = pages.turn(0, &page.next_page_token);
                let ids = page.companies.into_iter().map(|company| company.company_id);
                self.companies.extend(ids.rev());
                if !more {
                    self.pages = None;
                }
                continue;
            };
            let request = ListCredentialsRequest {
                company_id: company.clone(),
                scope: self.scope.clone(),
                include_dormant: false,
                page_size: pages.size(),
                page_token: pages.token.clone(),
            };
            let page = match desk.directory.list_credentials(request).await {
                Ok(page) => page.into_inner(),
                Err(status) if status.code() == Code::NotFound => {
                    let company_id = company.clone();
                    self.now = None;
                    if !self.named {
                        // Deleted since it was listed.
                        continue;
                    }
                    let (credential_id, message) = (String::new(), status.message().to_owned());
                    let why = Some(CommandError::of(&status));
                    return Ok(Some(Step::Refused(Refused {
                        company_id,
                        credential_id,
                        message,
                        why,
                    })));
                }
                Err(status) => return Err(server_error(&status)),
            };
            self.revision = page.revision;
            if !pages.turn(0, &page.next_page_token) {
                self.now = None;
            }
            return Ok(Some(Step::Holders(page.credentials)));
        }
    }
}
