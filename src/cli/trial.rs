//! `scopegate catalog test`: expected decisions, tried on a catalog without a server.
//!
//! A test file says what is so (companies, credentials, users, consents) and which checks of that
//! are decided how. The facts are made by the changes that a server makes them by, and the
//! decisions by the evaluator that a server asks: what passes here is decided so there.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::catalog::{listed, text};
use super::moment;
use super::printer::{Printer, Sheet, Words};
use super::typed;
use crate::config::Output;
use crate::policy::catalog::endpoint::Path as CallPath;
use crate::policy::catalog::{Catalog, Reach};
use crate::policy::change::Stamped;
use crate::policy::company::Company;
use crate::policy::consent::{Consent, Parties};
use crate::policy::credential::{Credential, Ground};
use crate::policy::decision::{Facts, Verdict, decide};
use crate::policy::id::{CompanyId, CredentialId, Name, UserId};
use crate::policy::query::{Needs, Query};
use crate::policy::reason::Reason;
use crate::policy::revision::Revision;
use crate::policy::scope::{Scope, ScopeId};
use crate::policy::token::Token;
use crate::policy::user::User;

/// Which tests to run.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// The file of tests.
    file: PathBuf,

    /// Try them on this catalog instead of the one that the file names.
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,

    /// How to write what came of them.
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    output: Output,
}

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trial {
    /// The catalog's file, as seen from this one.
    catalog: PathBuf,
    /// The time at which all is decided; the present, if not given.
    now: Option<String>,
    #[serde(default)]
    companies: BTreeMap<String, Tenant>,
    tests: Vec<Test>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tenant {
    /// The ceiling; the whole catalog, if not given.
    scopes: Option<Vec<String>>,
    /// What is taken from the ceiling once the credentials have their grants.
    #[serde(default)]
    restricted: Vec<String>,
    enabled: Option<bool>,
    #[serde(default)]
    credentials: BTreeMap<String, Client>,
    #[serde(default)]
    users: BTreeMap<String, Member>,
    #[serde(default)]
    consents: Vec<Given>,
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
struct Member {
    #[serde(default)]
    roles: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    credential: String,
    user: String,
    #[serde(default)]
    scopes: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Test {
    name: String,
    check: Asked,
    expect: Expected,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    company: String,
    credential: String,
    scopes: Option<Vec<String>>,
    endpoint: Option<Call>,
    audience: Option<String>,
    token: Option<Bearer>,
    user: Option<String>,
    resource_owner: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    method: String,
    path: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bearer {
    #[serde(default)]
    audience: String,
    #[serde(default)]
    scopes: Vec<String>,
    issued_at: Option<String>,
    expires_at: Option<String>,
    user: Option<String>,
}

/// What a test expects; what it does not name may be anything.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    decision: Decision,
    reason: Option<String>,
    missing_scopes: Option<Vec<String>>,
    reach: Option<Extent>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Decision {
    Allowed,
    Denied,
    /// No decision: the catalog cannot tell which audience is meant.
    Invalid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Extent {
    All,
    Own,
}

/// What came of a test.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    name: String,
    passed: bool,
    expected: Answer,
    actual: Answer,
}

/// An answer, or as much of one as was expected.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    decision: Decision,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_scopes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reach: Option<Extent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    passed: usize,
    failed: usize,
    tests: Vec<Outcome>,
}

/// Runs the tests, and prints what came of them. True if all is as expected.
///
/// # Errors
/// The file or its catalog is wrong.
pub(super) fn test(args: &TestArgs) -> anyhow::Result<bool> {
    let printer = Printer::new(args.output)?;
    let trial = read(&args.file)?;
    let beside = args.file.parent().unwrap_or(Path::new("")).join(&trial.catalog);
    let path = args.catalog.clone().unwrap_or(beside);
    let catalog = Catalog::empty()
        .succeed(&text(&path)?)
        .map_err(|problems| anyhow!("{}", listed(&path, &problems)))?;
    let now = trial.now.as_deref().map(moment::read).transpose();
    let now = now.map_err(|error| anyhow!("now: {error}"))?.unwrap_or_else(Timestamp::now);
    let town = Town::build(catalog, &trial.companies, now)
        .with_context(|| args.file.display().to_string())?;
    let mut tests = Vec::new();
    for test in trial.tests {
        let place = || format!("{}: test `{}`", args.file.display(), test.name);
        let actual = town.decide(&test.check).with_context(place)?;
        let expected = test.expect.answer().with_context(place)?;
        let passed = expected.is_met_by(&actual);
        tests.push(Outcome { name: test.name, passed, expected, actual });
    }
    if tests.is_empty() {
        bail!("{} has no tests: add some under `tests`", args.file.display());
    }
    let failed = tests.iter().filter(|test| !test.passed).count();
    let report = Report { passed: tests.len() - failed, failed, tests };
    printer.print_value(&report, sheet(&report))?;
    Ok(failed == 0)
}

fn read(file: &Path) -> anyhow::Result<Trial> {
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    serde_saphyr::from_str_with_options(&text(file)?, options).map_err(|error| {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
        match error.location() {
            Some(at) => anyhow!("{}:{}:{}: {message}", file.display(), at.line(), at.column()),
            None => anyhow!("{}: {message}", file.display()),
        }
    })
}

fn sheet(report: &Report) -> Sheet {
    let mut sheet = Sheet::default();
    let rows = report.tests.iter().map(|test| {
        let word = if test.passed { "ok" } else { "FAILED" };
        [Words::news(test.passed, word), test.name.clone().into()]
    });
    sheet = sheet.rows(&["OUTCOME", "TEST"], rows);
    for test in report.tests.iter().filter(|test| !test.passed) {
        sheet = sheet
            .line(format!("\n{}", test.name))
            .fact("  expected", test.expected.text())
            .fact("  came", test.actual.text());
    }
    let (passed, failed) = (report.passed, report.failed);
    sheet.line(format!("\n{passed} passed, {failed} failed"))
}

impl Expected {
    fn answer(&self) -> anyhow::Result<Answer> {
        let reason = self.reason.as_deref().map(|word| {
            let known = Reason::ALL.iter().map(|reason| typed::word(*reason));
            let known: Vec<_> = known.chain(["ALLOWED".to_owned()]).collect();
            let plain = word.strip_prefix("REASON_").unwrap_or(word).to_ascii_uppercase();
            match known.contains(&plain) {
                true => Ok(plain),
                false => {
                    Err(anyhow!("`{word}` is no reason; the reasons are {}", known.join(", ")))
                }
            }
        });
        Ok(Answer {
            decision: self.decision,
            reason: reason.transpose()?,
            missing_scopes: self.missing_scopes.clone(),
            reach: self.reach,
            message: None,
        })
    }
}

impl Answer {
    fn is_met_by(&self, actual: &Self) -> bool {
        fn met<T: PartialEq>(expected: &Option<T>, actual: &Option<T>) -> bool {
            expected.is_none() || expected == actual
        }
        self.decision == actual.decision
            && met(&self.reason, &actual.reason)
            && met(&self.missing_scopes, &actual.missing_scopes)
            && met(&self.reach, &actual.reach)
    }

    fn text(&self) -> String {
        let decision = match self.decision {
            Decision::Allowed => "ALLOWED",
            Decision::Denied => "DENIED",
            Decision::Invalid => "INVALID",
        };
        let reach = self.reach.map(|reach| match reach {
            Extent::All => "reach ALL".to_owned(),
            Extent::Own => "reach OWN".to_owned(),
        });
        let reason = self.reason.clone().filter(|_| self.decision == Decision::Denied);
        let missing = self.missing_scopes.as_ref().filter(|_| self.decision == Decision::Denied);
        let missing = missing.map(|scopes| match scopes.as_slice() {
            [] => "missing none".to_owned(),
            scopes => format!("missing {}", scopes.join(" ")),
        });
        let parts = [Some(decision.to_owned()), reason, missing, reach, self.message.clone()];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// All facts of a test file.
struct Town {
    catalog: Catalog,
    companies: HashMap<String, House>,
    now: Timestamp,
}

/// A company with all that is in it.
struct House {
    company: Company,
    credentials: HashMap<String, Credential>,
    users: HashMap<String, User>,
    /// By credential and user.
    consents: HashMap<(String, String), Consent>,
}

/// Gives each change the next revision, as a store does.
struct Clerk {
    last: Revision,
    now: Timestamp,
}

impl Clerk {
    fn commit<T: Stamped>(&mut self, mut fact: T) -> T {
        self.last = self.last.next();
        fact.stamp(self.last, self.now);
        fact
    }
}

impl Town {
    fn build(
        catalog: Catalog,
        tenants: &BTreeMap<String, Tenant>,
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let mut clerk = Clerk { last: Revision::ZERO, now };
        let mut companies = HashMap::new();
        for (id, tenant) in tenants {
            let house = House::build(id, tenant, &catalog, &mut clerk);
            companies.insert(id.clone(), house.with_context(|| format!("company `{id}`"))?);
        }
        Ok(Self { catalog, companies, now })
    }

    fn decide(&self, asked: &Asked) -> anyhow::Result<Answer> {
        let query = asked.query()?;
        let house = self.companies.get(&asked.company);
        let user = query.on_behalf_of().map(|user| user.as_str().to_owned());
        let consent = user.clone().map(|user| (asked.credential.clone(), user));
        let facts = Facts {
            catalog: &self.catalog,
            company: house.map(|house| &house.company),
            credential: house.and_then(|house| house.credentials.get(&asked.credential)),
            user: house.zip(user).and_then(|(house, user)| house.users.get(&user)),
            consent: house.zip(consent).and_then(|(house, of)| house.consents.get(&of)),
            now: self.now,
        };
        Ok(match decide(&query, facts) {
            Ok(Verdict::Allowed { reach }) => Answer {
                decision: Decision::Allowed,
                reason: Some("ALLOWED".to_owned()),
                missing_scopes: Some(vec![]),
                reach: Some(match reach {
                    Reach::All => Extent::All,
                    Reach::Own => Extent::Own,
                }),
                message: None,
            },
            Ok(Verdict::Denied { reason, missing }) => Answer {
                decision: Decision::Denied,
                reason: Some(typed::word(reason)),
                missing_scopes: Some(missing.iter().map(ToString::to_string).collect()),
                reach: None,
                message: None,
            },
            Err(error) => Answer {
                decision: Decision::Invalid,
                reason: None,
                missing_scopes: None,
                reach: None,
                message: Some(format!("`audience` {error}")),
            },
        })
    }
}

impl House {
    fn build(
        id: &str,
        tenant: &Tenant,
        catalog: &Catalog,
        clerk: &mut Clerk,
    ) -> anyhow::Result<Self> {
        let id = CompanyId::parse(id).map_err(|error| anyhow!("the id {error}"))?;
        let ceiling = tenant.scopes.as_deref().map(|names| numbers(names, catalog)).transpose()?;
        let now = clerk.now;
        let new = Company::create(id, String::new(), catalog, ceiling.as_deref(), now);
        let mut company = clerk.commit(new.after);
        let mut credentials = HashMap::new();
        for (id, client) in &tenant.credentials {
            let made = client.build(id, Ground { catalog, company: &company, now }, clerk);
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
    fn build(&self, id: &str, ground: Ground<'_>, clerk: &mut Clerk) -> anyhow::Result<Credential> {
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
    text.map(moment::read).transpose().map_err(|error| anyhow!(error))
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

impl Asked {
    fn query(&self) -> anyhow::Result<Query> {
        let needs = match (&self.scopes, &self.endpoint) {
            (Some(names), None) if !names.is_empty() => {
                let mut once = Vec::new();
                for scope in scopes(names)? {
                    if !once.contains(&scope) {
                        once.push(scope);
                    }
                }
                Needs::Scopes(once)
            }
            (None, Some(call)) => Needs::Endpoint {
                method: call.method.as_str().into(),
                path: CallPath::parse(call.path.as_str())
                    .map_err(|error| anyhow!("the path {error}"))?,
            },
            _ => bail!("the check must have `scopes`, at least one, or an `endpoint`"),
        };
        let user = |id: &Option<String>| {
            let id = id.as_deref().map(UserId::parse).transpose();
            id.map_err(|error| anyhow!("the user's id {error}"))
        };
        let token = match &self.token {
            Some(token) => Some(Token {
                audience: token.audience.clone(),
                scopes: scopes(&token.scopes)?,
                issued_at: when(token.issued_at.as_deref())?,
                expires_at: when(token.expires_at.as_deref())?,
                user: user(&token.user)?,
            }),
            None => None,
        };
        let audience = self.audience.as_deref().map(Name::parse).transpose();
        Ok(Query {
            company: CompanyId::parse(self.company.as_str())
                .map_err(|error| anyhow!("the company's id {error}"))?,
            credential: CredentialId::parse(self.credential.as_str())
                .map_err(|error| anyhow!("the credential's id {error}"))?,
            needs,
            audience: audience.map_err(|error| anyhow!("the audience {error}"))?,
            token,
            user: user(&self.user)?,
            owner: user(&self.resource_owner)?,
        })
    }
}
