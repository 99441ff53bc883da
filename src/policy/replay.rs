//! Replay: the facts of one check at a past revision, computed from the changes up to it (D18).
//!
//! The change log contains every commit. Applying it in order up to a revision yields the facts at
//! that revision, and the evaluator then decides as it decided at that time. The log does not
//! contain the text of a catalog; the caller supplies it, and [`requirement_changed`] tells whether
//! a later change of the catalog matters to the check.
//!
//! Not here: how the changes are read, and which of them were removed. The file is longer than most
//! because one state machine applies every kind of change.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::catalog::file::{CatalogErrors, CatalogFile};
use super::catalog::rename::RenamedScope;
use super::catalog::{Catalog, ScopeIdMap};
use super::ceiling::RemovedEntry;
use super::change::{Change, ChangeKind, FieldChange};
use super::company::Company;
use super::consent::{Consent, Parties};
use super::credential::{Credential, Grant};
use super::decision::Facts;
use super::query::{Query, Requirement};
use super::revision::Revision;
use super::scope::{Scope, ScopeId, ScopeMap};
use super::token::own::TokenEpoch;
use super::token::revoked::RevokedTokens;
use super::user::User;

/// A change has a field that this version cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the change of revision {revision} has a value of `{field}` that this version cannot read")]
pub struct Unreadable {
    /// The change's revision.
    pub revision: Revision,
    /// The field.
    pub field: String,
}

/// The facts of one check, at the revision of the last applied change.
#[derive(Clone, Debug)]
pub struct Replay {
    query: Query,
    /// The ids of the catalog's scopes. A scope that returns gets another id, as in a store (D2).
    scope_ids: ScopeIdMap,
    last_id: u32,
    company: Option<Company>,
    credential: Option<Credential>,
    user: Option<User>,
    consent: Option<Consent>,
    /// The entries that each restriction of the company removed, by its revision.
    removed_entries: BTreeMap<Revision, Vec<RemovedEntry>>,
    /// Whether all changes of the company were read.
    complete: bool,
}

impl Replay {
    /// The state before the first change, for this check. `from_first_change` tells that the log is
    /// complete from its first change.
    #[must_use]
    pub fn of(query: &Query, from_first_change: bool) -> Self {
        Self {
            query: query.clone(),
            scope_ids: ScopeIdMap::default(),
            last_id: 0,
            company: None,
            credential: None,
            user: None,
            consent: None,
            removed_entries: BTreeMap::new(),
            complete: from_first_change,
        }
    }

    /// Whether a change concerns the facts of the check: its company, credential, user or consent,
    /// or the catalog. Decisions do not depend on secrets and keys.
    #[must_use]
    pub fn is_concerned(query: &Query, change: &Change) -> bool {
        use ChangeKind::*;
        let company = change.company.is_some() && change.company.as_ref() == query.company();
        let credential = company
            && change.credential.is_some()
            && change.credential.as_ref() == query.credential();
        let user_id = query.on_behalf_of();
        let user = company && user_id.is_some() && change.user.as_ref() == user_id;
        match change.kind {
            ApplyCatalog => true,
            CreateCompany
            | UpdateCompany
            | DeleteCompany
            | AddCompanyScopes
            | RestrictCompanyScopes
            | RestoreGrants => company,
            CreateCredential | UpdateCredential | DeleteCredential | GrantScopes | RevokeScopes
            | ReplaceScopes | ResetScopes => credential,
            PutUser | DeleteUser => user,
            PutConsent | CreateAuthorizationCode | DeleteConsent => credential && user,
            // Decisions on stated facts do not depend on what ends the tokens that scopegate verifies.
            CreateSecret
            | DeleteSecret
            | CreateKey
            | DeleteKey
            | RevokeToken
            | RevokeTokens
            | RedeemAuthorizationCode
            | RotateSigningKey
            | DeleteSigningKey
            | RestoreBackup
            | AcceptClock => false,
        }
    }

