//! The lease under the interleavings that shuttle explores. The test compiles the same file that the server
//! runs, with atomics of the test scheduler.
//!
//! A keeper makes the record of a session, begins the session, extends it and ends it. A writer elsewhere
//! commits revisions. It acknowledges a revision when the record of the session has told it, or is gone, and
//! it deletes a record that did not change for longer than the lease. Callers read the published revision.
//! The test fails if an answer that may leave was decided at a revision older than one that was acknowledged
//! before its call began.
use shuttle::sync::Arc;
use shuttle::thread;

#[allow(dead_code, reason = "a file of the server")]
#[path = "../../src/store/lease.rs"]
mod server_lease;

/// The module that `server_lease` imports as `super::sync`.
mod sync {
    pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
}

use server_lease::Lease;
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::Mutex;
use sync::{AtomicU64, Ordering};

/// For how long a record lets its session answer, in ticks of the clock.
const TTL: u64 = 3;
/// For how long others wait before they delete a record that does not change. All read the same clock, so
/// there is no margin.
const WAIT: u64 = TTL;

/// The record of a session.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Record {
    session: u64,
    /// Differs in each state of the record.
    count: u64,
    /// The revision that its owner has published.
    told: u64,
}

/// What all replicas see.
struct Shared {
    record: Option<Record>,
    head: u64,
}

struct World {
    lease: Lease,
    clock: AtomicU64,
    shared: Mutex<Shared>,
    published: AtomicU64,
    acknowledged: AtomicU64,
}

impl World {
    fn new() -> Self {
        let shared = Mutex::new(Shared { record: None, head: 1 });
        let (published, acknowledged) = (AtomicU64::new(0), AtomicU64::new(1));
        Self { lease: Lease::none(), clock: AtomicU64::new(1), shared, published, acknowledged }
    }

    fn now(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    fn with<R>(&self, step: impl FnOnce(&mut Shared) -> R) -> R {
        step(&mut self.shared.lock().expect("no thread panicked"))
    }

    /// Stands still for a while, at random: also for so long that others delete the record.
    fn pause(&self) {
        for _ in 0..[0, 1, TTL - 1, TTL, 3 * TTL][thread_rng().gen_range(0..5)] {
            self.clock.fetch_add(1, Ordering::SeqCst);
            thread::yield_now();
        }
    }

    fn publish(&self, revision: u64) {
        self.published.store(revision, Ordering::SeqCst);
    }

    /// One session after the other.
    fn keep(&self) {
        for session in [2, 3] {
            let sent = self.now();
            let mut own = Record { session, count: 0, told: 0 };
            let head = self.with(|shared| {
                shared.record = Some(own);
                shared.head
            });
            self.publish(head);
            assert!(self.lease.begin(session, sent + TTL));
            for count in 1..=2 {
                self.pause();
                let head = self.with(|shared| shared.head);
                self.publish(head);
                self.pause();
                let sent = self.now();
                let next = Record { session, count, told: head };
                let is_put = self.with(|shared| {
                    let is_same = shared.record == Some(own);
                    shared.record = if is_same { Some(next) } else { shared.record };
                    is_same
                });
                own = next;
                self.pause();
                if !is_put || !self.lease.extend(session, sent + TTL, || self.now()) {
                    break;
                }
            }
            self.lease.end();
            self.pause();
            self.with(|shared| {
                shared.record = shared.record.filter(|record| record.session != session);
            });
        }
    }

    /// Commits and acknowledges revisions.
    fn write(&self) {
        for _ in 0..3 {
            let (revision, mut seen) = self.with(|shared| {
                shared.head += 1;
                (shared.head, shared.record)
            });
            let mut since = self.now();
            while let Some(record) = seen {
                let present = self.with(|shared| shared.record);
                let present = present.filter(|present| present.session == record.session);
                match present {
                    Some(present) if present.told >= revision => seen = None,
                    Some(present) if present == record => {
                        if self.now() >= since + WAIT {
                            self.with(|shared| {
                                shared.record = shared.record.filter(|other| *other != record);
                            });
                        } else {
                            self.clock.fetch_add(1, Ordering::SeqCst);
                            thread::yield_now();
                        }
                    }
                    present => (seen, since) = (present, self.now()),
                }
            }
            self.acknowledged.store(revision, Ordering::SeqCst);
        }
    }

    /// Answers calls.
    fn call(&self) {
        for _ in 0..5 {
            thread::yield_now();
            let acknowledged = self.acknowledged.load(Ordering::SeqCst);
            let noted = self.lease.note();
            let decided_at = self.published.load(Ordering::SeqCst);
            thread::yield_now();
            if noted.is_some_and(|noted| self.lease.holds(noted, || self.now())) {
                assert!(decided_at >= acknowledged, "{decided_at} of {acknowledged}");
            }
        }
    }
}

/// How many schedules of each kind to explore.
fn schedules() -> usize {
    std::env::var("SCOPEGATE_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(8_000)
}

#[test]
fn no_answer_that_may_leave_is_older_than_what_was_acknowledged_before_its_call() {
    let scenario = || {
        let world = Arc::new(World::new());
        let works: [fn(&World); 4] = [World::keep, World::write, World::call, World::call];
        let threads = works.map(|work| {
            let world = Arc::clone(&world);
            thread::spawn(move || work(&world))
        });
        threads.into_iter().for_each(|thread| thread.join().expect("no thread panicked"));
    };
    shuttle::check_random(scenario, schedules());
    shuttle::check_pct(scenario, schedules(), 4);
}

#[test]
fn no_session_begins_on_a_lease_that_another_thread_closes() {
    let scenario = || {
        let lease = Arc::new(Lease::none());
        let closing = thread::spawn({
            let lease = Arc::clone(&lease);
            move || lease.close()
        });
        for session in [2, 3] {
            lease.begin(session, 10);
            lease.extend(session, 20, || 1);
            lease.end();
        }
        lease.begin(4, 10);
        closing.join().expect("no panic");
        assert!(lease.is_closed() && lease.note().is_none() && lease.until() == 0);
        assert!(!lease.begin(5, 10) && lease.is_closed());
    };
    shuttle::check_random(scenario, schedules());
}
