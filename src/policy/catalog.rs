//! Catalog: all that exists on the platform. Scopes and what they imply, audiences, roles,
//! endpoints, and the issuers of tokens that it trusts. Versioned, applied as one.
//!
//! Not here: ceilings, grants and consents. A catalog change never widens them (D2): they hold
//! [`ScopeId`]s, and an id that has been assigned to a scope is never assigned to another.

mod audience;
pub mod difference;
pub mod endpoint;
pub mod file;
pub mod issuer;
pub mod rename;
mod required_scopes;
pub mod resource;
pub mod schema;
mod upgrade;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use foldhash::fast::RandomState;
use jiff::Timestamp;

pub use self::audience::{Audience, AudienceError, MAX_TOKEN_TTL, ResolvedAudience, TOKEN_TTL};
use self::endpoint::{RequestPath, Template};
use self::file::CatalogFile;
use self::issuer::Issuer;
use self::resource::ResourceType;
use super::edit::Stamped;
use super::id::Name;
use super::revision::Revision;
use super::scope::{Scope, ScopeId, ScopeMap};
use super::suggestion;

/// The id of each scope. Only an operator adds names, so a hash without protection against
/// collisions by an attacker is enough.
pub type ScopeIdMap = HashMap<Scope, ScopeId, RandomState>;

/// A catalog in force, or about to be.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// The revision that last changed it.
    pub revision: Revision,
    /// The file as it was applied.
    pub yaml: String,
    /// The digest of the last file applied at a start, if any was.
    pub file_digest: Option<[u8; 32]>,
    /// The file's parts.
    file: CatalogFile,
    ids: ScopeIdMap,
    scopes: HashMap<ScopeId, ScopeNode, RandomState>,
    /// The permissions of each role, closed under implication (D1).
    roles: HashMap<Name, ScopeMap<Reach>>,
    /// The issuers by name and by alias. Only an operator adds them, as [`ScopeIdMap`] says.
    issuers: HashMap<Box<str>, Arc<Issuer>, RandomState>,
    last_id: u32,
}

/// A scope as the catalog knows it.
#[derive(Clone, Debug)]
struct ScopeNode {
    name: Scope,
    implies: Vec<ScopeId>,
    implied_by: Vec<ScopeId>,
    /// `None`: the scope belongs to every audience (D16).
    audiences: Option<BTreeSet<Name>>,
}

/// How far a role's permission reaches (D17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// The user's own records only.
    Own,
    /// All records.
    All,
}

/// The permissions of a role, as the file lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleEntry {
    /// The scopes and how far each reaches.
    pub scopes: BTreeMap<Scope, Reach>,
}

impl Stamped for Catalog {
    fn stamp(&mut self, revision: Revision, _: Timestamp) {
        self.revision = revision;
    }
}

impl Catalog {
    /// The catalog of a new store: it has no scopes, audiences, roles or endpoints.
    #[must_use]
    pub fn empty() -> Self {
        Self::build(String::new(), CatalogFile::default(), ScopeIdMap::default(), 0, Revision::ZERO)
    }

    /// The digest of a catalog with this text.
    #[must_use]
    pub fn digest(yaml: &str) -> blake3::Hash {
        blake3::hash(yaml.as_bytes())
    }

    /// Parses a catalog file that is to replace this catalog. A scope that stays keeps its id, a
    /// renamed scope keeps the id of its old name, and a new scope gets an unused id (D2). An issuer whose
    /// entry is the same is shared.
    ///
    /// # Errors
    /// Every problem of the file, each with line and column.
    pub fn replaced_by(&self, yaml: &str) -> Result<Self, file::CatalogErrors> {
        let mut file = CatalogFile::parse(yaml)?;
        for (name, issuer) in &mut file.issuers {
            if let Some(same) = self.file.issuers.get(name).filter(|old| **old == *issuer) {
                *issuer = Arc::clone(same);
            }
        }
        rename::check_merges(&file.renames, &self.ids)?;
        let mut last_id = self.last_id;
        let mut ids =
            ScopeIdMap::with_capacity_and_hasher(file.scopes.len(), RandomState::default());
        for name in file.scopes.keys() {
            let old_name = file.renames.get(name).map(|rename| &rename.old);
            let kept = self.ids.get(name).or_else(|| self.ids.get(old_name?));
            let id = match kept {
                Some(id) => *id,
                None => {
                    last_id = u32::checked_add(last_id, 1)
                        .ok_or_else(file::CatalogErrors::ids_exhausted)?;
                    ScopeId(last_id)
                }
            };
            ids.insert(name.clone(), id);
        }
        let next = Self::build(yaml.to_owned(), file, ids, last_id, Revision::NEXT);
        Ok(Self { file_digest: self.file_digest, ..next })
    }

