//! Fuzz: access to the reader of forms for the targets in `fuzz/`. No other build has it.
//!
//! Not here: the properties that are tested; each target states them.

use super::form;

/// The known parameters of a form; none if the form is refused.
#[must_use]
pub fn form(bytes: &[u8], known: &[&'static str]) -> Option<Vec<(&'static str, String)>> {
    form::parse(bytes, known).ok()
}

/// Whether a query has a parameter that no URL may have.
#[must_use]
pub fn query_has_secret(query: &str) -> bool {
    form::has_secret(query)
}
