//! ReplicaStart: opens the store of a replica, and waits until the replica has joined its cluster.
//!
//! Not here: how a replica joins; see [`crate::store::replicated`].

use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use super::StartupError;
use crate::authority::Authority;
use crate::store::Store;
use crate::store::replicated::membership::MembershipState;
use crate::store::replicated::{LogError, LogSummary, Replica, ReplicaError, Settings};

/// Where Linux names the clock source of the machine.
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
/// The pause before etcd is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// A replica that knows the log of its cluster, and no store yet.
pub(super) struct ReplicaStart {
    replica: Replica,
    log: LogSummary,
}

impl ReplicaStart {
    /// Connects to etcd, and reads what it has of the cluster. While etcd does not answer, it waits.
    pub(super) async fn connect(settings: Settings) -> Result<Self, StartupError> {
        warn_of_clock_source();
        let replica = Replica::new(settings)?;
        let mut is_told = false;
        loop {
            match replica.log().await {
                Ok(log) => return Ok(Self { replica, log }),
                Err(error @ ReplicaError::NoAnswer(_)) => {
                    if !is_told {
                        tracing::warn!("{error}; the replica waits for it");
                    }
                    is_told = true;
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Opens the store of this directory, or makes an empty one if the whole log is there. It blocks.
    pub(super) fn open(self, dir: &Path, page_cache: u64) -> Result<Store, StartupError> {
        let Self { replica, log } = self;
        let etcd_cluster = replica.etcd_cluster();
        if !Store::exists(dir) && !log.is_whole {
            return Err(StartupError::Replica(format!(
                "`{}` has no store, and the log of the cluster no longer has its first entries: start \
                 with a copy of the store of another replica",
                dir.display()
            )));
        }
        let mut store = Store::create_for(dir, page_cache, &log.head, etcd_cluster)?;
        let Some(cluster) = store.cluster() else {
            return Err(StartupError::Config(format!(
                "the store in `{}` belongs to no cluster: begin a cluster with it by `scopegate replicas \
                 init --data-dir`, or give another --data-dir",
                dir.display()
            )));
        };
        let (expected, found) = (cluster.etcd_cluster_id, etcd_cluster);
        if let (Some(expected), Some(found)) = (expected, found)
            && expected != found
        {
            return Err(StartupError::Replica(format!(
                "the store in `{}` follows a log in the etcd cluster {expected:x}, and --replicate names \
                 the etcd cluster {found:x}: correct the URL; if etcd was restored or made anew, \
                 initialise the cluster again with `scopegate replicas init --again`",
                dir.display()
            )));
        }
        let refused = |error| match error {
            LogError::Store(error) => error.into(),
            error => StartupError::Replica(format!(
                "{error}; to join this cluster, give an empty --data-dir"
            )),
        };
        if cluster.id == log.head.cluster && cluster.etcd_cluster_id.is_none() {
            // The head in etcd shows that the initialisation of the cluster was carried out.
            store.note_etcd_cluster(etcd_cluster).map_err(refused)?;
        }
        store.replicated(replica, &log.head).map_err(refused)
    }
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
            Ok(Some(error)) => error.to_string(),
            _ => std::future::pending().await,
        }
    };
    let why = tokio::select! {
        why = refused => why,
        why = parted => why,
    };
    StartupError::Replica(why)
}
