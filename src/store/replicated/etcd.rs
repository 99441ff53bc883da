//! etcd: a client of the few calls that replicas need, with a time limit for each call.
//!
//! Only two things of etcd are relied on: a transaction, and a range, are atomic and durable, and both
//! see every change that etcd has confirmed before. A watch may be late or silent.
//!
//! A call asks one node, once. A node that gives no answer is asked last for [`AVOIDED_FOR`], so the
//! next call goes to another one. No call is repeated here, because only its caller knows what a
//! repeat means. The one exception is a call that etcd refused because of its token; etcd certainly
//! did not carry it out.
//!
//! Not here: what the keys mean, and what a caller does while the outcome of a transaction is unknown.

mod error;
mod error_counts;
mod login;
mod node;
mod operation;
mod status;
mod tls;
mod url;
mod watch;

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use prost::Message;
use tonic::transport::Channel;
use tonic::{Request, Response};

pub use self::error::EtcdError;
pub(in crate::store) use self::error::cause;
pub use self::error_counts::ErrorCounts;
pub use self::login::Login;
pub use self::node::AVOIDED_FOR;
pub use self::operation::{
    Compare, MAX_OPERATIONS, MAX_REQUEST_BYTES, Operation, Pair, Range, RangeAnswer, Txn, TxnAnswer,
};
pub use self::status::{NodeStatus, unsupported_version};
pub use self::tls::TlsFiles;
pub use self::url::EtcdUrl;
pub use self::watch::Watch;
use login::TokenSlot;
use node::Nodes;
use operation::Keyspace;
use proto::kv_client::KvClient;
use proto::maintenance_client::MaintenanceClient;

/// The limit of an answer in bytes: more than two log entries and a few hundred small values.
const MAX_ANSWER_BYTES: usize = 16 << 20;

mod proto {
    #![allow(
        clippy::enum_variant_names,
        reason = "the names of variants are those of etcd's fields"
    )]
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
}

/// What a client is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The nodes, and the prefix of all keys.
    pub url: EtcdUrl,
    /// The files of a TLS connection.
    pub tls: TlsFiles,
    /// The user, if etcd has users.
    pub login: Option<Login>,
    /// The cluster whose answers count. None: the one that answers first.
    pub cluster_id: Option<u64>,
    /// Where the errors of calls are counted.
    pub errors: Arc<ErrorCounts>,
}

/// A client of one etcd cluster. All keys that it is given, and all that it returns, are relative to
/// the prefix of its URL.
///
/// Its connections are driven by the tokio runtime that makes the calls, so each runtime needs a
/// client of its own. A call that is dropped before it ends says nothing about its node: give it the
/// time that it may take.
pub struct Client {
    nodes: Nodes,
    keyspace: Keyspace,
    tokens: TokenSlot,
    /// The cluster whose answers count, once it is known.
    cluster_id: OnceLock<u64>,
    errors: Arc<ErrorCounts>,
}

/// A response that says which cluster it comes from.
trait Answer {
    fn cluster_id(&self) -> Option<u64>;
}

macro_rules! answers {
    ($($message:ident),*) => {$(
        impl Answer for proto::$message {
            fn cluster_id(&self) -> Option<u64> {
                self.header.as_ref().map(|header| header.cluster_id)
            }
        }
    )*};
}

answers!(RangeResponse, TxnResponse, CompactionResponse);
answers!(WatchResponse, StatusResponse, AuthenticateResponse);

