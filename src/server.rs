//! Server: the life of a server process: opens the store, serves, drains and closes.
//!
//! The port is open before the store is, so that health can report NOT_SERVING. Every other call is
//! UNAVAILABLE until the store is open.
//!
//! Not here: how calls are answered; see [`crate::transport`].

pub mod args;
pub mod bootstrap;
mod catalog_file;
mod demo;
pub mod detachment;
pub mod etcd_args;
mod first_key_file;
mod http_url;
pub mod initialisation;
mod memory_share;
mod own_issuer;
pub mod replica_args;
mod replica_start;
mod settings;
mod signals;
#[cfg(test)]
mod snapshot_tests;

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;

pub use self::bootstrap::bootstrap;
use self::catalog_file::CatalogAtStart;
use self::memory_share::MemoryShare;
use self::own_issuer::own_issuer;
use self::replica_args::replica_settings;
use self::replica_start::{PAUSE, ReplicaStart, joined, tell_accepted_clock};
use self::settings::settings;
use self::signals::{ReloadSignals, TerminationSignals};
use crate::authority::error::AuthorityError;
use crate::authority::own_issuer::OwnIssuer;
use crate::authority::signing_keys::KeyDirectory;
use crate::authority::{ApplyError, Authority};
use crate::grpc::Api;
use crate::policy::change::Author;
use crate::policy::revision::Revision;
use crate::server::args::{Retention, ServeArgs};
use crate::store::lease::Lease;
use crate::store::replicated::members_view::MembersView;
use crate::store::replicated::{self, ReplicaError};
use crate::store::{CLOCK_LEAD, StoreError};
use crate::store::{OpenError, Store};
use crate::transport::error::TransportError;
use crate::transport::key_file;
use crate::transport::listen_address::ListenAddress;
use crate::transport::listener::Listener;

/// The actor of the server itself in the audit log.
const SERVE: &str = "scopegate serve";

/// The catalog of the demo.
pub const DEMO_CATALOG: &str = include_str!("../catalogs/360learning.yaml");

/// Why a server did not start, or failed. Each message is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// The configuration is wrong. Exit code 64.
    #[error("{0}")]
    Config(String),
    /// The system has no thread, file or memory left for the server. Exit code 74.
    #[error("{0}")]
    Shortage(String),
    /// The store cannot be opened. Exit code 74.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// etcd did not answer. Exit code 69.
    #[error("{0}")]
    Etcd(String),
    /// The store failed while the server ran. Exit code 74.
    #[error("the store failed and the server stopped: {0}; check the disk, then start again")]
    Store(#[from] StoreError),
    /// The replica needs a snapshot, which it takes when it is started again. Exit code 75.
    #[error("{0}; the replica takes it at its next start")]
    Behind(String),
    /// The server cannot be, or remain, a replica of its cluster. Exit code 74.
    #[error("{0}")]
    Replica(String),
    /// A task or thread that the server needs panicked. Exit code 70.
    #[error(
        "the task `{0}`, which the server needs, failed because of a bug, which the line before \
         shows: start the server again, and report the bug"
    )]
    Broken(&'static str),
}

impl StartupError {
    /// The exit code, by `sysexits.h`.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 64,
            Self::Etcd(_) => 69,
            Self::Shortage(_) | Self::Open(_) | Self::Store(_) | Self::Replica(_) => 74,
            Self::Behind(_) => 75,
            Self::Broken(_) => 70,
        }
    }
}

impl From<ReplicaError> for StartupError {
    fn from(error: ReplicaError) -> Self {
        match error {
            ReplicaError::Settings(what) => Self::Config(what),
            ReplicaError::NoThread => Self::Shortage(error.to_string()),
            ReplicaError::NoAnswer(_) | ReplicaError::Log(_) => Self::Replica(error.to_string()),
        }
    }
}

impl From<TransportError> for StartupError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Config(what) => Self::Config(what),
            TransportError::Shortage(what) => Self::Shortage(what),
        }
    }
}

/// The outcome of a server that shut down normally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// How many calls were still open at the drain timeout.
    pub calls_cut: u64,
}

/// Serves until a SIGTERM or SIGINT, and then drains.
///
/// # Errors
/// The server could not start, or the store failed.
pub async fn run(args: ServeArgs) -> Result<Drained, StartupError> {
    run_under_lease(args, Arc::new(Lease::unlimited())).await
}

