//! `scopegate company list`: all companies, or those with a credential that holds a scope.

use super::cell::Cell;
use super::client::{Client, Limit, MORE, Pages, truncated, unwrap_response};
use super::company_view::{HEAD, row};
use super::report::{Report, count};
use crate::proto::{ListCompaniesRequest, ListCompaniesResponse, ListCredentialsRequest};

/// Lists companies, or with a scope those that have a credential with that scope.
///
/// # Errors
/// The server returns an error.
pub(super) async fn list(
    client: &mut Client,
    scope: Option<&str>,
    limit: Limit,
) -> anyhow::Result<()> {
    if let Some(scope) = scope {
        return list_holders(client, scope, limit).await;
    }
    let all = list_all(client, limit).await?;
    let report = Report::default().rows(HEAD, all.companies.iter().map(row));
    client.printer.print(&all, truncated(report, &all.next_page_token))
}

async fn list_all(client: &mut Client, limit: Limit) -> anyhow::Result<ListCompaniesResponse> {
    let (mut all, mut pages) = (ListCompaniesResponse::default(), Pages::of(limit));
    loop {
        let request =
            ListCompaniesRequest { page_size: pages.size(), page_token: pages.token.clone() };
        let page = unwrap_response(client.directory.list_companies(request).await)?;
        let more = pages.turn(page.companies.len(), &page.next_page_token);
        all.companies.extend(page.companies);
        (all.next_page_token, all.revision) = (page.next_page_token, page.revision);
        if !more {
            return Ok(all);
        }
    }
}

/// Lists the companies with credentials that hold a scope, with the number of these credentials.
///
/// It reads every company in turn, because the server has no index of holders across companies.
async fn list_holders(client: &mut Client, scope: &str, limit: Limit) -> anyhow::Result<()> {
    let (mut found, mut credentials, mut is_truncated) = (Vec::new(), 0_u64, false);
    let mut pages = Pages::of(Limit::default());
    'all: loop {
        let request =
            ListCompaniesRequest { page_size: pages.size(), page_token: pages.token.clone() };
        let page = unwrap_response(client.directory.list_companies(request).await)?;
        for company in page.companies {
            let count = count_holders(client, &company.company_id, scope).await?;
            if count > 0 {
                // Only one more company with the scope shows that the list is not complete.
                is_truncated = found.len() as u64 == limit.max();
                if is_truncated {
                    break 'all;
                }
                credentials += count;
                found.push((company, count));
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
    let mut report =
        Report::default().rows(&["COMPANY", "NAME", "STATE", "CREDENTIALS"], rows).line(format!(
            "{} of {} hold {scope}",
            count(credentials, "credential", "credentials"),
            count(found.len() as u64, "company", "companies")
        ));
    if is_truncated {
        report = report.line(MORE);
    }
    // As in protobuf's JSON mapping, a 64-bit number is a string.
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
    let value = serde_json::json!({
        "scope": scope,
        "companies": companies,
        "credentialCount": credentials.to_string(),
        "truncated": is_truncated,
    });
    client.printer.print_value(&value, report)
}

/// The number of credentials of a company that hold a scope.
async fn count_holders(client: &mut Client, company: &str, scope: &str) -> anyhow::Result<u64> {
    let (mut count, mut pages) = (0, Pages::of(Limit::default()));
    loop {
        let request = ListCredentialsRequest {
            company_id: company.to_owned(),
            scope: scope.to_owned(),
            include_dormant: false,
            page_size: pages.size(),
            page_token: pages.token.clone(),
        };
        let page = match client.directory.list_credentials(request).await {
            // The company was deleted after it was listed.
            Err(status) if status.code() == tonic::Code::NotFound => return Ok(count),
            page => unwrap_response(page)?,
        };
        count += page.credentials.len() as u64;
        if !pages.turn(page.credentials.len(), &page.next_page_token) {
            return Ok(count);
        }
    }
}
