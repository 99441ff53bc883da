//! Caller: who calls scopegate itself, and what of it they may use (D8).
//!
//! Not here: which role a call needs; see `wire::access`. And how a caller proves who it is; see
//! [`super::keyring`].

use std::fmt;
use std::sync::Arc;

use super::keyring::ApiKey;
use super::revision::Revision;

/// What a caller is to the platform (D8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Asks, and changes nothing.
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

    /// These and one more.
    #[must_use]
    pub const fn with(self, role: Role) -> Self {
        Self(self.0 | role.bit())
    }

    /// Whether this one is among them.
    #[must_use]
    pub const fn has(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    /// Whether one of these is among those.
    #[must_use]
    pub const fn intersects(self, those: Self) -> bool {
        self.0 & those.0 != 0
    }

    /// One by one, in the order of [`Role::ALL`].
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

/// The name under which changes are logged whose callers are not authenticated.
pub const ANONYMOUS: &str = "anonymous";

/// Who calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Caller {
    /// Nobody: the program itself, as when it applies a catalog file. May do everything.
    #[default]
    Internal,
    /// Anybody, where callers are not authenticated. May do everything.
    Anonymous,
    /// Who proved to have this key.
    Key(Arc<ApiKey>),
}

impl Caller {
    /// Under which name its changes are logged (D18).
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Internal => "scopegate",
            Self::Anonymous => ANONYMOUS,
            Self::Key(key) => key.name.as_str(),
        }
    }

    /// The creation revision of its key, which no other key has; none without a key.
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

    /// Whether it can name this company. What it is bound to says nothing of what exists.
    #[must_use]
    pub fn reaches(&self, company: &str) -> bool {
        match self {
            Self::Internal | Self::Anonymous => true,
            Self::Key(key) => {
                !key.is_bound() || key.companies.iter().any(|c| c.as_str() == company)
            }
        }
    }

    /// Whether it can make calls that concern all companies.
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
    fn a_set_of_roles_has_what_was_put_in() {
        assert_eq!(Roles::ALL.iter().collect::<Vec<_>>(), Role::ALL);
        for role in Role::ALL {
            let one = Roles::NONE.with(role);
            assert_eq!(one.iter().collect::<Vec<_>>(), [role]);
            assert!(one.intersects(Roles::ALL) && !one.intersects(Roles::NONE));
        }
        let two: Roles = [Role::Auditor, Role::Service].into_iter().collect();
        assert!(two.has(Role::Service) && !two.has(Role::Operator));
        assert!(!two.intersects(Roles::NONE.with(Role::Operator)));
        assert_eq!(two.with(Role::Service), two, "to put in what is there takes nothing out");
    }

    #[test]
    fn d8_roles_have_the_names_that_operators_write() {
        let names = ["service", "company-admin", "identity", "operator", "auditor"];
        assert_eq!(Role::ALL.map(Role::name), names);
    }

    #[test]
    fn d8_a_key_reaches_what_it_is_bound_to_and_everybody_reaches_all_where_nobody_is_asked() {
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
