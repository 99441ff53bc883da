//! Import: creates companies and credentials by the million. Each is a change of its own, and none
//! waits for the commit of the one before.
//!
//! Items are planned and queued in order. Up to `WINDOW` proposals wait for the writer, which commits
//! them together. A proposal does not read the item that it creates: its precondition is that the item
//! does not exist, and the writer checks it. Only if the item exists is it read.
//!
//! INVARIANT (no gap): if an import ends at an item, every earlier item exists. Results are taken in
//! the order of the items, and nothing is proposed after an error.
//!
//! Not here: the source of the items. `add` waits while the window is full, so the source needs to
//! hold only the next item, and the memory of an import does not grow with its length.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use super::error::AuthorityError;
use super::import_difference::{self, ImportDifference, LISTED};
use super::import_item::ImportItem;
use super::session::Session;
use super::transaction::{Subject, Transaction};
use super::write_options::WriteOptions;
use crate::policy::change::ChangeKind;
use crate::policy::company::Company;
use crate::policy::credential::GrantContext;
use crate::policy::id::CompanyId;
use crate::policy::revision::Revision;
use crate::store::quota::Quota;
use crate::store::{CommitHandle, Proposal, Receipt, StoreError};

/// The most proposals of one import that wait for the writer. Larger batches are hardly faster, and
/// other changes wait behind them.
const WINDOW: usize = 512;
/// The most proposals of all imports that wait for the writer: a quarter of its queue, so that
/// imports never cause other changes to be rejected.
pub(super) const MAX_IN_FLIGHT: usize = 1024;
/// How long to wait when the queue is full of other changes.
const RETRY_DELAY: Duration = Duration::from_millis(2);
/// How long an import waits for space in the log of the replicas. Its caller can run it again.
const SPACE_TIMEOUT: Duration = Duration::from_mins(2);
/// How often it looks whether there is space.
const SPACE_INTERVAL: Duration = Duration::from_millis(100);
/// The most new companies that a dry run holds in memory, since it does not create them.
const MAX_DRY_RUN_COMPANIES: usize = 100_000;

/// The results of an import so far. All of them are durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportSummary {
    /// Companies created.
    pub companies: u64,
    /// Credentials created.
    pub credentials: u64,
    /// Items that existed already.
    pub skipped: u64,
    /// Existing items with other content.
    pub differing: u64,
    /// The revision of the last change; the current one if there was no change.
    pub revision: Revision,
}

/// An import in progress. `P` is the position of an item, which the caller defines.
pub struct Import<'a, P> {
    session: &'a Session<'a>,
    options: WriteOptions,
    window: usize,
    in_flight: VecDeque<InFlightImport<'a, P>>,
    /// The last item that was added.
    last: Option<P>,
    /// How many of the items in flight are companies.
    companies: usize,
    summary: ImportSummary,
    differences: Vec<ImportDifference<P>>,
    /// The companies that a dry run would have created.
    planned: HashMap<CompanyId, Company>,
    /// How many credentials a dry run would have created in each company, for at most
    /// [`MAX_DRY_RUN_COMPANIES`] companies.
    credentials: HashMap<CompanyId, u64>,
}

/// An item that waits for the writer.
struct InFlightImport<'a, P> {
    position: P,
    new: ImportItem,
    handle: CommitHandle,
    _slot: SemaphorePermit<'a>,
}

impl<'s> Session<'s> {
    /// Begins an import. Of the options, only the reason, `on_behalf_of` and the dry run apply.
    #[must_use]
    pub fn import<P>(&self, options: WriteOptions) -> Import<'_, P> {
        let summary =
            ImportSummary { revision: self.authority.published(), ..ImportSummary::default() };
        let (in_flight, planned) = (VecDeque::new(), HashMap::new());
        let (window, companies) = (WINDOW, 0);
        let (credentials, differences) = (HashMap::new(), Vec::new());
        Import {
            session: self,
            options,
            window,
            in_flight,
            last: None,
            companies,
            summary,
            differences,
            planned,
            credentials,
        }
    }
}

