//! Hangs: what does not end is a failure that shows what each thread waits for.
//!
//! A wait for a process has a limit of its own. Everything else that a test waits for is under the limit
//! of the test: a thread of this process looks how long each test has been running.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long a process may take to end.
pub const END_LIMIT: Duration = Duration::from_secs(120);
/// How long a call may take until its response begins. A longer stream is not cut.
pub const CALL_LIMIT: Duration = Duration::from_secs(300);
/// How long a test may take, unless `SCOPEGATE_TEST_SECONDS` says otherwise. The longest takes half a
/// minute on an idle machine.
const TEST_LIMIT: Duration = Duration::from_secs(600);
/// How many lines of a log a report shows.
const LAST_LINES: usize = 30;

/// The log of a server, by line.
pub type Log = Arc<Mutex<Vec<String>>>;

/// The log of a server that may have been dropped.
type WeakLog = Weak<Mutex<Vec<String>>>;

/// The logs of the servers that run, by process.
static LOGS: Mutex<Vec<(u32, WeakLog)>> = Mutex::new(Vec::new());

/// Shows this log in a report on the process.
pub fn show_log(pid: u32, log: &Log) {
    let mut logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner);
    logs.retain(|(_, log)| log.strong_count() > 0);
    logs.push((pid, Arc::downgrade(log)));
}

/// Waits until a process ends. Panics with a report, and kills it, if it does not.
pub fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + END_LIMIT;
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait().expect("a process") {
            return status;
        }
        if Instant::now() > deadline {
            let report = report(child.id());
            child.kill().ok();
            child.wait().ok();
            panic!("the process does not end in {} s\n{report}", END_LIMIT.as_secs());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Ends this process with a report if a test takes too long. The first call starts the watch.
pub fn watch_tests() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let limit = std::env::var("SCOPEGATE_TEST_SECONDS").ok();
        let limit = limit.map(|limit| Duration::from_secs(limit.parse().expect("seconds")));
        let limit = limit.unwrap_or(TEST_LIMIT);
        let watch = std::thread::Builder::new().name("hang-watch".to_owned());
        watch.spawn(move || watch_until_one_hangs(limit)).expect("a thread");
    });
}

