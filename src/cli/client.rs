//! Client: what the commands that call a server share: their flags, the services, the options of a
//! change, and pages of a list.
//!
//! Not here: how the connection is made; see [`super::connection`].

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

/// The maximum size of a response in bytes: a page of credentials with all of their grants.
const MAX_RESPONSE: usize = 256 << 20;

/// The server to call, and the output format.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// The output format: a table for people, or the JSON of the API for programs.
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    pub output: OutputFormat,

    /// The server to connect to.
    #[command(flatten)]
    pub server: EndpointArgs,
}

/// The services of a server, and the printer for their responses.
pub(super) struct Client {
    /// Decisions and scopes.
    pub authorization: AuthorizationServiceClient<Connection>,
    /// Companies, credentials and users.
    pub directory: DirectoryServiceClient<Connection>,
    /// The catalog.
    pub catalog: CatalogServiceClient<Connection>,
    /// The audit log.
    pub changes: ChangeServiceClient<Connection>,
    /// API keys.
    pub keys: KeyServiceClient<Connection>,
    /// The printer.
    pub printer: Printer,
}

impl ServerArgs {
    /// Connects to the server.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub(super) async fn open(&self) -> anyhow::Result<Client> {
        self.open_on(connect(&self.server).await?)
    }

    /// A client on an open connection.
    ///
    /// # Errors
    /// The protobuf descriptors of this program cannot be decoded.
    pub(super) fn open_on(&self, channel: Connection) -> anyhow::Result<Client> {
        let printer = Printer::new(self.output)?;
        Ok(Client {
            authorization: AuthorizationServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_RESPONSE),
            directory: DirectoryServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_RESPONSE),
            catalog: CatalogServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_RESPONSE),
            changes: ChangeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_RESPONSE),
            keys: KeyServiceClient::new(channel),
            printer,
        })
    }
}

/// The message of a response.
///
/// # Errors
/// The server returned an error.
pub fn unwrap_response<T>(response: Result<Response<T>, Status>) -> anyhow::Result<T> {
    response.map(Response::into_inner).map_err(|status| server_error(&status))
}

/// A resource that a response must have.
///
/// # Errors
/// The response does not have it: the server does not follow the API.
pub fn require<T>(resource: &Option<T>) -> anyhow::Result<&T> {
    resource.as_ref().ok_or_else(|| {
        anyhow::anyhow!("the response is empty: is this a scopegate server of the same version?")
    })
}

/// Parses free text, which may begin with a hyphen. If the text was forgotten, the flag behind it must
/// not be taken as the text.
///
/// # Errors
/// The text looks like a flag.
pub fn free_text(text: &str) -> Result<String, String> {
    let is_word = text.starts_with("--") && std::env::args_os().any(|word| word == text);
    if is_word {
        return Err(format!("it looks like a flag: write `--FLAG={text}` if it is the text"));
    }
    Ok(text.to_owned())
}

/// The options of a change, and its entry in the audit log.
#[derive(Debug, Args)]
pub struct WriteArgs {
    /// The reason, for the audit log.
    #[arg(long, allow_hyphen_values = true, value_parser = free_text, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub reason: String,

    /// The person for whom you act, for the audit log.
    #[arg(long, allow_hyphen_values = true, value_parser = free_text, default_value = "", hide_default_value = true, value_name = "PERSON")]
    pub on_behalf_of: String,

    /// Make the change only if this is still the etag of the resource.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub etag: String,

    /// A UUID that makes the change idempotent: within a day it can be sent again.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "UUID")]
    pub request_id: String,

    /// Validate the change and show its effect, but change nothing.
    #[arg(long)]
    pub dry_run: bool,

    /// The server to call, and the output format.
    #[command(flatten)]
    pub asking: ServerArgs,
}

impl WriteArgs {
    /// The first lines of the report of a change: whether it changed anything, or would, and at which
    /// revision.
    #[must_use]
    pub fn sheet(&self, revision: u64, is_same: bool) -> Report {
        let report = Report::default();
        match (self.dry_run, is_same) {
            (true, true) => report.line(format!(
                "at revision {revision}, nothing was changed; there is nothing to change, it stays:"
            )),
            (true, false) => report.line(format!(
                "at revision {revision}, nothing was changed; the change would leave:"
            )),
            (false, true) => {
                report.line(format!("nothing to change: at revision {revision} it was so already:"))
            }
            (false, false) => report,
        }
    }

