//! Change feed: hands each committed change to the watchers that it concerns, once it is durable.
//!
//! The store's writer offers every batch here. The most recent changes are kept in one window that
//! all watchers share, bounded by bytes. One task (the tail) marks the watchers that a batch
//! concerns, and wakes those that were waiting: a commit of another company wakes nobody. A watcher
//! takes changes one at a time, when its client wants the next one, so a slow client holds nothing
//! and holds up nobody. A watcher that is behind the window reads the store by itself.
//!
//! INVARIANT (no gap, none twice): under the lock, no change behind `after` and up to `told`
//! concerns a watcher whose mailbox is empty; and if the mailbox has a revision, none of those
//! changes is older than it. A watcher empties its mailbox under the same lock, and only after it
//! has looked at everything up to the head. It never takes a change that is not behind `after`,
//! which only grows.
//!
//! Not here: who may see a change; see [`super::watch`]. And what is sent; see `grpc::change`.

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

/// The most bytes of recent changes that are kept for all watchers.
const WINDOW_BYTES: u64 = 8 << 20;
/// The most bytes of changes that all watchers have read ahead from the store.
const READ_AHEAD_BYTES: u64 = 16 << 20;
/// How many watchers may read the store at once. The others wait for their turn.
const READS: usize = 4;
/// How many watchers are woken at once. Other calls are answered before the next ones are woken.
const CROWD: usize = 32;
/// How long the tail waits between them. Changes that come meanwhile go out with the first one.
const PAUSE: Duration = Duration::from_millis(1);

/// The feed of one process.
pub(super) struct ChangeFeed {
    state: Mutex<State>,
    /// Wakes the tail.
    offered: Arc<Notify>,
    tail: Mutex<Option<JoinHandle<()>>>,
    window_bytes: u64,
    /// Who may read the store.
    pub(super) reads: Semaphore,
    /// The memory for changes that were read ahead.
    pub(super) read_ahead: Arc<MemoryBudget>,
    /// How many watchers are behind the window.
    pub(super) lagging: Gauge,
}

struct State {
    /// The last revision that was offered.
    head: Revision,
    /// Up to which revision watchers were marked.
    told: Revision,
    /// The window has every change behind this revision, up to the head.
    floor: Revision,
    recent: VecDeque<Recent>,
    bytes: u64,
    next_id: u64,
    everything: HashMap<u64, Arc<Mailbox>>,
    companies: HashMap<CompanyId, HashMap<u64, Arc<Mailbox>>>,
}

struct Recent {
    change: Arc<Change>,
    bytes: u64,
}

/// What the tail tells one watcher.
#[derive(Default)]
struct Mailbox {
    /// The first change that concerns it since it last looked at everything; 0 for none. Written
    /// under the lock of the state.
    first: AtomicU64,
    wake: Notify,
}

/// What a watcher finds.
pub(super) enum Look {
    /// The next change that concerns it.
    Change(Arc<Change>),
    /// The next one may be in the store, behind the window.
    Behind,
    /// None up to the head.
    Nothing,
}

/// A watcher's place in the feed, until it is dropped.
pub(super) struct Subscription {
    feed: Arc<ChangeFeed>,
    mailbox: Arc<Mailbox>,
    id: u64,
    company: Option<CompanyId>,
    /// Everything up to here that concerns the watcher was taken.
    after: Revision,
    /// Whether it has come up to the window by way of the store, which alone knows what is no
    /// longer kept.
    joined: bool,
    is_lagging: bool,
}

impl ChangeFeed {
    /// A feed of what is committed behind this revision.
    pub(super) fn new(head: Revision) -> Arc<Self> {
        Self::with_window(head, WINDOW_BYTES)
    }

