//! Past: the facts of one check as they were, from the changes that led to them (D18).
//!
//! The log says what every commit did, so reading it in order up to a revision gives what was kept
//! at that revision, and the evaluator that decides now decides what was decided then. Only the
//! catalog's text is not in the log; whoever asks brings it, and [`asks_otherwise`] says whether a
//! change of it since then matters to the check.
//!
//! Not here: where the changes come from, and which of them are no longer kept.

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
use super::user::User;

/// A change says what this version cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {revision} says of `{field}` what cannot be read")]
pub struct Unreadable {
    /// The change's revision.
    pub revision: Revision,
    /// What it says that of.
    pub field: String,
}

/// The facts that one check rests on, at the revision of the last change read.
#[derive(Clone, Debug)]
pub struct Replay {
    query: Query,
    /// Scopes of the catalog. A scope that comes back gets another number, as in a store (D2).
    numbers: ScopeIdMap,
    last_number: u32,
    company: Option<Company>,
    credential: Option<Credential>,
    user: Option<User>,
    consent: Option<Consent>,
    /// What each restriction of the company took, by its revision.
    taken: BTreeMap<Revision, Vec<RemovedEntry>>,
    /// Whether all that there was of the company was read.
    whole: bool,
}

impl Replay {
    /// Before the first change that is kept, for a check of this kind. `from_the_first` says that
    /// none was made before that one.
    #[must_use]
    pub fn of(query: &Query, from_the_first: bool) -> Self {
        Self {
            query: query.clone(),
            numbers: ScopeIdMap::default(),
            last_number: 0,
            company: None,
            credential: None,
            user: None,
            consent: None,
            taken: BTreeMap::new(),
            whole: from_the_first,
        }
    }

