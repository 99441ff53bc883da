//! `scopegate catalog test`: expected decisions, tried on a catalog without a server.
//!
//! A test file says what is so (companies, credentials, users, consents) and which checks of that
//! are decided how. The facts are made by the changes that a server makes them by, and the
//! decisions by the evaluator that a server asks: what passes here is decided so there.

mod fixture;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::fixture::{CompanyYaml, Fixture};
use super::catalog::{listed, text};
use super::output_format::OutputFormat;
use super::printer::{Cell, Printer, Report};
use super::time;
use crate::policy::catalog::{Catalog, Reach};
use crate::policy::cause::Cause;
use crate::policy::decision::{Verdict, decide};
use crate::policy::reason::Reason;
use crate::proto::{CheckRequest, Endpoint, Token};
use crate::wire::convert;
use crate::wire::names::reason_name;

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
    output: OutputFormat,
}

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogTest {
    /// The catalog's file, as seen from this one.
    catalog: PathBuf,
    /// The time at which all is decided; the present, if not given.
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
    expect: Expected,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckYaml {
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
struct TestReport {
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
        .replaced_by(&text(&path)?)
        .map_err(|problems| anyhow!("{}", listed(&path, &problems)))?;
    let now = trial.now.as_deref().map(time::read).transpose();
    let now = now.map_err(|error| anyhow!("now: {error}"))?.unwrap_or_else(Timestamp::now);
    let town = Fixture::build(catalog, &trial.companies, now)
        .with_context(|| args.file.display().to_string())?;
    let mut tests = Vec::new();
    for test in trial.tests {
        let place = || format!("{}: test `{}`", args.file.display(), test.name);
        let actual = test.check.answer(&town).with_context(place)?;
        let expected = test.expect.answer().with_context(place)?;
        let passed = expected.is_met_by(&actual);
        tests.push(Outcome { name: test.name, passed, expected, actual });
    }
    if tests.is_empty() {
        bail!("{} has no tests: add some under `tests`", args.file.display());
    }
    let failed = tests.iter().filter(|test| !test.passed).count();
    let report = TestReport { passed: tests.len() - failed, failed, tests };
    printer.print_value(&report, sheet(&report))?;
    Ok(failed == 0)
}

fn read(file: &Path) -> anyhow::Result<CatalogTest> {
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

fn sheet(report: &TestReport) -> Report {
    let mut sheet = Report::default();
    let rows = report.tests.iter().map(|test| {
        let word = if test.passed { "ok" } else { "FAILED" };
        [Cell::colored(test.passed, word), test.name.clone().into()]
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
            let known = Reason::ALL.iter().map(|reason| reason_name(*reason));
            let known: Vec<_> = known.chain(["ALLOWED"]).collect();
            let plain = word.strip_prefix("REASON_").unwrap_or(word).to_ascii_uppercase();
            match known.contains(&plain.as_str()) {
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

impl CheckYaml {
    /// What is answered to it.
    fn answer(self, town: &Fixture) -> anyhow::Result<Answer> {
        let query = convert::query_from_proto(self.request()?)?;
        let facts = town.facts(&query);
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
            Ok(Verdict::Denied { reason, fault, missing }) => Answer {
                decision: Decision::Denied,
                reason: Some(reason_name(reason).to_owned()),
                missing_scopes: Some(missing.iter().map(ToString::to_string).collect()),
                reach: None,
                message: fault.map(|fault| Cause::from(fault).detail().to_owned()),
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

    fn request(self) -> anyhow::Result<CheckRequest> {
        let named = self.scopes.as_ref().is_some_and(|scopes| !scopes.is_empty());
        if named == self.endpoint.is_some() || self.scopes.is_some() && self.endpoint.is_some() {
            bail!("the check must have `scopes`, at least one, or an `endpoint`");
        }
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
            company_id: self.company,
            credential_id: self.credential,
            scopes: self.scopes.unwrap_or_default(),
            endpoint: self.endpoint.map(|Call { method, path }| Endpoint { method, path }),
            audience: self.audience.unwrap_or_default(),
            token: token.transpose().map_err(|error| anyhow!(error))?,
            user_id: self.user.unwrap_or_default(),
            resource_owner_id: self.resource_owner.unwrap_or_default(),
            at_least_revision: 0,
        })
    }
}
