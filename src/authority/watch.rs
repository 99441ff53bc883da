//! Watch: a stream of the changes that one caller may see. [`super::history`] has them as a list.
//!
//! A key that is bound to companies is bound by their ids. If a company is deleted and another is
//! created under its id, the key sees only the changes of the present company, from its creation on. A
//! stream that was open at the deletion gets the deletion as the last change of its company. A stream
//! that is opened later does not get it.
//!
//! Not here: how changes reach the watchers; see [`super::change_feed`].

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::change_feed::{NextChange, Subscription, weight};
use super::error::AuthorityError;
use super::history::length;
use super::queries::PageBuilder;
use super::session::Session;
use super::{ATTEMPTS, Authority};
use crate::metrics::memory_budget::{Account, Reservation};
use crate::policy::caller::Caller;
use crate::policy::change::{Change, ChangeKind};
use crate::policy::company::Company;
use crate::policy::id::CompanyId;
use crate::policy::revision::Revision;
use crate::store::{Store, StoreError};

/// The most changes that a watcher reads ahead from the store.
const PAGE: usize = 64;
/// The most bytes of changes that a watcher reads ahead from the store.
const PAGE_BYTES: u64 = 64 << 10;

/// The part of the change log that a caller watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interest {
    /// The company, or all.
    pub(super) company: Option<CompanyId>,
    /// Only changes since the present company of this id was created.
    pub(super) present_only: bool,
}

impl Interest {
    /// The changes that this caller may see, of one company or of all.
    pub(super) fn of(caller: &Caller, company: Option<CompanyId>) -> Self {
        let present_only = company.is_some() && !caller.reaches_all();
        Self { company, present_only }
    }
}

/// One watcher of changes, until it is dropped.
pub struct Watcher {
    subscription: Subscription,
    present_only: bool,
    /// The creation revision of the company that the watcher last knew, if it may see no other.
    creation: Option<Revision>,
    /// Changes that were read from the store and are not taken yet.
    ahead: VecDeque<Change>,
    /// The revision up to which the store was read, and whether the store has no further change.
    read: (Revision, bool),
    held: Vec<Reservation>,
    /// How many changes to read from the store the next time.
    page: usize,
    account: Account,
    runtime: Handle,
}

/// The result of a wait.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// The next change.
    Change(Arc<Change>),
    /// The deadline has passed without a change.
    Idle,
}

impl Watcher {
    /// The watcher has received every change up to this revision that it may see.
    #[must_use]
    pub fn after(&self) -> Revision {
        self.subscription.after()
    }

    /// The next change that was read from the store.
    fn take_ahead(&mut self) -> Option<Change> {
        let change = self.ahead.pop_front();
        if let Some(change) = &change {
            let is_last = self.ahead.is_empty();
            let (up_to, is_all) = self.read;
            let up_to = if is_last && is_all { up_to } else { change.revision };
            self.subscription.advance(up_to, is_last && is_all);
            if is_last {
                self.held.clear();
            }
        }
        change
    }
}

impl Session<'_> {
    /// Begins to watch the changes after this revision. Changes that are read ahead count on `account`.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn watch(
        &self,
        company: Option<CompanyId>,
        after: Revision,
        account: Account,
    ) -> Result<Watcher, AuthorityError> {
        let Interest { company, present_only } = Interest::of(&self.caller, company);
        let runtime = Handle::current();
        let subscription = self.authority.facts.feed().subscribe(company, after, &runtime);
        let mut watcher = Watcher {
            subscription,
            present_only,
            creation: None,
            ahead: VecDeque::new(),
            read: (Revision::ZERO, false),
            held: Vec::new(),
            page: PAGE,
            account,
            runtime,
        };
        if let Some(company) = watcher.subscription.company().cloned().filter(|_| present_only) {
            watcher.creation = self.authority.present(&company).await?.1;
        }
        Ok(watcher)
    }

    /// Waits for the next change that a watcher may see, or until a deadline.
    ///
    /// # Errors
    /// The caller's key was revoked, the store cannot answer, or the next changes were compacted.
    pub async fn next_change(
        &self,
        watcher: &mut Watcher,
        deadline: Instant,
    ) -> Result<WatchEvent, AuthorityError> {
        let event = tokio::select! {
            biased;
            // Changes come first: the other branch matters only while there are none.
            event = self.authority.next_change(watcher, deadline) => event,
            () = self.authority.wait_revoked(&self.caller) => Err(AuthorityError::CallerRevoked),
        };
        // The revocation of a key is a change, and the caller must not get a later one. The keyring is
        // read after the event, so it is not older than the change.
        if !self.authority.is_current(&self.caller) {
            return Err(AuthorityError::CallerRevoked);
        }
        event
    }
}

