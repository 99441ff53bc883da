//! Initialisation: puts the first head of a cluster into etcd, and replaces that of an earlier one.
//!
//! A transaction without an answer is sent again until one comes: it compares the head that it
//! replaces, so it is carried out once at most. If the head in etcd then is of the cluster that is being
//! initialised, it was carried out.
//!
//! A head is replaced after the log was [closed](super::closing) and no replica of the earlier cluster
//! answers. One transaction puts the new head, and removes all that belongs to the earlier
//! log: its entries and their pieces, the records, the times at which credentials were seen, and what was
//! noted for the compaction.
//!
//! Not here: the store that a cluster begins with, and the wait for the end of all leases if etcd may
//! have lost records; see [`LONGEST_LEASE`].

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::LogError;
use super::entry::Entry;
use super::etcd::{Client, Compare, EtcdError, Operation, Range, Txn, unsupported_version};
use super::head::Head;
use super::keys;
use super::listing::{Listing, ListingError, read_head};
use crate::policy::revision::Revision;

/// After this time no replica answers any more that has not renewed its record: the longest lease is
/// 60 s, and clocks may run at different rates.
pub const LONGEST_LEASE: Duration = Duration::from_secs(75);
/// The limit of one call.
const WITHIN: Duration = Duration::from_secs(2);
/// How long a transaction without an answer is sent again.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a cluster was not initialised.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InitError {
    /// Another cluster has the prefix.
    #[error("a cluster is initialised at this prefix already (cluster `{0}`)")]
    Exists(Uuid),
    /// It is not known whether the cluster is initialised.
    #[error("{0}; it is not known whether the cluster is initialised: run the same command again")]
    InDoubt(EtcdError),
    /// etcd did nothing.
    #[error("{0}; nothing was initialised")]
    Etcd(EtcdError),
    /// A version of etcd that is not consistent.
    #[error("{0}")]
    Version(String),
    /// What is in etcd cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl From<ListingError> for InitError {
    fn from(error: ListingError) -> Self {
        match error {
            ListingError::Etcd(error) => Self::Etcd(error),
            ListingError::Log(error) => Self::Log(error),
        }
    }
}

/// Tests the versions of the nodes, and reads what etcd has of a cluster.
///
/// # Errors
/// A node has a version that is not supported, or etcd gave no answer.
pub async fn listing(client: &Client) -> Result<Listing, InitError> {
    let nodes = client.status(WITHIN).await;
    let version = nodes.iter().flatten().find_map(|node| unsupported_version(&node.version));
    if let Some(why) = version {
        return Err(InitError::Version(why));
    }
    Ok(Listing::read(client, WITHIN).await?)
}

/// The head after this entry, the first one behind `head`.
///
/// # Errors
/// The bytes are no entry.
pub fn head_after(head: &Head, entry: &[u8]) -> Result<Head, LogError> {
    let Entry { seq, first_revision, time, changes, .. } = Entry::decode(entry)?;
    let revision = Revision(first_revision.0 + changes.len() as u64 - 1);
    let (hash, bytes) = (blake3::hash(entry), entry.len() as u64);
    Ok(Head { seq, revision, hash, time, bytes, ..head.clone() })
}

/// Puts the head of a new cluster, and its first entry if there is one.
///
/// # Errors
/// There is a head, or etcd gave no answer.
pub async fn begin(client: &Client, head: &Head, first: Option<Vec<u8>>) -> Result<(), InitError> {
    let first = first.map(|entry| Operation::Put(keys::entry(head.seq), entry.into()));
    put(client, None, head, first.into_iter().collect()).await
}

/// Puts the head of a cluster that begins with a store, in the place of a closed head or of none. The log
/// and the records of an earlier cluster are removed.
///
/// # Errors
/// The head was replaced meanwhile, or etcd gave no answer.
pub async fn replace(client: &Client, closed: Option<Bytes>, head: &Head) -> Result<(), InitError> {
    let removed = [keys::LOG, keys::MEMBERS];
    let removed = removed.map(|prefix| Operation::Delete(Range::under(prefix)));
    put(client, closed, head, removed.to_vec()).await
}

/// Puts a head where etcd has `earlier`, with other operations, and removes what no cluster
/// takes over from an earlier one.
async fn put(
    client: &Client,
    earlier: Option<Bytes>,
    head: &Head,
    mut then: Vec<Operation>,
) -> Result<(), InitError> {
    let key = || keys::HEAD.to_owned();
    let removed =
        [Range::under(keys::PARTS), Range::under(keys::SEEN), Range::key(keys::COMPACTED)];
    then.extend(removed.map(Operation::Delete));
    then.push(Operation::Put(key(), head.encode().into()));
    let txn = Txn {
        compares: vec![match earlier {
            Some(earlier) => Compare::Is(key(), earlier),
            None => Compare::Absent(key()),
        }],
        then,
        or_else: vec![Operation::Range(Range::key(keys::HEAD))],
    };
    let deadline = Instant::now() + PATIENCE;
    let mut doubt = false;
    loop {
        let error = match client.txn(&txn, WITHIN).await {
            Ok(answer) if answer.succeeded => return Ok(()),
            Ok(answer) => {
                let found = answer.ranges.first().map(read_head).transpose()?.flatten();
                let (found, _) = found.ok_or(LogError::Damaged("head"))?;
                // A transaction that got no answer was carried out.
                return match found.cluster == head.cluster {
                    true => Ok(()),
                    false => Err(InitError::Exists(found.cluster)),
                };
            }
            Err(error) if error.is_certain() && !doubt => return Err(InitError::Etcd(error)),
            Err(error) => error,
        };
        doubt = true;
        if Instant::now() > deadline {
            return Err(InitError::InDoubt(error));
        }
        sleep(PAUSE).await;
    }
}
