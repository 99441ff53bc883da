//! Change feed: passes each committed change to the watchers that it concerns, once it is durable.
//!
//! The store's writer offers every batch to the feed. The feed holds the most recent changes in one
//! window that all watchers share, bounded by bytes. One task (the tail) marks the watchers that a
//! batch concerns, and notifies those without an earlier mark. A commit notifies only the watchers of
//! its company and of all companies. A watcher takes one change at a time, when its client requests
//! the next one. A slow client therefore holds no memory, and delays no other watcher. A watcher that
//! is behind the window reads the store by itself.
//!
//! INVARIANT (no gap, none twice): under the lock, if the mailbox of a watcher is empty, no change after
//! `after` and up to `notified` concerns the watcher. If the mailbox has a revision, none of those
//! changes is older than it. A watcher empties its mailbox under the same lock, and only after it has
//! looked at every change up to the head. It takes only changes after `after`, which never decreases.
//!
//! Not here: which changes a caller may see; see [`super::watch`]. The messages are in `grpc::change`.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

use super::sync::{Mutex, lock};
use crate::metrics::Gauge;
use crate::metrics::memory_budget::MemoryBudget;
use crate::policy::change::Change;
use crate::policy::id::CompanyId;
use crate::policy::revision::Revision;

/// The most bytes of recent changes in the window.
const WINDOW_BYTES: u64 = 8 << 20;
/// The most bytes of changes that all watchers have read ahead from the store.
const READ_AHEAD_BYTES: u64 = 16 << 20;
/// How many watchers may read the store at once. The others wait.
const MAX_STORE_READS: usize = 4;
/// How many watchers are notified at once. Other calls run before the next ones are notified.
const NOTIFY_BATCH: usize = 32;
/// How long the tail waits between two of these batches. Watchers receive changes that are committed
/// meanwhile together with the first one.
const NOTIFY_INTERVAL: Duration = Duration::from_millis(1);

/// The feed of one process.
pub(super) struct ChangeFeed {
    state: Mutex<FeedState>,
    /// Notifies the tail.
    offered: Arc<Notify>,
    tail: Mutex<Option<JoinHandle<()>>>,
    window_bytes: u64,
    /// Limits the watchers that read the store.
    pub(super) reads: Semaphore,
    /// The memory budget for changes that were read ahead.
    pub(super) read_ahead: Arc<MemoryBudget>,
    /// The number of watchers that are behind the window.
    pub(super) lagging: Gauge,
}

struct FeedState {
    /// The last offered revision.
    head: Revision,
    /// The revision up to which watchers were marked.
    notified: Revision,
    /// The window has every change after this revision, up to the head.
    window_start: Revision,
    recent: VecDeque<Recent>,
    bytes: u64,
    next_id: u64,
    all_companies: HashMap<u64, Arc<Mailbox>>,
    companies: HashMap<CompanyId, HashMap<u64, Arc<Mailbox>>>,
}

struct Recent {
    change: Arc<Change>,
    bytes: u64,
}

/// The mark of the tail for one watcher.
#[derive(Default)]
struct Mailbox {
    /// The revision of the first change that concerns the watcher since it last looked at every change;
    /// 0 for none. Written under the lock of the state.
    first: AtomicU64,
    notify: Notify,
}

/// The next change for a watcher.
pub(super) enum NextChange {
    /// A change that concerns the watcher.
    Change(Arc<Change>),
    /// The watcher is behind the window: the next change may be in the store.
    Behind,
    /// There is no change up to the head.
    None,
}

/// The subscription of one watcher, until it is dropped.
pub(super) struct Subscription {
    feed: Arc<ChangeFeed>,
    mailbox: Arc<Mailbox>,
    id: u64,
    company: Option<CompanyId>,
    /// The watcher has taken every change up to this revision that concerns it.
    after: Revision,
    /// Whether the watcher has reached the window by reading the store. Only the store knows which
    /// changes were compacted.
    caught_up: bool,
    is_lagging: bool,
}

impl ChangeFeed {
    /// A feed of the changes after this revision.
    pub(super) fn new(head: Revision) -> Arc<Self> {
        Self::with_window(head, WINDOW_BYTES)
    }

