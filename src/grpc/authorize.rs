//! Authorize: from a caller and a received message to the caller's session.
//!
//! Not here: the rules; see [`crate::authority::admission`].

use tonic::Status;

use super::Api;
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
}
