//! DataDir: the directory of a store, and the lock on it.
//!
//! Not here: the files of the engine.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use super::open::{LOCK_TIMEOUT, PAUSE};

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

/// Creates a directory durably, and those above it that are missing. Only the user of this process can read
/// them: the store has all facts and the hashes of all secrets.
pub(crate) fn create(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let is_missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.is_dir();
    let missing = dir.ancestors().take_while(is_missing).count();
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    // The entry of each of them is in the directory above it. The path is taken as it is written: the
    // canonical one may lead elsewhere, as in another mount namespace.
    dir.ancestors().skip(1).take(missing).try_for_each(|dir| {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        File::open(dir)?.sync_all()
    })
}

/// Locks the directory for this process. It waits for a process that is about to end, and for one that was
/// just forked: that one holds the locks of its parent until it runs its own program.
pub(super) fn lock_dir(dir: &Path) -> Result<File, TryLockError> {
    let path = dir.join("lock");
    let lock = File::options().create(true).truncate(false).write(true).open(path);
    let lock = lock.map_err(TryLockError::Error)?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(PAUSE),
            locked => return locked.map(|()| lock),
        }
    }
}
