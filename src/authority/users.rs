//! Users: creates, replaces, deletes and reads the users of a company.

use std::sync::Arc;

use super::error::AuthorityError;
use super::idempotency::{IdempotencyStart, StorableReply};
use super::queries::{Page, PageBuilder, Read, page};
use super::transaction::{Attempt, Resource, Subject, WritePlan, Written, require_company};
use super::write_options::WriteOptions;
use super::{ATTEMPTS, Authority};
use crate::policy::change::{ChangeKind, FieldChange};
use crate::policy::company::Company;
use crate::policy::edit::Edit;
use crate::policy::id::{CompanyId, Name, UserId};
use crate::policy::revision::Revision;
use crate::policy::user::User;
use crate::store::{Fact, FactKey, Store};

impl Authority {
    /// Creates a user, or replaces the user's roles.
    ///
    /// # Errors
    /// The company is unknown, or the etag is not current.
    pub async fn put_user<R: StorableReply>(
        &self,
        company_id: &CompanyId,
        id: &UserId,
        roles: &[Name],
        options: &WriteOptions,
        render: impl Fn(Written<User>) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let subject = Subject { user: Some(id), ..Subject::of(ChangeKind::PutUser, company_id) };
        let put = |company: &Company, before: Option<&User>| {
            Ok(User::put(before, id, company.created_at, roles))
        };
        self.change_user(id, subject, options, put, render).await
    }

    /// Deletes a user, with the user's consents.
    ///
    /// # Errors
    /// The company or the user is unknown, or the etag is not current.
    pub async fn delete_user<R: StorableReply>(
        &self,
        company_id: &CompanyId,
        id: &UserId,
        options: &WriteOptions,
        render: impl Fn(Written<User>) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let subject = Subject { user: Some(id), ..Subject::of(ChangeKind::DeleteUser, company_id) };
        let delete = |_: &Company, before: Option<&User>| {
            let user = before
                .ok_or_else(|| AuthorityError::UserNotFound(company_id.clone(), id.clone()))?;
            let roles = FieldChange::list("roles", Some(&user.roles), &[]);
            Ok(Edit { fields: roles.into_iter().collect(), ..Edit::none(user) })
        };
        self.change_user(id, subject, options, delete, render).await
    }

    async fn change_user<R: StorableReply>(
        &self,
        id: &UserId,
        subject: Subject<'_>,
        options: &WriteOptions,
        edit: impl Fn(&Company, Option<&User>) -> Result<Edit<User>, AuthorityError>,
        render: impl Fn(Written<User>) -> R + Clone + Send + 'static,
    ) -> Result<R, AuthorityError> {
        let company_id = subject.company;
        for _ in 0..ATTEMPTS {
            let view = match self.begin(options, subject.kind).await? {
                IdempotencyStart::Now(view) => view,
                IdempotencyStart::Before(reply) => return Ok(reply),
            };
            let found = self.facts.company(view.at, company_id).await;
            let Some(company) = self.or_retry(found).await? else { continue };
            let company =
                company.ok_or_else(|| AuthorityError::CompanyNotFound(company_id.clone()))?;
            let found = self.facts.user(view.at, company.created_at, id).await;
            let Some(before) = self.or_retry(found).await? else { continue };
            let edit = edit(&company, before.as_deref())?;
            self.check_etag(options, before.as_ref().map(|user| user.revision))?;
            let delete = subject.kind == ChangeKind::DeleteUser;
            let (preconditions, keep) =
                (vec![require_company(&company)], options.keep(render.clone()));
            let plan =
                WritePlan { before, edit, delete, preconditions, other_writes: vec![], keep };
            let now = self.clock.now();
            if let Attempt::Written(written) =
                self.commit_plan(&view, plan, subject, options, now).await?
            {
                return Ok(render(written));
            }
        }
        Err(AuthorityError::Conflict)
    }

    /// One user.
    ///
    /// # Errors
    /// There is none, or the store cannot answer.
    pub async fn user(
        &self,
        company_id: &CompanyId,
        id: &UserId,
    ) -> Result<Read<User>, AuthorityError> {
        for _ in 0..ATTEMPTS {
            let (view, company) = self.existing_company(company_id).await?;
            let found = self.facts.user(view.at, company.created_at, id).await;
            let Some(found) = self.or_retry(found).await? else { continue };
            let user = found
                .ok_or_else(|| AuthorityError::UserNotFound(company_id.clone(), id.clone()))?;
            let (etag, revision) = (self.etag(user.revision), view.at);
            return Ok(Read { resource: Arc::unwrap_or_clone(user), etag, revision });
        }
        Err(AuthorityError::Conflict)
    }

    /// A company's users after this id, by id.
    ///
    /// # Errors
    /// The company is unknown, or the store cannot answer.
    pub async fn users(
        &self,
        company_id: &CompanyId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Page<User>, AuthorityError> {
        let (view, company) = self.existing_company(company_id).await?;
        let created_at = company.created_at;
        let read = move |store: &Store| {
            let (mut page, mut after) = (PageBuilder::new(limit), after);
            while page.wants_more() {
                let step = store.users(created_at, after.as_ref(), page.step())?;
                after = step.last().map(|user| user.id.clone());
                page.add(step, |user| user.roles.len());
            }
            Ok(page.map(|user| user))
        };
        let (found, more) = self.facts.read(read).await?;
        Ok(page(found, more, view.at, |user| self.etag(user.revision)))
    }
}

impl Resource for User {
    fn key(&self) -> FactKey {
        FactKey::User(self.company, self.id.clone())
    }

    fn revision(&self) -> Revision {
        self.revision
    }

    fn fact(self: Arc<Self>) -> Fact {
        Fact::User(self)
    }
}
