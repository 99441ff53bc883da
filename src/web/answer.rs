//! Answer: the response to one request, and what the request was for its connection.

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::Full;

use crate::authority::noted_call::Leased;
use crate::grpc::peer::Peer;

/// The body of each response.
pub(crate) type Body = Full<Bytes>;

/// What a request was for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Who sent it has proven who it is.
    Proven,
    /// It read a document that needs no proof.
    Public,
    /// It proved nothing.
    Unproven,
}

/// The response to a request.
pub(crate) struct Answer {
    pub(crate) response: Leased<Response<Body>>,
    pub(crate) use_of_connection: Use,
}

/// Answers the requests of a listener.
pub(crate) trait Responder: Send + Sync + 'static {
    /// Answers one request of this peer.
    fn answer<B>(&self, request: Request<B>, peer: &Peer) -> impl Future<Output = Answer> + Send
    where
        B: http_body::Body<Data = Bytes, Error: Send> + Send + Unpin;
}

/// The response to HEAD: that to GET, with the length of its body and without the body (RFC 9110 section
/// 9.3.2). In HTTP/1.1 hyper leaves the body out, and in HTTP/2 it does not.
pub(crate) fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(CONTENT_LENGTH, length.into());
    }
    Response::from_parts(parts, Body::default())
}
