//! Preflight: checks the head of every request before its path is read: it must be a gRPC request, and
//! its headers must not be too large.
//!
//! A browser sends only a few content types to another origin without a CORS preflight, and that of
//! gRPC is not among them. A request that is not gRPC is rejected with an HTTP status and changes
//! nothing.
//!
//! Not here: how a gRPC request is handled; see [`super::unary`].

use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use super::response_body::ResponseBody;
use super::status;

/// The content type of a request and its response, without a message format.
pub(super) const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// The suffix of the only supported message format.
const PROTO: &[u8] = b"+proto";
const ACCEPTED: HeaderValue = HeaderValue::from_static("application/grpc, application/grpc+proto");
const POST: HeaderValue = HeaderValue::from_static("POST");

/// The bytes that each header adds to the sizes of its name and value (RFC 9113 section 6.5.2).
const OVERHEAD: usize = 32;

/// Why the head of a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectedHead {
    /// Its method is not POST.
    Method,
    /// Its content type is not that of gRPC.
    ContentType,
    /// Its headers have this many bytes, which is above the limit.
    TooLarge(usize),
}

impl RejectedHead {
    /// Why the head of a request is rejected, if it is. `limit` is in bytes of headers.
    #[must_use]
    pub fn of<B>(request: &Request<B>, limit: usize) -> Option<Self> {
        if request.method() != Method::POST {
            return Some(Self::Method);
        }
        if !is_grpc(request.headers()) {
            return Some(Self::ContentType);
        }
        let size = list_size(request);
        (size > limit).then_some(Self::TooLarge(size))
    }

    /// The complete response. `limit` is in bytes of headers.
    #[must_use]
    pub fn into_response(self, limit: usize) -> Response<ResponseBody> {
        let (code, name, value) = match self {
            Self::TooLarge(size) => {
                return status::too_large_headers(size, limit).into_http();
            }
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, ALLOW, POST),
            Self::ContentType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, ACCEPT, ACCEPTED),
        };
        // The response has no body, which the server would hold until the client reads it.
        let mut response = Response::new(ResponseBody::Ended);
        *response.status_mut() = code;
        response.headers_mut().insert(name, value);
        response
    }
}

/// Whether there is exactly one content type and it is that of gRPC: `application/grpc` or
/// `application/grpc+proto`, perhaps with parameters.
fn is_grpc(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(CONTENT_TYPE).iter();
    // Two headers are ambiguous.
    let (Some(kind), None) = (all.next(), all.next()) else { return false };
    let kind = kind.as_bytes();
    let essence = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let Some((grpc, format)) = essence.split_at_checked(GRPC.len()) else { return false };
    grpc.eq_ignore_ascii_case(GRPC.as_bytes())
        && (format.is_empty() || format.eq_ignore_ascii_case(PROTO))
}

/// The size of a request's header list (RFC 9113 section 6.5.2), with the pseudo-headers.
fn list_size<B>(request: &Request<B>) -> usize {
    let uri = request.uri();
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let scheme = uri.scheme_str().map_or(0, str::len);
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    let pseudo = [
        (":method", request.method().as_str().len()),
        (":path", path),
        (":scheme", scheme),
        (":authority", authority),
    ];
    let pseudo = pseudo.iter().map(|(name, value)| name.len() + value + OVERHEAD).sum::<usize>();
    let headers = request.headers().iter();
    headers.fold(pseudo, |sum, (name, value)| sum + name.as_str().len() + value.len() + OVERHEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_content_types_of_grpc_are_accepted() {
        let is_grpc = |kind: &str| {
            let headers = [(CONTENT_TYPE, HeaderValue::from_str(kind).expect("a value"))];
            super::is_grpc(&headers.into_iter().collect())
        };
        for kind in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;x=y",
            "application/grpc+proto ; charset=utf-8",
            "APPLICATION/GRPC+PROTO",
        ] {
            assert!(is_grpc(kind), "{kind}");
        }
        for kind in [
            "",
            "text/plain",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc+json",
            "application/grpc+",
            "application/grpc+proto+x",
            "application/grpc, text/plain",
            "text/plain; application/grpc",
            "application/grp",
        ] {
            assert!(!is_grpc(kind), "{kind}");
        }
        let two = [(CONTENT_TYPE, GRPC), (CONTENT_TYPE, GRPC)];
        let mut headers = HeaderMap::new();
        assert!(!super::is_grpc(&headers), "none");
        for (name, value) in two {
            headers.append(name, value);
        }
        assert!(!super::is_grpc(&headers), "two");
    }

    #[test]
    fn header_list_size_follows_rfc_9113() {
        let request = |path: &str, value: &str| {
            let request = Request::post(format!("http://host{path}")).header(CONTENT_TYPE, GRPC);
            request.header("x", value).header("x", "").body(()).expect("a request")
        };
        // Names: 7, 5, 7, 10, 12 and 1 twice; values: 4, 4, 4, 2, 16 and 3; seven headers.
        let size = 43 + 33 + 7 * 32;
        assert_eq!(list_size(&request("/a", "abc")), size);
        assert_eq!(list_size(&request("/a?b", "abc")), size + 2);
        assert_eq!(RejectedHead::of(&request("/a", "abc"), size), None);
        assert_eq!(
            RejectedHead::of(&request("/a", "abcd"), size),
            Some(RejectedHead::TooLarge(size + 1))
        );
    }
}
