//! Supervisor: runs the threads and tasks that live as long as the process. It restarts one that panics,
//! and counts the restarts. If a vital one panics, the process ends.
//!
//! Not here: tasks of a call or of a connection, whose caller handles their errors.

use std::collections::BTreeMap;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// How long to wait before a restart.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// Starts threads and tasks, and counts their restarts.
#[derive(Debug, Default)]
pub struct Supervisor {
    /// The number of restarts, by name.
    restarts: Mutex<BTreeMap<&'static str, u64>>,
    /// The first vital thread or task that panicked.
    failed: watch::Sender<Option<&'static str>>,
}

impl Supervisor {
    /// The number of restarts of each thread and task, after panics.
    #[must_use]
    pub fn restarts(&self) -> Vec<(&'static str, u64)> {
        let restarts = self.restarts.lock().unwrap_or_else(PoisonError::into_inner);
        restarts.iter().map(|(name, count)| (*name, *count)).collect()
    }

    /// Adds a thread or task that a library runs, with no restart yet.
    pub fn register(&self, name: &'static str) {
        self.count(name, 0);
    }

    /// Records the restart of a thread or task that panicked.
    pub fn restarted(&self, name: &'static str) {
        self.count(name, 1);
        tracing::error!(name, "a task of the server panicked, and is started again");
    }

    /// Runs a task, and restarts it after a panic, until it returns or the handle is dropped.
    pub fn task<F>(
        self: &Arc<Self>,
        name: &'static str,
        mut make: impl FnMut() -> F + Send + 'static,
    ) -> AbortOnDropHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.count(name, 0);
        let own = Arc::clone(self);
        AbortOnDropHandle::new(tokio::spawn(async move {
            // Each run is a task of its own, so that a panic ends only that run.
            while let Err(ended) = AbortOnDropHandle::new(tokio::spawn(make())).await {
                if ended.is_cancelled() {
                    return;
                }
                own.restarted(name);
                tokio::time::sleep(RESTART_DELAY).await;
            }
        }))
    }

    /// Runs a thread, and restarts it after a panic, until it returns.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn thread(
        self: &Arc<Self>,
        name: &'static str,
        mut run: impl FnMut() + Send + 'static,
    ) -> io::Result<()> {
        self.count(name, 0);
        let own = Arc::clone(self);
        let run = move || {
            while panic::catch_unwind(AssertUnwindSafe(&mut run)).is_err() {
                own.restarted(name);
                thread::sleep(RESTART_DELAY);
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
    }

    /// A guard that a vital thread or task holds for as long as it runs.
    #[must_use]
    pub fn vital(self: &Arc<Self>, name: &'static str) -> Vital {
        Vital { name, supervisor: Arc::clone(self) }
    }

    /// Waits until a vital thread or task has panicked, and returns its name.
    pub async fn failed(&self) -> &'static str {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await.map(|name| *name) {
            Ok(Some(name)) => name,
            // The sender is in `self`.
            _ => std::future::pending().await,
        }
    }

    fn count(&self, name: &'static str, more: u64) {
        let mut restarts = self.restarts.lock().unwrap_or_else(PoisonError::into_inner);
        *restarts.entry(name).or_default() += more;
    }
}

/// The guard of a vital thread or task.
#[derive(Debug)]
pub struct Vital {
    name: &'static str,
    supervisor: Arc<Supervisor>,
}

impl Drop for Vital {
    fn drop(&mut self) {
        if thread::panicking() {
            let name = self.name;
            self.supervisor.failed.send_if_modified(|failed| {
                failed.get_or_insert(name);
                true
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn panicked_task_is_restarted_and_counted() {
        let supervisor: Arc<Supervisor> = Arc::default();
        let runs = Arc::new(AtomicU64::new(0));
        let task = supervisor.task("a_task", move || {
            let runs = Arc::clone(&runs);
            async move { assert!(runs.fetch_add(1, Ordering::Relaxed) >= 1, "broken") }
        });
        assert_eq!(supervisor.restarts(), [("a_task", 0)], "known before it ever panicked");
        task.await.expect("it returns at last");
        assert_eq!(supervisor.restarts(), [("a_task", 1)]);
    }

    #[tokio::test]
    async fn task_ends_when_its_handle_is_dropped() {
        struct DropSignal(Option<tokio::sync::oneshot::Sender<()>>);
        impl Drop for DropSignal {
            fn drop(&mut self) {
                self.0.take().map(|ended| ended.send(()).ok());
            }
        }
        let supervisor: Arc<Supervisor> = Arc::default();
        let (ended, end) = tokio::sync::oneshot::channel();
        let (begun, mut begin) = tokio::sync::mpsc::channel(1);
        let mut held = Some(DropSignal(Some(ended)));
        let task = supervisor.task("a_task", move || {
            let (held, begun) = (held.take(), begun.clone());
            async move {
                begun.send(()).await.ok();
                std::future::pending::<()>().await;
                drop(held);
            }
        });
        begin.recv().await.expect("begun");
        drop(task);
        end.await.expect("ended");
    }

    #[test]
    fn panicked_thread_is_restarted_with_its_state() {
        let supervisor: Arc<Supervisor> = Arc::default();
        let (send, receive) = mpsc::channel();
        let mut runs = 0;
        let run = move || {
            runs += 1;
            assert!(runs > 1, "broken");
            send.send(runs).ok();
        };
        supervisor.thread("a_thread", run).expect("a thread");
        assert_eq!(receive.recv_timeout(Duration::from_secs(30)), Ok(2));
        assert_eq!(supervisor.restarts(), [("a_thread", 1)]);
    }

    #[tokio::test]
    async fn vital_task_is_reported_only_if_it_panics() {
        let supervisor: Arc<Supervisor> = Arc::default();
        drop(supervisor.vital("one that ends"));
        let vital = supervisor.vital("accept");
        let panics = tokio::spawn(async move {
            let _vital = vital;
            tokio::task::yield_now().await;
            panic!("broken");
        });
        assert_eq!(supervisor.failed().await, "accept");
        assert!(panics.await.is_err());
    }
}
