//! Listing: the head, the records and the extent of a log in etcd, all at one moment.
//!
//! Not here: what follows from it for a replica or for a change.

use std::time::Duration;

use bytes::Bytes;

use super::LogError;
use super::etcd::{Client, Compare, EtcdError, Operation, Range, RangeAnswer, Txn};
use super::head::Head;
use super::keys;
use super::member_record::MemberRecord;

/// What etcd has of a cluster.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The head with its bytes; None before the cluster is initialised.
    pub head: Option<(Head, Bytes)>,
    /// The number of the first entry that the log still has.
    pub first_entry: Option<u64>,
    /// The records with their bytes, in the order of their sessions.
    pub members: Vec<(MemberRecord, Bytes)>,
}

impl Listing {
    /// Reads all of it in one transaction.
    ///
    /// # Errors
    /// etcd gave no answer, or the answer is damaged.
    pub async fn read(client: &Client, within: Duration) -> Result<Self, ListingError> {
        let ranges =
            [Range::key(keys::HEAD), Range::under(keys::LOG).limit(1), Range::under(keys::MEMBERS)];
        let then = ranges.map(Operation::Range).to_vec();
        let answer = client.txn(&Txn { then, ..Txn::default() }, within).await?;
        let [head, log, members] = answer.ranges.as_slice() else {
            return Err(LogError::Damaged("answer").into());
        };
        let member =
            |pair: &super::etcd::Pair| Ok((MemberRecord::decode(&pair.value)?, pair.value.clone()));
        Ok(Self {
            head: read_head(head)?,
            first_entry: log.pairs.first().and_then(|pair| keys::seq(&pair.key)),
            members: members.pairs.iter().map(member).collect::<Result<_, LogError>>()?,
        })
    }
}

/// The head in the answer of a range.
pub(super) fn read_head(answer: &RangeAnswer) -> Result<Option<(Head, Bytes)>, LogError> {
    let Some(pair) = answer.pairs.first() else { return Ok(None) };
    Ok(Some((Head::decode(&pair.value)?, pair.value.clone())))
}

/// Ends a session by hand: its replica stops answering at its next renewal, or when its lease has
/// ended. False: the record is another one now, because the replica has renewed it or has ended it.
///
/// # Errors
/// etcd gave no answer. The session may have ended all the same.
pub async fn fence(
    client: &Client,
    member: &(MemberRecord, Bytes),
    within: Duration,
) -> Result<bool, EtcdError> {
    let (record, seen) = member;
    let key = keys::member(record.session);
    let fenced = MemberRecord { fenced: true, ..record.clone() };
    let txn = Txn {
        compares: vec![Compare::Is(key.clone(), seen.clone())],
        then: vec![Operation::Put(key, fenced.encode().into())],
        or_else: vec![],
    };
    Ok(client.txn(&txn, within).await?.succeeded)
}

/// Why a log could not be listed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    /// etcd did not answer.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// The answer cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
}
