//! Rename: a scope that is the same as before under another name (`renamed_from`, D2).
//!
//! Facts refer to a scope by its id. The new name takes the id of the old one, so every ceiling,
//! grant and consent stays as it is. A rename that would merge two scopes is refused: the
//! holders of one would gain the other.

use std::collections::BTreeMap;

use super::ScopeIdMap;
use super::file::{CatalogError, CatalogErrors, ScopeEntry};
use crate::policy::scope::Scope;

/// The renames of a file, by new name.
pub type Renames = BTreeMap<Scope, Rename>;

/// The old name of a scope, with its location in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// The old name.
    pub old: Scope,
    /// The line of the old name, from 1.
    pub line: u64,
    /// Its column, from 1.
    pub column: u64,
}

/// A scope that has another name than in the catalog before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RenamedScope {
    /// The old name.
    pub old: Scope,
    /// The new name.
    pub new: Scope,
}

/// Between the old name and the new one in the audit log. No scope has a space.
const ARROW: &str = " -> ";

impl RenamedScope {
    /// Parses the text of the audit log.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (old, new) = text.split_once(ARROW)?;
        Some(Self { old: Scope::parse(old).ok()?, new: Scope::parse(new).ok()? })
    }
}

impl std::fmt::Display for RenamedScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{ARROW}{}", self.old, self.new)
    }
}

impl Rename {
    /// Whether the file itself speaks against this rename of `new`.
    ///
    /// # Errors
    /// The conflict, and how to resolve it.
    pub(super) fn check(
        &self,
        new: &Scope,
        scopes: &BTreeMap<Scope, ScopeEntry>,
        earlier: &Renames,
    ) -> Result<(), String> {
        let old = &self.old;
        if old == new {
            return Err(format!("`{old}` cannot be renamed to itself: leave `renamed_from` out"));
        }
        if scopes.contains_key(old) {
            return Err(format!(
                "`{old}` is still a scope of this catalog, so it has not become `{new}`: remove \
                 the scope `{old}`, or this `renamed_from`"
            ));
        }
        match earlier.iter().find(|(_, rename)| rename.old == *old) {
            Some((other, _)) => Err(format!(
                "`{old}` has become `{other}` already, and cannot become two scopes: declare \
                 `{new}` without `renamed_from`, and grant it to the holders of `{other}` (scopegate \
                 credential grant --scope-holders)"
            )),
            None => Ok(()),
        }
    }
}

