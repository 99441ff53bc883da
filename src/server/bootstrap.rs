//! Bootstrap: creates an operator's key in a store that no server has open.
//!
//! The store of a replica gets its changes from the log of the cluster. So the command joins the cluster
//! with that store, while the replica is stopped, and creates the key as a change of the cluster.
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
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::StartupError;
use super::etcd_args::EtcdArgs;
use super::replica_start::{ReplicaStart, joined};
use crate::authority::api_keys::NewKey;
use crate::authority::{Authority, WriteOptions};
use crate::observe::log;
use crate::policy::id::Name;
use crate::policy::role::{Role, Roles};
use crate::policy::secret::SecretText;
use crate::store::replicated::Settings;
use crate::store::replicated::head::Head;
use crate::store::replicated::membership::MembershipState;
use crate::store::{OpenError, Store, StoreError};

/// The page cache of a store of one key, in bytes.
const PAGE_CACHE: u64 = 1 << 20;
/// The name of the replica in lists and logs for the time of the command.
const REPLICA_NAME: &str = "keys-bootstrap";
/// Its lease: that of a server by default. Only the record of a command that is killed lasts so long.
const LEASE: Duration = Duration::from_secs(4);
/// How long a replica may take to catch up with the log and to join the cluster.
const JOIN_WITHIN: Duration = Duration::from_secs(60);

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

    /// The etcd of the cluster, if the store is one of its replicas. The replica must be stopped.
    #[command(flatten)]
    pub etcd: EtcdArgs,
}

impl BootstrapArgs {
    /// The settings of the replica for the time of the command.
    fn replica_settings(&self) -> Result<Option<Settings>, StartupError> {
        let Some(etcd) = self.etcd.settings() else { return Ok(None) };
        let name = Name::parse(REPLICA_NAME)
            .map_err(|error| StartupError::Config(format!("the name of the replica {error}")))?;
        // It serves nothing, so no replica fetches a snapshot from it.
        Ok(Some(Settings { etcd, name, advertise: String::new(), ttl: LEASE }))
    }
}

/// Creates the key and writes it to standard output or to a new file.
///
/// # Errors
/// The store cannot be opened, the name is not valid, or the key cannot be written.
pub async fn bootstrap(args: &BootstrapArgs) -> Result<(), StartupError> {
    let name = Name::parse(args.name.as_str());
    let name = name.map_err(|error| StartupError::Config(format!("--name {error}")))?;
    let store = match args.replica_settings()? {
        Some(settings) => {
            ReplicaStart::of_command(settings)?.open(&args.data_dir, PAGE_CACHE).await?
        }
        None => alone(&args.data_dir)?,
    };
    // Recovery must also work on a full disk.
    let store = store.using_the_reserve();
    let upgraded_from = store.upgraded_from();
    let authority = Authority::new(Arc::new(store), 1)
        .map_err(|error| OpenError::of(&args.data_dir, &error))?;
    if let Err(error) = joined_in_time(&authority).await {
        authority.close();
        return Err(error);
    }
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
    let created = create_operator(&authority, name).await;
    authority.close();
    let (id, secret) = created?;
    let written = writeln!(output, "{secret}").and_then(|()| output.flush());
    written.map_err(|error| {
        StartupError::Config(format!("the key `{id}` was created and could not be written: {error}; delete it and create another"))
    })
}

/// Opens the store of a server of its own.
fn alone(dir: &Path) -> Result<Store, StartupError> {
    let store = Store::open(dir)?;
    match store.cluster() {
        Some(cluster) => Err(StartupError::Config(format!(
            "the store in `{0}` is one of the replicas of the cluster `{1}`, and gets its keys from the \
             log: create the key at a replica, with `scopegate keys create`, or, without any key, with \
             `scopegate keys bootstrap --data-dir {0} --replicate URL` while this replica is stopped",
            dir.display(),
            cluster.id
        ))),
        None => Ok(store),
    }
}

/// Waits until the replica of this authority has joined the cluster, if it is one.
async fn joined_in_time(authority: &Authority) -> Result<(), StartupError> {
    let joined = tokio::time::timeout(JOIN_WITHIN, joined(authority)).await;
    let why = || match authority.replica().map(|replica| replica.state().borrow().clone()) {
        Some(MembershipState::Joining(why)) => format!(": {why}"),
        _ => String::new(),
    };
    joined.unwrap_or_else(|_| {
        Err(StartupError::Replica(format!(
            "the replica did not join the cluster within {} s{}",
            JOIN_WITHIN.as_secs(),
            why()
        )))
    })
}

/// Creates the first operator key of a cluster in an empty store in this directory. Returns its secret
/// and the entry that creates it, which is the first one behind this head.
pub(super) async fn first_key(
    dir: &Path,
    head: &Head,
    name: Name,
) -> Result<(String, Vec<u8>), StartupError> {
    let (sender, entries) = mpsc::channel();
    let store = Store::create_for(dir, PAGE_CACHE, head, None)?.using_the_reserve();
    let authority = Authority::new(Arc::new(store.sending_entries(sender)), 1)
        .map_err(|error| OpenError::of(dir, &error))?;
    let created = create_operator(&authority, name).await;
    authority.close();
    let (_, secret) = created?;
    // The creation of a key is one change, and an entry has at least one.
    let entry = entries.recv().map_err(|_| StoreError::Unavailable)?;
    Ok((secret, entry))
}

/// Creates an operator's key. Returns its id and its secret.
async fn create_operator(
    authority: &Authority,
    name: Name,
) -> Result<(String, String), StartupError> {
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
    let created = created.map_err(|error| StartupError::Config(error.to_string()))?;
    let secret = created.secret.map(SecretText::reveal).unwrap_or_default();
    Ok((created.id.map(|id| id.to_string()).unwrap_or_default(), secret.to_string()))
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
