//! Route: the endpoint of a request, and the company that its path names.

use http::Method;

use crate::policy::id::CompanyId;

/// An endpoint of the authorization server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// Issues tokens (RFC 6749 section 3.2).
    Token,
    /// Tells what a token is good for (RFC 7662).
    Introspect,
    /// Revokes a token (RFC 7009).
    Revoke,
    /// The public keys (RFC 7517).
    Jwks,
    /// The metadata (RFC 8414).
    Metadata,
}

/// The endpoint of a path, and the company that the path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) endpoint: Endpoint,
    pub(super) company: Option<CompanyId>,
}

impl Endpoint {
    /// Every endpoint.
    pub(crate) const ALL: [Self; 5] =
        [Self::Token, Self::Introspect, Self::Revoke, Self::Jwks, Self::Metadata];

    /// Its path.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Token => "/oauth2/token",
            Self::Introspect => "/oauth2/introspect",
            Self::Revoke => "/oauth2/revoke",
            Self::Jwks => "/oauth2/jwks",
            Self::Metadata => "/.well-known/oauth-authorization-server",
        }
    }

    /// Its name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Introspect => "introspect",
            Self::Revoke => "revoke",
            Self::Jwks => "jwks",
            Self::Metadata => "metadata",
        }
    }

    /// Whether it is a document that needs no proof.
    pub(super) fn is_document(self) -> bool {
        matches!(self, Self::Jwks | Self::Metadata)
    }

    /// Whether it answers this method.
    pub(super) fn has(self, method: &Method) -> bool {
        match self.is_document() {
            true => matches!(*method, Method::GET | Method::HEAD),
            false => *method == Method::POST,
        }
    }

    /// The value of `Allow` (RFC 9110 section 10.2.1).
    pub(super) fn allow(self) -> &'static str {
        if self.is_document() { "GET, HEAD" } else { "POST" }
    }
}

impl Route {
    /// The route of a path; none if there is no such path.
    pub(super) fn of(path: &str) -> Option<Self> {
        Endpoint::ALL.into_iter().find_map(|endpoint| {
            let rest = path.strip_prefix(endpoint.path())?;
            if rest.is_empty() {
                return Some(Self { endpoint, company: None });
            }
            let segment = rest.strip_prefix('/').filter(|_| !endpoint.is_document())?;
            let company = CompanyId::parse(decoded(segment)?).ok()?;
            Some(Self { endpoint, company: Some(company) })
        })
    }
}

/// An id in a path, decoded once. None: another character is encoded than those that an id can have.
fn decoded(segment: &str) -> Option<String> {
    let mut parts = segment.split('%');
    let mut decoded = parts.next()?.to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        decoded.push(match code {
            "40" => '@',
            "3A" | "3a" => ':',
            "7C" | "7c" => '|',
            _ => return None,
        });
        decoded.push_str(rest);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_has_an_endpoint_and_a_company() {
        let company = |id: &str| Some(CompanyId::parse(id).expect("an id"));
        for (path, endpoint, company) in [
            ("/oauth2/token", Endpoint::Token, None),
            ("/oauth2/token/acme", Endpoint::Token, company("acme")),
            ("/oauth2/token/a%3Ab%40c", Endpoint::Token, company("a:b@c")),
            ("/oauth2/token/a%3ab", Endpoint::Token, company("a:b")),
            ("/oauth2/token/a:b@c", Endpoint::Token, company("a:b@c")),
            ("/oauth2/introspect/acme", Endpoint::Introspect, company("acme")),
            ("/oauth2/revoke", Endpoint::Revoke, None),
            ("/oauth2/jwks", Endpoint::Jwks, None),
            ("/.well-known/oauth-authorization-server", Endpoint::Metadata, None),
        ] {
            assert_eq!(Route::of(path), Some(Route { endpoint, company }), "{path}");
        }
    }

    #[test]
    fn other_path_has_no_endpoint() {
        for path in [
            "",
            "/",
            "/oauth2",
            "/oauth2/",
            "/oauth2/token/",
            "/oauth2/tokens",
            "/oauth2/token//",
            "/oauth2/token/acme/",
            "/oauth2/token/acme/x",
            "/oauth2//token",
            "/OAUTH2/token",
            "/oauth2/%74oken",
            "/oauth2/token/%61cme",
            "/oauth2/token/acme%2Fx",
            "/oauth2/token/a%253Ab",
            "/oauth2/token/a%7Cb",
            "/oauth2/token/a%3",
            "/oauth2/token/a%",
            "/oauth2/token/a%é",
            "/oauth2/token/a!b",
            "/oauth2/jwks/acme",
            "/.well-known/oauth-authorization-server/acme",
            "/.well-known/openid-configuration",
        ] {
            assert_eq!(Route::of(path), None, "{path}");
        }
        let long = format!("/oauth2/token/{}", "a".repeat(129));
        assert_eq!(Route::of(&long), None, "longer than an id");
    }
}
