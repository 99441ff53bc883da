//! Company: a tenant, and the ceiling of its credentials' scopes.

use jiff::Timestamp;

use super::catalog::Catalog;
use super::ceiling::{Ceiling, RemovedEntry, RestoredRange};
use super::change::FieldChange;
use super::edit::{Edit, Stamped};
use super::id::CompanyId;
use super::revision::Revision;
use super::scope::{Scope, ScopeId, ScopeMap};

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Company {
    /// Its id.
    pub id: CompanyId,
    /// The display name.
    pub display_name: String,
    /// False denies every check of the company.
    pub enabled: bool,
    /// The scopes that its credentials can have.
    pub ceiling: Ceiling,
    /// Ranges of grants that count although they are older than their scope's entry in the ceiling.
    /// One entry per scope, so that reactivating a million grants is one small write.
    pub restored: ScopeMap<Vec<RestoredRange>>,
    /// Its creation revision. Everything that belongs to the company is stored under this number
    /// and not under its id, so that a later company of the same id does not find it (D3).
    pub created_at: Revision,
    /// Its last change.
    pub revision: Revision,
    /// When it was created.
    pub create_time: Timestamp,
    /// When it was last changed.
    pub update_time: Timestamp,
}

/// A company's impact revision: the last change of any of its credentials (D7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImpactRevision {
    /// The creation revision of the company.
    pub company: Revision,
    /// The revision.
    pub revision: Revision,
}

/// A company as clients see it: scopes by name, only those of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompanyView {
    /// The company.
    pub company: Company,
    /// The ceiling by name, sorted.
    pub ceiling: Vec<(Scope, Revision)>,
}

impl Company {
    /// A new company with these scopes and all that they imply; without a list, with every scope of
    /// the catalog (D4).
    #[must_use]
    pub fn create(
        id: CompanyId,
        display_name: String,
        catalog: &Catalog,
        scopes: Option<&[ScopeId]>,
        now: Timestamp,
    ) -> Edit<Self> {
        let empty = Self {
            id,
            display_name,
            enabled: true,
            ceiling: Ceiling::default(),
            restored: ScopeMap::default(),
            created_at: Revision::NEXT,
            revision: Revision::NEXT,
            create_time: now,
            update_time: now,
        };
        match scopes {
            Some(scopes) => empty.add_scopes(catalog, scopes),
            None => {
                let all: Vec<_> = catalog.scope_ids().collect();
                empty.add_scopes(catalog, &all)
            }
        }
    }

    /// Adds scopes, and all that they imply, to the ceiling. A scope that is in it keeps its
    /// revision (D3).
    #[must_use]
    pub fn add_scopes(&self, catalog: &Catalog, scopes: &[ScopeId]) -> Edit<Self> {
        let mut added = catalog.closure(scopes);
        added.retain(|scope| !self.ceiling.contains(*scope));
        let fresh = added.iter().map(|scope| (*scope, Revision::NEXT));
        let ceiling = self.known(catalog).chain(fresh).collect();
        Edit { after: Self { ceiling, ..self.clone() }, added, ..Edit::none(self) }
    }

    /// Removes scopes, and all that imply them, from the ceiling (D1, D6).
    #[must_use]
    pub fn restrict(&self, catalog: &Catalog, scopes: &[ScopeId]) -> Edit<Self> {
        let mut removed = catalog.implying_closure(scopes);
        removed.retain(|scope| self.ceiling.contains(*scope));
        let ceiling = self
            .known(catalog)
            .filter(|(scope, _)| removed.binary_search(scope).is_err())
            .collect();
        let stays = |scope: &ScopeId| removed.binary_search(scope).is_err();
        let restored = self.restored.iter().filter(|(scope, _)| stays(scope));
        let restored = restored.map(|(scope, ranges)| (scope, ranges.clone())).collect();
        let entry = |scope: &ScopeId| {
            let restored = self.restored.get(*scope).cloned().unwrap_or_default();
            Some(RemovedEntry { scope: *scope, added_at: *self.ceiling.get(*scope)?, restored })
        };
        let displaced = removed.iter().filter_map(entry).collect();
        let after = Self { ceiling, restored, ..self.clone() };
        Edit { after, removed, displaced, ..Edit::none(self) }
    }

