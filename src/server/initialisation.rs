//! Initialisation: `scopegate replicas init`, which begins a cluster of replicas in etcd.
//!
//! A cluster begins empty, or with the store of a directory. Of a store, three steps are done in this
//! order: the store is marked as one of the new cluster; the head is put into etcd; the store notes
//! that etcd. A store that is marked is not opened without the log, so nothing can be changed in it
//! that the log does not have. If the command is interrupted after any step, it is completed by
//! running it again: the mark has the id of the cluster, and the head in etcd has it or is absent.
//!
//! Not here: the transactions; see [`crate::store::replicated::initialisation`].

use std::path::{Path, PathBuf};

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
use crate::store::replicated::LogError;
use crate::store::replicated::etcd::{Client, EtcdError};
use crate::store::replicated::head::Head;
use crate::store::replicated::initialisation::{self, InitError, LONGEST_LEASE};
use crate::store::replicated::listing::Listing;
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

    /// Do nothing if the prefix has a cluster already. For scripts that run before every start.
    #[arg(long, conflicts_with = "again")]
    pub if_none: bool,

    /// Replace the cluster that the prefix has or had, by one that begins with --data-dir: the log in
    /// etcd is lost or was set back. Use the store with the highest revision, see `replicas show`.
    /// Revisions jump, and changes that the store does not have are lost. Other replicas then start
    /// with an empty directory.
    #[arg(long, requires = "data_dir")]
    pub again: bool,

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
    let client = args.etcd.client()?;
    let listing = initialisation::listing(&client).await?;
    match &args.data_dir {
        None => from_nothing(&client, &listing, args).await,
        Some(dir) if args.again => again(&client, &listing, dir, args).await,
        Some(dir) => from_store(&client, &listing, dir, args).await,
    }
}

/// The result if the prefix has another cluster than the one that was to be initialised.
fn exists(cluster: Uuid, args: &InitArgs) -> Result<Initialised, StartupError> {
    match args.if_none {
        true => Ok(Initialised::Before(cluster)),
        false => Err(InitError::Exists(cluster).into()),
    }
}

fn check_empty(listing: &Listing) -> Result<(), StartupError> {
    match listing.first_entry {
        None => Ok(()),
        Some(_) => Err(StartupError::Config(
            "the prefix has entries of a log and no head: use another prefix, or replace the log with \
             `replicas init --again --data-dir DIR`"
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
    let (cluster, position) = (store.cluster(), store.log_position()?);
    let is_begun = cluster.is_some_and(|cluster| cluster.etcd_cluster_id.is_none());
    let head = match (cluster, &listing.head) {
        (Some(cluster), Some((head, _))) if cluster.id == head.cluster => {
            if is_begun {
                store.note_etcd_cluster(client.cluster_id())?;
            }
            return Ok(Initialised::Before(head.cluster));
        }
        (_, Some((head, _))) => {
            if is_begun && position.is_some_and(|last| last.seq == 0) {
                // The head of an earlier run can no longer be put.
                store.leave_log()?;
            }
            return exists(head.cluster, args);
        }
        (Some(cluster), None) if is_begun && position.is_some_and(|last| last.seq == 0) => {
            Head::first(cluster.id, store.incarnation(), store.opened_at(), machine_time())
        }
        (Some(cluster), None) => {
            return Err(StartupError::Config(format!(
                "the store in `{}` is one of the cluster `{}`, and the prefix has no cluster: check the \
                 URL; if the log is lost, stop all replicas and run `replicas init --again` with the \
                 store that has the highest revision",
                dir.display(),
                cluster.id
            )));
        }
        (None, None) => {
            check_empty(listing)?;
            let (incarnation, revision) = (store.incarnation(), store.opened_at());
            let head = Head::first(Uuid::new_v4(), incarnation, revision, machine_time());
            store.follow_log(&head, None)?;
            head
        }
    };
    match initialisation::begin(client, &head, None).await {
        Ok(()) => {
            store.note_etcd_cluster(client.cluster_id())?;
            Ok(Initialised::Begun(head.cluster, head.revision))
        }
        Err(InitError::Exists(other)) => {
            // Its head can no longer be put, so the store is of no cluster.
            store.leave_log()?;
            exists(other, args)
        }
        // The transaction of an earlier run may still be carried out, so then the mark stays.
        Err(error @ InitError::Etcd(_)) if !is_begun => {
            store.leave_log()?;
            Err(error.into())
        }
        Err(error) => Err(error.into()),
    }
}

async fn again(
    client: &Client,
    listing: &Listing,
    dir: &Path,
    args: &InitArgs,
) -> Result<Initialised, StartupError> {
    let mut store = existing(dir)?;
    if let Some((head, _)) = &listing.head {
        // An earlier run was interrupted after its last transaction.
        if let Some(cluster) = store.cluster()
            && (cluster.id, cluster.etcd_cluster_id) == (head.cluster, None)
        {
            store.note_etcd_cluster(client.cluster_id())?;
            return Ok(Initialised::Before(head.cluster));
        }
        check_loss(head, &store, dir, args)?;
    }
    let closed = initialisation::close(client, listing).await?;
    if let Some(closed) = &closed {
        // A replica may have committed a change before the log was closed.
        check_loss(&Head::decode(closed).map_err(InitError::Log)?, &store, dir, args)?;
    }
    // Opened again below, under the lock of its directory.
    drop(store);
    if !args.all_stopped {
        let seconds = LONGEST_LEASE.as_secs();
        log::tell(&format!(
            "scopegate: waiting {seconds} s until no replica of the earlier cluster can answer; press \
             Ctrl-C and give --all-stopped if none runs"
        ));
        tokio::time::sleep(LONGEST_LEASE).await;
    }
    let author = Author {
        actor: "scopegate replicas init".to_owned(),
        on_behalf_of: String::new(),
        reason: "--again".to_owned(),
    };
    let head = begin_again(dir, Uuid::new_v4(), author, machine_time())?;
    initialisation::replace(client, closed, &head).await?;
    existing(dir)?.note_etcd_cluster(client.cluster_id())?;
    Ok(Initialised::Begun(head.cluster, head.revision))
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
                "the prefix has a cluster already (`{cluster}`): start its replicas, or use another \
                 prefix; --if-none accepts it"
            )),
            InitError::Log(_) | InitError::Version(_) => Self::Config(error.to_string()),
        }
    }
}

impl From<LogError> for StartupError {
    fn from(error: LogError) -> Self {
        InitError::Log(error).into()
    }
}
