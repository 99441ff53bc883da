//! StoredResponse: what is kept of a reply for a request that is sent again.
//!
//! A reply's resource may be large, and old by the time of the repeat. So only its ids are kept,
//! beside the revision and what was added and removed; a repeat reads the resource as it is now.
//! What is gone, or was deleted by the request itself, is answered by its ids alone.

use tonic::{Response, Status};

use super::Api;
use crate::authority::error::AuthorityError;
use crate::proto::*;
use crate::wire::{parse, render};

/// A reply to a change.
pub trait StoredResponse: prost::Message + Default + 'static {
    /// What is kept of it.
    #[must_use]
    fn to_keep(self) -> Self;

    /// The reply with its resource as it is now, if this is what was kept.
    fn renewed(self, doors: &Api) -> impl Future<Output = Result<Self, Status>> + Send;
}

/// A resource that a reply has.
trait KeptIds: Sized {
    /// Its ids, and nothing more.
    fn ids(self) -> Self;

    /// Whether it has ids and nothing more: what exists has a revision.
    fn is_ids(&self) -> bool;

    /// As it is now, if it still exists.
    fn now(&self, doors: &Api) -> impl Future<Output = Result<Option<Self>, Status>> + Send;
}

/// What was read, or none if it no longer exists.
fn existing<T>(read: Result<T, AuthorityError>) -> Result<Option<T>, Status> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(
            AuthorityError::CompanyNotFound(..)
            | AuthorityError::CredentialNotFound(..)
            | AuthorityError::UserNotFound(..)
            | AuthorityError::ConsentNotFound(..)
            | AuthorityError::KeyNotFound(..),
        ) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

impl KeptIds for Company {
    fn ids(self) -> Self {
        Self { company_id: self.company_id, ..Self::default() }
    }

    fn is_ids(&self) -> bool {
        self.revision == 0
    }

    async fn now(&self, doors: &Api) -> Result<Option<Self>, Status> {
        let id = parse::company(self.company_id.clone())?;
        let read = existing(doors.ready()?.company(&id).await)?;
        Ok(read.map(|read| render::company(read.resource, read.etag)))
    }
}

impl KeptIds for Credential {
    fn ids(self) -> Self {
        let Self { company_id, credential_id, .. } = self;
        Self { company_id, credential_id, ..Self::default() }
    }

    fn is_ids(&self) -> bool {
        self.revision == 0
    }

    async fn now(&self, doors: &Api) -> Result<Option<Self>, Status> {
        let (company, id) = parse::credential(self.company_id.clone(), self.credential_id.clone())?;
        let read = existing(doors.ready()?.credential(&company, &id).await)?;
        Ok(read.map(|read| render::credential(read.resource, read.etag)))
    }
}

impl KeptIds for User {
    fn ids(self) -> Self {
        let Self { company_id, user_id, .. } = self;
        Self { company_id, user_id, ..Self::default() }
    }

    fn is_ids(&self) -> bool {
        self.revision == 0
    }

    async fn now(&self, doors: &Api) -> Result<Option<Self>, Status> {
        let (company, id) = parse::user(self.company_id.clone(), self.user_id.clone())?;
        let read = existing(doors.ready()?.user(&company, &id).await)?;
        Ok(read.map(|read| render::user(read.resource, &company, read.etag)))
    }
}

impl KeptIds for Consent {
    fn ids(self) -> Self {
        let Self { company_id, credential_id, user_id, .. } = self;
        Self { company_id, credential_id, user_id, ..Self::default() }
    }

    fn is_ids(&self) -> bool {
        self.revision == 0
    }

    async fn now(&self, doors: &Api) -> Result<Option<Self>, Status> {
        let id = parse::consent(GetConsentRequest {
            company_id: self.company_id.clone(),
            credential_id: self.credential_id.clone(),
            user_id: self.user_id.clone(),
        })?;
        let read = existing(doors.ready()?.consent(&id).await)?;
        Ok(read.map(|read| render::consent(read.resource, &id, read.etag)))
    }
}