    /// Whether a change concerns what the check rests on: its company, credential, user or consent,
    /// or the catalog. Secrets and keys decide nothing.
    #[must_use]
    pub fn is_concerned(query: &Query, change: &Change) -> bool {
        use ChangeKind::*;
        let company = change.company.as_ref() == Some(&query.company);
        let credential = company && change.credential.as_ref() == Some(&query.credential);
        let asked = query.on_behalf_of();
        let user = company && asked.is_some() && change.user.as_ref() == asked;
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
            PutConsent | DeleteConsent => credential && user,
            CreateSecret | DeleteSecret | CreateKey | DeleteKey | RestoreBackup | AcceptClock => {
                false
            }
        }
    }

    /// Whether the facts are those of the store. They are not while what is read begins after
    /// the company did.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Reads the next change. Those must come in order; of others than are concerned nothing is
    /// taken.
    ///
    /// # Errors
    /// It says what this version cannot read.
    pub fn take(&mut self, change: &Change) -> Result<(), Unreadable> {
        if !Self::is_concerned(&self.query, change) {
            return Ok(());
        }
        use ChangeKind::*;
        match change.kind {
            ApplyCatalog => {
                for scope in &change.removed {
                    self.numbers.remove(scope);
                }
                self.rename(change)?;
                change.added.iter().for_each(|scope| {
                    self.number(scope);
                });
            }
            CreateCompany => self.create_company(change)?,
            UpdateCompany | AddCompanyScopes | RestrictCompanyScopes => {
                self.change_company(change)?;
            }
            RestoreGrants => self.restore(change)?,
            DeleteCompany => {
                (self.company, self.credential, self.user, self.consent) = (None, None, None, None);
                self.taken.clear();
                self.whole = true;
            }
            CreateCredential => self.create_credential(change)?,
            UpdateCredential | GrantScopes | RevokeScopes | ReplaceScopes | ResetScopes => {
                self.change_credential(change)?;
            }
            DeleteCredential => (self.credential, self.consent) = (None, None),
            PutUser => self.put_user(change)?,
            DeleteUser => (self.user, self.consent) = (None, None),
            PutConsent => self.put_consent(change),
            DeleteConsent => self.consent = None,
            // Nothing that decisions rest on.
            CreateSecret | DeleteSecret | CreateKey | DeleteKey | RestoreBackup | AcceptClock => {}
        }
        Ok(())
    }

    /// A catalog of this text, with the numbers that the facts know its scopes by.
    ///
    /// # Errors
    /// It is no catalog.
    pub fn catalog(&self, yaml: &str) -> Result<Catalog, CatalogErrors> {
        let file = CatalogFile::parse_stored(yaml)?;
        let (mut numbers, mut last) = (ScopeIdMap::default(), self.last_number);
        for scope in file.scopes.keys() {
            let number = self.numbers.get(scope).copied().unwrap_or_else(|| {
                last = last.saturating_add(1);
                ScopeId(last)
            });
            numbers.insert(scope.clone(), number);
        }
        Catalog::from_stored(yaml, numbers, last, Revision::ZERO)
    }

    /// The scopes of the catalog, as far as changes have named them; sorted.
    #[must_use]
    pub fn scopes(&self) -> Vec<&Scope> {
        let mut scopes: Vec<_> = self.numbers.keys().collect();
        scopes.sort();
        scopes
    }

    /// What a decision at this time rested on.
    #[must_use]
    pub fn facts<'a>(&'a self, catalog: &'a Catalog, now: Timestamp) -> Facts<'a> {
        Facts {
            catalog,
            company: self.company.as_ref(),
            credential: self.credential.as_ref(),
            user: self.user.as_ref(),
            consent: self.consent.as_ref(),
            now,
        }
    }

    /// When the check may be decided otherwise without a change: something ends, or begins.
    #[must_use]
    pub fn turns(&self, catalog: &Catalog) -> Vec<Timestamp> {
        let credential = self.credential.iter();
        let mut turns: Vec<_> = credential.flat_map(Credential::ends).collect();
        if let Some(token) = &self.query.token {
            turns.extend(token.begins(catalog));
            turns.extend(token.ends(catalog));
        }
        turns.sort();
        turns.dedup();
        turns
    }

    /// The scope's number; a new one if nothing has named it yet.
    fn number(&mut self, scope: &Scope) -> ScopeId {
        if let Some(number) = self.numbers.get(scope) {
            return *number;
        }
        self.last_number = self.last_number.saturating_add(1);
        let number = ScopeId(self.last_number);
        self.numbers.insert(scope.clone(), number);
        number
    }

    /// A renamed scope is the one that it was (D2).
    fn rename(&mut self, change: &Change) -> Result<(), Unreadable> {
        let mut kept = Vec::new();
        for scope in renamed(change)? {
            if let Some(number) = self.numbers.remove(&scope.old) {
                kept.push((scope.new, number));
            }
        }
        self.numbers.extend(kept);
        Ok(())
    }

    fn all_numbers(&mut self, scopes: &[Scope]) -> Vec<ScopeId> {
        scopes.iter().map(|scope| self.number(scope)).collect()
    }

    fn create_company(&mut self, change: &Change) -> Result<(), Unreadable> {
        let added = self.all_numbers(&change.added);
        let company = Company {
            id: self.query.company.clone(),
            display_name: String::new(),
            enabled: true,
            ceiling: added.into_iter().map(|scope| (scope, change.revision)).collect(),
            restored: ScopeMap::default(),
            created_at: change.revision,
            revision: change.revision,
            create_time: change.time,
            update_time: change.time,
        };
        (self.company, self.whole) = (Some(company), true);
        (self.credential, self.user, self.consent) = (None, None, None);
        self.change_company(&Change { added: vec![], ..change.clone() })
    }

    fn change_company(&mut self, change: &Change) -> Result<(), Unreadable> {
        let (added, removed) = (self.all_numbers(&change.added), self.all_numbers(&change.removed));
        let Some(company) = &mut self.company else { return Ok(()) };
        for field in fields(change, "enabled") {
            company.enabled = flag(change, field)?;
        }
        let place = |scope: &ScopeId| {
            let restored = company.restored.get(*scope).cloned().unwrap_or_default();
            Some(RemovedEntry { scope: *scope, added_at: *company.ceiling.get(*scope)?, restored })
        };
        self.taken.insert(change.revision, removed.iter().filter_map(place).collect());
        let fresh = added.into_iter().map(|scope| (scope, change.revision));
        company.ceiling = without(&company.ceiling, &removed).chain(fresh).collect();
        company.restored = without(&company.restored, &removed).collect();
        Ok(())
    }

    fn restore(&mut self, change: &Change) -> Result<(), Unreadable> {
        let woken = self.all_numbers(&change.added);
        let Some(company) = &mut self.company else { return Ok(()) };
        for field in fields(change, "restricted_at_revision") {
            let at = field.after.trim_matches('"').parse().map(Revision);
            let at = at.map_err(|_| unreadable(change, field))?;
            let taken = self.taken.get(&at).into_iter().flatten();
            let taken: Vec<_> = taken.filter(|p| woken.contains(&p.scope)).cloned().collect();
            *company = company.restore(&taken, at).after;
        }
        Ok(())
    }

    fn create_credential(&mut self, change: &Change) -> Result<(), Unreadable> {
        let Some(company) = &self.company else { return Ok(()) };
        self.credential = Some(Credential {
            id: self.query.credential.clone(),
            company: company.created_at,
            label: String::new(),
            enabled: true,
            expires_at: None,
            grants: ScopeMap::default(),
            secrets: vec![],
            created_at: change.revision,
            revision: change.revision,
            create_time: change.time,
            update_time: change.time,
        });
        self.consent = None;
        self.change_credential(change)
    }

    fn change_credential(&mut self, change: &Change) -> Result<(), Unreadable> {
        let (added, removed) = (self.all_numbers(&change.added), self.all_numbers(&change.removed));
        let Some(credential) = &mut self.credential else { return Ok(()) };
        for field in fields(change, "enabled") {
            credential.enabled = flag(change, field)?;
        }
        for field in fields(change, "expires_at") {
            credential.expires_at = moment(change, field)?;
        }
        // What was there and is made anew ends when it did, unless the change says otherwise.
        let anew = |scope: ScopeId| {
            let expires_at = credential.grants.get(scope).and_then(|grant| grant.expires_at);
            (scope, Grant { granted_at: change.revision, expires_at })
        };
        let made: Vec<_> = added.into_iter().map(anew).collect();
        // The first entry of a scope stays.
        let kept = without(&credential.grants, &removed);
        let mut grants: ScopeMap<Grant> = made.into_iter().chain(kept).collect();
        for field in &change.fields {
            let scope = field.field.strip_prefix("grants[");
            let scope = scope.and_then(|rest| rest.strip_suffix("].expires_at"));
            let Some(scope) = scope else { continue };
            let end = moment(change, field)?;
            let number = self.numbers.get(scope).copied();
            let moved = grants.iter().map(|(id, grant)| match Some(id) == number {
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
        let (added, removed) = (self.all_numbers(&change.added), self.all_numbers(&change.removed));
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

/// Whether a change of the catalog may have it say another thing of this check than before. What
/// it does to other scopes, endpoints and roles cannot.
#[must_use]
pub fn requirement_changed(query: &Query, change: &Change) -> bool {
    if change.kind != ChangeKind::ApplyCatalog {
        return false;
    }
    let says = |field: &str| fields(change, field).next().is_some();
    // An implication acts through other scopes, where roles or a token are closed under it.
    let is_closed = query.token.is_some() || query.on_behalf_of().is_some();
    let named: Vec<_> = fields(change, "scopes").flat_map(|field| words(&field.after)).collect();
    // Both names of a renamed scope: one of them is none of today's.
    let Ok(renamed) = renamed(change) else { return true };
    let moved = |scope: &Scope| {
        change.added.contains(scope)
            || change.removed.contains(scope)
            || named.contains(&scope.as_str())
            || renamed.iter().any(|pair| pair.old == *scope || pair.new == *scope)
    };
    let in_token = query.token.iter().flat_map(|token| &token.scopes).any(moved);
    let needs = match &query.needs {
        Requirement::Scopes(scopes) => scopes.iter().any(moved),
        // Its scopes are the endpoint's; which those were, the log does not say.
        Requirement::Endpoint { .. } => {
            says("endpoints")
                || !named.is_empty()
                || !change.removed.is_empty()
                || !renamed.is_empty()
        }
    };
    needs || in_token || says("audiences") || (is_closed && (says("roles") || !named.is_empty()))
}

/// The scopes that a change of the catalog has given other names.
fn renamed(change: &Change) -> Result<Vec<RenamedScope>, Unreadable> {
    let mut all = Vec::new();
    for field in fields(change, "renamed_scopes") {
        for pair in words(&field.after) {
            all.push(RenamedScope::parse(pair).ok_or_else(|| unreadable(change, field))?);
        }
    }
    Ok(all)
}

/// The names of a JSON list; none of them has a quote, a comma or a backslash.
fn list(text: &str) -> Option<impl Iterator<Item = &str>> {
    let inside = text.strip_prefix('[')?.strip_suffix(']')?;
    Some(inside.split(',').filter(|name| !name.is_empty()).map(|name| name.trim_matches('"')))
}

/// The scopes of a list as the log of catalogs has them: a JSON text of names with commas and
/// spaces between. No scope has a space, a quote or a backslash.
fn words(text: &str) -> Vec<&str> {
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