    /// Whether the facts are those of the store. They are not if the log begins after the company
    /// was created.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.complete
    }

    /// Applies the next change. Changes must come in order; other changes than the concerned ones
    /// have no effect.
    ///
    /// # Errors
    /// The change has a field that this version cannot read.
    pub fn take(&mut self, change: &Change) -> Result<(), Unreadable> {
        if !Self::is_concerned(&self.query, change) {
            return Ok(());
        }
        use ChangeKind::*;
        match change.kind {
            ApplyCatalog => {
                for scope in &change.removed {
                    self.scope_ids.remove(scope);
                }
                self.rename(change)?;
                change.added.iter().for_each(|scope| {
                    self.scope_id(scope);
                });
            }
            CreateCompany => self.create_company(change)?,
            UpdateCompany | AddCompanyScopes | RestrictCompanyScopes => {
                self.change_company(change)?;
            }
            RestoreGrants => self.restore(change)?,
            DeleteCompany => {
                (self.company, self.credential, self.user, self.consent) = (None, None, None, None);
                self.removed_entries.clear();
                self.complete = true;
            }
            CreateCredential => self.create_credential(change)?,
            UpdateCredential | GrantScopes | RevokeScopes | ReplaceScopes | ResetScopes => {
                self.change_credential(change)?;
            }
            DeleteCredential => (self.credential, self.consent) = (None, None),
            PutUser => self.put_user(change)?,
            DeleteUser => (self.user, self.consent) = (None, None),
            PutConsent | CreateAuthorizationCode => self.put_consent(change),
            DeleteConsent => self.consent = None,
            // Decisions do not depend on these.
            CreateSecret
            | DeleteSecret
            | CreateKey
            | DeleteKey
            | RevokeToken
            | RevokeTokens
            | RedeemAuthorizationCode
            | RotateSigningKey
            | DeleteSigningKey
            | RestoreBackup
            | AcceptClock => {}
        }
        Ok(())
    }

    /// The catalog of this text, with the scope ids of the facts.
    ///
    /// # Errors
    /// The text is not a catalog.
    pub fn catalog(&self, yaml: &str) -> Result<Catalog, CatalogErrors> {
        let file = CatalogFile::parse_stored(yaml)?;
        let (mut scope_ids, mut last) = (ScopeIdMap::default(), self.last_id);
        for scope in file.scopes.keys() {
            let id = self.scope_ids.get(scope).copied().unwrap_or_else(|| {
                last = last.saturating_add(1);
                ScopeId(last)
            });
            scope_ids.insert(scope.clone(), id);
        }
        Catalog::from_stored(yaml, scope_ids, last, Revision::ZERO)
    }

    /// The scopes of the catalog that changes have named; sorted.
    #[must_use]
    pub fn scopes(&self) -> Vec<&Scope> {
        let mut scopes: Vec<_> = self.scope_ids.keys().collect();
        scopes.sort();
        scopes
    }

    /// The facts of a decision at this time.
    #[must_use]
    pub fn facts<'a>(&'a self, catalog: &'a Catalog, now: Timestamp) -> Facts<'a> {
        Facts {
            catalog,
            company: self.company.as_ref(),
            credential: self.credential.as_ref(),
            user: self.user.as_ref(),
            ambiguous_subject: false,
            tokens: TokenEpoch::default(),
            consent: self.consent.as_ref(),
            now,
        }
    }

    /// The times at which the decision may change without a change of facts: something expires, or
    /// becomes valid.
    #[must_use]
    pub fn turns(&self, catalog: &Catalog) -> Vec<Timestamp> {
        let credential = self.credential.iter();
        let mut times: Vec<_> = credential.flat_map(Credential::ends).collect();
        if let Some(token) = self.query.token_facts() {
            times.extend(token.begins(catalog));
            times.extend(token.ends(catalog));
        }
        times.sort();
        times.dedup();
        times
    }

    /// The scope's id; a new one if no change has named the scope yet.
    fn scope_id(&mut self, scope: &Scope) -> ScopeId {
        if let Some(id) = self.scope_ids.get(scope) {
            return *id;
        }
        self.last_id = self.last_id.saturating_add(1);
        let id = ScopeId(self.last_id);
        self.scope_ids.insert(scope.clone(), id);
        id
    }

    /// A renamed scope keeps its id (D2).
    fn rename(&mut self, change: &Change) -> Result<(), Unreadable> {
        let mut kept = Vec::new();
        for scope in renamed(change)? {
            if let Some(id) = self.scope_ids.remove(&scope.old) {
                kept.push((scope.new, id));
            }
        }
        self.scope_ids.extend(kept);
        Ok(())
    }

    fn all_scope_ids(&mut self, scopes: &[Scope]) -> Vec<ScopeId> {
        scopes.iter().map(|scope| self.scope_id(scope)).collect()
    }

    fn create_company(&mut self, change: &Change) -> Result<(), Unreadable> {
        let added = self.all_scope_ids(&change.added);
        let Some(id) = self.query.company().cloned() else { return Ok(()) };
        let company = Company {
            id,
            display_name: String::new(),
            enabled: true,
            ceiling: added.into_iter().map(|scope| (scope, change.revision)).collect(),
            restored: ScopeMap::default(),
            created_at: change.revision,
            revision: change.revision,
            create_time: change.time,
            update_time: change.time,
        };
        (self.company, self.complete) = (Some(company), true);
        (self.credential, self.user, self.consent) = (None, None, None);
        self.change_company(&Change { added: vec![], ..change.clone() })
    }

    fn change_company(&mut self, change: &Change) -> Result<(), Unreadable> {
        let (added, removed) =
            (self.all_scope_ids(&change.added), self.all_scope_ids(&change.removed));
        let Some(company) = &mut self.company else { return Ok(()) };
        for field in fields(change, "enabled") {
            company.enabled = flag(change, field)?;
        }
        let entry = |scope: &ScopeId| {
            let restored = company.restored.get(*scope).cloned().unwrap_or_default();
            Some(RemovedEntry { scope: *scope, added_at: *company.ceiling.get(*scope)?, restored })
        };
        self.removed_entries.insert(change.revision, removed.iter().filter_map(entry).collect());
        let fresh = added.into_iter().map(|scope| (scope, change.revision));
        company.ceiling = without(&company.ceiling, &removed).chain(fresh).collect();
        company.restored = without(&company.restored, &removed).collect();
        Ok(())
    }

    fn restore(&mut self, change: &Change) -> Result<(), Unreadable> {
        let reactivated = self.all_scope_ids(&change.added);
        let Some(company) = &mut self.company else { return Ok(()) };
        for field in fields(change, "restricted_at_revision") {
            let at = field.after.trim_matches('"').parse().map(Revision);
            let at = at.map_err(|_| unreadable(change, field))?;
            let removed_entries = self.removed_entries.get(&at).into_iter().flatten();
            let removed_entries: Vec<_> =
                removed_entries.filter(|p| reactivated.contains(&p.scope)).cloned().collect();
            *company = company.restore(&removed_entries, at).after;
        }
        Ok(())
    }

    fn create_credential(&mut self, change: &Change) -> Result<(), Unreadable> {
        let Some(company) = &self.company else { return Ok(()) };
        let Some(id) = self.query.credential().cloned() else { return Ok(()) };
        self.credential = Some(Credential {
            id,
            company: company.created_at,
            label: String::new(),
            enabled: true,
            expires_at: None,
            grants: ScopeMap::default(),
            secrets: vec![],
            redirect_uris: [].into(),
            revoked_tokens: RevokedTokens::default(),
            created_at: change.revision,
            revision: change.revision,
            create_time: change.time,
            update_time: change.time,
        });
        self.consent = None;
        self.change_credential(change)
    }

    fn change_credential(&mut self, change: &Change) -> Result<(), Unreadable> {
        let (added, removed) =
            (self.all_scope_ids(&change.added), self.all_scope_ids(&change.removed));
        let Some(credential) = &mut self.credential else { return Ok(()) };
        for field in fields(change, "enabled") {
            credential.enabled = flag(change, field)?;
        }
        for field in fields(change, "expires_at") {
            credential.expires_at = moment(change, field)?;
        }
        // A grant that is made new keeps its expiry, unless the change has another.
        let regranted = |scope: ScopeId| {
            let expires_at = credential.grants.get(scope).and_then(|grant| grant.expires_at);
            (scope, Grant { granted_at: change.revision, expires_at })
        };
        let made: Vec<_> = added.into_iter().map(regranted).collect();
        // The first entry of a scope stays.
        let kept = without(&credential.grants, &removed);
        let mut grants: ScopeMap<Grant> = made.into_iter().chain(kept).collect();
        for field in &change.fields {
            let scope = field.field.strip_prefix("grants[");
            let scope = scope.and_then(|rest| rest.strip_suffix("].expires_at"));
            let Some(scope) = scope else { continue };
            let end = moment(change, field)?;
            let changed = self.scope_ids.get(scope).copied();
            let moved = grants.iter().map(|(id, grant)| match Some(id) == changed {
                true => (id, Grant { expires_at: end, ..*grant }),
                false => (id, *grant),
            });
            grants = moved.collect();
        }
        credential.grants = grants;
        Ok(())
    }

    fn put_user(&mut self, change: &Change) -> Result<(), Unreadable> {
        let (Some(company), Some(id)) = (&self.company, &change.user) else { return Ok(()) };
        let mut roles = self.user.as_ref().map(|user| user.roles.clone()).unwrap_or_default();
        for field in fields(change, "roles") {
            let names = list(&field.after).ok_or_else(|| unreadable(change, field))?;
            let names = names.map(super::id::Name::parse).collect::<Result<_, _>>();
            roles = names.map_err(|_| unreadable(change, field))?;
        }
        let created_at = self.user.as_ref().map_or(change.revision, |user| user.created_at);
        let (id, company, revision) = (id.clone(), company.created_at, change.revision);
        self.user = Some(User { id, company, roles, created_at, revision });
        Ok(())
    }

    fn put_consent(&mut self, change: &Change) {
        let (added, removed) =
            (self.all_scope_ids(&change.added), self.all_scope_ids(&change.removed));
        let parties = self.company.as_ref().zip(self.credential.as_ref()).zip(self.user.as_ref());
        let Some(((company, credential), user)) = parties else { return };
        let of = Parties {
            company: company.created_at,
            user: user.created_at,
            credential: credential.created_at,
        };
        let before = self.consent.iter().flat_map(|consent| without(&consent.scopes, &removed));
        let scopes = added.into_iter().map(|scope| (scope, ())).chain(before).collect();
        self.consent = Some(Consent { of, scopes, revision: change.revision });
    }
}

