//! Watch: the changes that one caller may see, as a stream. As a list: [`super::history`].
//!
//! A key that is bound to companies is bound by their ids. When a company is deleted and another is
//! created under its id, the key sees the changes of the present one only, from its creation on. A
//! stream that was open when the company was deleted gets that deletion as the last change of the
//! company it watched; nobody who asks later gets it.
//!
//! Not here: how changes reach the watchers; see [`super::change_feed`].

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::change_feed::{Look, Subscription, weight};
use super::error::AuthorityError;
use super::history::length;
use super::queries::PageBuilder;
use super::{ATTEMPTS, Authority};
use crate::metrics::memory_budget::{Account, Reservation};
use crate::policy::caller::Caller;
use crate::policy::change::{Change, ChangeKind};
use crate::policy::id::CompanyId;
use crate::policy::revision::Revision;
use crate::store::{Store, StoreError};

/// The most changes that a watcher reads ahead from the store,
const PAGE: usize = 64;
/// and the most bytes of them.
const PAGE_BYTES: u64 = 64 << 10;

/// What a caller wants to see of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interest {
    /// The company, or all.
    pub company: Option<CompanyId>,
    /// Only what was changed since the present company of this id was created.
    pub present_only: bool,
}

impl Interest {
    /// What this caller may see of a company, or of all.
    #[must_use]
    pub fn of(caller: &Caller, company: Option<CompanyId>) -> Self {
        let present_only = company.is_some() && !caller.reaches_all();
        Self { company, present_only }
    }
}

/// One watcher of changes, until it is dropped.
pub struct Watcher {
    place: Subscription,
    present_only: bool,
    /// The creation of the company that it last knew to exist, if it is to see no other.
    creation: Option<Revision>,
    /// What was read from the store and is not taken yet.
    ahead: VecDeque<Change>,
    /// Up to where the store was read, and whether nothing is left there.
    read: (Revision, bool),
    held: Vec<Reservation>,
    /// How many to read from the store the next time.
    page: usize,
    account: Account,
    runtime: Handle,
}

/// What a watcher waited for.
#[derive(Clone, Debug)]
pub enum Event {
    /// The next change.
    Change(Arc<Change>),
    /// The time is up, and there is none.
    Idle,
}

impl Watcher {
    /// Everything up to here that the watcher may see was handed to it.
    #[must_use]
    pub fn after(&self) -> Revision {
        self.place.after()
    }

    /// The next change that was read from the store.
    fn take_ahead(&mut self) -> Option<Change> {
        let change = self.ahead.pop_front();
        if let Some(change) = &change {
            let is_last = self.ahead.is_empty();
            let (up_to, is_all) = self.read;
            let up_to = if is_last && is_all { up_to } else { change.revision };
            self.place.took(up_to, is_last && is_all);
            if is_last {
                self.held.clear();
            }
        }
        change
    }
}

impl Authority {
    /// Begins to watch changes behind this revision. What is read ahead counts on the account.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn watch(
        &self,
        interest: Interest,
        after: Revision,
        account: Account,
    ) -> Result<Watcher, AuthorityError> {
        let Interest { company, present_only } = interest;
        let runtime = Handle::current();
        let place = self.facts.feed().subscribe(company, after, &runtime);
        let mut watcher = Watcher {
            place,
            present_only,
            creation: None,
            ahead: VecDeque::new(),
            read: (Revision::ZERO, false),
            held: Vec::new(),
            page: PAGE,
            account,
            runtime,
        };
        if let Some(company) = watcher.place.company().cloned().filter(|_| present_only) {
            watcher.creation = self.present(&company).await?.1;
        }
        Ok(watcher)
    }

    /// Waits for the next change that a watcher may see, or until this moment.
    ///
    /// # Errors
    /// The store cannot answer, or what is to come next is no longer kept.
    pub async fn next_change(
        &self,
        watcher: &mut Watcher,
        until: Instant,
    ) -> Result<Event, AuthorityError> {
        loop {
            let change = match watcher.take_ahead() {
                Some(change) => Arc::new(change),
                None => match watcher.place.look() {
                    Look::Change(change) => change,
                    Look::Behind => {
                        self.read_ahead(watcher).await?;
                        continue;
                    }
                    Look::Nothing => {
                        tokio::select! {
                            () = watcher.place.woken() => continue,
                            () = tokio::time::sleep_until(until) => return Ok(Event::Idle),
                        }
                    }
                },
            };
            if self.is_shown(watcher, &change).await? {
                return Ok(Event::Change(change));
            }
            if Instant::now() >= until {
                return Ok(Event::Idle);
            }
        }
    }

    /// Whether a watcher may see a change, which is the next one of its company.
    async fn is_shown(
        &self,
        watcher: &mut Watcher,
        change: &Change,
    ) -> Result<bool, AuthorityError> {
        let Some(company) = watcher.place.company().filter(|_| watcher.present_only) else {
            return Ok(true);
        };
        // Not older than the change, which is published.
        if let (_, Some(present)) = self.present(company).await?
            && change.revision >= present
        {
            watcher.creation = Some(present);
            return Ok(true);
        }
        // It was watched until then.
        let watched = watcher.creation.is_some_and(|creation| creation < change.revision);
        let is_end = watched && change.kind == ChangeKind::DeleteCompany;
        if is_end {
            watcher.creation = None;
        }
        Ok(is_end)
    }

    /// Reads what comes next from the store.
    async fn read_ahead(&self, watcher: &mut Watcher) -> Result<(), AuthorityError> {
        let (company, mut after) = (watcher.place.company().cloned(), watcher.place.after());
        let up_to = match company.as_ref().filter(|_| watcher.present_only) {
            None => self.facts.view().await?.at,
            Some(company) => {
                let (at, present) = self.present(company).await?;
                match (present, watcher.creation) {
                    // Nothing of another company of this id.
                    (Some(present), known) if known.is_none_or(|known| known == present) => {
                        after = after.max(Revision(present.0.saturating_sub(1)));
                    }
                    (None, None) => {
                        watcher.place.took(at, true);
                        return Ok(());
                    }
                    // The company that it watched was deleted, which it has not seen yet.
                    _ => {}
                }
                at
            }
        };
        let (facts, limit) = (Arc::clone(&self.facts), watcher.page);
        // Not on a core that answers checks. And by a task of its own: a client that takes nothing
        // can leave this future alone, which then must not hold the turn of the others.
        let read = watcher.runtime.spawn(async move {
            let turn = facts.feed().reads.acquire().await;
            let _turn = turn.map_err(|_| StoreError::Unavailable)?;
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
                // It goes on one by one.
                Err(_) => fits = 1,
            }
        }
        let is_all = !more && changes.len() <= fits;
        watcher.page = if changes.len() > fits { fits } else { (watcher.page * 2).min(PAGE) };
        changes.truncate(fits);
        if changes.is_empty() {
            watcher.place.took(up_to, is_all);
        }
        watcher.read = (up_to, is_all);
        watcher.ahead = changes.into();
        Ok(())
    }

    /// A published revision, and when the company that exists at it was created.
    pub(super) async fn present(
        &self,
        company: &CompanyId,
    ) -> Result<(Revision, Option<Revision>), AuthorityError> {
        for _ in 0..ATTEMPTS {
            let at = self.facts.view().await?.at;
            let found = self.facts.company(at, company).await;
            let Some(found) = self.or_retry(found).await? else { continue };
            return Ok((at, found.map(|company| company.created_at)));
        }
        Err(StoreError::Unavailable.into())
    }
}

/// Changes behind one revision and up to another, and whether there are more.
fn page(
    store: &dyn Store,
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
