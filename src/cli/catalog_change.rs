//! Catalog change: the report of a catalog change for people. It lists each part that differs, and
//! the companies and credentials that lose a scope.
//!
//! The response of the server names the parts that change. Their contents before and after are
//! computed here from the two texts, with the same policy code as in the server. They are shown
//! only if both agree, because another catalog may have been applied in between.

use std::path::Path;

use anyhow::bail;

use super::catalog_file::format_errors;
use super::printer::{self, Cell, Report};
use super::time;
use crate::policy::catalog::Catalog;
use crate::policy::catalog::difference::{
    CatalogDifference, DifferenceDetails, DifferenceKind, PartChange,
};
use crate::policy::scope::Scope;
use crate::proto::{AffectedCompany, ApplyCatalogResponse, LosingCredential};

/// The maximum number of rows of a table on a terminal.
const MAX_ROWS: usize = 100;

/// The difference between the current catalog and a new text.
pub(super) struct CatalogChange {
    is_same: bool,
    difference: CatalogDifference,
    details: DifferenceDetails,
}

impl CatalogChange {
    /// Compares a file with the current text.
    ///
    /// # Errors
    /// The file cannot replace that text: every error with its line and column.
    pub(super) fn of(file: &Path, before: &str, after: &str) -> anyhow::Result<Self> {
        let is_same = before == after;
        let before = Catalog::parse_stored(before)?;
        match before.replaced_by(after) {
            Ok(after) => {
                let (difference, details) = (after.difference(&before), after.details(&before));
                Ok(Self { is_same, difference, details })
            }
            Err(problems) => bail!("{}", format_errors(file, &problems)),
        }
    }

    /// The report of a change that was previewed.
    pub(super) fn report(&self, response: &ApplyCatalogResponse) -> Report {
        self.sheet_with(response, "".into())
    }

    /// The report of a change that was applied.
    pub(super) fn applied_report(&self, response: &ApplyCatalogResponse) -> Report {
        self.sheet_with(response, response.revision.into())
    }

    fn sheet_with(&self, response: &ApplyCatalogResponse, revision: Cell) -> Report {
        let changes_nothing = [
            &response.added_scopes,
            &response.removed_scopes,
            &response.changed_scopes,
            &response.changed_audiences,
            &response.changed_roles,
            &response.changed_endpoints,
            &response.changed_titles,
            &response.changed_issuers,
            &response.changed_resources,
        ];
        let details = self.agrees(response).then_some(&self.details);
        let name = details.and_then(|details| details.name.as_ref());
        if changes_nothing.iter().all(|list| list.is_empty())
            && response.renamed_scopes.is_empty()
            && name.is_none()
        {
            let why = match self.is_same {
                true => "nothing to change: this is the current catalog",
                false => {
                    "no scope, audience, role, endpoint, resource, issuer or title differs: only the \
                     formatting of the file does"
                }
            };
            return Report::default().line(why).fact("revision", revision);
        }
        let name = name.map(|name| format!("{} -> {}", name.before, name.after));
        let renamed = response.renamed_scopes.iter();
        let renamed: Vec<_> =
            renamed.map(|scope| format!("{} -> {}", scope.old_name, scope.new_name)).collect();
        let report = Report::default()
            .fact("name", name.unwrap_or_default())
            .fact("renamed scopes", renamed.join(", "))
            .fact("added scopes", response.added_scopes.join(" "))
            .fact("removed scopes", Cell::colored(false, response.removed_scopes.join(" ")));
        let report = match details {
            Some(_) => report,
            None => names_of_parts(report, response),
        };
        let report = match response.removed_scopes.is_empty() {
            true => report.fact("revision", revision),
            false => affected(report, response, revision),
        };
        match details {
            Some(details) => parts(report, details),
            None => report,
        }
    }

