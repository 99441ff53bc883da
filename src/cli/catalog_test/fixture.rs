//! Town: the facts of a test file, made by the changes that a server makes them by.

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
use crate::policy::user::User;

/// A company as a test file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CompanyYaml {
    /// The ceiling; the whole catalog, if not given.
    scopes: Option<Vec<String>>,
    /// What is taken from the ceiling once the credentials have their grants.
    #[serde(default)]
    restricted: Vec<String>,
    enabled: Option<bool>,
    #[serde(default)]
    credentials: BTreeMap<String, Client>,
    #[serde(default)]
    users: BTreeMap<String, UserYaml>,
    #[serde(default)]
    consents: Vec<ConsentYaml>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Client {
    #[serde(default)]
    scopes: Vec<String>,
    enabled: Option<bool>,
    /// When the credential ends.
    expires_at: Option<String>,
    /// When its grants end.
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

/// A company with all that is in it.
struct CompanyFixture {
    company: Company,
    credentials: HashMap<String, Credential>,
    users: HashMap<String, User>,
    /// By credential and user.
    consents: HashMap<(String, String), Consent>,
}

/// Gives each change the next revision, as a store does.
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
    /// Makes them as a server would.
    ///
    /// # Errors
    /// A server would refuse one.
    pub(super) fn build(
        catalog: Catalog,
        tenants: &BTreeMap<String, CompanyYaml>,
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let mut clerk = RevisionCounter { last: Revision::ZERO, now };
        let mut companies = HashMap::new();
        for (id, tenant) in tenants {
            let house = CompanyFixture::build(id, tenant, &catalog, &mut clerk);
            companies.insert(id.clone(), house.with_context(|| format!("company `{id}`"))?);
        }
        Ok(Self { catalog, companies, now })
    }

    /// The facts of a query.
    pub(super) fn facts(&self, query: &Query) -> Facts<'_> {
        let house = self.companies.get(query.company.as_str());
        let credential = query.credential.as_str();
        let user = query.on_behalf_of().map(UserId::as_str);
        let consent = user.map(|user| (credential.to_owned(), user.to_owned()));
        Facts {
            catalog: &self.catalog,
            company: house.map(|house| &house.company),
            credential: house.and_then(|house| house.credentials.get(credential)),
            user: house.zip(user).and_then(|(house, user)| house.users.get(user)),
            consent: house.zip(consent).and_then(|(house, of)| house.consents.get(&of)),
            now: self.now,
        }
    }
}

impl CompanyFixture {
    fn build(
        id: &str,
        tenant: &CompanyYaml,
        catalog: &Catalog,
        clerk: &mut RevisionCounter,
    ) -> anyhow::Result<Self> {
        let id = CompanyId::parse(id).map_err(|error| anyhow!("the id {error}"))?;
        let ceiling = tenant.scopes.as_deref().map(|names| numbers(names, catalog)).transpose()?;
        let now = clerk.now;
        let new = Company::create(id, String::new(), catalog, ceiling.as_deref(), now);
        let mut company = clerk.commit(new.after);
        let mut credentials = HashMap::new();
        for (id, client) in &tenant.credentials {
            let made = client.build(id, GrantContext { catalog, company: &company, now }, clerk);
            credentials.insert(id.clone(), made.with_context(|| format!("credential `{id}`"))?);
        }
        let mut users = HashMap::new();
        for (id, member) in &tenant.users {
            let place = || format!("user `{id}`");
            let user = UserId::parse(id.as_str()).with_context(place)?;
            let roles: Result<Vec<_>, _> =
                member.roles.iter().map(|role| Name::parse(role.as_str())).collect();
            let edit = User::put(None, &user, company.created_at, &roles.with_context(place)?);
            users.insert(id.clone(), clerk.commit(edit.after));
        }
        let mut consents = HashMap::new();
        for given in &tenant.consents {
            let credential = credentials.get(&given.credential);
            let credential = credential
                .with_context(|| format!("a consent: no credential `{}`", given.credential))?;
            let user = users.get(&given.user);
            let user = user.with_context(|| format!("a consent: no user `{}`", given.user))?;
            let of = Parties {
                company: company.created_at,
                user: user.created_at,
                credential: credential.created_at,
            };
            let asked = numbers(&given.scopes, catalog)?;
            let edit = Consent::put(None, of, catalog, user, &asked);
            let key = (given.credential.clone(), given.user.clone());
            consents.insert(key, clerk.commit(edit.after));
        }
        if !tenant.restricted.is_empty() {
            let scopes = numbers(&tenant.restricted, catalog)?;
            company = clerk.commit(company.restrict(catalog, &scopes).after);
        }
        if let Some(enabled) = tenant.enabled {
            company = clerk.commit(company.update(None, Some(enabled)).after);
        }
        Ok(Self { company, credentials, users, consents })
    }
}

impl Client {
    fn build(
        &self,
        id: &str,
        ground: GrantContext<'_>,
        clerk: &mut RevisionCounter,
    ) -> anyhow::Result<Credential> {
        let id = CredentialId::parse(id).map_err(|error| anyhow!("the id {error}"))?;
        let scopes = numbers(&self.scopes, ground.catalog)?;
        let ends = when(self.expires_at.as_deref())?;
        let new = Credential::create(id, String::new(), ends, &[], ground)?;
        let credential = clerk.commit(new.after);
        let granted = credential.grant(&scopes, when(self.grants_expire_at.as_deref())?, ground)?;
        let credential = clerk.commit(granted.after);
        Ok(match self.enabled {
            Some(enabled) => clerk.commit(credential.update(None, Some(enabled), None).after),
            None => credential,
        })
    }
}

fn when(text: Option<&str>) -> anyhow::Result<Option<Timestamp>> {
    text.map(time::read).transpose().map_err(|error| anyhow!(error))
}

fn scopes(names: &[String]) -> anyhow::Result<Vec<Scope>> {
    let scope = |name: &String| Scope::parse(name.as_str()).with_context(|| format!("`{name}`"));
    names.iter().map(scope).collect()
}

/// The numbers of scopes that the catalog must have.
fn numbers(names: &[String], catalog: &Catalog) -> anyhow::Result<Vec<ScopeId>> {
    let number = |scope: Scope| {
        catalog.id(&scope).ok_or_else(|| anyhow!("`{scope}` is not a scope of the catalog"))
    };
    scopes(names)?.into_iter().map(number).collect()
}
