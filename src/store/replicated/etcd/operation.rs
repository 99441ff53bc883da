//! Operation: ranges, and transactions of comparisons and operations, with etcd's limits.
//!
//! A comparison is of a whole value, or of existence. It is never of a revision: an etcd that was
//! restored from a backup counts revisions again.
//!
//! Not here: who sends them.

use bytes::Bytes;

use super::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use super::proto::request_op::Request;
use super::proto::response_op::Response;
use super::proto::watch_request::RequestUnion;
use super::proto::{self, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp};

/// How many comparisons, and how many operations of each list, a transaction may have: etcd's default.
pub const MAX_OPERATIONS: usize = 128;
/// The limit of a transaction in bytes. etcd's default is 1.5 MiB for what its nodes send to each
/// other, which is the request, the name of the user and a few numbers.
pub const MAX_REQUEST_BYTES: usize = (3 << 19) - 1024;

/// Keys to read, to delete or to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    first: String,
    end: RangeEnd,
    limit: usize,
    /// Whether values are left out of the answer.
    is_keys_only: bool,
}

/// Which keys behind the first one are of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RangeEnd {
    /// None.
    First,
    /// Those that begin with this prefix.
    Under(String),
    /// Those up to this key.
    UpTo(String),
}

impl Range {
    /// One key.
    #[must_use]
    pub fn key(key: &str) -> Self {
        Self::new(key.to_owned(), RangeEnd::First)
    }

    /// The keys that begin with a prefix.
    #[must_use]
    pub fn under(prefix: &str) -> Self {
        Self::new(prefix.to_owned(), RangeEnd::Under(prefix.to_owned()))
    }

    /// The keys that begin with a prefix and are greater than a key, which begins with it, too.
    #[must_use]
    pub fn behind(prefix: &str, key: &str) -> Self {
        Self::new(format!("{key}\0"), RangeEnd::Under(prefix.to_owned()))
    }

    /// The keys that begin with a prefix, up to a key, which begins with it, too.
    #[must_use]
    pub fn up_to(prefix: &str, key: &str) -> Self {
        Self::new(prefix.to_owned(), RangeEnd::UpTo(key.to_owned()))
    }

    /// At most so many keys, the first ones; zero means all. A deletion and a watch have no limit.
    #[must_use]
    pub fn limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// Without the values, which are empty in the answer.
    #[must_use]
    pub fn keys_only(self) -> Self {
        Self { is_keys_only: true, ..self }
    }

    fn new(first: String, end: RangeEnd) -> Self {
        Self { first, end, limit: 0, is_keys_only: false }
    }
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key has this whole value.
    Is(String, Bytes),
    /// The key does not exist.
    Absent(String),
    /// The key exists.
    Exists(String),
}

/// An operation of a transaction. A range sees what the operations before it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sets the value of a key.
    Put(String, Bytes),
    /// Deletes keys.
    Delete(Range),
    /// Reads keys.
    Range(Range),
}

/// A transaction: if all conditions hold, the first list of operations, else the second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// The conditions.
    pub compares: Vec<Compare>,
    /// What is done if all of them hold.
    pub then: Vec<Operation>,
    /// What is done if one of them does not hold.
    pub or_else: Vec<Operation>,
}

/// A key that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Bytes,
}

/// The keys that a range found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeAnswer {
    /// The revision of etcd that they are of. A watch of later changes begins at the next one.
    pub revision: i64,
    /// The keys, in order.
    pub pairs: Vec<Pair>,
    /// Whether the limit left keys out.
    pub has_more: bool,
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnAnswer {
    /// Whether all conditions held.
    pub succeeded: bool,
    /// The revision of etcd after it.
    pub revision: i64,
    /// The answers of the ranges of the list that was carried out, in their order.
    pub ranges: Vec<RangeAnswer>,
}

/// Puts the prefix of the client before keys, and takes it away from those of an answer.
pub(super) struct Keyspace {
    prefix: String,
}

