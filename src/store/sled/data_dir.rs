//! DataDir: the files of a store, before sled opens them.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::engine_error::EngineError;

/// sled's log, and its settings.
pub(super) const LOG: &str = "db";
pub(super) const SETTINGS: &str = "conf";
/// sled's default page cache, in bytes.
pub(super) const PAGE_CACHE: u64 = 64 << 20;

/// Runs something that may panic, and returns the panic message instead of printing it.
pub(super) fn quietly<T>(work: impl FnOnce() -> T) -> (Option<T>, String) {
    let message = Arc::new(Mutex::new(String::new()));
    let hook = panic::take_hook();
    let hook_message = Arc::clone(&message);
    panic::set_hook(Box::new(move |panic| {
        hook_message.lock().unwrap_or_else(PoisonError::into_inner).push_str(&panic.to_string());
    }));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(hook);
    let message = message.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (result.ok(), message)
}

/// Creates the directory durably.
pub(super) fn create(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    // The directory holds all facts and the hashes of all secrets, so only its owner may read it.
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    match dir.canonicalize()?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Locks the directory for this process.
pub(super) fn lock_dir(dir: &Path) -> Result<File, TryLockError> {
    let path = dir.join("lock");
    let lock = File::options().create(true).truncate(false).write(true).open(path);
    let lock = lock.map_err(TryLockError::Error)?;
    lock.try_lock()?;
    Ok(lock)
}

pub(super) fn config(dir: &Path, page_cache: u64) -> sled::Config {
    sled::Config::new().path(dir).cache_capacity(page_cache)
}

/// Repairs files that sled cannot read after a power cut during their write.
pub(super) fn recover_files(dir: &Path) -> Result<(), EngineError> {
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
    let draft = dir.join("draft");
    if draft.exists() {
        fs::remove_dir_all(&draft)?;
    }
    if !dir.join(SETTINGS).exists() && !dir.join(LOG).exists() {
        drop(config(&draft, PAGE_CACHE).open()?);
        File::open(draft.join(SETTINGS))?.sync_all()?;
        fs::rename(draft.join(SETTINGS), dir.join(SETTINGS))?;
        File::open(dir)?.sync_all()?;
        fs::remove_dir_all(&draft)?;
    }
    Ok(())
}
