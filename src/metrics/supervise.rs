//! Supervise: threads and tasks that run for as long as the process. One that panics is started
//! again and counted; one that nobody can do without ends the process. None is missing unnoticed.
//!
//! Not here: tasks of a call or of a connection, whose caller hears of it.

use std::collections::BTreeMap;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// How long to wait before what panicked is started again.
const PAUSE: Duration = Duration::from_secs(1);

/// Who starts them, and counts.
#[derive(Debug, Default)]
pub struct Supervisor {
    /// How often each was started again, by name.
    restarts: Mutex<BTreeMap<&'static str, u64>>,
    /// The first of those that nobody can do without that panicked.
    failed: watch::Sender<Option<&'static str>>,
}

impl Supervisor {
    /// How often each thread and task was started again because it had panicked.
    #[must_use]
    pub fn restarts(&self) -> Vec<(&'static str, u64)> {
        let restarts = self.restarts.lock().unwrap_or_else(PoisonError::into_inner);
        restarts.iter().map(|(name, count)| (*name, *count)).collect()
    }

    /// Notes that something panicked and is done again.
    pub fn restarted(&self, name: &'static str) {
        self.count(name, 1);
        tracing::error!(name, "a task of the server panicked, and is started again");
    }

    /// Runs a task again and again, until it returns or what is returned is dropped.
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
            // A task of its own each time: its panic ends that alone.
            while let Err(ended) = AbortOnDropHandle::new(tokio::spawn(make())).await {
                if ended.is_cancelled() {
                    return;
                }
                own.restarted(name);
                tokio::time::sleep(PAUSE).await;
            }
        }))
    }

    /// Runs a thread again and again until it returns.
    ///
    /// # Errors
    /// There is no thread for it.
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
                thread::sleep(PAUSE);
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
    }

    /// To be kept by a thread or task that nobody can do without, for as long as it runs.
    #[must_use]
    pub fn vital(self: &Arc<Self>, name: &'static str) -> Vital {
        Vital { name, supervisor: Arc::clone(self) }
    }

    /// Waits until something panicked that nobody can do without; its name.
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

/// Something that nobody can do without.
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
    async fn a_task_that_panics_is_started_again_and_counted() {
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
    async fn a_task_ends_when_its_handle_is_dropped() {
        struct Held(Option<tokio::sync::oneshot::Sender<()>>);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.take().map(|ended| ended.send(()).ok());
            }
        }
        let supervisor: Arc<Supervisor> = Arc::default();
        let (ended, end) = tokio::sync::oneshot::channel();
        let (begun, mut begin) = tokio::sync::mpsc::channel(1);
        let mut held = Some(Held(Some(ended)));
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
    fn a_thread_that_panics_is_started_again_with_what_it_had() {
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
    async fn what_nobody_can_do_without_is_told_of_when_it_panics_and_only_then() {
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
