//! A clock that a test sets, for processes that it starts, by libfaketime.

use std::path::PathBuf;
use std::process::Command;

/// A clock, as an offset from this machine's.
pub struct FakeClock {
    dir: tempfile::TempDir,
    library: PathBuf,
}

impl FakeClock {
    /// The right time. None where there is no libfaketime.
    pub fn new() -> Option<Self> {
        let places = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
        let library = |dir: PathBuf| dir.join("faketime/libfaketimeMT.so.1");
        let library = places.map(|entry| library(entry.path())).find(|library| library.exists());
        let Some(library) = library else {
            println!("skipped: no libfaketime (apt-get install faketime)");
            return None;
        };
        let clock = Self { dir: tempfile::tempdir().expect("a directory"), library };
        clock.set("+0");
        Some(clock)
    }

    /// Sets the clock of all processes that follow it, also of those that run.
    pub fn set(&self, offset: &str) {
        let draft = self.dir.path().join("draft");
        std::fs::write(&draft, offset).expect("written");
        std::fs::rename(&draft, self.dir.path().join("clock")).expect("set");
    }

    /// The binary, as a process that follows the clock.
    pub fn command(&self) -> Command {
        let mut command = super::scopegate();
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", self.dir.path().join("clock"))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command
    }
}