    /// A catalog from the store: the file, the ids of its scopes, and the last id that was ever
    /// assigned.
    ///
    /// # Errors
    /// Every problem of the file. A file that was applied has none.
    pub fn from_stored(
        yaml: &str,
        ids: ScopeIdMap,
        last_id: u32,
        revision: Revision,
    ) -> Result<Self, file::CatalogErrors> {
        Ok(Self::build(yaml.to_owned(), CatalogFile::parse_stored(yaml)?, ids, last_id, revision))
    }

    /// A catalog from the text that a server has in force. Its scope ids differ from the server's.
    ///
    /// # Errors
    /// Every problem of the text. A text that was applied has none.
    pub fn parse_stored(yaml: &str) -> Result<Self, file::CatalogErrors> {
        if yaml.is_empty() {
            return Ok(Self::empty());
        }
        let file = CatalogFile::parse_stored(yaml)?;
        let ids: ScopeIdMap =
            (1..).map(ScopeId).zip(file.scopes.keys()).map(|(id, s)| (s.clone(), id)).collect();
        let last = u32::try_from(ids.len()).map_err(|_| file::CatalogErrors::ids_exhausted())?;
        Ok(Self::build(yaml.to_owned(), file, ids, last, Revision::ZERO))
    }

    fn build(
        yaml: String,
        file: CatalogFile,
        ids: ScopeIdMap,
        last_id: u32,
        revision: Revision,
    ) -> Self {
        let mut scopes: HashMap<ScopeId, ScopeNode, RandomState> =
            HashMap::with_capacity_and_hasher(ids.len(), RandomState::default());
        let mut implied_by: HashMap<ScopeId, Vec<ScopeId>> = HashMap::new();
        for (name, entry) in &file.scopes {
            let Some(id) = ids.get(name).copied() else {
                continue;
            };
            let implies: Vec<_> =
                entry.implies.iter().filter_map(|s| ids.get(s).copied()).collect();
            for implied in &implies {
                implied_by.entry(*implied).or_default().push(id);
            }
            let audiences = entry.audiences.clone();
            scopes.insert(
                id,
                ScopeNode { name: name.clone(), implies, implied_by: vec![], audiences },
            );
        }
        for (id, by) in implied_by {
            if let Some(entry) = scopes.get_mut(&id) {
                entry.implied_by = by;
            }
        }
        let spellings = file.issuers.values().flat_map(|issuer| {
            let all = [&issuer.name].into_iter().chain(&issuer.aliases);
            all.map(|spelling| (spelling.clone(), Arc::clone(issuer)))
        });
        let issuers = spellings.collect();
        let mut catalog = Self {
            revision,
            yaml,
            file_digest: None,
            file,
            ids,
            scopes,
            roles: HashMap::new(),
            issuers,
            last_id,
        };
        let roles = catalog.file.roles.iter();
        catalog.roles =
            roles.map(|(name, role)| (name.clone(), catalog.expand_role(role))).collect();
        catalog
    }

    /// The permissions of a role with all implied scopes, each with the reach of the role's scope.
    fn expand_role(&self, role: &RoleEntry) -> ScopeMap<Reach> {
        let reaching = |reach| {
            let scopes = role.scopes.iter().filter(move |(_, r)| **r == reach);
            let scopes: Vec<_> = scopes.filter_map(|(scope, _)| self.id(scope)).collect();
            self.closure(&scopes).into_iter().map(move |scope| (scope, reach))
        };
        // The first entry of a scope stays: the wider reach.
        reaching(Reach::All).chain(reaching(Reach::Own)).collect()
    }

