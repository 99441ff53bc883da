//! Snapshots over the wire: one server as it serves other replicas, on a real socket.

use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use clap::Parser;
use jiff::Timestamp;
use tokio::sync::watch;

use super::args::ServeArgs;
use super::settings::settings;
use crate::authority::{Authority, NewCompany, WriteOptions};
use crate::observe::rejection::RejectionReason;
use crate::policy::id::{CompanyId, Name};
use crate::policy::revision::Revision;
use crate::store::replicated::etcd::TlsFiles;
use crate::store::replicated::head::Head;
use crate::store::replicated::member_record::{MemberRecord, PeerToken};
use crate::store::replicated::membership::MembershipState;
use crate::store::replicated::peer_client::{SnapshotReader, fetch};
use crate::store::{Incarnation, Store, install_snapshot};
use crate::transport::listener::Listener;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    args: ServeArgs,
}

/// A server of a replica whose store is larger than what waits in buffers.
struct Replica {
    listener: Listener,
    head: Head,
    membership: watch::Sender<MembershipState>,
    _entries: mpsc::Receiver<Vec<u8>>,
}

impl Replica {
    async fn start(dir: &Path) -> Self {
        let line = ["serve", "--listen", "127.0.0.1:0", "--worker-threads", "1", "--data-dir"];
        let dir = dir.to_str().expect("a path");
        let args = Flags::parse_from(line.into_iter().chain([dir])).args;
        let listener = Listener::listen(settings(&args)).await.expect("bound");
        let mut store = Store::open(&args.data_dir).expect("opened");
        let cluster = Incarnation::from_u128(7);
        let head = Head::first(cluster, store.incarnation(), Revision::ZERO, Timestamp::UNIX_EPOCH);
        store.follow_log(&head, Some(1)).expect("it follows");
        let (sender, entries) = mpsc::channel();
        let authority = Authority::new(Arc::new(store.sending_entries(sender)), 100);
        let authority = listener.api.open(authority.expect("opened"));
        for n in 0..16 {
            let id = CompanyId::parse(format!("c{n}")).expect("an id");
            let display_name = format!("{n}").repeat(100_000);
            let new = NewCompany { id, display_name, scopes: None };
            let session = authority.internal_session("a test");
            session.create_company(&new, &WriteOptions::default()).await.expect("created");
        }
        let membership = watch::Sender::new(joined([1; 32]));
        listener.api.serve_peers(membership.subscribe());
        Self { listener, head, membership, _entries: entries }
    }

    /// Fetches with this token.
    async fn fetch(&self, token: [u8; 32]) -> io::Result<SnapshotReader> {
        let record = MemberRecord {
            session: Incarnation::from_u128(1),
            name: Name::parse("a".to_owned()).expect("a name"),
            count: 0,
            random: [0; 16],
            published: Revision::ZERO,
            fenced: false,
            ttl: Duration::from_secs(4),
            clock: Timestamp::UNIX_EPOCH,
            started: Timestamp::UNIX_EPOCH,
            report: crate::store::replicated::ReplicaReport::default(),
            speaks: 1,
            version: String::new(),
            advertise: format!("http://{}", self.listener.addresses[0]),
            peer_token: PeerToken(token),
        };
        blocking(move || fetch(&record, &TlsFiles::default())).await
    }

    async fn refused(&self, token: [u8; 32]) -> String {
        self.fetch(token).await.err().expect("refused").to_string()
    }

    fn rejected(&self) -> u64 {
        let counts = self.listener.rejected_callers.counts();
        let unknown = |(why, count)| (why == RejectionReason::UnknownKey).then_some(count);
        counts.filter_map(unknown).sum()
    }
}

fn joined(token: [u8; 32]) -> MembershipState {
    MembershipState::Joined { session: Incarnation::from_u128(1), peer_token: PeerToken(token) }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

/// The whole rest of a snapshot.
async fn rest(mut reader: SnapshotReader) -> io::Result<Vec<u8>> {
    blocking(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_needs_the_token_of_the_present_session() {
    let dir = tempfile::tempdir().expect("a directory");
    let replica = Replica::start(&dir.path().join("a")).await;
    assert!(replica.refused([2; 32]).await.contains("unknown"));
    assert_eq!(replica.rejected(), 1, "it is counted");
    let reader = replica.fetch([1; 32]).await.expect("admitted");
    // The session ends. What it has begun goes on.
    replica.membership.send_replace(MembershipState::Joining(String::new()));
    assert!(replica.refused([1; 32]).await.contains("unknown"));
    replica.membership.send_replace(joined([2; 32]));
    assert!(replica.refused([1; 32]).await.contains("unknown"));
    rest(replica.fetch([2; 32]).await.expect("admitted")).await.expect("complete");
    let (head, to) = (replica.head.clone(), dir.path().join("b"));
    let installed = blocking(move || install_snapshot(&to, reader, &head)).await;
    let authority = replica.listener.api.authority().expect("open");
    assert_eq!(installed.expect("installed").revision, authority.published());
    replica.listener.drain(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_snapshots_run_at_once_and_end_at_a_drain() {
    let dir = tempfile::tempdir().expect("a directory");
    let replica = Replica::start(&dir.path().join("a")).await;
    let one = replica.fetch([1; 32]).await.expect("admitted");
    let two = replica.fetch([1; 32]).await.expect("admitted");
    assert!(replica.refused([1; 32]).await.contains("too many"));
    rest(one).await.expect("complete");
    let three = replica.fetch([1; 32]).await.expect("there is a slot again");
    blocking(move || drop(three)).await;
    let drained = tokio::spawn(replica.listener.drain(Duration::from_secs(30)));
    let error = rest(two).await.expect_err("it was cut off");
    assert!(error.to_string().contains("shutting down"), "{error}");
    assert_eq!(drained.await.expect("no panic"), 0, "no call had to be cut");
}