    fn with_window(head: Revision, window_bytes: u64) -> Arc<Self> {
        let state = State {
            head,
            told: head,
            floor: head,
            recent: VecDeque::new(),
            bytes: 0,
            next_id: 0,
            everything: HashMap::new(),
            companies: HashMap::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            offered: Arc::default(),
            tail: Mutex::default(),
            window_bytes,
            reads: Semaphore::new(READS),
            read_ahead: MemoryBudget::new(READ_AHEAD_BYTES),
            lagging: Gauge::default(),
        })
    }

    /// Takes a batch that is durable and published. Called by the store's writer, in order.
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
            state.floor = oldest.change.revision;
        }
        drop(state);
        self.offered.notify_one();
    }

    /// Marks the watchers that new changes concern, and returns those that are to be woken.
    fn fan_out(&self) -> Vec<Arc<Mailbox>> {
        let mut waiting = Vec::new();
        let mut state = lock(&self.state);
        let from = state.told.next();
        let mut mark = |mailbox: &Arc<Mailbox>, revision: Revision| {
            if mailbox.first.load(Ordering::Relaxed) == 0 {
                mailbox.first.store(revision.0, Ordering::Relaxed);
                waiting.push(Arc::clone(mailbox));
            }
        };
        if state.floor >= from {
            // More was committed at once than the window has: every watcher looks for itself.
            let all = state.everything.values();
            all.chain(state.companies.values().flat_map(HashMap::values))
                .for_each(|mailbox| mark(mailbox, from));
        } else {
            let mut is_first = true;
            for change in state.recent_from(from).map(|recent| &recent.change) {
                if std::mem::take(&mut is_first) {
                    state.everything.values().for_each(|to| mark(to, change.revision));
                }
                let of = change.company.as_ref().and_then(|id| state.companies.get(id));
                of.into_iter().flat_map(HashMap::values).for_each(|to| mark(to, change.revision));
            }
        }
        state.told = state.head;
        drop(state);
        waiting
    }

    /// A place for a watcher of one company or of all, behind this revision.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        company: Option<CompanyId>,
        after: Revision,
        runtime: &Handle,
    ) -> Subscription {
        self.keep_tail(runtime);
        self.place(company, after)
    }

    fn place(self: &Arc<Self>, company: Option<CompanyId>, after: Revision) -> Subscription {
        let mailbox = Arc::<Mailbox>::default();
        let mut state = lock(&self.state);
        if !state.has_watchers() {
            let head = state.head;
            state.skip_to(head);
        }
        let joined = after >= state.head;
        if !joined {
            mailbox.first.store(after.next().0, Ordering::Relaxed);
        }
        state.next_id += 1;
        let id = state.next_id;
        let places = match &company {
            None => &mut state.everything,
            Some(company) => state.companies.entry(company.clone()).or_default(),
        };
        places.insert(id, Arc::clone(&mailbox));
        drop(state);
        let feed = Arc::clone(self);
        Subscription { feed, mailbox, id, company, after, joined, is_lagging: false }
    }

    /// Starts the tail, if it does not run: there is one for as long as there is this feed.
    fn keep_tail(self: &Arc<Self>, runtime: &Handle) {
        let mut tail = lock(&self.tail);
        if tail.as_ref().is_none_or(JoinHandle::is_finished) {
            let (feed, offered) = (Arc::downgrade(self), Arc::clone(&self.offered));
            *tail = Some(runtime.spawn(run_tail(feed, offered)));
        }
    }

    /// How many bytes of recent changes are kept.
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
        // Also what was offered while there was no tail.
        let waiting = feed.fan_out();
        drop(feed);
        for (number, crowd) in waiting.chunks(CROWD).enumerate() {
            if number > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            crowd.iter().for_each(|mailbox| mailbox.wake.notify_one());
        }
        offered.notified().await;
    }
}

impl State {
    fn has_watchers(&self) -> bool {
        !self.everything.is_empty() || !self.companies.is_empty()
    }

    /// Forgets everything up to this revision, which becomes the head.
    fn skip_to(&mut self, head: Revision) {
        (self.head, self.told, self.floor) = (head, head, head);
        self.recent.clear();
        self.bytes = 0;
    }

    fn recent_from(&self, from: Revision) -> impl Iterator<Item = &Recent> {
        let place = self.recent.partition_point(|recent| recent.change.revision < from);
        self.recent.range(place..)
    }
}

impl Subscription {
    /// The next change that concerns the watcher, if there is one.
    pub(super) fn look(&mut self) -> Look {
        let (found, after) = self.find();
        self.after = self.after.max(after);
        self.joined |= !matches!(found, Look::Behind);
        self.lags(matches!(found, Look::Behind));
        found
    }

    /// What a look finds, and up to where everything is taken with it.
    fn find(&self) -> (Look, Revision) {
        let state = lock(&self.feed.state);
        if !self.joined && self.after < state.head {
            return (Look::Behind, self.after);
        }
        let first = Revision(self.mailbox.first.load(Ordering::Relaxed));
        if first == Revision::ZERO {
            // By the invariant.
            return (Look::Nothing, state.told);
        }
        let from = first.max(self.after.next());
        if from <= state.floor {
            return (Look::Behind, self.after);
        }
        let concerns = |change: &Change| self.company.is_none() || change.company == self.company;
        for Recent { change, .. } in state.recent_from(from) {
            if concerns(change) {
                return (Look::Change(Arc::clone(change)), change.revision);
            }
        }
        self.mailbox.first.store(0, Ordering::Relaxed);
        (Look::Nothing, state.head)
    }

    /// Waits until there may be something to look at.
    pub(super) async fn woken(&self) {
        self.mailbox.wake.notified().await;
    }

    /// Everything up to here that concerns the watcher was taken.
    pub(super) fn after(&self) -> Revision {
        self.after
    }

    /// Everything up to here was taken from the store; `is_all` if nothing was left there.
    pub(super) fn took(&mut self, up_to: Revision, is_all: bool) {
        self.after = self.after.max(up_to);
        self.joined |= is_all;
    }

    /// The company that is watched, if it is one.
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
                state.everything.remove(&self.id);
            }
            Some(company) => {
                if let Some(places) = state.companies.get_mut(company) {
                    places.remove(&self.id);
                    if places.is_empty() {
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

/// About how many bytes a change has in memory.
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