impl<P: Copy> Import<'_, P> {
    /// The results so far.
    #[must_use]
    pub fn tally(&self) -> ImportSummary {
        self.summary
    }

    /// The first existing items with other content, in order.
    #[must_use]
    pub fn take_differences(&mut self) -> Vec<ImportDifference<P>> {
        std::mem::take(&mut self.differences)
    }

    /// Waits while the log of the replicas has no space for imports.
    ///
    /// # Errors
    /// It has none for a long time.
    pub async fn wait_for_space(&self) -> Result<(), AuthorityError> {
        let store = self.session.authority.facts.store();
        let deadline = Instant::now() + SPACE_TIMEOUT;
        while !self.options.validate_only && store.imports_wait() {
            if Instant::now() >= deadline {
                return Err(StoreError::LogNearlyFull.into());
            }
            tokio::time::sleep(SPACE_INTERVAL).await;
        }
        Ok(())
    }

    /// Queues the creation of an item, unless it exists. Returns before the commit.
    ///
    /// # Errors
    /// This item or an earlier one cannot be created: its position, and the reason. Then nothing is
    /// in flight.
    pub async fn add(&mut self, position: P, new: ImportItem) -> Result<(), (P, AuthorityError)> {
        if self.options.validate_only {
            return self.dry_run(position, &new).await.map_err(|error| (position, error));
        }
        self.last = Some(position);
        while self.in_flight.len() >= self.window || self.waits_for_company_of(&new) {
            self.await_oldest().await?;
        }
        loop {
            let slot = match self.session.authority.import_slots.try_acquire() {
                Ok(slot) => slot,
                Err(_) if !self.in_flight.is_empty() => {
                    self.await_oldest().await?;
                    continue;
                }
                Err(_) => match self.session.authority.import_slots.acquire().await {
                    Ok(slot) => slot,
                    Err(_) => return Err((position, StoreError::Unavailable.into())),
                },
            };
            let queued = match self.proposal(&new).await {
                Ok(proposal) => self.session.authority.queue(proposal),
                Err(error) => {
                    // Earlier items come first, with their own errors.
                    self.drain().await?;
                    return Err((position, error));
                }
            };
            match queued {
                Ok(handle) => {
                    self.companies += usize::from(matches!(new, ImportItem::Company(_)));
                    self.in_flight.push_back(InFlightImport { position, new, handle, _slot: slot });
                    return Ok(());
                }
                // The queue is full of other changes: they come first.
                Err(StoreError::Busy) => {
                    drop(slot);
                    self.window = (self.window / 2).max(1);
                    if self.in_flight.is_empty() {
                        tokio::time::sleep(RETRY_DELAY).await;
                    } else {
                        self.await_oldest().await?;
                    }
                }
                Err(error) => {
                    self.drain().await?;
                    return Err((position, error.into()));
                }
            }
        }
    }

    /// Waits until every added item is durable, and until every replica shows the items that existed
    /// before and the facts by which an item was rejected.
    ///
    /// # Errors
    /// An item cannot be created, or not every replica has confirmed it: its position, and the reason. Then
    /// nothing is in flight.
    pub async fn settle(&mut self) -> Result<(), (P, AuthorityError)> {
        self.drain().await?;
        match self.last.take() {
            Some(last) => self.session.everywhere().await.map_err(|error| (last, error)),
            None => Ok(()),
        }
    }

    /// Waits until no item is in flight.
    async fn drain(&mut self) -> Result<(), (P, AuthorityError)> {
        while !self.in_flight.is_empty() {
            self.await_oldest().await?;
        }
        Ok(())
    }

    /// Whether an item must wait for its company. The key of a credential has the creation revision of
    /// its company, which is known once the company is committed.
    fn waits_for_company_of(&self, new: &ImportItem) -> bool {
        let ImportItem::Credential(new) = new else { return false };
        self.companies > 0 && self.in_flight.iter().any(|item| item.new.is_company(&new.company))
    }

    /// Waits for the oldest item.
    async fn await_oldest(&mut self) -> Result<(), (P, AuthorityError)> {
        let Some((position, new, answer)) = self.answer().await else { return Ok(()) };
        let settled = match answer {
            Ok(Some(receipt)) => {
                self.window = (self.window + 1).min(WINDOW);
                self.count(&new, receipt.revision);
                Ok(())
            }
            // The item exists, or another precondition failed: read the facts again.
            Ok(None) => match self.session.import_difference(&new).await {
                Ok(Some(fields)) => {
                    self.skip(position, new, fields);
                    Ok(())
                }
                Ok(None) => self.create(position, &new).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error.into()),
        };
        let Err(error) = settled else { return Ok(()) };
        // Later items were proposed already: those that were created count.
        while let Some((_, new, answer)) = self.answer().await {
            if let Ok(Some(receipt)) = answer {
                self.count(&new, receipt.revision);
            }
        }
        Err((position, error))
    }

    /// The oldest item, and its receipt.
    async fn answer(&mut self) -> Option<(P, ImportItem, Result<Option<Receipt>, StoreError>)> {
        let InFlightImport { position, new, handle, _slot } = self.in_flight.pop_front()?;
        if matches!(new, ImportItem::Company(_)) {
            self.companies -= 1;
        }
        Some((position, new, self.session.authority.await_receipt(handle).await))
    }

    /// The proposal that creates an item, with the precondition that it does not exist.
    async fn proposal(&self, new: &ImportItem) -> Result<Proposal, AuthorityError> {
        let Self { session, options, .. } = self;
        match new {
            ImportItem::Company(new) => {
                let subject = Subject::of(ChangeKind::CreateCompany, &new.id);
                let plan = async |tx: Transaction<'_>| new.plan(tx);
                session.proposal(subject, options, plan).await
            }
            ImportItem::Credential(new) => {
                let subject = Subject::of(ChangeKind::CreateCredential, &new.company);
                let subject = Subject { credential: Some(&new.id), ..subject };
                let plan = async |mut tx: Transaction<'_>| {
                    let Some(company) = tx.find::<Company>(&new.company).await? else {
                        tx.resolve("scopes", &new.scopes)?;
                        return Err(AuthorityError::CompanyNotFound(new.company.clone()).into());
                    };
                    new.plan(tx, company)
                };
                session.proposal(subject, options, plan).await
            }
        }
    }

    /// Creates an item as a single change does, and waits. An existing item is skipped.
    async fn create(&mut self, position: P, new: &ImportItem) -> Result<(), AuthorityError> {
        loop {
            let Self { session, options, .. } = self;
            let created = match new {
                ImportItem::Company(new) => {
                    session.create_company(new, options).await.map(|written| written.revision)
                }
                ImportItem::Credential(new) => {
                    session.create_credential(new, options).await.map(|written| written.revision)
                }
            };
            match created {
                Ok(revision) => self.count(new, revision),
                Err(AuthorityError::CompanyExists(_) | AuthorityError::CredentialExists(..)) => {
                    let fields = session.import_difference(new).await?;
                    self.skip(position, new.clone(), fields.unwrap_or_default());
                }
                Err(AuthorityError::Store(StoreError::Busy)) => {
                    tokio::time::sleep(RETRY_DELAY).await;
                    continue;
                }
                Err(error) => return Err(error),
            }
            return Ok(());
        }
    }

    /// Does the same as `create` in a dry run. A credential's company may be one that the dry run
    /// would have created.
    async fn dry_run(&mut self, position: P, new: &ImportItem) -> Result<(), AuthorityError> {
        let authority = self.session.authority;
        match new {
            ImportItem::Company(company) if self.planned.contains_key(&company.id) => {
                let view = authority.facts.view().await?;
                let wanted = company.edit(&view.catalog, authority.clock.now())?.after;
                let fields = self.planned.get(&company.id).map_or_else(Vec::new, |planned| {
                    import_difference::of_company(planned, &wanted, &view.catalog)
                });
                self.skip(position, new.clone(), fields);
                return Ok(());
            }
            ImportItem::Company(company) => {
                let before = self.summary.companies;
                self.create(position, new).await?;
                if self.summary.companies > before {
                    if self.planned.len() == MAX_DRY_RUN_COMPANIES {
                        return Err(AuthorityError::DryRunTooLarge(MAX_DRY_RUN_COMPANIES));
                    }
                    let view = authority.facts.view().await?;
                    let edit = company.edit(&view.catalog, authority.clock.now())?;
                    self.planned.insert(company.id.clone(), edit.after);
                }
            }
            ImportItem::Credential(credential) => match self.planned.get(&credential.company) {
                Some(company) => {
                    let (view, now) = (authority.facts.view().await?, authority.clock.now());
                    let edit =
                        credential.edit(GrantContext { catalog: &view.catalog, company, now })?;
                    self.plan_credential(&credential.company, edit.after.company)?;
                    self.count(new, self.summary.revision);
                }
                None => {
                    let before = self.summary.credentials;
                    self.create(position, new).await?;
                    if self.summary.credentials > before {
                        let (_, _, company) =
                            self.session.existing_company(&credential.company).await?;
                        let planned = self.plan_credential(&credential.company, company.created_at);
                        if let Err(error) = planned {
                            self.summary.credentials = before;
                            return Err(error.into());
                        }
                    }
                }
            },
        }
        Ok(())
    }

    /// Counts a credential that a dry run would have created, and rejects it if it exceeds the limit of
    /// its company. The store knows only the existing credentials.
    fn plan_credential(
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
        self.session.authority.facts.store().check_quota(created_at, Quota::Credentials, *count)
    }

    /// Counts an existing item, and records its differences from the import.
    fn skip(&mut self, position: P, new: ImportItem, fields: Vec<&'static str>) {
        self.summary.skipped += 1;
        if fields.is_empty() {
            return;
        }
        self.summary.differing += 1;
        if self.differences.len() < LISTED {
            self.differences.push(ImportDifference { place: position, new, fields });
        }
    }

    fn count(&mut self, new: &ImportItem, revision: Revision) {
        match new {
            ImportItem::Company(_) => self.summary.companies += 1,
            ImportItem::Credential(_) => self.summary.credentials += 1,
        }
        self.summary.revision = self.summary.revision.max(revision);
    }
}
