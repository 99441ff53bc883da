//! Inline executor: answers the calls of a connection that were read together in one poll of the
//! connection.
//!
//! A check whose facts are cached is answered without waiting. A task for it would cost a good part of
//! the decision's own cost. Calls therefore begin in the poll of their connection, after all received
//! data was read and before anything is written. Only a call that has to wait becomes a task.
//!
//! Not here: what a call does; see [`super::service`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use hyper::rt::Executor;

type InlineCall = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The limit of calls that begin in one poll. Other connections of the worker wait meanwhile.
const MAX_INLINE_CALLS: usize = 128;
/// The limit of polls of a connection before its task yields.
const MAX_POLLS: usize = 4;

/// The calls of a connection that have not begun.
#[derive(Clone, Default)]
pub(crate) struct PendingCalls(Arc<Mutex<Vec<InlineCall>>>);

impl PendingCalls {
    /// Begins all calls. Calls that have to wait continue as tasks.
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
        // The allocation is reused, unless more calls arrived meanwhile.
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

/// Polls one connection together with its calls.
pub(crate) struct InlineExecutor {
    calls: PendingCalls,
    loop_waker: Arc<LoopWaker>,
    waker: Waker,
}

impl InlineExecutor {
    /// An executor for the connection that adds its calls here.
    pub(crate) fn of(calls: PendingCalls) -> Self {
        let loop_waker = Arc::new(LoopWaker::default());
        Self { calls, waker: Waker::from(Arc::clone(&loop_waker)), loop_waker }
    }

    /// Polls the connection, begins the calls that it read, and polls it again to write their
    /// replies.
    pub(crate) fn poll(
        &self,
        context: &Context<'_>,
        mut connection: impl FnMut(&mut Context<'_>) -> Poll<()>,
    ) -> Poll<()> {
        // The waker of a task never changes.
        let task = self.loop_waker.task.get_or_init(|| context.waker().clone());
        let context = &mut Context::from_waker(&self.waker);
        for _ in 0..MAX_POLLS {
            self.loop_waker.begin();
            if connection(context).is_ready() {
                return Poll::Ready(());
            }
            self.calls.begin(context);
            if !self.loop_waker.end() {
                return Poll::Pending;
            }
        }
        task.wake_by_ref();
        Poll::Pending
    }
}

/// Wakes the task of a connection, except during the loop of [`InlineExecutor::poll`], which polls the
/// connection again anyway.
///
/// INVARIANT (no wake is lost): a wake-up that arrives during the loop is seen by the end of that
/// iteration, and a wake-up that arrives outside of the loop wakes the task.
#[derive(Default)]
struct LoopWaker {
    state: AtomicU8,
    task: OnceLock<Waker>,
}

const IDLE: u8 = 0;
const IN_LOOP: u8 = 1;
const WOKEN: u8 = 2;

impl LoopWaker {
    fn begin(&self) {
        self.state.store(IN_LOOP, Ordering::Release);
    }

    /// Whether there was a wake-up since [`Self::begin`].
    fn end(&self) -> bool {
        self.state.swap(IDLE, Ordering::AcqRel) == WOKEN
    }
}

impl Wake for LoopWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        if self.state.compare_exchange(IN_LOOP, WOKEN, success, failure) == Err(IDLE)
            && let Some(task) = self.task.get()
        {
            task.wake_by_ref();
        }
    }
}

/// Polls a call once. True: it must be polled again. A call that panics has ended and affects nothing
/// else, as if it were a task.
fn poll_once(call: &mut InlineCall, context: &mut Context<'_>) -> bool {
    let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context)));
    matches!(polled, Ok(Poll::Pending))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Waits until `ready` is true. It is polled again only after a wake-up.
    async fn until(mut ready: impl FnMut(&mut Context<'_>) -> bool) {
        poll_fn(|context| if ready(context) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    #[tokio::test]
    async fn every_call_is_answered_even_if_it_waits_or_another_panics() {
        let (calls, answered) = (PendingCalls::default(), Arc::new(AtomicUsize::new(0)));
        let count = 3 * MAX_INLINE_CALLS;
        for number in 0..count {
            let answered = Arc::clone(&answered);
            calls.execute(async move {
                match number % 3 {
                    0 => {}
                    1 => tokio::task::yield_now().await,
                    _ => panic!("a call that panics"),
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
    async fn call_added_by_a_call_begins_in_the_same_poll() {
        let (calls, answered) = (PendingCalls::default(), Arc::new(AtomicUsize::new(0)));
        let (others, count) = (calls.clone(), Arc::clone(&answered));
        calls.execute(poll_fn(move |context| {
            let count = Arc::clone(&count);
            others.execute(async move {
                count.fetch_add(1, Ordering::Relaxed);
            });
            // A reply wakes its connection in the same way when there is data to write.
            context.waker().wake_by_ref();
            Poll::Ready(())
        }));
        let (executor, mut polls) = (InlineExecutor::of(calls), 0);
        let polled = executor.poll(&Context::from_waker(Waker::noop()), |_| {
            polls += 1;
            Poll::Pending
        });
        assert_eq!((polled, polls), (Poll::Pending, 2));
        assert_eq!(answered.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn connection_that_is_always_ready_yields_to_others() {
        let (executor, mut polls) = (InlineExecutor::of(PendingCalls::default()), 0);
        let mut rounds = 0;
        until(|context| {
            rounds += 1;
            let polled = executor.poll(context, |context| {
                polls += 1;
                context.waker().wake_by_ref();
                Poll::Pending
            });
            assert_eq!(polled, Poll::Pending);
            rounds == 3
        })
        .await;
        assert_eq!(polls, 3 * MAX_POLLS, "then the task is polled again");
    }

    /// Under races, each wake-up is followed by a poll.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_is_lost() {
        const WAKES: usize = 20_000;
        let executor = InlineExecutor::of(PendingCalls::default());
        let made = Arc::new(AtomicUsize::new(0));
        let (seen, waker) = (Arc::new(AtomicUsize::new(0)), Arc::new(OnceLock::<Waker>::new()));
        let other = tokio::task::spawn_blocking({
            let (made, seen, waker) = (Arc::clone(&made), Arc::clone(&seen), Arc::clone(&waker));
            move || {
                for number in 1..=WAKES {
                    made.store(number, Ordering::Release);
                    if let Some(waker) = waker.get() {
                        waker.wake_by_ref();
                        // A poll must follow, whatever the loop does.
                        while seen.load(Ordering::Acquire) < number {
                            std::hint::spin_loop();
                        }
                    }
                }
            }
        });
        let connection = tokio::spawn(async move {
            until(|context| {
                let mut last = 0;
                let polled = executor.poll(context, |context| {
                    waker.get_or_init(|| context.waker().clone());
                    last = made.load(Ordering::Acquire);
                    seen.store(last, Ordering::Release);
                    Poll::Pending
                });
                polled.is_ready() || last == WAKES
            })
            .await;
        });
        other.await.expect("every wake-up was followed by a poll");
        connection.await.expect("it ends");
    }
}
