//! `scopegate company`: tenants, and the ceiling of scopes that each has.
//!
//! Not here: taking scopes from a ceiling, which is a conversation; see [`super::company_restrict`].

use clap::Subcommand;
use prost_types::FieldMask;

use super::client::{
    Client, Limit, Pages, ServerArgs, WriteArgs, free_text, moved, on_terms, require, truncated,
    unwrap_response,
};
use super::company_impact;
use super::company_restrict::{RestrictArgs, restrict};
use super::confirmation::{Confirmation, rest_on, still_so};
use super::failure;
use super::lookup::Lookup;
use super::printer::{Cell, Report, count};
use super::time;
use super::undo::{self, Made, Undo};
use crate::proto::{
    AddCompanyScopesRequest, Company, CreateCompanyRequest, DeleteCompanyRequest,
    GetCompanyRequest, ListCompaniesRequest, ListCompaniesResponse, ListCredentialsRequest,
    RestoreGrantsRequest, Scopes, UpdateCompanyRequest,
};

/// Commands of companies.
#[derive(Debug, Subcommand)]
pub enum CompanyCommand {
    /// Create a company. Unless scopes are named it has the whole catalog.
    Create {
        /// The company's id.
        company: String,
        /// The scopes of its ceiling, with all that they imply.
        #[arg(value_name = "SCOPE", conflicts_with = "no_scopes")]
        scopes: Vec<String>,
        /// Give it no scope at all.
        #[arg(long)]
        no_scopes: bool,
        /// Its name, for people.
        #[arg(long, allow_hyphen_values = true, value_parser = free_text, default_value = "", hide_default_value = true, value_name = "NAME")]
        display_name: String,
        /// How.
        #[command(flatten)]
        terms: WriteArgs,
    },
    /// Show a company and its ceiling.
    Get {
        /// The company's id.
        company: String,
        /// Whom to ask.
        #[command(flatten)]
        asking: ServerArgs,
    },
    /// List companies, all or those with a credential that holds a scope.
    List {
        /// Only companies with credentials that hold this scope now; says how many do.
        #[arg(long, value_name = "SCOPE")]
        scope: Option<String>,
        /// How many.
        #[command(flatten)]
        limit: Limit,
        /// Whom to ask.
        #[command(flatten)]
        asking: ServerArgs,
    },
    /// Change a company's name.
    Update {
        /// The company's id.
        company: String,
        /// Its name, for people.
        #[arg(long, allow_hyphen_values = true, value_parser = free_text, value_name = "NAME")]
        display_name: String,
        /// How.
        #[command(flatten)]
        terms: WriteArgs,
    },
    /// Let checks of a company be decided by its scopes again.
    Enable {
        /// The company's id.
        company: String,
        /// How.
        #[command(flatten)]
        terms: WriteArgs,
    },
    /// Suspend a company: deny every check of it, at once, until it is enabled.
    Disable {
        /// The company's id.
        company: String,
        /// Whether to ask first.
        #[command(flatten)]
        agreement: Confirmation,
        /// How.
        #[command(flatten)]
        terms: WriteArgs,
    },
    /// Delete a company and all that is in it, for good.
    Delete {
        /// The company's id.
        company: String,
        /// Whether to ask first.
        #[command(flatten)]
        agreement: Confirmation,
        /// How.
        #[command(flatten)]
        terms: WriteArgs,
    },
    /// Add scopes to a company's ceiling. Its credentials receive nothing by it.
    AddScopes {
        /// The company's id.
        company: String,
        /// The scopes; what they imply is added too.
        #[arg(required = true, value_name = "SCOPE")]
        scopes: Vec<String>,
        /// How.
        #[command(flatten)]
        terms: WriteArgs,
    },
    /// Take scopes from a company, and so at once from all of its credentials.
    ///
    /// First it shows who would break. On a terminal it then asks. A script says --yes with
    /// --affected, the number of credentials that its author saw, or the --etag of a --dry-run;
    /// if anything has changed since, nothing is restricted.
    Restrict(RestrictArgs),
    /// Undo a restriction: wake the grants that it made dormant.
    RestoreGrants {
        /// The company's id.
        company: String,
        /// The scopes; they must be back in the ceiling (company add-scopes).
        #[arg(required = true, value_name = "SCOPE")]
        scopes: Vec<String>,
        /// The revision of the restriction, as `changes list` shows it.
        #[arg(long, value_name = "REVISION")]
        restricted_at: u64,
        /// How.
        #[command(flatten)]
        terms: WriteArgs,
    },
}

