//! Methods: from a method and its message to the handler, and to the encoded response. Every call of a
//! unary method passes here.
//!
//! Not here: how the message is read from the connection; see [`super::unary`]. Methods with streams are
//! in [`super::streams`].

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use tonic::Status;

use super::unary::{count, count_and_decode, decode, write};
use super::{
    Api, authorization, catalog, change, directory, ext_authz, key, peer_service, signing_key,
    status,
};
use crate::authority::operation::Operation;
use crate::authority::replica_waits::ReplicaWaits;
use crate::authority::request_context::RequestContext;
use crate::observe::otlp::{Trace, TracedRequest};
use crate::observe::trace_context::well_formed_id;
use crate::policy::caller::Caller;
use crate::proto::envoy::service::auth::v3 as envoy_proto;
use crate::proto::*;
use crate::store::replicated::peer::ReplicasRequest;
use crate::wire::access::is_method_of;

/// What is recorded of a call that is traced or logged.
#[derive(Clone, Copy, Default)]
pub struct Observed<'a> {
    /// The request that the call serves.
    pub context: Option<&'a Arc<RequestContext>>,
    /// The trace of the call.
    pub(crate) trace: Option<&'a Trace>,
}

/// Answers a check.
///
/// # Errors
/// The message is malformed, the caller may not name its company, or it cannot be decided.
pub async fn check(
    api: &Api,
    caller: Caller,
    Observed { context, trace }: Observed<'_>,
    deadline: Option<Instant>,
    message: Bytes,
) -> Result<Bytes, Status> {
    let request: CheckRequest = count_and_decode(message)?;
    let traced = trace.map(|trace| (trace, TracedRequest::of(&request)));
    let session = api.authorize(caller, &request)?.of_request(context).until(deadline);
    let response = authorization::check(session, request).await?;
    if let Some((trace, traced)) = traced {
        trace.record_decision(traced, &response);
    }
    Ok(write(&response))
}

/// Answers Envoy whether it may pass a request on.
///
/// # Errors
/// As for a check. A request that is judged is never the cause.
pub async fn envoy_check(
    api: &Api,
    caller: Caller,
    Observed { context, trace }: Observed<'_>,
    deadline: Option<Instant>,
    message: Bytes,
) -> Result<Bytes, Status> {
    let request = envoy_request(message)?;
    let session = api.authorize(caller, &request)?;
    // The decision log shows the id of the request that is judged, unless the call has one of its own.
    let has_id = context.is_some_and(|context| context.request_id.is_some());
    let judged = (api.decisions.is_some() && !has_id)
        .then(|| crate::envoy::request_id(&request).as_deref().and_then(well_formed_id))
        .flatten();
    let judged = judged.map(|id| {
        let parent = context.and_then(|context| context.parent.clone());
        Arc::new(RequestContext { request_id: Some(id), parent })
    });
    let session = session.of_request(judged.as_ref().or(context)).until(deadline);
    Ok(write(&ext_authz::check(session, &request, trace).await?))
}

/// The request of Envoy in a message.
///
/// # Errors
/// The message is malformed, or a list is too long. That a client sent something that is not text is no
/// error: then it could choose that there is no decision.
fn envoy_request(message: Bytes) -> Result<envoy_proto::CheckRequest, Status> {
    count::<envoy_proto::CheckRequest>(&message)?;
    let decoded = decode(message.clone());
    decoded.or_else(|error| crate::envoy::decode_raw(&message).map_err(|_| error))
}

/// Answers a batch of checks.
///
/// # Errors
/// As for a check: an error of one check is an error of the batch.
pub async fn batch_check(
    api: &Api,
    caller: Caller,
    Observed { context, trace }: Observed<'_>,
    deadline: Option<Instant>,
    message: Bytes,
) -> Result<Bytes, Status> {
    let request: BatchCheckRequest = count_and_decode(message)?;
    let session = api.authorize(caller, &request)?.of_request(context).until(deadline);
    let response = authorization::batch_check(session, request).await?;
    if let Some(trace) = trace {
        trace.record_batch(&response);
    }
    Ok(write(&response))
}

