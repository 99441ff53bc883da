//! Lookup: what a table shows beside an answer, for people: the titles of scopes, and when a
//! revision was committed.
//!
//! Both are other calls. Where the caller may not make them, or the audit log no longer has the
//! revision, the table does without, and nothing fails.

use std::collections::{BTreeSet, HashMap};

use prost_types::Timestamp;
use tokio::task::JoinSet;

use super::client::Client;
use super::printer::Report;
use super::time;
use crate::policy::catalog::file::CatalogFile;
use crate::proto::{GetCatalogRequest, ListChangesRequest};

/// The most revisions whose times are looked up; the newest.
const MOST: usize = 20;

/// What was looked up.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    titles: HashMap<String, String>,
    times: HashMap<u64, Timestamp>,
    /// The last revision that there is, if what is shown is of a later one: of a dry run.
    last: Option<u64>,
}

impl Lookup {
    /// Looks up what the caller may see, if people read the answer.
    pub(super) async fn titles(client: &Client) -> Self {
        let mut lookup = Self::default();
        if client.printer.is_for_people()
            && let Ok(catalog) = client.catalog.clone().get_catalog(GetCatalogRequest {}).await
        {
            lookup = Self::of_catalog(&catalog.into_inner().yaml);
        }
        lookup
    }

    /// The titles that a catalog has.
    pub(super) fn of_catalog(yaml: &str) -> Self {
        let mut lookup = Self::default();
        if let Ok(file) = CatalogFile::parse_stored(yaml) {
            let title = |(scope, entry): (crate::policy::scope::Scope, _)| {
                let entry: crate::policy::catalog::file::ScopeEntry = entry;
                (scope.to_string(), entry.title)
            };
            lookup.titles = file.scopes.into_iter().map(title).collect();
        }
        lookup
    }

    /// As [`Self::titles`], with the times of revisions of changes of a company. That of one is
    /// known. If a dry run shows what would be, `last` is the revision that it was made at.
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
        let mut wanted: BTreeSet<_> = revisions.into_iter().filter(exists).collect();
        if let (revision, Some(time)) = known {
            wanted.remove(&revision);
            lookup.times.insert(revision, *time);
        }
        let mut calls = JoinSet::new();
        for revision in wanted.into_iter().rev().take(MOST).filter(|revision| *revision > 0) {
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

    /// A scope's title; empty if it has none, or it is not known.
    pub(super) fn title(&self, scope: &str) -> String {
        self.titles.get(scope).cloned().unwrap_or_default()
    }

    /// The titles of these scopes, as a table; nothing if none has one.
    pub(super) fn table<'a>(&self, scopes: impl IntoIterator<Item = &'a str>) -> Report {
        let mut scopes: Vec<_> = scopes.into_iter().collect();
        scopes.dedup();
        let titled = scopes.into_iter().map(|scope| (scope, self.title(scope)));
        let titled = titled.filter(|(_, title)| !title.is_empty());
        let rows = titled.map(|(scope, title)| [scope.into(), title.into()]);
        Report::default().rows(&["SCOPE", "TITLE"], rows)
    }

    /// Since when something is as it is: the time of the revision, or else the revision.
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
