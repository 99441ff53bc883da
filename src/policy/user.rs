//! User: a user of a company, and the user's roles there.

use jiff::Timestamp;

use super::change::FieldChange;
use super::edit::{Edit, Stamped};
use super::id::{Name, UserId};
use super::revision::Revision;

/// A user of a company.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The id, unique in the company.
    pub id: UserId,
    /// The creation revision of the company.
    pub company: Revision,
    /// The roles, sorted, each once. A role that the catalog lacks permits nothing (D2).
    pub roles: Vec<Name>,
    /// The user's creation revision: nothing of an earlier user with the same id belongs to this
    /// one (D3).
    pub created_at: Revision,
    /// The last change.
    pub revision: Revision,
}

impl User {
    /// The user with exactly these roles; a new user if there is none yet.
    #[must_use]
    pub fn put(
        before: Option<&Self>,
        id: &UserId,
        company: Revision,
        roles: &[Name],
    ) -> Edit<Self> {
        let mut roles = roles.to_vec();
        roles.sort();
        roles.dedup();
        let fields = FieldChange::list("roles", before.map(|user| &*user.roles), &roles);
        let after = match before {
            Some(user) => Self { roles, ..user.clone() },
            None => Self {
                id: id.clone(),
                company,
                roles,
                created_at: Revision::NEXT,
                revision: Revision::NEXT,
            },
        };
        Edit { fields: fields.into_iter().collect(), ..Edit::to(after) }
    }
}

impl Stamped for User {
    fn stamp(&mut self, revision: Revision, _: Timestamp) {
        self.created_at = self.created_at.or_assigned(revision);
        self.revision = revision;
    }
}
