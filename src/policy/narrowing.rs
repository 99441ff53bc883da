//! Narrowing: whether a change of a fact only removes access.
//!
//! Such a change grants no scope, role, key or time. It is therefore accepted when others are
//! rejected for lack of disk space. A change that is not listed here does not count as one.

use jiff::Timestamp;

use super::company::Company;
use super::consent::Consent;
use super::credential::{Credential, Grant};
use super::keyring::Keyring;
use super::revision::Revision;
use super::scope::ScopeMap;
use super::user::User;

/// Whether an expiry is unchanged, or was in the future (or absent) and has passed now. An expiry
/// that only comes nearer removes nothing yet, and such changes could be repeated without limit.
fn same_or_ended(before: Option<Timestamp>, after: Option<Timestamp>, now: Timestamp) -> bool {
    let has_passed = |end: Option<Timestamp>| end.is_some_and(|end| end <= now);
    before == after || (!has_passed(before) && has_passed(after))
}

/// Whether each scope of the second map is in the first, with a value that is no wider.
fn within<V>(before: &ScopeMap<V>, after: &ScopeMap<V>, no_wider: impl Fn(&V, &V) -> bool) -> bool {
    after.iter().all(|(scope, value)| before.get(scope).is_some_and(|was| no_wider(was, value)))
}

impl Company {
    /// Whether this is `before` with less: scopes, or whether it is enabled.
    #[must_use]
    pub fn narrows(&self, before: &Self) -> bool {
        self.display_name == before.display_name
            && self.created_at == before.created_at
            && self.enabled <= before.enabled
            && within(&before.ceiling, &self.ceiling, |was, is| was == is)
            && within(&before.restored, &self.restored, |was, is| {
                is.iter().all(|range| was.contains(range))
            })
    }
}

impl Credential {
    /// Whether this is `before` with less at this time: grants, secrets, redirect URIs, an end that has
    /// passed, or whether it is enabled.
    #[must_use]
    pub fn narrows(&self, before: &Self, now: Timestamp) -> bool {
        let no_wider = |was: &Grant, is: &Grant| {
            was.granted_at == is.granted_at && same_or_ended(was.expires_at, is.expires_at, now)
        };
        self.label == before.label
            && self.created_at == before.created_at
            && self.enabled <= before.enabled
            && same_or_ended(before.expires_at, self.expires_at, now)
            && within(&before.grants, &self.grants, no_wider)
            && self.secrets.iter().all(|secret| before.secrets.contains(secret))
            && self.redirect_uris.iter().all(|uri| before.redirect_uris.contains(uri))
            && self.ends_same_or_all_tokens(before)
    }

    /// Whether the same tokens are revoked as before, or all. A token that its client revokes does not
    /// count as a change that removes access: a client can ask for tokens and revoke them again and
    /// again, and would take the disk space that is reserved for such changes.
    fn ends_same_or_all_tokens(&self, before: &Self) -> bool {
        let (after, before) = (&self.revoked_tokens, &before.revoked_tokens);
        let ends_all = after.own_before == Revision::NEXT;
        after == before || (ends_all && after.issued_before >= before.issued_before)
    }
}

impl User {
    /// Whether this is `before` with fewer roles.
    #[must_use]
    pub fn narrows(&self, before: &Self) -> bool {
        self.created_at == before.created_at
            && self.roles.iter().all(|role| before.roles.contains(role))
    }
}

impl Consent {
    /// Whether this is `before` with fewer scopes.
    #[must_use]
    pub fn narrows(&self, before: &Self) -> bool {
        self.of == before.of && within(&before.scopes, &self.scopes, |(), ()| true)
    }
}

impl Keyring {
    /// Whether this is `before` with fewer keys.
    #[must_use]
    pub fn narrows(&self, before: &Self) -> bool {
        self.after(None).all(|key| before.get(key.id.as_str()) == Some(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::id::{CredentialId, Name};
    use crate::policy::redirect_uri::RedirectUri;
    use crate::policy::scope::ScopeId;
    use crate::policy::token::revoked::RevokedTokens;

    fn second(second: i64) -> Option<Timestamp> {
        Timestamp::from_second(second).ok()
    }

    #[test]
    fn a_credential_with_less_narrows_and_one_with_anything_more_does_not() {
        let grant = |at, expires_at| Grant { granted_at: Revision(at), expires_at };
        let grants = |all: &[(u32, Grant)]| all.iter().map(|(s, g)| (ScopeId(*s), *g)).collect();
        let name = |name: &str| Name::parse(name).expect("a name");
        let uri =
            |host: &str| RedirectUri::parse(&format!("https://{host}.example/")).expect("a URI");
        let before = Credential {
            id: CredentialId::parse("app").expect("an id"),
            company: Revision(1),
            label: "App".to_owned(),
            enabled: true,
            expires_at: second(100),
            grants: grants(&[(1, grant(3, None)), (2, grant(3, second(50)))]),
            secrets: vec![name("a"), name("b")],
            redirect_uris: [uri("a"), uri("b")].into(),
            revoked_tokens: RevokedTokens::default(),
            created_at: Revision(2),
            revision: Revision(3),
            create_time: Timestamp::UNIX_EPOCH,
            update_time: Timestamp::UNIX_EPOCH,
        };
        let now = second(40).expect("a time");
        let with = |edit: &dyn Fn(&mut Credential)| {
            let mut after = before.clone();
            edit(&mut after);
            after.narrows(&before, now)
        };
        assert!(with(&|c| c.enabled = false));
        assert!(with(&|c| c.expires_at = second(40)));
        assert!(!with(&|c| c.expires_at = second(41)), "still ahead");
        assert!(!with(&|c| c.expires_at = second(99)), "still ahead");
        assert!(with(&|c| c.grants = grants(&[(1, grant(3, None))])));
        assert!(with(&|c| c.grants = grants(&[(1, grant(3, second(1)))])));
        assert!(with(&|c| c.secrets = vec![name("b")]));
        assert!(with(&|c| c.redirect_uris = [uri("b")].into()));
        assert!(!with(&|c| c.redirect_uris = [uri("c")].into()));
        assert!(!with(&|c| c.label = "B".to_owned()));
        assert!(!with(&|c| c.expires_at = None));
        assert!(!with(&|c| c.expires_at = second(101)));
        assert!(!with(&|c| c.grants = grants(&[(3, grant(3, None))])));
        assert!(!with(&|c| c.grants = grants(&[(1, grant(4, None))])));
        assert!(!with(&|c| c.grants = grants(&[(2, grant(3, None))])));
        assert!(!with(&|c| c.secrets = vec![name("c")]));
        assert!(with(&|c| c.revoked_tokens.end_all(now)));
        assert!(!with(&|c| c.revoked_tokens.issued_before = second(1)), "no revocation of all");
        let disabled = Credential { enabled: false, ..before.clone() };
        assert!(!before.narrows(&disabled, now));
        assert!(!Credential { created_at: Revision(9), ..before.clone() }.narrows(&before, now));
        let ended = Credential { expires_at: second(40), ..before.clone() };
        let earlier = Credential { expires_at: second(39), ..before.clone() };
        assert!(!earlier.narrows(&ended, now), "it is over already");
    }
}