/// As [`run`], but calls are answered only while this lease holds. Another part of the program begins and
/// ends its sessions.
///
/// # Errors
/// As for [`run`].
pub async fn run_under_lease(args: ServeArgs, lease: Arc<Lease>) -> Result<Drained, StartupError> {
    // This comes first: until then each of these signals ends the process.
    let mut reloads = ReloadSignals::listen()
        .map_err(|error| StartupError::Config(format!("cannot wait for signals: {error}")))?;
    let catalog = catalog_of(&args)?;
    let own_issuer = own_issuer(&args)?;
    let replica = replica_settings(&args)?;
    let mut listener = Listener::listen(settings(&args)).await?;
    let kind = match replica {
        Some(settings) => StoreKind::OfReplica(Box::new(settings)),
        None => StoreKind::Alone(lease),
    };
    let outcome = serve(&args, kind, &catalog, own_issuer, &mut listener, &mut reloads).await;
    // Without an open store there is no call to wait for, and nothing to close.
    let calls_cut = match listener.api.authority() {
        Some(_) => listener.drain(Duration::from_secs(args.drain_timeout.into())).await,
        None => 0,
    };
    outcome.map(|()| Drained { calls_cut })
}

/// Whose store a server opens.
enum StoreKind {
    /// Its own, and calls are answered while this lease holds.
    Alone(Arc<Lease>),
    /// That of one of several replicas.
    OfReplica(Box<replicated::Settings>),
}

async fn serve(
    args: &ServeArgs,
    kind: StoreKind,
    catalog: &CatalogAtStart,
    own_issuer: Option<OwnIssuer>,
    listener: &mut Listener,
    reloads: &mut ReloadSignals,
) -> Result<(), StartupError> {
    let mut end = TerminationSignals::listen()?;
    let authority = tokio::select! {
        opened = open(args, kind, catalog, own_issuer, &listener.api) => opened?,
        name = end.next() => {
            tracing::info!(signal = name, "ending before the store was open");
            return Ok(());
        }
    };
    let requires_keys = authority.requires_keys();
    if exposed_address(args).is_some() && !requires_keys {
        tracing::warn!(
            "callers are not authenticated: every client that reaches this address can change everything"
        );
    }
    // The server serves without keys of issuers: their tokens cannot be verified until they are read.
    let _issuers = authority.follow_issuers(&listener.jwks, &listener.supervisor);
    if let Some(replica) = authority.replica() {
        listener.api.serve_peers(replica.state());
        replica_start::discard(&args.data_dir);
    }
    let _health = listener.set_serving(authority);
    let (data_dir, revision) = (args.data_dir.display(), authority.published());
    let callers = if requires_keys { "by key" } else { "not authenticated" };
    let oauth_address = listener.oauth_address.map(tracing::field::display);
    let address = ListenAddress::main(&listener.addresses);
    let all: Vec<_> = listener.addresses.iter().map(ToString::to_string).collect();
    let http_address = listener.http_address.map(tracing::field::display);
    tracing::info!(
        address = address.map(tracing::field::display),
        addresses = all.join(","),
        oauth_address,
        http_address,
        %data_dir,
        %revision,
        callers,
        "serving"
    );
    if let Some(address) = address.filter(|_| args.demo) {
        // Standard output may be blocked or closed, so a separate thread writes to it.
        let lines = demo::lines(address, args.tls_cert.is_some());
        let print = move || io::stdout().write_all(lines.as_bytes()).ok();
        std::thread::Builder::new().name("demo".to_owned()).spawn(print).ok();
    }
    let rotate_every = match args.rotate_signing_key {
        Retention::Forever => None,
        Retention::Seconds(seconds) => Some(Duration::from_secs(seconds.into())),
    };
    let _rotation =
        args.oauth.map(|_| authority.rotate_signing_keys(rotate_every, &listener.supervisor));
    let mut failure = authority.failure();
    let mut tick = tokio::time::interval(CLOCK_LEAD / 2);
    let mut minute = tokio::time::interval(Duration::from_secs(60));
    loop {
        tokio::select! {
            name = end.next() => {
                tracing::info!(signal = name, "draining");
                return Ok(());
            }
            _ = failure.wait_for(|failed| *failed) => return Err(StoreError::Unavailable.into()),
            error = replica_start::failed(authority) => return Err(error),
            name = listener.supervisor.failed() => return Err(StartupError::Broken(name)),
            () = reloads.next() => listener.reload(),
            _ = tick.tick() => authority.keep_time(),
            _ = minute.tick() => authority.keep_seen(),
        }
    }
}

