//! Users: creates, replaces, deletes and reads the users of a company.

use std::sync::Arc;

use super::error::AuthorityError;
use super::queries::{Page, PageBuilder, Read, page};
use super::reader::Reader;
use super::session::Session;
use super::transaction::{Outcome, Subject, Transaction, TransactionError, Written};
use super::write_options::WriteOptions;
use crate::policy::change::{ChangeKind, FieldChange};
use crate::policy::edit::Edit;
use crate::policy::id::{CompanyId, Name, UserId};
use crate::policy::user::User;
use crate::store::Store;

impl Session<'_> {
    /// Creates a user, or replaces the user's roles.
    ///
    /// # Errors
    /// The company is unknown, or the etag is not current.
    pub async fn put_user(
        &self,
        company_id: &CompanyId,
        id: &UserId,
        roles: &[Name],
        options: &WriteOptions,
    ) -> Result<Written<User>, AuthorityError> {
        let subject = Subject { user: Some(id), ..Subject::of(ChangeKind::PutUser, company_id) };
        let plan = async |mut tx: Transaction<'_>| {
            let company = tx.company(company_id).await?;
            let before = tx.find::<User>((&company.created_at, id)).await?;
            tx.check_etag(before.as_ref().map(|user| user.revision))?;
            let edit = User::put(before.as_deref(), id, company.created_at, roles);
            Ok::<_, TransactionError>(tx.put(before, edit))
        };
        match self.write(subject, options, plan).await? {
            Outcome::Written(written, ()) => Ok(written),
            Outcome::Repeated(stored) => {
                Ok(self.repeated(stored, self.user(company_id, id)).await?.0)
            }
        }
    }

    /// Deletes a user, with the user's consents.
    ///
    /// # Errors
    /// The company or the user is unknown, or the etag is not current.
    pub async fn delete_user(
        &self,
        company_id: &CompanyId,
        id: &UserId,
        options: &WriteOptions,
    ) -> Result<Written<User>, AuthorityError> {
        let subject = Subject { user: Some(id), ..Subject::of(ChangeKind::DeleteUser, company_id) };
        let plan = async |mut tx: Transaction<'_>| {
            let company = tx.company(company_id).await?;
            let missing = || AuthorityError::UserNotFound(company_id.clone(), id.clone());
            let user = tx.find::<User>((&company.created_at, id)).await?.ok_or_else(missing)?;
            tx.check_etag(Some(user.revision))?;
            let roles = FieldChange::list("roles", Some(&user.roles), &[]);
            let edit = Edit { fields: roles.into_iter().collect(), ..Edit::none(&*user) };
            Ok::<_, TransactionError>(tx.delete(user, edit))
        };
        match self.write(subject, options, plan).await? {
            Outcome::Written(written, ()) => Ok(written),
            Outcome::Repeated(stored) => Ok(self.repeated_without(stored).await?.0),
        }
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
        let read = async |mut reader: Reader<'_>| {
            let company = reader.company(company_id).await?;
            let missing = || AuthorityError::UserNotFound(company_id.clone(), id.clone());
            let user = reader.find::<User>((&company.created_at, id)).await?.ok_or_else(missing)?;
            let (etag, revision) = (self.authority.etag(user.revision), reader.revision());
            Ok(Read { resource: Arc::unwrap_or_clone(user), etag, revision })
        };
        self.read(read).await
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
        let (at, _, company) = self.existing_company(company_id).await?;
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
        let (found, more) = self.authority.facts.read(read).await?;
        Ok(page(found, more, at, |user| self.authority.etag(user.revision)))
    }
}
