//! Nodes: the nodes of the cluster, their connections, and which one is asked next.
//!
//! A client stays with a node as long as it answers. A node that gave no answer loses its connection,
//! and is asked last for [`AVOIDED_FOR`]: it may hang, or be cut off from the others. If no node gave
//! an answer, the one whose failure is the oldest is asked.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use super::error::cause;
use super::tls::TlsFiles;
use super::url::EtcdUrl;

/// For how long a node that gave no answer is asked last.
pub const AVOIDED_FOR: Duration = Duration::from_secs(30);
/// How long a connection may take. The limit of a call may be shorter.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The interval of the pings of a connection on which a call or a watch waits, and the time to wait
/// for their acknowledgement. etcd closes a connection that pings more than once in 5 seconds.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// The flags of the files of TLS.
const FLAGS: [&str; 3] = ["--replicate-ca", "--replicate-cert", "--replicate-key"];

/// The nodes of the cluster.
pub(super) struct Nodes {
    addresses: Vec<String>,
    tls: Option<TlsFiles>,
    state: Mutex<State>,
}

struct State {
    /// The node that was asked last.
    current: usize,
    nodes: Vec<Node>,
}

#[derive(Clone, Default)]
struct Node {
    channel: Option<Channel>,
    /// When it last gave no answer. An answer does not change it: a node that is cut off from the
    /// others still answers what it needs no other for.
    failed_at: Option<Instant>,
}

impl Nodes {
    /// The nodes of a URL. The files are read, to find an error in them now.
    pub(super) fn new(url: EtcdUrl, tls: TlsFiles) -> Result<Self, String> {
        if !url.is_tls && !tls.is_empty() {
            return Err("the files of TLS need a URL that begins with etcds://".to_owned());
        }
        let state = State { current: 0, nodes: vec![Node::default(); url.nodes.len()] };
        let tls = url.is_tls.then_some(tls);
        for address in &url.nodes {
            endpoint(address, tls.as_ref())?;
        }
        Ok(Self { addresses: url.nodes, tls, state: Mutex::new(state) })
    }

    pub(super) fn count(&self) -> usize {
        self.addresses.len()
    }

    pub(super) fn address(&self, node: usize) -> &str {
        self.addresses.get(node).map_or("", String::as_str)
    }

    /// The node to ask now.
    pub(super) fn choose(&self) -> usize {
        self.lock().choose(Instant::now())
    }

    /// The connection to a node, which is made by the first call on it.
    pub(super) async fn channel(&self, node: usize) -> Result<Channel, String> {
        if let Some(channel) = self.lock().node(node).and_then(|node| node.channel.clone()) {
            return Ok(channel);
        }
        let (address, tls) = (self.address(node).to_owned(), self.tls.clone());
        let endpoint = match tls {
            None => endpoint(&address, None),
            tls => tokio::task::spawn_blocking(move || endpoint(&address, tls.as_ref()))
                .await
                .unwrap_or_else(|error| Err(error.to_string())),
        };
        let channel = endpoint?.connect_lazy();
        if let Some(node) = self.lock().node(node) {
            node.channel = Some(channel.clone());
        }
        Ok(channel)
    }

    pub(super) fn gave_no_answer(&self, node: usize) {
        if let Some(node) = self.lock().node(node) {
            *node = Node { channel: None, failed_at: Some(Instant::now()) };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn node(&mut self, node: usize) -> Option<&mut Node> {
        self.nodes.get_mut(node)
    }

    /// The first node from the current one on that is not avoided. If all are, the one that failed
    /// first.
    fn choose(&mut self, now: Instant) -> usize {
        let avoided_since = |node: &Node| {
            node.failed_at.filter(|at| now.saturating_duration_since(*at) < AVOIDED_FOR)
        };
        let ring = self.nodes.iter().enumerate().cycle().skip(self.current).take(self.nodes.len());
        let chosen = ring.min_by_key(|(_, node)| avoided_since(node)).map(|(node, _)| node);
        self.current = chosen.unwrap_or_default();
        self.current
    }
}

fn endpoint(address: &str, tls: Option<&TlsFiles>) -> Result<Endpoint, String> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .map_err(|error| format!("the node `{address}` is not valid: {error}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    match tls {
        None => Ok(endpoint),
        Some(files) => endpoint
            .tls_config(files.read(FLAGS)?)
            .map_err(|error| cause("the files of TLS cannot be used", Some(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_without_an_answer_is_asked_last_for_thirty_seconds() {
        let (start, mut state) =
            (Instant::now(), State { current: 0, nodes: vec![Node::default(); 3] });
        let at = |seconds| start + Duration::from_secs(seconds);
        let fail = |state: &mut State, node: usize, second| {
            state.node(node).expect("a node").failed_at = Some(at(second));
        };
        assert_eq!(state.choose(at(0)), 0);
        fail(&mut state, 0, 0);
        assert_eq!(state.choose(at(1)), 1, "the next node");
        fail(&mut state, 1, 1);
        assert_eq!(state.choose(at(2)), 2);
        fail(&mut state, 2, 2);
        assert_eq!(state.choose(at(3)), 0, "all failed: the oldest failure");
        fail(&mut state, 0, 3);
        assert_eq!(state.choose(at(4)), 1);
        assert_eq!(state.choose(at(30)), 1);
        assert_eq!(state.choose(at(31)), 1, "the 30 seconds of node 1 are over");
        fail(&mut state, 1, 31);
        assert_eq!(state.choose(at(32)), 2, "those of node 2, too");
        assert_eq!(state.choose(at(40)), 2, "and it is kept when those of node 0 are over");
    }
}
