//! Catalog: the file that a server is started with.
//!
//! Not here: what is done with it; see [`super::apply_catalog`].

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::policy::catalog::file::{CatalogFile, MAX_LEN};

/// The catalog file of a start.
pub(super) enum CatalogAtStart {
    /// None was given.
    None,
    /// It reads as a catalog.
    Text(String),
    /// It cannot be used, for this reason.
    Unusable(String),
}

/// The text of a catalog file, or why it cannot be used, in a sentence. With a store it may be
/// older than the rules for new catalogs: the store may have applied it before they were made.
pub(super) fn read(path: &Path, has_store: bool) -> Result<String, String> {
    let wrong = |what: String| format!("--catalog {}: {what}", path.display());
    let about = fs::metadata(path).map_err(|error| wrong(error.kind().to_string()))?;
    if about.is_dir() {
        return Err(wrong("is a directory".to_owned()));
    }
    if !about.is_file() {
        // A named pipe would be waited for.
        return Err(wrong("is no plain file".to_owned()));
    }
    let size = about.len();
    let too_long = |size| wrong(format!("has {size} bytes, the limit is {MAX_LEN}"));
    if size > MAX_LEN as u64 {
        return Err(too_long(size));
    }
    // It may grow while it is read.
    let mut yaml = Vec::new();
    let mut file =
        File::open(path).map_err(|error| wrong(error.kind().to_string()))?.take(MAX_LEN as u64 + 1);
    file.read_to_end(&mut yaml).map_err(|error| wrong(error.kind().to_string()))?;
    if yaml.len() > MAX_LEN {
        return Err(too_long(yaml.len() as u64));
    }
    let yaml = String::from_utf8(yaml).map_err(|_| wrong("is not UTF-8".to_owned()))?;
    // What some programs begin a text with.
    let yaml = yaml.strip_prefix('\u{feff}').map(ToOwned::to_owned).unwrap_or(yaml);
    match CatalogFile::parse(&yaml) {
        // Whether it was applied before is known when the store is open, and it is read again if
        // it was not.
        Err(_) if has_store && CatalogFile::parse_stored(&yaml).is_ok() => Ok(yaml),
        Err(errors) => Err(wrong(errors.to_string())),
        Ok(_) => Ok(yaml),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_only_new_rules_refuse_is_left_to_the_store_that_may_have_applied_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("catalog.yaml");
        let yaml = "scopes: { a: }\nendpoints:\n\
            - { method: GET, path: /a/export, scopes: [a] }\n\
            - { method: GET, path: /a/EXPORT, scopes: [a] }\n";
        fs::write(&path, yaml).expect("written");
        assert_eq!(read(&path, true).as_deref(), Ok(yaml));
        let why = read(&path, false).expect_err("a new catalog");
        assert!(why.contains("line 4, column 27: ") && why.contains("`EXPORT`"), "{why}");
        fs::write(&path, "scopes: { a: , b").expect("written");
        assert!(read(&path, true).is_err());
    }
}
