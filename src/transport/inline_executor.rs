//! Turn: the calls of one connection that were read together, answered together.
//!
//! A check that finds its facts at hand is answered without waiting for anything. To make a task
//! of it, to be queued, run and taken down, would cost a good part of what it costs to decide it.
//! So calls are begun in their connection's own turn, after all that has come was read and before
//! anything is written; only one that has to wait becomes a task.
//!
//! Not here: what a call does; see [`super::service`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use hyper::rt::Executor;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The most calls that are begun at once: other connections wait for their turn.
const MAX_INLINE_CALLS: usize = 128;
/// How often a connection is looked at in one turn, while there is something new.
const MAX_POLLS: usize = 4;

/// A connection's calls that nobody has begun.
#[derive(Clone, Default)]
pub(crate) struct PendingCalls(Arc<Mutex<Vec<Call>>>);

impl PendingCalls {
    /// Begins what calls there are. Those that have to wait go on as tasks.
    fn begin(&self, context: &mut Context<'_>) {
        let mut calls = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if calls.is_empty() {
            return;
        }
        for (number, mut call) in calls.drain(..).enumerate() {
            if number >= MAX_INLINE_CALLS || poll_once(&mut call, context) {
                tokio::spawn(call);
            }
        }
        // The room for them is used again, unless more came meanwhile.
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if next.is_empty() {
            *next = calls;
        }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for PendingCalls {
    fn execute(&self, call: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(call));
    }
}

/// A connection's turns.
pub(crate) struct InlineExecutor {
    calls: PendingCalls,
    nudge: Arc<LoopWaker>,
    waker: Waker,
}

impl InlineExecutor {
    /// The turns of a connection that leaves its calls here.
    pub(crate) fn of(calls: PendingCalls) -> Self {
        let nudge = Arc::new(LoopWaker::default());
        Self { calls, waker: Waker::from(Arc::clone(&nudge)), nudge }
    }

    /// Polls the connection, begins the calls that it read, and polls it again to write what they
    /// are answered with.
    pub(crate) fn take(
        &self,
        context: &Context<'_>,
        mut connection: impl FnMut(&mut Context<'_>) -> Poll<()>,
    ) -> Poll<()> {
        // A task has one waker all its life.
        let task = self.nudge.task.get_or_init(|| context.waker().clone());
        let context = &mut Context::from_waker(&self.waker);
        for _ in 0..MAX_POLLS {
            self.nudge.begin();
            if connection(context).is_ready() {
                return Poll::Ready(());
            }
            self.calls.begin(context);
            if !self.nudge.end() {
                return Poll::Pending;
            }
        }
        task.wake_by_ref();
        Poll::Pending
    }
}

/// Wakes a connection's task, but not from its own turn, in which it is looked at again anyway.
///
/// INVARIANT (no wake is lost): a wake either finds that there is a turn, and the end of that
/// turn finds the wake; or it finds none, and wakes the task.
#[derive(Default)]
struct LoopWaker {
    state: AtomicU8,
    task: OnceLock<Waker>,
}

const RESTING: u8 = 0;
const IN_TURN: u8 = 1;
const NUDGED: u8 = 2;

impl LoopWaker {
    fn begin(&self) {
        self.state.store(IN_TURN, Ordering::Release);
    }

    /// Whether there was a nudge since the beginning.
    fn end(&self) -> bool {
        self.state.swap(RESTING, Ordering::AcqRel) == NUDGED
    }
}

impl Wake for LoopWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        if self.state.compare_exchange(IN_TURN, NUDGED, success, failure) == Err(RESTING)
            && let Some(task) = self.task.get()
        {
            task.wake_by_ref();
        }
    }
}

