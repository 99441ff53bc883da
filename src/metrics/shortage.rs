//! Shortage: describes errors of the operating system, with their number and with a remedy.
//!
//! A failure to start a thread, open a file or get memory does not mean that data is damaged.

use std::fs::File;
use std::io;
use std::sync::{Arc, RwLock};
use std::thread;

use rustix::io::Errno;

/// The memory that must be available at the start, in bytes. With less, the process would be aborted
/// later without an explanation.
const MIN_MEMORY: usize = 48 << 20;

/// Describes an error of the system, with its number and a remedy.
#[must_use]
pub fn told(error: &io::Error) -> String {
    match error.raw_os_error().or_else(|| number_in(&format!("{error:?}"))) {
        Some(number) => told_by_number(number),
        None => error.kind().to_string(),
    }
}

/// The same for the number of an error.
#[must_use]
pub fn told_by_number(number: i32) -> String {
    let remedy = match Errno::from_raw_os_error(number) {
        Errno::AGAIN => {
            "no more threads can be started: raise the limit of processes and threads (`ulimit -u`, \
             `TasksMax`, the container's pids limit)"
        }
        Errno::NOMEM => {
            "there is not enough memory: raise its limit (`ulimit -v`, `MemoryMax`, the container's)"
        }
        Errno::MFILE => "raise the limit of open files (`ulimit -n`, `LimitNOFILE`)",
        Errno::NFILE => "the system has no more open files: raise `fs.file-max`",
        Errno::ACCESS | Errno::PERM => {
            "give the user that runs this permission to read and write there"
        }
        Errno::ROFS => "mount the file system so that it can be written",
        Errno::NOSPC | Errno::DQUOT => "free space on the disk",
        Errno::NOTDIR | Errno::EXIST => "a file is where a directory is needed",
        Errno::IO => "the disk fails: see the kernel's log, and copy the directory away",
        _ => "check that the directory can be written",
    };
    format!("{} ({remedy})", io::Error::from_raw_os_error(number))
}

/// Whether the error means that a resource of the system is exhausted.
#[must_use]
pub fn is_one(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(number, Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE))
}

/// The number of a system error in a text, as errors and panics print it.
#[must_use]
pub fn number_in(text: &str) -> Option<i32> {
    ["code: ", "os error "].iter().find_map(|before| {
        let (_, behind) = text.split_once(before)?;
        let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok().filter(|number| *number > 0)
    })
}

/// Checks that `many` more threads can be started, by starting them. They end at once.
///
/// # Errors
/// The system cannot provide one of them.
pub fn threads(many: usize) -> io::Result<()> {
    // Each thread stays until all were started.
    let gate = Arc::new(RwLock::new(()));
    let closed = gate.write();
    let mut started = Vec::with_capacity(many);
    let mut refused = None;
    for _ in 0..many {
        let gate = Arc::clone(&gate);
        let probe = thread::Builder::new().name("probe".to_owned());
        match probe.spawn(move || drop(gate.read())) {
            Ok(thread) => started.push(thread),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    drop(closed);
    for thread in started {
        thread.join().ok();
    }
    refused.map_or(Ok(()), Err)
}

/// Checks that `many` more files can be opened.
///
/// # Errors
/// The system cannot provide one of them.
pub fn files(many: usize) -> io::Result<()> {
    let opened: io::Result<Vec<_>> = (0..many).map(|_| File::open("/")).collect();
    opened.map(drop)
}

/// Checks that there is enough memory to start.
///
/// # Errors
/// The system cannot provide it.
pub fn memory() -> io::Result<()> {
    let mut some = Vec::<u8>::new();
    some.try_reserve_exact(MIN_MEMORY)
        .map_err(|_| io::Error::from_raw_os_error(Errno::NOMEM.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_an_error_is_found_in_its_text() {
        let error = io::Error::from_raw_os_error(11);
        assert_eq!(number_in(&format!("panicked: {error:?}")), Some(11));
        assert_eq!(number_in(&error.to_string()), Some(11));
        assert_eq!(number_in("a page of code is damaged"), None);
        assert!(told(&error).contains("os error 11") && told(&error).contains("ulimit -u"));
        let wrapped = io::Error::other(format!("{:?}", io::Error::from_raw_os_error(24)));
        assert!(told(&wrapped).contains("ulimit -n"), "{}", told(&wrapped));
    }

    #[test]
    fn a_few_threads_can_be_started() {
        threads(4).expect("threads");
        files(4).expect("files");
        memory().expect("memory");
    }
}
