//! Bootstrap: an operator's key, made in a store that no server has open.
//!
//! Whoever can write to the store's directory can do everything anyway, so this is also the way
//! back when all keys are lost. It is logged like any other change.

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

use crate::grpc::reply;
use crate::observe::log;
use crate::policy::caller::{Role, Roles};
use crate::policy::change::Author;
use crate::policy::id::Name;
use crate::store::sled::{OpenError, SledStore};

/// A key to make without a server.
#[derive(Debug, Args)]
pub struct BootstrapArgs {
    /// The directory of the store. Made if it does not exist.
    #[arg(
        long,
        env = "SCOPEGATE_DATA_DIR",
        default_value = "./scopegate-data",
        value_name = "DIR"
    )]
    pub data_dir: PathBuf,

    /// Who will have it: the actor of its changes in the audit log.
    #[arg(long, default_value = "operator", value_name = "NAME")]
    pub name: String,

    /// Make one only if there never was a key, and do nothing otherwise: for what runs before every
    /// start of a server.
    #[arg(long)]
    pub if_no_keys: bool,

    /// Write the key to this file, which must not exist, instead of to standard output.
    #[arg(long, value_name = "FILE")]
    pub to_file: Option<PathBuf>,
}

/// Makes the key, and writes it to standard output or to a new file.
///
/// # Errors
/// The store cannot be opened, the name is none, or the key could not be written.
pub async fn bootstrap(args: &BootstrapArgs) -> Result<(), StartupError> {
    let name = Name::parse(args.name.as_str());
    let name = name.map_err(|error| StartupError::Config(format!("--name {error}")))?;
    // The way back must be open on a full disk too.
    let store = SledStore::open(&args.data_dir)?.using_the_reserve();
    let upgraded_from = store.upgraded_from();
    let authority = Authority::new(Arc::new(store), 1)
        .map_err(|error| OpenError::of(&args.data_dir, &error))?;
    if upgraded_from.is_some() {
        // It is told once, and the next start of a server is no upgrade.
        for sentence in super::other_decisions(&authority).await {
            log::tell(&format!("scopegate: {sentence}"));
        }
    }
    if args.if_no_keys && authority.requires_keys() {
        authority.close();
        return Ok(());
    }
    // Before there is a key that nobody would get to see.
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
    let author = Author { actor: "scopegate keys bootstrap".to_owned(), ..Author::default() };
    let terms = WriteOptions { author, ..WriteOptions::default() };
    let made = authority.create_key(&new, &terms, reply::key_created).await;
    authority.close();
    let made = made.map_err(|refusal| StartupError::Config(refusal.to_string()))?;
    let written = writeln!(output, "{}", made.secret).and_then(|()| output.flush());
    written.map_err(|error| {
        let id = made.key.unwrap_or_default().key_id;
        StartupError::Config(format!("the key `{id}` was made and could not be written: {error}"))
    })
}

/// A file that nobody else can read.
fn new_file(path: &Path) -> Result<impl Write + use<>, StartupError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.map_err(|error| {
        StartupError::Config(format!(
            "--to-file {} cannot be made: {}",
            path.display(),
            error.kind()
        ))
    })
}