/// Opens the store and the API.
async fn open<'a>(
    args: &ServeArgs,
    kind: StoreKind,
    catalog: &CatalogAtStart,
    own_issuer: Option<OwnIssuer>,
    api: &'a Api,
) -> Result<&'a Authority, StartupError> {
    let data_dir = args.data_dir.clone();
    let share = MemoryShare::of_process(args.token_cache_entries);
    let entries = args.cache_entries.unwrap_or(share.cache_entries);
    let page_cache = args.page_cache_mib.unwrap_or(share.page_cache_mib);
    tracing::info!(cache_entries = entries, page_cache_mib = page_cache, "opening the store");
    let (page_cache, audit_log_retention) = (u64::from(page_cache) << 20, args.audit_log_retention);
    let (accepts_clock, bounds) = (args.accept_clock, args.company_bounds());
    let (of_replica, lease) = match kind {
        StoreKind::Alone(lease) => (None, lease),
        StoreKind::OfReplica(settings) => {
            let start = ReplicaStart::new(args, *settings)?;
            let store = start.open(&data_dir, page_cache).await?;
            (Some(store), Arc::new(Lease::none()))
        }
    };
    let members = match of_replica.as_ref().and_then(Store::replica).filter(|_| accepts_clock) {
        Some(replica) => replica.live_members().await?,
        None => MembersView::default(),
    };
    let opened = tokio::task::spawn_blocking(move || {
        let store = match of_replica {
            Some(store) => store,
            None => {
                let store = Store::open_with_page_cache(&data_dir, page_cache)?;
                check_standalone(&store, &data_dir)?;
                store.with_lease(lease)
            }
        };
        let mut store = store.bounding_companies(bounds);
        if let Retention::Seconds(kept) = audit_log_retention {
            store = store.keeping_changes_for(SignedDuration::from_secs(kept.into()));
        }
        if accepts_clock {
            accept_clock(&mut store, &members)?;
        }
        let upgraded_from = store.upgraded_from();
        let authority = Authority::new(Arc::new(store), entries);
        let authority = authority.map_err(|error| OpenError::of(&data_dir, &error))?;
        Ok::<_, StartupError>((authority, upgraded_from))
    });
    let (authority, upgraded_from) = opened.await.map_err(|error| {
        let message = error.try_into_panic().ok().and_then(|panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            text.or_else(|| panic.downcast_ref::<String>().cloned())
        });
        OpenError::of_panic(&args.data_dir, &message.unwrap_or_default())
    })??;
    let authority = authority
        .allow_unauthenticated(args.allow_unauthenticated)
        .token_cache(args.token_cache_entries)
        .with_own_issuer(own_issuer);
    let authority = Opening(Some(authority));
    // The rules for paths and methods changed with schema 2.
    if upgraded_from == Some(1) {
        for sentence in upgrade_notices(authority.get()?).await {
            tracing::warn!("{sentence}");
        }
    }
    if let Some(replica) = authority.get()?.replica() {
        let kept = match args.audit_log_retention {
            Retention::Forever => None,
            Retention::Seconds(kept) => Some(Duration::from_secs(kept.into())),
        };
        replica.report().send_modify(|report| {
            (report.audit_log_retention, report.catalog) = (kept, catalog.digest());
        });
    }
    let prepared = async {
        joined(authority.get()?).await?;
        tell_accepted_clock(authority.get()?).await?;
        prepare(authority.get()?, catalog, args).await
    };
    let prepared = prepared.await;
    api.catalog_rejected.set(prepared?.into());
    // The API opens last: before, the catalog and the keys are not settled.
    Ok(api.open(authority.opened().ok_or(StoreError::Unavailable)?))
}

/// An authority until its API is open. It is closed if it does not come to that: the store has threads,
/// and a replica has a record that other replicas wait for.
struct Opening(Option<Authority>);

impl Opening {
    fn get(&self) -> Result<&Authority, StoreError> {
        self.0.as_ref().ok_or(StoreError::Unavailable)
    }

    fn opened(mut self) -> Option<Authority> {
        self.0.take()
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(authority) = &self.0 {
            tokio::task::block_in_place(|| authority.close());
        }
    }
}

/// Refuses the store of a replica to what does not follow the log of its cluster: the store would get
/// changes that the log does not have.
fn check_standalone(store: &Store, dir: &Path) -> Result<(), StartupError> {
    let Some(cluster) = store.cluster() else { return Ok(()) };
    Err(StartupError::Config(format!(
        "the store in `{}` is one of the replicas of the cluster `{}`: start it with --replicate, or \
         restore a backup into another directory for a server of its own",
        dir.display(),
        cluster.id
    )))
}

