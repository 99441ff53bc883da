//! History: the audit log as a list, from either end, with filters.
//!
//! Changes are stored by revision, and the changes of a company have an index. Time, kind, actor and
//! credential have no index: those filters compare the changes one by one. A call therefore reads at
//! most [`SCAN`] changes, and returns the revision at which the next call continues. The times are not
//! sorted, because an operator may have set the store's time back between two changes. So there is no
//! search by time.
//!
//! A caller that is bound to companies sees only the changes of the present company, from its creation
//! on, from whichever end it reads; see `watch`.

use jiff::Timestamp;

use super::error::AuthorityError;
use super::session::Session;
use super::watch::Interest;
use crate::policy::change::{Change, ChangeKind};
use crate::policy::id::{CompanyId, CredentialId};
use crate::policy::revision::Revision;
use crate::store::{Store, StoreError};

/// The most changes that a call reads.
pub const SCAN: usize = 10_000;
/// The most changes that are read from the store at once.
const STEP: usize = 64;
/// The most names and texts that the changes of a page have together.
const MAX_PAGE_WEIGHT: usize = 20_000;

/// A filter of changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeFilter {
    /// Newest first.
    pub newest_first: bool,
    /// Only changes after this revision; without it, all that are retained.
    pub after: Option<Revision>,
    /// Only changes at this time or later.
    pub start: Option<Timestamp>,
    /// Only changes before this time.
    pub end: Option<Timestamp>,
    /// Only changes by this actor, or on behalf of it.
    pub actor: Option<String>,
    /// Only changes of these kinds; of all, if empty.
    pub kinds: Vec<ChangeKind>,
    /// Only changes of this credential.
    pub credential: Option<CredentialId>,
}

impl ChangeFilter {
    /// Whether the filter selects every change after the revision.
    fn is_all(&self) -> bool {
        let &Self { newest_first, after, .. } = self;
        *self == Self { newest_first, after, ..Self::default() }
    }

    fn selects(&self, change: &Change) -> bool {
        let Self { newest_first: _, after: _, start, end, actor, kinds, credential } = self;
        let author = &change.author;
        start.is_none_or(|start| start <= change.time)
            && end.is_none_or(|end| change.time < end)
            && (kinds.is_empty() || kinds.contains(&change.kind))
            && actor
                .as_ref()
                .is_none_or(|actor| *actor == author.actor || *actor == author.on_behalf_of)
            && credential.as_ref().is_none_or(|id| change.credential.as_ref() == Some(id))
    }
}

/// A page of changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangePage {
    /// The changes, in the requested order. A page may be empty although the list goes on.
    pub changes: Vec<Change>,
    /// The revision from which the next page continues, in the same direction; none at the end.
    pub next: Option<Revision>,
}

impl Session<'_> {
    /// A page of changes that the caller may see, from the start of the list or from the end of an earlier page.
    ///
    /// # Errors
    /// The store cannot answer, or the changes after the requested revision were compacted.
    pub async fn history(
        &self,
        company: Option<CompanyId>,
        filter: ChangeFilter,
        continues: Option<Revision>,
        limit: usize,
    ) -> Result<ChangePage, AuthorityError> {
        let Interest { company, present_only } = Interest::of(&self.caller, company);
        let backwards = filter.newest_first;
        // The changes that a list has not reached yet must still be retained. A list that goes
        // backwards ends where the log begins.
        let named = if backwards { filter.after } else { continues.or(filter.after) };
        let mut after = named.unwrap_or(Revision::ZERO);
        let mut up_to = match company.as_ref().filter(|_| present_only) {
            None => self.authority.facts.view().await?.at,
            Some(company) => {
                let (at, present) = self.authority.present(company).await?;
                let Some(present) = present else { return Ok(ChangePage::default()) };
                after = after.max(Revision(present.0.saturating_sub(1)));
                at
            }
        };
        if let Some(reached) = continues.filter(|_| backwards) {
            up_to = up_to.min(Revision(reached.0.saturating_sub(1)));
        }
        loop {
            let (company, filter) = (company.clone(), filter.clone());
            let read =
                move |store: &Store| find(store, company.as_ref(), &filter, after, up_to, limit);
            match self.authority.facts.read(read).await {
                Err(StoreError::Compacted(gone)) if named.is_none() => after = gone,
                found => return Ok(found?),
            }
        }
    }
}

/// The selected changes after one revision and up to another.
fn find(
    store: &Store,
    company: Option<&CompanyId>,
    filter: &ChangeFilter,
    mut after: Revision,
    mut up_to: Revision,
    limit: usize,
) -> Result<ChangePage, StoreError> {
    let (mut found, mut reached) = (ChangePage::default(), None);
    let (mut looked_at, mut total) = (0, 0);
    let is_all = filter.is_all();
    loop {
        // Without a filter, one more than fits.
        let step_limit = if is_all { (limit + 1 - found.changes.len()).min(STEP) } else { STEP };
        let step = match filter.newest_first {
            false => store.changes(company, after, up_to, step_limit)?,
            true => store.changes_back(company, after, up_to, step_limit)?,
        };
        let is_last = step.len() < step_limit;
        looked_at += step.len();
        for change in step {
            let revision = change.revision;
            if filter.selects(&change) {
                // A change that does not fit is on the next page. The first change always fits.
                if found.changes.len() == limit || total > MAX_PAGE_WEIGHT {
                    found.next = reached;
                    return Ok(found);
                }
                total += length(&change);
                found.changes.push(change);
            }
            reached = Some(revision);
            match filter.newest_first {
                false => after = revision,
                true => up_to = Revision(revision.0.saturating_sub(1)),
            }
        }
        if is_last {
            return Ok(found);
        }
        if looked_at >= SCAN {
            found.next = reached;
            return Ok(found);
        }
    }
}

/// The weight of a change on a page: one change may name a whole catalog.
pub(super) fn length(change: &Change) -> usize {
    let texts = change.fields.iter().map(|f| f.before.len() + f.after.len());
    change.added.len() + change.removed.len() + change.fields.len() + texts.sum::<usize>() / 32
}