    fn with_window(head: Revision, window_bytes: u64) -> Arc<Self> {
        let state = FeedState {
            head,
            notified: head,
            window_start: head,
            recent: VecDeque::new(),
            bytes: 0,
            next_id: 0,
            all_companies: HashMap::new(),
            companies: HashMap::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            offered: Arc::default(),
            tail: Mutex::default(),
            window_bytes,
            reads: Semaphore::new(MAX_STORE_READS),
            read_ahead: MemoryBudget::new(READ_AHEAD_BYTES),
            lagging: Gauge::default(),
        })
    }

    /// Takes a batch that is durable and published. The store's writer calls this in order.
    pub(super) fn offer(&self, changes: Vec<Change>) {
        let Some(last) = changes.last().map(|change| change.revision) else { return };
        let mut state = lock(&self.state);
        if !state.has_watchers() {
            state.skip_to(last);
            return;
        }
        for change in changes {
            let bytes = weight(&change);
            state.bytes += bytes;
            state.recent.push_back(Recent { change: Arc::new(change), bytes });
        }
        state.head = last;
        while state.bytes > self.window_bytes
            && let Some(oldest) = state.recent.pop_front()
        {
            state.bytes -= oldest.bytes;
            state.window_start = oldest.change.revision;
        }
        drop(state);
        self.offered.notify_one();
    }

    /// Marks the watchers that new changes concern, and returns those to notify.
    fn fan_out(&self) -> Vec<Arc<Mailbox>> {
        let mut to_notify = Vec::new();
        let mut state = lock(&self.state);
        let from = state.notified.next();
        let mut mark = |mailbox: &Arc<Mailbox>, revision: Revision| {
            if mailbox.first.load(Ordering::Relaxed) == 0 {
                mailbox.first.store(revision.0, Ordering::Relaxed);
                to_notify.push(Arc::clone(mailbox));
            }
        };
        if state.window_start >= from {
            // The commit was larger than the window: every watcher must look for itself.
            let all = state.all_companies.values();
            all.chain(state.companies.values().flat_map(HashMap::values))
                .for_each(|mailbox| mark(mailbox, from));
        } else {
            let mut is_first = true;
            for change in state.recent_from(from).map(|recent| &recent.change) {
                if std::mem::take(&mut is_first) {
                    state.all_companies.values().for_each(|to| mark(to, change.revision));
                }
                let of = change.company.as_ref().and_then(|id| state.companies.get(id));
                of.into_iter().flat_map(HashMap::values).for_each(|to| mark(to, change.revision));
            }
        }
        state.notified = state.head;
        drop(state);
        to_notify
    }

    /// Subscribes a watcher to the changes of one company, or of all, after this revision.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        company: Option<CompanyId>,
        after: Revision,
        runtime: &Handle,
    ) -> Subscription {
        self.keep_tail(runtime);
        self.add_subscription(company, after)
    }

    fn add_subscription(
        self: &Arc<Self>,
        company: Option<CompanyId>,
        after: Revision,
    ) -> Subscription {
        let mailbox = Arc::<Mailbox>::default();
        let mut state = lock(&self.state);
        if !state.has_watchers() {
            let head = state.head;
            state.skip_to(head);
        }
        let caught_up = after >= state.head;
        if !caught_up {
            mailbox.first.store(after.next().0, Ordering::Relaxed);
        }
        state.next_id += 1;
        let id = state.next_id;
        let subscribers = match &company {
            None => &mut state.all_companies,
            Some(company) => state.companies.entry(company.clone()).or_default(),
        };
        subscribers.insert(id, Arc::clone(&mailbox));
        drop(state);
        let feed = Arc::clone(self);
        Subscription { feed, mailbox, id, company, after, caught_up, is_lagging: false }
    }

    /// Starts the tail, if it does not run. It runs for as long as the feed exists.
    fn keep_tail(self: &Arc<Self>, runtime: &Handle) {
        let mut tail = lock(&self.tail);
        if tail.as_ref().is_none_or(JoinHandle::is_finished) {
            let (feed, offered) = (Arc::downgrade(self), Arc::clone(&self.offered));
            *tail = Some(runtime.spawn(run_tail(feed, offered)));
        }
    }

    /// The bytes of recent changes in the window.
    pub(super) fn bytes(&self) -> u64 {
        lock(&self.state).bytes
    }
}

impl Drop for ChangeFeed {
    fn drop(&mut self) {
        self.offered.notify_one();
    }
}

async fn run_tail(feed: Weak<ChangeFeed>, offered: Arc<Notify>) {
    while let Some(feed) = feed.upgrade() {
        // This includes batches that were offered while there was no tail.
        let to_notify = feed.fan_out();
        drop(feed);
        for (number, batch) in to_notify.chunks(NOTIFY_BATCH).enumerate() {
            if number > 0 {
                tokio::time::sleep(NOTIFY_INTERVAL).await;
            }
            batch.iter().for_each(|mailbox| mailbox.notify.notify_one());
        }
        offered.notified().await;
    }
}