/// Sentences about decisions of the current catalog that changed with an upgrade of the store.
async fn upgrade_notices(authority: &Authority) -> Vec<String> {
    let Ok(catalog) = authority.internal_session(SERVE).catalog().await else { return vec![] };
    let sentences = catalog.resource.upgrade_notices().into_iter();
    sentences.map(|sentence| format!("since the upgrade: {sentence}")).collect()
}

/// Prepares a store to be served as the flags require. True: the catalog file was rejected.
async fn prepare(
    authority: &Authority,
    catalog: &CatalogAtStart,
    args: &ServeArgs,
) -> Result<bool, StartupError> {
    let is_open_to_all = !args.allow_unauthenticated && !authority.requires_keys();
    if let (Some(exposed), true) = (exposed_address(args), is_open_to_all) {
        return Err(open_to_all(args, exposed));
    }
    let rejected = apply_catalog(authority, catalog, args).await?;
    let in_force = authority.internal_session(SERVE).catalog().await.map_err(startup_error)?;
    authority.check_issuers(&in_force.resource).map_err(startup_error)?;
    if args.oauth.is_some() {
        let directory = match args.signing_keys {
            Some(_) => KeyDirectory::Shared,
            None => KeyDirectory::Own,
        };
        prepare_signing_keys(authority, directory).await?;
    }
    if args.demo {
        demo::seed(authority).await.map_err(|error| StartupError::Config(error.to_string()))?;
    }
    Ok(rejected)
}

/// The flag and the address for callers that other machines reach, if there is one.
fn exposed_address(args: &ServeArgs) -> Option<(&'static str, ListenAddress)> {
    let http = args.http.map(|address| ("--http", ListenAddress::Tcp(address)));
    let mut all = args.listen.iter().map(|address| ("--listen", address.clone())).chain(http);
    all.find(|(_, address)| !address.is_local())
}

/// The error for an address that others reach, when no key exists and the operator has not allowed
/// callers without one.
fn open_to_all(args: &ServeArgs, (flag, address): (&str, ListenAddress)) -> StartupError {
    StartupError::Config(format!(
        "{flag} {address} is not a loopback address and there is no key yet, so every client that \
         reaches it could change everything: make the first key with `scopegate keys bootstrap --data-dir {}`, \
         listen on 127.0.0.1, or give --allow-unauthenticated",
        args.data_dir.display()
    ))
}

/// Reads and validates the catalog file before anything opens. An invalid file ends the start if the
/// store has no catalog, or with `--strict-catalog`.
fn catalog_of(args: &ServeArgs) -> Result<CatalogAtStart, StartupError> {
    // Without a store there is no key. This is reported before anything opens. A new replica gets the store
    // of its cluster.
    let exists = args.replica.is_replica() || Store::exists(&args.data_dir);
    let needs_key = !args.allow_unauthenticated && !exists;
    if let (Some(exposed), true) = (exposed_address(args), needs_key) {
        return Err(open_to_all(args, exposed));
    }
    if args.demo {
        return Ok(CatalogAtStart::Text(DEMO_CATALOG.to_owned()));
    }
    let Some(path) = &args.catalog else { return Ok(CatalogAtStart::None) };
    match catalog_file::read(path, exists) {
        Ok(yaml) => Ok(CatalogAtStart::Text(yaml)),
        Err(why) if exists && !args.strict_catalog => Ok(CatalogAtStart::Unusable(why)),
        Err(why) => Err(StartupError::Config(why)),
    }
}

