//! Credential: an API client of one company, and its grants.

use jiff::Timestamp;

use super::catalog::Catalog;
use super::change::FieldChange;
use super::company::Company;
use super::edit::{Edit, Stamped};
use super::id::{CredentialId, Name};
use super::redirect_uri::RedirectUri;
use super::revision::Revision;
use super::scope::{Scope, ScopeId, ScopeMap};
use super::token::revoked::RevokedTokens;

/// The grants of a credential, by scope.
pub type Grants = ScopeMap<Grant>;

/// The grant of one scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The revision at which it was granted.
    pub granted_at: Revision,
    /// When it expires; never, if absent.
    pub expires_at: Option<Timestamp>,
}

/// Whether a grant counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantState {
    /// It counts.
    Active,
    /// Its scope is not in the ceiling, or entered it again after the grant (D3).
    Dormant,
    /// It has expired. Dormant is reported before expired (D19).
    Expired,
}

/// An API client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Its id, unique in its company.
    pub id: CredentialId,
    /// The creation revision of its company.
    pub company: Revision,
    /// The display name.
    pub label: String,
    /// False denies every check of the credential.
    pub enabled: bool,
    /// When the credential expires; never, if absent.
    pub expires_at: Option<Timestamp>,
    /// Its grants.
    pub grants: Grants,
    /// The public ids of its live secrets, oldest first (D11).
    pub secrets: Vec<Name>,
    /// Where a browser may be sent with an authorization code of the credential (T34).
    pub redirect_uris: Box<[RedirectUri]>,
    /// Its tokens that ended before their time (T27).
    pub revoked_tokens: RevokedTokens,
    /// Its creation revision: nothing of an earlier credential with the same id belongs to it (D3).
    pub created_at: Revision,
    /// Its last change.
    pub revision: Revision,
    /// When it was created.
    pub create_time: Timestamp,
    /// When it was last changed.
    pub update_time: Timestamp,
}

/// A credential as clients see it at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialView {
    /// The credential.
    pub credential: Credential,
    /// The id of its company.
    pub company: super::id::CompanyId,
    /// Its grants by name, sorted.
    pub grants: Vec<(Scope, GrantState, Grant)>,
    /// When it was last used, rounded to a minute, as far as it is known.
    pub last_seen: Option<Timestamp>,
    /// Whether the credential has expired.
    pub expired: bool,
}

/// A grant exceeds the ceiling (D9).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} not in the company's ceiling; the operator can add to it", list(.scopes))]
pub struct AboveCeiling {
    /// Every scope that the ceiling lacks, sorted by name.
    pub scopes: Vec<Scope>,
}

fn list(scopes: &[Scope]) -> String {
    let mut text = String::new();
    for (n, scope) in scopes.iter().take(20).enumerate() {
        text.push_str(if n == 0 { "`" } else { ", `" });
        text.push_str(scope.as_str());
        text.push('`');
    }
    if scopes.len() > 20 {
        text.push_str(&format!(" and {} more", scopes.len() - 20));
    }
    text.push_str(if scopes.len() == 1 { " is" } else { " are" });
    text
}

/// Whether `expires_at` has passed: `now >= expires_at` (D19).
#[must_use]
pub fn is_expired(expires_at: Option<Timestamp>, now: Timestamp) -> bool {
    expires_at.is_some_and(|end| now >= end)
}

impl Grant {
    /// Whether the grant counts in this company at this time (D3, D19).
    #[must_use]
    pub fn state(&self, scope: ScopeId, company: &Company, now: Timestamp) -> GrantState {
        if !company.admits(scope, self.granted_at) {
            return GrantState::Dormant;
        }
        if is_expired(self.expires_at, now) { GrantState::Expired } else { GrantState::Active }
    }
}

/// The facts that a change of grants depends on.
#[derive(Clone, Copy, Debug)]
pub struct GrantContext<'a> {
    /// The catalog in force.
    pub catalog: &'a Catalog,
    /// The credential's company.
    pub company: &'a Company,
    /// The time of the change.
    pub now: Timestamp,
}

impl GrantContext<'_> {
    /// These scopes with all that they imply, if the ceiling has all of them (D1, D9).
    fn within_ceiling(&self, scopes: &[ScopeId]) -> Result<Vec<ScopeId>, AboveCeiling> {
        let requested = self.catalog.closure(scopes);
        let above: Vec<_> =
            requested.iter().copied().filter(|s| !self.company.ceiling.contains(*s)).collect();
        if above.is_empty() {
            return Ok(requested);
        }
        Err(AboveCeiling { scopes: self.catalog.names(&above) })
    }
}

