//! Real etcd processes on loopback: one, or a cluster of three.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use scopegate::store::replicated::etcd::{Client, EtcdUrl, NodeStatus, Range, Settings, TlsFiles};

use super::raw::WAIT_LIMIT;
use super::{free_address, hang, pause, signal};

/// The limit of a call that must succeed.
pub const WITHIN: Duration = Duration::from_secs(10);

/// The processes of a cluster.
pub struct Etcd {
    nodes: Vec<Node>,
    /// The arguments that all nodes have in common.
    args: Vec<String>,
    /// How clients connect: http or https.
    scheme: &'static str,
    /// Makes the id of the cluster, with the addresses.
    token: String,
    dir: tempfile::TempDir,
}

struct Node {
    /// The address for clients.
    address: String,
    /// The address for the other nodes.
    peer: String,
    dir: PathBuf,
    process: Option<Child>,
}

impl Etcd {
    /// Starts a cluster of so many nodes, and waits until it answers. None: there is no etcd on this
    /// machine, and the test that asks is skipped.
    pub async fn start(count: usize, args: &[&str]) -> Option<Self> {
        Self::start_tls(count, args, TlsFiles::default()).await
    }

    /// As [`Self::start`], with TLS for its clients if arguments name a certificate. The waiting client
    /// has these files.
    pub async fn start_tls(count: usize, args: &[&str], tls: TlsFiles) -> Option<Self> {
        hang::watch_tests();
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            println!("skipped: {test}: no etcd (apt-get install etcd-server)");
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let node = |number| Node {
            address: free_address(),
            peer: free_address(),
            dir: dir.path().join(format!("node{number}")),
            process: None,
        };
        let nodes: Vec<_> = (0..count).map(node).collect();
        let args: Vec<_> = args.iter().map(ToString::to_string).collect();
        let scheme = if args.contains(&"--cert-file".to_owned()) { "https" } else { "http" };
        let mut etcd = Self { nodes, args, scheme, token: "first".to_owned(), dir };
        for node in 0..count {
            etcd.start_node(node);
        }
        let mut settings = Self::settings(&etcd.addresses());
        (settings.url.is_tls, settings.tls) = (etcd.scheme == "https", tls);
        etcd.until_it_answers(&Client::new(settings).expect("a client")).await;
        Some(etcd)
    }

    /// The address of a node for clients.
    pub fn address(&self, node: usize) -> &str {
        &self.nodes[node].address
    }

    /// How many nodes the cluster has.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    fn addresses(&self) -> Vec<&str> {
        self.nodes.iter().map(|node| node.address.as_str()).collect()
    }

    /// A client of these addresses, with the prefix `test`.
    pub fn client_of(addresses: &[&str]) -> Client {
        Client::new(Self::settings(addresses)).expect("a client")
    }

    pub fn settings(addresses: &[&str]) -> Settings {
        let url: EtcdUrl = format!("etcd://{}/test", addresses.join(",")).parse().expect("a URL");
        Settings {
            url,
            tls: TlsFiles::default(),
            login: None,
            cluster_id: None,
            errors: Arc::default(),
        }
    }

    /// A client of all nodes.
    pub fn client(&self) -> Client {
        Self::client_of(&self.addresses())
    }

    /// Waits until a client gets an answer.
    pub async fn until_it_answers(&self, client: &Client) {
        let deadline = Instant::now() + WAIT_LIMIT;
        while let Err(error) = client.range(&Range::key("none"), Duration::from_secs(1)).await {
            assert!(Instant::now() < deadline, "{error}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until every node answers.
    pub async fn until_all_answer(&self) {
        let deadline = Instant::now() + WAIT_LIMIT;
        while self.client().status(WITHIN).await.iter().any(Result::is_err) {
            assert!(Instant::now() < deadline, "{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The leader, by what the nodes say.
    pub async fn leader(&self) -> usize {
        let deadline = Instant::now() + WAIT_LIMIT;
        loop {
            let statuses = self.client().status(Duration::from_secs(1)).await;
            let is_leader = |status: &Result<NodeStatus, _>| {
                status.as_ref().is_ok_and(|status| status.is_leader)
            };
            if let Some(leader) = statuses.iter().position(is_leader) {
                return leader;
            }
            assert!(Instant::now() < deadline, "no leader: {statuses:?}");
        }
    }

    /// Removes the whole history.
    pub async fn compact(&self) {
        let client = self.client();
        let now = client.range(&Range::key("none"), WITHIN).await.expect("an answer").revision;
        client.compact(now, WITHIN).await.expect("compacted");
    }

    /// Starts a node that does not run, with what it has in its directory.
    pub fn start_node(&mut self, node: usize) {
        let cluster = self.nodes.iter().enumerate();
        let cluster: Vec<_> =
            cluster.map(|(n, node)| format!("node{n}=http://{}", node.peer)).collect();
        let name = format!("node{node}");
        let log = self.dir.path().join("log");
        let node = &mut self.nodes[node];
        let client = format!("{}://{}", self.scheme, node.address);
        let peer = format!("http://{}", node.peer);
        let mut command = Command::new("etcd");
        command.args(["--name", &name, "--initial-cluster", &cluster.join(",")]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.arg("--data-dir").arg(&node.dir).args(&self.args);
        command.args(["--initial-cluster-token", &self.token]);
        let log = std::fs::File::options().create(true).append(true).open(log).expect("a log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        node.process = Some(command.spawn().expect("etcd starts"));
    }

    /// Kills a node as the kernel would.
    pub fn kill(&mut self, node: usize) {
        let mut process = self.nodes[node].process.take().expect("a process");
        process.kill().expect("killed");
        hang::wait(&mut process);
    }

    /// Deletes the data of a node that does not run. It starts as another cluster.
    pub fn wipe(&mut self, node: usize) {
        self.token.push_str("-wiped");
        std::fs::remove_dir_all(&self.nodes[node].dir).expect("deleted");
    }

    /// Copies the data of a node that does not run.
    pub fn save(&self, node: usize, into: &Path) {
        copy_dir(&self.nodes[node].dir, into);
    }

    /// Gives a node that does not run the data of another time.
    pub fn restore(&self, node: usize, from: &Path) {
        std::fs::remove_dir_all(&self.nodes[node].dir).expect("deleted");
        copy_dir(from, &self.nodes[node].dir);
    }

    /// Stops all threads of a node, until `resume`.
    pub fn pause(&self, node: usize) {
        pause(self.pid(node));
    }

    pub fn resume(&self, node: usize) {
        signal(self.pid(node), "CONT");
    }

    fn pid(&self, node: usize) -> u32 {
        self.nodes[node].process.as_ref().expect("a process").id()
    }

    /// The end of what the nodes logged.
    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// Copies a directory with all that is in it.
pub fn copy_dir(from: &Path, into: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(into).status();
    assert!(copied.expect("cp runs").success());
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for process in self.nodes.iter_mut().filter_map(|node| node.process.as_mut()) {
            process.kill().ok();
            process.wait().ok();
        }
    }
}