impl FeedState {
    fn has_watchers(&self) -> bool {
        !self.all_companies.is_empty() || !self.companies.is_empty()
    }

    /// Drops every change up to this revision, which becomes the head.
    fn skip_to(&mut self, head: Revision) {
        (self.head, self.notified, self.window_start) = (head, head, head);
        self.recent.clear();
        self.bytes = 0;
    }

    fn recent_from(&self, from: Revision) -> impl Iterator<Item = &Recent> {
        let index = self.recent.partition_point(|recent| recent.change.revision < from);
        self.recent.range(index..)
    }
}

impl Subscription {
    /// The next change that concerns the watcher, if there is one.
    pub(super) fn next(&mut self) -> NextChange {
        let (found, after) = self.find_next();
        self.after = self.after.max(after);
        self.caught_up |= !matches!(found, NextChange::Behind);
        self.lags(matches!(found, NextChange::Behind));
        found
    }

    /// The next change, and the revision up to which every change is taken with it.
    fn find_next(&self) -> (NextChange, Revision) {
        let state = lock(&self.feed.state);
        if !self.caught_up && self.after < state.head {
            return (NextChange::Behind, self.after);
        }
        let first = Revision(self.mailbox.first.load(Ordering::Relaxed));
        if first == Revision::ZERO {
            // By the invariant, no change up to `notified` concerns the watcher.
            return (NextChange::None, state.notified);
        }
        let from = first.max(self.after.next());
        if from <= state.window_start {
            return (NextChange::Behind, self.after);
        }
        let concerns = |change: &Change| self.company.is_none() || change.company == self.company;
        for Recent { change, .. } in state.recent_from(from) {
            if concerns(change) {
                return (NextChange::Change(Arc::clone(change)), change.revision);
            }
        }
        self.mailbox.first.store(0, Ordering::Relaxed);
        (NextChange::None, state.head)
    }

    /// Waits until there may be a next change.
    pub(super) async fn notified(&self) {
        self.mailbox.notify.notified().await;
    }

    /// The watcher has taken every change up to this revision that concerns it.
    pub(super) fn after(&self) -> Revision {
        self.after
    }

    /// Records that the watcher has read the store up to this revision; `is_all` if the store has no
    /// further change.
    pub(super) fn advance(&mut self, up_to: Revision, is_all: bool) {
        self.after = self.after.max(up_to);
        self.caught_up |= is_all;
    }

    /// The watched company; none for all companies.
    pub(super) fn company(&self) -> Option<&CompanyId> {
        self.company.as_ref()
    }

    fn lags(&mut self, lags: bool) {
        if lags != self.is_lagging {
            self.is_lagging = lags;
            if lags { self.feed.lagging.up() } else { self.feed.lagging.down() }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.lags(false);
        let mut state = lock(&self.feed.state);
        match &self.company {
            None => {
                state.all_companies.remove(&self.id);
            }
            Some(company) => {
                if let Some(subscribers) = state.companies.get_mut(company) {
                    subscribers.remove(&self.id);
                    if subscribers.is_empty() {
                        state.companies.remove(company);
                    }
                }
            }
        }
        if !state.has_watchers() {
            let head = state.head;
            state.skip_to(head);
        }
    }
}

/// The approximate size of a change in memory, in bytes.
pub(super) fn weight(change: &Change) -> u64 {
    let ids = [
        change.company.as_ref().map(|id| id.as_str().len()),
        change.credential.as_ref().map(|id| id.as_str().len()),
        change.user.as_ref().map(|id| id.as_str().len()),
    ];
    let ids: usize = ids.into_iter().flatten().sum();
    let author = &change.author;
    let texts = author.actor.len() + author.on_behalf_of.len() + author.reason.len();
    let scopes = change.added.iter().chain(&change.removed);
    let scopes: usize = scopes.map(|scope| scope.as_str().len() + 32).sum();
    let fields = change.fields.iter();
    let fields = fields.map(|f| f.field.len() + f.before.len() + f.after.len() + 72);
    let displaced = change.displaced.len() * 64;
    let all = ids + texts + scopes + fields.sum::<usize>() + displaced;
    (all + size_of::<Change>()) as u64
}

#[cfg(test)]
mod tests;
