//! Wait spans: where the time of one traced call went.
//!
//! A tracer opens a list for a call ([`scope`]). Code that waits on behalf of the call, for the disk or
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
    static WAIT_SPANS: Option<WaitSpans>;
}

/// One wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitSpan {
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
pub struct WaitSpans(Arc<Mutex<Vec<WaitSpan>>>);

impl WaitSpans {
    /// Takes the waits so far; the first `MAX_SPANS` if there were more.
    #[must_use]
    pub fn take(&self) -> Vec<WaitSpan> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, span: WaitSpan) {
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spans.len() < MAX_SPANS {
            spans.push(span);
        }
    }
}

/// Runs `work`, and records its waits in `spans`, if there is a list.
pub async fn scope<T>(spans: Option<WaitSpans>, work: impl Future<Output = T>) -> T {
    WAIT_SPANS.scope(spans, work).await
}

/// Prepares `work` for another task, so that its waits are recorded in the list of this task.
pub fn propagate<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    WAIT_SPANS.scope(here(), work)
}

/// Runs `work`, and records it as a wait of the call.
pub async fn span<T>(name: &'static str, work: impl Future<Output = T>) -> T {
    span_to_revision(name, work, |_| None).await
}

/// Runs `work`, and records it as a wait of the call, with the revision that `revision` finds.
pub async fn span_to_revision<T>(
    name: &'static str,
    work: impl Future<Output = T>,
    revision: impl FnOnce(&T) -> Option<u64>,
) -> T {
    let Some(spans) = here() else { return work.await };
    let began = SystemTime::now();
    let output = work.await;
    let revision = revision(&output);
    spans.push(WaitSpan { name, began, ended: SystemTime::now(), revision });
    output
}

fn here() -> Option<WaitSpans> {
    WAIT_SPANS.try_with(Clone::clone).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(spans: &WaitSpans) -> Vec<&'static str> {
        spans.take().iter().map(|span| span.name).collect()
    }

    #[tokio::test]
    async fn waits_are_recorded_for_their_own_call() {
        let (one, other) = (WaitSpans::default(), WaitSpans::default());
        let work = async |name| span(name, tokio::task::yield_now()).await;
        tokio::join!(
            scope(Some(one.clone()), work("one")),
            scope(Some(other.clone()), work("other")),
            scope(None, work("not traced")),
            work("without a list"),
        );
        assert_eq!((names(&one), names(&other)), (vec!["one"], vec!["other"]));
        // Another task records for this one only after `propagate`.
        let carry = async { tokio::spawn(propagate(work("carried"))).await };
        scope(Some(one.clone()), carry).await.expect("ended");
        let leave = async { tokio::spawn(work("left")).await };
        scope(Some(one.clone()), leave).await.expect("ended");
        assert_eq!(names(&one), ["carried"]);
    }

    #[tokio::test]
    async fn first_waits_are_kept_with_their_revisions() {
        let spans = WaitSpans::default();
        let work = async {
            for n in 0..1_000 {
                span_to_revision("commit", async { n }, |n| Some(*n)).await;
            }
        };
        scope(Some(spans.clone()), work).await;
        let revisions: Vec<_> = spans.take().into_iter().filter_map(|span| span.revision).collect();
        assert_eq!(revisions, (0..MAX_SPANS as u64).collect::<Vec<_>>());
        assert!(spans.take().is_empty());
    }
}