/// Does what the command says.
///
/// # Errors
/// Could not ask, or the server refused.
pub async fn company(command: CompanyCommand) -> anyhow::Result<bool> {
    match command {
        CompanyCommand::Create { company, scopes, no_scopes, display_name, terms } => {
            let named = no_scopes || !scopes.is_empty();
            let mut desk = terms.asking.open().await?;
            let request = on_terms!(
                terms,
                CreateCompanyRequest {
                    company_id: company,
                    display_name: display_name,
                    scopes: named.then_some(Scopes { names: scopes }),
                }
            );
            let said = unwrap_response(desk.directory.create_company(request).await)?;
            let sheet = shown(&desk, &terms, None, require(&said.company)?, said.revision).await;
            desk.printer.print(&said, sheet)?;
        }
        CompanyCommand::Get { company, asking } => {
            let mut desk = asking.open().await?;
            let request = GetCompanyRequest { company_id: company };
            let said = unwrap_response(desk.directory.get_company(request).await)?;
            let company = require(&said.company)?;
            let lookup = lookup(&desk, company, None).await;
            desk.printer.print(&said, sheet(company, &lookup))?;
        }
        CompanyCommand::List { scope: None, limit, asking } => {
            let mut desk = asking.open().await?;
            let all = list(&mut desk, limit).await?;
            let sheet = Report::default().rows(HEAD, all.companies.iter().map(row));
            desk.printer.print(&all, truncated(sheet, &all.next_page_token))?;
        }
        CompanyCommand::List { scope: Some(scope), limit, asking } => {
            holding(&mut asking.open().await?, &scope, limit).await?;
        }
        CompanyCommand::Update { company, display_name, terms } => {
            let request = on_terms!(
                terms,
                UpdateCompanyRequest {
                    company_id: company,
                    display_name: display_name,
                    enabled: false,
                    update_mask: mask("display_name"),
                }
            );
            update(request, &terms, None).await?;
        }
        CompanyCommand::Enable { company, terms } => able(company, true, &terms, None).await?,
        CompanyCommand::Disable { company, agreement, terms } => {
            able(company, false, &terms, Some(agreement)).await?;
        }
        CompanyCommand::Delete { company, agreement, terms } => {
            let mut desk = terms.asking.open().await?;
            let mut request = on_terms!(terms, DeleteCompanyRequest { company_id: company });
            if agreement.is_asked(&terms) {
                let now = company_impact::read(&mut desk, &request.company_id).await?;
                let (sheet, what, all) = company_impact::impact(&mut desk, &now).await?;
                let question = format!("Delete {what}, for good?");
                agreement.ask(&desk.printer, sheet, &question).await?;
                still_so(&all, &company_impact::impact(&mut desk, &now).await?.2)?;
                rest_on(&mut request.etag, &now.etag);
            }
            let said = unwrap_response(desk.directory.delete_company(request).await)?;
            let company = require(&said.company)?;
            let sheet = terms
                .gone(said.revision, "delete", "deleted")
                .then(facts(company))
                .revision(terms.made(said.revision));
            desk.printer.print(&said, sheet)?;
        }
        CompanyCommand::AddScopes { company, scopes, terms } => {
            let mut desk = terms.asking.open().await?;
            let before = etag(&desk, &terms, &company).await;
            let request =
                on_terms!(terms, AddCompanyScopesRequest { company_id: company, scopes: scopes });
            let said = unwrap_response(desk.authorization.add_company_scopes(request).await)?;
            let sheet = shown(&desk, &terms, before, require(&said.company)?, said.revision).await;
            let sheet = moved(sheet, &said.added_scopes, &[]);
            let undo = company_impact::undo_of_addition(&mut desk, &terms, &said).await;
            desk.printer.print_undoable(&said, sheet, undo)?;
        }
        CompanyCommand::Restrict(args) => return restrict(args).await,
        CompanyCommand::RestoreGrants { company, scopes, restricted_at, terms } => {
            let mut desk = terms.asking.open().await?;
            let request = on_terms!(
                terms,
                RestoreGrantsRequest {
                    company_id: company,
                    scopes: scopes,
                    restricted_at_revision: restricted_at,
                }
            );
            let said = unwrap_response(desk.authorization.restore_grants(request).await)?;
            let sheet = terms
                .sheet(said.revision, said.restored_credential_count == 0)
                .fact("restored credentials", said.restored_credential_count)
                .revision(terms.made(said.revision));
            desk.printer.print(&said, sheet)?;
        }
    }
    Ok(true)
}

