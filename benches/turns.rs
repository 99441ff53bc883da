//! Measures whether a replica that is far from etcd gets its changes committed: two replicas next to one
//! etcd node are busy, and a third one reaches it with a delay.
//!
//! `cargo bench --bench turns` prints a line for each replica and each delay: what it committed within ten
//! seconds, and how long the changes took until every replica had published them.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a bench fails by panicking")]

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use scopegate::metrics::HistogramSnapshot;
use scopegate::policy::catalog::Catalog;
use scopegate::policy::change::{Author, Change, ChangeKind};
use scopegate::policy::company::Company;
use scopegate::policy::id::{CompanyId, Name};
use scopegate::policy::revision::Revision;
use scopegate::store::replicated::etcd::{self, EtcdUrl, Operation, TlsFiles, Txn};
use scopegate::store::replicated::head::Head;
use scopegate::store::replicated::{Replica, Settings, keys};
use scopegate::store::{
    CommitObserver, Fact, FactKey, FactWrite, Incarnation, Outcome, Proposal, Store,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

/// How many changes wait at once at each replica.
const CALLERS: usize = 8;
/// How long changes are made.
const TIME: Duration = Duration::from_secs(10);
/// How much longer than the others the third replica waits for an answer of etcd.
const DELAYS: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(10), Duration::from_millis(30)];

struct NoListener;

impl CommitObserver for NoListener {
    fn before_apply(&self, _: Revision, _: &[FactKey]) {}
    fn durable(&self, _: Revision, _: Vec<Outcome>) {}
    fn failed(&self) {}
}

/// An etcd node.
struct Etcd {
    process: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address")
}

impl Etcd {
    fn start() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let (address, peer) = (free_address(), free_address());
        let mut command = Command::new("etcd");
        for (option, address) in [("client", address), ("peer", peer)] {
            command.args([format!("--listen-{option}-urls"), format!("http://{address}")]);
        }
        command.args(["--advertise-client-urls", &format!("http://{address}")]);
        command.args(["--initial-advertise-peer-urls", &format!("http://{peer}")]);
        command.args(["--initial-cluster", &format!("default=http://{peer}")]);
        command.arg("--data-dir").arg(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("etcd runs");
        while std::net::TcpStream::connect(address).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { process, address, _dir: dir }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Hands on everything after half of a delay, in both directions.
async fn delayed(listener: tokio::net::TcpListener, server: SocketAddr, delay: Duration) {
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = TcpStream::connect(server).await else { continue };
        client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).expect("a socket");
        let ((from_client, to_client), (from_server, to_server)) =
            (client.into_split(), server.into_split());
        tokio::spawn(hand_on(from_client, to_server, delay / 2));
        tokio::spawn(hand_on(from_server, to_client, delay / 2));
    }
}

async fn hand_on(
    mut from: impl AsyncRead + Unpin + Send + 'static,
    mut to: impl AsyncWrite + Unpin,
    delay: Duration,
) {
    let (sender, mut pieces) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut piece = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut piece).await {
            sender.send((tokio::time::Instant::now() + delay, piece[..length].to_vec())).ok();
        }
    });
    while let Some((at, piece)) = pieces.recv().await {
        tokio::time::sleep_until(at).await;
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
}

fn settings(address: SocketAddr, prefix: &str) -> etcd::Settings {
    let url: EtcdUrl = format!("etcd://{address}/{prefix}").parse().expect("a URL");
    let (tls, errors) = (TlsFiles::default(), Arc::default());
    etcd::Settings { url, tls, login: None, cluster_id: None, errors }
}

/// Begins a log, and copies its store for each replica.
async fn begin(etcd: etcd::Settings, dirs: &[std::path::PathBuf]) -> Head {
    let mut store = Store::open(&dirs[0]).expect("opened");
    let (cluster, incarnation) = (Incarnation::new_v4(), store.incarnation());
    let head = Head::first(cluster, incarnation, store.opened_at(), Timestamp::now());
    store.follow_log(&head, None).expect("it follows");
    drop(store);
    for dir in &dirs[1..] {
        let copied = Command::new("cp").arg("-a").args([&dirs[0], dir]).status();
        assert!(copied.expect("cp runs").success());
    }
    let put = Operation::Put(keys::HEAD.to_owned(), head.encode().into());
    let txn = Txn { then: vec![put], ..Txn::default() };
    let client = etcd::Client::new(etcd).expect("a client");
    client.txn(&txn, Duration::from_secs(10)).await.expect("an answer");
    head
}

