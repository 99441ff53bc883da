//! Wait spans: where the time of one traced call went.
//!
//! A tracer opens a list for a call ([`noted`]). Code that waits on behalf of the call, for the disk or
//! for a commit, adds a span to it ([`span`]). The list is task-local and not an argument: a change
//! passes a dozen functions between the two, and none of them has to know the list. Without a list, as
//! for every call that is not traced, nothing is written and no clock is read.
//!
//! Not here: work that does not wait. A read of a cached fact has no span.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// The most spans of a call that are kept. An import has as many as it has items.
const MAX_SPANS: usize = 32;

tokio::task_local! {
    static STEPS: Option<Steps>;
}

/// One wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The name of the wait.
    pub name: &'static str,
    /// The start.
    pub began: SystemTime,
    /// The end.
    pub ended: SystemTime,
    /// The resulting revision, if there is one.
    pub revision: Option<u64>,
}

/// The waits of one call.
#[derive(Clone, Debug, Default)]
pub struct Steps(Arc<Mutex<Vec<Step>>>);

impl Steps {
    /// Takes the waits so far; the first [`MAX_SPANS`] if there were more.
    #[must_use]
    pub fn take(&self) -> Vec<Step> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, step: Step) {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if steps.len() < MAX_SPANS {
            steps.push(step);
        }
    }
}

/// Runs `work`, and records its waits in `steps`, if there is a list.
pub async fn noted<T>(steps: Option<Steps>, work: impl Future<Output = T>) -> T {
    STEPS.scope(steps, work).await
}

/// Prepares `work` for another task, so that its waits are recorded in the list of this task.
pub fn propagate<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    STEPS.scope(here(), work)
}

/// Runs `work`, and records it as a wait of the call.
pub async fn span<T>(name: &'static str, work: impl Future<Output = T>) -> T {
    step_to(name, work, |_| None).await
}

/// Runs `work`, and records it as a wait of the call, with the revision that `revision` finds.
pub async fn step_to<T>(
    name: &'static str,
    work: impl Future<Output = T>,
    revision: impl FnOnce(&T) -> Option<u64>,
) -> T {
    let Some(steps) = here() else { return work.await };
    let began = SystemTime::now();
    let output = work.await;
    let revision = revision(&output);
    steps.note(Step { name, began, ended: SystemTime::now(), revision });
    output
}

fn here() -> Option<Steps> {
    STEPS.try_with(Clone::clone).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(steps: &Steps) -> Vec<&'static str> {
        steps.take().iter().map(|step| step.name).collect()
    }

    #[tokio::test]
    async fn waits_are_recorded_for_their_own_call() {
        let (one, other) = (Steps::default(), Steps::default());
        let work = async |name| span(name, tokio::task::yield_now()).await;
        tokio::join!(
            noted(Some(one.clone()), work("one")),
            noted(Some(other.clone()), work("other")),
            noted(None, work("not traced")),
            work("without a list"),
        );
        assert_eq!((names(&one), names(&other)), (vec!["one"], vec!["other"]));
        // Another task records for this one only after `propagate`.
        let carry = async { tokio::spawn(propagate(work("carried"))).await };
        noted(Some(one.clone()), carry).await.expect("ended");
        let leave = async { tokio::spawn(work("left")).await };
        noted(Some(one.clone()), leave).await.expect("ended");
        assert_eq!(names(&one), ["carried"]);
    }

    #[tokio::test]
    async fn first_waits_are_kept_with_their_revisions() {
        let steps = Steps::default();
        let work = async {
            for n in 0..1_000 {
                step_to("commit", async { n }, |n| Some(*n)).await;
            }
        };
        noted(Some(steps.clone()), work).await;
        let revisions: Vec<_> = steps.take().into_iter().filter_map(|step| step.revision).collect();
        assert_eq!(revisions, (0..MAX_SPANS as u64).collect::<Vec<_>>());
        assert!(steps.take().is_empty());
    }
}