/// The methods other than checks, by the type of their request.
macro_rules! methods {
    ($($request:ident => $service:ident::$handler:ident,)*) => {
        /// Answers a call of a unary method other than a check. It notes in `waits` for which replicas it
        /// waits.
        ///
        /// # Errors
        /// The message is malformed, the caller may not name its companies, or the method fails.
        pub async fn other(
            api: &Api,
            operation: &'static Operation,
            caller: Caller,
            deadline: Option<Instant>,
            waits: &ReplicaWaits,
            message: Bytes,
        ) -> Result<Bytes, Status> {
            if is_method_of::<ReplicasRequest>(operation) {
                let session = api.authorize(caller, &ReplicasRequest {})?.until(deadline);
                return Ok(write(&peer_service::replicas(session).await?));
            }
            $(if is_method_of::<$request>(operation) {
                let request: $request = count_and_decode(message)?;
                let session = api.authorize(caller, &request)?.until(deadline).noting_waits(waits);
                return Ok(write(&$service::$handler(session, request).await?));
            })*
            Err(status::unknown_method())
        }

        #[cfg(test)]
        const OTHERS: &[&Operation] = &[$(<$request as crate::wire::access::CompanyScoped>::OPERATION),*];
    };
}

methods! {
    ExplainCheckRequest => authorization::explain_check,
    ListEffectiveScopesRequest => authorization::list_effective_scopes,
    GrantScopesRequest => authorization::grant_scopes,
    RevokeScopesRequest => authorization::revoke_scopes,
    ReplaceScopesRequest => authorization::replace_scopes,
    ResetScopesRequest => authorization::reset_scopes,
    RestoreGrantsRequest => authorization::restore_grants,
    AddCompanyScopesRequest => authorization::add_company_scopes,
    RestrictCompanyScopesRequest => authorization::restrict_company_scopes,
    CreateCompanyRequest => directory::create_company,
    GetCompanyRequest => directory::get_company,
    ListCompaniesRequest => directory::list_companies,
    UpdateCompanyRequest => directory::update_company,
    DeleteCompanyRequest => directory::delete_company,
    CreateCredentialRequest => directory::create_credential,
    GetCredentialRequest => directory::get_credential,
    ListCredentialsRequest => directory::list_credentials,
    UpdateCredentialRequest => directory::update_credential,
    DeleteCredentialRequest => directory::delete_credential,
    CreateSecretRequest => directory::create_secret,
    DeleteSecretRequest => directory::delete_secret,
    VerifySecretRequest => directory::verify_secret,
    RevokeTokensRequest => directory::revoke_tokens,
    PutUserRequest => directory::put_user,
    GetUserRequest => directory::get_user,
    ListUsersRequest => directory::list_users,
    DeleteUserRequest => directory::delete_user,
    PutConsentRequest => directory::put_consent,
    CreateAuthorizationCodeRequest => directory::create_authorization_code,
    GetConsentRequest => directory::get_consent,
    DeleteConsentRequest => directory::delete_consent,
    ApplyCatalogRequest => catalog::apply_catalog,
    GetCatalogRequest => catalog::get_catalog,
    ListChangesRequest => change::list_changes,
    CreateKeyRequest => key::create_key,
    GetKeyRequest => key::get_key,
    ListKeysRequest => key::list_keys,
    DeleteKeyRequest => key::delete_key,
    WhoAmIRequest => key::who_am_i,
    ListSigningKeysRequest => signing_key::list_signing_keys,
    RotateSigningKeyRequest => signing_key::rotate_signing_key,
    DeleteSigningKeyRequest => signing_key::delete_signing_key,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::streams;
    use crate::wire::access::{CompanyScoped, OPERATIONS};

    #[test]
    fn every_operation_has_one_handler() {
        let checks = [CheckRequest::OPERATION, BatchCheckRequest::OPERATION];
        let all = OTHERS.iter().copied().chain(checks).chain(streams::operations());
        let mut answered: Vec<_> = all.map(|operation| operation.path).collect();
        let mut declared: Vec<_> = OPERATIONS.iter().map(|operation| operation.path).collect();
        answered.sort_unstable();
        declared.sort_unstable();
        assert_eq!(answered, declared);
    }
}
