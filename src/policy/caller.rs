//! Caller: the caller of scopegate itself, and the companies and calls that it may use (D8).
//!
//! Not here: which role a call needs (`authority::operation`), and how a caller authenticates
//! ([`super::keyring`]).

use std::sync::Arc;

use super::keyring::ApiKey;
use super::revision::Revision;
use super::role::Roles;

/// The actor of a change by a caller that is not authenticated.
pub const ANONYMOUS: &str = "anonymous";

/// The caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Caller {
    /// The program itself, for example when it applies a catalog file. It may do everything.
    #[default]
    Internal,
    /// Any caller, while callers are not authenticated. It may do everything.
    Anonymous,
    /// A caller that authenticated with this key.
    Key(Arc<ApiKey>),
}

impl Caller {
    /// The actor of its changes (D18).
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Internal => "scopegate",
            Self::Anonymous => ANONYMOUS,
            Self::Key(key) => key.name.as_str(),
        }
    }

    /// The creation revision of its key, which identifies the key; `None` without a key.
    #[must_use]
    pub fn key(&self) -> Option<Revision> {
        match self {
            Self::Internal | Self::Anonymous => None,
            Self::Key(key) => Some(key.created_at),
        }
    }

    /// Its roles.
    #[must_use]
    pub fn roles(&self) -> Roles {
        match self {
            Self::Internal | Self::Anonymous => Roles::ALL,
            Self::Key(key) => key.roles,
        }
    }

    /// Whether it may name this company. This does not depend on whether the company exists.
    #[must_use]
    pub fn reaches(&self, company: &str) -> bool {
        match self {
            Self::Internal | Self::Anonymous => true,
            Self::Key(key) => {
                !key.is_bound() || key.companies.iter().any(|c| c.as_str() == company)
            }
        }
    }

    /// Whether it may make calls that concern all companies.
    #[must_use]
    pub fn reaches_all(&self) -> bool {
        match self {
            Self::Internal | Self::Anonymous => true,
            Self::Key(key) => !key.is_bound(),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::policy::id::{CompanyId, Name};
    use crate::policy::revision::Revision;
    use crate::policy::role::Role;

    #[test]
    fn d8_roles_have_the_names_that_operators_write() {
        let names = [
            "service",
            "company-admin",
            "identity",
            "operator",
            "auditor",
            "backup",
            "restrictor",
            "key-admin",
        ];
        assert_eq!(Role::ALL.map(Role::name), names);
    }

    #[test]
    fn d8_a_bound_key_reaches_its_companies_and_an_unauthenticated_caller_all() {
        for caller in [Caller::Internal, Caller::Anonymous] {
            assert!(caller.reaches("acme") && caller.reaches_all());
            assert_eq!(caller.roles(), Roles::ALL);
        }
        assert_eq!([Caller::Internal.name(), Caller::Anonymous.name()], ["scopegate", "anonymous"]);
        let roles = Roles::NONE.with(Role::CompanyAdmin);
        let key = |companies: &[&str]| {
            Caller::Key(Arc::new(ApiKey {
                id: Name::parse("0123").expect("a name"),
                name: Name::parse("hr-admin").expect("a name"),
                roles,
                companies: companies
                    .iter()
                    .map(|id| CompanyId::parse(*id).expect("an id"))
                    .collect(),
                certificate: None,
                hash: None,
                expires_at: None,
                created_at: Revision(1),
                create_time: Timestamp::UNIX_EPOCH,
            }))
        };
        let free = key(&[]);
        assert!(free.reaches("acme") && free.reaches_all());
        let bound = key(&["acme", "umbrella"]);
        assert!(bound.reaches("acme") && bound.reaches("umbrella"));
        assert!(!bound.reaches("initech") && !bound.reaches_all());
        assert_eq!((bound.name(), bound.roles()), ("hr-admin", roles));
    }
}
