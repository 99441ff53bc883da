//! `scopegate replicas`: a cluster of replicas, by its log in etcd and by the stores of stopped
//! replicas.
//!
//! These commands need no server, because they are used when none serves. Not here: the flags and the
//! steps of `init`; see `server::initialisation`. And the comparison of facts; see `verify`.

mod verify;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

pub use self::verify::FactsDiffer;
use self::verify::{VerifyArgs, verify};
use super::output_format::OutputFormat;
use super::printer::{Cell, Printer, Report};
use crate::server::StartupError;
use crate::server::etcd_args::EtcdArgs;
use crate::server::initialisation::{InitArgs, Initialised, existing, initialise};
use crate::store::replicated::etcd::{Client, NodeStatus};
use crate::store::replicated::head::HeadState;
use crate::store::replicated::initialisation::InitError;
use crate::store::replicated::listing::{Listing, fence};
use crate::store::replicated::member_record::MemberRecord;

/// The limit of one call.
const WITHIN: Duration = Duration::from_secs(2);
/// How long `list` waits for a renewal of each record.
const LOOK: Duration = Duration::from_millis(2500);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);
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
    /// List the replicas that etcd has a record of. It takes up to three seconds, because it looks
    /// whether each replica renews its record.
    List(ListArgs),
    /// Compare the facts of all replicas, and name the replica that has others than most.
    ///
    /// Each replica sums up its facts. They are compared at one revision, so changes may continue. The exit
    /// code is 1 if facts differ.
    Verify(VerifyArgs),
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

/// Arguments of `replicas list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The etcd of the cluster.
    #[command(flatten)]
    etcd: EtcdArgs,

    /// The output format: a table for people, or JSON for programs.
    #[arg(long, value_enum, default_value_t = OutputFormat::Table, value_name = "FORMAT")]
    output: OutputFormat,
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
        ReplicasCommand::Verify(args) => verify(&args).await,
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

/// A replica, as two looks at its record show it.
#[derive(Serialize)]
struct Replica {
    replica: String,
    session: String,
    state: &'static str,
    /// How long ago its record was seen to be renewed, in milliseconds; none if it was not.
    beat_ms: Option<u64>,
    published: u64,
    behind: u64,
    /// How far its clock is ahead of this machine's, in milliseconds; none without a renewal.
    clock_ms: Option<i64>,
    ttl_ms: u64,
    version: String,
    speaks: u32,
    ahead: Vec<String>,
}

/// The answer of `list`.
#[derive(Serialize)]
struct Cluster {
    cluster: String,
    incarnation: String,
    state: &'static str,
    revision: u64,
    format: u32,
    entry: u64,
    /// The number of entries that the log still has.
    entries: u64,
    /// The bytes of all entries since the cluster was initialised.
    bytes: u64,
    nodes: usize,
    reached: usize,
    leader: Option<String>,
    replicas: Vec<Replica>,
}

/// When a record was seen to be renewed, and how far its clock was ahead.
type Beats = HashMap<uuid::Uuid, (Instant, i64)>;

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let client = args.etcd.client()?;
    let nodes = args.etcd.replicate.as_ref().map(|url| url.nodes.clone()).unwrap_or_default();
    let status = client.status(WITHIN).await;
    let reached = status.iter().flatten().count();
    let (listing, beats) = match look(&client).await {
        Ok(seen) => seen,
        Err(InitError::Etcd(error)) if reached > 0 => {
            return Err(StartupError::Etcd(format!(
                "{reached} of {} etcd nodes can be reached, and they do not answer reads: {error}; without \
                 a majority of its nodes replicas answer until their leases end",
                nodes.len()
            ))
            .into());
        }
        Err(error) => return Err(StartupError::from(error).into()),
    };
    let Some((head, _)) = &listing.head else {
        return Err(StartupError::Config(
            "the prefix has no cluster: check the URL, or begin one with `scopegate replicas init`"
                .to_owned(),
        )
        .into());
    };
    let is_leader = |node: &NodeStatus| node.is_leader;
    let leader = status.iter().position(|node| node.as_ref().is_ok_and(is_leader));
    let replica = |(record, _): &(MemberRecord, _)| replica(record, &beats, head.revision.0);
    let mut replicas: Vec<_> = listing.members.iter().map(replica).collect();
    replicas.sort_by(|a, b| a.replica.cmp(&b.replica));
    let shown = Cluster {
        cluster: head.cluster.to_string(),
        incarnation: head.incarnation.to_string(),
        state: match head.state {
            HeadState::Open => "open",
            HeadState::Closed(_) => "closed",
        },
        revision: head.revision.0,
        format: head.format,
        entry: head.seq,
        entries: listing.first_entry.map_or(0, |first| (head.seq + 1).saturating_sub(first)),
        bytes: head.bytes,
        nodes: nodes.len(),
        reached,
        leader: leader.and_then(|leader| nodes.get(leader).cloned()),
        replicas,
    };
    let report = report(&shown);
    Printer::new(args.output)?.print_value(&shown, report)
}

