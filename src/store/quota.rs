//! Quota: limits on how much one company may store, and write in a day, so that one company cannot
//! use up the disk.
//!
//! Not here: how much each company has; `usage` counts that.

use std::fmt;

use super::{Fact, FactKey, FactWrite, Proposal, key};
use crate::policy::change::ChangeKind;
use crate::policy::revision::Revision;

/// A quantity that is limited for each company.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quota {
    /// Its credentials.
    Credentials,
    /// Its users.
    Users,
    /// The consents of its users.
    Consents,
    /// The bytes that its changes write in a day (UTC).
    Bytes,
}

impl Quota {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Credentials, Self::Users, Self::Consents, Self::Bytes];

    /// Its name, on the wire and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Users => "users",
            Self::Consents => "consents",
            Self::Bytes => "bytes",
        }
    }

    /// The flag of a server that sets it.
    fn flag(self) -> &'static str {
        match self {
            Self::Credentials => "--max-credentials-per-company",
            Self::Users => "--max-users-per-company",
            Self::Consents => "--max-consents-per-company",
            Self::Bytes => "--max-company-mib-per-day",
        }
    }
}

/// A quota that a company has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The quota.
    pub bound: Quota,
    /// The limit.
    pub limit: u64,
}

impl fmt::Display for Reached {
    /// The text after the name of the quota.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bound, limit } = self;
        let flag = bound.flag();
        match bound {
            Quota::Bytes => write!(
                f,
                "written today by changes of this company have reached the limit of {} MiB \
                 ({flag}): try again after 00:00 UTC, or ask the server's operator to raise the \
                 limit; removing, revoking, restricting and disabling still work",
                limit >> 20
            ),
            _ => write!(
                f,
                "of this company have reached the limit of {limit} ({flag}): delete some that are \
                 no longer used, or ask the server's operator to raise the limit"
            ),
        }
    }
}

/// The quotas of every company.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// The limit of credentials.
    pub credentials: u32,
    /// The limit of users.
    pub users: u32,
    /// The limit of consents.
    pub consents: u32,
    /// About how many bytes changes may write in a day (UTC). The last change of a day may exceed
    /// it.
    pub bytes_per_day: u64,
}

impl Quotas {
    /// No limits.
    pub const NONE: Self = Self {
        credentials: u32::MAX,
        users: u32::MAX,
        consents: u32::MAX,
        bytes_per_day: u64::MAX,
    };

    /// The limit of this quota.
    #[must_use]
    pub fn of(&self, bound: Quota) -> u64 {
        match bound {
            Quota::Credentials => self.credentials.into(),
            Quota::Users => self.users.into(),
            Quota::Consents => self.consents.into(),
            Quota::Bytes => self.bytes_per_day,
        }
    }
}

/// An account of the bytes that are written in a day. Each has the same quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ByteAccount {
    /// The creation revision of the company.
    pub(super) company: Revision,
    /// Whether it is for the tokens that clients revoke, and not for all other changes.
    pub(super) of_clients: bool,
}

impl ByteAccount {
    /// The account of a change with these writes; `None` if it creates the company, or if the facts belong
    /// to no company. Revocations by clients of a company have an account of their own: a client could end
    /// the changes of its company's administrators for the day.
    pub(super) fn of<'a>(
        mut writes: impl Iterator<Item = &'a FactWrite>,
        kind: ChangeKind,
    ) -> Option<Self> {
        let company = writes.find_map(FactWrite::company)?;
        Some(Self { company, of_clients: kind == ChangeKind::RevokeToken })
    }
}

impl FactWrite {
    /// The company and the quota whose count the write changes, and by how much.
    pub(super) fn moves(&self) -> Option<(Revision, Quota, i64)> {
        let (company, bound) = key::quota_of(&self.key.bytes())?;
        let by = i64::from(self.after.is_some()) - i64::from(self.before.is_some());
        (by != 0).then_some((company, bound, by))
    }

    /// The creation revision of the company of this fact, if the company exists.
    pub(super) fn company(&self) -> Option<Revision> {
        match (&self.key, &self.before) {
            (
                FactKey::Credential(company, _)
                | FactKey::User(company, _)
                | FactKey::Secret(company, _)
                | FactKey::Impact(company),
                _,
            ) => Some(*company),
            (FactKey::Consent(of), _) => Some(of.company),
            (FactKey::Company(_), Some(Fact::Company(company))) => Some(company.created_at),
            (FactKey::AuthorizationCode(_), _) => {
                match self.before.as_ref().or(self.after.as_ref())? {
                    Fact::AuthorizationCode(code) => Some(code.of.company),
                    _ => None,
                }
            }
            (
                FactKey::Catalog
                | FactKey::Keyring
                | FactKey::SigningKeys
                | FactKey::Company(_)
                | FactKey::SecretOwner(_),
                _,
            ) => None,
        }
    }
}

impl Proposal {
    /// The account whose bytes of the day the proposal uses.
    pub(super) fn account(&self) -> Option<ByteAccount> {
        ByteAccount::of(self.writes.iter(), self.change.kind)
    }
}