/// Polls a call once, and says whether it is to be polled again. One that panics has ended, and
/// takes nothing else with it, as if it were a task.
fn poll_once(call: &mut Call, context: &mut Context<'_>) -> bool {
    let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context)));
    matches!(polled, Ok(Poll::Pending))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Polls until it is ready, and is polled again only when it is woken.
    async fn until(mut ready: impl FnMut(&mut Context<'_>) -> bool) {
        poll_fn(|context| if ready(context) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    #[tokio::test]
    async fn every_call_is_answered_whether_it_waits_panics_or_neither() {
        let (calls, answered) = (PendingCalls::default(), Arc::new(AtomicUsize::new(0)));
        let count = 3 * MAX_INLINE_CALLS;
        for number in 0..count {
            let answered = Arc::clone(&answered);
            calls.execute(async move {
                match number % 3 {
                    0 => {}
                    1 => tokio::task::yield_now().await,
                    _ => panic!("a call that is broken"),
                }
                answered.fetch_add(1, Ordering::Relaxed);
            });
        }
        calls.execute(pending());
        calls.begin(&mut Context::from_waker(Waker::noop()));
        let now = answered.load(Ordering::Relaxed);
        assert!((1..=MAX_INLINE_CALLS).contains(&now), "{now}: at once, those that need not wait");
        until(|context| {
            context.waker().wake_by_ref();
            answered.load(Ordering::Relaxed) == count / 3 * 2
        })
        .await;
    }

    #[tokio::test]
    async fn what_a_call_begins_is_begun_in_the_same_turn() {
        let (calls, answered) = (PendingCalls::default(), Arc::new(AtomicUsize::new(0)));
        let (others, count) = (calls.clone(), Arc::clone(&answered));
        calls.execute(poll_fn(move |context| {
            let count = Arc::clone(&count);
            others.execute(async move {
                count.fetch_add(1, Ordering::Relaxed);
            });
            // As a reply tells its connection that there is something to write.
            context.waker().wake_by_ref();
            Poll::Ready(())
        }));
        let (turn, mut looks) = (InlineExecutor::of(calls), 0);
        let taken = turn.take(&Context::from_waker(Waker::noop()), |_| {
            looks += 1;
            Poll::Pending
        });
        assert_eq!((taken, looks), (Poll::Pending, 2));
        assert_eq!(answered.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn who_always_finds_something_new_lets_others_have_their_turn() {
        let (turn, mut looks) = (InlineExecutor::of(PendingCalls::default()), 0);
        let mut turns = 0;
        until(|context| {
            turns += 1;
            let taken = turn.take(context, |context| {
                looks += 1;
                context.waker().wake_by_ref();
                Poll::Pending
            });
            assert_eq!(taken, Poll::Pending);
            turns == 3
        })
        .await;
        assert_eq!(looks, 3 * MAX_POLLS, "and has another");
    }

    /// Under races, each wake is followed by a look.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_is_lost() {
        const WAKES: usize = 20_000;
        let turn = InlineExecutor::of(PendingCalls::default());
        let made = Arc::new(AtomicUsize::new(0));
        let (seen, waker) = (Arc::new(AtomicUsize::new(0)), Arc::new(OnceLock::<Waker>::new()));
        let other = tokio::task::spawn_blocking({
            let (made, seen, waker) = (Arc::clone(&made), Arc::clone(&seen), Arc::clone(&waker));
            move || {
                for number in 1..=WAKES {
                    made.store(number, Ordering::Release);
                    if let Some(waker) = waker.get() {
                        waker.wake_by_ref();
                        // A look must follow, whatever the turn was at.
                        while seen.load(Ordering::Acquire) < number {
                            std::hint::spin_loop();
                        }
                    }
                }
            }
        });
        let connection = tokio::spawn(async move {
            until(|context| {
                let mut looked = 0;
                let taken = turn.take(context, |context| {
                    waker.get_or_init(|| context.waker().clone());
                    looked = made.load(Ordering::Acquire);
                    seen.store(looked, Ordering::Release);
                    Poll::Pending
                });
                taken.is_ready() || looked == WAKES
            })
            .await;
        });
        other.await.expect("every wake was followed by a look");
        connection.await.expect("it ends");
    }
}
