//! Files: the files of sled in a directory, before sled opens them.

use std::fs::{self, File};
use std::path::Path;

use super::super::EngineError;

/// sled's log, and its settings.
pub(super) const LOG: &str = "db";
const SETTINGS: &str = "conf";
/// Where settings are written before they are in their place.
const DRAFT: &str = "draft";
/// The files and directories of sled, beside its snapshots.
pub(super) const NAMES: [&str; 4] = [LOG, SETTINGS, DRAFT, "blobs"];
/// The start of the name of a snapshot.
pub(super) const SNAPSHOT: &str = "snap.";

pub(super) fn config(dir: &Path, cache: u64) -> sled::Config {
    sled::Config::new().path(dir).cache_capacity(cache)
}

/// Repairs files that sled cannot read after a power cut during their write.
pub(super) fn repair(dir: &Path, cache: u64) -> Result<(), EngineError> {
    // sled renames a snapshot when it is complete, but it also looks for the temporary name, and
    // rejects a store with a partial snapshot. Removing it is safe: sled makes a new one from the
    // log.
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "generating") {
            fs::remove_file(path)?;
        }
    }
    // sled never syncs the settings that it writes into a new store, and cannot open a store with
    // partial settings. They are therefore written elsewhere, synced, and renamed into the
    // directory before a log exists.
    let draft = dir.join(DRAFT);
    if draft.exists() {
        fs::remove_dir_all(&draft)?;
    }
    if !dir.join(SETTINGS).exists() && !dir.join(LOG).exists() {
        drop(super::guarded(|| config(&draft, cache).open())?);
        File::open(draft.join(SETTINGS))?.sync_all()?;
        fs::rename(draft.join(SETTINGS), dir.join(SETTINGS))?;
        File::open(dir)?.sync_all()?;
        fs::remove_dir_all(&draft)?;
    }
    Ok(())
}
