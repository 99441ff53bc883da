//! LogPage: the entries behind a position, as etcd has them, and the head of that moment.
//!
//! INVARIANT (confirmed): each entry of a page follows the one before it by its hash, and the entry behind
//! it, or the head, has the hash of the last one.
//!
//! Not here: who reads a page, and how its entries are applied.

use std::time::Duration;

use blake3::Hash;
use bytes::Bytes;
use uuid::Uuid;

use super::entry::Entry;
use super::etcd::{Client, EtcdError, Operation, Pair, Range, Txn, TxnAnswer};
use super::head::{Head, HeadState};
use super::{LogError, LogPosition, keys};

/// The limit of entries of a page: at most 4 MiB, and the parts of the last one.
const MAX_ENTRIES: usize = 4;

/// The entries behind a position.
pub(super) struct LogPage {
    pub(super) head: Head,
    /// The bytes of the head in etcd.
    pub(super) head_bytes: Bytes,
    /// The entries, each with its hash; the parts of the last one are not read. None: the position is that
    /// of the head.
    pub(super) entries: Vec<(Entry, Hash)>,
    /// The revision of etcd at that moment. Later changes have later ones.
    pub(super) etcd_revision: i64,
}

/// Why there is no page.
#[derive(Debug)]
pub(super) enum PageError {
    /// etcd gave no answer that says anything.
    Etcd(EtcdError),
    /// The log is not the one that the store follows.
    Log(LogError),
}

impl From<LogError> for PageError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// The ranges of a page behind a position.
pub(super) fn ranges(position: LogPosition) -> [Operation; 2] {
    let entries = keys::entries_behind(position.seq).limit(MAX_ENTRIES);
    [Operation::Range(Range::key(keys::HEAD)), Operation::Range(entries)]
}

impl LogPage {
    /// Reads the page behind a position.
    pub(super) async fn read(
        client: &Client,
        cluster: Uuid,
        position: LogPosition,
        within: Duration,
    ) -> Result<Self, PageError> {
        let txn = Txn { then: ranges(position).to_vec(), ..Txn::default() };
        let answer = client.txn(&txn, within).await.map_err(PageError::Etcd)?;
        Ok(Self::of(&answer, cluster, position)?)
    }

    /// Reads the page behind a position, with the parts of its entries.
    pub(super) async fn read_whole(
        client: &Client,
        cluster: Uuid,
        position: LogPosition,
        within: Duration,
    ) -> Result<Self, PageError> {
        let mut page = Self::read(client, cluster, position, within).await?;
        page.read_parts(client, within).await?;
        Ok(page)
    }

    /// The page in the answers to [`ranges`].
    pub(super) fn of(
        answer: &TxnAnswer,
        cluster: Uuid,
        position: LogPosition,
    ) -> Result<Self, LogError> {
        let mut ranges = answer.ranges.iter().map(|range| range.pairs.as_slice());
        let head = ranges.next().and_then(<[Pair]>::first).ok_or(LogError::Missing)?;
        let (head_bytes, head) = (head.value.clone(), Head::decode(&head.value)?);
        check(&head, cluster, position)?;
        let pairs = ranges.next().unwrap_or_default();
        let entries = entries(pairs, &head, position)?;
        Ok(Self { head, head_bytes, entries, etcd_revision: answer.revision })
    }

    /// Reads the parts of its entries.
    pub(super) async fn read_parts(
        &mut self,
        client: &Client,
        within: Duration,
    ) -> Result<(), PageError> {
        let in_parts = self.entries.last().and_then(|(entry, _)| Some((entry.parts?, entry.seq)));
        let Some((parts, seq)) = in_parts else { return Ok(()) };
        let content = parts.content(client, seq, within).await?;
        if let Some((entry, hash)) = self.entries.pop() {
            self.entries.push((entry.with_parts(&content)?, hash));
        }
        Ok(())
    }
}

/// Rejects a head that is not of the log that the store follows.
fn check(head: &Head, cluster: Uuid, position: LogPosition) -> Result<(), LogError> {
    head.check_format()?;
    if head.cluster != cluster {
        return Err(LogError::Cluster { log: head.cluster, store: cluster });
    }
    if head.incarnation != position.incarnation {
        let (log, store) = (head.incarnation, position.incarnation);
        return Err(LogError::Incarnation { log, store });
    }
    let is_other = head.seq == position.seq && head.hash != position.hash;
    if head.seq < position.seq || is_other {
        return Err(LogError::SetBack { log: head.seq, store: position.seq });
    }
    match head.state {
        HeadState::Open => Ok(()),
        HeadState::Closed(_) => Err(LogError::Closed),
    }
}

/// The entries behind a position that the entry behind them, or the head, confirms.
fn entries(
    pairs: &[Pair],
    head: &Head,
    mut position: LogPosition,
) -> Result<Vec<(Entry, Hash)>, LogError> {
    let mut entries = Vec::with_capacity(pairs.len());
    let is_missing = head.seq > position.seq
        && pairs.first().is_none_or(|pair| pair.key != keys::entry(position.seq + 1));
    if is_missing {
        return Err(LogError::Truncated(position.seq + 1));
    }
    for pair in pairs {
        let (entry, hash) = (Entry::decode(&pair.value)?, blake3::hash(&pair.value));
        position = position.after(&entry, hash)?;
        entries.push((entry, hash));
    }
    if position.seq == head.seq {
        if position.hash != head.hash {
            return Err(LogError::History(position.seq));
        }
    } else {
        // Nothing confirms it yet.
        entries.pop();
        if entries.is_empty() {
            return Err(LogError::Damaged("log: an entry is missing"));
        }
    }
    // The parts of one entry are enough for a page.
    if let Some(at) = entries.iter().position(|(entry, _)| entry.parts.is_some()) {
        entries.truncate(at + 1);
    }
    Ok(entries)
}
