//! `scopegate replicas`: a cluster of replicas, by its log in etcd and by the stores of stopped
//! replicas.
//!
//! These commands need no server, because they are used when none serves. Not here: `list`; see
//! [`super::replica_list`]. And the flags and the steps of `init` and `detach`; see
//! `server::initialisation` and `server::detachment`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::output_format::OutputFormat;
use super::printer::{Printer, Report};
use super::replica_list::{ListArgs, list};
use crate::server::StartupError;
use crate::server::detachment::{DetachArgs, detach};
use crate::server::etcd_args::EtcdArgs;
use crate::server::initialisation::{InitArgs, Initialised, existing, initialise};
use crate::store::replicated::finalisation::{Finalised, finalise};
use crate::store::replicated::listing::{Listing, fence};
use crate::store::replicated::member_record::MemberRecord;

/// The limit of one call.
const WITHIN: Duration = Duration::from_secs(2);
/// How often `fence` tries while the replica renews its record.
const ATTEMPTS: usize = 20;

/// Commands of replicas.
#[derive(Debug, Subcommand)]
pub enum ReplicasCommand {
    /// Begin a cluster: empty, or with the store of a stopped server.
    ///
    /// A server never begins one by itself, because an etcd that has lost its data must not become an
    /// empty cluster. If the command is interrupted or gets no answer, run it again: it completes what
    /// it has begun.
    Init(InitArgs),
    /// Show the store of a stopped replica: its cluster, its revision, and the last entry that it has.
    Show(ShowArgs),
    /// List the replicas that etcd has a record of.
    ///
    /// With --replicate the command asks etcd, also while no replica serves. It takes up to three
    /// seconds, because it looks whether each replica renews its record. Without it the command asks a
    /// server, with the key of an operator or an auditor.
    List(ListArgs),
    /// Complete an upgrade: raise the format of the log to the latest one that all replicas speak. From
    /// then on earlier versions of scopegate cannot join.
    Finalize(FinalizeArgs),
    /// Make the store of a stopped replica that of a single server. All replicas must be stopped.
    ///
    /// The log is closed, so the other replicas cannot go on. The store gets a new incarnation, as a
    /// restored one does: revisions jump, and etags and cursors are rejected. Then start the server without
    /// --replicate. If the command is interrupted or gets no answer, run it again: it completes what it
    /// has begun.
    Detach(DetachArgs),
    /// End the session of a replica: it stops answering at its next renewal, and joins anew if it runs.
    Fence(FenceArgs),
}

/// Arguments of `replicas show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The directory of the store.
    #[arg(long, env = "SCOPEGATE_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,

    /// The output format: a table for people, or JSON for programs.
    #[arg(long, value_enum, default_value_t = OutputFormat::Table, value_name = "FORMAT")]
    output: OutputFormat,
}

/// Arguments of `replicas finalize`.
#[derive(Debug, Args)]
pub struct FinalizeArgs {
    /// The etcd of the cluster.
    #[command(flatten)]
    etcd: EtcdArgs,
}

/// Arguments of `replicas fence`.
#[derive(Debug, Args)]
pub struct FenceArgs {
    /// The name of the replica.
    name: String,

    /// The etcd of the cluster.
    #[command(flatten)]
    etcd: EtcdArgs,
}

/// Runs a command.
///
/// # Errors
/// It could not be carried out: a [`StartupError`], or an error of standard output.
pub async fn replicas(command: ReplicasCommand) -> anyhow::Result<()> {
    match command {
        ReplicasCommand::Init(args) => init(&args).await,
        ReplicasCommand::Show(args) => show(&args),
        ReplicasCommand::List(args) => list(&args).await,
        ReplicasCommand::Finalize(args) => finalize(&args).await,
        ReplicasCommand::Detach(args) => {
            let detached = detach(&args).await?;
            print(&Report::default().line(format!(
                "the store in `{}` belongs to no cluster: incarnation {}, revision {}",
                args.data_dir.display(),
                detached.incarnation,
                detached.revision
            )))
        }
        ReplicasCommand::Fence(args) => fence_replica(&args).await,
    }
}

