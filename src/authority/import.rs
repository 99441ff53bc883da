//! Import: companies and credentials by the million, each a change of its own, without waiting
//! for one before the next.
//!
//! What is added is planned and queued in order; up to `WINDOW` proposals wait for the writer,
//! which commits them together. None of them reads what it is about to create: it rests on there
//! being nothing, and the writer knows. Only where there was something is the item looked at.
//!
//! INVARIANT (no gap): when an import ends at an item, every item before it exists. Answers are
//! taken in the order of the items, and nothing is proposed behind a refusal.
//!
//! Not here: where items come from. Whoever adds them is held up while the window is full, and
//! so need not keep more than the next one: an import's memory does not grow with its length.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::SemaphorePermit;

use super::error::AuthorityError;
use super::import_difference::{self, ImportDifference, LISTED};
use super::transaction::{Subject, WriteOptions, resolve};
use super::{ATTEMPTS, Authority, NewCompany, NewCredential};
use crate::policy::change::ChangeKind;
use crate::policy::company::Company;
use crate::policy::credential::GrantContext;
use crate::policy::id::CompanyId;
use crate::policy::revision::Revision;
use crate::store::quota::Quota;
use crate::store::{CommitHandle, Proposal, Receipt, StoreError};

/// The most proposals of one import that wait for the writer. Larger batches are hardly faster,
/// and every other change waits behind one.
const WINDOW: usize = 512;
/// The most proposals of all imports that wait for the writer: a quarter of what its queue
/// holds, so that imports never turn other changes away.
pub(super) const MAX_IN_FLIGHT: usize = 1024;
/// How long to wait when the queue is full of others' changes.
const BREATH: Duration = Duration::from_millis(2);
/// The most companies that a dry run remembers, which it does not create.
const MAX_DRY_RUN_COMPANIES: usize = 100_000;

/// What an import creates, if it does not exist.
#[derive(Clone, Debug)]
pub enum ImportItem {
    /// A company.
    Company(NewCompany),
    /// A credential.
    Credential(NewCredential),
}

/// What an import did so far, all of it durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportSummary {
    /// Companies created.
    pub companies: u64,
    /// Credentials created.
    pub credentials: u64,
    /// What existed already.
    pub skipped: u64,
    /// How many of these have other content.
    pub differing: u64,
    /// The last change's revision; the current one if there was no change.
    pub revision: Revision,
}

/// An import under way. `P` is where an item stands, in whatever way its giver counts.
pub struct Import<'a, P> {
    authority: &'a Authority,
    terms: WriteOptions,
    window: usize,
    waiting: VecDeque<InFlightImport<'a, P>>,
    /// How many of those that wait are companies.
    companies: usize,
    tally: ImportSummary,
    differences: Vec<ImportDifference<P>>,
    /// The companies that a dry run would have created.
    imagined: HashMap<CompanyId, Company>,
    /// How many credentials a dry run would have created in companies, of [`MAX_DRY_RUN_COMPANIES`] at most.
    credentials: HashMap<CompanyId, u64>,
}

/// An item that waits for the writer.
struct InFlightImport<'a, P> {
    place: P,
    new: ImportItem,
    ticket: CommitHandle,
    _room: SemaphorePermit<'a>,
}

impl Authority {
    /// Begins an import. Of its terms author and dry run count.
    #[must_use]
    pub fn import<P>(&self, terms: WriteOptions) -> Import<'_, P> {
        let tally = ImportSummary { revision: self.published(), ..ImportSummary::default() };
        let (waiting, imagined) = (VecDeque::new(), HashMap::new());
        let (window, companies) = (WINDOW, 0);
        let (credentials, differences) = (HashMap::new(), Vec::new());
        Import {
            authority: self,
            terms,
            window,
            waiting,
            companies,
            tally,
            differences,
            imagined,
            credentials,
        }
    }
}