    /// The line for a text that a response does not have, because the server had made the change before.
    /// Without --request-id the command itself sent the change again; see `failover`.
    #[must_use]
    pub fn not_shown(&self, text: &str) -> String {
        match self.request_id.is_empty() {
            true => format!(
                "the first response was lost with the {text}, which is shown once: delete it, and \
                 create another"
            ),
            false => format!("the {text} was shown with the first response to this request id"),
        }
    }

    /// The first line of the report of a deletion.
    #[must_use]
    pub fn gone(&self, revision: u64, would: &str, did: &str) -> Report {
        Report::default().line(match self.dry_run {
            true => format!("at revision {revision}, nothing was changed; would {would}:"),
            false => format!("{did}:"),
        })
    }

    /// The revision of a change; 0 for a dry run.
    #[must_use]
    pub fn made(&self, revision: u64) -> u64 {
        if self.dry_run { 0 } else { revision }
    }

    /// Whether to read the resource before the change, to report whether the change had an effect.
    #[must_use]
    pub fn compares(&self) -> bool {
        !self.dry_run && self.request_id.is_empty() && self.asking.output == OutputFormat::Table
    }

    /// The etag of a resource before a change, if the report compares it with the etag after.
    #[must_use]
    pub fn compared(&self, etag: Option<&String>) -> Option<String> {
        etag.filter(|_| self.compares()).cloned()
    }

    /// Whether a change had no effect on a resource. `before` is its etag before the change, if it was
    /// read.
    #[must_use]
    pub fn is_same(&self, before: Option<&str>, etag: &str, own: u64, responded: u64) -> bool {
        match self.dry_run {
            // A resource that a dry run would change has the next revision.
            true => own <= responded,
            false => !etag.is_empty() && before == Some(etag),
        }
    }
}

/// Builds the request of a change with these options.
macro_rules! on_terms {
    ($write:expr, $request:ident { $($field:ident: $value:expr),* $(,)? }) => {
        $request {
            $($field: $value,)*
            etag: $write.etag.clone(),
            validate_only: $write.dry_run,
            request_id: $write.request_id.clone(),
            reason: $write.reason.clone(),
            on_behalf_of: $write.on_behalf_of.clone(),
        }
    };
}
pub(super) use on_terms;

/// The maximum length of a list.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Limit {
    /// The maximum number to list. By default the whole list.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

impl Limit {
    /// The maximum number to list.
    #[must_use]
    pub fn max(self) -> u64 {
        self.limit.unwrap_or(u64::MAX)
    }
}

/// The position in a list that is read page by page.
#[derive(Debug)]
pub struct Pages {
    remaining: u64,
    /// The token of the next page.
    pub token: String,
}

impl Pages {
    /// The first page.
    #[must_use]
    pub fn of(limit: Limit) -> Self {
        Self { remaining: limit.max(), token: String::new() }
    }

    /// The size of the next page.
    #[must_use]
    pub fn size(&self) -> i32 {
        i32::try_from(self.remaining).unwrap_or(i32::MAX).min(1_000)
    }

    /// Moves to the next page after `received` entries. True if there is one and the limit is not
    /// reached.
    pub fn turn(&mut self, received: usize, next: &str) -> bool {
        self.remaining = self.remaining.saturating_sub(received as u64);
        next.clone_into(&mut self.token);
        self.remaining > 0 && !next.is_empty()
    }
}

/// The last line of a list that `--limit` has cut.
pub(super) const MORE: &str = "there are more: raise --limit";

/// Adds the last line of a list, if the list was cut or is empty.
#[must_use]
pub fn truncated(report: Report, next: &str) -> Report {
    if !next.is_empty() {
        return report.line(MORE);
    }
    if report.is_empty() { report.line("none") } else { report }
}

/// Adds the scopes that a change added and removed.
#[must_use]
pub fn moved(report: Report, added: &[String], removed: &[String]) -> Report {
    report.fact("added", added.join(" ")).fact("removed", removed.join(" "))
}
