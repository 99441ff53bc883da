//! Initialisation: `scopegate replicas init`, which begins a cluster of replicas in etcd.
//!
//! A cluster begins empty, or with the store of a directory. Of a store, three steps are done in this
//! order: the store is marked as one of the new cluster; the head is put into etcd; the store notes
//! that etcd. A store that is marked is not opened without the log, so nothing can be changed in it
//! that the log does not have. If the command is interrupted after any step, it is completed by
//! running it again: the mark has the id of the cluster, and the head in etcd has it, is absent, or is
//! that of the cluster that is replaced.
//!
//! Before a cluster is replaced, its log is closed and all sessions are ended. The
//! store of a cluster whose log is lost (--again) gets a new incarnation before these steps. A restored
//! store (--replace) has one.
//!
//! Not here: the transactions; see [`crate::store::replicated::initialisation`] and
//! [`crate::store::replicated::closing`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use uuid::Uuid;

use super::StartupError;
use super::bootstrap::first_key;
use super::etcd_args::EtcdArgs;
use super::first_key_file::{DraftDir, FirstKeyFile};
use crate::metrics::machine_time;
use crate::observe::log;
use crate::policy::change::Author;
use crate::policy::id::Name;
use crate::policy::revision::Revision;
use crate::store::replicated::closing::{close, end_sessions, reopen};
use crate::store::replicated::etcd::{Client, EtcdError};
use crate::store::replicated::head::{Head, HeadState};
use crate::store::replicated::initialisation::{self, InitError, LONGEST_LEASE};
use crate::store::replicated::listing::{Listing, ListingError};
use crate::store::replicated::{Cluster, LogError};
use crate::store::{Incarnation, Store, begin_again};

/// Arguments of `replicas init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The etcd of the cluster.
    #[command(flatten)]
    pub etcd: EtcdArgs,

    // Without a variable: that of `serve` is set in places where an empty cluster is meant.
    /// Begin with the store in this directory. Its server must be stopped. Revisions and etags stay
    /// valid. Without it the cluster begins empty.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Create the first operator key with the cluster, and write it to this file, which must not exist.
    #[arg(long, value_name = "FILE", conflicts_with = "data_dir")]
    pub first_key_to_file: Option<PathBuf>,

    /// Do nothing if the prefix has a cluster already. For jobs that may run twice.
    #[arg(long, conflicts_with_all = ["again", "replace"])]
    pub if_none: bool,

    /// Do nothing if this file exists, and write it when the prefix has a cluster. For scripts that run
    /// before every start: an etcd that has lost its data does not become an empty cluster.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["again", "replace"])]
    pub once: Option<PathBuf>,

    /// Replace the cluster that the prefix has or had, by one that begins with --data-dir: the log in
    /// etcd is lost or was set back. Use the store with the highest revision, see `replicas show`.
    /// Revisions jump, and changes that the store does not have are lost. Other replicas then start
    /// with an empty directory.
    #[arg(long, requires = "data_dir")]
    pub again: bool,

    /// Replace the cluster of this incarnation by one that begins with --data-dir, which `scopegate
    /// restore` has made of a backup. No replica of the replaced cluster answers any more when the
    /// command ends. All replicas but the one of this store then start with --resync.
    #[arg(long, value_name = "INCARNATION", requires = "data_dir", conflicts_with = "again")]
    pub replace: Option<Incarnation>,

    /// With --again: no replica of the earlier cluster runs. Without it the command waits 75 s, until
    /// no lease can be left.
    #[arg(long, requires = "again")]
    pub all_stopped: bool,

    /// With --again: go on although the log in etcd has later changes than the store.
    #[arg(long, requires = "again")]
    pub accept_loss: bool,
}

/// What the command has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initialised {
    /// The cluster with this id is initialised, and begins at this revision.
    Begun(Uuid, Revision),
    /// The prefix has the cluster with this id, which is another one or was initialised before.
    Before(Uuid),
}

