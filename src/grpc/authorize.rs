//! Authorize: from a caller and a received message to an [`Authorized`] request, or the status of the
//! rejection.
//!
//! Not here: the table of methods and roles; see [`crate::wire::access`].

use tonic::{Request, Status};

use super::{Api, status};
use crate::authority::Session;
use crate::observe::rejection::{RejectedCaller, RejectionReason};
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
        if !self.ready()?.is_current(&caller) {
            return Err(RejectedCaller::caller(
                status::caller_revoked(),
                RejectionReason::RevokedKey,
                &caller,
            ));
        }
        authorize(caller, request)
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

    /// The session and the message of a generated service, whose caller the transport put into the
    /// extensions.
    ///
    /// # Errors
    /// As for [`Self::authorize`], and if the extensions have no caller.
    pub(super) fn session<R: CompanyScoped>(
        &self,
        request: Request<R>,
    ) -> Result<(Session<'_>, R), Status> {
        let Authorized { caller, request } = self.authorize_request(request)?;
        Ok((self.ready()?.session(caller), request))
    }
}

/// The request of a caller whose key is current.
///
/// # Errors
/// The caller's key is not bound to a company that the request names.
pub(super) fn authorize<R: CompanyScoped>(
    caller: Caller,
    request: R,
) -> Result<Authorized<R>, Status> {
    Authorized::new(caller, request).map_err(|caller| {
        RejectedCaller::caller(status::not_permitted(), RejectionReason::Company, &caller)
    })
}
