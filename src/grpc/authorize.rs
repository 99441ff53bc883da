//! Authorize: from a caller and a received message to the caller's session.
//!
//! Not here: the rules; see [`crate::authority::admission`].

use tonic::{Request, Status};

use super::{Api, status};
use crate::authority::Session;
use crate::policy::caller::Caller;
use crate::wire::access::CompanyScoped;

impl Api {
    /// The session of a caller whose message has been received.
    ///
    /// # Errors
    /// The caller's key is not bound to a company that the request names, or the key was revoked
    /// while the message was received.
    pub fn authorize(
        &self,
        caller: Caller,
        request: &impl CompanyScoped,
    ) -> Result<Session<'_>, Status> {
        Ok(self.ready()?.authorize(caller, &request.companies())?)
    }

    /// The session and the message of a generated service, whose caller the transport put into the
    /// extensions.
    ///
    /// # Errors
    /// As for [`Self::authorize`], and if the extensions have no caller.
    pub(super) fn session<R: CompanyScoped>(
        &self,
        request: Request<R>,
    ) -> Result<(Session<'_>, R), Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let request = request.into_inner();
        let session = self.authorize(caller.ok_or_else(status::not_permitted)?, &request)?;
        Ok((session, request))
    }
}
