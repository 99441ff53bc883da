use jiff::Timestamp;

use super::*;
use crate::policy::change::{Author, ChangeKind};

fn change(revision: u64, company: Option<&str>) -> Change {
    Change {
        revision: Revision(revision),
        time: Timestamp::UNIX_EPOCH,
        author: Author::default(),
        kind: ChangeKind::UpdateCompany,
        company: company.map(|id| CompanyId::parse(id).expect("an id")),
        credential: None,
        user: None,
        added: vec![],
        removed: vec![],
        displaced: vec![],
        fields: vec![],
    }
}

/// Numbers that look random, the same in every run (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// One round of the tail.
fn run_tail_once(feed: &ChangeFeed) {
    feed.fan_out().iter().for_each(|mailbox| mailbox.notify.notify_one());
}

/// A watcher, and the changes that it has seen.
struct TestWatcher {
    subscription: Subscription,
    of: Option<&'static str>,
    from: u64,
    seen: Vec<u64>,
    /// The revisions that it read ahead from the store.
    ahead: VecDeque<u64>,
    is_waiting: bool,
}

const COMPANIES: [Option<&str>; 4] = [None, Some("a"), Some("b"), Some("c")];

/// The store: every published change.
#[derive(Default)]
struct Log(Vec<Option<&'static str>>);

impl Log {
    fn concerning(&self, of: Option<&str>, after: u64) -> Vec<u64> {
        let all = (1..).zip(&self.0).filter(|(revision, _)| *revision > after);
        all.filter(|(_, company)| of.is_none() || **company == of).map(|(r, _)| r).collect()
    }
}

impl TestWatcher {
    fn new(feed: &Arc<ChangeFeed>, of: Option<&'static str>, from: u64) -> Self {
        let company = of.map(|id| CompanyId::parse(id).expect("an id"));
        let subscription = feed.add_subscription(company, Revision(from));
        Self { subscription, of, from, seen: vec![], ahead: VecDeque::new(), is_waiting: false }
    }

    /// One step, as in `super::super::watch`. False if there is nothing to do.
    fn step(&mut self, log: &Log) -> bool {
        if self.is_waiting {
            let notified = self.subscription.mailbox.notify.notified();
            let mut notified = std::pin::pin!(notified);
            if !notified.as_mut().enable() {
                return false;
            }
            self.is_waiting = false;
        }
        if let Some(revision) = self.ahead.pop_front() {
            self.subscription.advance(Revision(revision), false);
            self.seen.push(revision);
            return true;
        }
        match self.subscription.next() {
            NextChange::Change(change) => self.seen.push(change.revision.0),
            NextChange::Behind => {
                let found = log.concerning(self.of, self.subscription.after().0);
                let is_all = found.len() <= 2;
                self.ahead = found.into_iter().take(2).collect();
                if self.ahead.is_empty() {
                    self.subscription.advance(Revision(log.0.len() as u64), is_all);
                }
            }
            NextChange::None => {
                self.is_waiting = true;
                return false;
            }
        }
        true
    }
}

#[test]
fn watchers_that_join_leave_and_lag_see_exactly_the_log() {
    for seed in 1..=200 {
        let mut random = Random(u64::wrapping_mul(seed, 0x9E37_79B9_7F4A_7C15));
        // A window of a few changes, so that watchers fall behind it.
        let feed = ChangeFeed::with_window(Revision::ZERO, weight(&change(1, None)) * 5);
        let (mut log, mut watchers) = (Log::default(), Vec::<TestWatcher>::new());
        let mut unoffered = Vec::<Change>::new();
        let mut left_count = 0;
        for _ in 0..600 {
            match random.below(10) {
                0 | 1 => {
                    let limit = if random.below(8) == 0 { 12 } else { 3 };
                    for _ in 0..=random.below(limit) {
                        let company = COMPANIES[random.below(4) as usize];
                        log.0.push(company);
                        unoffered.push(change(log.0.len() as u64, company));
                    }
                }
                2 => feed.offer(std::mem::take(&mut unoffered)),
                3 => run_tail_once(&feed),
                4 if watchers.len() < 6 => {
                    // The start may also lie after the head.
                    let from = random.below(log.0.len() as u64 + 4);
                    watchers.push(TestWatcher::new(
                        &feed,
                        COMPANIES[random.below(4) as usize],
                        from,
                    ));
                }
                5 if random.below(4) == 0 && !watchers.is_empty() => {
                    let left = watchers.swap_remove(random.below(watchers.len() as u64) as usize);
                    let should = log.concerning(left.of, left.from);
                    assert!(should.starts_with(&left.seen), "seed {seed}: {:?}", left.seen);
                    left_count += 1;
                }
                _ if !watchers.is_empty() => {
                    let which = random.below(watchers.len() as u64) as usize;
                    watchers[which].step(&log);
                }
                _ => {}
            }
        }
        feed.offer(unoffered);
        run_tail_once(&feed);
        for watcher in &mut watchers {
            while watcher.step(&log) {}
            assert_eq!(watcher.seen, log.concerning(watcher.of, watcher.from), "seed {seed}");
            // A resume from this revision misses no change and repeats none.
            assert!(watcher.subscription.after().0 >= log.0.len() as u64, "seed {seed}");
        }
        assert!(left_count > 0 || seed > 1);
        drop(watchers);
        assert_eq!(
            (feed.bytes(), feed.lagging.read()),
            (0, 0),
            "without watchers, nothing is held"
        );
    }
}

#[test]
fn change_of_another_company_notifies_no_watcher() {
    let feed = ChangeFeed::new(Revision::ZERO);
    let log = Log(vec![Some("a"), Some("b")]);
    let mut a = TestWatcher::new(&feed, Some("a"), 0);
    let mut b = TestWatcher::new(&feed, Some("b"), 0);
    assert!(!a.step(&log) && !b.step(&log));
    feed.offer(vec![change(1, Some("a"))]);
    run_tail_once(&feed);
    assert!(a.step(&log), "it was notified");
    assert!(!b.step(&log), "it still waits");
    assert!(b.is_waiting);
    // The cursor goes on all the same.
    assert!(matches!(b.subscription.next(), NextChange::None));
    assert_eq!(b.subscription.after(), Revision(1));
}

#[test]
fn window_is_bounded_by_bytes() {
    let large = || {
        let mut large = change(1, None);
        large.author.reason = "x".repeat(1 << 20);
        large
    };
    let feed = ChangeFeed::new(Revision::ZERO);
    let watcher = feed.add_subscription(None, Revision::ZERO);
    for revision in 1..=50 {
        feed.offer(vec![Change { revision: Revision(revision), ..large() }]);
        assert!(feed.bytes() <= WINDOW_BYTES);
    }
    assert!(feed.bytes() > WINDOW_BYTES / 2);
    drop(watcher);
    assert_eq!(feed.bytes(), 0);
}
