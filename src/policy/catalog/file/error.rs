//! Errors of a catalog file: each problem with its line and column.

use std::fmt;

/// One problem of a catalog file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogError {
    /// The line, from 1.
    pub line: u64,
    /// The column, from 1.
    pub column: u64,
    /// The problem.
    pub message: String,
}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

/// Everything that is wrong with a catalog file, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct CatalogErrors(pub Vec<CatalogError>);

impl CatalogErrors {
    /// The store has given out every scope id, and no id is used twice.
    pub(in crate::policy::catalog) fn ids_exhausted() -> Self {
        let message = "this store has used all 4294967295 scope ids: create a new store".to_owned();
        Self(vec![CatalogError { line: 1, column: 1, message }])
    }
}
