//! Authorize: from a caller and a received message to an [`Authorized`] request.
//!
//! Not here: the rules; see [`crate::authority::admission`].

use tonic::{Request, Status};

use super::{Api, status};
use crate::policy::caller::Caller;
use crate::wire::access::{Authorized, CompanyScoped};

impl Api {
    /// The request of a caller whose message has been received.
    ///
    /// # Errors
    /// The caller's key is not bound to a company that the request names, or the key was revoked
    /// while the message was received.
    pub fn authorize<R: CompanyScoped>(
        &self,
        caller: Caller,
        request: R,
    ) -> Result<Authorized<R>, Status> {
        let caller = self.ready()?.authorize(caller, &request.companies())?.into_caller();
        Ok(Authorized { caller, request })
    }

    /// The request of a generated service, whose caller the transport put into the extensions.
    ///
    /// # Errors
    /// As for [`Self::authorize`], and if the extensions have no caller.
    pub(super) fn authorize_request<R: CompanyScoped>(
        &self,
        request: Request<R>,
    ) -> Result<Authorized<R>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        self.authorize(caller.ok_or_else(status::not_permitted)?, request.into_inner())
    }
}
