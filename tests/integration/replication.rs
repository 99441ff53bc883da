//! Replication: stores that follow one log on a real etcd. Whatever etcd and the network do, each change is
//! committed once or not at all, and all stores become the same.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use scopegate::policy::catalog::Catalog;
use scopegate::policy::change::{Change, ChangeKind};
use scopegate::policy::company::Company;
use scopegate::policy::id::CompanyId;
use scopegate::policy::revision::Revision;
use scopegate::store::replicated::etcd::{self, Compare, Operation, Pair, Range, Txn};
use scopegate::store::replicated::head::Head;
use scopegate::store::replicated::member_record::MemberRecord;
use scopegate::store::replicated::{LogError, ReplicaError, keys};
use scopegate::store::{CommitError, Fact, FactKey, Proposal, Receipt, Store, StoreError};

use crate::entries::{copy, entries};
use crate::fixture::NoListener;
use crate::harness::etcd::{Etcd, WITHIN};
use crate::harness::proxy::Proxy;
use crate::harness::replica;
use crate::power_loss::memory;
use crate::store::{catalog, change, company, in_time, put};

const COUNTER: &str = "counter";

/// Stores of one log, each in a directory of its own.
struct Cluster {
    dir: tempfile::TempDir,
    stores: Vec<Arc<Store>>,
}

impl Cluster {
    /// So many stores, which reach etcd by these settings.
    fn start(settings: &[etcd::Settings]) -> Self {
        let dir = memory();
        let path = |number: usize| dir.path().join(number.to_string());
        // The first one begins the log, and the others begin as copies of it.
        drop(replica::open(settings[0].clone(), &path(0), "first"));
        (1..settings.len()).for_each(|number| copy(&path(0), &path(number)));
        let opened = |(number, settings): (usize, &etcd::Settings)| {
            let store =
                replica::open(settings.clone(), &path(number), &format!("replica-{number}"));
            store.start(Arc::new(NoListener));
            Arc::new(store)
        };
        let stores = settings.iter().enumerate().map(opened).collect();
        let cluster = Self { dir, stores };
        let first = put(None, Fact::Company(Arc::new(company(COUNTER, &catalog(1)))));
        commit(&cluster.stores[0], proposal(first)).expect("committed");
        cluster.until_they_are_level();
        cluster
    }

    fn path(&self, number: usize) -> PathBuf {
        self.dir.path().join(number.to_string())
    }

    fn position(&self, number: usize) -> u64 {
        self.stores[number].log_position().expect("readable").expect("it follows").seq
    }

    /// Waits until all stores have applied the same entries.
    fn until_they_are_level(&self) {
        let all = 0..self.stores.len();
        let level = || all.clone().all(|number| self.position(number) == self.position(0));
        assert!(
            in_time(level),
            "{:?}",
            all.map(|number| self.position(number)).collect::<Vec<_>>()
        );
    }

    /// Closes all stores, which must be the same then.
    fn close(self) {
        self.until_they_are_level();
        let all: Vec<_> = (0..self.stores.len()).map(|number| self.path(number)).collect();
        let logs = self.stores.into_iter().map(|store| {
            store.close();
            store.log_position().expect("readable")
        });
        let logs: Vec<_> = logs.collect();
        assert!(logs.iter().all(|log| *log == logs[0]), "{logs:?}");
        let content = |dir: &PathBuf| {
            let mut all = entries::<scopegate::store::engine::SledEngine>(dir);
            // Each replica has a time mark of its own, and collects garbage when it is idle.
            all.retain(|key, _| !key.starts_with(b"Mtime") && !key.starts_with(b"Mtally"));
            all
        };
        let first = content(&all[0]);
        all.iter().skip(1).for_each(|dir| assert_same_facts(&first, &content(dir)));
    }
}

type Entries = std::collections::BTreeMap<Vec<u8>, Vec<u8>>;

fn assert_same_facts(a: &Entries, b: &Entries) {
    let different = a.keys().chain(b.keys()).filter(|key| a.get(*key) != b.get(*key));
    let different: Vec<_> = different.map(|key| String::from_utf8_lossy(key)).collect();
    assert!(different.is_empty(), "{different:?}");
}

fn proposal(write: scopegate::store::FactWrite) -> Proposal {
    let change = change(ChangeKind::UpdateCompany, COUNTER);
    Proposal { preconditions: vec![], caller: None, writes: vec![write], change, idempotency: None }
}

