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
/// How much of the tree sled keeps in memory unless told otherwise, in bytes.
pub(super) const PAGE_CACHE: u64 = 64 << 20;

/// Runs something that may panic, and says what was said of it instead of printing it.
pub(super) fn quietly<T>(work: impl FnOnce() -> T) -> (Option<T>, String) {
    let said = Arc::new(Mutex::new(String::new()));
    let hook = panic::take_hook();
    let heard = Arc::clone(&said);
    panic::set_hook(Box::new(move |what| {
        heard.lock().unwrap_or_else(PoisonError::into_inner).push_str(&what.to_string());
    }));
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(hook);
    let said = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (done.ok(), said)
}

/// Makes the directory, so that it is found again after a crash.
pub(super) fn create(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    // What is in it is nobody else's to read: all facts, and the hashes of all secrets.
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    match dir.canonicalize()?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Takes the directory for this process alone.
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

/// Puts right what sled does not survive if the power goes while it is written.
pub(super) fn recover_files(dir: &Path) -> Result<(), EngineError> {
    // A snapshot gets its name when it is whole, but sled looks for one under its first name too,
    // and refuses a store with half of one. What it is made from is still there.
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "generating") {
            fs::remove_file(path)?;
        }
    }
    // sled never syncs the settings that it writes into a new store, and opens nothing with half
    // of them. They are made elsewhere and put in place whole, before there is a log.
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