/// Initialises a cluster.
///
/// # Errors
/// Nothing was initialised; or it is not known, and the command must be run again.
pub async fn initialise(args: &InitArgs) -> Result<Initialised, StartupError> {
    if let Some(cluster) = args.once.as_deref().map(noted).transpose()?.flatten() {
        return Ok(Initialised::Before(cluster));
    }
    let client = args.etcd.client()?;
    let listing = initialisation::listing(&client).await?;
    let initialised = match &args.data_dir {
        None => from_nothing(&client, &listing, args).await,
        Some(dir) if args.again || args.replace.is_some() => {
            replace(&client, &listing, dir, args).await
        }
        Some(dir) => from_store(&client, &listing, dir, args).await,
    }?;
    if let Some(file) = &args.once {
        let (Initialised::Begun(cluster, _) | Initialised::Before(cluster)) = initialised;
        fs::write(file, format!("{cluster}\n")).map_err(|error| unusable(file, &error))?;
    }
    Ok(initialised)
}

/// The cluster that an earlier run has noted in this file.
fn noted(file: &Path) -> Result<Option<Uuid>, StartupError> {
    match fs::read_to_string(file) {
        // A file that was cut off says enough.
        Ok(text) => Ok(Some(text.trim().parse().unwrap_or_default())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(file, &error)),
    }
}

fn unusable(file: &Path, error: &io::Error) -> StartupError {
    StartupError::Config(format!("--once: `{}`: {error}", file.display()))
}

/// The result if the prefix has another cluster than the one that was to be initialised.
fn exists(cluster: Uuid, args: &InitArgs) -> Result<Initialised, StartupError> {
    match args.if_none || args.once.is_some() {
        true => Ok(Initialised::Before(cluster)),
        false => Err(InitError::Exists(cluster).into()),
    }
}

fn check_empty(listing: &Listing) -> Result<(), StartupError> {
    match listing.first_entry.is_none() && listing.members.is_empty() {
        true => Ok(()),
        false => Err(StartupError::Config(
            "the prefix has entries of a log, or records of replicas, and no head: use another prefix, or \
             replace the log with `replicas init --again --data-dir DIR`"
                .to_owned(),
        )),
    }
}

async fn from_nothing(
    client: &Client,
    listing: &Listing,
    args: &InitArgs,
) -> Result<Initialised, StartupError> {
    let file = args.first_key_to_file.as_deref().map(FirstKeyFile);
    let completed = |cluster| file.as_ref().map_or(Ok(false), |file| file.finish(cluster));
    if let Some((head, _)) = &listing.head {
        return match completed(head.cluster)? {
            true => {
                file.as_ref().inspect(|file| file.remove_others());
                Ok(Initialised::Before(head.cluster))
            }
            false => exists(head.cluster, args),
        };
    }
    check_empty(listing)?;
    let (cluster, incarnation) = (Uuid::new_v4(), Incarnation::new_v4());
    let empty = Head::first(cluster, incarnation, Revision::ZERO, machine_time());
    let (head, first) = match &file {
        None => (empty, None),
        Some(file) => {
            let name =
                Name::parse("operator").map_err(|error| StartupError::Config(error.to_string()))?;
            let (secret, entry) = {
                let dir = DraftDir::beside(&file.draft(cluster))?;
                first_key(&dir.0, &empty, name).await?
            };
            file.write(cluster, &secret)?;
            (initialisation::head_after(&empty, &entry).map_err(InitError::Log)?, Some(entry))
        }
    };
    match initialisation::begin(client, &head, first).await {
        Ok(()) => {
            completed(cluster)?;
            file.as_ref().inspect(|file| file.remove_others());
            Ok(Initialised::Begun(cluster, head.revision))
        }
        // The draft stays: the next run of the command needs it.
        Err(error @ InitError::InDoubt(_)) => Err(error.into()),
        Err(error) => {
            file.as_ref().inspect(|file| file.remove(cluster));
            match error {
                // It may be the cluster of an earlier run that was interrupted.
                InitError::Exists(other) if completed(other)? => Ok(Initialised::Before(other)),
                InitError::Exists(other) => exists(other, args),
                error => Err(error.into()),
            }
        }
    }
}

async fn from_store(
    client: &Client,
    listing: &Listing,
    dir: &Path,
    args: &InitArgs,
) -> Result<Initialised, StartupError> {
    let mut store = existing(dir)?;
    let marked = marked(&store)?;
    match (store.cluster(), &listing.head) {
        (Some(cluster), Some((head, _))) if cluster.id == head.cluster => {
            note_etcd(&mut store, client)?;
            Ok(Initialised::Before(head.cluster))
        }
        (_, Some((head, _))) => {
            if marked.is_some() {
                // The head of an earlier run can no longer be put.
                store.leave_log()?;
            }
            exists(head.cluster, args)
        }
        (Some(cluster), None) if marked.is_none() => Err(StartupError::Config(format!(
            "the store in `{}` is one of the cluster `{}`, and the prefix has no cluster: check the URL; if \
             the log is lost, stop all replicas and run `replicas init --again` with the store that has the \
             highest revision",
            dir.display(),
            cluster.id
        ))),
        (_, None) => {
            check_empty(listing)?;
            begin_with(client, store, None, args).await
        }
    }
}