impl Credential {
    /// The expiry of the credential and of each grant.
    pub fn ends(&self) -> impl Iterator<Item = Timestamp> {
        self.grants.iter().filter_map(|(_, grant)| grant.expires_at).chain(self.expires_at)
    }

    /// A new credential with these scopes and all that they imply.
    ///
    /// # Errors
    /// Every scope that the ceiling lacks (D9).
    pub fn create(
        id: CredentialId,
        label: String,
        expires_at: Option<Timestamp>,
        scopes: &[ScopeId],
        context: GrantContext<'_>,
    ) -> Result<Edit<Self>, AboveCeiling> {
        let empty = Self {
            id,
            company: context.company.created_at,
            label,
            enabled: true,
            expires_at,
            grants: Grants::default(),
            secrets: vec![],
            redirect_uris: [].into(),
            revoked_tokens: RevokedTokens::default(),
            created_at: Revision::NEXT,
            revision: Revision::NEXT,
            create_time: context.now,
            update_time: context.now,
        };
        empty.grant(scopes, None, context)
    }

    /// Grants scopes and all that they imply. A grant that is not active now is made new, with this
    /// expiry. An active grant keeps its revision and gets the later expiry (D10).
    ///
    /// # Errors
    /// Every scope that the ceiling lacks (D9).
    pub fn grant(
        &self,
        scopes: &[ScopeId],
        expires_at: Option<Timestamp>,
        context: GrantContext<'_>,
    ) -> Result<Edit<Self>, AboveCeiling> {
        let requested = context.within_ceiling(scopes)?;
        let mut edit = Edit::none(self);
        let mut changed = Vec::with_capacity(requested.len());
        for scope in requested {
            match self.active(scope, context) {
                Some(grant) => {
                    // No expiry is the latest end.
                    let end = match (grant.expires_at, expires_at) {
                        (Some(old), Some(new)) => Some(old.max(new)),
                        _ => None,
                    };
                    if end != grant.expires_at {
                        let old = grant.expires_at;
                        edit.fields.extend(expiry_change(context.catalog, scope, old, end));
                        changed.push((scope, Grant { expires_at: end, ..*grant }));
                    }
                }
                None => {
                    let old = self.grants.get(scope).and_then(|grant| grant.expires_at);
                    edit.fields.extend(expiry_change(context.catalog, scope, old, expires_at));
                    edit.added.push(scope);
                    changed.push((scope, Grant { granted_at: Revision::NEXT, expires_at }));
                }
            }
        }
        // The first entry of a scope wins, so the changed grants come first.
        edit.after.grants = changed.into_iter().chain(self.known(context.catalog)).collect();
        Ok(edit)
    }

    /// Revokes scopes, and all that imply them, in any state (D1).
    #[must_use]
    pub fn revoke(&self, scopes: &[ScopeId], context: GrantContext<'_>) -> Edit<Self> {
        let revoked = context.catalog.implying_closure(scopes);
        self.keep_only(|scope| revoked.binary_search(&scope).is_err(), context)
    }

    /// Makes the grants exactly these scopes and what they imply: the Save button (D10).
    ///
    /// # Errors
    /// Every scope that the ceiling lacks (D9).
    pub fn replace(
        &self,
        scopes: &[ScopeId],
        context: GrantContext<'_>,
    ) -> Result<Edit<Self>, AboveCeiling> {
        Ok(self.set_grants(&context.within_ceiling(scopes)?, context))
    }

    /// Makes the grants a copy of the ceiling as it is (D10).
    #[must_use]
    pub fn reset(&self, context: GrantContext<'_>) -> Edit<Self> {
        let ceiling: Vec<_> = context
            .company
            .ceiling
            .iter()
            .map(|(scope, _)| scope)
            .filter(|scope| context.catalog.name(*scope).is_some())
            .collect();
        self.set_grants(&ceiling, context)
    }

    /// Changes the fields that are `Some`.
    #[must_use]
    pub fn update(
        &self,
        label: Option<String>,
        enabled: Option<bool>,
        expires_at: Option<Option<Timestamp>>,
        redirect_uris: Option<&[RedirectUri]>,
    ) -> Edit<Self> {
        let mut edit = Edit::none(self);
        if let Some(label) = label {
            edit.fields.extend(FieldChange::text("label", &self.label, &label));
            edit.after.label = label;
        }
        if let Some(enabled) = enabled {
            edit.fields.extend(FieldChange::flag("enabled", self.enabled, enabled));
            edit.after.enabled = enabled;
        }
        if let Some(end) = expires_at {
            edit.fields.extend(FieldChange::time("expires_at", self.expires_at, end));
            edit.after.expires_at = end;
        }
        if let Some(uris) = redirect_uris {
            let before = Some(&*self.redirect_uris);
            edit.fields.extend(FieldChange::list("redirect_uris", before, uris));
            edit.after.redirect_uris = uris.into();
        }
        edit
    }

