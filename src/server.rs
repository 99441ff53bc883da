//! Server: opens the store, builds the floors, serves, drains, closes.
//!
//! The port answers before the store is open, so that health can say NOT_SERVING; every other
//! call is UNAVAILABLE until then.
//!
//! Not here: how calls are answered; see `frame`, `core` and `service`.

mod bootstrap;
mod calls;
mod connection;
mod core;
mod demo;
mod follow;
mod frame;
mod health;
mod metrics;
mod pace;
mod quota;
mod refused_callers;
mod service;
mod tls;
mod traces;
mod turn;

use std::fs;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::signal::unix::{SignalKind, signal};

pub use self::bootstrap::bootstrap;
use self::frame::Frame;
use crate::authority::refusal::Refusal;
use crate::authority::{ApplyError, Authority};
use crate::config::memory::Share;
use crate::config::{Retention, ServeArgs};
use crate::grpc::Doors;
use crate::policy::catalog::file::{self, CatalogFile};
use crate::policy::change::Author;
use crate::store::sled::{OpenError, SledStore};
use crate::store::{LEAD, StoreError};

/// The catalog of the demo.
pub const DEMO_CATALOG: &str = include_str!("../catalogs/360learning.yaml");

/// Why a server did not start, or did not end well. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is wrong: exit code 64.
    #[error("{0}")]
    Config(String),
    /// The store cannot be opened: exit code 74.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store failed under way: exit code 74.
    #[error("the store failed and the server stopped: {0}; check the disk, then start again")]
    Store(#[from] StoreError),
    /// A part of the server that it cannot do without panicked: exit code 70.
    #[error(
        "`{0}`, without which nothing is served, failed by a fault of the server, which the line \
         before says: start it again, and report it"
    )]
    Broken(&'static str),
}

impl Failure {
    /// The exit code, by `sysexits.h`.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 64,
            Self::Open(_) | Self::Store(_) => 74,
            Self::Broken(_) => 70,
        }
    }
}

/// Serves until a SIGTERM or SIGINT, then drains.
///
/// # Errors
/// The server could not start, or the store failed.
pub async fn run(args: ServeArgs) -> Result<(), Failure> {
    let catalog = catalog_of(&args)?;
    let mut frame = Frame::listen(&args).await?;
    let outcome = serve(&args, catalog.as_deref(), &mut frame).await;
    frame.drain(Duration::from_secs(args.drain_seconds)).await;
    outcome
}

async fn serve(args: &ServeArgs, catalog: Option<&str>, frame: &mut Frame) -> Result<(), Failure> {
    let mut end = Signals::new()?;
    let authority = tokio::select! {
        opened = open(args, catalog, &frame.doors) => opened?,
        name = end.next() => {
            tracing::info!(signal = name, "ending before the store was open");
            return Ok(());
        }
    };
    let asks_for_keys = authority.asks_for_keys();
    if !args.listen.ip().is_loopback() && !asks_for_keys {
        tracing::warn!(
            "callers are not authenticated: anybody who reaches this address can change everything"
        );
    }
    frame.say_serving().await;
    let (data_dir, revision) = (args.data_dir.display(), authority.published());
    let callers = if asks_for_keys { "by key" } else { "not authenticated" };
    tracing::info!(address = %frame.address, %data_dir, %revision, callers, "serving");
    if args.demo {
        // On a thread of its own: nobody may be reading, now or any more.
        let lines = demo::lines(frame.address, args.tls_cert.is_some());
        let print = move || io::stdout().write_all(lines.as_bytes()).ok();
        std::thread::Builder::new().name("demo".to_owned()).spawn(print).ok();
    }
    let mut failure = authority.failure();
    let mut tick = tokio::time::interval(LEAD / 2);
    let mut minute = tokio::time::interval(Duration::from_secs(60));
    let mut hangup = signal(SignalKind::hangup())
        .map_err(|error| Failure::Config(format!("cannot wait for signals: {error}")))?;
    loop {
        tokio::select! {
            name = end.next() => {
                tracing::info!(signal = name, "draining");
                return Ok(());
            }
            _ = failure.wait_for(|failed| *failed) => return Err(StoreError::Unavailable.into()),
            name = frame.supervisor.failed() => return Err(Failure::Broken(name)),
            _ = hangup.recv() => {
                if let Some(log) = &frame.doors.decisions {
                    log.reopen();
                }
            }
            _ = tick.tick() => authority.keep_time(),
            _ = minute.tick() => authority.keep_seen(),
        }
    }
}