/// The head of a cluster that begins with this store, if an earlier run has marked it so.
fn marked(store: &Store) -> Result<Option<Head>, StartupError> {
    let is_first = store.log_position()?.is_some_and(|last| last.seq == 0);
    Ok(match store.cluster() {
        Some(Cluster { id, etcd_cluster_id: None }) if is_first => {
            Some(Head::first(id, store.incarnation(), store.opened_at(), machine_time()))
        }
        _ => None,
    })
}

/// Notes the etcd of a store whose cluster is certainly initialised.
fn note_etcd(store: &mut Store, client: &Client) -> Result<(), StartupError> {
    let is_noted = store.cluster().is_some_and(|cluster| cluster.etcd_cluster_id.is_some());
    if !is_noted {
        store.note_etcd_cluster(client.cluster_id())?;
    }
    Ok(())
}

/// Begins a cluster with a store, in the place of a closed head or of none.
async fn begin_with(
    client: &Client,
    mut store: Store,
    closed: Option<Bytes>,
    args: &InitArgs,
) -> Result<Initialised, StartupError> {
    let marked = marked(&store)?;
    let was_marked = marked.is_some();
    let head = match marked {
        Some(head) => head,
        None => {
            let (incarnation, revision) = (store.incarnation(), store.opened_at());
            let head = Head::first(Uuid::new_v4(), incarnation, revision, machine_time());
            store.follow_log(&head, None)?;
            head
        }
    };
    match initialisation::replace(client, closed, &head).await {
        Ok(()) => {
            note_etcd(&mut store, client)?;
            Ok(Initialised::Begun(head.cluster, head.revision))
        }
        Err(InitError::Exists(other)) => {
            // Its head can no longer be put, so the store is of no cluster. That of a lost log was, and
            // is not to become the store of a single server by this.
            if !args.again {
                store.leave_log()?;
            }
            exists(other, args)
        }
        // The transaction of an earlier run may still be carried out, so then the mark stays.
        Err(error @ InitError::Etcd(_)) if !was_marked => {
            store.leave_log()?;
            Err(error.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Replaces the cluster that the prefix has or had.
async fn replace(
    client: &Client,
    listing: &Listing,
    dir: &Path,
    args: &InitArgs,
) -> Result<Initialised, StartupError> {
    let mut store = existing(dir)?;
    let check = |head: &Head, store: &Store| match args.replace {
        None => check_loss(head, store, dir, args),
        Some(named) => check_replaced(head, named, store, dir),
    };
    let closed = match &listing.head {
        Some((head, _)) => {
            // An earlier run was interrupted after its last transaction.
            if let Some(cluster) = store.cluster()
                && cluster.id == head.cluster
                && (cluster.etcd_cluster_id.is_none()
                    || args.replace.is_some_and(|of| of != head.incarnation))
            {
                note_etcd(&mut store, client)?;
                return Ok(Initialised::Before(head.cluster));
            }
            check(head, &store)?;
            let id = Uuid::new_v4();
            let closed = close(client, head.cluster, id).await.map_err(InitError::from)?;
            let (head, closed) = closed;
            if head.state == HeadState::Open {
                return exists(head.cluster, args);
            }
            // A replica may have committed a change before the log was closed.
            if let Err(error) = check(&head, &store) {
                if head.state == HeadState::Closed(id) {
                    reopen(client, &head, &closed).await.map_err(InitError::from)?;
                }
                return Err(error);
            }
            Some(closed)
        }
        None if args.replace.is_some() => {
            return Err(StartupError::Config(
                "the prefix has no cluster that could be replaced: check the URL, or begin one without \
                 --replace"
                    .to_owned(),
            ));
        }
        None => None,
    };
    if args.replace.is_some() {
        if let Some(closed) = &closed {
            until_no_replica_answers(client, closed).await.map_err(InitError::from)?;
        }
        return begin_with(client, store, closed, args).await;
    }
    // Opened again below, under the lock of its directory.
    drop(store);
    if !args.all_stopped {
        let seconds = LONGEST_LEASE.as_secs();
        log::tell(&format!(
            "scopegate: waiting {seconds} s until no replica of the earlier cluster can answer; press \
             Ctrl-C and give --all-stopped if none runs"
        ));
        // etcd may have lost the records of replicas that answer.
        let ended = end_sessions(client, closed.as_ref());
        let ((), ended) = tokio::join!(tokio::time::sleep(LONGEST_LEASE), ended);
        ended.map_err(InitError::from)?;
    }
    let author = Author {
        actor: "scopegate replicas init".to_owned(),
        on_behalf_of: String::new(),
        reason: "--again".to_owned(),
    };
    begin_again(dir, Uuid::new_v4(), author, machine_time())?;
    begin_with(client, existing(dir)?, closed, args).await
}

/// Ends the sessions of all replicas of a closed log, whose head has these bytes.
pub(super) async fn until_no_replica_answers(
    client: &Client,
    closed: &Bytes,
) -> Result<(), ListingError> {
    log::tell(
        "scopegate: the log is closed; waiting until no replica answers: at once if all are stopped, and \
         else until the lease of the last one is over",
    );
    end_sessions(client, Some(closed)).await
}

/// Rejects a store that has no new incarnation, and a cluster that is not the one that was named.
fn check_replaced(
    head: &Head,
    named: Incarnation,
    store: &Store,
    dir: &Path,
) -> Result<(), StartupError> {
    if head.incarnation != named {
        return Err(StartupError::Config(format!(
            "the cluster has the incarnation `{}`, and --replace names `{named}`: name the present one if \
             this is the cluster that is to be replaced",
            head.incarnation
        )));
    }
    let is_restored = store.cluster().is_none() || marked(store)?.is_some();
    if is_restored && store.incarnation() != named {
        return Ok(());
    }
    Err(StartupError::Config(format!(
        "the store in `{}` belongs to a cluster, or was not restored from a backup: restore a backup into an \
         empty directory, and give that one",
        dir.display()
    )))
}

/// Rejects a store that lacks changes of the log, unless their loss is accepted.
fn check_loss(head: &Head, store: &Store, dir: &Path, args: &InitArgs) -> Result<(), StartupError> {
    let (log, own) = (head.revision, store.opened_at());
    if head.incarnation != store.incarnation() || log <= own || args.accept_loss {
        return Ok(());
    }
    Err(StartupError::Config(format!(
        "the log in etcd is at revision {log}, and the store in `{}` at {own}: use the store of the replica \
         with the highest revision; give --accept-loss to go on without the changes after {own}",
        dir.display()
    )))
}

/// Opens the store of a directory, which must have one.
///
/// # Errors
/// There is none, or it cannot be opened.
pub fn existing(dir: &Path) -> Result<Store, StartupError> {
    match Store::exists(dir) {
        true => Ok(Store::open(dir)?),
        false => Err(StartupError::Config(format!(
            "there is no store in `{}`: give the --data-dir of one",
            dir.display()
        ))),
    }
}

impl From<InitError> for StartupError {
    fn from(error: InitError) -> Self {
        match error {
            InitError::InDoubt(_) => Self::Etcd(error.to_string()),
            InitError::Etcd(ref etcd) => match etcd {
                EtcdError::Refused(_) | EtcdError::TooLarge { .. } => {
                    Self::Config(error.to_string())
                }
                EtcdError::NoAnswer(_) | EtcdError::NoSpace => Self::Etcd(error.to_string()),
            },
            InitError::Log(LogError::Store(error)) => Self::Store(error),
            InitError::Exists(cluster) => Self::Config(format!(
                "the prefix has a cluster already (`{cluster}`): start its replicas, use another prefix, or \
                 replace it with --replace; --if-none accepts it"
            )),
            InitError::Log(_) | InitError::Version(_) => Self::Config(error.to_string()),
        }
    }
}

impl From<ListingError> for StartupError {
    fn from(error: ListingError) -> Self {
        match error {
            ListingError::Etcd(error) if error.is_certain() => Self::Config(error.to_string()),
            ListingError::Etcd(error) => Self::Etcd(format!("{error}; run the command again")),
            ListingError::Log(error) => error.into(),
        }
    }
}

impl From<LogError> for StartupError {
    fn from(error: LogError) -> Self {
        InitError::Log(error).into()
    }
}
