//! A test in a process of its own, for what a process has once: limits, a panic hook, a recording.

use std::process::{Command, Stdio};

/// Set in a process that runs one test.
const ALONE: &str = "SCOPEGATE_TEST_ALONE";

/// This binary with one test to run, started by the words of another command, such as `prlimit`.
pub fn alone(test: &str, by: &[&str]) -> Command {
    let binary = std::env::current_exe().expect("a path");
    let mut command = match by {
        [] => Command::new(binary),
        [first, more @ ..] => {
            let mut command = Command::new(first);
            command.args(more).arg(binary);
            command
        }
    };
    command.args(["--exact", test, "--nocapture"]).env(ALONE, "1");
    command
}

/// Whether this process runs one test only. Elsewhere it runs that test in such a process, and the
/// test has nothing left to do.
pub fn is_alone(test: &str, by: &[&str]) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let output = alone(test, by).stdin(Stdio::null()).output().expect("it runs");
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{test} in a process of its own: {}", output.status);
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "no test is {test}");
    false
}

/// Whether these words can run a command on this machine.
pub fn is_possible(by: &[&str]) -> bool {
    let [first, more @ ..] = by else { return true };
    let tried = Command::new(first).args(more).arg("true").stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}