fn commit(store: &Store, proposal: Proposal) -> Result<Receipt, CommitError> {
    store.commit(proposal)?.blocking_recv().expect("answered")
}

fn counter(store: &Store) -> Arc<Company> {
    let id = CompanyId::parse(COUNTER).expect("an id");
    match store.get(&FactKey::Company(id)).expect("readable") {
        Some(Fact::Company(company)) => company,
        other => panic!("{other:?}"),
    }
}

fn value(store: &Store) -> usize {
    counter(store).display_name.parse().unwrap_or(0)
}

/// Adds one to the counter, by a change that depends on the value that it replaces.
fn increment(store: &Store) -> Result<Receipt, StoreError> {
    loop {
        let before = counter(store);
        let next = value(store) + 1;
        let after = Company { display_name: next.to_string(), ..(*before).clone() };
        let write = put(Some(Fact::Company(before)), Fact::Company(Arc::new(after)));
        match commit(store, proposal(write)) {
            Ok(receipt) => return Ok(receipt),
            Err(CommitError::Conflict) => {}
            Err(CommitError::Store(error)) => return Err(error),
        }
    }
}

/// Increments by threads on every store, until `stop`. Returns how many were acknowledged.
fn increment_everywhere(
    cluster: &Cluster,
    writers: usize,
    disturb: impl FnOnce(&AtomicUsize),
) -> usize {
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for store in &cluster.stores {
            for _ in 0..writers {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        increment(store).expect("committed");
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
        disturb(&done);
        stop.store(true, Ordering::Relaxed);
    });
    done.into_inner()
}

