//! Check file: reads checks from a file with one check a line, as JSON objects or as CSV with a
//! header line.
//!
//! Not here: validation of ids and scopes, which the server does.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;
use serde::Deserialize;

use super::client_credential_args::ClientCredentialText;
use super::endpoint_input::EndpointInput;
use super::{text_file, time};
use crate::proto::{CheckRequest, Decision, Endpoint, Token};

/// The maximum length of a line in bytes.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// One check of a file.
#[derive(Debug)]
pub(super) struct FileCheck {
    /// The line number, from 1.
    pub line: u64,
    /// The check.
    pub check: CheckRequest,
    /// The expected decision, if the line has one.
    pub expected: Option<Decision>,
}

/// A line of JSON. Unknown keys are errors, so that a misspelled key is not silently ignored.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    #[serde(default)]
    company_id: String,
    #[serde(default)]
    credential_id: String,
    #[serde(default)]
    scopes: Vec<String>,
    endpoint: Option<EndpointInput>,
    #[serde(default)]
    audience: String,
    #[serde(default)]
    user_id: String,
    #[serde(default)]
    resource_owner_id: String,
    token: Option<TokenInput>,
    bearer_token: Option<String>,
    authorization: Option<String>,
    expect: Option<ExpectedDecision>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenInput {
    #[serde(default)]
    audience: String,
    #[serde(default)]
    scopes: Vec<String>,
    issued_at: Option<String>,
    expires_at: Option<String>,
    #[serde(default)]
    user_id: String,
}

#[derive(Clone, Copy, Debug, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
enum ExpectedDecision {
    Allowed,
    Denied,
}

/// The columns of a CSV file, in order.
type Columns = Vec<Column>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Column {
    CompanyId,
    CredentialId,
    Scopes,
    Method,
    Path,
    Audience,
    UserId,
    ResourceOwnerId,
    Expect,
}

/// A file of checks, which is read line by line.
pub(super) struct Checks {
    input: Box<dyn BufRead>,
    line: u64,
    columns: Option<Columns>,
    is_empty: bool,
    /// What the client of the lines presents that have no token of their own.
    presented: ClientCredentialText,
}

impl Checks {
    /// Opens a file; `-` is standard input. Lines without a token of their own are of the client that
    /// presents this.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn open(file: &Path, presented: ClientCredentialText) -> anyhow::Result<Self> {
        let input: Box<dyn Read> = match file.as_os_str().to_str() {
            Some("-") => Box::new(io::stdin()),
            _ => Box::new(
                File::open(file).with_context(|| format!("cannot read {}", file.display()))?,
            ),
        };
        let mut input = BufReader::new(input);
        text_file::skip_mark(&mut input).map_err(|error| anyhow!("{} {error}", file.display()))?;
        Ok(Self { input: Box::new(input), line: 0, columns: None, is_empty: true, presented })
    }

    /// The next check, or `None` at the end of the file.
    ///
    /// # Errors
    /// A line is not a valid check.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<FileCheck>> {
        let mut next = self.parse_next()?;
        if let Some(FileCheck { check, .. }) = &mut next {
            self.presented.add_to(check);
        }
        Ok(next)
    }

    fn parse_next(&mut self) -> anyhow::Result<Option<FileCheck>> {
        loop {
            let mut bytes = Vec::new();
            self.line += 1;
            let line = self.line;
            let read = self.input.by_ref().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut bytes);
            let length = read.map_err(|e| anyhow!("line {line}: cannot be read: {}", e.kind()))?;
            if length == 0 {
                if self.is_empty {
                    bail!(
                        "the file has no check: write one JSON object a line, or CSV with a header \
                         line"
                    );
                }
                return Ok(None);
            }
            if length as u64 > MAX_LINE_BYTES {
                bail!("line {line}: has more than {MAX_LINE_BYTES} bytes");
            }
            let text =
                std::str::from_utf8(&bytes).map_err(|_| anyhow!("line {line}: is not UTF-8"))?;
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            if let Some(columns) = &self.columns {
                self.is_empty = false;
                return parse_csv(text, columns, line)
                    .map(Some)
                    .with_context(|| format!("line {line}"));
            }
            if text.starts_with('{') {
                self.is_empty = false;
                return parse_json(text, line).map(Some).with_context(|| format!("line {line}"));
            }
            if line > 1 {
                bail!("line {line}: is not a JSON object");
            }
            self.columns = Some(parse_header(text, self.presented.is_empty())?);
        }
    }
}

