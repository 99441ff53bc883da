//! Rename: a scope that is the same as before under another name (`renamed_from`, D2).
//!
//! A scope is a number, and a name stands for it. The new name takes the number of the old one, so
//! every ceiling, grant and consent stays as it is. What could make two scopes one is refused: the
//! holders of one would gain the other.

use std::collections::BTreeMap;

use super::Numbers;
use super::file::{CatalogError, CatalogErrors, ScopeEntry};
use crate::policy::scope::Scope;

/// What scopes were called before, by their new names.
pub type Renames = BTreeMap<Scope, Rename>;

/// What a scope was called before, and where the file says so.
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
    /// What it was called.
    pub old: Scope,
    /// What it is called now.
    pub new: Scope,
}

/// Between the old name and the new one in the audit log. No scope has a space.
const ARROW: &str = " -> ";

impl RenamedScope {
    /// Reads what the audit log has of it.
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
    /// Says what does, and what to do.
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
pub(super) fn check_merges(renames: &Renames, in_force: &Numbers) -> Result<(), CatalogErrors> {
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