    /// The permissions of each of these roles, closed under implication. A role that the catalog lacks
    /// permits nothing (D2).
    #[must_use]
    pub fn role_permissions(&self, roles: &[Name]) -> Vec<&ScopeMap<Reach>> {
        roles.iter().filter_map(|role| self.roles.get(role)).collect()
    }

    /// Whether any audience of the catalog requires consent.
    #[must_use]
    pub fn requires_consent(&self) -> bool {
        self.file.audiences.values().any(|audience| audience.consent_required)
    }

    /// The names of the audiences, sorted.
    pub fn audience_names(&self) -> impl Iterator<Item = &Name> {
        self.file.audiences.keys()
    }

    /// Whether an audience lets credentials exchange tokens by this scope (T33).
    #[must_use]
    pub fn is_for_exchange(&self, scope: &Scope) -> bool {
        self.file.audiences.values().any(|audience| audience.exchange.as_ref() == Some(scope))
    }

    /// The ages, in seconds, that tokens may have for the audiences that bound them.
    pub fn max_token_ages(&self) -> impl Iterator<Item = u32> + '_ {
        self.file.audiences.values().filter_map(|audience| audience.max_token_age)
    }

    /// How far ahead, in seconds, each audience lets tokens be issued.
    pub fn clock_skews(&self) -> impl Iterator<Item = u32> + '_ {
        self.file.audiences.values().map(|audience| audience.clock_skew)
    }

    /// The platform's name.
    #[must_use]
    pub fn platform(&self) -> &str {
        &self.file.name
    }

    /// The id of a scope, if the catalog has it.
    #[must_use]
    pub fn id(&self, scope: &Scope) -> Option<ScopeId> {
        self.ids.get(scope).copied()
    }

    /// The scope that was probably meant by one that the catalog lacks.
    #[must_use]
    pub fn nearest_scope(&self, unknown: &Scope) -> Option<&Scope> {
        let names = self.scopes.values().map(|entry| entry.name.as_str());
        let near = suggestion::nearest(unknown.as_str(), names)?;
        self.ids.get_key_value(near).map(|(scope, _)| scope)
    }

    /// A sentence for each of these roles that the catalog lacks (D2).
    #[must_use]
    pub fn missing_roles(&self, roles: &[Name]) -> Vec<String> {
        let missing = roles.iter().filter(|role| !self.roles.contains_key(*role));
        let sentence = |role: &Name| {
            let names = self.roles.keys().map(Name::as_str);
            let near = suggestion::nearest(role.as_str(), names);
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            format!("`{role}` is not a role of the catalog, so it permits nothing{near}")
        };
        missing.map(sentence).collect()
    }

    /// The name of a scope id, if the catalog still has the scope.
    #[must_use]
    pub fn name(&self, scope: ScopeId) -> Option<&Scope> {
        self.scopes.get(&scope).map(|entry| &entry.name)
    }

    /// The names of these scopes, sorted.
    #[must_use]
    pub fn names(&self, scopes: &[ScopeId]) -> Vec<Scope> {
        let mut names: Vec<_> = scopes.iter().filter_map(|s| self.name(*s).cloned()).collect();
        names.sort();
        names
    }

    /// Every scope of the catalog.
    pub fn scope_ids(&self) -> impl Iterator<Item = ScopeId> + '_ {
        self.scopes.keys().copied()
    }

    /// The id of every scope, and the last id that was ever assigned. The store keeps both.
    #[must_use]
    pub fn scope_id_map(&self) -> (&ScopeIdMap, u32) {
        (&self.ids, self.last_id)
    }

    /// These scopes and all that they imply (D1), by id.
    #[must_use]
    pub fn closure(&self, scopes: &[ScopeId]) -> Vec<ScopeId> {
        self.reachable(scopes, |entry| &entry.implies)
    }

    /// These scopes and all that imply them (D1), by id.
    #[must_use]
    pub fn implying_closure(&self, scopes: &[ScopeId]) -> Vec<ScopeId> {
        self.reachable(scopes, |entry| &entry.implied_by)
    }

    fn reachable(&self, from: &[ScopeId], edges: fn(&ScopeNode) -> &Vec<ScopeId>) -> Vec<ScopeId> {
        let mut seen: BTreeSet<ScopeId> = BTreeSet::new();
        let mut open = from.to_vec();
        while let Some(scope) = open.pop() {
            if let Some(entry) = self.scopes.get(&scope)
                && seen.insert(scope)
            {
                open.extend(edges(entry));
            }
        }
        seen.into_iter().collect()
    }

    /// Whether a scope belongs to this audience (D16).
    #[must_use]
    pub fn in_audience(&self, scope: ScopeId, audience: ResolvedAudience<'_>) -> bool {
        let Some(entry) = self.scopes.get(&scope) else {
            return false;
        };
        match (&entry.audiences, audience.name) {
            (Some(audiences), Some(name)) => audiences.contains(name),
            _ => true,
        }
    }

    /// The endpoint that a call goes to, if the catalog has one (D20).
    #[must_use]
    pub fn endpoint(&self, method: &str, path: &RequestPath) -> Option<&endpoint::Endpoint> {
        self.file.endpoints.find(method, path)
    }

    /// The endpoint of a template of this shape: the names of its parameters do not matter. `HEAD` is
    /// answered by the endpoint of `GET` where a path of the template would be (D20).
    #[must_use]
    pub fn endpoint_of_template(
        &self,
        method: &str,
        template: &Template,
    ) -> Option<&endpoint::Endpoint> {
        self.file.endpoints.find_template(method, template)
    }

    /// The methods of all endpoints, sorted.
    #[must_use]
    pub fn methods(&self) -> BTreeSet<&str> {
        self.routes().map(|(method, ..)| method).collect()
    }

    /// Every endpoint with its method and its template as the file writes it, sorted by both.
    pub fn routes(&self) -> impl Iterator<Item = (&str, &str, &endpoint::Endpoint)> {
        let all = self.file.endpoints_by_name.iter();
        all.filter_map(|(name, endpoint)| {
            let (method, template) = name.split_once(' ')?;
            Some((method, template, endpoint))
        })
    }

    /// The endpoints of one method with their templates, sorted, those behind a template that is named.
    pub fn routes_of<'a>(
        &'a self,
        method: &'a str,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&'a str, &'a endpoint::Endpoint)> {
        let from = match after {
            Some(after) => Bound::Excluded(format!("{method} {after}")),
            None => Bound::Included(format!("{method} ")),
        };
        let behind = self.file.endpoints_by_name.range((from, Bound::Unbounded));
        behind.map_while(move |(name, endpoint)| {
            let template = name.strip_prefix(method)?.strip_prefix(' ')?;
            Some((template, endpoint))
        })
    }

    /// A type of resources, if the catalog declares it.
    #[must_use]
    pub fn resource_type(&self, name: &str) -> Option<&ResourceType> {
        self.file.resources.get(name)
    }

    /// The types of resources, sorted by name.
    pub fn resource_types(&self) -> impl Iterator<Item = (&Name, &ResourceType)> {
        self.file.resources.iter()
    }

    /// The issuer of tokens with this `iss`, which is its name or one of its aliases (T8).
    #[must_use]
    pub fn issuer(&self, iss: &str) -> Option<&Arc<Issuer>> {
        self.issuers.get(iss)
    }

    /// Every issuer, sorted by name.
    pub fn issuers(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.file.issuers.values()
    }

    /// What this catalog in force decides otherwise than in a version before the present rules for
    /// paths and methods (D20): one sentence for each kind, with the first endpoints of it.
    #[must_use]
    pub fn upgrade_notices(&self) -> Vec<String> {
        upgrade::upgrade_notices(&self.file)
    }
}
