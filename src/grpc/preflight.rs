//! Head: whether a request is a gRPC call at all, and one whose headers are not too large. Judged
//! before anything else of it, for every path.
//!
//! A browser sends only a few content types to another site without asking first, and none of them
//! is gRPC's: what is no gRPC call is refused by its HTTP status, and changes nothing.
//!
//! Not here: what a call with such a head is answered; see [`super::unary`].

use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use super::status;
use super::unary::Reply;

/// The content type of a call and its reply, without a format.
pub(super) const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// What may follow it: the one format that is read.
const PROTO: &[u8] = b"+proto";
const ACCEPTED: HeaderValue = HeaderValue::from_static("application/grpc, application/grpc+proto");
const POST: HeaderValue = HeaderValue::from_static("POST");

/// What each header counts beside its name and value (RFC 9113 section 6.5.2).
const OVERHEAD: usize = 32;

/// Why a request is not answered by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Its method is not POST.
    Method,
    /// Its content type is not that of gRPC.
    ContentType,
    /// Its headers have so many bytes.
    TooLarge(usize),
}

impl Unfit {
    /// What is wrong with a request's head, if anything is. Its headers may have `limit` bytes.
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

    /// The whole reply. `limit` is what the headers may have.
    #[must_use]
    pub fn into_response(self, limit: usize) -> Response<Reply> {
        let (code, name, value) = match self {
            Self::TooLarge(size) => {
                return status::too_large_headers(size, limit).into_http();
            }
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, ALLOW, POST),
            Self::ContentType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, ACCEPT, ACCEPTED),
        };
        // Without a body: one would wait, and be held, until its peer takes it.
        let mut response = Response::new(Reply::Ended);
        *response.status_mut() = code;
        response.headers_mut().insert(name, value);
        response
    }
}

/// Whether there is one content type, and it is that of gRPC: `application/grpc` or
/// `application/grpc+proto`, perhaps with parameters.
fn is_grpc(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(CONTENT_TYPE).iter();
    // Of two it would be open which one counts.
    let (Some(kind), None) = (all.next(), all.next()) else { return false };
    let kind = kind.as_bytes();
    let essence = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let Some((grpc, format)) = essence.split_at_checked(GRPC.len()) else { return false };
    grpc.eq_ignore_ascii_case(GRPC.as_bytes())
        && (format.is_empty() || format.eq_ignore_ascii_case(PROTO))
}

/// The size of a request's header list (RFC 9113 section 6.5.2), its pseudo-headers among it.
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
    fn grpc_has_two_content_types() {
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
    fn the_size_of_a_header_list_is_that_of_the_rfc() {
        let request = |path: &str, value: &str| {
            let request = Request::post(format!("http://host{path}")).header(CONTENT_TYPE, GRPC);
            request.header("x", value).header("x", "").body(()).expect("a request")
        };
        // Names: 7, 5, 7, 10, 12 and 1 twice; values: 4, 4, 4, 2, 16 and 3; seven headers.
        let size = 43 + 33 + 7 * 32;
        assert_eq!(list_size(&request("/a", "abc")), size);
        assert_eq!(list_size(&request("/a?b", "abc")), size + 2);
        assert_eq!(Unfit::of(&request("/a", "abc"), size), None);
        assert_eq!(Unfit::of(&request("/a", "abcd"), size), Some(Unfit::TooLarge(size + 1)));
    }
}