/// Whether a change of the catalog may change the requirement of this check. Changes of other
/// scopes, endpoints and roles cannot.
#[must_use]
pub fn requirement_changed(query: &Query, change: &Change) -> bool {
    if change.kind != ChangeKind::ApplyCatalog {
        return false;
    }
    let has_field = |field: &str| fields(change, field).next().is_some();
    // An implication acts through other scopes, if roles or a token are closed under it.
    let is_closed = query.token.is_some() || query.on_behalf_of().is_some();
    let named: Vec<_> =
        fields(change, "scopes").flat_map(|field| scope_names(&field.after)).collect();
    // Both names of a renamed scope count: one of them is not in today's catalog.
    let Ok(renamed) = renamed(change) else { return true };
    let moved = |scope: &Scope| {
        change.added.contains(scope)
            || change.removed.contains(scope)
            || named.contains(&scope.as_str())
            || renamed.iter().any(|pair| pair.old == *scope || pair.new == *scope)
    };
    let in_token = query.token_facts().into_iter().flat_map(|token| &token.scopes).any(moved);
    let needs = match &query.needs {
        Requirement::Scopes(scopes) => scopes.iter().any(moved),
        // The requirement is the endpoint's or the rule's, and the log does not contain its scopes at that
        // time.
        Requirement::Endpoint { .. } | Requirement::Template { .. } | Requirement::Resource(_) => {
            has_field("endpoints")
                || has_field("resources")
                || !named.is_empty()
                || !change.removed.is_empty()
                || !renamed.is_empty()
        }
    };
    needs
        || in_token
        || has_field("audiences")
        || (is_closed && (has_field("roles") || !named.is_empty()))
}

