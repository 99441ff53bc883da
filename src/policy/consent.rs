//! Consent: what one user has allowed one credential to do in their name.

use jiff::Timestamp;

use super::catalog::Catalog;
use super::change::FieldChange;
use super::edit::{Edit, Stamped};
use super::revision::Revision;
use super::scope::{ScopeId, ScopeMap};
use super::user::User;

/// A user's consent to a credential. It stands until withdrawn, or until its user or credential
/// is deleted: it is kept under their births (D3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// Which consent.
    pub of: Parties,
    /// What is allowed, closed under implication.
    pub scopes: ScopeMap<()>,
    /// Its last change.
    pub revision: Revision,
}

/// Between whom a consent is: births, which no two of a store share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parties {
    /// The company's birth.
    pub company: Revision,
    /// The user's birth.
    pub user: Revision,
    /// The credential's birth.
    pub credential: Revision,
}

impl Consent {
    /// The consent to what is asked for, as far as the user could do it now, and to what that
    /// implies (D21). It replaces what was consented to before.
    #[must_use]
    pub fn put(
        before: Option<&Self>,
        of: Parties,
        catalog: &Catalog,
        user: &User,
        asked: &[ScopeId],
    ) -> Edit<Self> {
        let roles = catalog.role_permissions(&user.roles);
        let permitted = |scope: &ScopeId| roles.iter().any(|role| role.contains(*scope));
        let able: Vec<_> = asked.iter().copied().filter(permitted).collect();
        let given = catalog.closure(&able);
        let held = |scope: ScopeId| before.is_some_and(|consent| consent.scopes.contains(scope));
        let added: Vec<_> = given.iter().copied().filter(|scope| !held(*scope)).collect();
        let old = before.into_iter().flat_map(|consent| consent.scopes.iter());
        let removed = old
            .map(|(scope, ())| scope)
            .filter(|scope| given.binary_search(scope).is_err() && catalog.name(*scope).is_some())
            .collect();
        let scopes = given.into_iter().map(|scope| (scope, ())).collect();
        // The engine stamps it anew if it is committed.
        let revision = before.map_or(Revision::NEXT, |consent| consent.revision);
        let after = Self { of, scopes, revision };
        // A first consent that gives nothing moves no scope; the log still says what it is (D18).
        let first = before.is_none() && added.is_empty();
        let fields = first.then(|| FieldChange::list("scopes", None, &[])).flatten();
        Edit { added, removed, fields: fields.into_iter().collect(), ..Edit::to(after) }
    }
}

impl Stamped for Consent {
    fn stamp(&mut self, revision: Revision, _: Timestamp) {
        self.revision = revision;
    }
}
