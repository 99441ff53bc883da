//! Faults of etcd: replicas answer as long as their leases hold, and never by a log that is not theirs.

use std::time::Duration;

use bytes::Bytes;
use scopegate::store::replicated::etcd::{EtcdError, Operation, Range, Txn};
use serde_json::{Value, json};
use tonic_health::pb::health_check_response::ServingStatus;

use super::load::Load;
use super::{LEASE, sentence, three};
use crate::harness::cluster::Cluster;
use crate::harness::etcd::{Etcd, WITHIN, copy_dir};
use crate::harness::{http, scopegate};

/// Longer than the shortest: a loaded machine may take longer to elect a leader.
const LONG_LEASE: Duration = Duration::from_secs(10);
const CUT_OFF: &str = "REPLICA_CUT_OFF";
const ALL: &[usize] = &[0, 1, 2];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_etcd_that_dies_or_stops_touches_no_check() {
    let Some(mut cluster) = Cluster::start(3, &[], 3, LONG_LEASE).await else { return };
    let load = Load::start(&cluster).await;
    for fault in ["the leader of etcd dies", "the leader of etcd stops", "one node of etcd is down"]
    {
        let leader = cluster.etcd.leader().await;
        let is_other = fault.starts_with("one");
        let node = if is_other { (leader + 1) % 3 } else { leader };
        load.begin_row();
        match fault.ends_with("stops") {
            true => cluster.etcd.pause(node),
            false => cluster.etcd.kill(node),
        }
        load.goes_on(ALL).await;
        load.end_row(fault).untouched(ALL);
        match fault.ends_with("stops") {
            true => cluster.etcd.resume(node),
            false => cluster.etcd.start_node(node),
        }
        load.goes_on(ALL).await;
        load.end_row("and it is back").untouched(ALL);
        cluster.etcd.until_all_answer().await;
    }
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_of_etcd_replicas_answer_until_their_leases_end() {
    let Some(mut cluster) = Cluster::start(3, &[], 3, LEASE).await else { return };
    let load = Load::start(&cluster).await;
    load.begin_row();
    cluster.etcd.kill(0);
    cluster.etcd.kill(1);
    load.until_failed(ALL, CUT_OFF).await;
    load.end_row("etcd has no quorum");
    for replica in &mut cluster.replicas {
        assert_eq!(replica.health("live").await, ServingStatus::Serving);
        assert_eq!(replica.health("").await, ServingStatus::NotServing);
        assert!(replica.server().is_running());
    }
    cluster.etcd.start_node(0);
    cluster.etcd.start_node(1);
    load.goes_on(ALL).await;
    load.end_row("etcd has a quorum again");
    for replica in &mut cluster.replicas {
        assert_eq!(replica.health("").await, ServingStatus::Serving);
    }
    load.finish().await;
}

/// Calls etcd by its JSON gateway.
fn gateway(etcd: &Etcd, method: &str, body: &Value) -> Value {
    let line = format!("POST /v3/{method}");
    let reply = http::send(etcd.address(0), &line, &[], &body.to_string());
    assert_eq!(reply.status, 200, "{reply:?}");
    serde_json::from_str(&reply.body).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_is_like_one_without_a_quorum() {
    const QUOTA: &str = "16777216";
    let args = ["--quota-backend-bytes", QUOTA];
    let Some(cluster) = Cluster::start(1, &args, 3, LEASE).await else { return };
    let load = Load::start(&cluster).await;
    let mut settings = Etcd::settings(&[cluster.etcd.address(0)]);
    settings.url.prefix = "other".to_owned();
    let client = scopegate::store::replicated::etcd::Client::new(settings).expect("a client");
    load.begin_row();
    for number in 0.. {
        let put = Operation::Put(format!("fill/{number}"), Bytes::from(vec![0; 1 << 20]));
        let put = Txn { then: vec![put], ..Txn::default() };
        match client.txn(&put, WITHIN).await {
            Ok(_) => {}
            Err(EtcdError::NoSpace) => break,
            Err(error) => panic!("{error}"),
        }
    }
    load.until_failed(ALL, CUT_OFF).await;
    load.end_row("etcd is full");
    let removed = vec![Operation::Delete(Range::under("fill/"))];
    let removed = client.txn(&Txn { then: removed, ..Txn::default() }, WITHIN).await;
    client.compact(removed.expect("an answer").revision, WITHIN).await.expect("compacted");
    gateway(&cluster.etcd, "maintenance/defragment", &json!({}));
    let alarms = gateway(&cluster.etcd, "maintenance/alarm", &json!({ "action": "GET" }));
    for alarm in alarms["alarms"].as_array().expect("alarms") {
        let (member, kind) = (&alarm["memberID"], &alarm["alarm"]);
        let disarm = json!({ "action": "DEACTIVATE", "memberID": member, "alarm": kind });
        gateway(&cluster.etcd, "maintenance/alarm", &disarm);
    }
    load.goes_on(ALL).await;
    load.end_row("etcd has space again");
    load.finish().await;
}

/// Begins the cluster again with the store that has the highest revision, and starts all replicas.
async fn again(cluster: &mut Cluster) {
    let show = |dir: &std::path::Path| {
        let mut show = scopegate();
        show.args(["replicas", "show", "--output", "json", "--data-dir"]).arg(dir);
        let shown: Value =
            serde_json::from_slice(&show.output().expect("it runs").stdout).expect("JSON");
        shown["revision"].as_u64().expect("a revision")
    };
    let best = cluster.replicas.iter().map(|one| one.dir.clone()).max_by_key(|dir| show(dir));
    let best = best.expect("a replica");
    let url = format!("etcd://{}/test", cluster.etcd.address(0));
    let mut init = scopegate();
    init.args(["replicas", "init", "--again", "--all-stopped", "--replicate", &url, "--data-dir"]);
    let init = init.arg(&best).output().expect("it runs");
    assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
    for number in 0..3 {
        let dir = cluster.replicas[number].dir.clone();
        if dir != best {
            std::fs::remove_dir_all(&dir).expect("deleted");
            copy_dir(&best, &dir);
        }
    }
    for number in 0..3 {
        cluster.launch(number);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_was_wiped_is_no_empty_truth() {
    let Some(mut cluster) = three().await else { return };
    let load = Load::start(&cluster).await;
    load.begin_row();
    cluster.etcd.kill(0);
    cluster.etcd.wipe(0);
    cluster.etcd.start_node(0);
    load.until_failed(ALL, CUT_OFF).await;
    load.end_row("etcd is wiped");
    for (number, replica) in cluster.replicas.iter_mut().enumerate() {
        assert!(replica.server().is_running());
        match number {
            0 => drop(replica.take().terminate()),
            _ => replica.take().kill(),
        }
    }
    for number in 0..3 {
        cluster.launch(number);
    }
    for number in 0..3 {
        let said = sentence(cluster.replicas[number].take());
        assert!(said.contains("replicas init"), "{said}");
    }
    again(&mut cluster).await;
    load.goes_on(ALL).await;
    load.end_row("the cluster is initialised again");
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_was_set_back_is_followed_by_nobody() {
    let Some(mut cluster) = three().await else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let (load, old) = (Load::start(&cluster).await, dir.path().join("old"));
    cluster.etcd.kill(0);
    cluster.etcd.save(0, &old);
    cluster.etcd.start_node(0);
    load.goes_on(ALL).await;
    load.begin_row();
    cluster.etcd.kill(0);
    cluster.etcd.restore(0, &old);
    cluster.etcd.start_node(0);
    let said: Vec<_> = cluster.replicas.iter_mut().map(|one| sentence(one.take())).collect();
    let has_parted = |said: &String| said.contains("was set back") || said.contains("is closed");
    assert!(said.iter().all(has_parted), "{said:#?}");
    assert!(said.iter().any(|said| said.contains("was set back")), "{said:#?}");
    load.end_row("etcd is set back");
    for number in 0..3 {
        cluster.launch(number);
    }
    for number in 0..3 {
        let said = sentence(cluster.replicas[number].take());
        assert!(has_parted(&said), "{said}");
    }
    again(&mut cluster).await;
    load.goes_on(ALL).await;
    load.end_row("the cluster is initialised again");
    load.finish().await;
}
