//! History: the audit log as a list, from either end, all of it or what is asked for.
//!
//! Changes are kept by revision, and those of a company have an index. By time, kind, actor and
//! credential there is none: those are compared one by one. So a call looks at [`SCAN`] changes at
//! most, and says where the next one goes on. Times are no order to search by: an operator may have
//! brought the store's time back between two changes.
//!
//! Who may see what: a caller that is bound to companies sees the changes of the present company
//! only, from its creation on, from whichever end it reads; see `watch`.

use jiff::Timestamp;

use super::error::AuthorityError;
use super::{Authority, Interest};
use crate::policy::change::{Change, ChangeKind};
use crate::policy::id::{CompanyId, CredentialId};
use crate::policy::revision::Revision;
use crate::store::{Store, StoreError};

/// The most changes that a call looks at.
pub const SCAN: usize = 10_000;
/// The most that are read from the store at once.
const STEP: usize = 64;
/// The most that the changes of a page name together.
const MOST: usize = 20_000;

/// Which changes are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// From the newest back.
    pub newest_first: bool,
    /// Only those behind this revision; all that are kept, if none is given.
    pub after: Option<Revision>,
    /// Only those of this time or later.
    pub start: Option<Timestamp>,
    /// Only those of before this time.
    pub end: Option<Timestamp>,
    /// Only those made by this caller, or on behalf of this person.
    pub actor: Option<String>,
    /// Only those of these kinds; of all, if empty.
    pub kinds: Vec<ChangeKind>,
    /// Only those of this credential.
    pub credential: Option<CredentialId>,
}

impl Wanted {
    /// Whether every change behind the revision is wanted.
    fn is_all(&self) -> bool {
        let &Self { newest_first, after, .. } = self;
        *self == Self { newest_first, after, ..Self::default() }
    }

    fn has(&self, change: &Change) -> bool {
        let Self { newest_first: _, after: _, start, end, actor, kinds, credential } = self;
        let author = &change.author;
        start.is_none_or(|start| start <= change.time)
            && end.is_none_or(|end| change.time < end)
            && (kinds.is_empty() || kinds.contains(&change.kind))
            && actor.as_ref().is_none_or(|who| *who == author.actor || *who == author.on_behalf_of)
            && credential.as_ref().is_none_or(|id| change.credential.as_ref() == Some(id))
    }
}

/// A page of changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The changes, in the order asked for. There may be none though the list goes on.
    pub changes: Vec<Change>,
    /// The revision that the next page goes on from, in the same direction; none at the end.
    pub next: Option<Revision>,
}

impl Authority {
    /// A page of changes, from the beginning of the list or from where a page before it ended.
    ///
    /// # Errors
    /// The store cannot answer, or what is behind the revision asked for is no longer kept.
    pub async fn history(
        &self,
        interest: &Interest,
        wanted: Wanted,
        continues: Option<Revision>,
        limit: usize,
    ) -> Result<Found, AuthorityError> {
        let Interest { company, present_only } = interest.clone();
        let backwards = wanted.newest_first;
        // Of a list that goes on, what it has not reached yet must still be kept. The end of a list
        // that goes back is wherever the log begins.
        let named = if backwards { wanted.after } else { continues.or(wanted.after) };
        let mut after = named.unwrap_or(Revision::ZERO);
        let mut up_to = match company.as_ref().filter(|_| present_only) {
            None => self.facts.view().await?.at,
            Some(company) => {
                let (at, present) = self.present(company).await?;
                let Some(present) = present else { return Ok(Found::default()) };
                after = after.max(Revision(present.0.saturating_sub(1)));
                at
            }
        };
        if let Some(reached) = continues.filter(|_| backwards) {
            up_to = up_to.min(Revision(reached.0.saturating_sub(1)));
        }
        loop {
            let (company, wanted) = (company.clone(), wanted.clone());
            let read = move |store: &dyn Store| {
                find(store, company.as_ref(), &wanted, after, up_to, limit)
            };
            match self.facts.read(read).await {
                Err(StoreError::Compacted(gone)) if named.is_none() => after = gone,
                found => return Ok(found?),
            }
        }
    }
}

/// What is wanted of the changes behind one revision and up to another.
fn find(
    store: &dyn Store,
    company: Option<&CompanyId>,
    wanted: &Wanted,
    mut after: Revision,
    mut up_to: Revision,
    limit: usize,
) -> Result<Found, StoreError> {
    let (mut found, mut reached) = (Found::default(), None);
    let (mut looked_at, mut total) = (0, 0);
    let is_all = wanted.is_all();
    loop {
        // Where all are wanted, one more than fits.
        let most = if is_all { (limit + 1 - found.changes.len()).min(STEP) } else { STEP };
        let step = match wanted.newest_first {
            false => store.changes(company, after, up_to, most)?,
            true => store.changes_back(company, after, up_to, most)?,
        };
        let is_last = step.len() < most;
        looked_at += step.len();
        for change in step {
            let revision = change.revision;
            if wanted.has(&change) {
                // What does not fit any more is on the next page; the first always fits.
                if found.changes.len() == limit || total > MOST {
                    found.next = reached;
                    return Ok(found);
                }
                total += length(&change);
                found.changes.push(change);
            }
            reached = Some(revision);
            match wanted.newest_first {
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

/// What a change adds to a page: one may name a whole catalog.
pub(super) fn length(change: &Change) -> usize {
    let texts = change.fields.iter().map(|f| f.before.len() + f.after.len());
    change.added.len() + change.removed.len() + change.fields.len() + texts.sum::<usize>() / 32
}
