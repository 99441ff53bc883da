//! Lookup: extra data for tables: the titles of scopes, and the commit times of revisions.
//!
//! Both need additional calls. If the caller has no permission for them, or the audit log no longer
//! has the revision, the table is printed without these data. The command does not fail.

use std::collections::{BTreeSet, HashMap};

use prost_types::Timestamp;
use tokio::task::JoinSet;

use super::client::Client;
use super::printer::Report;
use super::time;
use crate::policy::catalog::file::{CatalogFile, ScopeEntry};
use crate::policy::scope::Scope;
use crate::proto::{GetCatalogRequest, ListChangesRequest};

/// The maximum number of revisions whose times are looked up. The newest are preferred.
const MAX_REVISIONS: usize = 20;

/// Titles and times.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    titles: HashMap<String, String>,
    times: HashMap<u64, Timestamp>,
    /// The last committed revision, if a dry run shows a later one.
    last: Option<u64>,
}

impl Lookup {
    /// Looks up the titles of scopes, if the output is for people and the caller may read the
    /// catalog.
    pub(super) async fn titles(client: &Client) -> Self {
        let mut lookup = Self::default();
        if client.printer.is_for_people()
            && let Ok(catalog) = client.catalog.clone().get_catalog(GetCatalogRequest {}).await
        {
            lookup = Self::of_catalog(&catalog.into_inner().yaml);
        }
        lookup
    }

    /// The titles of a catalog.
    pub(super) fn of_catalog(yaml: &str) -> Self {
        let mut lookup = Self::default();
        if let Ok(file) = CatalogFile::parse_stored(yaml) {
            let title = |(scope, entry): (Scope, ScopeEntry)| (scope.to_string(), entry.title);
            lookup.titles = file.scopes.into_iter().map(title).collect();
        }
        lookup
    }

    /// As [`Self::titles`], with the commit times of the `revisions` of a company. `known` is a
    /// revision whose time is known already. `last` is the last committed revision of a dry run.
    pub(super) async fn of(
        client: &Client,
        company: &str,
        known: (u64, Option<&Timestamp>),
        last: Option<u64>,
        revisions: impl IntoIterator<Item = u64>,
    ) -> Self {
        let mut lookup = Self { last, ..Self::titles(client).await };
        if !client.printer.is_for_people() {
            return lookup;
        }
        let exists = |revision: &u64| last.is_none_or(|last| *revision <= last);
        let mut missing: BTreeSet<_> = revisions.into_iter().filter(exists).collect();
        if let (revision, Some(time)) = known {
            missing.remove(&revision);
            lookup.times.insert(revision, *time);
        }
        let mut calls = JoinSet::new();
        for revision in
            missing.into_iter().rev().take(MAX_REVISIONS).filter(|revision| *revision > 0)
        {
            let mut changes = client.changes.clone();
            let request = ListChangesRequest {
                company_id: Some(company.to_owned()),
                after_revision: revision - 1,
                page_size: 1,
                ..ListChangesRequest::default()
            };
            calls.spawn(async move { changes.list_changes(request).await });
        }
        while let Some(call) = calls.join_next().await {
            let Ok(Ok(page)) = call else { continue };
            for change in page.into_inner().changes {
                lookup.times.extend(change.time.map(|time| (change.revision, time)));
            }
        }
        lookup
    }

    /// The title of a scope; empty if there is none or it is not known.
    pub(super) fn title(&self, scope: &str) -> String {
        self.titles.get(scope).cloned().unwrap_or_default()
    }

    /// A table of the titles of these scopes; empty if none has a title.
    pub(super) fn table<'a>(&self, scopes: impl IntoIterator<Item = &'a str>) -> Report {
        let mut scopes: Vec<_> = scopes.into_iter().collect();
        scopes.dedup();
        let titled = scopes.into_iter().map(|scope| (scope, self.title(scope)));
        let titled = titled.filter(|(_, title)| !title.is_empty());
        let rows = titled.map(|(scope, title)| [scope.into(), title.into()]);
        Report::default().rows(&["SCOPE", "TITLE"], rows)
    }

    /// The commit time of a revision, or else its number.
    pub(super) fn since(&self, revision: u64) -> String {
        if self.last.is_some_and(|last| revision > last) {
            return "with this change".to_owned();
        }
        match self.times.get(&revision) {
            Some(time) => time::text(Some(time)),
            None => format!("revision {revision}"),
        }
    }
}