impl Authority {
    async fn next_change(
        &self,
        watcher: &mut Watcher,
        deadline: Instant,
    ) -> Result<WatchEvent, AuthorityError> {
        loop {
            let change = match watcher.take_ahead() {
                Some(change) => Arc::new(change),
                None => match watcher.subscription.next() {
                    NextChange::Change(change) => change,
                    NextChange::Behind => {
                        self.read_ahead(watcher).await?;
                        continue;
                    }
                    NextChange::None => {
                        tokio::select! {
                            () = watcher.subscription.notified() => continue,
                            () = tokio::time::sleep_until(deadline) => return Ok(WatchEvent::Idle),
                        }
                    }
                },
            };
            if self.is_shown(watcher, &change).await? {
                return Ok(WatchEvent::Change(change));
            }
            if Instant::now() >= deadline {
                return Ok(WatchEvent::Idle);
            }
        }
    }

    /// Whether a watcher may see a change, which is the next one of its company.
    async fn is_shown(
        &self,
        watcher: &mut Watcher,
        change: &Change,
    ) -> Result<bool, AuthorityError> {
        let Some(company) = watcher.subscription.company().filter(|_| watcher.present_only) else {
            return Ok(true);
        };
        // The read is not older than the change, which is published.
        if let (_, Some(present)) = self.present(company).await?
            && change.revision >= present
        {
            watcher.creation = Some(present);
            return Ok(true);
        }
        // The watcher has watched the company until its deletion.
        let watched = watcher.creation.is_some_and(|creation| creation < change.revision);
        let is_end = watched && change.kind == ChangeKind::DeleteCompany;
        if is_end {
            watcher.creation = None;
        }
        Ok(is_end)
    }

    /// Reads the next changes from the store.
    async fn read_ahead(&self, watcher: &mut Watcher) -> Result<(), AuthorityError> {
        let (company, mut after) =
            (watcher.subscription.company().cloned(), watcher.subscription.after());
        let up_to = match company.as_ref().filter(|_| watcher.present_only) {
            None => self.facts.view().await?.at,
            Some(company) => {
                let (at, present) = self.present(company).await?;
                match (present, watcher.creation) {
                    // Skip the changes of an earlier company of this id.
                    (Some(present), known) if known.is_none_or(|known| known == present) => {
                        after = after.max(Revision(present.0.saturating_sub(1)));
                    }
                    (None, None) => {
                        watcher.subscription.advance(at, true);
                        return Ok(());
                    }
                    // The watched company was deleted, and the watcher has not seen that yet.
                    _ => {}
                }
                at
            }
        };
        let (facts, limit) = (Arc::clone(&self.facts), watcher.page);
        // Not on a worker that answers checks. And in a task of its own: a client that stops reading
        // leaves this future unpolled, which must not hold a permit that other watchers need.
        let read = watcher.runtime.spawn(async move {
            let permit = facts.feed().reads.acquire().await;
            let _permit = permit.map_err(|_| StoreError::Unavailable)?;
            facts.read(move |store| page(store, company.as_ref(), after, up_to, limit)).await
        });
        let (mut changes, more) = read.await.unwrap_or(Err(StoreError::Unavailable))?;
        let mut bytes = 0;
        let fits = changes.iter().take_while(|change| {
            bytes += weight(change);
            bytes <= PAGE_BYTES
        });
        let mut fits = fits.count().max(1);
        let bytes: u64 = changes.iter().take(fits).skip(1).map(weight).sum();
        watcher.held.clear();
        for account in [&self.facts.feed().read_ahead.shared(), &watcher.account] {
            match account.reserve(bytes) {
                Ok(held) => watcher.held.push(held),
                // Without memory for more, continue with one change at a time.
                Err(_) => fits = 1,
            }
        }
        let is_all = !more && changes.len() <= fits;
        watcher.page = if changes.len() > fits { fits } else { (watcher.page * 2).min(PAGE) };
        changes.truncate(fits);
        if changes.is_empty() {
            watcher.subscription.advance(up_to, is_all);
        }
        watcher.read = (up_to, is_all);
        watcher.ahead = changes.into();
        Ok(())
    }

    /// A published revision, and the creation revision of the company that exists at it.
    pub(super) async fn present(
        &self,
        company: &CompanyId,
    ) -> Result<(Revision, Option<Revision>), AuthorityError> {
        for _ in 0..ATTEMPTS {
            let at = self.facts.view().await?.at;
            match self.facts.get::<Company>(at, company, None).await {
                Ok(found) => return Ok((at, found.map(|company| company.created_at))),
                Err(error) => self.wait_and_retry(error).await?,
            }
        }
        Err(StoreError::Unavailable.into())
    }
}

/// Changes after one revision and up to another, and whether there are more.
fn page(
    store: &Store,
    company: Option<&CompanyId>,
    mut after: Revision,
    up_to: Revision,
    limit: usize,
) -> Result<(Vec<Change>, bool), StoreError> {
    let mut page = PageBuilder::new(limit);
    while page.wants_more() {
        let step = store.changes(company, after, up_to, page.step())?;
        after = step.last().map_or(after, |change| change.revision);
        page.add(step, length);
    }
    Ok(page.map(|change| change))
}