fn watch_until_one_hangs(limit: Duration) {
    let mut begun: HashMap<String, Instant> = HashMap::new();
    loop {
        let running = tests_that_run();
        begun.retain(|test, _| running.contains(test));
        for test in running {
            let since = *begun.entry(test.clone()).or_insert_with(Instant::now);
            if since.elapsed() > limit {
                // Whatever else runs is shown too: it may be what the test waits for.
                eprintln!("\nthe test `{test}` hangs: it takes more than {} s", limit.as_secs());
                let others = descendants(std::process::id());
                for pid in std::iter::once(std::process::id()).chain(others.iter().copied()) {
                    eprintln!("{}", report(pid));
                }
                kill_after_this_process(&others);
                std::process::exit(101);
            }
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Kills these processes when this one has ended: before, the test could go on, and pass.
fn kill_after_this_process(pids: &[u32]) {
    let pids: Vec<_> = pids.iter().map(ToString::to_string).collect();
    let mut shell = Command::new("sh");
    let script = "read end; kill -KILL \"$@\"";
    shell.args(["-c", script, "sh"]).args(pids);
    // The end of this process is the end of the shell's input.
    let started = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    std::mem::forget(started);
}

/// The tests that run: the thread of a test has its name, of which the kernel keeps the beginning. With
/// the id and the time of its start, each is another one.
fn tests_that_run() -> Vec<String> {
    let threads = threads(std::process::id()).into_iter();
    let tests = threads.filter_map(|thread| {
        let name = line_of(&thread, "comm");
        let stat = line_of(&thread, "stat");
        let started = stat.rsplit(") ").next()?.split(' ').nth(19)?;
        let id = thread.rsplit('/').next()?;
        name.contains("::").then(|| format!("{name} (thread {id} of {started})"))
    });
    tests.collect()
}

/// What a process does: its state, what each of its threads waits for, its connections, and the end of its
/// log.
fn report(pid: u32) -> String {
    let mut report = format!("process {pid}: {}\n", words_of(pid));
    // Threads that wait for the same are one line.
    let mut waits: Vec<(String, Vec<String>)> = Vec::new();
    for thread in threads(pid) {
        let stat = line_of(&thread, "stat");
        let state = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').next());
        let stack = fs::read_to_string(format!("{thread}/stack")).unwrap_or_default();
        let stack: Vec<_> =
            stack.lines().map(|line| line.trim_start_matches("[<0>] ")).take(6).collect();
        let wait = format!(
            "{} in {}, stack: {}",
            state.unwrap_or("?"),
            line_of(&thread, "wchan"),
            stack.join(" < ")
        );
        let id = thread.rsplit('/').next().unwrap_or_default();
        let name = format!("{} ({id})", line_of(&thread, "comm"));
        match waits.iter_mut().find(|(other, _)| *other == wait) {
            Some((_, names)) => names.push(name),
            None => waits.push((wait, vec![name])),
        }
    }
    for (wait, names) in waits {
        writeln!(report, "  {wait}\n    {}", names.join(", ")).expect("a text");
    }
    for (program, args) in [
        ("ss", format!("-H -t -a -n -p -O|grep -w pid={pid}")),
        ("gdb", format!("-p {pid} -batch -nx -ex 'thread apply all bt 30'|grep -v '^\\[New'")),
    ] {
        let script = format!("command -v {program} >/dev/null && timeout 60 {program} {args}");
        let said = Command::new("sh").args(["-c", &script]).output();
        let said = said.map(|said| said.stdout).unwrap_or_default();
        report.push_str(&String::from_utf8_lossy(&said));
    }
    let logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // The last of an id: the process before it has ended.
    let log = logs.iter().rev().find(|(other, _)| *other == pid).and_then(|(_, log)| log.upgrade());
    if let Some(log) = log {
        let log = log.lock().unwrap_or_else(PoisonError::into_inner);
        for line in &log[log.len().saturating_sub(LAST_LINES)..] {
            writeln!(report, "  log: {line}").expect("a text");
        }
    }
    report
}

fn words_of(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ").trim_end().to_owned()
}

fn threads(pid: u32) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.map(|thread| thread.path().to_string_lossy().into_owned()).collect()
}

fn line_of(thread: &str, file: &str) -> String {
    let line = fs::read_to_string(Path::new(thread).join(file)).unwrap_or_default();
    line.trim_end().to_owned()
}

/// The processes that a process started, and those that they started.
fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut left = vec![pid];
    while let Some(pid) = left.pop() {
        for thread in threads(pid) {
            let children: Vec<u32> =
                line_of(&thread, "children").split(' ').filter_map(|id| id.parse().ok()).collect();
            found.extend(&children);
            left.extend(children);
        }
    }
    found
}

/// This test hangs if it is asked to, in a process of its own.
#[test]
fn test_that_hangs_is_a_failure_that_shows_what_it_waits_for() {
    const TEST: &str = "harness::hang::test_that_hangs_is_a_failure_that_shows_what_it_waits_for";
    const LOOP: &str = "SCOPEGATE_TEST_HANGS";
    if std::env::var_os(LOOP).is_some() {
        let mut command = Command::new("sleep");
        let mut child = command.arg("1000").spawn().expect("it runs");
        watch_tests();
        child.wait().expect("it ends");
        return;
    }
    if !Path::new("/proc/self/task").exists() {
        return;
    }
    let mut hangs = super::process::alone(TEST, &[]);
    // Its parent waits without a limit, and with one for each test.
    let ended = hangs.env(LOOP, "1").env("SCOPEGATE_TEST_SECONDS", "1").output().expect("it runs");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(101), "{said}");
    for part in ["the test `harness::hang", "hangs: it takes more than 1 s", "sleep 1000"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}
