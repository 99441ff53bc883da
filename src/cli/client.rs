//! Asking: what every command of a server has in common, from its flags to its answer.

use clap::Args;
use tonic::{Response, Status};

use super::connection::{Connection, connect};
use super::endpoint_args::EndpointArgs;
use super::failure::server_error;
use super::output_format::OutputFormat;
use super::printer::Printer;
use super::report::Report;
use crate::proto::authorization_service_client::AuthorizationServiceClient;
use crate::proto::catalog_service_client::CatalogServiceClient;
use crate::proto::change_service_client::ChangeServiceClient;
use crate::proto::directory_service_client::DirectoryServiceClient;
use crate::proto::key_service_client::KeyServiceClient;

/// The most bytes to read of an answer: a page of credentials with all of their grants.
const MAX_ANSWER: usize = 256 << 20;

/// Whom to ask, and how to write the answer.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// How to write the answer: for people, or as the contract's JSON for programs.
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    pub output: OutputFormat,

    /// Which server to ask.
    #[command(flatten)]
    pub server: EndpointArgs,
}

/// A server's services, and the printer beside them.
pub(super) struct Client {
    /// Decisions and scopes.
    pub authorization: AuthorizationServiceClient<Connection>,
    /// Who exists.
    pub directory: DirectoryServiceClient<Connection>,
    /// What exists.
    pub catalog: CatalogServiceClient<Connection>,
    /// What was done.
    pub changes: ChangeServiceClient<Connection>,
    /// Who may ask.
    pub keys: KeyServiceClient<Connection>,
    /// How it is written down.
    pub printer: Printer,
}

impl ServerArgs {
    /// Connects.
    ///
    /// # Errors
    /// No server answers.
    pub(super) async fn open(&self) -> anyhow::Result<Client> {
        self.open_on(connect(&self.server).await?)
    }

    /// Uses a connection.
    ///
    /// # Errors
    /// None that an operator can mend.
    pub(super) fn open_on(&self, channel: Connection) -> anyhow::Result<Client> {
        let printer = Printer::new(self.output)?;
        Ok(Client {
            authorization: AuthorizationServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_ANSWER),
            directory: DirectoryServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_ANSWER),
            catalog: CatalogServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_ANSWER),
            changes: ChangeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_ANSWER),
            keys: KeyServiceClient::new(channel),
            printer,
        })
    }
}

/// The answer, or what the server said instead.
///
/// # Errors
/// The server refused.
pub fn unwrap_response<T>(answer: Result<Response<T>, Status>) -> anyhow::Result<T> {
    answer.map(Response::into_inner).map_err(|status| server_error(&status))
}

/// A resource that an answer must have.
///
/// # Errors
/// The answer has none: it is no answer of this contract.
pub fn require<T>(resource: &Option<T>) -> anyhow::Result<&T> {
    resource.as_ref().ok_or_else(|| {
        anyhow::anyhow!("the answer is empty: is that a scopegate server of this version?")
    })
}

/// Text for people, which may begin with a hyphen. A flag that stands where the text is missing is
/// none: it must not be swallowed.
///
/// # Errors
/// It looks like a flag.
pub fn free_text(text: &str) -> Result<String, String> {
    let is_word = text.starts_with("--") && std::env::args_os().any(|word| word == text);
    if is_word {
        return Err(format!("it looks like a flag: write `--FLAG={text}` if it is the text"));
    }
    Ok(text.to_owned())
}

/// How a change is made, and what is kept of why.
#[derive(Debug, Args)]
pub struct WriteArgs {
    /// Why, for the audit record.
    #[arg(long, allow_hyphen_values = true, value_parser = free_text, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub reason: String,

    /// The person for whom you act, for the audit record.
    #[arg(long, allow_hyphen_values = true, value_parser = free_text, default_value = "", hide_default_value = true, value_name = "WHO")]
    pub on_behalf_of: String,

    /// Only if this is still the current etag of what is changed.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub etag: String,

    /// A UUID that makes the change safe to send again for a day.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "UUID")]
    pub request_id: String,

    /// Run every check and show what the change would do, and change nothing.
    #[arg(long)]
    pub dry_run: bool,

