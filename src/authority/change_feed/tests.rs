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
fn tell(feed: &ChangeFeed) {
    feed.fan_out().iter().for_each(|mailbox| mailbox.wake.notify_one());
}

/// A watcher, and what it should and does see.
struct Seen {
    place: Subscription,
    of: Option<&'static str>,
    from: u64,
    seen: Vec<u64>,
    /// What it read ahead from the store, and how far that reaches.
    ahead: VecDeque<u64>,
    asleep: bool,
}

const COMPANIES: [Option<&str>; 4] = [None, Some("a"), Some("b"), Some("c")];

/// The store: every change that is published.
#[derive(Default)]
struct Log(Vec<Option<&'static str>>);

impl Log {
    fn concerning(&self, of: Option<&str>, after: u64) -> Vec<u64> {
        let all = (1..).zip(&self.0).filter(|(revision, _)| *revision > after);
        all.filter(|(_, company)| of.is_none() || **company == of).map(|(r, _)| r).collect()
    }
}

impl Seen {
    fn new(feed: &Arc<ChangeFeed>, of: Option<&'static str>, from: u64) -> Self {
        let company = of.map(|id| CompanyId::parse(id).expect("an id"));
        let place = feed.place(company, Revision(from));
        Self { place, of, from, seen: vec![], ahead: VecDeque::new(), asleep: false }
    }

    /// One step, as `super::super::watch` makes them. False if there is nothing to do.
    fn step(&mut self, log: &Log) -> bool {
        if self.asleep {
            let woken = self.place.mailbox.wake.notified();
            let mut woken = std::pin::pin!(woken);
            if !woken.as_mut().enable() {
                return false;
            }
            self.asleep = false;
        }
        if let Some(revision) = self.ahead.pop_front() {
            self.place.took(Revision(revision), false);
            self.seen.push(revision);
            return true;
        }
        match self.place.look() {
            Look::Change(change) => self.seen.push(change.revision.0),
            Look::Behind => {
                let found = log.concerning(self.of, self.place.after().0);
                let is_all = found.len() <= 2;
                self.ahead = found.into_iter().take(2).collect();
                if self.ahead.is_empty() {
                    self.place.took(Revision(log.0.len() as u64), is_all);
                }
            }
            Look::Nothing => {
                self.asleep = true;
                return false;
            }
        }
        true
    }
}

#[test]
fn watchers_that_come_go_and_lag_beside_commits_see_exactly_the_log() {
    for seed in 1..=200 {
        let mut random = Random(u64::wrapping_mul(seed, 0x9E37_79B9_7F4A_7C15));
        // A window of a few changes, so that watchers fall behind it.
        let feed = ChangeFeed::with_window(Revision::ZERO, weight(&change(1, None)) * 5);
        let (mut log, mut watchers) = (Log::default(), Vec::<Seen>::new());
        let mut unoffered = Vec::<Change>::new();
        let mut gone = 0;
        for _ in 0..600 {
            match random.below(10) {
                0 | 1 => {
                    let most = if random.below(8) == 0 { 12 } else { 3 };
                    for _ in 0..=random.below(most) {
                        let company = COMPANIES[random.below(4) as usize];
                        log.0.push(company);
                        unoffered.push(change(log.0.len() as u64, company));
                    }
                }
                2 => feed.offer(std::mem::take(&mut unoffered)),
                3 => tell(&feed),
                4 if watchers.len() < 6 => {
                    // Also from beyond the head.
                    let from = random.below(log.0.len() as u64 + 4);
                    watchers.push(Seen::new(&feed, COMPANIES[random.below(4) as usize], from));
                }
                5 if random.below(4) == 0 && !watchers.is_empty() => {
                    let left = watchers.swap_remove(random.below(watchers.len() as u64) as usize);
                    let should = log.concerning(left.of, left.from);
                    assert!(should.starts_with(&left.seen), "seed {seed}: {:?}", left.seen);
                    gone += 1;
                }
                _ if !watchers.is_empty() => {
                    let which = random.below(watchers.len() as u64) as usize;
                    watchers[which].step(&log);
                }
                _ => {}
            }
        }
        feed.offer(unoffered);
        tell(&feed);
        for watcher in &mut watchers {
            while watcher.step(&log) {}
            assert_eq!(watcher.seen, log.concerning(watcher.of, watcher.from), "seed {seed}");
            // A resume from here misses nothing and repeats nothing.
            assert!(watcher.place.after().0 >= log.0.len() as u64, "seed {seed}");
        }
        assert!(gone > 0 || seed > 1);
        drop(watchers);
        assert_eq!((feed.bytes(), feed.lagging.read()), (0, 0), "nothing is kept for nobody");
    }
}

#[test]
fn a_change_of_another_company_wakes_nobody() {
    let feed = ChangeFeed::new(Revision::ZERO);
    let log = Log(vec![Some("a"), Some("b")]);
    let mut a = Seen::new(&feed, Some("a"), 0);
    let mut b = Seen::new(&feed, Some("b"), 0);
    assert!(!a.step(&log) && !b.step(&log));
    feed.offer(vec![change(1, Some("a"))]);
    tell(&feed);
    assert!(a.step(&log), "it was woken");
    assert!(!b.step(&log), "it sleeps");
    assert!(b.asleep);
    // The cursor goes on all the same.
    assert!(matches!(b.place.look(), Look::Nothing));
    assert_eq!(b.place.after(), Revision(1));
}

#[test]
fn the_window_is_bounded_by_bytes() {
    let large = || {
        let mut large = change(1, None);
        large.author.reason = "x".repeat(1 << 20);
        large
    };
    let feed = ChangeFeed::new(Revision::ZERO);
    let watcher = feed.place(None, Revision::ZERO);
    for revision in 1..=50 {
        feed.offer(vec![Change { revision: Revision(revision), ..large() }]);
        assert!(feed.bytes() <= WINDOW_BYTES);
    }
    assert!(feed.bytes() > WINDOW_BYTES / 2);
    drop(watcher);
    assert_eq!(feed.bytes(), 0);
}
