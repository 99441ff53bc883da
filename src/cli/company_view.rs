//! Company view: how a company is shown, before and after a change.

use super::cell::Cell;
use super::client::{Client, WriteArgs};
use super::lookup::Lookup;
use super::report::Report;
use super::time;
use crate::proto::{Company, GetCompanyRequest};

/// The columns of a list of companies.
pub(super) const HEAD: &[&str; 5] = &["COMPANY", "NAME", "STATE", "SCOPES", "UPDATED"];

/// The row of a company in a list.
pub(super) fn row(company: &Company) -> [Cell; 5] {
    [
        company.company_id.clone().into(),
        company.display_name.clone().into(),
        Cell::enabled(company.enabled),
        (company.scopes.len() as u64).into(),
        time::text(company.update_time.as_ref()).into(),
    ]
}

/// The identity and state of a company.
pub(super) fn facts(company: &Company) -> Report {
    Report::default()
        .fact("company", company.company_id.clone())
        .fact("name", company.display_name.clone())
        .fact("state", Cell::enabled(company.enabled))
}

/// A company with its ceiling.
pub(super) fn report(company: &Company, lookup: &Lookup) -> Report {
    let scopes = company.scopes.iter();
    facts(company)
        .fact("created", time::text(company.create_time.as_ref()))
        .fact("updated", time::text(company.update_time.as_ref()))
        .fact("etag", company.etag.clone())
        .revision(company.revision)
        .titled(
            &["SCOPE", "SINCE", "TITLE"],
            scopes.map(|entry| {
                let since = lookup.since(entry.added_at_revision);
                [entry.scope.clone().into(), since.into(), lookup.title(&entry.scope).into()]
            }),
        )
}

/// The etag of a company before a change, if the report compares it with the one after.
pub(super) async fn etag(client: &Client, write: &WriteArgs, company: &str) -> Option<String> {
    if !write.compares() {
        return None;
    }
    let request = GetCompanyRequest { company_id: company.to_owned() };
    let read = client.directory.clone().get_company(request).await;
    Some(read.ok()?.into_inner().company?.etag)
}

/// A company after a change, or as a dry run would leave it.
pub(super) async fn changed(
    client: &Client,
    write: &WriteArgs,
    before: Option<String>,
    company: &Company,
    revision: u64,
) -> Report {
    let is_same = write.is_same(before.as_deref(), &company.etag, company.revision, revision);
    let would = write.dry_run && !is_same;
    let lookup = lookup(client, company, would.then_some(revision)).await;
    let mut company = company.clone();
    if would {
        company.revision = 0;
        if company.create_time == company.update_time {
            // A dry run of a creation: the company does not exist yet.
            company.create_time = None;
        }
        company.update_time = None;
    }
    write.sheet(revision, is_same).then(report(&company, &lookup))
}

/// The titles of the scopes of a company, and the times of their revisions. `last` is the current
/// revision if the company is that of a dry run.
pub(super) async fn lookup(client: &Client, company: &Company, last: Option<u64>) -> Lookup {
    let known = (company.revision, company.update_time.as_ref());
    let revisions = company.scopes.iter().map(|entry| entry.added_at_revision);
    Lookup::of(client, &company.company_id, known, last, revisions).await
}