fn parse_json(text: &str, line: u64) -> anyhow::Result<FileCheck> {
    let row: Row = serde_json::from_str(text).map_err(|error| {
        // serde_json counts lines of its own, so its position is cut off.
        let message = error.to_string();
        let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(text, _)| text);
        anyhow!("column {}: {message}", error.column())
    })?;
    let time = |text: Option<String>| text.as_deref().map(time::exact).transpose();
    let token = row.token.map(|token| {
        let TokenInput { audience, scopes, issued_at, expires_at, user_id } = token;
        let (issued_at, expires_at) = (time(issued_at)?, time(expires_at)?);
        Ok::<_, String>(Token { audience, scopes, issued_at, expires_at, user_id })
    });
    let check = CheckRequest {
        bearer_token: row.bearer_token,
        authorization: row.authorization,
        company_id: row.company_id,
        credential_id: row.credential_id,
        scopes: row.scopes,
        endpoint: row.endpoint.map(Endpoint::from),
        audience: row.audience,
        user_id: row.user_id,
        resource_owner_id: row.resource_owner_id,
        token: token.transpose().map_err(|error| anyhow!("the token's {error}"))?,
        at_least_revision: 0,
    };
    Ok(FileCheck { line, check, expected: row.expect.map(ExpectedDecision::decision) })
}

/// Parses the header line. The ids are needed if nothing else names the client.
fn parse_header(text: &str, needs_ids: bool) -> anyhow::Result<Columns> {
    let mut columns = Columns::new();
    for name in split_csv_row(text)? {
        let column = Column::from_str(&name, false).map_err(|_| {
            let all = Column::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let all: Vec<_> = all.map(|value| value.get_name().to_owned()).collect();
            let names = all.join(", ");
            anyhow!(
                "line 1: `{name}` is neither a JSON object nor a column; the columns are {names}"
            )
        })?;
        if columns.contains(&column) {
            bail!("line 1: duplicate column `{name}`");
        }
        columns.push(column);
    }
    for (needed, name) in
        [(Column::CompanyId, "company_id"), (Column::CredentialId, "credential_id")]
    {
        if needs_ids && !columns.contains(&needed) {
            bail!("line 1: the column `{name}` is missing");
        }
    }
    Ok(columns)
}

fn parse_csv(text: &str, columns: &Columns, line: u64) -> anyhow::Result<FileCheck> {
    let cells = split_csv_row(text)?;
    if cells.len() != columns.len() {
        bail!("has {} cells, but the header has {}", cells.len(), columns.len());
    }
    let (mut check, mut endpoint, mut expected) =
        (CheckRequest::default(), Endpoint::default(), None);
    for (column, cell) in columns.iter().zip(cells) {
        match column {
            Column::CompanyId => check.company_id = cell,
            Column::CredentialId => check.credential_id = cell,
            Column::Scopes => check.scopes = cell.split_whitespace().map(str::to_owned).collect(),
            Column::Method => endpoint.method = cell,
            Column::Path => endpoint.path = cell,
            Column::Audience => check.audience = cell,
            Column::UserId => check.user_id = cell,
            Column::ResourceOwnerId => check.resource_owner_id = cell,
            Column::Expect if cell.is_empty() => {}
            Column::Expect => {
                let expected_cell = ExpectedDecision::from_str(&cell, true)
                    .map_err(|_| anyhow!("`{cell}` is neither `allowed` nor `denied`"))?;
                expected = Some(expected_cell.decision());
            }
        }
    }
    let has_endpoint = !endpoint.method.is_empty() || !endpoint.path.is_empty();
    check.endpoint = has_endpoint.then_some(endpoint);
    Ok(FileCheck { line, check, expected })
}

/// Splits a CSV row into its cells (RFC 4180). Line breaks inside of quotes are not supported.
fn split_csv_row(text: &str) -> anyhow::Result<Vec<String>> {
    let (mut cells, mut cell, mut quoted) = (vec![], String::new(), false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' if quoted && rest.next_if_eq(&'"').is_some() => cell.push('"'),
            '"' if quoted || cell.is_empty() => quoted = !quoted,
            ',' if !quoted => cells.push(std::mem::take(&mut cell)),
            c => cell.push(c),
        }
    }
    if quoted {
        bail!("a quote is not closed");
    }
    cells.push(cell);
    Ok(cells)
}

impl ExpectedDecision {
    fn decision(self) -> Decision {
        match self {
            Self::Allowed => Decision::Allowed,
            Self::Denied => Decision::Denied,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_rows_are_split_by_rfc_4180() {
        let read = |text: &str| split_csv_row(text).expect(text);
        assert_eq!(read("a,b,,"), ["a", "b", "", ""]);
        assert_eq!(read(r#""a,b","say ""no""",c"#), ["a,b", "say \"no\"", "c"]);
        assert_eq!(read(r#""",x"#), ["", "x"]);
        assert!(split_csv_row("\"a").is_err());
    }
}