/// Refuses renames that would make two scopes of the catalog in force one.
///
/// # Errors
/// Each such rename, in the order of the file's lines.
pub(super) fn check_merges(renames: &Renames, in_force: &ScopeIdMap) -> Result<(), CatalogErrors> {
    let merges = renames
        .iter()
        .filter(|(new, rename)| in_force.contains_key(&rename.old) && in_force.contains_key(*new));
    let mut problems: Vec<_> = merges
        .map(|(new, Rename { old, line, column })| CatalogError {
            line: *line,
            column: *column,
            message: format!(
                "the catalog in force has `{old}` and `{new}`, and making them one would give \
                 each to the holders of the other: remove `{old}` without `renamed_from`, or \
                 rename it to a name that is new"
            ),
        })
        .collect();
    problems.sort_by_key(|problem| (problem.line, problem.column));
    if problems.is_empty() { Ok(()) } else { Err(CatalogErrors(problems)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::catalog::Catalog;

    fn after(before: &str, yaml: &str) -> Result<Catalog, String> {
        let before = Catalog::empty().replaced_by(before).expect("a catalog");
        before.replaced_by(yaml).map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_rename_that_merges_scopes_is_refused_at_its_location() {
        let both = "scopes: { a: , b: }";
        for (before, yaml, why) in [
            (both, "scopes:\n  b: { renamed_from: b }\n", "line 2, column 22: `b` cannot be"),
            (both, "scopes:\n  c: { renamed_from: b }\n  b:\n", "line 2, column 22: `b` is still"),
            // Two that change places, and a chain in one file.
            (
                both,
                "scopes:\n  a: { renamed_from: b }\n  b: { renamed_from: a }\n",
                "line 2, column 22: `b` is still a scope of this catalog, so it has not become `a`: \
                 remove the scope `b`, or this `renamed_from`; line 3, column 22: `a` is still",
            ),
            (
                both,
                "scopes:\n  c: { renamed_from: a }\n  d: { title: D, renamed_from: a }\n",
                "line 3, column 32: `a` has become `c` already",
            ),
            (both, "scopes: { c: { renamed_from: \"a b\" } }", "line 1, column 30: `a b` has the"),
            (both, "scopes: { c: { renamed_from: \"\" } }", "line 1, column 30: `` must not be"),
            (both, "scopes: { c: { renamed_from: [a] } }", "line 1, column 30: "),
            (
                both,
                "scopes:\n  b: { renamed_from: a }\n",
                "line 2, column 22: the catalog in force",
            ),
            (
                "scopes: { a: , b: , c: , d: }",
                "scopes:\n  d: { renamed_from: a }\n  c: { renamed_from: b }\n",
                "line 2, column 22: the catalog in force has `a` and `d`, and making them one would \
              give each to the holders of the other: remove `a` without `renamed_from`, or rename \
              it to a name that is new; line 3, column 22: the catalog in force has `b` and `c`",
            ),
        ] {
            let found = after(before, yaml).expect_err("refused");
            assert!(found.starts_with(why), "{yaml}: {found}");
        }
    }

    #[test]
    fn d2_a_new_name_keeps_the_old_id() {
        let scope = |name: &str| Scope::parse(name).expect("a scope");
        let first =
            Catalog::empty().replaced_by("scopes: { a: , b: { implies: [a] } }").expect("one");
        let (a, b) = (first.id(&scope("a")), first.id(&scope("b")));
        let second = "scopes: { x: { renamed_from: a }, y: { renamed_from: b, implies: [x] } }";
        let second = first.replaced_by(second).expect("two");
        assert_eq!((second.id(&scope("x")), second.id(&scope("y"))), (a, b));
        // The key may stay, and the name move on; an old name that is gone is nothing.
        let third = "scopes: { x: { renamed_from: a }, z: { renamed_from: y, implies: [x] } }";
        let third = second.replaced_by(third).expect("three");
        assert_eq!((third.id(&scope("x")), third.id(&scope("z"))), (a, b));
        // A file that lags behind takes nothing over: `b` is a new scope, and `z` is gone.
        let lagging = "scopes: { x: { renamed_from: a }, b: { implies: [x] } }";
        let lagging = third.replaced_by(lagging).expect("four");
        assert!(lagging.id(&scope("b")) > b);
        assert_eq!(lagging.difference(&third).removed_names, [scope("z")]);
        // There and back.
        let back = second.replaced_by(
            "scopes: { a: { renamed_from: x }, b: { renamed_from: y, implies: [a] } }",
        );
        let back = back.expect("back");
        assert_eq!((back.id(&scope("a")), back.id(&scope("b"))), (a, b));
        // A removed scope returns under no name.
        let removed = second.replaced_by("scopes: { x: }").expect("fewer");
        let named =
            removed.replaced_by("scopes: { x: , new: { renamed_from: y } }").expect("again");
        assert!(named.id(&scope("new")) > b);
        // The new name is free again once it has left the catalog.
        let freed = first.replaced_by("scopes: { b: }").expect("without a");
        let freed = freed.replaced_by("scopes: { a: { renamed_from: b } }").expect("b is a");
        assert_eq!(freed.id(&scope("a")), b);
    }

    #[test]
    fn a_rename_alone_is_no_other_difference() {
        let before = "
name: n
audiences: { p: { title: P } }
scopes: { a: { title: A, audiences: [p] }, b: { implies: [a] }, c: }
roles: { r: { scopes: { a: own, b: all } } }
endpoints: [ { method: GET, path: /a, audience: p, scopes: [a, c] } ]";
        let renamed = before.replace("a: { title: A,", "\"a,\": { title: A, renamed_from: a,");
        let renamed = renamed.replace("[a]", "[\"a,\"]").replace("a: own", "\"a,\": own");
        let renamed =
            renamed.replace("[a, c]", "[\"a,\", d]").replace("c: }", "d: { renamed_from: c } }");
        let old = Catalog::empty().replaced_by(before).expect("a catalog");
        let new = old.replaced_by(&renamed).expect("renamed");
        let difference = new.difference(&old);
        let pairs = [("a", "a,"), ("c", "d")].map(|(old, new)| RenamedScope {
            old: Scope::parse(old).expect("a scope"),
            new: Scope::parse(new).expect("a scope"),
        });
        assert_eq!(difference.renamed, pairs);
        let alone = super::super::difference::CatalogDifference {
            renamed: pairs.to_vec(),
            ..Default::default()
        };
        assert_eq!(difference, alone);
        assert_eq!(new.details(&old), Default::default());
        // And it is read back from the log as it was, also where a name ends in a comma.
        let fields = difference.fields();
        assert_eq!((fields.len(), fields[0].after.as_str()), (1, "\"a -> a,, c -> d\""));
        let text = fields[0].after.trim_matches('"');
        let read: Vec<_> =
            text.split(", ").map(|pair| RenamedScope::parse(pair).expect("a pair")).collect();
        assert_eq!(read, pairs);
    }

    #[test]
    fn differences_are_reported_part_by_part() {
        let old = "
name: n
audiences: { p: { title: P }, q: { token: required }, gone: }
scopes: { a: { title: A, implies: [b] }, b: , c: { audiences: [p] }, e: , t: { title: T } }
roles: { r: { scopes: { a: all } }, s: { scopes: { a: all, b: own } } }
endpoints:
  - { method: GET, path: /a, scopes: [a] }
  - { method: GET, path: /b, scopes: [b] }";
        let new = "
name: m
audiences: { p: { title: PP }, q: { max_token_age: 1h } }
scopes: { a: { title: AA, implies: [b, e] }, b: , c: { audiences: [p, q] }, e: , t: { title: TT } }
roles: { r: { scopes: { a: all } }, s: { scopes: { a: all } }, u: { scopes: { b: own } } }
endpoints:
  - { method: GET, path: /a, scopes: [a, e] }
  - { method: GET, path: /c, scopes: [e] }";
        let old = Catalog::empty().replaced_by(old).expect("a catalog");
        let new = old.replaced_by(new).expect("a catalog");
        let difference = new.difference(&old);
        let told = |names: &[Scope]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(told(&difference.changed_scopes), ["a", "c"]);
        assert_eq!(difference.changed_audiences, ["gone", "q"]);
        // `r` says the same and permits more, since `a` implies `e` now.
        assert_eq!(difference.changed_roles, ["r", "s", "u"]);
        assert_eq!(difference.changed_endpoints, ["GET /a", "GET /b", "GET /c"]);
        assert_eq!(difference.added_endpoints, ["GET /c"]);
        assert_eq!(difference.removed_endpoints, ["GET /b"]);
        assert_eq!(difference.changed_titles, ["t", "p"], "of `a` more than the title");
        let details = new.details(&old);
        let told = |all: &[super::super::difference::PartChange]| {
            all.iter()
                .map(|m| format!("{} {:?}: {} / {}", m.name, m.kind, m.before, m.after))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            told(&details.scopes),
            ["a Changed:  / implies e", "c Changed: of audience p / of audience p q"]
        );
        assert_eq!(
            told(&details.roles),
            ["r Changed:  / e", "s Changed:  / e", "u Added:  / b (own)"]
        );
        assert_eq!(
            told(&details.audiences),
            [
                "gone Removed: token optional, user optional, consent optional, max_token_age none, clock_skew 0s, aud none / ",
                "q Changed: token required, max_token_age none / token optional, max_token_age 3600s"
            ]
        );
        assert_eq!(
            told(&details.endpoints),
            ["GET /a Changed: a / a e", "GET /b Removed: b / ", "GET /c Added:  / e"]
        );
        assert_eq!(
            told(&details.titles),
            [
                "a Changed: \"A\" / \"AA\"",
                "t Changed: \"T\" / \"TT\"",
                "audience p Changed: \"P\" / \"PP\""
            ]
        );
        assert_eq!(
            details.name.map(|name| (name.before, name.after)),
            Some(("n".into(), "m".into()))
        );
    }
}
