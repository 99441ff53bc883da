//! Credentials: creates, changes and deletes credentials, and adds and removes their grants.

use std::sync::Arc;

use jiff::Timestamp;

use super::error::AuthorityError;
use super::reader::resolve;
use super::session::Session;
use super::transaction::{Outcome, Planned, Subject, Transaction, TransactionError, Written};
use super::write_options::WriteOptions;
use crate::policy::catalog::Catalog;
use crate::policy::change::{ChangeKind, FieldChange};
use crate::policy::company::Company;
use crate::policy::credential::{AboveCeiling, Credential, CredentialView, GrantContext};
use crate::policy::edit::Edit;
use crate::policy::id::{CompanyId, CredentialId};
use crate::policy::redirect_uri::RedirectUri;
use crate::policy::scope::{Scope, ScopeId};

/// A credential to create.
#[derive(Clone, Debug)]
pub struct NewCredential {
    /// Its company.
    pub company: CompanyId,
    /// Its id.
    pub id: CredentialId,
    /// The label.
    pub label: String,
    /// Its grants.
    pub scopes: Vec<Scope>,
    /// Its expiry.
    pub expires_at: Option<Timestamp>,
    /// False denies every check of the credential.
    pub enabled: bool,
    /// Where a browser may be sent with an authorization code of the credential.
    pub redirect_uris: Vec<RedirectUri>,
    /// Tokens of the catalog's issuers that were issued at or before this time are invalid.
    pub tokens_valid_from: Option<Timestamp>,
}

impl NewCredential {
    /// The edit that creates the credential.
    ///
    /// # Errors
    /// A scope is unknown, or above the ceiling (D9).
    pub(super) fn edit(
        &self,
        context: GrantContext<'_>,
    ) -> Result<Edit<Credential>, AuthorityError> {
        let scopes = resolve(context.catalog, "scopes", &self.scopes)?;
        let (id, label, ends) = (self.id.clone(), self.label.clone(), self.expires_at);
        let mut edit = Credential::create(id, label, ends, &scopes, context)?;
        edit.fields.extend(FieldChange::new_text("label", &self.label));
        edit.fields.extend(FieldChange::time("expires_at", None, ends));
        if !self.redirect_uris.is_empty() {
            edit.fields.extend(FieldChange::list("redirect_uris", None, &self.redirect_uris));
            edit.after.redirect_uris = self.redirect_uris.as_slice().into();
        }
        let valid_from = self.tokens_valid_from;
        edit.fields.extend(FieldChange::time("tokens_valid_from", None, valid_from));
        edit.after.revoked_tokens.issued_before = valid_from;
        if !self.enabled {
            edit.after.enabled = false;
            edit.fields.push(FieldChange::new_flag("enabled", false));
        }
        Ok(edit)
    }

    /// Plans the creation, with the precondition that the credential does not exist.
    ///
    /// # Errors
    /// A scope is unknown, or above the ceiling (D9).
    pub(super) fn plan(
        &self,
        mut tx: Transaction<'_>,
        company: Arc<Company>,
    ) -> Result<Planned<Credential, ViewContext>, TransactionError> {
        let (catalog, now) = (tx.catalog(), tx.now());
        let context = ViewContext { catalog, company, now, last_seen: None };
        Ok(tx.create(self.edit(context.grant_context())?).with_context(context))
    }
}

/// A change of an existing credential (D10).
#[derive(Clone, Debug)]
pub enum CredentialChange {
    /// Add grants.
    Grant {
        /// The scopes.
        scopes: Vec<Scope>,
        /// The expiry of the grants.
        expires_at: Option<Timestamp>,
    },
    /// Revoke grants.
    Revoke(Vec<Scope>),
    /// Replace all grants by these scopes.
    Replace(Vec<Scope>),
    /// Replace all grants by the company's ceiling.
    Reset,
    /// Change the fields that are `Some`.
    Update {
        /// The label.
        label: Option<String>,
        /// False denies every check.
        enabled: Option<bool>,
        /// The expiry of the credential; `Some(None)` removes it.
        expires_at: Option<Option<Timestamp>>,
        /// Where a browser may be sent with an authorization code of the credential.
        redirect_uris: Option<Vec<RedirectUri>>,
    },
    /// Delete the credential.
    Delete,
}

impl CredentialChange {
    fn kind(&self) -> ChangeKind {
        match self {
            Self::Grant { .. } => ChangeKind::GrantScopes,
            Self::Revoke(_) => ChangeKind::RevokeScopes,
            Self::Replace(_) => ChangeKind::ReplaceScopes,
            Self::Reset => ChangeKind::ResetScopes,
            Self::Update { .. } => ChangeKind::UpdateCredential,
            Self::Delete => ChangeKind::DeleteCredential,
        }
    }

