//! Role: what a caller of scopegate may do, as a key or a certificate grants it (D8).

use std::fmt;

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
    /// Makes only the calls that any caller may make.
    Backup,
    /// Makes only the calls that any caller may make.
    Restrictor,
    /// Makes only the calls that any caller may make.
    KeyAdmin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 8] = [
        Self::Service,
        Self::CompanyAdmin,
        Self::Identity,
        Self::Operator,
        Self::Auditor,
        Self::Backup,
        Self::Restrictor,
        Self::KeyAdmin,
    ];

    /// Its name, on the command line and in the audit log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::CompanyAdmin => "company-admin",
            Self::Identity => "identity",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Backup => "backup",
            Self::Restrictor => "restrictor",
            Self::KeyAdmin => "key-admin",
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
        .with(Role::Auditor)
        .with(Role::Backup)
        .with(Role::Restrictor)
        .with(Role::KeyAdmin);

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
