//! HttpRequest: the request that a gateway asks about, as the gateway received it.
//!
//! Not here: what it needs; see [`super::question`].

/// A request of HTTP.
#[derive(Debug)]
pub struct HttpRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// The path with the query, before it is rewritten.
    pub target: &'a str,
    /// The headers: names in any case, and values. A name can be there several times.
    pub headers: Vec<(&'a str, &'a [u8])>,
}

/// The value of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header<'a> {
    /// There is no such header.
    Absent,
    /// It is there once, and it is text without a comma.
    Once(&'a str),
    /// It is there several times, or could be: gateways join the values of a name by commas. Or it is not
    /// text.
    Unclear,
}

impl<'a> HttpRequest<'a> {
    /// The path, up to the first `?`.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Header<'a> {
        let mut all = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let Some((_, value)) = all.next() else { return Header::Absent };
        match std::str::from_utf8(value) {
            Ok(text) if all.next().is_none() && !text.contains(',') => Header::Once(text),
            _ => Header::Unclear,
        }
    }

    /// Whether there is a header of this name.
    #[must_use]
    pub fn has_header(&self, name: &str) -> bool {
        self.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name))
    }

    /// Whether it is a call of gRPC: a POST with the content type of gRPC, and not of gRPC-Web.
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        const GRPC: &str = "application/grpc";
        let Header::Once(kind) = self.header("content-type") else { return false };
        let Some((start, rest)) = kind.split_at_checked(GRPC.len()) else { return false };
        let ends = rest.is_empty() || rest.starts_with(['+', ';']);
        self.method == "POST" && start.eq_ignore_ascii_case(GRPC) && ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(headers: &[(&'static str, &'static [u8])]) -> HttpRequest<'static> {
        HttpRequest { method: "POST", target: "/", headers: headers.to_vec() }
    }

    #[test]
    fn header_counts_only_if_it_is_there_once() {
        let of = |headers| with(headers).header("authorization");
        assert_eq!(of(&[]), Header::Absent);
        assert_eq!(of(&[("Authorization", b"Basic x")]), Header::Once("Basic x"));
        assert_eq!(of(&[("authorization", b"")]), Header::Once(""));
        assert_eq!(of(&[("authorization", b"a"), ("AUTHORIZATION", b"a")]), Header::Unclear);
        assert_eq!(of(&[("authorization", b""), ("authorization", b"a")]), Header::Unclear);
        assert_eq!(of(&[("authorization", b"Bearer a,Bearer b")]), Header::Unclear);
        assert_eq!(of(&[("authorization", b"Bearer \xff")]), Header::Unclear);
    }

    #[test]
    fn path_ends_at_the_first_question_mark() {
        let path = |target| HttpRequest { method: "GET", target, headers: vec![] }.path();
        for (target, expected) in
            [("/a", "/a"), ("/a?b", "/a"), ("/a?b?c", "/a"), ("/a?", "/a"), ("?a", ""), ("", "")]
        {
            assert_eq!(path(target), expected);
        }
    }

    #[test]
    fn grpc_is_a_post_with_its_content_type() {
        let is_grpc = |kind: &'static str| with(&[("content-type", kind.as_bytes())]).is_grpc();
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc;a=b"] {
            assert!(is_grpc(kind), "{kind}");
            let headers = vec![("Content-Type", kind.as_bytes())];
            assert!(!HttpRequest { method: "PUT", target: "/", headers }.is_grpc());
        }
        assert!(is_grpc("Application/gRPC"), "types are compared in any case");
        for kind in [
            "",
            "application/grp",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpcx",
            "application/grpc proto",
            "text/plain;application/grpc",
            "application/grpc,text/plain",
            "application/grpc;a,text/plain",
        ] {
            assert!(!is_grpc(kind), "{kind}");
        }
        let twice: &[(&str, &[u8])] =
            &[("content-type", b"application/grpc"), ("content-type", b"application/grpc")];
        assert!(!with(twice).is_grpc() && !with(&[]).is_grpc());
    }
}
