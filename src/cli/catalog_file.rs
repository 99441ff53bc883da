//! Catalog file: reads the text of a catalog from disk or standard input, and formats its errors.
//!
//! Not here: the format of a catalog; see [`crate::policy::catalog::file`].

use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, anyhow, bail};

use super::text_file;
use crate::policy::catalog::file::{CatalogError, CatalogErrors, CatalogFile};

/// The maximum size of a catalog file.
const MAX_BYTES: u64 = 16 << 20;

/// Reads a text file, `-` for standard input, without a byte order mark.
///
/// # Errors
/// The file cannot be read, is too long, is not UTF-8 or is empty.
pub(super) fn read_text(file: &Path) -> anyhow::Result<String> {
    let unreadable = || format!("cannot read {}", file.display());
    let mut bytes = Vec::new();
    let input: Box<dyn Read> = match file.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(std::fs::File::open(file).with_context(unreadable)?),
    };
    input.take(MAX_BYTES + 1).read_to_end(&mut bytes).with_context(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        bail!("{} has more than {MAX_BYTES} bytes: is it the right file?", file.display());
    }
    text_file::decode_non_blank(&bytes).map_err(|error| anyhow!("{} {error}", file.display()))
}

/// Reads a catalog file that parses without an error.
///
/// # Errors
/// As for [`read_text`]; or the catalog is invalid: every error with its line and column.
pub(super) fn read_valid(file: &Path) -> anyhow::Result<String> {
    let yaml = read_text(file)?;
    match CatalogFile::parse(&yaml) {
        Ok(_) => Ok(yaml),
        Err(errors) => bail!("{}", format_errors(file, &errors)),
    }
}

/// Formats the errors of a catalog file as `FILE:LINE:COLUMN: MESSAGE`, one a line, so that editors
/// can jump to them.
pub(super) fn format_errors(file: &Path, errors: &CatalogErrors) -> String {
    let line = |error: &CatalogError| {
        let (line, column) = (error.line, error.column);
        format!("{}:{line}:{column}: {}", file.display(), error.message)
    };
    errors.0.iter().map(line).collect::<Vec<_>>().join("\n")
}
