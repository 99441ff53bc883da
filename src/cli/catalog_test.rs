//! `scopegate catalog test`: runs a file of expected decisions against a catalog, without a server.
//!
//! A test file holds companies, credentials, users and consents, and the expected decisions of
//! checks. The facts are built by the same policy changes as on a server, and decided by the same
//! evaluator, so a server decides these checks alike.

mod fixture;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::fixture::{CompanyYaml, Fixture};
use super::catalog_file::{format_errors, read_text};
use super::endpoint_input::EndpointInput;
use super::output_format::OutputFormat;
use super::printer::{Cell, Printer, Report};
use super::time;
use crate::policy::catalog::{Catalog, Reach};
use crate::policy::cause::Cause;
use crate::policy::decision::{Verdict, decide};
use crate::policy::property::Properties;
use crate::policy::query::{Requirement, ResourceAction};
use crate::policy::reason::Reason;
use crate::proto::{CheckRequest, Endpoint, Token};
use crate::wire::convert;
use crate::wire::names::reason_name;

/// The tests to run.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// The test file.
    file: PathBuf,

    /// Use this catalog instead of the one that the test file names.
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,

    /// The output format.
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    output: OutputFormat,
}

/// A test file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogTest {
    /// The path of the catalog file, relative to the test file.
    catalog: PathBuf,
    /// The time of all decisions. The default is the current time.
    now: Option<String>,
    #[serde(default)]
    companies: BTreeMap<String, CompanyYaml>,
    tests: Vec<Test>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Test {
    name: String,
    check: CheckYaml,
    expect: ExpectedYaml,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckYaml {
    company: String,
    credential: String,
    scopes: Option<Vec<String>>,
    endpoint: Option<EndpointInput>,
    resource: Option<ResourceYaml>,
    audience: Option<String>,
    token: Option<TokenYaml>,
    user: Option<String>,
    resource_owner: Option<String>,
}

/// An action on a resource.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceYaml {
    #[serde(rename = "type")]
    kind: String,
    id: String,
    action: String,
    #[serde(default)]
    properties: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    action_properties: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenYaml {
    #[serde(default)]
    audience: String,
    #[serde(default)]
    scopes: Vec<String>,
    issued_at: Option<String>,
    expires_at: Option<String>,
    user: Option<String>,
}

/// The expected answer. A field that is absent is not compared.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedYaml {
    decision: Decision,
    reason: Option<String>,
    missing_scopes: Option<Vec<String>>,
    reach: Option<ReachName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Decision {
    Allowed,
    Denied,
    /// No decision: the audience of the check is ambiguous.
    Invalid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum ReachName {
    All,
    Own,
}

/// The outcome of one test.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TestOutcome {
    name: String,
    passed: bool,
    expected: ActualDecision,
    actual: ActualDecision,
}

/// An answer, or the expected part of one.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ActualDecision {
    decision: Decision,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_scopes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reach: Option<ReachName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Debug, Serialize)]
struct TestReport {
    passed: usize,
    failed: usize,
    tests: Vec<TestOutcome>,
}

/// Runs the tests, and prints their outcomes. True if all tests pass.
///
/// # Errors
/// The test file or its catalog is invalid.
pub(super) fn test(args: &TestArgs) -> anyhow::Result<bool> {
    let printer = Printer::new(args.output)?;
    let file = read(&args.file)?;
    let catalog_path = args.file.parent().unwrap_or(Path::new("")).join(&file.catalog);
    let path = args.catalog.clone().unwrap_or(catalog_path);
    let catalog = Catalog::empty()
        .replaced_by(&read_text(&path)?)
        .map_err(|problems| anyhow!("{}", format_errors(&path, &problems)))?;
    let now = file.now.as_deref().map(time::read).transpose();
    let now = now.map_err(|error| anyhow!("now: {error}"))?.unwrap_or_else(Timestamp::now);
    let fixture = Fixture::build(catalog, &file.companies, now)
        .with_context(|| args.file.display().to_string())?;
    let mut tests = Vec::new();
    for test in file.tests {
        let context = || format!("{}: test `{}`", args.file.display(), test.name);
        let actual = test.check.answer(&fixture).with_context(context)?;
        let expected = test.expect.answer().with_context(context)?;
        let passed = expected.matches(&actual);
        tests.push(TestOutcome { name: test.name, passed, expected, actual });
    }
    if tests.is_empty() {
        bail!("{} has no tests: add some under `tests`", args.file.display());
    }
    let failed = tests.iter().filter(|test| !test.passed).count();
    let results = TestReport { passed: tests.len() - failed, failed, tests };
    printer.print_value(&results, report(&results))?;
    Ok(failed == 0)
}

fn read(file: &Path) -> anyhow::Result<CatalogTest> {
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    serde_saphyr::from_str_with_options(&read_text(file)?, options).map_err(|error| {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
        match error.location() {
            Some(at) => anyhow!("{}:{}:{}: {message}", file.display(), at.line(), at.column()),
            None => anyhow!("{}: {message}", file.display()),
        }
    })
}

fn report(results: &TestReport) -> Report {
    let mut report = Report::default();
    let rows = results.tests.iter().map(|test| {
        let name = if test.passed { "ok" } else { "FAILED" };
        [Cell::colored(test.passed, name), test.name.clone().into()]
    });
    report = report.rows(&["OUTCOME", "TEST"], rows);
    for test in results.tests.iter().filter(|test| !test.passed) {
        report = report
            .line(format!("\n{}", test.name))
            .fact("  expected", test.expected.text())
            .fact("  actual", test.actual.text());
    }
    let (passed, failed) = (results.passed, results.failed);
    report.line(format!("\n{passed} passed, {failed} failed"))
}