impl Keyspace {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: format!("{prefix}/") }
    }

    pub(super) fn range(&self, range: &Range) -> RangeRequest {
        let (key, range_end) = self.bounds(range);
        let limit = range.limit.try_into().unwrap_or(i64::MAX);
        RangeRequest { key, range_end, limit, keys_only: range.is_keys_only }
    }

    pub(super) fn watch(&self, range: &Range, from: i64) -> proto::WatchRequest {
        let (key, range_end) = self.bounds(range);
        let create =
            proto::WatchCreateRequest { key, range_end, start_revision: from, fragment: true };
        proto::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
    }

    pub(super) fn txn(&self, txn: &Txn) -> proto::TxnRequest {
        let operations = |list: &[Operation]| list.iter().map(|one| self.operation(one)).collect();
        proto::TxnRequest {
            compare: txn.compares.iter().map(|compare| self.compare(compare)).collect(),
            success: operations(&txn.then),
            failure: operations(&txn.or_else),
        }
    }

    pub(super) fn range_answer(&self, response: RangeResponse, revision: i64) -> RangeAnswer {
        let pair = |pair: proto::KeyValue| {
            let key = String::from_utf8_lossy(&pair.key);
            let key = key.strip_prefix(&self.prefix).unwrap_or(&key).to_owned();
            Pair { key, value: pair.value }
        };
        let pairs = response.kvs.into_iter().map(pair).collect();
        RangeAnswer { revision, pairs, has_more: response.more }
    }

    pub(super) fn txn_answer(&self, response: proto::TxnResponse) -> TxnAnswer {
        let revision = response.header.map_or(0, |header| header.revision);
        let ranges =
            response.responses.into_iter().filter_map(|response| match response.response {
                Some(Response::ResponseRange(range)) => Some(self.range_answer(range, revision)),
                _ => None,
            });
        TxnAnswer { succeeded: response.succeeded, revision, ranges: ranges.collect() }
    }

    fn key(&self, key: &str) -> Bytes {
        Bytes::from(format!("{}{key}", self.prefix))
    }

    /// The first key of a range, and the first one behind it.
    fn bounds(&self, range: &Range) -> (Bytes, Bytes) {
        let end = match &range.end {
            RangeEnd::First => Bytes::new(),
            RangeEnd::Under(prefix) => {
                let mut end = format!("{}{prefix}", self.prefix).into_bytes();
                // No byte of UTF-8 is 255.
                if let Some(last) = end.last_mut() {
                    *last += 1;
                }
                end.into()
            }
            RangeEnd::UpTo(key) => self.key(&format!("{key}\0")),
        };
        (self.key(&range.first), end)
    }

    fn compare(&self, compare: &Compare) -> proto::Compare {
        let created = TargetUnion::CreateRevision(0);
        let (result, target, key, other) = match compare {
            Compare::Is(key, value) => {
                let value = TargetUnion::Value(value.clone());
                (CompareResult::Equal, CompareTarget::Value, key, value)
            }
            Compare::Absent(key) => (CompareResult::Equal, CompareTarget::Create, key, created),
            Compare::Exists(key) => (CompareResult::Greater, CompareTarget::Create, key, created),
        };
        proto::Compare {
            result: result.into(),
            target: target.into(),
            key: self.key(key),
            target_union: Some(other),
        }
    }

    fn operation(&self, operation: &Operation) -> RequestOp {
        let request = match operation {
            Operation::Put(key, value) => {
                Request::RequestPut(PutRequest { key: self.key(key), value: value.clone() })
            }
            Operation::Delete(range) => {
                let (key, range_end) = self.bounds(range);
                Request::RequestDeleteRange(DeleteRangeRequest { key, range_end })
            }
            Operation::Range(range) => Request::RequestRange(self.range(range)),
        };
        RequestOp { request: Some(request) }
    }
}
