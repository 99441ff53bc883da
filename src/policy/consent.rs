//! Consent: the scopes that a user allows a credential to use in the user's name.

use jiff::Timestamp;

use super::catalog::Catalog;
use super::change::FieldChange;
use super::edit::{Edit, Stamped};
use super::revision::Revision;
use super::scope::{Scope, ScopeId, ScopeMap};
use super::user::User;

/// A user's consent to a credential. It holds until it is withdrawn, or until its user or
/// credential is deleted: its key has their creation revisions (D3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// The company, user and credential.
    pub of: Parties,
    /// The allowed scopes, closed under implication.
    pub scopes: ScopeMap<()>,
    /// Its last change.
    pub revision: Revision,
}

/// The parties of a consent, by creation revisions, which are unique in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parties {
    /// The creation revision of the company.
    pub company: Revision,
    /// The creation revision of the user.
    pub user: Revision,
    /// The creation revision of the credential.
    pub credential: Revision,
}

impl Consent {
    /// The consent to the requested scopes that the user's roles permit now, and to all that these
    /// imply (D21). It replaces the earlier consent.
    #[must_use]
    pub fn put(
        before: Option<&Self>,
        of: Parties,
        catalog: &Catalog,
        user: &User,
        requested: &[ScopeId],
    ) -> Edit<Self> {
        let roles = catalog.role_permissions(&user.roles);
        let permitted = |scope: &ScopeId| roles.iter().any(|role| role.contains(*scope));
        let permitted_scopes: Vec<_> = requested.iter().copied().filter(permitted).collect();
        let given = catalog.closure(&permitted_scopes);
        let held = |scope: ScopeId| before.is_some_and(|consent| consent.scopes.contains(scope));
        let added: Vec<_> = given.iter().copied().filter(|scope| !held(*scope)).collect();
        let old = before.into_iter().flat_map(|consent| consent.scopes.iter());
        let removed = old
            .map(|(scope, ())| scope)
            .filter(|scope| given.binary_search(scope).is_err() && catalog.name(*scope).is_some())
            .collect();
        let scopes = given.into_iter().map(|scope| (scope, ())).collect();
        // The engine sets the revision on commit.
        let revision = before.map_or(Revision::NEXT, |consent| consent.revision);
        let after = Self { of, scopes, revision };
        // A first consent without scopes changes no scope; the change still shows it (D18).
        let first = before.is_none() && added.is_empty();
        let fields = first.then(|| FieldChange::list::<Scope>("scopes", None, &[])).flatten();
        Edit { added, removed, fields: fields.into_iter().collect(), ..Edit::to(after) }
    }
}

impl Stamped for Consent {
    fn stamp(&mut self, revision: Revision, _: Timestamp) {
        self.revision = revision;
    }
}
