//! Catalog file: reads the file of `--catalog` at the start of a server.
//!
//! Not here: how the catalog is applied; see [`super::apply_catalog`].

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::policy::catalog::Catalog;
use crate::policy::catalog::file::{CatalogFile, MAX_LEN};

/// The catalog file of a start.
pub(super) enum CatalogAtStart {
    /// No file was given.
    None,
    /// The file is a catalog, with this text.
    Text(String),
    /// The file cannot be used, for this reason.
    Unusable(String),
}

impl CatalogAtStart {
    /// The digest of the catalog in the file, if it is one.
    pub(super) fn digest(&self) -> Option<blake3::Hash> {
        match self {
            Self::Text(yaml) => Some(Catalog::digest(yaml)),
            Self::None | Self::Unusable(_) => None,
        }
    }
}

/// Reads a catalog file. The error is a sentence. If there is a store, the file may break rules for
/// new catalogs: the store may have applied the file before these rules existed.
pub(super) fn read(path: &Path, has_store: bool) -> Result<String, String> {
    let error_of = |what: String| format!("--catalog {}: {what}", path.display());
    let metadata = fs::metadata(path).map_err(|error| error_of(error.kind().to_string()))?;
    if metadata.is_dir() {
        return Err(error_of("is a directory".to_owned()));
    }
    if !metadata.is_file() {
        // A read of a named pipe would block.
        return Err(error_of("is not a regular file".to_owned()));
    }
    let size = metadata.len();
    let too_long = |size| error_of(format!("has {size} bytes, the limit is {MAX_LEN}"));
    if size > MAX_LEN as u64 {
        return Err(too_long(size));
    }
    // The file may grow while it is read.
    let mut yaml = Vec::new();
    let mut file = File::open(path)
        .map_err(|error| error_of(error.kind().to_string()))?
        .take(MAX_LEN as u64 + 1);
    file.read_to_end(&mut yaml).map_err(|error| error_of(error.kind().to_string()))?;
    if yaml.len() > MAX_LEN {
        return Err(too_long(yaml.len() as u64));
    }
    let yaml = String::from_utf8(yaml).map_err(|_| error_of("is not UTF-8".to_owned()))?;
    // Some programs write a byte order mark.
    let yaml = yaml.strip_prefix('\u{feff}').map(ToOwned::to_owned).unwrap_or(yaml);
    match CatalogFile::parse(&yaml) {
        // Only the open store knows whether the file was applied before. If not, it is parsed again.
        Err(_) if has_store && CatalogFile::parse_stored(&yaml).is_ok() => Ok(yaml),
        Err(errors) => Err(error_of(errors.to_string())),
        Ok(_) => Ok(yaml),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_that_breaks_only_new_rules_is_accepted_if_there_is_a_store() {
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
