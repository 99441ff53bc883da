//! Question: the check that a gateway asks for a request: who calls, and what for.
//!
//! The client says who calls by its `authorization`. If it sends none, not even an empty one, and the
//! gateway's route names a company and a credential, then these call. Other headers say nothing: what
//! another part of the gateway has verified is not read.
//!
//! Not here: whether the credential is right; see `authority::client`.

use super::http_request::{Header, HttpRequest};
use super::route::Route;
use crate::policy::catalog::endpoint::RequestPath;
use crate::policy::catalog::file::is_method;
use crate::policy::client_credential::ClientCredential;
use crate::policy::id::{CompanyId, CredentialId};
use crate::policy::query::{Client, Request, Requirement};
use crate::policy::reason::Reason;
use crate::wire::validate::AskedSubject;

/// The method by which a catalog declares calls of gRPC.
const GRPC: &str = "GRPC";

/// What a gateway asks.
#[derive(Debug)]
pub struct Question {
    /// The check.
    pub request: Request,
    /// The client that the route names, if it is the one that calls.
    pub stated: Option<(CompanyId, CredentialId)>,
    /// Whether `authorization` holds a secret that the API must not get.
    pub hides_authorization: bool,
}

/// The request has a path or a method that can be read in more than one way (D20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl Question {
    /// What a gateway with this route asks about a request.
    ///
    /// # Errors
    /// The path or the method cannot be judged.
    pub fn new(route: Route, http: &HttpRequest<'_>) -> Result<Self, Unreadable> {
        let Route { company, credential, audience, scopes, denies_own, forwards_authorization } =
            route;
        let needs = match scopes {
            Some(scopes) => Requirement::Scopes(scopes),
            None => endpoint(http)?,
        };
        let mut stated = None;
        let mut hides_authorization = false;
        let subject = match (http.header("authorization"), company, credential) {
            (Header::Absent, Some(company), Some(credential)) => {
                stated = Some((company.clone(), credential.clone()));
                AskedSubject::Stated { company, credential, token: None }
            }
            (header, company, credential) => {
                let presented = match header {
                    Header::Once(value) => ClientCredential::authorization(value),
                    Header::Absent | Header::Unclear => {
                        ClientCredential::Unusable(Reason::TokenRequired.into())
                    }
                };
                let (presented, company) = named_by(presented, company);
                let is_secret = matches!(presented, ClientCredential::Secret { .. });
                hides_authorization = is_secret && !forwards_authorization;
                AskedSubject::Client(Client { presented, company, credential })
            }
        };
        // A gateway names no owner.
        let mut request = subject.request(needs, audience, None, None);
        request.query.denies_own = denies_own;
        Ok(Self { request, stated, hides_authorization })
    }
}

/// The method and the path of a request.
fn endpoint(http: &HttpRequest<'_>) -> Result<Requirement, Unreadable> {
    let method = match http.is_grpc() {
        true => GRPC,
        // A method of this name is not a call of gRPC.
        false if http.method == GRPC || !is_method(http.method) => return Err(Unreadable),
        false => http.method,
    };
    let path = RequestPath::parse(http.path()).map_err(|_| Unreadable)?;
    Ok(Requirement::Endpoint { method: method.into(), path })
}

/// If the route names no company, the user name of HTTP Basic is the company and not the credential: ids of
/// credentials are unique in their company only.
fn named_by(
    presented: ClientCredential,
    company: Option<CompanyId>,
) -> (ClientCredential, Option<CompanyId>) {
    match (&presented, &company) {
        (ClientCredential::Secret { name: Some(name), .. }, None) => {
            match CompanyId::parse(name.clone()) {
                Ok(company) => (presented, Some(company)),
                Err(_) => (ClientCredential::Unusable(Reason::CredentialUnknown.into()), company),
            }
        }
        _ => (presented, company),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::cause::Cause;
    use crate::policy::query::Subject;
    use crate::policy::secret::{SecretKind, SecretText};

    fn get(authorization: Option<&'static str>) -> HttpRequest<'static> {
        let headers = authorization.map(|value| ("authorization", value.as_bytes()));
        HttpRequest { method: "GET", target: "/users?x=1", headers: headers.into_iter().collect() }
    }

    fn route(company: Option<&str>, credential: Option<&str>) -> Route {
        Route {
            company: company.map(|id| CompanyId::parse(id).expect("an id")),
            credential: credential.map(|id| CredentialId::parse(id).expect("an id")),
            ..Route::default()
        }
    }

    fn ask(route: Route, http: &HttpRequest<'_>) -> Question {
        Question::new(route, http).expect("a question")
    }

    #[test]
    fn route_calls_only_where_the_request_has_no_credential_at_all() {
        let both = || route(Some("acme"), Some("hr"));
        let question = ask(both(), &get(None));
        assert!(question.request.client.is_none() && question.stated.is_some());
        assert_eq!(question.request.query.company().map(CompanyId::as_str), Some("acme"));
        let required = ClientCredential::Unusable(Reason::TokenRequired.into());
        for (route, header) in [
            (both(), Some("")),
            (both(), Some(" ")),
            (both(), Some("Negotiate x")),
            (both(), Some("Bearer a, Bearer b")),
            (route(Some("acme"), None), None),
            (route(None, Some("hr")), None),
            (Route::default(), None),
        ] {
            let question = ask(route, &get(header));
            let client = question.request.client.expect("a client");
            assert_eq!(client.presented, required, "{header:?}");
            assert_eq!(question.stated, None);
            let unproven = Subject::Unproven(Cause::from(Reason::TokenRequired));
            assert_eq!(question.request.query.subject, unproven);
        }
    }

    #[test]
    fn user_name_of_basic_is_the_company_unless_the_route_names_it() {
        let secret = || SecretText::mint(SecretKind::Credential, &[7; 44]);
        let presented =
            |name: &str| ClientCredential::Secret { name: Some(name.into()), secret: secret() };
        let acme = || CompanyId::parse("acme").ok();
        assert_eq!(named_by(presented("acme"), None), (presented("acme"), acme()));
        assert_eq!(named_by(presented("hr"), acme()), (presented("hr"), acme()));
        let (unusable, company) = named_by(presented("a/b"), None);
        assert!(matches!(unusable, ClientCredential::Unusable(_)) && company.is_none());
        let alone = || ClientCredential::Secret { name: None, secret: secret() };
        assert_eq!(named_by(alone(), None), (alone(), None));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_not_asked() {
        let with = |method, target| {
            let http = HttpRequest { method, target, headers: vec![] };
            Question::new(route(Some("acme"), Some("hr")), &http).map(drop)
        };
        assert_eq!(with("GET", "/users"), Ok(()));
        for target in
            ["", "*", "users", "//", "/a//b", "/a/../b", "/a%2Fb", "/a\\b", "/a#b", "/\u{e9}"]
        {
            assert_eq!(with("GET", target), Err(Unreadable), "{target}");
        }
        for method in ["", "GRPC", "G T", "M$", "GET,POST"] {
            assert_eq!(with(method, "/users"), Err(Unreadable), "{method}");
        }
        let scopes = Some(vec![]);
        let http = HttpRequest { method: "GRPC", target: "//", headers: vec![] };
        assert!(Question::new(Route { scopes, ..Route::default() }, &http).is_ok(), "not asked");
    }
}
