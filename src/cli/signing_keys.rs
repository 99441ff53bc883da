//! `scopegate signing-keys`: the keys with which a server signs access tokens.
//!
//! Not here: the API keys of callers; see `keys`.

use clap::Subcommand;

use super::check::word;
use super::client::{ServerArgs, WriteArgs, on_terms, require, unwrap_response};
use super::confirmation::{Confirmation, rest_on};
use super::printer::{Cell, Report};
use super::time;
use crate::proto::{
    DeleteSigningKeyRequest, ListSigningKeysRequest, RotateSigningKeyRequest, SigningKey,
    SigningKeyState,
};

/// Commands of signing keys.
#[derive(Debug, Subcommand)]
pub enum SigningKeysCommand {
    /// List all signing keys, oldest first.
    List {
        /// The server to call.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Let the next key sign from now on, or a new one if there is no next key. The key that signed
    /// before verifies its tokens for another 24 hours.
    Rotate {
        /// Make and publish the next key only. It does not sign yet.
        #[arg(long)]
        publish_only: bool,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Delete a key. The tokens that it signed are invalid from now on. If it is the current key, the
    /// next key signs, or a new one.
    Delete {
        /// The key's id, which is the `kid` of its tokens.
        key: String,
        /// Whether to ask for confirmation.
        #[command(flatten)]
        confirmation: Confirmation,
        /// Options of the change.
        #[command(flatten)]
        write: WriteArgs,
    },
}

/// Runs the command.
///
/// # Errors
/// The server cannot be reached, or returns an error.
pub async fn signing_keys(command: SigningKeysCommand) -> anyhow::Result<bool> {
    match command {
        SigningKeysCommand::List { server } => {
            let mut client = server.open().await?;
            let request = ListSigningKeysRequest {};
            let response = unwrap_response(client.keys.list_signing_keys(request).await)?;
            let rows = response.signing_keys.iter().map(|key| {
                [
                    key.key_id.clone().into(),
                    state(key),
                    time::text(key.state_time.as_ref()).into(),
                    time::text(key.create_time.as_ref()).into(),
                ]
            });
            let report = Report::default().rows(&["KEY", "STATE", "SINCE", "CREATED"], rows);
            client.printer.print(&response, report)?;
        }
        SigningKeysCommand::Rotate { publish_only, write } => {
            let mut client = write.asking.open().await?;
            let request = on_terms!(write, RotateSigningKeyRequest { publish_only: publish_only });
            let response = unwrap_response(client.keys.rotate_signing_key(request).await)?;
            let mut key = require(&response.signing_key)?.clone();
            if write.dry_run {
                // A key that a dry run makes is not the real one.
                key.key_id.clear();
                key.revision = 0;
            }
            let report = write.sheet(response.revision, false).then(report(&key));
            client.printer.print(&response, report)?;
        }
        SigningKeysCommand::Delete { key, confirmation, write } => {
            let mut client = write.asking.open().await?;
            let mut request = on_terms!(write, DeleteSigningKeyRequest { key_id: key.clone() });
            if confirmation.is_asked(&write) {
                let all = client.keys.list_signing_keys(ListSigningKeysRequest {}).await;
                let all = unwrap_response(all)?.signing_keys;
                // For an unknown id, the request below returns the error.
                if let Some(current) = all.iter().find(|current| current.key_id == key) {
                    let question =
                        format!("Delete the signing key {key}, and end all tokens that it signed?");
                    confirmation.ask(&client.printer, report(current), &question).await?;
                    rest_on(&mut request.etag, &current.etag);
                }
            }
            let response = unwrap_response(client.keys.delete_signing_key(request).await)?;
            let report = write
                .gone(response.revision, "delete", "deleted")
                .then(report(require(&response.signing_key)?))
                .revision(write.made(response.revision));
            client.printer.print(&response, report)?;
        }
    }
    Ok(true)
}

fn state(key: &SigningKey) -> Cell {
    let text = word(key.state().as_str_name(), "SIGNING_KEY_STATE_").to_ascii_lowercase();
    Cell::colored(key.state() == SigningKeyState::Current, text)
}

fn report(key: &SigningKey) -> Report {
    Report::default()
        .fact("key", key.key_id.clone())
        .fact("state", state(key))
        .fact("since", time::text(key.state_time.as_ref()))
        .fact("created", time::text(key.create_time.as_ref()))
        .fact("etag", key.etag.clone())
        .revision(key.revision)
}
