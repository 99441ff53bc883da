//! Initialisation: puts the first head of a cluster into etcd, and replaces that of an earlier one.
//!
//! A transaction without an answer is sent again until one comes: it compares the head that it
//! replaces, so it is carried out once at most. If the head in etcd then is of the cluster that is being
//! initialised, it was carried out.
//!
//! A head is replaced in three steps. It is closed, so that no entry is committed and no replica
//! joins. All replicas of the earlier cluster stop answering: they see that it is closed or that they
//! are fenced, and without an answer of etcd their leases end. Then one transaction removes the
//! earlier log and puts the new head.
//!
//! Not here: the store that a cluster begins with, and the wait for the end of all leases; see
//! [`LONGEST_LEASE`].

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::LogError;
use super::entry::Entry;
use super::etcd::{Client, Compare, EtcdError, Operation, Range, Txn, unsupported_version};
use super::head::{Head, HeadState};
use super::keys;
use super::listing::{Listing, ListingError, fence, read_head};
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
    let count = changes.len().checked_sub(1).ok_or(LogError::Damaged("entry"))?;
    let revision = Revision(first_revision.0 + count as u64);
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

/// Closes the head that is in etcd, and ends the sessions of all replicas. Returns the bytes of the
/// closed head; None if there is no head.
///
/// # Errors
/// The head was replaced meanwhile, or etcd gave no answer.
pub async fn close(client: &Client, listing: &Listing) -> Result<Option<Bytes>, InitError> {
    let closed = match &listing.head {
        None => None,
        Some((Head { state: HeadState::Closed(_), .. }, seen)) => Some(seen.clone()),
        // A commit may come between, which is why the head is read again.
        Some(_) => Some(close_open(client).await?),
    };
    for member in Listing::read(client, WITHIN).await?.members {
        // A replica that cannot be fenced sees the closed head, and ends its session itself.
        fence(client, &member, WITHIN).await.map_err(InitError::Etcd)?;
    }
    Ok(closed)
}

/// The transaction that closes the log, if its head still has the bytes that were seen.
pub(super) fn closing(head: Head, seen: Bytes) -> Txn {
    let closed = Head { state: HeadState::Closed(Uuid::new_v4()), ..head };
    Txn {
        compares: vec![Compare::Is(keys::HEAD.to_owned(), seen)],
        then: vec![Operation::Put(keys::HEAD.to_owned(), closed.encode().into())],
        or_else: vec![],
    }
}

async fn close_open(client: &Client) -> Result<Bytes, InitError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer =
            client.range(&Range::key(keys::HEAD), WITHIN).await.map_err(InitError::Etcd)?;
        let (head, seen) = read_head(&answer)?.ok_or(LogError::Damaged("head"))?;
        match head.state {
            HeadState::Closed(_) => return Ok(seen),
            HeadState::Open => {
                let txn = closing(head, seen);
                // Whatever came of it, the next look tells.
                if let Err(error) = client.txn(&txn, WITHIN).await
                    && (error.is_certain() || Instant::now() > deadline)
                {
                    return Err(InitError::Etcd(error));
                }
            }
        }
    }
}

/// Replaces a closed head, or none, by that of a new cluster, and removes the earlier log and its
/// records.
///
/// # Errors
/// The head was replaced meanwhile, or etcd gave no answer.
pub async fn replace(client: &Client, closed: Option<Bytes>, head: &Head) -> Result<(), InitError> {
    let removed = [keys::LOG, keys::PARTS, keys::MEMBERS, keys::TURN];
    let removed = removed.map(|prefix| Operation::Delete(Range::under(prefix)));
    put(client, closed, head, removed.to_vec()).await
}

/// Puts a head where etcd has `earlier`, with other operations.
async fn put(
    client: &Client,
    earlier: Option<Bytes>,
    head: &Head,
    mut then: Vec<Operation>,
) -> Result<(), InitError> {
    let key = || keys::HEAD.to_owned();
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
