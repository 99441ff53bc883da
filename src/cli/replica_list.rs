//! `scopegate replicas list`: the replicas of a cluster, and its log.
//!
//! It asks etcd, or one of the replicas. Not here: the other commands of replicas; see
//! [`super::replicas`].

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::client::{ServerArgs, unwrap_response};
use super::connection::connect;
use super::printer::{Cell, Printer, Report, count};
use crate::server::StartupError;
use crate::server::etcd_args::EtcdArgs;
use crate::store::disk_space::LOW_SPACE;
use crate::store::replicated::etcd::Client;
use crate::store::replicated::head::HeadState;
use crate::store::replicated::initialisation::InitError;
use crate::store::replicated::listing::Listing;
use crate::store::replicated::member_record::MemberRecord;
use crate::store::replicated::peer::{PeerServiceClient, ReplicasRequest};
use crate::store::replicated::replica_list::{EtcdNode, ListedReplica, ReplicaList, SeenRenewal};

/// The limit of one call of etcd.
const WITHIN: Duration = Duration::from_secs(2);
/// How long the command waits for a renewal of each record.
const LOOK: Duration = Duration::from_millis(2500);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Arguments of `replicas list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The etcd of the cluster. Without it the command asks the server.
    #[command(flatten)]
    etcd: EtcdArgs,

    /// The server to call.
    #[command(flatten)]
    server: ServerArgs,
}

/// The answer.
#[derive(Serialize)]
struct Cluster {
    cluster: String,
    incarnation: String,
    state: &'static str,
    revision: u64,
    format: u32,
    entry: u64,
    /// The number of entries that the log still has, and their bytes.
    entries: u64,
    bytes: u64,
    nodes: usize,
    reached: usize,
    leader: Option<String>,
    replicas: Vec<Replica>,
}

/// A replica.
#[derive(Serialize)]
struct Replica {
    replica: String,
    session: String,
    state: &'static str,
    /// For how long it may answer without another renewal of its record, in milliseconds; none if it
    /// was not seen to renew it, or is fenced.
    lease_ms: Option<u64>,
    /// How long ago its record was seen to be renewed, in milliseconds; none if it was not.
    beat_ms: Option<u64>,
    published: u64,
    behind: u64,
    /// How far its clock is ahead of the observer's, in milliseconds; none without a renewal.
    clock_ms: Option<i64>,
    ttl_ms: u64,
    version: String,
    speaks: u32,
    /// When its session began, by its clock.
    started: String,
    /// The time since then, in seconds.
    since_seconds: u64,
    advertise: String,
    /// The replicas whose clocks it sees ahead of its own.
    ahead: Vec<String>,
    free_bytes: Option<u64>,
    diverged: u64,
    audit_log_retention_seconds: Option<u64>,
    /// The digest of its catalog file.
    catalog: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// Neither etcd nor a server answers, or there is no cluster.
pub(super) async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let listed = match args.etcd.replicate {
        Some(_) => of_etcd(&args.etcd).await?,
        None => {
            let mut client = PeerServiceClient::new(connect(&args.server.server).await?);
            let response = unwrap_response(client.replicas(ReplicasRequest {}).await)?;
            ReplicaList::read(response).map_err(|error| anyhow!("the response: {error}"))?
        }
    };
    let shown = Cluster::of(&listed);
    let report = shown.report();
    Printer::new(args.server.output)?.print_value(&shown, report)
}

/// The list by what etcd has, and by what changes there.
async fn of_etcd(args: &EtcdArgs) -> anyhow::Result<ReplicaList> {
    let client = args.client()?;
    let addresses = args.replicate.as_ref().map(|url| url.nodes.clone()).unwrap_or_default();
    let nodes = EtcdNode::all(&addresses, &client.status(WITHIN).await);
    let reached = nodes.iter().filter(|node| node.is_reached).count();
    let (listing, renewals) = match look(&client).await {
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
    let seen = |record: &MemberRecord| {
        let (at, clock_ahead) = renewals.get(&record.session)?;
        Some(SeenRenewal { age: at.elapsed(), clock_ahead: *clock_ahead })
    };
    ReplicaList::new(listing, nodes, seen).map_err(|_| {
        StartupError::Config(
            "the prefix has no cluster: check the URL, or begin one with `scopegate replicas init`"
                .to_owned(),
        )
        .into()
    })
}

/// When a record was seen to be renewed, and how far its clock was ahead.
type Renewals = HashMap<uuid::Uuid, (Instant, SignedDuration)>;

/// Looks at all records until each was renewed, or is fenced, or the time is over.
async fn look(client: &Client) -> Result<(Listing, Renewals), InitError> {
    let start = Instant::now();
    let mut last = Listing::read(client, WITHIN).await?;
    let mut counts: HashMap<_, _> =
        last.members.iter().map(|(record, _)| (record.session, record.count)).collect();
    let mut renewals = Renewals::new();
    loop {
        let mut missing = last.members.iter().filter(|(record, _)| !record.fenced);
        if missing.all(|(record, _)| renewals.contains_key(&record.session))
            || start.elapsed() > LOOK
        {
            return Ok((last, renewals));
        }
        tokio::time::sleep(PAUSE).await;
        last = Listing::read(client, WITHIN).await?;
        for (record, _) in &last.members {
            if counts.insert(record.session, record.count) != Some(record.count) {
                let ahead = Timestamp::now().duration_until(record.clock);
                renewals.insert(record.session, (Instant::now(), ahead));
            }
        }
    }
}

impl Cluster {
    fn of(listed: &ReplicaList) -> Self {
        let ReplicaList { head, first_entry, replicas, nodes } = listed;
        let leader = nodes.iter().find(|node| node.is_leader);
        Self {
            cluster: head.cluster.to_string(),
            incarnation: head.incarnation.to_string(),
            state: match head.state {
                HeadState::Open => "open",
                HeadState::Closed(_) => "closed",
            },
            revision: head.revision.0,
            format: head.format,
            entry: head.seq,
            entries: first_entry.map_or(0, |first| (head.seq + 1).saturating_sub(first)),
            bytes: head.bytes.saturating_sub(head.truncated_bytes),
            nodes: nodes.len(),
            reached: nodes.iter().filter(|node| node.is_reached).count(),
            leader: leader.map(|node| node.address.clone()),
            replicas: replicas.iter().map(|one| Replica::of(one, head.revision.0)).collect(),
        }
    }

    fn report(&self) -> Report {
        let head =
            &["REPLICA", "STATE", "LEASE", "PUBLISHED", "BEHIND", "CLOCK", "VERSION", "SINCE"];
        let rows = self.replicas.iter().map(|replica| {
            let clock = replica.clock_ms.map(|ms| {
                let sign = if ms < 0 { '-' } else { '+' };
                format!("{sign}{}", short(ms.unsigned_abs()))
            });
            [
                replica.replica.as_str().into(),
                Cell::colored(replica.state == "serving", replica.state),
                replica.lease_ms.map(tenths).unwrap_or_default().into(),
                replica.published.into(),
                replica.behind.into(),
                clock.unwrap_or_default().into(),
                replica.version.as_str().into(),
                span(replica.since_seconds).into(),
            ]
        });
        let mut report = Report::default();
        if self.replicas.is_empty() {
            report = report.line("no replica has a record: start one with `serve --replicate`");
        }
        report = report.rows(head, rows);
        if self.state == "closed" {
            report = report.line("the log is closed: no replica joins, and no change is committed");
        }
        report = self.footnotes().into_iter().fold(report, Report::line);
        let leader = match &self.leader {
            Some(leader) => format!("leader {leader}"),
            None => "no leader reached".to_owned(),
        };
        report.line(format!(
            "etcd {} of {}, {leader}, format {}, revision {}, log of {} in {}",
            self.reached,
            self.nodes,
            self.format,
            self.revision,
            bytes(self.bytes),
            count(self.entries, "entry", "entries")
        ))
    }

    /// What an operator should know of some replicas: a sentence each.
    fn footnotes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let kept = self.differing(|replica| match replica.audit_log_retention_seconds {
            Some(seconds) => format!("for {}", span(seconds)),
            None => "without a limit".to_owned(),
        });
        if let Some(kept) = kept {
            notes.push(format!(
                "the replicas keep changes for different times (--audit-log-retention): {kept}"
            ));
        }
        let catalogs = self.differing(|replica| match &replica.catalog {
            Some(digest) => format!("file {}", digest.get(..8).unwrap_or(digest)),
            None => "no file".to_owned(),
        });
        if let Some(catalogs) = catalogs {
            notes.push(format!(
                "the replicas were started with different catalogs (--catalog): {catalogs}"
            ));
        }
        for Replica { replica, diverged, free_bytes, ahead, .. } in &self.replicas {
            if *diverged > 0 {
                notes.push(format!(
                    "{diverged} facts of `{replica}` differed from those of another replica, which \
                     replaced them: start `{replica}` once with --resync"
                ));
            }
            if let Some(free) = free_bytes.filter(|free| *free < LOW_SPACE) {
                notes.push(format!(
                    "the disk of `{replica}` has {} left: it makes no changes except those that take \
                     access away",
                    bytes(free)
                ));
            }
            if !ahead.is_empty() {
                notes.push(format!(
                    "`{replica}` sees the clocks of other replicas ahead of its own: {}",
                    ahead.join(", ")
                ));
            }
        }
        notes
    }

    /// The replicas by what they have, if not all have the same.
    fn differing(&self, of: impl Fn(&Replica) -> String) -> Option<String> {
        let mut groups = BTreeMap::<String, Vec<&str>>::new();
        for replica in self.replicas.iter().filter(|replica| replica.state != "fenced") {
            groups.entry(of(replica)).or_default().push(&replica.replica);
        }
        let texts = groups.iter().map(|(has, who)| format!("{has} at {}", who.join(", ")));
        (groups.len() > 1).then(|| texts.collect::<Vec<_>>().join("; "))
    }
}

impl Replica {
    fn of(listed: &ListedReplica, head: u64) -> Self {
        let ListedReplica { record, seen } = listed;
        let lease = seen.and_then(|seen| record.ttl.checked_sub(seen.age));
        let lease = lease.filter(|_| !record.fenced);
        let since = record.started.duration_until(Timestamp::now());
        let report = &record.report;
        Self {
            replica: record.name.to_string(),
            session: record.session.to_string(),
            state: match (record.fenced, lease) {
                (true, _) => "fenced",
                (false, Some(_)) => "serving",
                (false, None) => "silent",
            },
            lease_ms: lease.map(milliseconds),
            beat_ms: seen.map(|seen| milliseconds(seen.age)),
            published: record.published.0,
            behind: head.saturating_sub(record.published.0),
            clock_ms: seen.map(|seen| {
                let ms = seen.clock_ahead.as_millis();
                i64::try_from(ms).unwrap_or(if ms < 0 { i64::MIN } else { i64::MAX })
            }),
            ttl_ms: milliseconds(record.ttl),
            version: record.version.clone(),
            speaks: record.speaks,
            started: record.started.to_string(),
            since_seconds: u64::try_from(since.as_secs()).unwrap_or(0),
            advertise: record.advertise.clone(),
            ahead: report.ahead.iter().map(ToString::to_string).collect(),
            free_bytes: report.free_bytes,
            diverged: report.diverged,
            audit_log_retention_seconds: report.audit_log_retention.map(|time| time.as_secs()),
            catalog: report.catalog.map(|digest| digest.to_string()),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A time as `3.4s`.
fn tenths(ms: u64) -> String {
    format!("{}.{}s", ms / 1000, ms % 1000 / 100)
}

/// A time as `2ms` or `1.2s`.
fn short(ms: u64) -> String {
    if ms < 1000 { format!("{ms}ms") } else { tenths(ms) }
}

/// A time in its largest unit, as `12s` or `2d`.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A size as `1.2 MiB`.
fn bytes(count: u64) -> String {
    let (unit, name) = match count {
        0..0x400 => return format!("{count} B"),
        0x400..0x10_0000 => (0x400, "KiB"),
        0x10_0000..0x4000_0000 => (0x10_0000, "MiB"),
        _ => (0x4000_0000, "GiB"),
    };
    format!("{}.{} {name}", count / unit, count % unit * 10 / unit)
}
