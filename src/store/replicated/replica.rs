//! Replica: the parts of a process that is one of several, and the threads that run them.
//!
//! The thread `replica` has the one connection to etcd that the writer commits by, and follows the log.
//!
//! Not here: what each part does; see `etcd_log` and `follower`.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::etcd::{self, Client, Range};
use super::etcd_log::EtcdLog;
use super::follower::Follower;
use super::head::Head;
use super::{Followed, LogError, LogWriter, Settings, keys};
use crate::store::command_queue::CommandQueue;
use crate::store::{Store, StoreError};

/// How long etcd may take to answer before a replica has started.
const FIRST_ANSWER: Duration = Duration::from_secs(3);

/// Why a process cannot be a replica.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    /// A setting is wrong.
    #[error("{0}")]
    Settings(String),
    /// etcd did not answer.
    #[error("etcd did not answer ({0}); check that it runs and that its address is right")]
    NoAnswer(String),
    /// The log is not one that this store can follow.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The system has no thread left.
    #[error("the system has no thread for the replica")]
    NoThread,
}

/// One of several processes with the same facts.
pub struct Replica {
    client: Arc<Client>,
    settings: Settings,
    runtime: Handle,
    /// The own session, while there is one.
    session: watch::Sender<Option<Uuid>>,
    /// Why the log and the store have parted, if they have.
    parted: watch::Sender<Option<LogError>>,
    /// The parts that start with the writer.
    follower: Mutex<Option<(Uuid, watch::Receiver<Followed>)>>,
    /// Ends the thread when it is dropped.
    stop: Mutex<Option<oneshot::Sender<()>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Replica {
    /// Starts the thread of a replica, which is not connected yet.
    ///
    /// # Errors
    /// A setting is wrong, or the system has no thread left.
    pub fn new(settings: Settings) -> Result<Self, ReplicaError> {
        let client = Client::new(settings.etcd.clone()).map_err(ReplicaError::Settings)?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|_| ReplicaError::NoThread)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let run = move || drop(runtime.block_on(stopped));
        let thread = std::thread::Builder::new().name("replica".to_owned()).spawn(run);
        let thread = thread.map_err(|_| ReplicaError::NoThread)?;
        Ok(Self {
            client: Arc::new(client),
            settings,
            runtime: handle,
            session: watch::Sender::new(None),
            parted: watch::Sender::new(None),
            follower: Mutex::default(),
            stop: Mutex::new(Some(stop)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Reads the head of the log. It blocks.
    ///
    /// # Errors
    /// etcd does not answer, or there is no log.
    pub fn head(&self) -> Result<Head, ReplicaError> {
        let read = async { self.client.range(&Range::key(keys::HEAD), FIRST_ANSWER).await };
        let answer = self.runtime.block_on(read);
        let answer = answer.map_err(|error| ReplicaError::NoAnswer(error.to_string()))?;
        let head = answer.pairs.first().ok_or(LogError::Missing)?;
        Ok(Head::decode(&head.value)?)
    }

    /// What the process was told about its cluster.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The etcd cluster that answered, if one did.
    #[must_use]
    pub fn etcd_cluster(&self) -> Option<u64> {
        self.client.cluster_id()
    }

    /// Becomes an error when the log and the store have parted. The process must then end.
    #[must_use]
    pub fn parted(&self) -> watch::Receiver<Option<LogError>> {
        self.parted.subscribe()
    }

    /// The log for the writer of a store that has come this far in it.
    pub(in crate::store) fn log_writer(&self, cluster: Uuid, at: Followed) -> LogWriter {
        let (client, runtime) = (Arc::clone(&self.client), self.runtime.clone());
        let (session, parted) = (self.session.subscribe(), self.parted.clone());
        let log = EtcdLog::new(client, runtime, cluster, session, parted);
        let (sender, followed) = watch::channel(at);
        *lock(&self.follower) = Some((cluster, followed));
        LogWriter::new(Box::new(log), sender)
    }

    /// Starts the parts that need the writer.
    pub(in crate::store) fn start(&self, commands: CommandQueue) {
        let Some((cluster, followed)) = lock(&self.follower).take() else { return };
        let follower = Follower { client: Arc::clone(&self.client), cluster, commands, followed };
        let parted = self.parted.clone();
        self.runtime.spawn(async move {
            if let Err(error) = follower.run().await {
                parted.send_replace(Some(error));
            }
        });
    }

    /// Ends the threads. The writer has ended before.
    pub(in crate::store) fn stop(&self) {
        lock(&self.stop).take();
        let thread = lock(&self.thread).take();
        thread.map(JoinHandle::join);
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl From<etcd::EtcdError> for ReplicaError {
    fn from(error: etcd::EtcdError) -> Self {
        Self::NoAnswer(error.to_string())
    }
}

impl Store {
    /// Makes this store that of a replica. Call it before the writer is started. The head is one that was
    /// read after the store was opened.
    ///
    /// # Errors
    /// The store follows no log, or another one.
    pub fn replicated(mut self, replica: Replica, head: &Head) -> Result<Self, LogError> {
        let position = self.log_position()?.ok_or(LogError::NotFollowing)?;
        let at = Followed { position, revision: self.opened_at };
        let log = replica.log_writer(head.cluster, at);
        self.write_to_log(log);
        self.replica = Some(replica);
        Ok(self)
    }

    /// The replica that this process is, if it is one of several.
    #[must_use]
    pub fn replica(&self) -> Option<&Replica> {
        self.replica.as_ref()
    }
}

impl From<LogError> for StoreError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Store(error) => error,
            _ => Self::CutOff,
        }
    }
}
