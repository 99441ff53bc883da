//! Metadata: the URLs of the endpoints (AuthZEN section 9). They are the same for ids that do not exist.

use http::header::CACHE_CONTROL;
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::base::Base;
use super::refusal;
use super::route::Endpoint;
use crate::web::answer::Body;

/// How long a cache may keep the document.
const MAX_AGE: &str = "max-age=300";

#[derive(Serialize)]
struct Metadata {
    policy_decision_point: String,
    access_evaluation_endpoint: String,
    access_evaluations_endpoint: String,
    search_subject_endpoint: String,
    search_resource_endpoint: String,
    search_action_endpoint: String,
}

/// The metadata of a base URL. `url` is the public URL of the server.
pub(super) fn metadata(url: &str, base: &Base) -> Response<Body> {
    let of = |endpoint: Endpoint| format!("{url}{base}{}", endpoint.path());
    let mut response = refusal::json(
        StatusCode::OK,
        &Metadata {
            policy_decision_point: format!("{url}{base}"),
            access_evaluation_endpoint: of(Endpoint::Evaluation),
            access_evaluations_endpoint: of(Endpoint::Evaluations),
            search_subject_endpoint: of(Endpoint::SearchSubject),
            search_resource_endpoint: of(Endpoint::SearchResource),
            search_action_endpoint: of(Endpoint::SearchAction),
        },
    );
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(MAX_AGE));
    response
}