/// Opens the store and the doors.
async fn open<'a>(
    args: &ServeArgs,
    catalog: Option<&str>,
    doors: &'a Doors,
) -> Result<&'a Authority, Failure> {
    let data_dir = args.data_dir.clone();
    let share = Share::fitting(args.cores);
    let entries = args.cache_entries.unwrap_or(share.cache_entries);
    let page_cache = args.page_cache_mib.unwrap_or(share.page_cache_mib);
    tracing::info!(cache_entries = entries, page_cache_mib = page_cache, "opening the store");
    let (page_cache, keep_changes) = (u64::from(page_cache) << 20, args.keep_changes);
    let opened = tokio::task::spawn_blocking(move || {
        let mut store = SledStore::open_with_page_cache(&data_dir, page_cache)?;
        if let Retention::Seconds(kept) = keep_changes {
            store = store.keeping_changes_for(SignedDuration::from_secs(kept.into()));
        }
        Authority::new(Arc::new(store), entries)
            .map_err(|_| OpenError::Damaged(data_dir.display().to_string()))
    });
    let authority = opened.await.map_err(|_| StoreError::Damaged)??;
    let authority = authority.admitting_anybody(args.allow_unauthenticated);
    let prepared = prepare(&authority, catalog, args).await;
    if prepared.is_err() {
        tokio::task::block_in_place(|| authority.close());
    }
    prepared?;
    // Only now: whoever comes before would be served by what is not settled yet.
    Ok(doors.open(authority))
}

/// Sees to it that a store can be served as it was asked for.
async fn prepare(
    authority: &Authority,
    catalog: Option<&str>,
    args: &ServeArgs,
) -> Result<(), Failure> {
    let is_open_to_all = !args.allow_unauthenticated && !authority.asks_for_keys();
    if !args.listen.ip().is_loopback() && is_open_to_all {
        return Err(open_to_all(args));
    }
    apply_catalog(authority, catalog, args).await?;
    if args.demo {
        demo::furnish(authority).await.map_err(|error| Failure::Config(error.to_string()))?;
    }
    Ok(())
}

/// Nobody asked for a server that everybody can change.
fn open_to_all(args: &ServeArgs) -> Failure {
    Failure::Config(format!(
        "--listen {} is not a loopback address and there is no key yet, so anybody who reaches it \
         could change everything: make the first by `scopegate keys bootstrap --data-dir {}`, \
         listen on 127.0.0.1, or give --allow-unauthenticated",
        args.listen,
        args.data_dir.display()
    ))
}

/// The catalog to start with, read and understood before anything opens.
fn catalog_of(args: &ServeArgs) -> Result<Option<String>, Failure> {
    // Where there is no store there is no key: to be told before anything opens.
    if !args.listen.ip().is_loopback()
        && !args.allow_unauthenticated
        && !SledStore::exists(&args.data_dir)
    {
        return Err(open_to_all(args));
    }
    if args.demo {
        return Ok(Some(DEMO_CATALOG.to_owned()));
    }
    let Some(path) = &args.catalog else { return Ok(None) };
    let wrong = |what: String| Failure::Config(format!("--catalog {}: {what}", path.display()));
    let size = fs::metadata(path).map_err(|error| wrong(error.kind().to_string()))?.len();
    if size > file::MAX_LEN as u64 {
        return Err(wrong(format!("has {size} bytes, the limit is {}", file::MAX_LEN)));
    }
    let yaml = fs::read_to_string(path).map_err(|error| wrong(error.kind().to_string()))?;
    CatalogFile::parse(&yaml).map_err(|errors| wrong(errors.to_string()))?;
    Ok(Some(yaml))
}

async fn apply_catalog(
    authority: &Authority,
    catalog: Option<&str>,
    args: &ServeArgs,
) -> Result<(), Failure> {
    let Some(yaml) = catalog else {
        let read = authority.catalog().await;
        if read.is_ok_and(|read| read.resource.yaml.is_empty()) {
            tracing::warn!(
                "the store has no catalog, so every check is denied: give one by --catalog"
            );
        }
        return Ok(());
    };
    let author = Author {
        actor: "scopegate serve".to_owned(),
        on_behalf_of: String::new(),
        reason: "the catalog file at the start".to_owned(),
    };
    match authority.apply_catalog_file(yaml, args.allow_catalog_removals, &author).await {
        Ok(Some(revision)) => tracing::info!(%revision, "applied the catalog file"),
        Ok(None) => tracing::info!("the catalog file was applied before"),
        Err(ApplyError::Refused(Refusal::Store(error))) => return Err(error.into()),
        Err(error @ ApplyError::Refused(Refusal::RemovesScopes(_))) => {
            return Err(Failure::Config(format!(
                "{error} from the platform; give --allow-catalog-removals if that is meant"
            )));
        }
        Err(error) => return Err(Failure::Config(error.to_string())),
    }
    Ok(())
}

/// The signals that end a server.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::Config(format!("cannot wait for signals: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