impl KeptIds for Key {
    fn ids(self) -> Self {
        Self { key_id: self.key_id, ..Self::default() }
    }

    fn is_ids(&self) -> bool {
        self.name.is_empty()
    }

    async fn now(&self, doors: &Api) -> Result<Option<Self>, Status> {
        let id = parse::key(self.key_id.clone())?;
        let read = existing(doors.ready()?.key(&id).await)?;
        Ok(read.map(|read| render::key(read.resource, read.etag)))
    }
}

/// Replies with a resource that lives on.
macro_rules! with_a_resource {
    ($($reply:ident { $resource:ident })*) => {$(
        impl StoredResponse for $reply {
            fn to_keep(self) -> Self {
                Self { $resource: self.$resource.map(KeptIds::ids), ..self }
            }

            async fn renewed(mut self, doors: &Api) -> Result<Self, Status> {
                if let Some(kept) = self.$resource.as_ref().filter(|kept| kept.is_ids())
                    && let Some(now) = kept.now(doors).await?
                {
                    self.$resource = Some(now);
                }
                Ok(self)
            }
        }
    )*};
}

/// Replies with a resource that is deleted.
macro_rules! with_what_is_gone {
    ($($reply:ident { $resource:ident })*) => {$(
        impl StoredResponse for $reply {
            fn to_keep(self) -> Self {
                Self { $resource: self.$resource.map(KeptIds::ids), ..self }
            }

            async fn renewed(self, _: &Api) -> Result<Self, Status> {
                Ok(self)
            }
        }
    )*};
}

/// Replies without a resource.
macro_rules! without_a_resource {
    ($($reply:ty,)*) => {$(
        impl StoredResponse for $reply {
            fn to_keep(self) -> Self {
                self
            }

            async fn renewed(self, _: &Api) -> Result<Self, Status> {
                Ok(self)
            }
        }
    )*};
}

with_a_resource! {
    CreateCompanyResponse { company }
    UpdateCompanyResponse { company }
    AddCompanyScopesResponse { company }
    CreateCredentialResponse { credential }
    UpdateCredentialResponse { credential }
    GrantScopesResponse { credential }
    RevokeScopesResponse { credential }
    ReplaceScopesResponse { credential }
    ResetScopesResponse { credential }
    DeleteSecretResponse { credential }
    PutUserResponse { user }
    PutConsentResponse { consent }
    CreateKeyResponse { key }
}

with_what_is_gone! {
    DeleteCompanyResponse { company }
    DeleteCredentialResponse { credential }
    DeleteUserResponse { user }
    DeleteConsentResponse { consent }
    DeleteKeyResponse { key }
}

without_a_resource! {
    CreateSecretResponse,
    RestoreGrantsResponse,
    // A revision, and nothing: what the server asks for itself.
    u64,
    (),
}

impl StoredResponse for ApplyCatalogResponse {
    fn to_keep(self) -> Self {
        // How many were affected says enough: what they lost no list names any more.
        Self { affected_companies: vec![], affected_credentials: vec![], ..self }
    }

    async fn renewed(self, _: &Api) -> Result<Self, Status> {
        Ok(self)
    }
}

impl StoredResponse for RestrictCompanyScopesResponse {
    fn to_keep(self) -> Self {
        // How many were affected says enough; `ListCredentials` says who they are.
        let affected_credentials = vec![];
        Self { company: self.company.map(KeptIds::ids), affected_credentials, ..self }
    }

    async fn renewed(mut self, doors: &Api) -> Result<Self, Status> {
        if let Some(kept) = self.company.as_ref().filter(|kept| kept.is_ids())
            && let Some(now) = kept.now(doors).await?
        {
            self.company = Some(now);
        }
        Ok(self)
    }
}

impl Api {
    /// Answers a change, or one that was carried out before.
    pub(super) async fn renewed<M: StoredResponse>(&self, reply: M) -> Result<Response<M>, Status> {
        Ok(Response::new(reply.renewed(self).await?))
    }
}
