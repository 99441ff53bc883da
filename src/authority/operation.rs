//! Operation: what the application layer knows of a method of the API before it reads the message: who
//! may call it, and how a call is treated (D8).
//!
//! The options of the methods in `proto/scopegate/v1` declare all operations. The build generates the
//! table of them; see `wire::access`.
//!
//! Not here: authentication; see `policy::keyring`.

use crate::policy::caller::Caller;
use crate::policy::role::{Role, Roles};

/// A method of the API.
#[derive(Debug, PartialEq, Eq)]
pub struct Operation {
    /// The path of the method: `/` service `/` method.
    pub path: &'static str,
    /// Its position in the table of operations.
    pub index: usize,
    /// The roles of which the caller needs one.
    pub roles: Roles,
    /// What a call changes.
    pub effect: Effect,
    /// Whether a call reads a page of the store.
    pub reads_page: bool,
    /// Whether the messages of a request come one after another, without a time limit.
    pub is_stream: bool,
    /// Whether a call counts for the rate limit of its key. The methods that a service calls for each
    /// of its own requests do not.
    pub is_rated: bool,
    /// Whether a call has a line in the access log.
    pub is_logged: bool,
}

impl Operation {
    /// Whether a call of this caller has priority: an operator removes access by it. A caller that
    /// revokes a stolen key must not wait for other calls.
    #[must_use]
    pub fn is_urgent(&self, caller: &Caller) -> bool {
        self.effect == Effect::Removal && caller.roles().has(Role::Operator)
    }
}

/// What a call changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Read,
    /// It can change the store.
    Change,
    /// It can change the store, and remove access.
    Removal,
}

/// The companies that a call concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Companies<'a> {
    /// No company, or one that the authority finds and compares later.
    None,
    /// The company of this id.
    One(&'a str),
    /// The companies of these ids.
    Each(Vec<&'a str>),
    /// All companies: the key must not be bound.
    All,
}

impl Companies<'_> {
    /// Whether the caller may name all of them. This does not depend on whether they exist.
    #[must_use]
    pub fn are_reached_by(&self, caller: &Caller) -> bool {
        match self {
            Self::None => true,
            Self::One(company) => caller.reaches(company),
            Self::Each(companies) => companies.iter().all(|company| caller.reaches(company)),
            Self::All => caller.reaches_all(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::policy::id::{CompanyId, Name};
    use crate::policy::keyring::ApiKey;
    use crate::policy::revision::Revision;

    fn caller(role: Role, companies: &[&str]) -> Caller {
        let companies = companies.iter().map(|id| CompanyId::parse(*id).expect("an id"));
        Caller::Key(Arc::new(ApiKey {
            id: Name::parse("0123").expect("an id"),
            name: Name::parse("someone").expect("a name"),
            roles: Roles::NONE.with(role),
            companies: companies.collect(),
            certificate: None,
            hash: None,
            expires_at: None,
            created_at: Revision(1),
            create_time: Timestamp::UNIX_EPOCH,
        }))
    }

    #[test]
    fn only_operators_calls_that_remove_access_are_urgent() {
        let with = |effect| Operation {
            path: "/method",
            index: 0,
            roles: Roles::ALL,
            effect,
            reads_page: false,
            is_stream: false,
            is_rated: true,
            is_logged: true,
        };
        let (operator, admin) = (caller(Role::Operator, &[]), caller(Role::CompanyAdmin, &[]));
        assert!(with(Effect::Removal).is_urgent(&operator));
        assert!(with(Effect::Removal).is_urgent(&Caller::Anonymous));
        assert!(!with(Effect::Removal).is_urgent(&admin));
        assert!(!with(Effect::Change).is_urgent(&operator));
        assert!(!with(Effect::Read).is_urgent(&operator));
    }

    #[test]
    fn bound_caller_reaches_only_its_companies() {
        let (bound, free) = (caller(Role::Service, &["acme"]), caller(Role::Service, &[]));
        for (companies, is_reached) in [
            (Companies::None, true),
            (Companies::One("acme"), true),
            (Companies::One("other"), false),
            (Companies::One(""), false),
            (Companies::Each(vec![]), true),
            (Companies::Each(vec!["acme", "acme"]), true),
            (Companies::Each(vec!["acme", "other"]), false),
            (Companies::All, false),
        ] {
            assert_eq!(companies.are_reached_by(&bound), is_reached, "{companies:?}");
            assert!(
                companies.are_reached_by(&free) && companies.are_reached_by(&Caller::Anonymous)
            );
        }
    }
}