impl<P: Copy> Import<'_, P> {
    /// What was done so far.
    #[must_use]
    pub fn tally(&self) -> ImportSummary {
        self.tally
    }

    /// The first items that existed with other content, in order.
    #[must_use]
    pub fn take_differences(&mut self) -> Vec<ImportDifference<P>> {
        std::mem::take(&mut self.differences)
    }

    /// Has one more item created, unless it exists. Returns before it is.
    ///
    /// # Errors
    /// This item or one before it cannot be created: its place, and why. Nothing waits any more.
    pub async fn add(&mut self, place: P, new: ImportItem) -> Result<(), (P, AuthorityError)> {
        if self.terms.validate_only {
            return self.dry_run(place, &new).await.map_err(|refusal| (place, refusal));
        }
        while self.waiting.len() >= self.window || self.waits_for_company_of(&new) {
            self.await_oldest().await?;
        }
        loop {
            let room = match self.authority.room.try_acquire() {
                Ok(room) => room,
                Err(_) if !self.waiting.is_empty() => {
                    self.await_oldest().await?;
                    continue;
                }
                Err(_) => match self.authority.room.acquire().await {
                    Ok(room) => room,
                    Err(_) => return Err((place, StoreError::Unavailable.into())),
                },
            };
            let queued = match self.proposal(&new).await {
                Ok(proposal) => self.authority.queue(proposal),
                Err(refusal) => {
                    // What stands before it comes first, with its own refusals.
                    self.settle().await?;
                    return Err((place, refusal));
                }
            };
            match queued {
                Ok(ticket) => {
                    self.companies += usize::from(matches!(new, ImportItem::Company(_)));
                    self.waiting.push_back(InFlightImport { place, new, ticket, _room: room });
                    return Ok(());
                }
                // The queue is full of others' changes: they come first.
                Err(StoreError::Busy) => {
                    drop(room);
                    self.window = (self.window / 2).max(1);
                    if self.waiting.is_empty() {
                        tokio::time::sleep(BREATH).await;
                    } else {
                        self.await_oldest().await?;
                    }
                }
                Err(error) => {
                    self.settle().await?;
                    return Err((place, error.into()));
                }
            }
        }
    }

    /// Waits until everything that was added is durable.
    ///
    /// # Errors
    /// An item cannot be created: its place, and why. Nothing waits any more.
    pub async fn settle(&mut self) -> Result<(), (P, AuthorityError)> {
        while !self.waiting.is_empty() {
            self.await_oldest().await?;
        }
        Ok(())
    }

    /// A credential is kept under its company's birth, which is known when that is committed.
    fn waits_for_company_of(&self, new: &ImportItem) -> bool {
        let ImportItem::Credential(new) = new else { return false };
        self.companies > 0 && self.waiting.iter().any(|item| item.new.is_company(&new.company))
    }

    /// Waits for the oldest item.
    async fn await_oldest(&mut self) -> Result<(), (P, AuthorityError)> {
        let Some((place, new, answer)) = self.answer().await else { return Ok(()) };
        let settled = match answer {
            Ok(Some(receipt)) => {
                self.window = (self.window + 1).min(WINDOW);
                self.count(&new, receipt.revision);
                Ok(())
            }
            // It exists, or what it rests on has changed: now it is worth a look.
            Ok(None) => self.create(place, &new).await,
            Err(error) => Err(error.into()),
        };
        let Err(refusal) = settled else { return Ok(()) };
        // What stands behind was proposed already: it counts where it was created.
        while let Some((_, new, answer)) = self.answer().await {
            if let Ok(Some(receipt)) = answer {
                self.count(&new, receipt.revision);
            }
        }
        Err((place, refusal))
    }

    /// The oldest item, and what the writer says of it.
    async fn answer(&mut self) -> Option<(P, ImportItem, Result<Option<Receipt>, StoreError>)> {
        let InFlightImport { place, new, ticket, _room } = self.waiting.pop_front()?;
        if matches!(new, ImportItem::Company(_)) {
            self.companies -= 1;
        }
        Some((place, new, self.authority.answered(ticket).await))
    }

    /// The change that creates an item, and that rests on there being none.
    async fn proposal(&self, new: &ImportItem) -> Result<Proposal, AuthorityError> {
        let Self { authority, terms, .. } = self;
        for _ in 0..ATTEMPTS {
            let view = authority.facts.view().await?;
            // The change of each item rests on the key that is found here (revoked at once).
            if !authority.is_current(&terms.caller) {
                return Err(AuthorityError::CallerRevoked);
            }
            let proposal = match new {
                ImportItem::Company(new) => {
                    let now = authority.clock.now();
                    let plan = NewCompany::plan(&view, new.edit(&view.catalog, now)?, None);
                    let subject = Subject::of(ChangeKind::CreateCompany, &new.id);
                    authority.propose(&view, plan, subject, terms, now).0
                }
                ImportItem::Credential(new) => {
                    let found = authority.facts.company(view.at, &new.company).await;
                    let Some(company) = authority.or_retry(found).await? else { continue };
                    let Some(company) = company else {
                        resolve(&view.catalog, "scopes", &new.scopes)?;
                        return Err(AuthorityError::CompanyNotFound(new.company.clone()));
                    };
                    let now = authority.clock.now();
                    let ground = GrantContext { catalog: &view.catalog, company: &company, now };
                    let plan = NewCredential::plan(&view, &company, new.edit(ground)?, None);
                    let kind = ChangeKind::CreateCredential;
                    let subject = Subject::of(kind, &new.company);
                    let subject = Subject { credential: Some(&new.id), ..subject };
                    authority.propose(&view, plan, subject, terms, now).0
                }
            };
            return Ok(proposal);
        }
        Err(AuthorityError::Conflict)
    }

    /// Creates an item as any caller would, and waits; what exists is skipped.
    async fn create(&mut self, place: P, new: &ImportItem) -> Result<(), AuthorityError> {
        loop {
            let Self { authority, terms, .. } = self;
            let created = match new {
                ImportItem::Company(new) => {
                    authority.create_company(new, terms, |done| done.revision.0).await
                }
                ImportItem::Credential(new) => {
                    authority.create_credential(new, terms, |done| done.revision.0).await
                }
            };
            match created {
                Ok(revision) => self.count(new, Revision(revision)),
                Err(AuthorityError::CompanyExists(_) | AuthorityError::CredentialExists(..)) => {
                    let fields = authority.import_difference(new).await?;
                    self.skip(place, new, fields);
                }
                Err(AuthorityError::Store(StoreError::Busy)) => {
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
                Err(refusal) => return Err(refusal),
            }
            return Ok(());
        }
    }

    /// Does as `create` would, and changes nothing. A credential's company may be one that would
    /// have been created before it.
    async fn dry_run(&mut self, place: P, new: &ImportItem) -> Result<(), AuthorityError> {
        let authority = self.authority;
        match new {
            ImportItem::Company(company) if self.imagined.contains_key(&company.id) => {
                let view = authority.facts.view().await?;
                let wanted = company.edit(&view.catalog, authority.clock.now())?.after;
                let fields = self.imagined.get(&company.id).map_or_else(Vec::new, |imagined| {
                    import_difference::of_company(imagined, &wanted, &view.catalog)
                });
                self.skip(place, new, fields);
                return Ok(());
            }
            ImportItem::Company(company) => {
                let before = self.tally.companies;
                self.create(place, new).await?;
                if self.tally.companies > before {
                    if self.imagined.len() == MAX_DRY_RUN_COMPANIES {
                        return Err(AuthorityError::DryRunTooLarge(MAX_DRY_RUN_COMPANIES));
                    }
                    let view = authority.facts.view().await?;
                    let edit = company.edit(&view.catalog, authority.clock.now())?;
                    self.imagined.insert(company.id.clone(), edit.after);
                }
            }
            ImportItem::Credential(credential) => match self.imagined.get(&credential.company) {
                Some(company) => {
                    let (view, now) = (authority.facts.view().await?, authority.clock.now());
                    let edit =
                        credential.edit(GrantContext { catalog: &view.catalog, company, now })?;
                    self.imagine_credential(&credential.company, edit.after.company)?;
                    self.count(new, self.tally.revision);
                }
                None => {
                    let before = self.tally.credentials;
                    self.create(place, new).await?;
                    if self.tally.credentials > before {
                        let (_, company) = authority.existing_company(&credential.company).await?;
                        let imagined =
                            self.imagine_credential(&credential.company, company.created_at);
                        if let Err(error) = imagined {
                            self.tally.credentials = before;
                            return Err(error.into());
                        }
                    }
                }
            },
        }
        Ok(())
    }

    /// Counts a credential that a dry run would have created, and refuses one that would be above
    /// the bound of its company. The engine knows only of those that exist.
    fn imagine_credential(
        &mut self,
        company: &CompanyId,
        created_at: Revision,
    ) -> Result<(), StoreError> {
        if self.credentials.len() >= MAX_DRY_RUN_COMPANIES
            && !self.credentials.contains_key(company)
        {
            return Ok(());
        }
        let count = self.credentials.entry(company.clone()).or_default();
        *count += 1;
        self.authority.facts.store().check_quota(created_at, Quota::Credentials, *count)
    }

    /// Counts what exists, and keeps where it differs from the import.
    fn skip(&mut self, place: P, new: &ImportItem, fields: Vec<&'static str>) {
        self.tally.skipped += 1;
        if fields.is_empty() {
            return;
        }
        self.tally.differing += 1;
        if self.differences.len() < LISTED {
            self.differences.push(ImportDifference { place, new: new.clone(), fields });
        }
    }

    fn count(&mut self, new: &ImportItem, revision: Revision) {
        match new {
            ImportItem::Company(_) => self.tally.companies += 1,
            ImportItem::Credential(_) => self.tally.credentials += 1,
        }
        self.tally.revision = self.tally.revision.max(revision);
    }
}

impl ImportItem {
    fn is_company(&self, id: &CompanyId) -> bool {
        matches!(self, Self::Company(new) if new.id == *id)
    }
}
