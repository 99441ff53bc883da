//! Steps: where the time of one call went, for whoever traces it.
//!
//! Whoever traces a call opens a list for it ([`noted`]), and whoever waits on its behalf (for
//! the disk, for a commit) writes there ([`step`]). The list goes with the task and not by
//! argument: a change passes a dozen functions between the two, none of which has to know.
//! Without a list, as for every call that nobody traces, nothing is written and no clock is read.
//!
//! Not here: what is quick. A fact at hand is no step.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// How many steps of a call are kept. An import has as many as it has items.
const MOST: usize = 32;

tokio::task_local! {
    static STEPS: Option<Steps>;
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was waited for.
    pub name: &'static str,
    /// Since when.
    pub began: SystemTime,
    /// Until when.
    pub ended: SystemTime,
    /// The revision that came of it, if one did.
    pub revision: Option<u64>,
}

/// The steps of one call.
#[derive(Clone, Debug, Default)]
pub struct Steps(Arc<Mutex<Vec<Step>>>);

impl Steps {
    /// Those so far, the first of them if there were too many. They are here no more.
    #[must_use]
    pub fn take(&self) -> Vec<Step> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, step: Step) {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if steps.len() < MOST {
            steps.push(step);
        }
    }
}

/// Does some work whose steps are noted here, if anywhere.
pub async fn noted<T>(steps: Option<Steps>, work: impl Future<Output = T>) -> T {
    STEPS.scope(steps, work).await
}

/// The work, to be done by another task, with its steps noted where those of this one are.
pub fn propagate<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    STEPS.scope(here(), work)
}

/// Does some work that is a step of its call.
pub async fn span<T>(name: &'static str, work: impl Future<Output = T>) -> T {
    step_to(name, work, |_| None).await
}

/// Does some work that is a step of its call, and of which a revision can come.
pub async fn step_to<T>(
    name: &'static str,
    work: impl Future<Output = T>,
    revision: impl FnOnce(&T) -> Option<u64>,
) -> T {
    let Some(steps) = here() else { return work.await };
    let began = SystemTime::now();
    let done = work.await;
    let revision = revision(&done);
    steps.note(Step { name, began, ended: SystemTime::now(), revision });
    done
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
    async fn steps_are_noted_for_the_call_that_they_are_of() {
        let (one, other) = (Steps::default(), Steps::default());
        let work = async |name| span(name, tokio::task::yield_now()).await;
        tokio::join!(
            noted(Some(one.clone()), work("one")),
            noted(Some(other.clone()), work("other")),
            noted(None, work("of nobody")),
            work("without a list"),
        );
        assert_eq!((names(&one), names(&other)), (vec!["one"], vec!["other"]));
        // Another task notes for this one only if it is told to.
        let carry = async { tokio::spawn(propagate(work("carried"))).await };
        noted(Some(one.clone()), carry).await.expect("ended");
        let leave = async { tokio::spawn(work("left")).await };
        noted(Some(one.clone()), leave).await.expect("ended");
        assert_eq!(names(&one), ["carried"]);
    }

    #[tokio::test]
    async fn the_first_of_too_many_are_kept_and_what_came_of_them() {
        let steps = Steps::default();
        let work = async {
            for n in 0..1_000 {
                step_to("commit", async { n }, |n| Some(*n)).await;
            }
        };
        noted(Some(steps.clone()), work).await;
        let revisions: Vec<_> = steps.take().into_iter().filter_map(|step| step.revision).collect();
        assert_eq!(revisions, (0..MOST as u64).collect::<Vec<_>>());
        assert!(steps.take().is_empty());
    }
}
