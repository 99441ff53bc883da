//! Detachment: `scopegate replicas detach`, which makes a replica's store that of a single server.
//!
//! The log is closed, so that no replica commits a change or joins, and all sessions are ended. Then the
//! store, if it has all entries of the log, gets a new incarnation as a restored store does. The log stays
//! closed, so that no other replica goes on with the earlier incarnation.
//!
//! The id of the closing is in a file of the directory before the log is closed. If the command is
//! interrupted, the next run knows by it that the closing is its own, and completes what was begun. A log
//! that another program has closed is refused: etcd may have been set back, or another cluster may be
//! about to begin.
//!
//! Not here: the transactions; see [`crate::store::replicated::closing`].

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use uuid::Uuid;

use super::StartupError;
use super::etcd_args::EtcdArgs;
use super::initialisation::{existing, until_no_replica_answers};
use crate::metrics::{machine_time, shortage};
use crate::policy::change::Author;
use crate::policy::revision::Revision;
use crate::store::replicated::closing::{close, is_present, reopen};
use crate::store::replicated::etcd::EtcdError;
use crate::store::replicated::head::{Head, HeadState};
use crate::store::replicated::initialisation;
use crate::store::replicated::listing::ListingError;
use crate::store::replicated::{Cluster, LogError};
use crate::store::{Incarnation, Store, begin_alone};

/// The file with the id of the closing.
const FILE: &str = "detaching";

/// Arguments of `replicas detach`.
#[derive(Debug, Args)]
pub struct DetachArgs {
    /// The etcd of the cluster.
    #[command(flatten)]
    pub etcd: EtcdArgs,

    /// The directory of the store. Its replica must be stopped.
    #[arg(long, env = "SCOPEGATE_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// A store that belongs to no cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detached {
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its revision.
    pub revision: Revision,
}

/// Makes a replica's store that of a single server.
///
/// # Errors
/// The store is as it was, and the log is as it was or closed. Or an interruption left the store half
/// detached, and the command must be run again.
pub async fn detach(args: &DetachArgs) -> Result<Detached, StartupError> {
    let dir = args.data_dir.as_path();
    let store = existing(dir)?;
    let Some(cluster) = store.cluster() else {
        fs::remove_file(dir.join(FILE)).ok();
        let (incarnation, revision) = (store.incarnation(), store.opened_at());
        return Ok(Detached { incarnation, revision });
    };
    let client = args.etcd.client()?;
    let listing = initialisation::listing(&client).await.map_err(|error| match error {
        initialisation::InitError::Etcd(error) => unanswered(&error),
        error => error.into(),
    })?;
    let (head, _) = listing.head.ok_or(LogError::Missing)?;
    check_log(&head, cluster, client.cluster_id(), dir)?;
    let id = match (head.state, noted(dir)) {
        // If the store lacks an entry, the log is opened again below.
        (HeadState::Closed(by), Some(own)) if by == own => own,
        (state, _) => {
            check_position(&head, &store, dir)?;
            if state != HeadState::Open {
                return Err(closed_by_another());
            }
            // A new id: a transaction of an earlier run may still be carried out.
            note(dir)?
        }
    };
    let (head, closed) = close(&client, cluster.id, id).await.map_err(refused)?;
    if head.state != HeadState::Closed(id) {
        return Err(closed_by_another());
    }
    until_no_replica_answers(&client, &closed).await.map_err(refused)?;
    // A replica may have committed a change before the log was closed.
    if let Err(error) = check_position(&head, &store, dir) {
        reopen(&client, &head, &closed).await.map_err(refused)?;
        return Err(error);
    }
    // The sessions of a log that is another one now are others.
    if !is_present(&client, &closed).await.map_err(refused)? {
        return Err(closed_by_another());
    }
    // Opened again under the lock of its directory.
    drop(store);
    let author = Author {
        actor: "scopegate replicas detach".to_owned(),
        on_behalf_of: String::new(),
        reason: format!("the store of the cluster {}", cluster.id),
    };
    let begun = begin_alone(dir, author, machine_time())?;
    fs::remove_file(dir.join(FILE)).ok();
    Ok(Detached { incarnation: begun.incarnation, revision: begun.revision })
}

/// Rejects a log that is not the one of the store.
fn check_log(
    head: &Head,
    cluster: Cluster,
    etcd: Option<u64>,
    dir: &Path,
) -> Result<(), StartupError> {
    head.check_format()?;
    if head.cluster != cluster.id {
        return Err(LogError::Cluster { log: head.cluster, store: cluster.id }.into());
    }
    match (cluster.etcd_cluster_id, etcd) {
        (Some(expected), Some(found)) if expected != found => Err(StartupError::Config(format!(
            "the store in `{}` follows a log in the etcd cluster {expected:x}, and --replicate names the etcd \
             cluster {found:x}: correct the URL; if etcd was made anew, begin the cluster again with \
             `scopegate replicas init --again`",
            dir.display()
        ))),
        _ => Ok(()),
    }
}

/// Rejects a store that has not exactly the entries of the log.
fn check_position(head: &Head, store: &Store, dir: &Path) -> Result<(), StartupError> {
    let position = store.log_position()?.ok_or(LogError::NotFollowing)?;
    if position == head.position() && store.opened_at() == head.revision {
        return Ok(());
    }
    if position.seq < head.seq {
        return Err(StartupError::Config(format!(
            "the store in `{}` has entry {} of the log, which ends with entry {} at revision {}: detach a \
             store that has this entry by `scopegate replicas show --data-dir DIR`, or start this replica \
             until it serves, and stop it",
            dir.display(),
            position.seq,
            head.seq,
            head.revision
        )));
    }
    Err(LogError::SetBack { log: head.seq, store: position.seq }.into())
}

fn closed_by_another() -> StartupError {
    StartupError::Config(
        "another program has closed the log: etcd was set back, another store was detached, or the cluster is \
         being replaced; use the store that was detached, or begin the cluster again with `scopegate \
         replicas init --again`, and then detach its store"
            .to_owned(),
    )
}

fn refused(error: ListingError) -> StartupError {
    match error {
        ListingError::Etcd(error) => unanswered(&error),
        ListingError::Log(error) => error.into(),
    }
}

fn unanswered(error: &EtcdError) -> StartupError {
    StartupError::Etcd(format!(
        "{error}; the store is as it was, and the log may be closed: run the same command again"
    ))
}

/// The id of the closing that an earlier run has noted. A file that was cut off is of a run that closed
/// nothing.
fn noted(dir: &Path) -> Option<Uuid> {
    fs::read_to_string(dir.join(FILE)).ok()?.trim().parse().ok()
}

/// Notes a new id of a closing durably.
fn note(dir: &Path) -> Result<Uuid, StartupError> {
    let id = Uuid::new_v4();
    let written = || -> io::Result<()> {
        let mut file = File::create(dir.join(FILE))?;
        writeln!(file, "{id}")?;
        file.sync_all()?;
        File::open(dir)?.sync_all()
    };
    match written() {
        Ok(()) => Ok(id),
        Err(error) => Err(StartupError::Config(format!(
            "`{}` cannot be written: {}",
            dir.join(FILE).display(),
            shortage::told(&error)
        ))),
    }
}
