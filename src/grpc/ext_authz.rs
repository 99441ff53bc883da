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
use crate::gateway::http_request::HttpRequest;
use crate::gateway::question::{Question, Unreadable};
use crate::gateway::response::{decided, unreadable};
use crate::gateway::route::Route;
use crate::observe::otlp::Trace;
use crate::proto::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use crate::wire::validate::{Auds, InvalidRequest, malformed};

/// The response to Envoy. The trace gets the decision.
pub(super) async fn check(
    session: Session<'_>,
    message: &CheckRequest,
    trace: Option<&Trace>,
) -> Result<CheckResponse, Status> {
    let (http, question) = parse(message, &|aud| session.audience_by_aud(aud))?;
    let (response, described) = match question {
        Err(_) => unreadable(),
        Ok(Question { mut request, stated, hides_authorization }) => {
            let answer = session.check_for_gateway(&mut request).await?;
            decided(&http, stated, hides_authorization, answer)
        }
    };
    if let Some(trace) = trace {
        trace.record_gateway_decision(&described);
    }
    Ok(envoy::response(response, described))
}

/// The request of a message, and the question that its route asks about it.
///
/// # Errors
/// The route is malformed, or there is no request of HTTP.
pub(super) fn parse<'a>(
    message: &'a CheckRequest,
    auds: Auds<'_>,
) -> Result<(HttpRequest<'a>, Result<Question, Unreadable>), InvalidRequest> {
    let settings = envoy::settings(message);
    let settings = settings.iter().map(|setting| (&*setting.key, &*setting.value));
    let route = Route::parse(settings, auds)?;
    let http = envoy::http_request(message)
        .map_err(|_| malformed("attributes.request.http", "must be set"))?;
    let question = Question::new(route, &http);
    Ok((http, question))
}