    /// The scopes that block the undo of a restriction: scopes that the removed ones imply and that
    /// a later restriction removed, unless that one was undone. Without an implied scope, the
    /// implying scope cannot be in the ceiling (D1).
    #[must_use]
    pub fn blocked_by_later_restriction(
        &self,
        catalog: &Catalog,
        removed_entries: &[RemovedEntry],
        at: Revision,
    ) -> Vec<ScopeId> {
        let scopes: Vec<_> = removed_entries.iter().map(|entry| entry.scope).collect();
        let mut below = catalog.closure(&scopes);
        below.retain(|scope| {
            let reactivated = scopes.contains(scope);
            let stayed = self.ceiling.get(*scope).is_some_and(|added_at| *added_at <= at);
            // No two changes share a revision: `from`, where a scope was added, is never `at`.
            let covers = |range: &RestoredRange| range.from < at && at <= range.to;
            let undone = self.restored.get(*scope).is_some_and(|all| all.iter().any(covers));
            !reactivated && !stayed && !undone
        });
        below
    }

    /// Reactivates the grants that were active when a restriction removed these entries at that
    /// revision (D3). Their scopes must be in the ceiling again.
    #[must_use]
    pub fn restore(&self, removed_entries: &[RemovedEntry], at: Revision) -> Edit<Self> {
        let mut edit = Edit::none(self);
        let mut all: Vec<_> = self.restored.iter().map(|(s, w)| (s, w.clone())).collect();
        for entry in removed_entries {
            let mut ranges = self.restored.get(entry.scope).cloned().unwrap_or_default();
            let last = RestoredRange { from: entry.added_at, to: at };
            let before = ranges.len();
            for range in entry.restored.iter().copied().chain([last]) {
                if !ranges.contains(&range) {
                    ranges.push(range);
                }
            }
            if ranges.len() > before {
                edit.added.push(entry.scope);
                all.insert(0, (entry.scope, ranges));
            }
        }
        edit.added.sort();
        // The first entry of a scope wins: the longer one.
        edit.after.restored = all.into_iter().collect();
        edit
    }

    /// Whether a grant of a scope, made at this revision, counts under the ceiling: the scope has
    /// been in it since before the grant, or the grant was reactivated.
    #[must_use]
    pub fn admits(&self, scope: ScopeId, granted_at: Revision) -> bool {
        let Some(added_at) = self.ceiling.get(scope) else { return false };
        // `to` is the revision of a restriction, so no grant has it.
        let reactivated = |range: &RestoredRange| range.from <= granted_at && granted_at < range.to;
        granted_at >= *added_at
            || self.restored.get(scope).is_some_and(|w| w.iter().any(reactivated))
    }

    /// Changes the fields that are `Some`.
    #[must_use]
    pub fn update(&self, display_name: Option<String>, enabled: Option<bool>) -> Edit<Self> {
        let mut edit = Edit::none(self);
        if let Some(name) = display_name {
            edit.fields.extend(FieldChange::text("display_name", &self.display_name, &name));
            edit.after.display_name = name;
        }
        if let Some(enabled) = enabled {
            edit.fields.extend(FieldChange::flag("enabled", self.enabled, enabled));
            edit.after.enabled = enabled;
        }
        edit
    }

    /// The edit of its deletion: everything that the company had.
    #[must_use]
    pub fn delete(&self, catalog: &Catalog) -> Edit<Self> {
        let mut edit = Edit::none(self);
        edit.fields.extend(FieldChange::gone_text("display_name", &self.display_name));
        edit.fields.push(FieldChange::gone_flag("enabled", self.enabled));
        edit.removed = self.known(catalog).map(|(scope, _)| scope).collect();
        edit
    }

    /// The company with its scopes by name.
    #[must_use]
    pub fn view(&self, catalog: &Catalog) -> CompanyView {
        let mut ceiling: Vec<_> = self
            .ceiling
            .iter()
            .filter_map(|(scope, at)| Some((catalog.name(scope)?.clone(), *at)))
            .collect();
        ceiling.sort();
        CompanyView { company: self.clone(), ceiling }
    }

    /// The entries of the ceiling whose scopes are in the catalog (D2).
    fn known<'a>(&'a self, catalog: &'a Catalog) -> impl Iterator<Item = (ScopeId, Revision)> + 'a {
        self.ceiling
            .iter()
            .filter(|(scope, _)| catalog.name(*scope).is_some())
            .map(|(scope, at)| (scope, *at))
    }
}

impl Stamped for ImpactRevision {
    fn stamp(&mut self, revision: Revision, _: Timestamp) {
        self.revision = revision;
    }
}

impl Stamped for Company {
    fn stamp(&mut self, revision: Revision, time: Timestamp) {
        if self.created_at == Revision::NEXT {
            self.create_time = time;
        }
        self.created_at = self.created_at.or_assigned(revision);
        self.revision = revision;
        self.update_time = time;
        for added_at in self.ceiling.values_mut() {
            *added_at = added_at.or_assigned(revision);
        }
    }
}
