//! The door: parse, hand over, exit code.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory;
use clap::error::ErrorKind;
use scopegate::cli::command::{Cli, Command};
use scopegate::cli::environment;
use scopegate::metrics::shortage;
use scopegate::observe::log;
use scopegate::observe::log::LogFormat;
use scopegate::server::args::ServeArgs;
use scopegate::server::bootstrap::BootstrapArgs;
use scopegate::{cli, server};

/// Calls are made of small allocations, freed by the thread that made them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why a server ends that panicked; exit code 70, by `sysexits.h`.
const BROKEN: &str = "the server failed in a way that is a fault of its own, which the line before \
                      says: start it again, and report it";

fn main() -> ExitCode {
    let config = match environment::parse() {
        Ok(config) => config,
        Err(error) => return explain(&error),
    };
    match config.command {
        Command::Serve(args) => serve(*args),
        Command::Check(args) => ask(cli::check(args), 1),
        Command::Batch(args) => ask(cli::batch(args), 1),
        Command::Explain(args) => ask(cli::explain(*args), cli::COULD_NOT_ASK),
        Command::Effective(args) => ask(cli::effective(args), cli::COULD_NOT_ASK),
        Command::Company(command) => ask(cli::company(command), cli::COULD_NOT_ASK),
        Command::Credential(command) => ask(cli::credential(command), cli::COULD_NOT_ASK),
        Command::User(command) => ask(cli::user(command), cli::COULD_NOT_ASK),
        Command::Consent(command) => ask(cli::consent(command), cli::COULD_NOT_ASK),
        Command::Catalog(command) => ask(cli::catalog(command), cli::COULD_NOT_ASK),
        Command::Scope(command) => ask(cli::scope(command), cli::COULD_NOT_ASK),
        Command::Changes(command) => ask(cli::changes(command), cli::COULD_NOT_ASK),
        Command::Context(command) => ask(cli::context(command), cli::COULD_NOT_ASK),
        Command::Completions(args) => {
            ask(cli::completions(args, Cli::command()), cli::COULD_NOT_ASK)
        }
        Command::Health(args) => ask(cli::health(args), cli::COULD_NOT_ASK),
        Command::Keys(cli::KeysCommand::Bootstrap(args)) => bootstrap(&args),
        Command::Keys(command) => ask(cli::keys(command), cli::COULD_NOT_ASK),
        Command::Import(args) => ask(cli::import(args), cli::COULD_NOT_ASK),
        Command::Backup(args) => ask(cli::backup(args), cli::COULD_NOT_ASK),
        Command::Restore(args) => {
            keep_to_oneself();
            ask(async { cli::restore(args) }, cli::COULD_NOT_ASK)
        }
        Command::Export(args) => ask(cli::export(args), cli::COULD_NOT_ASK),
    }
}

/// Wrong words: 64 for a server, 2 for a command. Help is no error.
fn explain(error: &clap::Error) -> ExitCode {
    let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let serves = std::env::args_os().nth(1).is_some_and(|word| word == "serve");
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

/// What is wrong with the words, in one line.
fn sentence(error: &clap::Error) -> String {
    let why = error.render().to_string();
    // "error: " what is wrong, "tip: " what was meant; how the words go, --help says.
    let parts = why.split("\n\n").map(str::trim).enumerate();
    let parts = parts.filter(|(n, part)| *n == 0 || part.starts_with("tip: "));
    let parts = parts.map(|(_, part)| {
        let words: Vec<_> = part.split_whitespace().skip(1).collect();
        words.join(" ")
    });
    let variable = environment::origin(error);
    let variable = variable.map(|name| format!("the value is that of the variable {name}"));
    parts.chain(variable).chain(["see --help".to_owned()]).collect::<Vec<_>>().join("; ")
}

/// Whether a log in JSON was asked for, among words that make no sense as a whole.
fn wants_json() -> bool {
    let words: Vec<_> = std::env::args_os().collect();
    let asked = words.windows(2).any(|two| two == ["--log-format", "json"]);
    let asked = asked || words.iter().any(|word| word == "--log-format=json");
    asked || std::env::var_os("SCOPEGATE_LOG_FORMAT").is_some_and(|format| format == "json")
}

/// What is made in the data directory is for nobody else to read: 0700 and 0600.
fn keep_to_oneself() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// How many threads a server needs beside its cores and the workers of its runtime, at least:
/// the store's, and some that wait for the disk.
const THREADS: usize = 24;
/// How many files a server opens beside those of its cores, at least.
const FILES: usize = 12;

fn serve(args: ServeArgs) -> ExitCode {
    let format = args.log_format;
    if let Err(error) = log::start(format, &args.log) {
        return log::end(format, &error, 64);
    }
    for stranger in environment::unknown() {
        tracing::warn!("{stranger}");
    }
    keep_to_oneself();
    let started = shortage::memory()
        .and_then(|()| shortage::files(FILES + 4 * args.worker_threads.get()))
        // The runtime panics where it gets no thread.
        .and_then(|()| {
            let workers = std::thread::available_parallelism().map_or(1, |many| many.get());
            shortage::threads(THREADS + workers + args.worker_threads.get())
        })
        .and_then(|()| tokio::runtime::Runtime::new());
    let runtime = match started {
        Ok(runtime) => runtime,
        Err(error) => {
            let why = format!("cannot start: {}", shortage::told(&error));
            return log::end(format, &why, 74);
        }
    };
    // On a thread of the runtime, where waiting for the disk at the end is allowed.
    let ended = runtime.block_on(async { tokio::spawn(server::run(args)).await });
    // A read of a large store that nobody waits for any more must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(Ok(drained)) => {
            // Here, where nothing runs any more that could write another line.
            tracing::info!(calls_cut = drained.calls_cut, "drained");
            log::flush();
            ExitCode::SUCCESS
        }
        Ok(Err(failure)) => log::end(format, &failure.to_string(), failure.exit_code()),
        Err(_) => log::end(format, BROKEN, 70),
    }
}

/// The runtime of a command without a server.
fn single_threaded() -> std::io::Result<tokio::runtime::Runtime> {
    // It panics where it gets no file.
    shortage::files(FILES)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// The runtime of a command. The connection has a thread of its own: while the command waits for
/// a disk, a pipe or a person, the server's pings are answered and its answers to ours are read.
fn two_threaded() -> std::io::Result<tokio::runtime::Runtime> {
    shortage::files(FILES)?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

fn bootstrap(args: &BootstrapArgs) -> ExitCode {
    keep_to_oneself();
    let runtime = single_threaded();
    let runtime = match runtime {
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

/// Runs a command: 0 for yes, `no` for no, 2 if it could not ask.
fn ask(command: impl Future<Output = anyhow::Result<bool>>, no: u8) -> ExitCode {
    for mistyped in environment::mistyped() {
        cli::failure::warn(&mistyped);
    }
    let outcome = two_threaded().map_err(anyhow::Error::from).and_then(|runtime| {
        let outcome = runtime.block_on(command);
        // A resolver that does not answer must not hold up the end.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(no),
        Err(error) => {
            // Who reads no further, as `head` does, knows why.
            let pipe = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            if pipe != Some(std::io::ErrorKind::BrokenPipe) {
                log::tell(&cli::failure::line(&error));
            }
            ExitCode::from(cli::COULD_NOT_ASK)
        }
    }
}