    /// What the change removes, as phrases that follow `would`: removed scopes, audiences, roles,
    /// endpoints and issuers, requirements of audiences, scopes of roles, and terms of issuers.
    pub(super) fn removals(&self, response: &ApplyCatalogResponse) -> Vec<String> {
        let mut removals = Vec::new();
        let mut add = |what: &str, names: Vec<&str>| {
            if !names.is_empty() {
                removals.push(format!("{what} {}", names.join(", ")));
            }
        };
        add("remove", response.removed_scopes.iter().map(String::as_str).collect());
        if !self.agrees(response) {
            // Another catalog was applied in between: only the names of the changed parts are
            // known.
            let owned = |names: &'_ [String]| names.to_vec();
            let (audiences, roles) =
                (owned(&response.changed_audiences), owned(&response.changed_roles));
            add("change the audiences", audiences.iter().map(String::as_str).collect());
            add("change the roles", roles.iter().map(String::as_str).collect());
            let endpoints = response.removed_endpoints.iter().map(String::as_str);
            add("remove the endpoints", endpoints.collect());
            let issuers = response.changed_issuers.iter().map(String::as_str);
            add("change the issuers", issuers.collect());
            let resources = response.changed_resources.iter().map(String::as_str);
            add("change the resources", resources.collect());
            return removals;
        }
        let DifferenceDetails { audiences, roles, endpoints, issuers, resources, .. } =
            &self.details;
        let parts = [
            ("audience", audiences),
            ("role", roles),
            ("endpoint", endpoints),
            ("issuer", issuers),
            ("resource", resources),
        ];
        for (kind, parts) in parts {
            let removed = parts.iter().filter(|part| part.kind == DifferenceKind::Removed);
            add(&format!("remove the {kind}"), removed.map(|part| part.name.as_str()).collect());
        }
        let loses_contents =
            |part: &&PartChange| part.kind == DifferenceKind::Changed && !part.before.is_empty();
        let requirements = audiences.iter().filter(loses_contents).map(|part| part.name.as_str());
        add("change the requirement of the audience", requirements.collect());
        let loses = roles.iter().filter(loses_contents).map(|part| part.name.as_str());
        add("take scopes from the role", loses.collect());
        let terms = issuers.iter().filter(loses_contents).map(|part| part.name.as_str());
        add("change the issuer", terms.collect());
        let terms = resources.iter().filter(loses_contents).map(|part| part.name.as_str());
        add("change the resource", terms.collect());
        removals
    }

    /// Whether the difference of the texts is the one that the server reports.
    fn agrees(&self, response: &ApplyCatalogResponse) -> bool {
        let local = &self.difference;
        let same = |scopes: &[Scope], names: &[String]| {
            scopes.iter().map(Scope::as_str).eq(names.iter().map(String::as_str))
        };
        let renamed = local.renamed.iter().map(|scope| (scope.old.as_str(), scope.new.as_str()));
        let server_renamed = response.renamed_scopes.iter();
        same(&local.added, &response.added_scopes)
            && same(&local.removed_names, &response.removed_scopes)
            && same(&local.changed_scopes, &response.changed_scopes)
            && renamed
                .eq(server_renamed.map(|scope| (scope.old_name.as_str(), scope.new_name.as_str())))
            && local.changed_audiences == response.changed_audiences
            && local.changed_roles == response.changed_roles
            && local.changed_endpoints == response.changed_endpoints
            && local.changed_titles.starts_with(&response.changed_titles)
            && local.changed_issuers == response.changed_issuers
            && local.changed_resources == response.changed_resources
    }
}

/// The names of the changed parts, if their contents are not known.
fn names_of_parts(report: Report, response: &ApplyCatalogResponse) -> Report {
    let is_other = |name: &&String| {
        !response.added_endpoints.contains(name) && !response.removed_endpoints.contains(name)
    };
    let changed: Vec<_> = response.changed_endpoints.iter().filter(is_other).cloned().collect();
    report
        .fact("changed scopes", response.changed_scopes.join(" "))
        .fact("changed audiences", response.changed_audiences.join(" "))
        .fact("changed roles", response.changed_roles.join(" "))
        .fact("added endpoints", response.added_endpoints.join(", "))
        .fact("removed endpoints", response.removed_endpoints.join(", "))
        .fact("changed endpoints", changed.join(", "))
        .fact("changed titles", response.changed_titles.join(" "))
        .fact("changed issuers", response.changed_issuers.join(" "))
        .fact("changed resources", response.changed_resources.join(" "))
}