/// Applies the catalog file. True: the file was rejected, and the current catalog stays.
async fn apply_catalog(
    authority: &Authority,
    catalog: &CatalogAtStart,
    args: &ServeArgs,
) -> Result<bool, StartupError> {
    let session = authority.internal_session(SERVE);
    let read = session.catalog().await.map_err(startup_error)?;
    let current = read.resource.revision;
    let has_catalog = current > Revision::ZERO;
    let why = match catalog {
        CatalogAtStart::None => {
            if read.resource.yaml.is_empty() {
                tracing::warn!(
                    "the store has no catalog, so every check is denied: give one with --catalog"
                );
            }
            return Ok(false);
        }
        CatalogAtStart::Unusable(why) => why.clone(),
        CatalogAtStart::Text(yaml) => {
            let reason = "the catalog file at the start";
            let apply = || session.apply_catalog_file(yaml, args.allow_catalog_removals, reason);
            let mut applied = apply().await;
            // What came of it, the catalog tells when this replica has joined its cluster again.
            while let Err(ApplyError::Refused(AuthorityError::Store(
                StoreError::CutOff | StoreError::NotYetEverywhere(_),
            ))) = applied
            {
                tokio::time::sleep(PAUSE).await;
                joined(authority).await?;
                applied = apply().await;
            }
            match applied {
                Ok(Some(revision)) => {
                    tracing::info!(%revision, "applied the catalog file");
                    if let Ok(read) = session.catalog().await {
                        for warning in read.resource.issuer_warnings() {
                            tracing::warn!("{warning}");
                        }
                    }
                    return Ok(false);
                }
                Ok(None) => {
                    match authority.replica() {
                        Some(_) if catalog.digest() != Some(authority.catalog_digest()) => {
                            tracing::warn!(
                                "the catalog file differs from the catalog in force, which stays: apply \
                                 it with `scopegate catalog apply`"
                            );
                        }
                        _ => tracing::info!("the catalog file was applied before"),
                    }
                    return Ok(false);
                }
                // A full disk does not end the start: checks need no disk space.
                Err(ApplyError::Refused(AuthorityError::Store(error)))
                    if !matches!(
                        error,
                        StoreError::NearlyFull
                            | StoreError::KeysOnly
                            | StoreError::Full
                            | StoreError::LogNearlyFull
                    ) =>
                {
                    return Err(error.into());
                }
                Err(error @ ApplyError::Refused(AuthorityError::RemovesScopes(_))) => format!(
                    "{error} from the platform; give --allow-catalog-removals if that is intended"
                ),
                Err(ApplyError::Catalog(errors)) => match &args.catalog {
                    Some(path) => format!("--catalog {}: {errors}", path.display()),
                    None => errors.to_string(),
                },
                Err(error) => error.to_string(),
            }
        }
    };
    if !has_catalog || args.strict_catalog {
        return Err(StartupError::Config(why));
    }
    tracing::warn!(
        %why,
        revision = %current,
        "the catalog file is not applied, and the current catalog stays: fix the file and start \
         again, or apply it with `scopegate catalog apply`"
    );
    Ok(true)
}

/// Sees to it that the server can sign tokens. If it cannot, it issues none: a start serves the checks of a
/// platform, and a key can be deleted only while the server runs.
async fn prepare_signing_keys(
    authority: &Authority,
    directory: KeyDirectory,
) -> Result<(), StartupError> {
    authority.remove_orphaned_key_files(directory).await.map_err(startup_error)?;
    match authority.prepare_signing_keys().await {
        Ok(path) => {
            if let Some(sentence) = key_file::exposure("--signing-keys", &path) {
                tracing::warn!("{sentence}");
            }
            Ok(())
        }
        Err(AuthorityError::Store(StoreError::Unavailable | StoreError::Damaged)) => {
            Err(StoreError::Unavailable.into())
        }
        Err(
            error @ (AuthorityError::Store(_)
            | AuthorityError::KeyFileNotWritten
            | AuthorityError::TooManySigningKeys(_)),
        ) => {
            tracing::warn!(%error, "no key can sign tokens, so none is issued");
            Ok(())
        }
        Err(error) => Err(StartupError::Config(error.to_string())),
    }
}

fn startup_error(error: AuthorityError) -> StartupError {
    match error {
        AuthorityError::Store(error) => StartupError::Store(error),
        error => StartupError::Config(error.to_string()),
    }
}

/// Sets the store's time back to the machine's clock, and logs the consequences.
fn accept_clock(store: &mut Store, members: &MembersView) -> Result<(), StartupError> {
    let author = Author {
        actor: SERVE.to_owned(),
        on_behalf_of: String::new(),
        reason: "--accept-clock".to_owned(),
    };
    let now = crate::metrics::machine_time();
    let accepted = match store.accept_clock(now, author, members) {
        Err(StoreError::ClockBehind) => {
            return Err(StartupError::Config(
                "--accept-clock: the clocks of most other replicas are ahead of the clock of this \
                 machine, too: set the clock of this machine, or those of the others"
                    .to_owned(),
            ));
        }
        accepted => accepted?,
    };
    match accepted {
        Some(before) => tracing::warn!(
            %before, %now,
            "the store's time was set back to the machine's clock: grants, credentials and keys that \
             expire between the two times, and had expired by the store's time, are valid again \
             until they expire by the clock; start without --accept-clock from now on"
        ),
        None => tracing::info!(
            "the store's time is not ahead of the machine's clock: --accept-clock did nothing"
        ),
    }
    Ok(())
}
