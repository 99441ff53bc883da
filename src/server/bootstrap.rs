//! Bootstrap: creates an operator's key in a store that no server has open.
//!
//! A user that can write to the store's directory can do everything anyway, so this command is also
//! the recovery when all keys are lost. The audit log has it like any other change.
//!
//! Not here: keys that a running server creates; see `authority::api_keys`.

use clap::Args;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use super::StartupError;
use crate::authority::api_keys::NewKey;
use crate::authority::{Authority, WriteOptions};
use crate::observe::log;
use crate::policy::id::Name;
use crate::policy::role::{Role, Roles};
use crate::policy::secret::SecretText;
use crate::store::{OpenError, Store};

/// The key to create without a server.
#[derive(Debug, Args)]
pub struct BootstrapArgs {
    /// The directory of the store. It is created if it does not exist.
    #[arg(
        long,
        env = "SCOPEGATE_DATA_DIR",
        default_value = "./scopegate-data",
        value_name = "DIR"
    )]
    pub data_dir: PathBuf,

    /// The name of the key's holder: the actor of its changes in the audit log.
    #[arg(long, default_value = "operator", value_name = "NAME")]
    pub name: String,

    /// Create a key only if there never was one, and do nothing otherwise. For scripts that run before
    /// every start of a server.
    #[arg(long)]
    pub if_no_keys: bool,

    /// Write the key to this file, which must not exist, instead of to standard output.
    #[arg(long, value_name = "FILE")]
    pub to_file: Option<PathBuf>,
}

/// Creates the key and writes it to standard output or to a new file.
///
/// # Errors
/// The store cannot be opened, the name is not valid, or the key cannot be written.
pub async fn bootstrap(args: &BootstrapArgs) -> Result<(), StartupError> {
    let name = Name::parse(args.name.as_str());
    let name = name.map_err(|error| StartupError::Config(format!("--name {error}")))?;
    // Recovery must also work on a full disk.
    let store = Store::open(&args.data_dir)?.using_the_reserve();
    let upgraded_from = store.upgraded_from();
    let authority = Authority::new(Arc::new(store), 1)
        .map_err(|error| OpenError::of(&args.data_dir, &error))?;
    // The rules for paths and methods changed with schema 2.
    if upgraded_from == Some(1) {
        // The notices appear once: the next start of a server is no upgrade.
        for sentence in super::upgrade_notices(&authority).await {
            log::tell(&format!("scopegate: {sentence}"));
        }
    }
    if args.if_no_keys && authority.requires_keys() {
        authority.close();
        return Ok(());
    }
    // The output is opened first, so that no key is created that cannot be written.
    let mut output: Box<dyn Write> = match &args.to_file {
        Some(path) => Box::new(new_file(path)?),
        None => Box::new(io::stdout()),
    };
    let new = NewKey {
        name,
        roles: Roles::NONE.with(Role::Operator),
        companies: vec![],
        certificate: None,
        certificate_only: false,
        expires_at: None,
    };
    let session = authority.internal_session("scopegate keys bootstrap");
    let created = session.create_key(&new, &WriteOptions::default()).await;
    authority.close();
    let created = created.map_err(|error| StartupError::Config(error.to_string()))?;
    let secret = created.secret.map(SecretText::reveal).unwrap_or_default();
    let written = writeln!(output, "{secret}").and_then(|()| output.flush());
    written.map_err(|error| {
        let id = created.id.map(|id| id.to_string()).unwrap_or_default();
        StartupError::Config(format!("the key `{id}` was created and could not be written: {error}; delete it and create another"))
    })
}

/// A new file that only this user can read.
fn new_file(path: &Path) -> Result<impl Write + use<>, StartupError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.map_err(|error| {
        StartupError::Config(format!(
            "--to-file {} cannot be created: {}",
            path.display(),
            error.kind()
        ))
    })
}