fn open(etcd: etcd::Settings, dir: &Path, name: &str, head: &Head) -> Store {
    let name = Name::parse(name).expect("a name");
    let (advertise, ttl) = ("http://127.0.0.1:1".to_owned(), Duration::from_secs(4));
    let replica = Replica::new(Settings { etcd, name, advertise, ttl }).expect("a replica");
    let store = Store::open(dir).expect("opened").replicated(replica, head).expect("replicated");
    store.start(Arc::new(NoListener));
    store
}

/// The creation of a company.
fn creation(id: &str) -> Proposal {
    let time = Timestamp::UNIX_EPOCH;
    let id = CompanyId::parse(id).expect("an id");
    let company = Company::create(id.clone(), String::new(), &Catalog::empty(), None, time).after;
    let change = Change {
        revision: Revision::NEXT,
        time,
        author: Author { actor: "bench".to_owned(), ..Author::default() },
        kind: ChangeKind::CreateCompany,
        company: Some(id.clone()),
        credential: None,
        user: None,
        added: vec![],
        removed: vec![],
        displaced: vec![],
        fields: vec![],
    };
    let after = Some(Fact::Company(Arc::new(company)));
    let writes = vec![FactWrite { key: FactKey::Company(id), before: None, after }];
    Proposal { preconditions: vec![], caller: None, writes, change, idempotency: None }
}

/// Makes changes one after the other until `stop`, and returns how long each took.
fn call(store: &Store, caller: &str, stop: &AtomicBool) -> Vec<Duration> {
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let handle = store.commit(creation(&format!("{caller}-{}", times.len())));
        handle.expect("queued").blocking_recv().expect("answered").expect("committed");
        times.push(begun.elapsed());
    }
    times
}

fn measure(runtime: &Runtime, etcd: &Etcd, delay: Duration) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let dirs: Vec<_> = (0..3).map(|number| dir.path().join(number.to_string())).collect();
    let prefix = format!("delay-{}", delay.as_millis());
    let near = settings(etcd.address, &prefix);
    let (head, far) = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let far = listener.local_addr().expect("an address");
        tokio::spawn(delayed(listener, etcd.address, delay));
        (begin(near.clone(), &dirs).await, settings(far, &prefix))
    });
    let of = |number: usize| if number == 2 { far.clone() } else { near.clone() };
    let stores = dirs.iter().enumerate();
    let stores: Vec<_> = stores
        .map(|(number, dir)| open(of(number), dir, &format!("replica-{number}"), &head))
        .collect();
    for store in &stores {
        let replica = store.replica().expect("a replica");
        let members = || replica.members();
        while members().iter().count() < stores.len() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let stop = AtomicBool::new(false);
    let stop = &stop;
    std::thread::scope(|scope| {
        let callers = stores.iter().enumerate().map(|(number, store)| {
            let call =
                |caller| scope.spawn(move || call(store, &format!("c-{number}-{caller}"), stop));
            (0..CALLERS).map(call).collect::<Vec<_>>()
        });
        let callers: Vec<_> = callers.collect();
        std::thread::sleep(TIME);
        stop.store(true, Ordering::Relaxed);
        for (number, callers) in callers.into_iter().enumerate() {
            let times = callers.into_iter().flat_map(|caller| caller.join().expect("no panic"));
            let mut times: Vec<_> = times.collect();
            times.sort_unstable();
            let metrics = stores[number].replica().expect("a replica").log_metrics();
            let mut commits = HistogramSnapshot::default();
            metrics.commits.add_to(&mut commits);
            let (tried, lost) = (commits.count(), metrics.lost.read());
            let place = if number == 2 { "far" } else { "near" };
            println!(
                "{delay:.0?} {place}: {} changes in {} of {tried} commits; median {:.0?}, longest {:.0?}",
                times.len(),
                tried - lost,
                times[times.len() / 2],
                times[times.len() - 1],
            );
        }
    });
}

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let etcd = Etcd::start();
    DELAYS.iter().for_each(|delay| measure(&runtime, &etcd, *delay));
}
