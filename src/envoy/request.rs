//! Request: the request of HTTP in a message of Envoy, and the settings of its route.
//!
//! Not here: what the settings mean; see [`crate::gateway::route`].

use crate::gateway::http_request::{Header, HttpRequest};
use crate::proto::envoy::service::auth::v3::CheckRequest;
use crate::proto::envoy::service::auth::v3::attribute_context::{
    ContextExtensionsEntry, HttpRequest as Attributes,
};

/// The settings of a route, in the order in which they were sent.
pub type ContextExtensions = [ContextExtensionsEntry];

/// The message has no request of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingRequest;

/// The settings of the route of a message.
#[must_use]
pub fn settings(message: &CheckRequest) -> &ContextExtensions {
    message.attributes.as_ref().map_or(&[], |attributes| &attributes.context_extensions)
}

/// The request that is judged.
///
/// # Errors
/// There is none, as for a connection that is not of HTTP.
pub fn http_request(message: &CheckRequest) -> Result<HttpRequest<'_>, MissingRequest> {
    let http = attributes(message).ok_or(MissingRequest)?;
    // Envoy fills one of the two. A header that is in both is there twice.
    let raw = http.header_map.iter().flat_map(|map| &map.headers);
    let mut headers = Vec::with_capacity(http.headers.len());
    headers.extend(http.headers.iter().map(|entry| (&*entry.key, entry.value.as_bytes())));
    for header in raw {
        let (text, raw) = (header.value.as_bytes(), &*header.raw_value);
        match (text.is_empty(), raw.is_empty()) {
            (true, _) => headers.push((&*header.key, raw)),
            (false, true) => headers.push((&*header.key, text)),
            // It has one of them. Two are two values.
            (false, false) => headers.extend([(&*header.key, text), (&*header.key, raw)]),
        }
    }
    Ok(HttpRequest { method: &http.method, target: &http.path, headers })
}

/// The id of the request that is judged: its header `x-request-id`, else Envoy's own id of it. None: it has
/// none that a log can show.
#[must_use]
pub fn request_id(message: &CheckRequest) -> Option<String> {
    let http = http_request(message).ok()?;
    let id = match http.header("x-request-id") {
        Header::Once(id) => id,
        Header::Unclear => return None,
        Header::Absent => &attributes(message)?.id,
    };
    Some(id.to_owned())
}

fn attributes(message: &CheckRequest) -> Option<&Attributes> {
    message.attributes.as_ref()?.request.as_ref()?.http.as_ref()
}
