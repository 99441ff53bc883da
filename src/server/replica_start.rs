//! ReplicaStart: opens the store of a replica, and waits until the replica has joined its cluster.
//!
//! Not here: how a replica joins; see [`crate::store::replicated`].

use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use super::StartupError;
use super::args::ServeArgs;
use crate::authority::Authority;
use crate::store::installation::{
    Installed, discard_replaced, install_snapshot, put_back_replaced, resume_installation,
};
use crate::store::replicated::etcd::TlsFiles;
use crate::store::replicated::head::{Head, HeadState};
use crate::store::replicated::membership::MembershipState;
use crate::store::replicated::peer_client::fetch;
use crate::store::replicated::{Cluster, LogError, LogSummary, Replica, ReplicaError, Settings};
use crate::store::{Store, StoreError};

/// Where Linux names the clock source of the machine.
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
/// The pause before etcd, or the replica, is asked again.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// A replica that knows the log of its cluster, and no store yet.
pub(super) struct ReplicaStart {
    replica: Replica,
    /// Whether the store of the directory is replaced by that of another replica.
    is_resync: bool,
    /// The files for connections to other replicas. None: the process is a command, which does not wait
    /// and takes no snapshot.
    peer_tls: Option<TlsFiles>,
}

/// What a directory has.
enum Opened {
    /// A store that can follow the log.
    Store(Box<Store>),
    /// None, or one that is too old: why.
    Lacking(String),
}

impl ReplicaStart {
    /// A replica that is not connected yet.
    pub(super) fn new(args: &ServeArgs, settings: Settings) -> Result<Self, StartupError> {
        warn_of_clock_source();
        let identity = args.tls_cert.clone().zip(args.tls_key.clone());
        let peer_tls = TlsFiles { ca: args.replica.peer_ca.clone(), identity };
        let (replica, is_resync) = (Replica::new(settings)?, args.replica.resync);
        Ok(Self { replica, is_resync, peer_tls: Some(peer_tls) })
    }

    /// The same for a command, which does not wait and takes no snapshot.
    pub(super) fn of_command(settings: Settings) -> Result<Self, StartupError> {
        Ok(Self { replica: Replica::new(settings)?, is_resync: false, peer_tls: None })
    }

    /// Opens the store of this directory. A directory without a store gets an empty one if the log has
    /// all entries, else that of another replica. It waits while etcd does not answer, and while no
    /// replica has a store for it.
    pub(super) async fn open(mut self, dir: &Path, page_cache: u64) -> Result<Store, StartupError> {
        let mut told = String::new();
        loop {
            let why = match self.replica.log().await {
                // An initialisation is in progress, or must be done.
                Ok(log) if log.head.state != HeadState::Open => {
                    return Err(StartupError::Replica(LogError::Closed.to_string()));
                }
                Ok(log) if let Err(error) = log.head.check_format() => return Err(refused(error)),
                Ok(log) => match self.open_for(&log, dir, page_cache).await? {
                    Opened::Store(mut store) => {
                        let head = &log.head;
                        let joined = note_etcd(&mut store, head, self.replica.etcd_cluster());
                        joined.map_err(refused)?;
                        return store.replicated(self.replica, head).map_err(refused);
                    }
                    Opened::Lacking(why) if self.peer_tls.is_none() => {
                        return Err(StartupError::Replica(format!(
                            "{why}: start the server of this replica once"
                        )));
                    }
                    Opened::Lacking(why) => {
                        tracing::info!(%why, "a snapshot of another replica is needed");
                        match self.install(&log.head, dir).await? {
                            None => {
                                self.is_resync = false;
                                continue;
                            }
                            Some(why) => why,
                        }
                    }
                },
                Err(error @ ReplicaError::NoAnswer(_)) if self.peer_tls.is_some() => {
                    error.to_string()
                }
                Err(error) => return Err(error.into()),
            };
            if why != told {
                tracing::warn!(%why, "the replica waits");
                told = why;
            }
            sleep(PAUSE).await;
        }
    }

