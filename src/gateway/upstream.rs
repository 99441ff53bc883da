//! Upstream: the headers of a request that is passed on to an API: those that say for whom it was allowed,
//! and those that the client sent and that the API must not get.
//!
//! Not here: the response of a request that is denied; see [`super::response`].

use super::http_request::HttpRequest;
use crate::authority::ProvenClient;
use crate::policy::catalog::Reach;
use crate::policy::revision::Revision;

/// The company.
pub const COMPANY: &str = "x-scopegate-company";
/// The credential.
pub const CREDENTIAL: &str = "x-scopegate-credential";
/// The user on whose behalf the client calls.
pub const USER: &str = "x-scopegate-user";
/// How far the call reaches: `ALL` or `OWN`.
pub const REACH: &str = "x-scopegate-reach";
/// The revision of the decision.
pub const REVISION: &str = "x-scopegate-revision";

/// The headers that say for whom a request was allowed.
pub const IDENTITY: [&str; 5] = [COMPANY, CREDENTIAL, USER, REACH, REVISION];

/// The beginning of their names.
const OWN: &str = "x-scopegate-";

/// Headers by which a client asks a server for another method or path than those that are judged.
const OVERRIDES: [&str; 5] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

/// The changes of the headers of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Upstream {
    /// The headers that are set, in place of all others of their names.
    pub set: Vec<(&'static str, String)>,
    /// The names of the headers that are removed. None of them is one that is set.
    pub removed: Vec<String>,
}

impl Upstream {
    /// The changes of a request that is allowed for this client.
    #[must_use]
    pub fn new(
        http: &HttpRequest<'_>,
        client: ProvenClient,
        reach: Reach,
        revision: Revision,
        hides_authorization: bool,
    ) -> Self {
        let ProvenClient { company, credential, user } = client;
        let reach = match reach {
            Reach::All => "ALL",
            Reach::Own => "OWN",
        };
        let mut set = Vec::with_capacity(IDENTITY.len());
        set.push((COMPANY, company.into()));
        set.push((CREDENTIAL, credential.into()));
        set.extend(user.map(|user| (USER, user.into())));
        set.push((REACH, reach.to_owned()));
        set.push((REVISION, revision.0.to_string()));
        let removed = removed(http, &set, hides_authorization);
        Self { set, removed }
    }
}

/// The names of the headers that are removed. A gateway removes after it has set, and in any case of
/// letters, so a header that is set is not among them.
fn removed(
    http: &HttpRequest<'_>,
    set: &[(&'static str, String)],
    hides_authorization: bool,
) -> Vec<String> {
    let is_set = |name: &str| set.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
    // Those that the gateway did not send along are removed, too.
    let always = IDENTITY.into_iter().filter(|name| !is_set(name)).chain(OVERRIDES);
    let always = always.chain(hides_authorization.then_some("authorization"));
    let mut removed: Vec<String> = always.map(str::to_owned).collect();
    let always = removed.len();
    for (name, _) in http.headers.iter().filter(|(name, _)| is_spoofed(name) && !is_set(name)) {
        if !removed.iter().take(always).any(|other| other == name) {
            removed.push((*name).to_owned());
        }
    }
    removed
}

/// Whether a server could read this name as one of ours, or as one of the overrides. Servers that pass
/// headers on as variables take every character but letters and digits for the same.
fn is_spoofed(name: &str) -> bool {
    // Nearly all names are compared by this one character.
    if !name.starts_with(['x', 'X']) {
        return false;
    }
    let same =
        |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    let begins = |with: &str| {
        name.len() >= with.len() && name.bytes().zip(with.bytes()).all(|(a, b)| same(a) == b)
    };
    begins(OWN) || OVERRIDES.iter().any(|other| name.len() == other.len() && begins(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::id::{CompanyId, CredentialId, UserId};

    fn upstream(headers: &[&'static str], user: Option<&str>, hides: bool) -> Upstream {
        let headers = headers.iter().map(|name| (*name, &b"x"[..])).collect();
        let http = HttpRequest { method: "GET", target: "/", headers };
        let client = ProvenClient {
            company: CompanyId::parse("acme").expect("an id"),
            credential: CredentialId::parse("hr").expect("an id"),
            user: user.map(|user| UserId::parse(user).expect("an id")),
        };
        Upstream::new(&http, client, Reach::All, Revision(7), hides)
    }

    fn with_overrides(more: &[&str]) -> Vec<String> {
        OVERRIDES.iter().chain(more).map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn identity_is_set_and_what_is_not_set_is_removed() {
        let with_user = upstream(&IDENTITY, Some("ann"), false);
        let values = ["acme", "hr", "ann", "ALL", "7"].map(str::to_owned);
        assert_eq!(with_user.set, IDENTITY.into_iter().zip(values).collect::<Vec<_>>());
        assert_eq!(with_user.removed, with_overrides(&[]));
        let without = upstream(&IDENTITY, None, true);
        assert_eq!(without.set.len(), 4);
        let mut expected = vec![USER.to_owned()];
        expected.extend(with_overrides(&["authorization"]));
        assert_eq!(without.removed, expected);
    }

    #[test]
    fn every_spelling_of_our_headers_and_of_overrides_is_removed_as_it_came() {
        let spoofed = [
            "X_Scopegate-Company",
            "x.scopegate.company",
            "x_scopegate_user",
            "x-scopegate-",
            "x-scopegate-admin",
            "x!scopegate~anything",
            "X_HTTP_Method_Override",
            "x.original.url",
        ];
        let others = [
            "accept",
            "x-scopegate",
            "xscopegate-user",
            "y-scopegate-user",
            "x-scopegates-user",
            "x-original-urls",
            "x-http-method-x",
            "x",
            "",
        ];
        let all = [&spoofed[..], &others, &["X-Scopegate-Company"]].concat();
        assert_eq!(upstream(&all, Some("ann"), false).removed, with_overrides(&spoofed));
    }

    #[test]
    fn nothing_that_is_set_is_removed_in_any_case() {
        let removed = upstream(&["X-SCOPEGATE-REACH", "X-Scopegate-User"], None, false).removed;
        assert!(!removed.iter().any(|name| name.eq_ignore_ascii_case(REACH)), "{removed:?}");
        assert!(removed.iter().any(|name| name == USER), "{removed:?}");
    }
}