/// The scopes that a change of the catalog renamed.
fn renamed(change: &Change) -> Result<Vec<RenamedScope>, Unreadable> {
    let mut all = Vec::new();
    for field in fields(change, "renamed_scopes") {
        for pair in scope_names(&field.after) {
            all.push(RenamedScope::parse(pair).ok_or_else(|| unreadable(change, field))?);
        }
    }
    Ok(all)
}

/// The names of a JSON list. No name has a quote, a comma or a backslash.
fn list(text: &str) -> Option<impl Iterator<Item = &str>> {
    let inside = text.strip_prefix('[')?.strip_suffix(']')?;
    Some(inside.split(',').filter(|name| !name.is_empty()).map(|name| name.trim_matches('"')))
}

/// The scopes of a list in a change of the catalog: a JSON text of names, separated by commas and
/// spaces. No scope has a space, a quote or a backslash.
fn scope_names(text: &str) -> Vec<&str> {
    text.trim_matches('"').split(", ").collect()
}

fn without<'a, V: Clone>(
    set: &'a ScopeMap<V>,
    gone: &'a [ScopeId],
) -> impl Iterator<Item = (ScopeId, V)> + 'a {
    let stays = |(scope, _): &(ScopeId, &V)| !gone.contains(scope);
    set.iter().filter(stays).map(|(scope, value)| (scope, value.clone()))
}

fn fields<'a>(change: &'a Change, name: &'a str) -> impl Iterator<Item = &'a FieldChange> {
    change.fields.iter().filter(move |field| field.field == name)
}

fn unreadable(change: &Change, field: &FieldChange) -> Unreadable {
    Unreadable { revision: change.revision, field: field.field.clone() }
}

fn flag(change: &Change, field: &FieldChange) -> Result<bool, Unreadable> {
    field.after.parse().map_err(|_| unreadable(change, field))
}

fn moment(change: &Change, field: &FieldChange) -> Result<Option<Timestamp>, Unreadable> {
    if field.after.is_empty() {
        return Ok(None);
    }
    let time = field.after.trim_matches('"').parse().map(Some);
    time.map_err(|_| unreadable(change, field))
}