/// Looks at all records until each was renewed, or is fenced, or the time is over.
async fn look(client: &Client) -> Result<(Listing, Beats), InitError> {
    let start = Instant::now();
    let first = Listing::read(client, WITHIN).await?;
    let mut counts: HashMap<_, _> =
        first.members.iter().map(|(record, _)| (record.session, record.count)).collect();
    let mut beats = Beats::new();
    let mut last = first;
    loop {
        let mut missing = last.members.iter().filter(|(record, _)| !record.fenced);
        if missing.all(|(record, _)| beats.contains_key(&record.session)) || start.elapsed() > LOOK
        {
            return Ok((last, beats));
        }
        tokio::time::sleep(PAUSE).await;
        last = Listing::read(client, WITHIN).await?;
        for (record, _) in &last.members {
            if counts.insert(record.session, record.count) != Some(record.count) {
                let ahead = record.clock.as_millisecond() - Timestamp::now().as_millisecond();
                beats.insert(record.session, (Instant::now(), ahead));
            }
        }
    }
}

fn replica(record: &MemberRecord, beats: &Beats, head: u64) -> Replica {
    let beat = beats.get(&record.session);
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Replica {
        replica: record.name.to_string(),
        session: record.session.to_string(),
        state: match (record.fenced, beat) {
            (true, _) => "fenced",
            (false, Some(_)) => "serving",
            (false, None) => "silent",
        },
        beat_ms: beat.map(|(at, _)| milliseconds(at.elapsed())),
        published: record.published.0,
        behind: head.saturating_sub(record.published.0),
        clock_ms: beat.map(|(_, ahead)| *ahead),
        ttl_ms: milliseconds(record.ttl),
        version: record.version.clone(),
        speaks: record.speaks,
        ahead: record.report.ahead.iter().map(ToString::to_string).collect(),
    }
}

fn report(shown: &Cluster) -> Report {
    let head = &["REPLICA", "STATE", "BEAT", "PUBLISHED", "BEHIND", "CLOCK", "VERSION"];
    let rows = shown.replicas.iter().map(|replica| {
        let tenths = |ms: u64| format!("{}.{}s", ms / 1000, ms % 1000 / 100);
        let beat = match (replica.state, replica.beat_ms) {
            (_, Some(ms)) => tenths(ms),
            ("silent", None) => format!(">{}", tenths(LOOK.as_millis().try_into().unwrap_or(0))),
            _ => String::new(),
        };
        let clock = replica.clock_ms.map(|ms| {
            let sign = if ms < 0 { '-' } else { '+' };
            format!("{sign}{}", tenths(ms.unsigned_abs()))
        });
        [
            replica.replica.as_str().into(),
            Cell::colored(replica.state == "serving", replica.state),
            beat.into(),
            replica.published.into(),
            replica.behind.into(),
            clock.unwrap_or_default().into(),
            replica.version.as_str().into(),
        ]
    });
    let leader = match &shown.leader {
        Some(leader) => format!("leader {leader}"),
        None => "no leader reached".to_owned(),
    };
    let mut report = Report::default();
    if shown.replicas.is_empty() {
        report = report.line("no replica has a record: start one with `serve --replicate`");
    }
    report = report.rows(head, rows);
    if shown.state == "closed" {
        report = report.line("the log is closed: no replica joins, and no change is committed");
    }
    report.line(format!(
        "etcd {} of {}, {leader}, format {}, revision {}, log of {} entries",
        shown.reached, shown.nodes, shown.format, shown.revision, shown.entries
    ))
}

async fn fence_replica(args: &FenceArgs) -> anyhow::Result<()> {
    let client = args.etcd.client()?;
    for _ in 0..ATTEMPTS {
        let listing = Listing::read(&client, WITHIN).await;
        let listing = listing.map_err(|error| StartupError::from(InitError::from(error)))?;
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