impl ExpectedYaml {
    fn answer(&self) -> anyhow::Result<ActualDecision> {
        let reason = self.reason.as_deref().map(|name| {
            let names = Reason::ALL.iter().map(|reason| reason_name(*reason));
            let names: Vec<_> = names.chain(["ALLOWED"]).collect();
            let upper = name.strip_prefix("REASON_").unwrap_or(name).to_ascii_uppercase();
            match names.contains(&upper.as_str()) {
                true => Ok(upper),
                false => {
                    Err(anyhow!("`{name}` is not a reason; the reasons are {}", names.join(", ")))
                }
            }
        });
        Ok(ActualDecision {
            decision: self.decision,
            reason: reason.transpose()?,
            missing_scopes: self.missing_scopes.clone(),
            reach: self.reach,
            message: None,
        })
    }
}

impl ActualDecision {
    fn matches(&self, actual: &Self) -> bool {
        fn matches<T: PartialEq>(expected: &Option<T>, actual: &Option<T>) -> bool {
            expected.is_none() || expected == actual
        }
        self.decision == actual.decision
            && matches(&self.reason, &actual.reason)
            && matches(&self.missing_scopes, &actual.missing_scopes)
            && matches(&self.reach, &actual.reach)
    }

    fn text(&self) -> String {
        let decision = match self.decision {
            Decision::Allowed => "ALLOWED",
            Decision::Denied => "DENIED",
            Decision::Invalid => "INVALID",
        };
        let reach = self.reach.map(|reach| match reach {
            ReachName::All => "reach ALL".to_owned(),
            ReachName::Own => "reach OWN".to_owned(),
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

impl ResourceYaml {
    fn requirement(self) -> anyhow::Result<Requirement> {
        let read = |map: serde_json::Map<_, _>| {
            let json = serde_json::Value::Object(map).to_string();
            Properties::parse(&json).map_err(|error| anyhow!("the properties: {error}"))
        };
        Ok(Requirement::Resource(Box::new(ResourceAction {
            kind: self.kind.into(),
            id: self.id.into(),
            action: self.action.into(),
            resource: read(self.properties)?,
            action_properties: read(self.action_properties)?,
        })))
    }
}

impl CheckYaml {
    /// The answer of the evaluator.
    fn answer(mut self, fixture: &Fixture) -> anyhow::Result<ActualDecision> {
        let resource = self.resource.take().map(ResourceYaml::requirement).transpose()?;
        let mut query = convert::query_from_proto(self.request(resource.is_some())?)?;
        if let Some(resource) = resource {
            query.needs = resource;
        }
        let facts = fixture.facts(&query);
        Ok(match decide(&query, facts) {
            Ok(Verdict::Allowed { reach }) => ActualDecision {
                decision: Decision::Allowed,
                reason: Some("ALLOWED".to_owned()),
                missing_scopes: Some(vec![]),
                reach: Some(match reach {
                    Reach::All => ReachName::All,
                    Reach::Own => ReachName::Own,
                }),
                message: None,
            },
            Ok(Verdict::Denied { reason, fault, missing }) => ActualDecision {
                decision: Decision::Denied,
                reason: Some(reason_name(reason).to_owned()),
                missing_scopes: Some(missing.iter().map(ToString::to_string).collect()),
                reach: None,
                message: fault.map(|fault| Cause::from(fault).detail().to_owned()),
            },
            Err(error) => ActualDecision {
                decision: Decision::Invalid,
                reason: None,
                missing_scopes: None,
                reach: None,
                message: Some(format!("`audience` {error}")),
            },
        })
    }

    fn request(self, has_resource: bool) -> anyhow::Result<CheckRequest> {
        let has_scopes = self.scopes.as_ref().is_some_and(|scopes| !scopes.is_empty());
        let is_named = [self.scopes.is_some(), self.endpoint.is_some(), has_resource];
        if is_named.iter().filter(|is| **is).count() != 1 || self.scopes.is_some() && !has_scopes {
            bail!(
                "the check must have at least one of `scopes`, or an `endpoint`, or a `resource`"
            );
        }
        // A request of the API names no resource: the requirement of this one is replaced.
        let placeholder = || EndpointInput { method: "GET".to_owned(), path: "/".to_owned() };
        let endpoint = self.endpoint.or_else(|| has_resource.then(placeholder));
        let time = |text: Option<String>| text.as_deref().map(time::exact).transpose();
        let token = self.token.map(|token| {
            Ok::<_, String>(Token {
                audience: token.audience,
                scopes: token.scopes,
                issued_at: time(token.issued_at)?,
                expires_at: time(token.expires_at)?,
                user_id: token.user.unwrap_or_default(),
            })
        });
        Ok(CheckRequest {
            bearer_token: None,
            authorization: None,
            company_id: self.company,
            credential_id: self.credential,
            scopes: self.scopes.unwrap_or_default(),
            endpoint: endpoint.map(Endpoint::from),
            audience: self.audience.unwrap_or_default(),
            token: token.transpose().map_err(|error| anyhow!(error))?,
            user_id: self.user.unwrap_or_default(),
            resource_owner_id: self.resource_owner.unwrap_or_default(),
            at_least_revision: 0,
        })
    }
}
