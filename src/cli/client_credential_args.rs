//! Client credential arguments: the files that have what an API client presents, for the commands that
//! ask for decisions.
//!
//! The text itself is never an argument, because all users of the machine can see the arguments of a
//! process. An error does not repeat the value of these flags: it may be a token that was given by
//! mistake.
//!
//! Not here: how the text is read and verified, which the server does.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use clap::Args;

use super::{failure, prompt, text_file};
use crate::proto::CheckRequest;
use crate::transport::key_file;

/// The most bytes of a text. It is above the limit of the server, so that a check of a longer token shows
/// what the server decides.
const MAX_BYTES: u64 = 64 << 10;

/// The files of what a client presents: a token or a header.
#[derive(Debug, Args)]
#[group(id = "client_credential", multiple = false)]
pub struct ClientCredentialArgs {
    /// Read the client's access token from this file, `-` for standard input. The server verifies the
    /// token, and the token names the company and the credential. All arguments are scopes then.
    #[arg(long, value_name = "FILE")]
    bearer_token: Option<PathBuf>,

    /// Read the client's header `Authorization` from this file, `-` for standard input: `Bearer` and an
    /// access token, `Bearer` and a secret, or `Basic`. The header names the company and the credential.
    /// All arguments are scopes then.
    #[arg(long, value_name = "FILE")]
    authorization: Option<PathBuf>,
}

/// The text that a client presents.
#[derive(Debug, Default)]
pub(super) struct ClientCredentialText {
    pub(super) bearer_token: Option<String>,
    pub(super) authorization: Option<String>,
}

impl ClientCredentialArgs {
    /// Whether one of the files is given.
    pub(super) fn is_given(&self) -> bool {
        self.bearer_token.is_some() || self.authorization.is_some()
    }

    /// Whether standard input is one of the files.
    pub(super) fn is_standard_input(&self) -> bool {
        [&self.bearer_token, &self.authorization].into_iter().flatten().any(|file| is_input(file))
    }

    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read, is too long or is not UTF-8.
    pub(super) async fn read(&self) -> anyhow::Result<ClientCredentialText> {
        Ok(ClientCredentialText {
            bearer_token: read("--bearer-token", self.bearer_token.as_deref()).await?,
            authorization: read("--authorization", self.authorization.as_deref()).await?,
        })
    }
}

impl ClientCredentialText {
    /// Whether there is no text, not even an empty one.
    pub(super) fn is_empty(&self) -> bool {
        self.bearer_token.is_none() && self.authorization.is_none()
    }

    /// Adds the text to a check that has no token of its own.
    pub(super) fn add_to(&self, check: &mut CheckRequest) {
        let CheckRequest { token, bearer_token, authorization, .. } = check;
        if token.is_none() && bearer_token.is_none() && authorization.is_none() {
            bearer_token.clone_from(&self.bearer_token);
            authorization.clone_from(&self.authorization);
        }
    }
}

fn is_input(file: &Path) -> bool {
    file.as_os_str() == "-"
}

async fn read(flag: &str, file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(file) = file else { return Ok(None) };
    let text = if is_input(file) {
        let prompt = format!("The text of {flag}:");
        prompt::secret(&prompt, MAX_BYTES).await?.trim_start_matches('\u{feff}').to_owned()
    } else {
        let mut bytes = Vec::new();
        let opened =
            File::open(file).and_then(|open| open.take(MAX_BYTES + 1).read_to_end(&mut bytes));
        opened.map_err(|error| match looks_secret(file) {
            true => anyhow!(
                "{flag} takes the name of a file and not a token or a secret, because all users of this \
                 machine can see the arguments of a command: write it to a file, or give `-` and write \
                 it to standard input"
            ),
            false => anyhow!(
                "the file of {flag} cannot be read ({}): give the name of a file, or `-` for standard \
                 input",
                error.kind()
            ),
        })?;
        if bytes.len() as u64 > MAX_BYTES {
            bail!("the file of {flag} has more than {MAX_BYTES} bytes: is it the right file?");
        }
        if let Some(exposure) = key_file::exposure(flag, file) {
            failure::warn(&exposure);
        }
        text_file::text(&bytes).map_err(|error| anyhow!("the file of {flag} {error}"))?
    };
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Some(text.strip_suffix('\r').unwrap_or(text).to_owned()))
}

/// Whether the name of a file looks like what should be in the file.
fn looks_secret(file: &Path) -> bool {
    let name = file.to_string_lossy().to_ascii_lowercase();
    ["bearer", "basic", "sgs_", "sgk_", "eyj"].iter().any(|prefix| name.starts_with(prefix))
        || name.matches('.').count() == 2 && name.len() > 64 && !name.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_secret_and_header_are_recognized_in_place_of_a_file() {
        for text in ["Bearer", "basic YTpi", "sgs_ab_cd", "eyJhbGciOiJFUzI1NiJ9.e30.x"] {
            assert!(looks_secret(Path::new(text)), "{text}");
        }
        for name in ["token", "./token.txt", "/run/secrets/a.b.c", "-"] {
            assert!(!looks_secret(Path::new(name)), "{name}");
        }
    }
}
