//! The operator's commands, by noun and verb. A command's file has its flags and what it does.
//!
//! They speak gRPC like any other client, and know no floor below it. What needs no server, a
//! catalog file's check and its tests, asks the policy, which is what a server would ask; so does
//! the past, of which servers keep the changes alone. Backups are of the store's own form, and a
//! restore has no server to ask.

mod asking;
mod backup;
mod batch;
mod catalog;
mod changes;
mod check;
mod checks;
mod company;
mod completions;
mod confirm;
mod connection;
mod consent;
mod context;
mod credential;
mod decided;
mod effective;
mod explain;
mod export;
mod health;
mod history;
mod import;
mod keys;
mod lookup;
mod moment;
mod output;
mod past;
mod printer;
mod question;
mod restore;
mod restriction;
mod scope;
mod secret;
mod timeout;
mod trial;
mod typed;
mod user;
mod watch;
mod which;

use std::error::Error as _;

use tonic::Code;
use tonic_types::StatusExt;

use crate::policy::text;

pub use self::asking::{Asking, Limit, Terms};
pub use self::backup::backup;
pub use self::batch::{BatchArgs, batch};
pub use self::catalog::{CatalogCommand, catalog};
pub use self::changes::{ChangesCommand, changes};
pub use self::check::{CheckArgs, check};
pub use self::company::{CompanyCommand, company};
pub use self::completions::{CompletionsArgs, completions};
use self::connection::{Connection, Purpose, connect, connect_for};
pub use self::consent::{ConsentCommand, consent};
pub use self::context::{ContextCommand, context};
pub use self::credential::{CredentialCommand, credential};
pub use self::effective::{EffectiveArgs, effective};
pub use self::explain::{ExplainArgs, explain};
pub use self::export::export;
pub use self::health::health;
pub use self::import::import;
pub use self::keys::{KeysCommand, keys};
pub use self::question::{Caller, Question};
pub use self::restore::restore;
pub use self::restriction::RestrictArgs;
pub use self::scope::{ScopeCommand, scope};
pub use self::secret::SecretCommand;
pub use self::user::{UserCommand, user};

/// The exit code of a command that could not ask.
pub const COULD_NOT_ASK: u8 = 2;

/// What a server said, in a sentence, and below it what is wrong with what, where it says that
/// of several things.
fn said(status: &tonic::Status) -> anyhow::Error {
    let details = status.get_error_details();
    let message = text::escaped(status.message());
    let mut text = match details.error_info() {
        Some(_) => message.into_owned(),
        // A sentence of this program, or of a proxy.
        None if status.code() == Code::DeadlineExceeded => message.into_owned(),
        // No sentence of the server's: it did not come to that.
        None => match status.source().map(connection::cause) {
            Some(cause) => format!(
                "the connection to the server broke ({}): see whether it runs, and try again",
                text::escaped(&cause)
            ),
            None => format!("{}: {message}", status.code().description()),
        },
    };
    if let Some(bad) = details.bad_request().filter(|bad| bad.field_violations.len() > 1) {
        for violation in &bad.field_violations {
            let (field, wrong) = (&violation.field, &violation.description);
            text.push_str(&format!("\n  `{}` {}", text::escaped(field), text::escaped(wrong)));
        }
    }
    if let Some(failed) = details.precondition_failure() {
        for violation in &failed.violations {
            let (subject, wrong) = (&violation.subject, &violation.description);
            text.push_str(&format!("\n  {}: {}", text::escaped(subject), text::escaped(wrong)));
        }
    }
    anyhow::anyhow!(text)
}
