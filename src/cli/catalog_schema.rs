//! `scopegate catalog schema`: the JSON Schema of catalog files, for editors.

use std::io::{self, Write};

use crate::policy::catalog::schema::JSON_SCHEMA;

/// Writes the schema to standard output.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn print() -> anyhow::Result<bool> {
    io::stdout().write_all(JSON_SCHEMA.as_bytes())?;
    Ok(true)
}
