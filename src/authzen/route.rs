//! Route: the endpoint of a path, and the base URL in it. A path is compared as it is.

use http::Method;

use super::base::Base;

/// An endpoint of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// Decides one request.
    Evaluation,
    /// Decides several at one revision.
    Evaluations,
    /// Finds subjects.
    SearchSubject,
    /// Finds resources.
    SearchResource,
    /// Finds actions.
    SearchAction,
    /// The metadata.
    Metadata,
}

/// The path of the metadata, before the base.
const WELL_KNOWN: &str = "/.well-known/authzen-configuration";

impl Endpoint {
    /// Every endpoint.
    pub(crate) const ALL: [Self; 6] = [
        Self::Evaluation,
        Self::Evaluations,
        Self::SearchSubject,
        Self::SearchResource,
        Self::SearchAction,
        Self::Metadata,
    ];

    /// Its path, without a base.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Evaluation => "/access/v1/evaluation",
            Self::Evaluations => "/access/v1/evaluations",
            Self::SearchSubject => "/access/v1/search/subject",
            Self::SearchResource => "/access/v1/search/resource",
            Self::SearchAction => "/access/v1/search/action",
            Self::Metadata => WELL_KNOWN,
        }
    }

    /// Its name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Evaluation => "evaluation",
            Self::Evaluations => "evaluations",
            Self::SearchSubject => "search_subject",
            Self::SearchResource => "search_resource",
            Self::SearchAction => "search_action",
            Self::Metadata => "metadata",
        }
    }

    /// Whether it answers this method.
    pub(super) fn has(self, method: &Method) -> bool {
        match self {
            Self::Metadata => matches!(*method, Method::GET | Method::HEAD),
            _ => *method == Method::POST,
        }
    }

    /// The value of `Allow` (RFC 9110 section 10.2.1).
    pub(super) fn allow(self) -> &'static str {
        if self == Self::Metadata { "GET, HEAD" } else { "POST" }
    }
}

/// The endpoint of a path, and the base in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) endpoint: Endpoint,
    pub(super) base: Base,
}

impl Route {
    /// The route of a path; none if there is no such path.
    pub(super) fn of(path: &str) -> Option<Self> {
        if let Some(base) = path.strip_prefix(WELL_KNOWN) {
            return Some(Self { endpoint: Endpoint::Metadata, base: Base::of(base)? });
        }
        let endpoints =
            Endpoint::ALL.into_iter().filter(|endpoint| *endpoint != Endpoint::Metadata);
        let mut found = endpoints.filter_map(|endpoint| {
            let base = path.strip_suffix(endpoint.path())?;
            Some(Self { endpoint, base: Base::of(base)? })
        });
        found.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_has_an_endpoint_and_a_base() {
        for base in ["", "/companies/acme", "/companies/a:b@c/credentials/hr.sync-1"] {
            for endpoint in Endpoint::ALL {
                let path = match endpoint {
                    Endpoint::Metadata => format!("{}{base}", endpoint.path()),
                    _ => format!("{base}{}", endpoint.path()),
                };
                let base = Base::of(base).expect("a base");
                assert_eq!(Route::of(&path), Some(Route { endpoint, base }), "{path}");
            }
        }
    }

    #[test]
    fn other_path_has_no_endpoint() {
        for path in [
            "",
            "/",
            "/access/v1",
            "/access/v1/",
            "/access/v1/evaluation/",
            "/access/v1/evaluationx",
            "/access/v1//evaluation",
            "//access/v1/evaluation",
            "/Access/v1/evaluation",
            "/access/v1/%65valuation",
            "/access/v2/evaluation",
            "/access/v1/search",
            "/companies/access/v1/evaluation",
            "/companies//access/v1/evaluation",
            "/companies/acme//access/v1/evaluation",
            "/companies/acme/access/v1/access/v1/evaluation",
            "/companies/%61cme/access/v1/evaluation",
            "/companies/acme%2Fcredentials%2Fhr/access/v1/evaluation",
            "/companies/ac!me/access/v1/evaluation",
            "/companies/acme/credentials/access/v1/evaluation",
            "/companies/acme/credentials//access/v1/evaluation",
            "/companies/acme/credentials/hr/x/access/v1/evaluation",
            "/companies/acme/users/ann/access/v1/evaluation",
            "/x/access/v1/evaluation",
            "/.well-known/authzen-configuration/",
            "/.well-known/authzen-configuration/acme",
            "/.well-known/authzen-configurationx",
            "/companies/acme/.well-known/authzen-configuration",
            "/.well-known/openid-configuration",
        ] {
            assert_eq!(Route::of(path), None, "{path}");
        }
        let long = format!("/companies/{}/access/v1/evaluation", "a".repeat(129));
        assert_eq!(Route::of(&long), None, "longer than an id");
    }
}
