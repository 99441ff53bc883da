//! `scopegate replicas verify`: compares the facts of all replicas.
//!
//! Not here: the other commands of replicas; see `replicas`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::future::join_all;
use serde::Serialize;

use crate::cli::output_format::OutputFormat;
use crate::cli::printer::{Cell, Printer, Report};
use crate::server::StartupError;
use crate::server::etcd_args::EtcdArgs;
use crate::store::replicated::etcd::TlsFiles;
use crate::store::replicated::fact_comparison::{FactComparison, ReplicaFacts};
use crate::store::replicated::initialisation::InitError;
use crate::store::replicated::listing::Listing;
use crate::store::replicated::member_record::MemberRecord;
use crate::store::replicated::peer_client::fact_sums;

/// The limit of one call of etcd.
const WITHIN: Duration = Duration::from_secs(2);
/// How long replicas may take to have published one revision in common.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause before the replicas are asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// Arguments of `replicas verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The etcd of the cluster.
    #[command(flatten)]
    etcd: EtcdArgs,

    /// The CAs that may have signed the certificates of the replicas, in PEM. By default those of this
    /// machine.
    #[arg(long, env = "SCOPEGATE_PEER_CA", value_name = "FILE")]
    peer_ca: Option<PathBuf>,

    /// The client certificate for the replicas, in PEM, if they demand one (--tls-client-ca).
    #[arg(long, env = "SCOPEGATE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The private key of --tls-cert, in PEM.
    #[arg(long, env = "SCOPEGATE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// The output format: a table for people, or JSON for programs.
    #[arg(long, value_enum, default_value_t = OutputFormat::Table, value_name = "FORMAT")]
    output: OutputFormat,
}

/// The facts of replicas differ, or could not be compared.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FactsDiffer(String);

/// The answer.
#[derive(Serialize)]
struct Verified {
    revision: u64,
    same: bool,
    replicas: Vec<Replica>,
}

/// A replica that was compared.
#[derive(Serialize)]
struct Replica {
    replica: String,
    session: String,
    facts: u64,
    sum: String,
    differs_in: Vec<String>,
}

/// Compares the facts of all replicas that have a record.
///
/// # Errors
/// [`FactsDiffer`]; or a [`StartupError`] if the replicas cannot be compared.
pub(super) async fn verify(args: &VerifyArgs) -> anyhow::Result<()> {
    let identity = args.tls_cert.clone().zip(args.tls_key.clone());
    let tls = TlsFiles { ca: args.peer_ca.clone(), identity };
    let client = args.etcd.client()?;
    let start = Instant::now();
    let (records, comparison) = loop {
        let listing = Listing::read(&client, WITHIN).await;
        let listing = listing.map_err(|error| StartupError::from(InitError::from(error)))?;
        let mut records: Vec<_> = listing.members.into_iter().map(|(record, _)| record).collect();
        records.retain(|record| !record.fenced);
        records.sort_by(|a, b| (&a.name, a.session).cmp(&(&b.name, b.session)));
        let why = match asked(&records, &tls).await {
            Ok(facts) => match FactComparison::of(&facts) {
                Some(comparison) => break (records, comparison),
                None if records.is_empty() => {
                    "no replica has a record: start one with `serve --replicate`".to_owned()
                }
                None => "the replicas have published no revision in common: look at `scopegate replicas \
                         list`, and try again"
                    .to_owned(),
            },
            Err(why) => why,
        };
        if records.is_empty() || start.elapsed() > PATIENCE {
            return Err(StartupError::Etcd(why).into());
        }
        tokio::time::sleep(PAUSE).await;
    };
    let replicas = records.iter().zip(&comparison.replicas).map(|(record, compared)| Replica {
        replica: record.name.to_string(),
        session: record.session.to_string(),
        facts: compared.count,
        sum: format!("{:032x}", compared.checksum),
        differs_in: compared.differs_in.iter().cloned().collect(),
    });
    let verified = Verified {
        revision: comparison.revision.0,
        same: comparison.is_same(),
        replicas: replicas.collect(),
    };
    Printer::new(args.output)?.print_value(&verified, report(&verified))?;
    match difference(&verified, comparison.has_majority) {
        Some(difference) => Err(FactsDiffer(difference).into()),
        None => Ok(()),
    }
}

/// The facts of all of these replicas, or the one that did not answer and why.
async fn asked(records: &[MemberRecord], tls: &TlsFiles) -> Result<Vec<ReplicaFacts>, String> {
    let answers = records.iter().map(async |record| {
        let answer = fact_sums(record, tls).await.map_err(|error| error.to_string());
        let facts = answer
            .and_then(|answer| ReplicaFacts::read(answer).map_err(|error| error.to_string()));
        facts.map_err(|why| {
            format!(
                "`{}` at {} did not tell its facts: {why}; check that it runs and that --peer-ca is right",
                record.name, record.advertise
            )
        })
    });
    join_all(answers).await.into_iter().collect()
}

fn report(verified: &Verified) -> Report {
    let head = &["REPLICA", "REVISION", "FACTS", "SUM", "DIFFERS IN"];
    let rows = verified.replicas.iter().map(|replica| {
        let differs_in = replica.differs_in.join(", ");
        [
            replica.replica.as_str().into(),
            verified.revision.into(),
            replica.facts.into(),
            replica.sum.as_str().into(),
            Cell::colored(replica.differs_in.is_empty(), differs_in.as_str()),
        ]
    });
    Report::default().rows(head, rows)
}

/// What differs, in one sentence; None if nothing does.
fn difference(verified: &Verified, has_majority: bool) -> Option<String> {
    let different = verified.replicas.iter().filter(|replica| !replica.differs_in.is_empty());
    let names: Vec<_> = different.map(|replica| format!("`{}`", replica.replica)).collect();
    match (names.is_empty(), has_majority) {
        (true, _) => None,
        (false, true) => Some(format!(
            "not the facts of most replicas: {}; stop each of these, and start it with --resync",
            names.join(", ")
        )),
        (false, false) => Some(format!(
            "the facts of {} differ, and no majority has the same: find out which replica is right, for \
             example by `scopegate export` from each, and start the others with --resync",
            names.join(", ")
        )),
    }
}
