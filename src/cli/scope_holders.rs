//! `scopegate credential grant --scope-holders`: grants scopes to every credential that holds
//! another scope, for example after the catalog split a scope.
//!
//! Each grant is a separate change in the audit log. Credentials whose grant the server rejects
//! stay as they are, and are listed at the end. Companies and credentials are read page by page.

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

/// The maximum number of concurrent grants.
const MAX_IN_FLIGHT: usize = 8;
/// The maximum number of rejections that are listed. All are counted.
const MAX_LISTED: usize = 1_000;

/// A grant for all holders of a scope.
pub(super) struct HolderGrant {
    /// The scopes.
    pub(super) scopes: Vec<String>,
    /// When the grants expire.
    pub(super) expires_at: Option<Timestamp>,
    /// Whether to grant without a confirmation.
    pub(super) yes: bool,
}

/// A credential whose grant was rejected, or a company whose credentials cannot be listed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rejected {
    company_id: String,
    credential_id: String,
    message: String,
    /// The error of the server.
    #[serde(skip)]
    error: Option<CommandError>,
}

/// The counts of all grants so far.
#[derive(Default)]
struct HolderCounts {
    granted: u64,
    unchanged: u64,
    rejected: u64,
    rejections: Vec<Rejected>,
    /// The revision of the last page of credentials.
    revision: u64,
}

/// A page of credentials that hold the scope, or the error of a company.
enum HolderPage {
    Holders(Vec<Credential>),
    Rejected(Rejected),
}

/// Grants scopes to all holders of a scope. False if any grant was rejected.
///
/// # Errors
/// The server cannot be reached, the operator does not confirm, or the error would be the same for
/// every credential.
pub(super) async fn grant_to_holders(
    scope: &str,
    companies: Vec<String>,
    new: HolderGrant,
    write: &WriteArgs,
) -> anyhow::Result<bool> {
    if new.scopes.is_empty() {
        bail!("name the scopes to grant to the holders of {scope}");
    }
    if !write.etag.is_empty() || !write.request_id.is_empty() {
        bail!(
            "--etag and --request-id are for one change, but --scope-holders makes many: remove \
             them; a repeated run leaves finished grants unchanged"
        );
    }
    let mut client = write.asking.open().await?;
    let total = match new.yes || write.dry_run {
        true => None,
        false => match confirm_grants(&mut client, scope, &companies, &new).await? {
            Some(total) => Some(total),
            None => {
                let none = format!("no credential holds {scope}: nothing to grant");
                return finish(
                    &client,
                    write,
                    &HolderCounts::default(),
                    Report::default().line(none),
                );
            }
        },
    };
    let progress = progress(total);
    let mut counts = HolderCounts::default();
    let granted = grant(&mut client, scope, companies, &new, write, &mut counts, &progress).await;
    progress.finish_and_clear();
    if let Err(error) = granted {
        let text = format!(
            "{error:#}; before that, {} {} granted the scopes: run the command again, it leaves \
             finished grants unchanged",
            count(counts.granted, "credential", "credentials"),
            if write.dry_run { "would be" } else { "were" }
        );
        return Err(failure::reworded(&error, text));
    }
    finish(&client, write, &counts, Report::default())
}

/// Counts the holders and asks for confirmation. `None` if there are no holders.
async fn confirm_grants(
    client: &mut Client,
    scope: &str,
    companies: &[String],
    new: &HolderGrant,
) -> anyhow::Result<Option<u64>> {
    let mut holders = Holders::of(scope, companies.to_vec());
    let (mut credentials, mut company_count, mut last) = (0_u64, 0_u64, String::new());
    while let Some(step) = holders.next(client).await? {
        let page = match step {
            HolderPage::Holders(page) => page,
            HolderPage::Rejected(rejected) => {
                return Err(rejected.error.map_or_else(|| anyhow!(rejected.message), Into::into));
            }
        };
        for credential in &page {
            if credential.company_id != last {
                company_count += 1;
                last.clone_from(&credential.company_id);
            }
        }
        credentials += page.len() as u64;
    }
    if credentials == 0 {
        return Ok(None);
    }
    let holders_text = format!(
        "{} of {}",
        count(credentials, "credential", "credentials"),
        count(company_count, "company", "companies")
    );
    let scopes = new.scopes.join(" ");
    if !prompt::is_interactive() {
        bail!(
            "nothing was granted: {holders_text} would get {scopes}, and there is no terminal to \
             confirm it on: run it on a terminal, or add --yes to grant them"
        );
    }
    if !prompt::confirm(&format!("Grant {scopes} to {holders_text}, which hold {scope}?")).await? {
        bail!("nothing was granted");
    }
    Ok(Some(credentials))
}

async fn grant(
    client: &mut Client,
    scope: &str,
    companies: Vec<String>,
    new: &HolderGrant,
    write: &WriteArgs,
    counts: &mut HolderCounts,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let mut holders = Holders::of(scope, companies);
    let mut in_flight = JoinSet::new();
    let mut outcome = Ok(());
    'all: loop {
        let next = holders.next(client).await;
        counts.revision = counts.revision.max(holders.revision);
        let page = match next {
            Ok(Some(HolderPage::Holders(page))) => page,
            Ok(Some(HolderPage::Rejected(rejected))) => {
                counts.reject(rejected);
                continue;
            }
            Ok(None) => break,
            Err(error) => {
                outcome = Err(error);
                break;
            }
        };
        for credential in page {
            if in_flight.len() >= MAX_IN_FLIGHT
                && let Some(finished) = in_flight.join_next().await
            {
                progress.inc(1);
                outcome = counts.count_response(finished?);
                if outcome.is_err() {
                    break 'all;
                }
            }
            let request = GrantScopesRequest {
                company_id: credential.company_id.clone(),
                credential_id: credential.credential_id.clone(),
                scopes: new.scopes.clone(),
                expires_at: new.expires_at,
                etag: String::new(),
                validate_only: write.dry_run,
                request_id: String::new(),
                reason: write.reason.clone(),
                on_behalf_of: write.on_behalf_of.clone(),
            };
            let mut service = client.authorization.clone();
            in_flight.spawn(async move {
                let response = service.grant_scopes(request).await;
                (credential, response.map(|response| response.into_inner().credential))
            });
        }
    }
    // Wait for the grants in flight, and count them.
    while let Some(finished) = in_flight.join_next().await {
        progress.inc(1);
        let counted = counts.count_response(finished?);
        outcome = outcome.and(counted);
    }
    outcome
}