/// Waits until so many more were acknowledged.
fn more(done: &AtomicUsize, count: usize) {
    let target = done.load(Ordering::Relaxed) + count;
    assert!(in_time(|| done.load(Ordering::Relaxed) >= target), "changes go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_all_replicas_have_one_order() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let settings = vec![Etcd::settings(&[etcd.address(0)]); 3];
    tokio::task::block_in_place(|| {
        let cluster = Cluster::start(&settings);
        let acknowledged = increment_everywhere(&cluster, 2, |done| more(done, 100));
        cluster.until_they_are_level();
        for store in &cluster.stores {
            assert_eq!(value(store), acknowledged);
        }
        cluster.close();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_carried_out_once() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let proxies: Vec<_> = (0..2).map(|_| Proxy::start(etcd.address(0))).collect();
    let settings: Vec<_> = proxies.iter().map(|proxy| Etcd::settings(&[&proxy.address])).collect();
    tokio::task::block_in_place(|| {
        let cluster = Cluster::start(&settings);
        let acknowledged = increment_everywhere(&cluster, 2, |done| {
            for round in 0..12 {
                let proxy = &proxies[round % 2];
                more(done, 2);
                match round % 3 {
                    0 => proxy.hold_answers(),
                    1 => proxy.hold_requests(),
                    _ => {}
                }
                // The other replica goes on, and wins or loses against what is held.
                thread::sleep(Duration::from_millis(30));
                proxy.cut();
                proxy.mend();
            }
            more(done, 4);
        });
        cluster.until_they_are_level();
        for store in &cluster.stores {
            assert_eq!(value(store), acknowledged);
        }
        cluster.close();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_go_on_when_a_node_of_three_is_killed_or_stopped() {
    let Some(mut etcd) = Etcd::start(3, &[]).await else { return };
    let addresses: Vec<_> = (0..3).map(|node| etcd.address(node).to_owned()).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let settings = vec![Etcd::settings(&addresses); 2];
    tokio::task::block_in_place(|| {
        let cluster = Cluster::start(&settings);
        let acknowledged = increment_everywhere(&cluster, 1, |done| {
            let runtime = tokio::runtime::Handle::current();
            more(done, 5);
            let leader = runtime.block_on(etcd.leader());
            etcd.kill(leader);
            more(done, 5);
            etcd.start_node(leader);
            more(done, 5);
            let leader = runtime.block_on(etcd.leader());
            etcd.pause(leader);
            more(done, 5);
            etcd.resume(leader);
            more(done, 5);
        });
        cluster.until_they_are_level();
        for store in &cluster.stores {
            assert_eq!(value(store), acknowledged);
        }
        cluster.close();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn all_replicas_know_when_a_credential_was_last_seen_at_any() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let settings = vec![Etcd::settings(&[etcd.address(0)]); 3];
    let client = etcd.client();
    // One that nobody deleted in time, and one of a clock that was far ahead. Neither can be read.
    let put = |name, number| Operation::Put(keys::seen(name, number), "?".into());
    let then = vec![put("gone", 5), put("ahead", u64::MAX)];
    client.txn(&Txn { then, ..Txn::default() }, WITHIN).await.expect("an answer");
    let minute = || u32::try_from(jiff::Timestamp::now().as_second() / 60).expect("a minute");
    let (early, late, last) = (Revision(7), Revision(8), Revision(9));
    let now = minute();
    tokio::task::block_in_place(|| {
        let cluster = Cluster::start(&settings);
        let seen = |number: usize, credential: Revision| {
            cluster.stores[number].last_seen(credential).expect("readable")
        };
        let all_know = |credential, minute| {
            let know = || (0..3).all(|number| seen(number, credential) == Some(minute));
            assert!(in_time(know), "{:?}", [0, 1, 2].map(|number| seen(number, credential)));
        };
        cluster.stores[0].note_last_seen(vec![(early, now - 20), (late, now + 1_000)]);
        cluster.stores[1].note_last_seen(vec![(early, now - 5)]);
        cluster.stores[2].note_last_seen(vec![(early, now - 30)]);
        all_know(early, now - 5);
        // A clock that is ahead is not believed.
        assert!(in_time(|| seen(1, late).is_some()));
        assert!((now..=minute()).contains(&seen(1, late).expect("told")));
        // An earlier minute changes nothing, at no replica.
        cluster.stores[2].note_last_seen(vec![(early, now - 40), (last, now)]);
        all_know(last, now);
        all_know(early, now - 5);
        cluster.close();
    });
    let left = client.range(&Range::under(keys::SEEN), WITHIN).await.expect("an answer").pairs;
    let owners: Vec<_> = left.iter().filter_map(|pair| keys::piece_of_seen(&pair.key)).collect();
    assert!(owners.iter().all(|(name, _)| name.starts_with("replica-")), "{owners:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn times_are_stored_while_etcd_gives_no_answer() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    tokio::task::block_in_place(|| {
        let cluster = Cluster::start(&[Etcd::settings(&[etcd.address(0)])]);
        let store = &cluster.stores[0];
        etcd.pause(0);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| increment(store));
            let mark = store.durable_time() + Duration::from_secs(3600);
            let durable = store.persist_time(mark).expect("queued");
            durable.blocking_recv().expect("stored");
            assert!(store.durable_time() >= mark);
            assert!(!waiting.is_finished());
            etcd.resume(0);
            waiting.join().expect("no panic").expect("committed");
        });
        assert_eq!(value(store), 1);
        assert!(store.durable_time() >= counter(store).update_time);
        cluster.close();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_closed_in_doubt_is_closed() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let proxy = Proxy::start(etcd.address(0));
    tokio::task::block_in_place(|| {
        let cluster = Cluster::start(&[Etcd::settings(&[&proxy.address])]);
        let store = &cluster.stores[0];
        proxy.hold_answers();
        thread::scope(|scope| {
            let before = proxy.requested();
            let waiting = scope.spawn(|| increment(store));
            // More than the follower asks.
            assert!(in_time(|| proxy.requested() > before + 2_000));
            store.close();
            let refused = waiting.join().expect("no panic").expect_err("not known");
            assert_eq!(refused, StoreError::NotYetEverywhere(None));
        });
    });
}

/// What a store says when etcd has another log than the one that it follows.
async fn parted(change: impl AsyncFnOnce(&Etcd, &etcd::Client, &[u8])) -> Option<LogError> {
    let etcd = Etcd::start(1, &[]).await?;
    let settings = Etcd::settings(&[etcd.address(0)]);
    let cluster = tokio::task::block_in_place(|| Cluster::start(&[settings]));
    let store = Arc::clone(&cluster.stores[0]);
    let client = etcd.client();
    let head = client.range(&Range::key("head"), WITHIN).await.expect("an answer");
    tokio::task::block_in_place(|| increment(&store)).expect("committed");
    change(&etcd, &client, &head.pairs[0].value).await;
    let mut parted = store.replica().expect("a replica").parted();
    let error = parted.wait_for(Option::is_some).await.expect("it runs").clone();
    let refused = tokio::task::block_in_place(|| increment(&store)).expect_err("refused");
    assert_eq!(refused, StoreError::CutOff);
    assert_eq!(value(&store), 1, "nothing is applied");
    error
}

async fn set_head(client: &etcd::Client, head: Vec<u8>) {
    change_raw(client, Operation::Put("head".to_owned(), head.into())).await;
}

async fn change_raw(client: &etcd::Client, operation: Operation) {
    let txn = Txn { then: vec![operation], ..Txn::default() };
    client.txn(&txn, WITHIN).await.expect("an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_parts_from_a_log_that_was_set_back() {
    let error = parted(async |_, client, before| set_head(client, before.to_vec()).await).await;
    assert!(matches!(error, None | Some(LogError::SetBack { log: 1, store: 2 })), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_parts_from_a_log_that_is_gone() {
    let error = parted(async |_, client, _| {
        change_raw(client, Operation::Delete(Range::key("head"))).await;
    })
    .await;
    assert!(matches!(error, None | Some(LogError::Missing)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_parts_from_a_closed_log_and_from_another_cluster() {
    use scopegate::store::replicated::head::{Head, HeadState};
    for (is_closed, expected) in [(true, "closed"), (false, "cluster")] {
        let error = parted(async |_, client, _| {
            let now = client.range(&Range::key("head"), WITHIN).await.expect("an answer");
            let mut head = Head::decode(&now.pairs[0].value).expect("readable");
            match is_closed {
                true => head.state = HeadState::Closed(head.cluster),
                false => head.cluster = uuid::Uuid::new_v4(),
            }
            set_head(client, head.encode()).await;
        })
        .await;
        assert!(error.is_none_or(|error| error.to_string().contains(expected)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_in_doubt_is_not_refused_when_the_log_is_closed() {
    use scopegate::store::replicated::head::{Head, HeadState};
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let proxy = Proxy::start(etcd.address(0));
    let client = etcd.client();
    let cluster =
        tokio::task::block_in_place(|| Cluster::start(&[Etcd::settings(&[&proxy.address])]));
    let store = Arc::clone(&cluster.stores[0]);
    let head = async || {
        let now = client.range(&Range::key("head"), WITHIN).await.expect("an answer");
        Head::decode(&now.pairs[0].value).expect("readable")
    };
    let before = head().await;
    proxy.hold_answers();
    let writing = Arc::clone(&store);
    let waiting = tokio::task::spawn_blocking(move || increment(&writing));
    let mut now = head().await;
    while now.seq == before.seq {
        tokio::time::sleep(Duration::from_millis(10)).await;
        now = head().await;
    }
    now.state = HeadState::Closed(now.cluster);
    set_head(&client, now.encode()).await;
    proxy.cut();
    proxy.mend();
    let told = waiting.await.expect("no panic");
    assert_eq!(told.expect_err("closed"), StoreError::NotYetEverywhere(None));
}

/// A change that replaces the counter's name by one of so many bytes.
fn rename(store: &Store, bytes: usize) -> Result<Receipt, CommitError> {
    let before = counter(store);
    let after = Company { display_name: "1".repeat(bytes), ..(*before).clone() };
    commit(store, proposal(put(Some(Fact::Company(before)), Fact::Company(Arc::new(after)))))
}

/// The keys of all parts.
async fn parts(client: &etcd::Client) -> Vec<String> {
    let answer = client.range(&Range::under(keys::PARTS).keys_only(), WITHIN).await;
    answer.expect("an answer").pairs.into_iter().map(|pair| pair.key).collect()
}

async fn until_there_are_parts(client: &etcd::Client) {
    while parts(client).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn head_of(client: &etcd::Client) -> (Head, bytes::Bytes) {
    let answer = client.range(&Range::key(keys::HEAD), WITHIN).await.expect("an answer");
    let value = answer.pairs[0].value.clone();
    (Head::decode(&value).expect("readable"), value)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_several_mebibytes_reaches_every_replica() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let settings = vec![Etcd::settings(&[etcd.address(0)]); 3];
    let client = etcd.client();
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(&settings));
    // This one follows the entries only when it is opened again.
    cluster.stores.pop().expect("three").close();
    tokio::task::block_in_place(|| {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let small = || {
                while !stop.load(Ordering::Relaxed) {
                    let other = company("other", &catalog(1));
                    let key = FactKey::Company(other.id.clone());
                    let before = cluster.stores[1].get(&key).expect("readable");
                    let writes = vec![put(before, Fact::Company(Arc::new(other)))];
                    let change = change(ChangeKind::UpdateCompany, "other");
                    let proposal = Proposal {
                        preconditions: vec![],
                        caller: None,
                        writes,
                        change,
                        idempotency: None,
                    };
                    commit(&cluster.stores[1], proposal).expect("committed");
                }
            };
            // It wins against the changes of another replica that come while the parts are put.
            scope.spawn(small);
            rename(&cluster.stores[0], 5 << 20).expect("committed");
            rename(&cluster.stores[0], 2 << 20).expect("committed");
            stop.store(true, Ordering::Relaxed);
        });
        cluster.until_they_are_level();
        assert_eq!(counter(&cluster.stores[1]).display_name.len(), 2 << 20);
    });
    // Each content has its parts once, and the key of its entry.
    assert_eq!(parts(&client).await.len(), (6 + 1) + (3 + 1));
    assert!(head_of(&client).await.0.bytes > 7 << 20);
    tokio::task::block_in_place(|| {
        let store = replica::open(settings[2].clone(), &cluster.path(2), "replica-2");
        store.start(Arc::new(NoListener));
        cluster.stores.push(Arc::new(store));
        cluster.close();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_that_loses_commits_keeps_its_parts() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let settings = vec![Etcd::settings(&[etcd.address(0)]); 2];
    let client = etcd.client();
    let now = |proposal: Proposal| {
        let time = jiff::Timestamp::from_millisecond(jiff::Timestamp::now().as_millisecond());
        let change = Change { time: time.expect("a time"), ..proposal.change };
        Proposal { change, ..proposal }
    };
    tokio::task::block_in_place(|| {
        let cluster = Cluster::start(&settings);
        let (stop, busy) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let other = Fact::Company(Arc::new(company("other", &catalog(1))));
                    let id = CompanyId::parse("other").expect("an id");
                    let before = cluster.stores[1].get(&FactKey::Company(id)).expect("readable");
                    commit(&cluster.stores[1], now(proposal(put(before, other))))
                        .expect("committed");
                    busy.store(true, Ordering::Relaxed);
                }
            });
            assert!(in_time(|| busy.load(Ordering::Relaxed)));
            let before = cluster.stores[0].get(&FactKey::Catalog).expect("readable");
            let yaml = format!("scopes: {{ s0: }}\n# {}", "1".repeat(5 << 20));
            let after = Catalog::empty().replaced_by(&yaml).expect("a catalog");
            let lost = cluster.stores[0].replica().expect("a replica").log_metrics().lost.read();
            let applied = proposal(put(before, Fact::Catalog(Arc::new(after))));
            commit(&cluster.stores[0], now(applied)).expect("committed");
            let metrics = cluster.stores[0].replica().expect("a replica").log_metrics();
            assert!(metrics.lost.read() > lost, "the other one came first");
            stop.store(true, Ordering::Relaxed);
        });
        cluster.until_they_are_level();
        cluster.close();
    });
    // Its time is that of the last attempt, and its parts are those of the first.
    assert_eq!(parts(&client).await.len(), 6 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_vanish_before_the_commit_are_put_again() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let proxy = Proxy::start(etcd.address(0));
    let client = etcd.client();
    let settings = [Etcd::settings(&[&proxy.address]), Etcd::settings(&[etcd.address(0)])];
    let cluster = tokio::task::block_in_place(|| Cluster::start(&settings));
    for bytes in (5 << 19).. {
        // The second part takes longer than the deletion of the first one.
        proxy.delay(Duration::from_millis(10));
        let (store, before) = (Arc::clone(&cluster.stores[0]), head_of(&client).await.1);
        let renamed = tokio::task::spawn_blocking(move || rename(&store, bytes));
        until_there_are_parts(&client).await;
        let deletion = Txn {
            compares: vec![Compare::Is(keys::HEAD.to_owned(), before)],
            then: vec![Operation::Delete(Range::under(keys::PARTS))],
            or_else: vec![],
        };
        let was_before = client.txn(&deletion, WITHIN).await.expect("an answer").succeeded;
        proxy.mend();
        renamed.await.expect("no panic").expect("committed");
        if was_before {
            break;
        }
    }
    assert_eq!(parts(&client).await.len(), 3 + 1);
    tokio::task::block_in_place(|| cluster.close());
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_whose_replica_ends_before_the_commit_are_of_no_entry() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let proxy = Proxy::start(etcd.address(0));
    let client = etcd.client();
    let settings = [Etcd::settings(&[&proxy.address]), Etcd::settings(&[etcd.address(0)])];
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(&settings));
    let before = head_of(&client).await.0;
    // The second part takes longer than the proxy needs to be cut.
    proxy.delay(Duration::from_millis(20));
    let store = Arc::clone(&cluster.stores[0]);
    let renamed = tokio::task::spawn_blocking(move || rename(&store, 5 << 19));
    until_there_are_parts(&client).await;
    proxy.cut();
    tokio::task::block_in_place(|| cluster.stores.remove(0).close());
    let refused = renamed.await.expect("no panic").expect_err("not committed");
    assert_eq!(refused, CommitError::Store(StoreError::NotYetEverywhere(None)));
    assert_eq!(head_of(&client).await.0, before);
    // It could not delete its record, for which the others would wait.
    let members = client.range(&Range::under(keys::MEMBERS), WITHIN).await.expect("an answer");
    let own = |pair: &&Pair| {
        MemberRecord::decode(&pair.value).expect("readable").name.as_str() == "replica-0"
    };
    let own = members.pairs.iter().find(own).expect("a record");
    change_raw(&client, Operation::Delete(Range::key(&own.key))).await;
    tokio::task::block_in_place(|| {
        proxy.mend();
        // The others go on, and so does it when it is opened again.
        increment(&cluster.stores[0]).expect("committed");
        let store = replica::open(settings[0].clone(), &cluster.path(0), "replica-0");
        store.start(Arc::new(NoListener));
        cluster.stores.insert(0, Arc::new(store));
        cluster.until_they_are_level();
        rename(&cluster.stores[0], 5 << 19).expect("committed");
        cluster.close();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_the_first_format_has_no_change_in_parts() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let client = etcd.client();
    let settings = [Etcd::settings(&[etcd.address(0)])];
    let cluster = tokio::task::block_in_place(|| Cluster::start(&settings));
    let (head, _) = head_of(&client).await;
    set_head(&client, Head { format: 1, ..head }.encode()).await;
    tokio::task::block_in_place(|| {
        increment(&cluster.stores[0]).expect("committed");
        let refused = rename(&cluster.stores[0], 2 << 20).expect_err("too large");
        assert!(refused.to_string().contains("`scopegate replicas finalize`"), "{refused}");
        increment(&cluster.stores[0]).expect("committed");
    });
    assert!(parts(&client).await.is_empty());
    tokio::task::block_in_place(|| cluster.close());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_applies_no_entry_whose_parts_are_damaged_or_gone() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let client = etcd.client();
    let settings = vec![Etcd::settings(&[etcd.address(0)]); 2];
    let cluster = tokio::task::block_in_place(|| {
        let mut cluster = Cluster::start(&settings);
        cluster.stores.pop().expect("two").close();
        rename(&cluster.stores[0], 2 << 20).expect("committed");
        cluster
    });
    let seq = cluster.position(0);
    let part = Operation::Put(parts(&client).await[1].clone(), "other".into());
    let deletion = Operation::Delete(Range::under(keys::PARTS));
    for (change, error) in
        [(part, LogError::Damaged("part of an entry")), (deletion, LogError::Truncated(seq))]
    {
        change_raw(&client, change).await;
        let store = tokio::task::block_in_place(|| {
            let store = replica::open(settings[1].clone(), &cluster.path(1), "replica-1");
            store.start(Arc::new(NoListener));
            store
        });
        let replica = store.replica().expect("a replica");
        let mut parted = replica.parted();
        let parted = parted.wait_for(Option::is_some).await.expect("it runs").clone();
        assert_eq!(parted.as_ref(), Some(&error));
        // So the next start knows, too, and takes a snapshot instead of entries that are gone.
        let cluster = store.cluster().expect("it follows").id;
        let position = store.log_position().expect("readable").expect("it follows");
        assert_eq!(replica.check(cluster, position).await, Err(ReplicaError::Log(error)));
        assert_eq!(store.log_position().expect("readable").expect("it follows").seq, seq - 1);
        tokio::task::block_in_place(|| drop(store));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_is_not_used_ends() {
    let Some(etcd) = Etcd::start(1, &[]).await else { return };
    let client = etcd.client();
    let settings = [Etcd::settings(&[etcd.address(0)])];
    let cluster = tokio::task::block_in_place(|| Cluster::start(&settings));
    change_raw(&client, Operation::Put(keys::TURN.to_owned(), "a replica that died".into())).await;
    tokio::task::block_in_place(|| increment(&cluster.stores[0])).expect("committed");
    let turn = client.range(&Range::key(keys::TURN), WITHIN).await.expect("an answer");
    assert_eq!(turn.pairs, [], "the commit waited for its end");
    tokio::task::block_in_place(|| cluster.close());
}
