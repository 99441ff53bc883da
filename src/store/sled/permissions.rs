//! Exposure: whether others on the machine can read or write a store.
//!
//! It has all facts, and the hashes of all secrets. What is made here is for its user alone; who
//! made it wider may have meant it, so that is said and not changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What a group and all others may do.
const OTHERS: u32 = 0o077;
/// How many files are named.
const NAMED: usize = 5;

/// Warns of what in a store's directory others than its user can read or write.
pub(super) fn warn(dir: &Path) {
    let exposed = exposed(dir);
    if exposed.is_empty() {
        return;
    }
    let named: Vec<_> = exposed.iter().take(NAMED).map(String::as_str).collect();
    let (paths, count) = (named.join(", "), exposed.len());
    let remedy = format!("chmod -R go= {}", dir.display());
    tracing::warn!(paths, count, remedy, "others than its user can read or write the store");
}

/// The directory and the files in it that are wider than 0700 and 0600, with their modes.
fn exposed(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir).into_iter().flatten().filter_map(|file| Some(file.ok()?.path()));
    let mut paths: Vec<_> = files.collect();
    paths.sort();
    paths.insert(0, dir.to_path_buf());
    let wide = paths.into_iter().filter_map(|path| {
        let mode = fs::symlink_metadata(&path).ok()?.permissions().mode();
        (mode & OTHERS != 0 && !path.is_symlink())
            .then(|| format!("{} ({:04o})", path.display(), mode & 0o7777))
    });
    wide.collect()
}