const HEAD: &[&str; 5] = &["COMPANY", "NAME", "STATE", "SCOPES", "UPDATED"];

fn row(company: &Company) -> [Cell; 5] {
    [
        company.company_id.clone().into(),
        company.display_name.clone().into(),
        Cell::enabled(company.enabled),
        (company.scopes.len() as u64).into(),
        time::text(company.update_time.as_ref()).into(),
    ]
}

pub(super) fn facts(company: &Company) -> Report {
    Report::default()
        .fact("company", company.company_id.clone())
        .fact("name", company.display_name.clone())
        .fact("state", Cell::enabled(company.enabled))
}

/// A company as people read it.
fn sheet(company: &Company, lookup: &Lookup) -> Report {
    let scopes = company.scopes.iter();
    facts(company)
        .fact("created", time::text(company.create_time.as_ref()))
        .fact("updated", time::text(company.update_time.as_ref()))
        .fact("etag", company.etag.clone())
        .revision(company.revision)
        .titled(
            &["SCOPE", "SINCE", "TITLE"],
            scopes.map(|place| {
                let since = lookup.since(place.added_at_revision);
                [place.scope.clone().into(), since.into(), lookup.title(&place.scope).into()]
            }),
        )
}

/// The etag of a company before it is changed, if that is of use.
async fn etag(desk: &Client, terms: &WriteArgs, company: &str) -> Option<String> {
    if !terms.compares() {
        return None;
    }
    let request = GetCompanyRequest { company_id: company.to_owned() };
    let read = desk.directory.clone().get_company(request).await;
    Some(read.ok()?.into_inner().company?.etag)
}

/// A company as a change left it, or would leave it.
async fn shown(
    desk: &Client,
    terms: &WriteArgs,
    before: Option<String>,
    company: &Company,
    answered: u64,
) -> Report {
    let is_same = terms.is_same(before.as_deref(), &company.etag, company.revision, answered);
    let would = terms.dry_run && !is_same;
    let lookup = lookup(desk, company, would.then_some(answered)).await;
    let mut company = company.clone();
    if would {
        company.revision = 0;
        if company.create_time == company.update_time {
            // It is not there yet.
            company.create_time = None;
        }
        company.update_time = None;
    }
    terms.sheet(answered, is_same).then(sheet(&company, &lookup))
}

async fn lookup(desk: &Client, company: &Company, last: Option<u64>) -> Lookup {
    let known = (company.revision, company.update_time.as_ref());
    let revisions = company.scopes.iter().map(|place| place.added_at_revision);
    Lookup::of(desk, &company.company_id, known, last, revisions).await
}

pub(super) fn mask(path: &str) -> Option<FieldMask> {
    Some(FieldMask { paths: vec![path.to_owned()] })
}

async fn able(
    company: String,
    enabled: bool,
    terms: &WriteArgs,
    agreement: Option<Confirmation>,
) -> anyhow::Result<()> {
    let request = on_terms!(
        terms,
        UpdateCompanyRequest {
            company_id: company,
            display_name: String::new(),
            enabled: enabled,
            update_mask: mask("enabled"),
        }
    );
    update(request, terms, agreement).await
}