impl HolderCounts {
    /// Counts the response to a grant.
    ///
    /// # Errors
    /// The error would be the same for every other credential.
    fn count_response(
        &mut self,
        (before, response): (Credential, Result<Option<Credential>, Status>),
    ) -> anyhow::Result<()> {
        match response {
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
                    self.reject(Rejected {
                        company_id: before.company_id,
                        credential_id: before.credential_id,
                        message: status.message().to_owned(),
                        error: None,
                    });
                    Ok(())
                }
                _ => Err(server_error(&status)),
            },
        }
    }

    fn reject(&mut self, rejected: Rejected) {
        self.rejected += 1;
        if self.rejections.len() < MAX_LISTED {
            self.rejections.push(rejected);
        }
    }
}

/// Whether the scopes, states or expiries of grants differ. Their creation revisions are not
/// compared.
fn differ(before: &[Grant], after: &[Grant]) -> bool {
    let compared = |grant: &Grant| (grant.scope.clone(), grant.state, grant.expires_at);
    !before.iter().map(compared).eq(after.iter().map(compared))
}

fn finish(
    client: &Client,
    write: &WriteArgs,
    counts: &HolderCounts,
    report: Report,
) -> anyhow::Result<bool> {
    let rows = counts.rejections.iter().map(|rejected| {
        let company: Cell = rejected.company_id.clone().into();
        [company, rejected.credential_id.clone().into(), rejected.message.clone().into()]
    });
    let report = match write.dry_run {
        true => {
            let revision = counts.revision;
            report
                .line(format!("at revision {revision}, nothing was changed; the grants would be:"))
        }
        false => report,
    };
    let report = report
        .fact("granted", counts.granted)
        .fact("unchanged (already held)", counts.unchanged)
        .fact("rejected", Cell::colored(counts.rejected == 0, counts.rejected.to_string()))
        .rows(&["COMPANY", "CREDENTIAL", "REASON"], rows);
    let report = match counts.rejected.saturating_sub(counts.rejections.len() as u64) {
        0 => report,
        more => report.line(format!("and {more} more: fix these, and run the command again")),
    };
    // Not a message of the API, but in its JSON style: 64-bit numbers are strings.
    let value = serde_json::json!({
        "validateOnly": write.dry_run,
        "grantedCredentialCount": counts.granted.to_string(),
        "unchangedCredentialCount": counts.unchanged.to_string(),
        "refusedCredentialCount": counts.rejected.to_string(),
        "refused": counts.rejections,
    });
    client.printer.print_value(&value, report)?;
    Ok(counts.rejected == 0)
}

/// A progress bar on a terminal, with a total if it is known.
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

/// An iterator over all holders, page by page.
struct Holders {
    scope: String,
    /// The remaining companies of the page, in reverse order.
    companies: Vec<String>,
    /// Whether the companies were given by flags.
    are_given: bool,
    pages: Option<Pages>,
    /// The current company and its page state.
    current: Option<(String, Pages)>,
    /// The revision of the last page.
    revision: u64,
}

impl Holders {
    fn of(scope: &str, mut companies: Vec<String>) -> Self {
        companies.sort_by(|a, b| b.cmp(a));
        companies.dedup();
        let are_given = !companies.is_empty();
        let pages = (!are_given).then(|| Pages::of(Limit::default()));
        Self { scope: scope.to_owned(), companies, are_given, pages, current: None, revision: 0 }
    }

    /// The next page, or `None` at the end.
    async fn next(&mut self, client: &mut Client) -> anyhow::Result<Option<HolderPage>> {
        loop {
            if self.current.is_none() {
                self.current = self.companies.pop().map(|id| (id, Pages::of(Limit::default())));
            }
            let Some((company, pages)) = &mut self.current else {
                let Some(pages) = &mut self.pages else { return Ok(None) };
                let request = ListCompaniesRequest {
                    page_size: pages.size(),
                    page_token: pages.token.clone(),
                };
                let page = unwrap_response(client.directory.list_companies(request).await)?;
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
            let page = match client.directory.list_credentials(request).await {
                Ok(page) => page.into_inner(),
                Err(status) if status.code() == Code::NotFound => {
                    let company_id = company.clone();
                    self.current = None;
                    if !self.are_given {
                        // The company was deleted after it was listed.
                        continue;
                    }
                    let (credential_id, message) = (String::new(), status.message().to_owned());
                    let error = Some(CommandError::of(&status));
                    return Ok(Some(HolderPage::Rejected(Rejected {
                        company_id,
                        credential_id,
                        message,
                        error,
                    })));
                }
                Err(status) => return Err(server_error(&status)),
            };
            self.revision = page.revision;
            if !pages.turn(0, &page.next_page_token) {
                self.current = None;
            }
            return Ok(Some(HolderPage::Holders(page.credentials)));
        }
    }
}
