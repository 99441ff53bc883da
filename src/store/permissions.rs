//! Permissions: warns if other users of the machine can read or write a store.
//!
//! A store holds all facts and the hashes of all secrets. Files that this program creates are
//! accessible to their owner only. Wider permissions may be intended, so they are reported and not
//! changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The permission bits of the group and of all others.
const OTHERS: u32 = 0o077;
/// The limit of files that the warning names.
const NAMED: usize = 5;

/// Warns about the paths of a store that other users can read or write.
pub(super) fn warn(dir: &Path) {
    let exposed = exposed(dir);
    if exposed.is_empty() {
        return;
    }
    let named: Vec<_> = exposed.iter().take(NAMED).map(String::as_str).collect();
    let (paths, count) = (named.join(", "), exposed.len());
    let remedy = format!("chmod -R go= {}", dir.display());
    tracing::warn!(paths, count, remedy, "other users than its owner can read or write the store");
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
