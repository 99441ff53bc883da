//! A cluster: replicas as processes of the built binary, each behind proxies of its own to a real etcd.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use scopegate::proto::*;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::etcd::Etcd;
use super::proxy::Proxy;
use super::{Client, Server, free_address, scopegate};

/// How long anything may take that must happen, on a machine that is busy with other tests.
const WAIT_LIMIT: Duration = Duration::from_secs(120);
/// The catalog of all clusters.
const CATALOG: &str = "scopes: { a: , b: }";

/// The processes of a cluster.
pub struct Cluster {
    pub etcd: Etcd,
    /// The first key.
    pub key: String,
    pub replicas: Vec<Replica>,
    lease: String,
    /// What follows the prefix in the URL of etcd.
    parameters: String,
    dir: tempfile::TempDir,
}

/// A replica of a cluster.
pub struct Replica {
    pub dir: PathBuf,
    pub address: String,
    /// What is between it and each node of etcd.
    proxies: Vec<Proxy>,
    server: Option<Server>,
    channel: Channel,
    key: String,
}

impl Cluster {
    /// Starts etcd with these arguments on so many nodes, and so many replicas, and waits until all serve.
    /// None: there is no etcd on this machine.
    pub async fn start(
        nodes: usize,
        etcd_args: &[&str],
        replicas: usize,
        lease: Duration,
    ) -> Option<Self> {
        Self::start_with(nodes, etcd_args, replicas, lease, "").await
    }

    /// The same with these parameters in the URL of etcd, such as `?quota=1GiB`.
    pub async fn start_with(
        nodes: usize,
        etcd_args: &[&str],
        replicas: usize,
        lease: Duration,
        parameters: &str,
    ) -> Option<Self> {
        let etcd = Etcd::start(nodes, etcd_args).await?;
        let dir = tempfile::tempdir().expect("a directory");
        let key = dir.path().join("key");
        let mut init = scopegate();
        init.args(["replicas", "init", "--first-key-to-file"]).arg(&key);
        init.args(["--replicate", &format!("etcd://{}/test", etcd.address(0))]);
        let init = init.output().expect("it runs");
        assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        let key = std::fs::read_to_string(key).expect("a key").trim().to_owned();
        let lease = format!("{}s", lease.as_secs());
        let parameters = parameters.to_owned();
        let mut cluster = Self { etcd, key, replicas: Vec::new(), lease, parameters, dir };
        for number in 0..replicas {
            cluster.add();
            cluster.launch(number);
        }
        for number in 0..replicas {
            cluster.until_serving(number).await;
        }
        let request = ApplyCatalogRequest { yaml: CATALOG.to_owned(), ..Default::default() };
        cluster.client(0).catalog.apply_catalog(request).await.expect("applied");
        Some(cluster)
    }

    /// One more replica with an empty directory, which does not run yet. Returns its number.
    pub fn add(&mut self) -> usize {
        let (number, address) = (self.replicas.len(), free_address());
        let nodes = 0..self.etcd.count();
        let endpoint = super::endpoint(&format!("http://{address}"));
        self.replicas.push(Replica {
            dir: self.dir.path().join(format!("replica-{number}")),
            address,
            proxies: nodes.map(|node| Proxy::start(self.etcd.address(node))).collect(),
            server: None,
            channel: endpoint.timeout(WAIT_LIMIT).connect_lazy(),
            key: self.key.clone(),
        });
        number
    }

    /// A client of one replica, which connects when it is used.
    pub fn client(&self, number: usize) -> Client {
        self.replicas[number].client()
    }

    pub fn clients(&self) -> Vec<Client> {
        self.replicas.iter().map(Replica::client).collect()
    }

    /// Starts a replica that does not run, and waits for nothing.
    pub fn launch(&mut self, number: usize) {
        self.launch_by(number, scopegate());
    }

    /// The same by a command that runs the binary.
    pub fn launch_by(&mut self, number: usize, command: Command) {
        let replica = &mut self.replicas[number];
        let url = replica.etcd_url() + &self.parameters;
        let name = format!("replica-{number}");
        let own = ["--replicate", &url, "--replica-name", &name, "--listen", &replica.address];
        let args = [&own[..], &["--replica-lease", &self.lease, "--drain-timeout", "5s"]].concat();
        replica.server = Some(Server::launch(command, &replica.dir, &args).0);
    }

    /// Waits until a replica answers.
    pub async fn until_serving(&mut self, number: usize) {
        let client = self.client(number);
        let answers = async || client.ask(super::scopes_of("none", "none", &["a"])).await.is_ok();
        let deadline = Instant::now() + WAIT_LIMIT;
        while !answers().await {
            let replica = &mut self.replicas[number];
            let server = replica.server.as_mut().expect("it was started");
            let is_there = server.is_running() && Instant::now() < deadline;
            assert!(is_there, "replica {number} does not serve: {:#?}", server.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Cuts a replica off from etcd.
    pub fn cut(&self, number: usize) {
        self.replicas[number].proxies.iter().for_each(Proxy::cut);
    }

    /// Keeps all that passes between a replica and etcd, in both directions.
    pub fn hold(&self, number: usize) {
        for proxy in &self.replicas[number].proxies {
            proxy.hold_requests();
            proxy.hold_answers();
        }
    }

    pub fn mend(&self, number: usize) {
        self.replicas[number].proxies.iter().for_each(Proxy::mend);
    }

    /// How many lines of the logs of all replicas that run have this in them.
    pub fn logged(&self, part: &str) -> usize {
        self.replicas.iter().flat_map(|r| &r.server).map(|server| server.logged(part)).sum()
    }
}

impl Replica {
    pub fn client(&self) -> Client {
        Client::over_as(self.channel.clone(), Some(&self.key))
    }

    /// Where it finds etcd: through its proxies.
    pub fn etcd_url(&self) -> String {
        let nodes: Vec<_> = self.proxies.iter().map(|proxy| proxy.address.as_str()).collect();
        format!("etcd://{}/test", nodes.join(","))
    }

    /// The process that runs.
    pub fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("it runs")
    }

    /// Whether it was started and not taken.
    pub fn is_started(&self) -> bool {
        self.server.is_some()
    }

    /// The process, for what ends it.
    pub fn take(&mut self) -> Server {
        self.server.take().expect("it runs")
    }

    pub async fn health(&self, service: &str) -> ServingStatus {
        let request = HealthCheckRequest { service: service.to_owned() };
        let response = HealthClient::new(self.channel.clone()).check(request).await;
        response.expect("health answers").into_inner().status()
    }
}

/// Waits until a condition is fulfilled.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + WAIT_LIMIT;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