/// The companies and credentials that lose a scope.
fn affected(report: Report, response: &ApplyCatalogResponse, revision: Cell) -> Report {
    let (companies, credentials) =
        (response.affected_company_count, response.affected_credential_count);
    let company = |affected: &AffectedCompany| -> [Cell; 4] {
        [
            affected.company_id.clone().into(),
            affected.display_name.clone().into(),
            affected.affected_credential_count.into(),
            affected.scopes.join(" ").into(),
        ]
    };
    let credential = |affected: &LosingCredential| -> [Cell; 6] {
        let credential = affected.credential.clone().unwrap_or_default();
        let seen = time::text(credential.last_seen_time.as_ref());
        [
            affected.company_id.clone().into(),
            credential.credential_id.into(),
            credential.label.into(),
            Cell::enabled(credential.enabled),
            if seen.is_empty() { "never".into() } else { seen.into() },
            credential.scopes.join(" ").into(),
        ]
    };
    let report = report
        .fact("companies that lose a scope", companies)
        .fact("credentials that lose a scope", credentials)
        .fact("revision", revision)
        .rows(
            &["COMPANY", "NAME", "CREDENTIALS", "LOSES"],
            response.affected_companies.iter().map(company),
        );
    let report = more(report, companies, response.affected_companies.len(), "company", "companies");
    let report = report.rows(
        &["COMPANY", "CREDENTIAL", "LABEL", "STATE", "LAST SEEN", "LOSES"],
        response.affected_credentials.iter().map(credential),
    );
    let shown = response.affected_credentials.len();
    let report = more(report, credentials, shown, "credential", "credentials");
    match credentials > shown as u64 {
        true => report.line("scopegate company list --scope SCOPE lists all companies"),
        false => report,
    }
}

/// Adds a line with the number of items that are not shown.
fn more(report: Report, all: u64, shown: usize, singular: &str, plural: &str) -> Report {
    match all.saturating_sub(shown as u64) {
        0 => report,
        1 => report.line(format!("and 1 more {singular}")),
        remaining => report.line(format!("and {remaining} more {plural}")),
    }
}

/// Tables of all changed parts, with their contents before and after.
fn parts(report: Report, details: &DifferenceDetails) -> Report {
    let DifferenceDetails {
        name: _,
        titles,
        scopes,
        audiences,
        roles,
        endpoints,
        issuers,
        resources,
    } = details;
    let kind = |part: &PartChange| match part.kind {
        DifferenceKind::Added => Cell::colored(true, "added"),
        DifferenceKind::Removed => Cell::colored(false, "removed"),
        DifferenceKind::Changed => "changed".into(),
    };
    // One line for each part and none left out, for `grep`.
    let max_rows = if printer::is_on_a_terminal() { MAX_ROWS } else { usize::MAX };
    let three = |part: &PartChange| -> [Cell; 3] {
        [part.name.clone().into(), part.before.clone().into(), part.after.clone().into()]
    };
    let four = |part: &PartChange| {
        let [name, before, after] = three(part);
        [name, kind(part), before, after]
    };
    let with_remaining = |report: Report, all: &[PartChange]| {
        more(
            report,
            all.len() as u64,
            all.len().min(max_rows),
            "row",
            "rows: --output json has the names",
        )
    };
    let report =
        report.rows(&["SCOPE", "NO LONGER", "NOW"], scopes.iter().take(max_rows).map(three));
    let report = with_remaining(report, scopes).rows(
        &["AUDIENCE", "CHANGE", "REQUIRED", "REQUIRES"],
        audiences.iter().take(max_rows).map(four),
    );
    let report = with_remaining(report, audiences)
        .rows(&["ROLE", "CHANGE", "LOSES", "GAINS"], roles.iter().take(max_rows).map(four));
    let report = with_remaining(report, roles).rows(
        &["ENDPOINT", "CHANGE", "NEEDED", "NEEDS"],
        endpoints.iter().take(max_rows).map(four),
    );
    let report = with_remaining(report, endpoints)
        .rows(&["ISSUER", "CHANGE", "WAS", "IS"], issuers.iter().take(max_rows).map(four));
    let report = with_remaining(report, issuers)
        .rows(&["RESOURCE", "CHANGE", "WAS", "IS"], resources.iter().take(max_rows).map(four));
    let report = with_remaining(report, resources)
        .rows(&["TITLE OF", "WAS", "IS"], titles.iter().take(max_rows).map(three));
    with_remaining(report, titles)
}
