//! Challenge: the `WWW-Authenticate` of a denied request (RFC 6750 section 3, RFC 7617).
//!
//! Not here: the status and the body; see [`super::response`].

use crate::policy::reason::Reason;
use crate::policy::scope::Scope;

/// The most bytes of the scopes in a challenge. Proxies limit the headers of a response.
const MAX_SCOPES: usize = 2_048;

const BEARER: &str = r#"Bearer realm="scopegate""#;
const BOTH: &str = r#"Bearer realm="scopegate", Basic realm="scopegate", charset="UTF-8""#;
const INSUFFICIENT: &str = r#"Bearer error="insufficient_scope""#;

/// The challenge of a denial with this status; none if the status has none.
///
/// A browser keeps what its user enters for Basic and sends it by itself, also with the requests of other
/// sites. So a browser is not asked for it.
#[must_use]
pub fn challenge(
    status: u16,
    reason: Option<Reason>,
    missing: &[Scope],
    is_browser: bool,
) -> Option<String> {
    match status {
        401 => Some(if is_browser { BEARER } else { BOTH }.to_owned()),
        403 => Some(insufficient(reason, missing)),
        _ => None,
    }
}

/// It names the scopes that are missing, unless the user lacks the permission: a token with other scopes
/// would not help. Of many scopes it names the first.
fn insufficient(reason: Option<Reason>, missing: &[Scope]) -> String {
    let is_of_user = matches!(reason, Some(Reason::UserLacksPermission | Reason::NotRecordOwner));
    let mut length = 0;
    let fitting = missing.iter().map(Scope::as_str).take_while(|scope| {
        length += scope.len() + 1;
        length <= MAX_SCOPES
    });
    // A scope has no quote and no backslash.
    let scopes: Vec<_> = fitting.collect();
    match scopes.is_empty() || is_of_user {
        true => INSUFFICIENT.to_owned(),
        false => format!(r#"{INSUFFICIENT}, scope="{}""#, scopes.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(count: usize) -> Vec<Scope> {
        (0..count).map(|n| Scope::parse(format!("s:{n:03}")).expect("a scope")).collect()
    }

    #[test]
    fn challenge_is_that_of_the_status() {
        let of = |status, reason, missing| challenge(status, Some(reason), &scopes(missing), false);
        assert_eq!(of(401, Reason::TokenInvalid, 1).as_deref(), Some(BOTH));
        let browser = challenge(401, Some(Reason::TokenInvalid), &[], true);
        assert_eq!(browser.as_deref(), Some(BEARER));
        let two = of(403, Reason::ScopeNotGranted, 2);
        let named = r#"Bearer error="insufficient_scope", scope="s:000 s:001""#;
        assert_eq!(two.as_deref(), Some(named));
        for reason in [Reason::UserLacksPermission, Reason::NotRecordOwner] {
            assert_eq!(of(403, reason, 2).as_deref(), Some(INSUFFICIENT));
        }
        assert_eq!(of(403, Reason::ScopeUnknown, 0).as_deref(), Some(INSUFFICIENT));
        for status in [400, 404, 503] {
            assert_eq!(challenge(status, None, &[], false), None);
        }
    }

    #[test]
    fn challenge_has_a_maximum_length() {
        let long = insufficient(Some(Reason::ScopeNotGranted), &scopes(1_000));
        assert!(long.len() < MAX_SCOPES + 60 && long.ends_with('"'), "{}", long.len());
        assert!(long.contains("s:000") && !long.contains("s:999"));
    }
}