    /// Opens the store of a directory, if it can follow the log.
    async fn open_for(
        &self,
        log: &LogSummary,
        dir: &Path,
        page_cache: u64,
    ) -> Result<Opened, StartupError> {
        let (log, dir) = (log.clone(), dir.to_owned());
        let (etcd, is_resync) = (self.replica.etcd_cluster(), self.is_resync);
        let opened = blocking(move || {
            let name = dir.display();
            let exists = resume_installation(&dir).map_err(|error| replica(&error))?;
            if !exists && !log.is_whole {
                return Ok(Opened::Lacking(format!(
                    "`{name}` has no store, and the log no longer has its first entries"
                )));
            }
            if exists && is_resync {
                return Ok(Opened::Lacking(format!("the store in `{name}` is to be replaced")));
            }
            let store = Store::create_for(&dir, page_cache, &log.head, etcd)?;
            let Some(cluster) = store.cluster() else {
                return Err(StartupError::Config(format!(
                    "the store in `{name}` belongs to no cluster: begin a cluster with it by `scopegate \
                     replicas init --data-dir`, or give another --data-dir"
                )));
            };
            if let (Some(expected), Some(found)) = (cluster.etcd_cluster_id, etcd)
                && expected != found
            {
                return Err(StartupError::Replica(format!(
                    "the store in `{name}` follows a log in the etcd cluster {expected:x}, and \
                     --replicate names the etcd cluster {found:x}: correct the URL; if etcd was made \
                     anew, initialise the cluster again with `scopegate replicas init --again`, and \
                     start the other replicas with --resync"
                )));
            }
            Ok(Opened::Store(Box::new(store)))
        });
        let opened = opened.await?;
        if let Opened::Store(store) = &opened
            && let (Some(cluster), Some(position)) = (store.cluster(), store.log_position()?)
            && let Err(ReplicaError::Log(error @ LogError::Truncated(_))) =
                self.replica.check(cluster.id, position).await
        {
            // The store is closed before another one takes its place.
            blocking(move || {
                drop(opened);
                Ok(())
            })
            .await?;
            return Ok(Opened::Lacking(error.to_string()));
        }
        Ok(opened)
    }

    /// Installs the snapshot of another replica. Returns why that is not possible now.
    async fn install(&self, head: &Head, dir: &Path) -> Result<Option<String>, StartupError> {
        let peers = match self.replica.peers().await {
            Ok(peers) => peers,
            Err(error @ ReplicaError::NoAnswer(_)) => return Ok(Some(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        let mut failed =
            "no other replica serves, and the log does not have all entries".to_owned();
        for peer in peers {
            let (tls, name) = (self.peer_tls.clone().unwrap_or_default(), peer.name.clone());
            let (head, dir) = (head.clone(), dir.to_owned());
            let cluster = head.cluster;
            let target = dir.clone();
            let installed = blocking(move || {
                let snapshot = match fetch(&peer, &tls) {
                    Ok(snapshot) => snapshot,
                    Err(error) => return Ok(Err(error.to_string())),
                };
                match install_snapshot(&dir, snapshot, &head) {
                    Ok(installed) => Ok(Ok(installed)),
                    Err(error) if error.is_of_the_snapshot() => Ok(Err(error.to_string())),
                    Err(error) => Err(replica(&error)),
                }
            });
            match installed.await? {
                Ok(Installed { revision, position }) => {
                    match self.replica.check(cluster, position).await {
                        Ok(()) => {
                            self.replica.log_metrics().snapshots_taken.inc();
                            tracing::info!(%name, %revision, "the snapshot of a replica is installed");
                            return Ok(None);
                        }
                        // The next attempt reads the log again.
                        Err(ReplicaError::NoAnswer(_)) => return Ok(None),
                        Err(error) => {
                            let put_back = move || put_back_replaced(&target);
                            blocking(move || put_back().map_err(|error| replica(&error))).await?;
                            failed = format!("the snapshot of the replica `{name}`: {error}");
                        }
                    }
                }
                Err(why) => failed = format!("the snapshot of the replica `{name}`: {why}"),
            }
        }
        Ok(Some(failed))
    }
}

/// Notes the etcd of a cluster whose initialisation was not known to be complete. The head in etcd shows
/// that it was carried out.
fn note_etcd(store: &mut Store, head: &Head, etcd: Option<u64>) -> Result<(), LogError> {
    match store.cluster() {
        Some(Cluster { id, etcd_cluster_id: None }) if id == head.cluster => {
            store.note_etcd_cluster(etcd)
        }
        _ => Ok(()),
    }
}

fn refused(error: LogError) -> StartupError {
    match error {
        LogError::Store(error) => error.into(),
        error => StartupError::Replica(format!(
            "{error}; to join this cluster, give an empty --data-dir, or --resync"
        )),
    }
}

fn replica(error: &impl ToString) -> StartupError {
    StartupError::Replica(error.to_string())
}

/// Does what blocks, on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StartupError> + Send + 'static,
) -> Result<T, StartupError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(replica(&error)))
}

