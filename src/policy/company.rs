//! Company: a tenant, and the ceiling of what its credentials can have at all.

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
    /// For people.
    pub display_name: String,
    /// False denies every check of the company.
    pub enabled: bool,
    /// What its credentials can have at all.
    pub ceiling: Ceiling,
    /// Grants older than their scope's place that count all the same. One entry a scope, so that
    /// waking a million grants is one small write.
    pub restored: ScopeMap<Vec<RestoredRange>>,
    /// Its birth. Everything that belongs to it is kept under this number and not under its
    /// id, so that a later company of the same id finds nothing (D3).
    pub created_at: Revision,
    /// Its last change.
    pub revision: Revision,
    /// When it was created.
    pub create_time: Timestamp,
    /// When it was last changed.
    pub update_time: Timestamp,
}

/// A company as people and clients see it: scopes by name, those of the catalog only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompanyView {
    /// The company.
    pub company: Company,
    /// The ceiling by name, sorted.
    pub ceiling: Vec<(Scope, Revision)>,
}

impl Company {
    /// A new company with these scopes and all that they imply, or, if none are named, with
    /// every scope of the catalog (D4).
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

    /// Adds scopes, and all that they imply, to the ceiling. What is there keeps its stamp (D3).
    #[must_use]
    pub fn add_scopes(&self, catalog: &Catalog, scopes: &[ScopeId]) -> Edit<Self> {
        let mut added = catalog.closure(scopes);
        added.retain(|scope| !self.ceiling.contains(*scope));
        let fresh = added.iter().map(|scope| (*scope, Revision::NEXT));
        let ceiling = self.known(catalog).chain(fresh).collect();
        Edit { after: Self { ceiling, ..self.clone() }, added, ..Edit::none(self) }
    }

    /// Takes scopes, and all that imply them, from the ceiling (D1, D6).
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
        let restored = restored.map(|(scope, windows)| (scope, windows.clone())).collect();
        let place = |scope: &ScopeId| {
            let restored = self.restored.get(*scope).cloned().unwrap_or_default();
            Some(RemovedEntry { scope: *scope, added_at: *self.ceiling.get(*scope)?, restored })
        };
        let displaced = removed.iter().filter_map(place).collect();
        let after = Self { ceiling, restored, ..self.clone() };
        Edit { after, removed, displaced, ..Edit::none(self) }
    }

    /// The scopes without which none of these places may be restored: those that they imply and
    /// that a later restriction took, unless that one was undone. Whoever lost what a scope
    /// implies has lost the scope (D1).
    #[must_use]
    pub fn blocked_by_later_restriction(
        &self,
        catalog: &Catalog,
        taken: &[RemovedEntry],
        at: Revision,
    ) -> Vec<ScopeId> {
        let scopes: Vec<_> = taken.iter().map(|place| place.scope).collect();
        let mut below = catalog.closure(&scopes);
        below.retain(|scope| {
            let woken = scopes.contains(scope);
            let stayed = self.ceiling.get(*scope).is_some_and(|added_at| *added_at <= at);
            // No two changes share a revision: `from`, where a scope was added, is never `at`.
            let covers = |window: &RestoredRange| window.from < at && at <= window.to;
            let undone = self.restored.get(*scope).is_some_and(|all| all.iter().any(covers));
            !woken && !stayed && !undone
        });
        below
    }

    /// Wakes the grants that were active when these places were taken from the ceiling, at that
    /// revision (D3). Their scopes must be in it again.
    #[must_use]
    pub fn restore(&self, taken: &[RemovedEntry], at: Revision) -> Edit<Self> {
        let mut edit = Edit::none(self);
        let mut all: Vec<_> = self.restored.iter().map(|(s, w)| (s, w.clone())).collect();
        for place in taken {
            let mut windows = self.restored.get(place.scope).cloned().unwrap_or_default();
            let last = RestoredRange { from: place.added_at, to: at };
            let before = windows.len();
            for window in place.restored.iter().copied().chain([last]) {
                if !windows.contains(&window) {
                    windows.push(window);
                }
            }
            if windows.len() > before {
                edit.added.push(place.scope);
                all.insert(0, (place.scope, windows));
            }
        }
        edit.added.sort();
        // The first entry of a scope stays: the longer one.
        edit.after.restored = all.into_iter().collect();
        edit
    }

    /// Whether a grant of a scope, made at this revision, is under the ceiling: the scope is in
    /// it since before the grant, or the grant was woken.
    #[must_use]
    pub fn admits(&self, scope: ScopeId, granted_at: Revision) -> bool {
        let Some(added_at) = self.ceiling.get(scope) else { return false };
        // `to` is a restriction's revision, and so no grant's.
        let woken = |window: &RestoredRange| window.from <= granted_at && granted_at < window.to;
        granted_at >= *added_at || self.restored.get(scope).is_some_and(|w| w.iter().any(woken))
    }

    /// Changes what is `Some`.
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

    /// Everything of it that ends with its deletion.
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

    /// The ceiling as far as the catalog still has it (D2).
    fn known<'a>(&'a self, catalog: &'a Catalog) -> impl Iterator<Item = (ScopeId, Revision)> + 'a {
        self.ceiling
            .iter()
            .filter(|(scope, _)| catalog.name(*scope).is_some())
            .map(|(scope, at)| (scope, *at))
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
