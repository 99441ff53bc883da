//! Stores of replicas, each with its own directory, on the log of one etcd.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use scopegate::policy::id::Name;
use scopegate::store::replicated::etcd::{self, Compare, Operation, Txn};
use scopegate::store::replicated::head::Head;
use scopegate::store::replicated::{Replica, Settings, keys};
use scopegate::store::{Incarnation, Store};

use super::etcd::{Etcd, WITHIN};

/// The shortest time of a lease.
pub const TTL: Duration = Duration::from_secs(3);

/// How often a replica tells when credentials were last seen.
const TELLING: Duration = Duration::from_secs(1);

/// The settings of a replica of this name on this etcd.
pub fn settings(etcd: etcd::Settings, name: &str) -> Settings {
    let name = Name::parse(name).expect("a name");
    let advertise = "http://127.0.0.1:1".to_owned();
    Settings { etcd, name, advertise, ttl: TTL }
}

/// Opens the store of a replica. A new store begins a new log.
pub fn open(etcd: etcd::Settings, dir: &Path, name: &str) -> Store {
    let mut store = Store::open(dir).expect("opened");
    if store.log_position().expect("readable").is_none() {
        let (cluster, incarnation) = (Incarnation::new_v4(), store.incarnation());
        let head = Head::first(cluster, incarnation, store.opened_at(), jiff::Timestamp::now());
        store.follow_log(&head, None).expect("it follows");
        initialise(&etcd, &head);
    }
    let replica = Replica::new(settings(etcd, name)).expect("a replica");
    let replica = replica.telling_last_seen_every(TELLING);
    let log = block_on(async { (replica.log().await.expect("a log"), replica) });
    store.replicated(log.1, &log.0.head).expect("replicated")
}

/// Puts the first head of a log.
pub fn initialise(etcd: &etcd::Settings, head: &Head) {
    let (etcd, head) = (etcd.clone(), Bytes::from(head.encode()));
    let put = async move {
        let client = etcd::Client::new(etcd).expect("a client");
        let compares = vec![Compare::Absent(keys::HEAD.to_owned())];
        let then = vec![Operation::Put(keys::HEAD.to_owned(), head)];
        let txn = Txn { compares, then, or_else: vec![] };
        assert!(client.txn(&txn, WITHIN).await.expect("an answer").succeeded);
    };
    block_on(put);
}

fn block_on<F: Future + Send + 'static>(future: F) -> F::Output
where
    F::Output: Send,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    // The caller may be on a runtime of its own.
    std::thread::scope(|scope| {
        scope.spawn(move || runtime.block_on(future)).join().expect("no panic")
    })
}

/// Opens a store on the etcd of this test, which ends with the thread of the test. None: there is no etcd
/// on this machine.
pub fn open_alone(dir: &Path) -> Option<Arc<Store>> {
    thread_local! {
        static ETCD: RefCell<Option<Etcd>> = const { RefCell::new(None) };
    }
    ETCD.with_borrow_mut(|etcd| {
        if etcd.is_none() {
            *etcd = block_on(Etcd::start(1, &[]));
        }
        let mut settings = Etcd::settings(&[etcd.as_ref()?.address(0)]);
        settings.url.prefix =
            dir.file_name()?.to_string_lossy().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        Some(Arc::new(open(settings, dir, "alone")))
    })
}
