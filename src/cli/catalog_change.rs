//! What a catalog change does, for people: each part that differs, and the companies and
//! credentials that lose a scope.
//!
//! The server says what it would do, or did. What each part said before and says now is read from
//! the two texts, by the policy that the server asks too; it is shown only where both agree, since
//! another catalog may have been applied meanwhile.

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

/// The most rows of a table on a terminal.
const ROWS: usize = 100;

/// From the text in force to another.
pub(super) struct CatalogChange {
    is_same: bool,
    difference: CatalogDifference,
    details: DifferenceDetails,
}

impl CatalogChange {
    /// What a file would change of a text.
    ///
    /// # Errors
    /// The file cannot follow that text: every problem with its place.
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

    /// What the server would do, for people.
    pub(super) fn report(&self, response: &ApplyCatalogResponse) -> Report {
        self.sheet_with(response, "".into())
    }

    /// What the server did, for people.
    pub(super) fn done(&self, response: &ApplyCatalogResponse) -> Report {
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
        ];
        let details = self.agrees(response).then_some(&self.details);
        let name = details.and_then(|details| details.name.as_ref());
        if changes_nothing.iter().all(|list| list.is_empty())
            && response.renamed_scopes.is_empty()
            && name.is_none()
        {
            let why = match self.is_same {
                true => "nothing to change: this is the catalog in force",
                false => {
                    "no scope, audience, role, endpoint or title differs: only how the file is \
                     written"
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
            false => losers(report, response, revision),
        };
        match details {
            Some(details) => parts(report, details),
            None => report,
        }
    }

    /// What the change takes away, each in words that follow `would`: scopes, audiences, roles and
    /// endpoints that go, what an audience asked, what a role permits.
    pub(super) fn taken(&self, response: &ApplyCatalogResponse) -> Vec<String> {
        let mut taken = Vec::new();
        let mut add = |what: &str, names: Vec<&str>| {
            if !names.is_empty() {
                taken.push(format!("{what} {}", names.join(", ")));
            }
        };
        add("remove", response.removed_scopes.iter().map(String::as_str).collect());
        if !self.agrees(response) {
            // Another catalog was applied meanwhile: only which parts differ is known.
            let of = |names: &'_ [String]| names.to_vec();
            let (audiences, roles) = (of(&response.changed_audiences), of(&response.changed_roles));
            add("change the audiences", audiences.iter().map(String::as_str).collect());
            add("change the roles", roles.iter().map(String::as_str).collect());
            let endpoints = response.removed_endpoints.iter().map(String::as_str);
            add("remove the endpoints", endpoints.collect());
            return taken;
        }
        let DifferenceDetails { audiences, roles, endpoints, .. } = &self.details;
        let parts = [("audience", audiences), ("role", roles), ("endpoint", endpoints)];
        for (kind, parts) in parts {
            let gone = parts.iter().filter(|part| part.kind == DifferenceKind::Removed);
            add(&format!("remove the {kind}"), gone.map(|part| part.name.as_str()).collect());
        }
        let less =
            |part: &&PartChange| part.kind == DifferenceKind::Changed && !part.before.is_empty();
        let asks = audiences.iter().filter(less).map(|part| part.name.as_str());
        add("change what is asked by the audience", asks.collect());
        let loses = roles.iter().filter(less).map(|part| part.name.as_str());
        add("take scopes from the role", loses.collect());
        taken
    }

    /// Whether the texts say what the server says.
    fn agrees(&self, response: &ApplyCatalogResponse) -> bool {
        let own = &self.difference;
        let same = |scopes: &[Scope], names: &[String]| {
            scopes.iter().map(Scope::as_str).eq(names.iter().map(String::as_str))
        };
        let renamed = own.renamed.iter().map(|scope| (scope.old.as_str(), scope.new.as_str()));
        let told = response.renamed_scopes.iter();
        same(&own.added, &response.added_scopes)
            && same(&own.removed_names, &response.removed_scopes)
            && same(&own.changed_scopes, &response.changed_scopes)
            && renamed.eq(told.map(|scope| (scope.old_name.as_str(), scope.new_name.as_str())))
            && own.changed_audiences == response.changed_audiences
            && own.changed_roles == response.changed_roles
            && own.changed_endpoints == response.changed_endpoints
            && own.changed_titles.starts_with(&response.changed_titles)
    }
}

/// The parts by name, where no more is known.
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
}

/// The companies and credentials that lose a scope.
fn losers(report: Report, response: &ApplyCatalogResponse, revision: Cell) -> Report {
    let (companies, credentials) =
        (response.affected_company_count, response.affected_credential_count);
    let company = |loser: &AffectedCompany| -> [Cell; 4] {
        [
            loser.company_id.clone().into(),
            loser.display_name.clone().into(),
            loser.affected_credential_count.into(),
            loser.scopes.join(" ").into(),
        ]
    };
    let credential = |loser: &LosingCredential| -> [Cell; 6] {
        let affected = loser.credential.clone().unwrap_or_default();
        let seen = time::text(affected.last_seen_time.as_ref());
        [
            loser.company_id.clone().into(),
            affected.credential_id.into(),
            affected.label.into(),
            Cell::enabled(affected.enabled),
            if seen.is_empty() { "never".into() } else { seen.into() },
            affected.scopes.join(" ").into(),
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

/// What is not shown of a list.
fn more(report: Report, all: u64, shown: usize, one: &str, many: &str) -> Report {
    match all.saturating_sub(shown as u64) {
        0 => report,
        1 => report.line(format!("and 1 more {one}")),
        left => report.line(format!("and {left} more {many}")),
    }
}

/// Every part that is otherwise: what it said, and what it says.
fn parts(report: Report, details: &DifferenceDetails) -> Report {
    let DifferenceDetails { name: _, titles, scopes, audiences, roles, endpoints } = details;
    let kind = |moved: &PartChange| match moved.kind {
        DifferenceKind::Added => Cell::colored(true, "added"),
        DifferenceKind::Removed => Cell::colored(false, "removed"),
        DifferenceKind::Changed => "changed".into(),
    };
    // A line each, and nothing left out: for `grep`.
    let most = if printer::is_on_a_terminal() { ROWS } else { usize::MAX };
    let three = |moved: &PartChange| -> [Cell; 3] {
        [moved.name.clone().into(), moved.before.clone().into(), moved.after.clone().into()]
    };
    let four = |moved: &PartChange| {
        let [name, before, after] = three(moved);
        [name, kind(moved), before, after]
    };
    let left = |report: Report, all: &[PartChange]| {
        more(
            report,
            all.len() as u64,
            all.len().min(most),
            "row",
            "rows: --output json has the names",
        )
    };
    let report = report.rows(&["SCOPE", "NO LONGER", "NOW"], scopes.iter().take(most).map(three));
    let report = left(report, scopes)
        .rows(&["AUDIENCE", "CHANGE", "ASKED", "ASKS"], audiences.iter().take(most).map(four));
    let report = left(report, audiences)
        .rows(&["ROLE", "CHANGE", "LOSES", "GAINS"], roles.iter().take(most).map(four));
    let report = left(report, roles)
        .rows(&["ENDPOINT", "CHANGE", "NEEDED", "NEEDS"], endpoints.iter().take(most).map(four));
    let report = left(report, endpoints)
        .rows(&["TITLE OF", "WAS", "IS"], titles.iter().take(most).map(three));
    left(report, titles)
}