/// Updates. With an agreement it asks before checks are denied.
async fn update(
    mut request: UpdateCompanyRequest,
    terms: &WriteArgs,
    agreement: Option<Confirmation>,
) -> anyhow::Result<()> {
    let mut desk = terms.asking.open().await?;
    let (before, since) = company_impact::read_at(&mut desk, &request.company_id).await;
    if let Some(agreement) = agreement.filter(|agreement| agreement.is_asked(terms)) {
        let now = before.as_ref().map_err(failure::again)?;
        if now.enabled {
            let (sheet, what, all) = company_impact::impact(&mut desk, now).await?;
            let question = format!("Deny every check of {what}, until it is enabled?");
            agreement.ask(&desk.printer, sheet, &question).await?;
            still_so(&all, &company_impact::impact(&mut desk, now).await?.2)?;
            rest_on(&mut request.etag, &now.etag);
        }
    }
    let mask = request.update_mask.clone().unwrap_or_default().paths;
    let said = unwrap_response(desk.directory.update_company(request).await)?;
    let after = require(&said.company)?;
    let before = before.ok();
    let etag = terms.compared(before.as_ref().map(|before| &before.etag));
    let sheet = shown(&desk, terms, etag, after, said.revision).await;
    let made = Made { company: &after.company_id, read: since, answered: said.revision };
    let undo = match before.and_then(|before| company_impact::undo(terms, &mask, &before, after)) {
        Some(_) if !undo::is_alone(&mut desk, made).await => Undo::of_several(terms),
        undo => undo,
    };
    desk.printer.print_undoable(&said, sheet, undo)
}

async fn list(desk: &mut Client, limit: Limit) -> anyhow::Result<ListCompaniesResponse> {
    let (mut all, mut pages) = (ListCompaniesResponse::default(), Pages::of(limit));
    loop {
        let request =
            ListCompaniesRequest { page_size: pages.size(), page_token: pages.token.clone() };
        let page = unwrap_response(desk.directory.list_companies(request).await)?;
        let more = pages.turn(page.companies.len(), &page.next_page_token);
        all.companies.extend(page.companies);
        (all.next_page_token, all.revision) = (page.next_page_token, page.revision);
        if !more {
            return Ok(all);
        }
    }
}

/// Lists the companies with credentials that hold a scope, each with their number.
///
/// Every company is asked for, one after another: there is no index of holders across companies.
async fn holding(desk: &mut Client, scope: &str, limit: Limit) -> anyhow::Result<()> {
    let mut found = Vec::new();
    let mut wanted = Pages::of(limit);
    let (mut pages, mut credentials) = (Pages::of(Limit::default()), 0_u64);
    'all: loop {
        let request =
            ListCompaniesRequest { page_size: pages.size(), page_token: pages.token.clone() };
        let page = unwrap_response(desk.directory.list_companies(request).await)?;
        for company in page.companies {
            let count = holders(desk, &company.company_id, scope).await?;
            if count > 0 {
                credentials += count;
                found.push((company, count));
                if !wanted.turn(1, "more") {
                    break 'all;
                }
            }
        }
        if !pages.turn(0, &page.next_page_token) {
            break;
        }
    }
    let rows = found.iter().map(|(company, count)| {
        let name = company.display_name.clone();
        let state = Cell::enabled(company.enabled);
        [company.company_id.clone().into(), name.into(), state, (*count).into()]
    });
    let sheet =
        Report::default().rows(&["COMPANY", "NAME", "STATE", "CREDENTIALS"], rows).line(format!(
            "{} of {} hold {scope}",
            count(credentials, "credential", "credentials"),
            count(found.len() as u64, "company", "companies")
        ));
    // Of the contract's style, though no message of it: numbers of 64 bits are strings there.
    let companies: Vec<_> = found
        .iter()
        .map(|(company, count)| {
            serde_json::json!({
                "companyId": company.company_id,
                "displayName": company.display_name,
                "enabled": company.enabled,
                "credentialCount": count.to_string(),
            })
        })
        .collect();
    let answer = serde_json::json!({
        "scope": scope,
        "companies": companies,
        "credentialCount": credentials.to_string(),
    });
    desk.printer.print_value(&answer, sheet)
}

/// How many credentials of a company hold a scope.
async fn holders(desk: &mut Client, company: &str, scope: &str) -> anyhow::Result<u64> {
    let (mut count, mut pages) = (0, Pages::of(Limit::default()));
    loop {
        let request = ListCredentialsRequest {
            company_id: company.to_owned(),
            scope: scope.to_owned(),
            include_dormant: false,
            page_size: pages.size(),
            page_token: pages.token.clone(),
        };
        let page = match desk.directory.list_credentials(request).await {
            // Deleted since it was listed.
            Err(status) if status.code() == tonic::Code::NotFound => return Ok(count),
            page => unwrap_response(page)?,
        };
        count += page.credentials.len() as u64;
        if !pages.turn(page.credentials.len(), &page.next_page_token) {
            return Ok(count);
        }
    }
}