async fn init(args: &InitArgs) -> anyhow::Result<()> {
    let line = match initialise(args).await? {
        Initialised::Begun(cluster, revision) => {
            format!("initialised the cluster {cluster} at revision {revision}")
        }
        Initialised::Before(cluster) => format!("the cluster {cluster} is initialised"),
    };
    print(&Report::default().line(line))
}

fn print(report: &Report) -> anyhow::Result<()> {
    Printer::new(OutputFormat::Table)?.print_value(&(), report.clone())
}

/// The store of a stopped replica.
#[derive(Serialize)]
struct StoreShown {
    cluster: Option<String>,
    /// Whether the initialisation of the cluster from this store is not known to be complete.
    initialising: bool,
    incarnation: String,
    revision: u64,
    entry: Option<u64>,
    hash: Option<String>,
}

fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let store = existing(&args.data_dir)?;
    let position = store.log_position().map_err(StartupError::from)?;
    let cluster = store.cluster();
    let shown = StoreShown {
        cluster: cluster.map(|cluster| cluster.id.to_string()),
        initialising: cluster.is_some_and(|cluster| cluster.etcd_cluster_id.is_none()),
        incarnation: store.incarnation().to_string(),
        revision: store.opened_at().0,
        entry: position.map(|position| position.seq),
        hash: position.map(|position| position.hash.to_string()),
    };
    let mut report = Report::default()
        .fact("cluster", shown.cluster.clone().unwrap_or_else(|| "none".to_owned()))
        .fact("incarnation", shown.incarnation.clone())
        .fact("revision", shown.revision);
    if let (Some(entry), Some(hash)) = (shown.entry, &shown.hash) {
        report = report.fact("entry", entry).fact("hash", hash.clone());
    }
    if shown.initialising {
        report = report.line(
            "the initialisation of the cluster from this store is not known to be complete: run \
             `scopegate replicas init` again",
        );
    }
    Printer::new(args.output)?.print_value(&shown, report)
}

async fn finalize(args: &FinalizeArgs) -> anyhow::Result<()> {
    let line = match finalise(&args.etcd.client()?).await.map_err(StartupError::from)? {
        Finalised::Raised(format) => format!("entries are written in format {format} from now on"),
        Finalised::Already(format) => format!("format {format} already"),
        Finalised::Old { format, replicas } => {
            let names: Vec<_> = replicas.iter().map(|name| format!("`{name}`")).collect();
            return Err(StartupError::Config(format!(
                "the log has format {format}, and these replicas speak no later one: {}; upgrade them first",
                names.join(", ")
            ))
            .into());
        }
        Finalised::NoReplica => {
            return Err(StartupError::Config(
                "no replica has a record, so it is not known which format they speak: start them first"
                    .to_owned(),
            )
            .into());
        }
        Finalised::Busy => {
            return Err(StartupError::Etcd(
                "replicas renewed their records at each attempt: run the command again".to_owned(),
            )
            .into());
        }
    };
    print(&Report::default().line(line))
}

async fn fence_replica(args: &FenceArgs) -> anyhow::Result<()> {
    let client = args.etcd.client()?;
    for _ in 0..ATTEMPTS {
        let listing = Listing::read(&client, WITHIN).await.map_err(StartupError::from)?;
        let named = |(record, _): &&(MemberRecord, _)| record.name.as_str() == args.name;
        let sessions: Vec<_> = listing.members.iter().filter(named).collect();
        if sessions.is_empty() {
            return Err(StartupError::Config(format!(
                "no replica `{}` has a record: see `scopegate replicas list`",
                args.name
            ))
            .into());
        }
        let mut open = sessions.into_iter().filter(|(record, _)| !record.fenced).peekable();
        if open.peek().is_none() {
            let line = format!("{} is fenced", args.name);
            return print(&Report::default().line(line));
        }
        for member in open {
            // Whatever came of it, the next listing shows.
            fence(&client, member, WITHIN).await.ok();
        }
    }
    Err(StartupError::Etcd(format!("`{}` is not fenced: run the command again", args.name)).into())
}