    /// Whom to ask, and how to write the answer.
    #[command(flatten)]
    pub asking: ServerArgs,
}

impl WriteArgs {
    /// The sheet that an answer to the change begins with, of the revision that it was answered at:
    /// whether anything was changed, or would be.
    #[must_use]
    pub fn sheet(&self, revision: u64, is_same: bool) -> Report {
        let sheet = Report::default();
        match (self.dry_run, is_same) {
            (true, true) => sheet.line(format!(
                "at revision {revision}, nothing was changed; there is nothing to change, it stays:"
            )),
            (true, false) => sheet.line(format!(
                "at revision {revision}, nothing was changed; the change would leave:"
            )),
            (false, true) => {
                sheet.line(format!("nothing to change: at revision {revision} it was so already:"))
            }
            (false, false) => sheet,
        }
    }

    /// The sheet that an answer to a deletion begins with, of the revision that it was answered at.
    #[must_use]
    pub fn gone(&self, revision: u64, would: &str, did: &str) -> Report {
        Report::default().line(match self.dry_run {
            true => format!("at revision {revision}, nothing was changed; would {would}:"),
            false => format!("{did}:"),
        })
    }

    /// The revision of a change that was made; none of a dry run.
    #[must_use]
    pub fn made(&self, revision: u64) -> u64 {
        if self.dry_run { 0 } else { revision }
    }

    /// Whether what is changed should be read before, to tell whether anything was.
    #[must_use]
    pub fn compares(&self) -> bool {
        !self.dry_run && self.request_id.is_empty() && self.asking.output == OutputFormat::Table
    }

    /// The etag of a resource before a change, if it is compared with the one after it.
    #[must_use]
    pub fn compared(&self, etag: Option<&String>) -> Option<String> {
        etag.filter(|_| self.compares()).cloned()
    }

    /// Whether a change left a resource as it was. `before` is its etag before, if it was read.
    #[must_use]
    pub fn is_same(&self, before: Option<&str>, etag: &str, own: u64, answered: u64) -> bool {
        match self.dry_run {
            // What would be changed has the revision that would come next.
            true => own <= answered,
            false => !etag.is_empty() && before == Some(etag),
        }
    }
}

/// A request that makes a change on these terms.
macro_rules! on_terms {
    ($terms:expr, $request:ident { $($field:ident: $value:expr),* $(,)? }) => {
        $request {
            $($field: $value,)*
            etag: $terms.etag.clone(),
            validate_only: $terms.dry_run,
            request_id: $terms.request_id.clone(),
            reason: $terms.reason.clone(),
            on_behalf_of: $terms.on_behalf_of.clone(),
        }
    };
}
pub(super) use on_terms;

/// How much of a list is wanted.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Limit {
    /// The most to list; all, if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

/// Where a list is.
#[derive(Debug)]
pub struct Pages {
    left: u64,
    /// What continues the list.
    pub token: String,
}

impl Pages {
    /// At its beginning.
    #[must_use]
    pub fn of(limit: Limit) -> Self {
        Self { left: limit.limit.unwrap_or(u64::MAX), token: String::new() }
    }

    /// How much to ask for next.
    #[must_use]
    pub fn size(&self) -> i32 {
        i32::try_from(self.left).unwrap_or(i32::MAX).min(1_000)
    }

    /// Whether there is more and it is wanted.
    pub fn turn(&mut self, got: usize, next: &str) -> bool {
        self.left = self.left.saturating_sub(got as u64);
        next.clone_into(&mut self.token);
        self.left > 0 && !next.is_empty()
    }
}

/// What stands under a list that was cut, or instead of one that is empty.
#[must_use]
pub fn truncated(sheet: Report, next: &str) -> Report {
    if !next.is_empty() {
        return sheet.line("there are more: raise --limit");
    }
    if sheet.is_empty() { sheet.line("none") } else { sheet }
}

/// What moved in a set of scopes, as facts.
#[must_use]
pub fn moved(sheet: Report, added: &[String], removed: &[String]) -> Report {
    sheet.fact("added", added.join(" ")).fact("removed", removed.join(" "))
}
