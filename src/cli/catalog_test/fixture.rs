//! Fixture: the facts of a test file, built by the same policy changes as on a server.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use serde::Deserialize;

use crate::cli::time;
use crate::policy::catalog::Catalog;
use crate::policy::company::Company;
use crate::policy::consent::{Consent, Parties};
use crate::policy::credential::{Credential, GrantContext};
use crate::policy::decision::Facts;
use crate::policy::edit::Stamped;
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::query::Query;
use crate::policy::revision::Revision;
use crate::policy::scope::{Scope, ScopeId};
use crate::policy::token::own::TokenEpoch;
use crate::policy::user::User;

/// A company of a test file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CompanyYaml {
    /// The ceiling. The default is all scopes of the catalog.
    scopes: Option<Vec<String>>,
    /// Scopes that are removed from the ceiling after the credentials got their grants.
    #[serde(default)]
    restricted: Vec<String>,
    enabled: Option<bool>,
    #[serde(default)]
    credentials: BTreeMap<String, CredentialYaml>,
    #[serde(default)]
    users: BTreeMap<String, UserYaml>,
    #[serde(default)]
    consents: Vec<ConsentYaml>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CredentialYaml {
    #[serde(default)]
    scopes: Vec<String>,
    enabled: Option<bool>,
    /// The time at which the credential expires.
    expires_at: Option<String>,
    /// The time at which its grants expire.
    grants_expire_at: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserYaml {
    #[serde(default)]
    roles: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsentYaml {
    credential: String,
    user: String,
    #[serde(default)]
    scopes: Vec<String>,
}

/// All facts of a test file.
pub(super) struct Fixture {
    catalog: Catalog,
    companies: HashMap<String, CompanyFixture>,
    now: Timestamp,
}

/// A company with its credentials, users and consents.
struct CompanyFixture {
    company: Company,
    credentials: HashMap<String, Credential>,
    users: HashMap<String, User>,
    /// By credential id and user id.
    consents: HashMap<(String, String), Consent>,
}

/// Assigns the next revision to each change, as a store does.
struct RevisionCounter {
    last: Revision,
    now: Timestamp,
}

impl RevisionCounter {
    fn commit<T: Stamped>(&mut self, mut fact: T) -> T {
        self.last = self.last.next();
        fact.stamp(self.last, self.now);
        fact
    }
}

impl Fixture {
    /// Builds the facts by the rules of a server.
    ///
    /// # Errors
    /// A server would reject one of the facts.
    pub(super) fn build(
        catalog: Catalog,
        companies_yaml: &BTreeMap<String, CompanyYaml>,
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let mut revisions = RevisionCounter { last: Revision::ZERO, now };
        let mut companies = HashMap::new();
        for (id, yaml) in companies_yaml {
            let company = CompanyFixture::build(id, yaml, &catalog, &mut revisions);
            companies.insert(id.clone(), company.with_context(|| format!("company `{id}`"))?);
        }
        Ok(Self { catalog, companies, now })
    }

    /// The facts of a query.
    pub(super) fn facts(&self, query: &Query) -> Facts<'_> {
        let company = query.company().and_then(|company| self.companies.get(company.as_str()));
        let credential = query.credential().map(CredentialId::as_str).unwrap_or_default();
        let user = query.on_behalf_of().map(UserId::as_str);
        let consent = user.map(|user| (credential.to_owned(), user.to_owned()));
        Facts {
            catalog: &self.catalog,
            company: company.map(|company| &company.company),
            credential: company.and_then(|company| company.credentials.get(credential)),
            user: company.zip(user).and_then(|(company, user)| company.users.get(user)),
            ambiguous_subject: false,
            tokens: TokenEpoch::default(),
            consent: company
                .zip(consent)
                .and_then(|(company, parties)| company.consents.get(&parties)),
            now: self.now,
        }
    }
}

impl CompanyFixture {
    fn build(
        id: &str,
        yaml: &CompanyYaml,
        catalog: &Catalog,
        revisions: &mut RevisionCounter,
    ) -> anyhow::Result<Self> {
        let id = CompanyId::parse(id).map_err(|error| anyhow!("the id {error}"))?;
        let ceiling = yaml.scopes.as_deref().map(|names| scope_ids(names, catalog)).transpose()?;
        let now = revisions.now;
        let new = Company::create(id, String::new(), catalog, ceiling.as_deref(), now);
        let mut company = revisions.commit(new.after);
        let mut credentials = HashMap::new();
        for (id, yaml) in &yaml.credentials {
            let built = yaml.build(id, GrantContext { catalog, company: &company, now }, revisions);
            credentials.insert(id.clone(), built.with_context(|| format!("credential `{id}`"))?);
        }
        let mut users = HashMap::new();
        for (id, yaml) in &yaml.users {
            let context = || format!("user `{id}`");
            let user = UserId::parse(id.as_str()).with_context(context)?;
            let roles: Result<Vec<_>, _> =
                yaml.roles.iter().map(|role| Name::parse(role.as_str())).collect();
            let edit = User::put(None, &user, company.created_at, &roles.with_context(context)?);
            users.insert(id.clone(), revisions.commit(edit.after));
        }
        let mut consents = HashMap::new();
        for yaml in &yaml.consents {
            let credential = credentials.get(&yaml.credential);
            let credential = credential
                .with_context(|| format!("a consent: no credential `{}`", yaml.credential))?;
            let user = users.get(&yaml.user);
            let user = user.with_context(|| format!("a consent: no user `{}`", yaml.user))?;
            let parties = Parties {
                company: company.created_at,
                user: user.created_at,
                credential: credential.created_at,
            };
            let scopes = scope_ids(&yaml.scopes, catalog)?;
            let edit = Consent::put(None, parties, catalog, user, &scopes);
            let key = (yaml.credential.clone(), yaml.user.clone());
            consents.insert(key, revisions.commit(edit.after));
        }
        if !yaml.restricted.is_empty() {
            let scopes = scope_ids(&yaml.restricted, catalog)?;
            company = revisions.commit(company.restrict(catalog, &scopes).after);
        }
        if let Some(enabled) = yaml.enabled {
            company = revisions.commit(company.update(None, Some(enabled)).after);
        }
        Ok(Self { company, credentials, users, consents })
    }
}

impl CredentialYaml {
    fn build(
        &self,
        id: &str,
        context: GrantContext<'_>,
        revisions: &mut RevisionCounter,
    ) -> anyhow::Result<Credential> {
        let id = CredentialId::parse(id).map_err(|error| anyhow!("the id {error}"))?;
        let scopes = scope_ids(&self.scopes, context.catalog)?;
        let expires_at = parse_time(self.expires_at.as_deref())?;
        let new = Credential::create(id, String::new(), expires_at, &[], context)?;
        let credential = revisions.commit(new.after);
        let granted =
            credential.grant(&scopes, parse_time(self.grants_expire_at.as_deref())?, context)?;
        let credential = revisions.commit(granted.after);
        Ok(match self.enabled {
            Some(enabled) => {
                revisions.commit(credential.update(None, Some(enabled), None, None).after)
            }
            None => credential,
        })
    }
}

fn parse_time(text: Option<&str>) -> anyhow::Result<Option<Timestamp>> {
    text.map(time::read).transpose().map_err(|error| anyhow!(error))
}

fn scopes(names: &[String]) -> anyhow::Result<Vec<Scope>> {
    let scope = |name: &String| Scope::parse(name.as_str()).with_context(|| format!("`{name}`"));
    names.iter().map(scope).collect()
}

/// The ids of scopes, all of which the catalog must have.
fn scope_ids(names: &[String], catalog: &Catalog) -> anyhow::Result<Vec<ScopeId>> {
    let scope_id = |scope: Scope| {
        catalog.id(&scope).ok_or_else(|| anyhow!("`{scope}` is not a scope of the catalog"))
    };
    scopes(names)?.into_iter().map(scope_id).collect()
}
