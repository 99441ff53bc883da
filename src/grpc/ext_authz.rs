//! Envoy's external authorization: whether Envoy may pass a request on.
//!
//! Whatever is wrong with the request that is judged is a denial. A mistake in the configuration of a
//! route, and a decision that cannot be made, are errors of the call: Envoy then does what its failure mode
//! says.
//!
//! Not here: what is asked and answered; see [`crate::gateway`].

use tonic::Status;

use crate::authority::Session;
use crate::envoy;
use crate::gateway::question::Question;
use crate::gateway::response::{decided, unreadable};
use crate::gateway::route::Route;
use crate::observe::otlp::Trace;
use crate::proto::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use crate::wire::validate::malformed;

/// The response to Envoy. The trace gets the decision.
pub(super) async fn check(
    session: Session<'_>,
    message: &CheckRequest,
    trace: Option<&Trace>,
) -> Result<CheckResponse, Status> {
    let settings = envoy::settings(message);
    let settings = settings.iter().map(|setting| (&*setting.key, &*setting.value));
    let route = Route::parse(settings, &|aud| session.audience_by_aud(aud))?;
    let http = envoy::http_request(message)
        .map_err(|_| malformed("attributes.request.http", "must be set"))?;
    let (response, described) = match Question::new(route, &http) {
        Err(_) => unreadable(),
        Ok(Question { mut request, least, stated, hides_authorization }) => {
            let answer = session.check_for_gateway(&mut request, least).await?;
            decided(&http, stated, hides_authorization, answer)
        }
    };
    if let Some(trace) = trace {
        trace.record_gateway_decision(&described);
    }
    Ok(envoy::response(response, described))
}