/// Deletes the store that a snapshot has replaced, when the replica serves.
pub(super) fn discard(dir: &Path) {
    let dir = dir.to_owned();
    tokio::task::spawn_blocking(move || {
        if let Err(error) = discard_replaced(&dir) {
            tracing::warn!(%error, dir = %dir.display(), "the replaced store could not be deleted");
        }
    });
}

/// Warns of a clock that may stand still while the virtual machine is suspended. A lease then ends too late
/// by that time.
fn warn_of_clock_source() {
    let source = std::fs::read_to_string(CLOCK_SOURCE).unwrap_or_default();
    if source.trim() == "kvm-clock" {
        tracing::warn!(
            "the clock of this virtual machine, `kvm-clock`, may not count the time for which the machine \
             is suspended: restart a suspended machine, and do not resume it"
        );
    }
}

/// Waits until the replica of this authority has joined, and says why it has to wait.
pub(super) async fn joined(authority: &Authority) -> Result<(), StartupError> {
    let Some(replica) = authority.replica() else { return Ok(()) };
    let mut state = replica.state();
    let joined = async {
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                MembershipState::Joined { .. } => return Ok(()),
                MembershipState::Joining(why) => tracing::info!(%why, "joining the cluster"),
                MembershipState::Refused(why) => {
                    return Err(StartupError::Replica(why.to_string()));
                }
                MembershipState::Left => {
                    return Err(StartupError::Replica("the replica has left".to_owned()));
                }
            }
            if state.changed().await.is_err() {
                return Err(StartupError::Replica("the replica has ended".to_owned()));
            }
        }
    };
    tokio::select! {
        joined = joined => joined,
        failure = failed(authority) => Err(failure),
    }
}

/// Commits the change by which the clock was accepted, if the log does not have it yet.
pub(super) async fn tell_accepted_clock(authority: &Authority) -> Result<(), StartupError> {
    loop {
        match authority.tell_accepted_clock().await {
            Ok(()) => return Ok(()),
            Err(error @ (StoreError::CutOff | StoreError::NotYetEverywhere(_))) => {
                tracing::warn!(%error, "the accepted clock is not in the log yet");
            }
            Err(error) => return Err(error.into()),
        }
        sleep(PAUSE).await;
        joined(authority).await?;
    }
}

/// Waits until the replica cannot go on: the process must end then. It waits for ever without replicas.
pub(super) async fn failed(authority: &Authority) -> StartupError {
    let Some(replica) = authority.replica() else { return std::future::pending().await };
    let (mut parted, mut state) = (replica.parted(), replica.state());
    let refused = async {
        let is_over = |state: &MembershipState| {
            matches!(state, MembershipState::Refused(_) | MembershipState::Left)
        };
        match state.wait_for(is_over).await.map(|state| state.clone()) {
            Ok(MembershipState::Refused(why)) => why.to_string(),
            _ => "the replica has left its cluster: start it again".to_owned(),
        }
    };
    let parted = async {
        // The membership closes a log that was set back, and says so.
        let is_for_good = |error: &Option<LogError>| {
            error.as_ref().is_some_and(|error| !matches!(error, LogError::SetBack { .. }))
        };
        match parted.wait_for(is_for_good).await.map(|error| error.clone()) {
            Ok(Some(error @ LogError::Truncated(_))) => StartupError::Behind(error.to_string()),
            Ok(Some(error)) => StartupError::Replica(error.to_string()),
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        why = refused => StartupError::Replica(why),
        error = parted => error,
    }
}
