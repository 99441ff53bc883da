//! Stored reply: the part of a response that the idempotency record of a request keeps, for a request
//! that is sent again.
//!
//! The resource of a response may be large, and may have changed when the request is sent again. So
//! only the ids of the resource are stored, with the revision and the added and removed scopes; the
//! response to a repeated request reads the current resource. A resource that no longer exists, or that
//! the request itself deleted, has only its ids in that response.
//!
//! Not here: the idempotency record; see `authority::idempotency`.

use tonic::{Response, Status};

use super::Api;
use crate::authority::error::AuthorityError;
use crate::proto::*;
use crate::wire::{parse, render};

/// A response to a change.
pub trait StoredResponse: prost::Message + Default + 'static {
    /// The part that is stored.
    #[must_use]
    fn to_keep(self) -> Self;

    /// The response with the current resource, if this is the stored part.
    fn renewed(self, api: &Api) -> impl Future<Output = Result<Self, Status>> + Send;
}

/// A resource of a response.
trait ResourceIds: Sized {
    /// The resource with its ids alone.
    fn ids(self) -> Self;

    /// Whether the resource has its ids alone: a resource that was read has a revision.
    fn is_ids(&self) -> bool;

    /// The current resource, if it still exists.
    fn current(&self, api: &Api) -> impl Future<Output = Result<Option<Self>, Status>> + Send;
}

/// The resource, or none if it no longer exists.
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

impl ResourceIds for Company {
    fn ids(self) -> Self {
        Self { company_id: self.company_id, ..Self::default() }
    }

    fn is_ids(&self) -> bool {
        self.revision == 0
    }

    async fn current(&self, api: &Api) -> Result<Option<Self>, Status> {
        let id = parse::company(self.company_id.clone())?;
        let read = existing(api.ready()?.company(&id).await)?;
        Ok(read.map(|read| render::company(read.resource, read.etag)))
    }
}

impl ResourceIds for Credential {
    fn ids(self) -> Self {
        let Self { company_id, credential_id, .. } = self;
        Self { company_id, credential_id, ..Self::default() }
    }

    fn is_ids(&self) -> bool {
        self.revision == 0
    }

    async fn current(&self, api: &Api) -> Result<Option<Self>, Status> {
        let (company, id) = parse::credential(self.company_id.clone(), self.credential_id.clone())?;
        let read = existing(api.ready()?.credential(&company, &id).await)?;
        Ok(read.map(|read| render::credential(read.resource, read.etag)))
    }
}

impl ResourceIds for User {
    fn ids(self) -> Self {
        let Self { company_id, user_id, .. } = self;
        Self { company_id, user_id, ..Self::default() }
    }

    fn is_ids(&self) -> bool {
        self.revision == 0
    }

    async fn current(&self, api: &Api) -> Result<Option<Self>, Status> {
        let (company, id) = parse::user(self.company_id.clone(), self.user_id.clone())?;
        let read = existing(api.ready()?.user(&company, &id).await)?;
        Ok(read.map(|read| render::user(read.resource, &company, read.etag)))
    }
}

impl ResourceIds for Consent {
    fn ids(self) -> Self {
        let Self { company_id, credential_id, user_id, .. } = self;
        Self { company_id, credential_id, user_id, ..Self::default() }
    }

    fn is_ids(&self) -> bool {
        self.revision == 0
    }

    async fn current(&self, api: &Api) -> Result<Option<Self>, Status> {
        let id = parse::consent(GetConsentRequest {
            company_id: self.company_id.clone(),
            credential_id: self.credential_id.clone(),
            user_id: self.user_id.clone(),
        })?;
        let read = existing(api.ready()?.consent(&id).await)?;
        Ok(read.map(|read| render::consent(read.resource, &id, read.etag)))
    }
}

impl ResourceIds for Key {
    fn ids(self) -> Self {
        Self { key_id: self.key_id, ..Self::default() }
    }

    fn is_ids(&self) -> bool {
        self.name.is_empty()
    }

    async fn current(&self, api: &Api) -> Result<Option<Self>, Status> {
        let id = parse::key(self.key_id.clone())?;
        let read = existing(api.ready()?.key(&id).await)?;
        Ok(read.map(|read| render::key(read.resource, read.etag)))
    }
}

/// Responses with a resource that still exists.
macro_rules! with_a_resource {
    ($($reply:ident { $resource:ident })*) => {$(
        impl StoredResponse for $reply {
            fn to_keep(self) -> Self {
                Self { $resource: self.$resource.map(ResourceIds::ids), ..self }
            }

            async fn renewed(mut self, api: &Api) -> Result<Self, Status> {
                if let Some(ids) = self.$resource.as_ref().filter(|ids| ids.is_ids())
                    && let Some(current) = ids.current(api).await?
                {
                    self.$resource = Some(current);
                }
                Ok(self)
            }
        }
    )*};
}

/// Responses with a resource that the request deleted.
macro_rules! with_a_deleted_resource {
    ($($reply:ident { $resource:ident })*) => {$(
        impl StoredResponse for $reply {
            fn to_keep(self) -> Self {
                Self { $resource: self.$resource.map(ResourceIds::ids), ..self }
            }

            async fn renewed(self, _: &Api) -> Result<Self, Status> {
                Ok(self)
            }
        }
    )*};
}

/// Responses without a resource.
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

with_a_deleted_resource! {
    DeleteCompanyResponse { company }
    DeleteCredentialResponse { credential }
    DeleteUserResponse { user }
    DeleteConsentResponse { consent }
    DeleteKeyResponse { key }
}

without_a_resource! {
    CreateSecretResponse,
    RestoreGrantsResponse,
    // A revision, or nothing: the responses to requests of the server itself.
    u64,
    (),
}

impl StoredResponse for ApplyCatalogResponse {
    fn to_keep(self) -> Self {
        // The counts are enough: no List request can return the removed scopes later.
        Self { affected_companies: vec![], affected_credentials: vec![], ..self }
    }

    async fn renewed(self, _: &Api) -> Result<Self, Status> {
        Ok(self)
    }
}

impl StoredResponse for RestrictCompanyScopesResponse {
    fn to_keep(self) -> Self {
        // The count is enough; ListCredentials returns the credentials.
        let affected_credentials = vec![];
        Self { company: self.company.map(ResourceIds::ids), affected_credentials, ..self }
    }

    async fn renewed(mut self, api: &Api) -> Result<Self, Status> {
        if let Some(ids) = self.company.as_ref().filter(|ids| ids.is_ids())
            && let Some(current) = ids.current(api).await?
        {
            self.company = Some(current);
        }
        Ok(self)
    }
}

impl Api {
    /// The response to a change, or to one that an earlier request made.
    pub(super) async fn renewed<M: StoredResponse>(&self, reply: M) -> Result<Response<M>, Status> {
        Ok(Response::new(reply.renewed(self).await?))
    }
}
