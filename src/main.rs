//! Main: parses the arguments, runs the command or the server, and returns the exit code.
//!
//! Not here: the commands ([`scopegate::cli`]) and the server ([`scopegate::server`]).

#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use scopegate::cli::command::Command;
use scopegate::cli::{FactsDiffer, KeysCommand, ReplicasCommand, environment};
use scopegate::metrics::shortage;
use scopegate::observe::log;
use scopegate::observe::log::LogFormat;
use scopegate::server::StartupError;
use scopegate::server::args::ServeArgs;
use scopegate::server::bootstrap::BootstrapArgs;
use scopegate::{cli, server};

/// mimalloc is fast for the allocations of calls: small, and freed by the thread that made them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The message of a server that panicked. The exit code is 70, by `sysexits.h`.
const PANICKED: &str = "the server failed because of a bug, which the line before shows: start it \
                        again, and report the bug";

fn main() -> ExitCode {
    let config = match environment::parse() {
        Ok(config) => config,
        Err(error) => return report_usage(&error),
    };
    match config.command {
        Command::Serve(args) => serve(*args),
        Command::Keys(KeysCommand::Bootstrap(args)) => bootstrap(&args),
        Command::Replicas(command) => replicas(command),
        command => {
            if let Command::Restore(_) = command {
                set_private_umask();
            }
            let no = command.negative_exit_code();
            run(command.run(), no)
        }
    }
}

/// Reports wrong arguments. The exit code is 64 for a server and 2 for a command. Help is no error.
fn report_usage(error: &clap::Error) -> ExitCode {
    let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let serves = std::env::args_os().nth(1).is_some_and(|argument| argument == "serve");
    if serves && !is_help {
        let format = if wants_json() { LogFormat::Json } else { LogFormat::Text };
        return log::end(format, &sentence(error), 64);
    }
    if is_help {
        error.print().ok();
    } else if let Some(line) = cli::failure::usage(&sentence(error)) {
        log::tell(&line);
    } else {
        error.print().ok();
        if let Some(variable) = environment::origin(error) {
            log::tell(&format!("The value is that of the variable {variable}."));
        }
    }
    if is_help { ExitCode::SUCCESS } else { ExitCode::from(cli::COULD_NOT_ASK) }
}

/// What is wrong with the arguments, in one line.
fn sentence(error: &clap::Error) -> String {
    let text = error.render().to_string();
    // Only the paragraphs of "error: " and "tip: " are used. --help shows the usage.
    let parts = text.split("\n\n").map(str::trim).enumerate();
    let parts = parts.filter(|(n, part)| *n == 0 || part.starts_with("tip: "));
    let parts = parts.map(|(_, part)| {
        let words: Vec<_> = part.split_whitespace().skip(1).collect();
        words.join(" ")
    });
    let variable = environment::origin(error);
    let variable = variable.map(|name| format!("the value is that of the variable {name}"));
    parts.chain(variable).chain(["see --help".to_owned()]).collect::<Vec<_>>().join("; ")
}

/// Whether the arguments request a JSON log. They may be invalid as a whole.
fn wants_json() -> bool {
    let arguments: Vec<_> = std::env::args_os().collect();
    let is_flag = arguments.windows(2).any(|two| two == ["--log-format", "json"]);
    let is_flag = is_flag || arguments.iter().any(|argument| argument == "--log-format=json");
    is_flag || std::env::var_os("SCOPEGATE_LOG_FORMAT").is_some_and(|format| format == "json")
}

/// Makes the files of the data directory private to this user: modes 0700 and 0600.
fn set_private_umask() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// The least number of threads that a server needs besides its workers and the threads of its
/// runtime: those of the store, and some that wait for the disk.
const MIN_THREADS: usize = 24;
/// The least number of files that a process opens besides those of workers.
const MIN_FILES: usize = 12;