    /// The edit of its deletion: everything that the credential had.
    #[must_use]
    pub fn delete(&self, catalog: &Catalog) -> Edit<Self> {
        let mut edit = Edit::none(self);
        edit.fields.extend(FieldChange::gone_text("label", &self.label));
        edit.fields.push(FieldChange::gone_flag("enabled", self.enabled));
        edit.fields.extend(FieldChange::time("expires_at", self.expires_at, None));
        edit.fields.extend(FieldChange::list("secret_ids", Some(&self.secrets), &[]));
        let uris = Some(&*self.redirect_uris);
        edit.fields.extend(FieldChange::list(
            "redirect_uris",
            uris.filter(|uris| !uris.is_empty()),
            &[],
        ));
        let valid_from = self.revoked_tokens.issued_before;
        edit.fields.extend(FieldChange::time("tokens_valid_from", valid_from, None));
        for (scope, grant) in self.known(catalog) {
            edit.fields.extend(expiry_change(catalog, scope, grant.expires_at, None));
            edit.removed.push(scope);
        }
        edit
    }

    /// The credential with its scopes by name and state.
    #[must_use]
    pub fn view(&self, context: GrantContext<'_>) -> CredentialView {
        let mut grants: Vec<_> = self
            .grants
            .iter()
            .filter_map(|(scope, grant)| {
                let state = grant.state(scope, context.company, context.now);
                Some((context.catalog.name(scope)?.clone(), state, *grant))
            })
            .collect();
        grants.sort_by(|a, b| a.0.cmp(&b.0));
        CredentialView {
            credential: self.clone(),
            company: context.company.id.clone(),
            grants,
            last_seen: None,
            expired: is_expired(self.expires_at, context.now),
        }
    }

    /// The scope's grant, if it counts: the scope is in the catalog, has been in the ceiling since
    /// before the grant, and the grant has not expired.
    #[must_use]
    pub fn active(&self, scope: ScopeId, context: GrantContext<'_>) -> Option<&Grant> {
        context.catalog.name(scope)?;
        let grant = self.grants.get(scope)?;
        (grant.state(scope, context.company, context.now) == GrantState::Active).then_some(grant)
    }

    fn set_grants(&self, requested: &[ScopeId], context: GrantContext<'_>) -> Edit<Self> {
        let mut edit = self.keep_only(|scope| requested.binary_search(&scope).is_ok(), context);
        let fresh = Grant { granted_at: Revision::NEXT, expires_at: None };
        edit.after.grants = requested
            .iter()
            .map(|scope| match self.active(*scope, context) {
                Some(grant) => (*scope, *grant),
                None => {
                    let old = self.grants.get(*scope).and_then(|grant| grant.expires_at);
                    edit.fields.extend(expiry_change(context.catalog, *scope, old, None));
                    edit.added.push(*scope);
                    (*scope, fresh)
                }
            })
            .collect();
        edit
    }

    fn keep_only(&self, keep: impl Fn(ScopeId) -> bool, context: GrantContext<'_>) -> Edit<Self> {
        let mut edit = Edit::none(self);
        let (kept, gone): (Vec<_>, Vec<_>) =
            self.known(context.catalog).partition(|(scope, _)| keep(*scope));
        for (scope, grant) in gone {
            edit.fields.extend(expiry_change(context.catalog, scope, grant.expires_at, None));
            edit.removed.push(scope);
        }
        edit.after.grants = kept.into_iter().collect();
        edit
    }

    /// The grants whose scopes are in the catalog (D2).
    fn known<'a>(&'a self, catalog: &'a Catalog) -> impl Iterator<Item = (ScopeId, Grant)> + 'a {
        self.grants
            .iter()
            .filter(|(scope, _)| catalog.name(*scope).is_some())
            .map(|(scope, grant)| (scope, *grant))
    }
}

fn expiry_change(
    catalog: &Catalog,
    scope: ScopeId,
    before: Option<Timestamp>,
    after: Option<Timestamp>,
) -> Option<FieldChange> {
    let name = catalog.name(scope).map_or("", Scope::as_str);
    FieldChange::time(&format!("grants[{name}].expires_at"), before, after)
}

impl Stamped for Credential {
    fn stamp(&mut self, revision: Revision, time: Timestamp) {
        if self.created_at == Revision::NEXT {
            self.create_time = time;
        }
        self.created_at = self.created_at.or_assigned(revision);
        self.revision = revision;
        self.update_time = time;
        self.revoked_tokens.stamp(revision);
        for grant in self.grants.values_mut() {
            grant.granted_at = grant.granted_at.or_assigned(revision);
        }
    }
}
