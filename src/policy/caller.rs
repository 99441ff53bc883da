//! Caller: the caller of scopegate itself, and the companies and calls that it may use (D8).
//!
//! Not here: which role a call needs (`wire::access`), and how a caller authenticates
//! ([`super::keyring`]).

use std::fmt;
use std::sync::Arc;

use super::keyring::ApiKey;
use super::revision::Revision;

/// The role of a caller (D8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Makes checks, and changes nothing.
    Service,
    /// Views its companies, and edits their credentials.
    CompanyAdmin,
    /// Maintains users and consents.
    Identity,
    /// Does everything.
    Operator,
    /// Reads everything.
    Auditor,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] =
        [Self::Service, Self::CompanyAdmin, Self::Identity, Self::Operator, Self::Auditor];

    /// Its name, on the command line and in the audit log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::CompanyAdmin => "company-admin",
            Self::Identity => "identity",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of roles.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// No role.
    pub const NONE: Self = Self(0);
    /// Every role.
    pub const ALL: Self = Self::NONE
        .with(Role::Service)
        .with(Role::CompanyAdmin)
        .with(Role::Identity)
        .with(Role::Operator)
        .with(Role::Auditor);

    /// The set with one more role.
    #[must_use]
    pub const fn with(self, role: Role) -> Self {
        Self(self.0 | role.bit())
    }

    /// Whether the set contains the role.
    #[must_use]
    pub const fn has(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    /// Whether the two sets have a role in common.
    #[must_use]
    pub const fn intersects(self, those: Self) -> bool {
        self.0 & those.0 != 0
    }

    /// The roles, in the order of [`Role::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.has(*role))
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

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

    #[test]
    fn a_set_of_roles_contains_its_roles() {
        assert_eq!(Roles::ALL.iter().collect::<Vec<_>>(), Role::ALL);
        for role in Role::ALL {
            let one = Roles::NONE.with(role);
            assert_eq!(one.iter().collect::<Vec<_>>(), [role]);
            assert!(one.intersects(Roles::ALL) && !one.intersects(Roles::NONE));
        }
        let two: Roles = [Role::Auditor, Role::Service].into_iter().collect();
        assert!(two.has(Role::Service) && !two.has(Role::Operator));
        assert!(!two.intersects(Roles::NONE.with(Role::Operator)));
        assert_eq!(two.with(Role::Service), two, "adding a role twice changes nothing");
    }

    #[test]
    fn d8_roles_have_the_names_that_operators_write() {
        let names = ["service", "company-admin", "identity", "operator", "auditor"];
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