fn serve(args: ServeArgs) -> ExitCode {
    let format = args.log_format;
    if let Err(error) = log::start(format, &args.log) {
        return log::end(format, &error, 64);
    }
    for warning in environment::unknown() {
        tracing::warn!("{warning}");
    }
    set_private_umask();
    let started = shortage::memory()
        .and_then(|()| shortage::files(MIN_FILES + 4 * args.worker_threads.get()))
        // The runtime panics if the system has no thread for it.
        .and_then(|()| {
            let runtime_threads =
                std::thread::available_parallelism().map_or(1, |threads| threads.get());
            shortage::threads(MIN_THREADS + runtime_threads + args.worker_threads.get())
        })
        .and_then(|()| tokio::runtime::Runtime::new());
    let runtime = match started {
        Ok(runtime) => runtime,
        Err(error) => {
            let why = format!("cannot start: {}", shortage::told(&error));
            return log::end(format, &why, 74);
        }
    };
    // The server runs on a thread of the runtime, where it may block on the disk at the end.
    let ended = runtime.block_on(async { tokio::spawn(server::run(args)).await });
    // An abandoned read of a large store must not delay the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(Ok(drained)) => {
            // Nothing runs any more, so this is the last line of the log.
            tracing::info!(calls_cut = drained.calls_cut, "drained");
            log::flush();
            ExitCode::SUCCESS
        }
        Ok(Err(failure)) => log::end(format, &failure.to_string(), failure.exit_code()),
        Err(_) => log::end(format, PANICKED, 70),
    }
}

/// The runtime of a command that uses no server.
fn single_threaded() -> std::io::Result<tokio::runtime::Runtime> {
    // It panics if the system has no file for it.
    shortage::files(MIN_FILES)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// The runtime of a command that uses a server. The connection has its own thread, so that pings are
/// answered while the command waits for a disk, a pipe or a person.
fn two_threaded() -> std::io::Result<tokio::runtime::Runtime> {
    shortage::files(MIN_FILES)?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

fn bootstrap(args: &BootstrapArgs) -> ExitCode {
    set_private_umask();
    let runtime = match single_threaded() {
        Ok(runtime) => runtime,
        Err(error) => {
            log::tell(&format!("scopegate: cannot start: {}", shortage::told(&error)));
            return ExitCode::from(74);
        }
    };
    match runtime.block_on(server::bootstrap(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log::tell(&format!("scopegate: {failure}"));
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Runs a command of replicas. The exit code is that of the error, by `sysexits.h`; 1 if facts differ; or 2
/// if a server gave no answer.
fn replicas(command: ReplicasCommand) -> ExitCode {
    set_private_umask();
    let ended = single_threaded().map_err(anyhow::Error::from);
    match ended.and_then(|runtime| runtime.block_on(cli::replicas(command))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::tell(&cli::failure::line(&error));
            let failure = error.downcast_ref::<StartupError>();
            let otherwise = if error.is::<FactsDiffer>() { 1 } else { cli::COULD_NOT_ASK };
            ExitCode::from(failure.map_or(otherwise, StartupError::exit_code))
        }
    }
}

/// Runs a command. The exit code is 0 for yes, `no` for no, and 2 if the command got no answer.
fn run(command: impl Future<Output = anyhow::Result<bool>>, no: u8) -> ExitCode {
    for mistyped in environment::mistyped() {
        cli::failure::warn(&mistyped);
    }
    let outcome = two_threaded().map_err(anyhow::Error::from).and_then(|runtime| {
        let outcome = runtime.block_on(command);
        // A name resolver that does not answer must not delay the end.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(no),
        Err(error) => {
            // A closed pipe needs no message: its reader, such as `head`, closed it.
            let pipe = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            if pipe != Some(std::io::ErrorKind::BrokenPipe) {
                log::tell(&cli::failure::line(&error));
            }
            ExitCode::from(cli::COULD_NOT_ASK)
        }
    }
}
