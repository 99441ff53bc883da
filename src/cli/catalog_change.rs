//! What a catalog change does, for people: each part that differs, and the companies and
//! credentials that lose a scope.
//!
//! The server says what it would do, or did. What each part said before and says now is read from
//! the two texts, by the policy that the server asks too; it is shown only where both agree, since
//! another catalog may have been applied meanwhile.

use std::path::Path;

use anyhow::bail;

use super::catalog::listed;
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
            Err(problems) => bail!("{}", listed(file, &problems)),
        }
    }

    /// What the server would do, for people.
    pub(super) fn sheet(&self, said: &ApplyCatalogResponse) -> Report {
        self.sheet_with(said, "".into())
    }

    /// What the server did, for people.
    pub(super) fn done(&self, said: &ApplyCatalogResponse) -> Report {
        self.sheet_with(said, said.revision.into())
    }

    fn sheet_with(&self, said: &ApplyCatalogResponse, revision: Cell) -> Report {
        let changes_nothing = [
            &said.added_scopes,
            &said.removed_scopes,
            &said.changed_scopes,
            &said.changed_audiences,
            &said.changed_roles,
            &said.changed_endpoints,
            &said.changed_titles,
        ];
        let details = self.agrees(said).then_some(&self.details);
        let name = details.and_then(|details| details.name.as_ref());
        if changes_nothing.iter().all(|list| list.is_empty())
            && said.renamed_scopes.is_empty()
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
        let renamed = said.renamed_scopes.iter();
        let renamed: Vec<_> =
            renamed.map(|scope| format!("{} -> {}", scope.old_name, scope.new_name)).collect();
        let sheet = Report::default()
            .fact("name", name.unwrap_or_default())
            .fact("renamed scopes", renamed.join(", "))
            .fact("added scopes", said.added_scopes.join(" "))
            .fact("removed scopes", Cell::colored(false, said.removed_scopes.join(" ")));
        let sheet = match details {
            Some(_) => sheet,
            None => names_of_parts(sheet, said),
        };
        let sheet = match said.removed_scopes.is_empty() {
            true => sheet.fact("revision", revision),
            false => losers(sheet, said, revision),
        };
        match details {
            Some(details) => parts(sheet, details),
            None => sheet,
        }
    }

    /// What the change takes away, each in words that follow `would`: scopes, audiences, roles and
    /// endpoints that go, what an audience asked, what a role permits.
    pub(super) fn taken(&self, said: &ApplyCatalogResponse) -> Vec<String> {
        let mut taken = Vec::new();
        let mut add = |what: &str, names: Vec<&str>| {
            if !names.is_empty() {
                taken.push(format!("{what} {}", names.join(", ")));
            }
        };
        add("remove", said.removed_scopes.iter().map(String::as_str).collect());
        if !self.agrees(said) {
            // Another catalog was applied meanwhile: only which parts differ is known.
            let of = |names: &'_ [String]| names.to_vec();
            let (audiences, roles) = (of(&said.changed_audiences), of(&said.changed_roles));
            add("change the audiences", audiences.iter().map(String::as_str).collect());
            add("change the roles", roles.iter().map(String::as_str).collect());
            let endpoints = said.removed_endpoints.iter().map(String::as_str);
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
    fn agrees(&self, said: &ApplyCatalogResponse) -> bool {
        let own = &self.difference;
        let same = |scopes: &[Scope], names: &[String]| {
            scopes.iter().map(Scope::as_str).eq(names.iter().map(String::as_str))
        };
        let renamed = own.renamed.iter().map(|scope| (scope.old.as_str(), scope.new.as_str()));
        let told = said.renamed_scopes.iter();
        same(&own.added, &said.added_scopes)
            && same(&own.removed_names, &said.removed_scopes)
            && same(&own.changed_scopes, &said.changed_scopes)
            && renamed.eq(told.map(|scope| (scope.old_name.as_str(), scope.new_name.as_str())))
            && own.changed_audiences == said.changed_audiences
            && own.changed_roles == said.changed_roles
            && own.changed_endpoints == said.changed_endpoints
            && own.changed_titles.starts_with(&said.changed_titles)
    }
}

/// The parts by name, where no more is known.
fn names_of_parts(sheet: Report, said: &ApplyCatalogResponse) -> Report {
    let is_other = |name: &&String| {
        !said.added_endpoints.contains(name) && !said.removed_endpoints.contains(name)
    };
    let changed: Vec<_> = said.changed_endpoints.iter().filter(is_other).cloned().collect();
    sheet
        .fact("changed scopes", said.changed_scopes.join(" "))
        .fact("changed audiences", said.changed_audiences.join(" "))
        .fact("changed roles", said.changed_roles.join(" "))
        .fact("added endpoints", said.added_endpoints.join(", "))
        .fact("removed endpoints", said.removed_endpoints.join(", "))
        .fact("changed endpoints", changed.join(", "))
        .fact("changed titles", said.changed_titles.join(" "))
}

/// The companies and credentials that lose a scope.
fn losers(sheet: Report, said: &ApplyCatalogResponse, revision: Cell) -> Report {
    let (companies, credentials) = (said.affected_company_count, said.affected_credential_count);
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
    let sheet = sheet
        .fact("companies that lose a scope", companies)
        .fact("credentials that lose a scope", credentials)
        .fact("revision", revision)
        .rows(
            &["COMPANY", "NAME", "CREDENTIALS", "LOSES"],
            said.affected_companies.iter().map(company),
        );
    let sheet = more(sheet, companies, said.affected_companies.len(), "company", "companies");
    let sheet = sheet.rows(
        &["COMPANY", "CREDENTIAL", "LABEL", "STATE", "LAST SEEN", "LOSES"],
        said.affected_credentials.iter().map(credential),
    );
    let shown = said.affected_credentials.len();
    let sheet = more(sheet, credentials, shown, "credential", "credentials");
    match credentials > shown as u64 {
        true => sheet.line("scopegate company list --scope SCOPE lists all companies"),
        false => sheet,
    }
}

/// What is not shown of a list.
fn more(sheet: Report, all: u64, shown: usize, one: &str, many: &str) -> Report {
    match all.saturating_sub(shown as u64) {
        0 => sheet,
        1 => sheet.line(format!("and 1 more {one}")),
        left => sheet.line(format!("and {left} more {many}")),
    }
}

/// Every part that is otherwise: what it said, and what it says.
fn parts(sheet: Report, details: &DifferenceDetails) -> Report {
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
    let left = |sheet: Report, all: &[PartChange]| {
        more(
            sheet,
            all.len() as u64,
            all.len().min(most),
            "row",
            "rows: --output json has the names",
        )
    };
    let sheet = sheet.rows(&["SCOPE", "NO LONGER", "NOW"], scopes.iter().take(most).map(three));
    let sheet = left(sheet, scopes)
        .rows(&["AUDIENCE", "CHANGE", "ASKED", "ASKS"], audiences.iter().take(most).map(four));
    let sheet = left(sheet, audiences)
        .rows(&["ROLE", "CHANGE", "LOSES", "GAINS"], roles.iter().take(most).map(four));
    let sheet = left(sheet, roles)
        .rows(&["ENDPOINT", "CHANGE", "NEEDED", "NEEDS"], endpoints.iter().take(most).map(four));
    let sheet = left(sheet, endpoints)
        .rows(&["TITLE OF", "WAS", "IS"], titles.iter().take(most).map(three));
    left(sheet, titles)
}