impl Client {
    /// A client that is not connected yet.
    ///
    /// # Errors
    /// A TLS file cannot be used, or does not fit the URL: a sentence.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let Settings { url, tls, login, cluster_id, errors } = settings;
        let cluster_id = cluster_id.map(OnceLock::from).unwrap_or_default();
        let keyspace = Keyspace::new(&url.prefix);
        Ok(Self {
            nodes: Nodes::new(url, tls)?,
            keyspace,
            tokens: TokenSlot::new(login),
            cluster_id,
            errors,
        })
    }

    /// The cluster whose answers count: the given one, or the first that answered.
    pub fn cluster_id(&self) -> Option<u64> {
        self.cluster_id.get().copied()
    }

    /// Makes the current node the last that is asked, as if it had given no answer.
    pub fn next_node(&self) {
        self.nodes.gave_no_answer(self.nodes.choose());
    }

    /// Reads keys. The answer has every change that etcd confirmed before the call.
    ///
    /// # Errors
    /// See [`EtcdError`].
    pub async fn range(&self, range: &Range, within: Duration) -> Result<RangeAnswer, EtcdError> {
        let request = self.keyspace.range(range);
        let send = |channel, request| async move { kv(channel).range(request).await };
        let response = self.call(self.nodes.choose(), within, request, send).await?;
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        Ok(self.keyspace.range_answer(response, revision))
    }

    /// Carries out one of the two lists of a transaction, as one change.
    ///
    /// # Errors
    /// See [`EtcdError`]. Unless the error [is certain](EtcdError::is_certain), etcd may have carried
    /// the transaction out, or may still do so.
    pub async fn txn(&self, txn: &Txn, within: Duration) -> Result<TxnAnswer, EtcdError> {
        let request = self.keyspace.txn(txn);
        let most = request.compare.len().max(request.success.len()).max(request.failure.len());
        for (what, size, limit) in [
            ("operations", most, MAX_OPERATIONS),
            ("bytes", request.encoded_len(), MAX_REQUEST_BYTES),
        ] {
            if size > limit {
                return Err(EtcdError::TooLarge { what, size, limit });
            }
        }
        let send = |channel, request| async move { kv(channel).txn(request).await };
        Ok(self.keyspace.txn_answer(self.call(self.nodes.choose(), within, request, send).await?))
    }

    /// Watches the keys of a range, from the changes of a revision on. Zero: only later changes wake.
    ///
    /// # Errors
    /// See [`EtcdError`].
    pub async fn watch(
        &self,
        range: &Range,
        from: i64,
        within: Duration,
    ) -> Result<Watch<'_>, EtcdError> {
        Watch::begin(self, range, from, within).await
    }

    /// Removes etcd's history before a revision, also that of keys of others.
    ///
    /// # Errors
    /// See [`EtcdError`]. It is refused if the history is already removed.
    pub async fn compact(&self, revision: i64, within: Duration) -> Result<(), EtcdError> {
        let request = proto::CompactionRequest { revision };
        let send = |channel, request| async move { kv(channel).compact(request).await };
        self.call(self.nodes.choose(), within, request, send).await.map(drop)
    }

    /// Asks every node at once for its status. The results have the order of the URL.
    pub async fn status(&self, within: Duration) -> Vec<Result<NodeStatus, EtcdError>> {
        let ask = |node| {
            let send = |channel, request| async move {
                MaintenanceClient::new(channel).status(request).await
            };
            let request = proto::StatusRequest {};
            async move { self.call(node, within, request, send).await.map(NodeStatus::from) }
        };
        join_all((0..self.nodes.count()).map(ask)).await
    }

    /// Sends a request to a node with the current token, and notes if it gave no answer. If etcd
    /// refuses the token, the same request is sent a second time with a new one.
    async fn call<Q: Clone, A: Answer, F>(
        &self,
        node: usize,
        within: Duration,
        request: Q,
        send: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<A, EtcdError>
    where
        F: Future<Output = Result<Response<A>, tonic::Status>>,
    {
        let answered = tokio::time::timeout(within, async {
            let channel = self.nodes.channel(node).await.map_err(EtcdError::NoAnswer)?;
            let token = self.tokens.token(self, &channel, None).await?;
            let response = match send(channel.clone(), token.on(request.clone())).await {
                Err(status) if self.tokens.has_login() && login::is_token_refused(&status) => {
                    let token = self.tokens.token(self, &channel, Some(token)).await?;
                    send(channel, token.on(request)).await
                }
                response => response,
            };
            self.check_cluster(response.map_err(|status| EtcdError::of(&status))?.into_inner())
        });
        let late = |_| Err(EtcdError::NoAnswer(format!("not within {} ms", within.as_millis())));
        let answer = answered.await.unwrap_or_else(late);
        if matches!(answer, Err(EtcdError::NoAnswer(_))) {
            self.nodes.gave_no_answer(node);
        }
        answer.map_err(|error| {
            self.errors.count(&error);
            error.at(self.nodes.address(node))
        })
    }

    /// An answer of another cluster is none.
    fn check_cluster<A: Answer>(&self, answer: A) -> Result<A, EtcdError> {
        let none = || EtcdError::NoAnswer("the response names no cluster".to_owned());
        let found = answer.cluster_id().ok_or_else(none)?;
        let expected = *self.cluster_id.get_or_init(|| found);
        if found != expected {
            return Err(EtcdError::NoAnswer(format!(
                "it belongs to the cluster {found:x}, and not to {expected:x}"
            )));
        }
        Ok(answer)
    }
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES)
}