    fn scopes(&self) -> &[Scope] {
        match self {
            Self::Grant { scopes, .. } | Self::Revoke(scopes) | Self::Replace(scopes) => scopes,
            Self::Reset | Self::Update { .. } | Self::Delete => &[],
        }
    }
}

impl Session<'_> {
    /// Creates a credential, with grants if scopes are named (D9).
    ///
    /// # Errors
    /// A scope or the company is unknown, the id is taken, or a scope is above the ceiling.
    pub async fn create_credential(
        &self,
        new: &NewCredential,
        options: &WriteOptions,
    ) -> Result<Written<CredentialView>, AuthorityError> {
        let subject = Subject::of(ChangeKind::CreateCredential, &new.company);
        let subject = Subject { credential: Some(&new.id), ..subject };
        let plan = async |mut tx: Transaction<'_>| {
            // An unknown scope is reported before an unknown company.
            tx.resolve("scopes", &new.scopes)?;
            let company = tx.company(&new.company).await?;
            if tx.find::<Credential>((&company.created_at, &new.id)).await?.is_some() {
                let (company, id) = (new.company.clone(), new.id.clone());
                return Err(AuthorityError::CredentialExists(company, id).into());
            }
            tx.check_etag(None)?;
            new.plan(tx, company)
        };
        let outcome = self.write(subject, options, plan).await?;
        self.credential_written(&new.company, &new.id, outcome).await
    }

    /// Changes a credential.
    ///
    /// # Errors
    /// A scope, the company or the credential is unknown, the etag is not current, or a scope is
    /// above the ceiling (D9).
    pub async fn change_credential(
        &self,
        company_id: &CompanyId,
        id: &CredentialId,
        change: &CredentialChange,
        options: &WriteOptions,
    ) -> Result<Written<CredentialView>, AuthorityError> {
        let subject = Subject { credential: Some(id), ..Subject::of(change.kind(), company_id) };
        let is_deletion = matches!(change, CredentialChange::Delete);
        let plan = async |mut tx: Transaction<'_>| {
            let scopes = tx.resolve("scopes", change.scopes())?;
            let (company, credential) = tx.credential(company_id, id).await?;
            tx.check_etag(Some(credential.revision))?;
            let last_seen = self.authority.last_seen(&credential);
            let context = ViewContext { catalog: tx.catalog(), company, now: tx.now(), last_seen };
            let edit = edit_credential(&credential, change, &scopes, context.grant_context())?;
            let planned = match is_deletion {
                true => tx.delete(credential, edit),
                false => tx.put(Some(credential), edit),
            };
            Ok::<_, TransactionError>(planned.with_context(context))
        };
        match self.write(subject, options, plan).await? {
            Outcome::Repeated(stored) if is_deletion => Ok(self.repeated_without(stored).await?.0),
            outcome => self.credential_written(company_id, id, outcome).await,
        }
    }

    /// The response to a change of a credential.
    pub(super) async fn credential_written(
        &self,
        company: &CompanyId,
        id: &CredentialId,
        outcome: Outcome<Credential, ViewContext>,
    ) -> Result<Written<CredentialView>, AuthorityError> {
        match outcome {
            Outcome::Written(written, context) => Ok(written.map(|one| context.view(one))),
            Outcome::Repeated(stored) => {
                Ok(self.repeated(stored, self.credential(company, id)).await?.0)
            }
        }
    }
}

/// The facts and the time that the view of a credential depends on.
pub(super) struct ViewContext {
    pub(super) catalog: Arc<Catalog>,
    pub(super) company: Arc<Company>,
    pub(super) now: Timestamp,
    pub(super) last_seen: Option<Timestamp>,
}

impl ViewContext {
    fn grant_context(&self) -> GrantContext<'_> {
        GrantContext { catalog: &self.catalog, company: &self.company, now: self.now }
    }

    fn view(&self, credential: Credential) -> CredentialView {
        let last_seen = self.last_seen;
        CredentialView { last_seen, ..credential.view(self.grant_context()) }
    }
}

fn edit_credential(
    credential: &Credential,
    change: &CredentialChange,
    scopes: &[ScopeId],
    context: GrantContext<'_>,
) -> Result<Edit<Credential>, AboveCeiling> {
    match change {
        CredentialChange::Grant { expires_at, .. } => {
            credential.grant(scopes, *expires_at, context)
        }
        CredentialChange::Revoke(_) => Ok(credential.revoke(scopes, context)),
        CredentialChange::Replace(_) => credential.replace(scopes, context),
        CredentialChange::Reset => Ok(credential.reset(context)),
        CredentialChange::Update { label, enabled, expires_at, redirect_uris } => {
            let redirect_uris = redirect_uris.as_deref();
            Ok(credential.update(label.clone(), *enabled, *expires_at, redirect_uris))
        }
        CredentialChange::Delete => Ok(credential.delete(context.catalog)),
    }
}
