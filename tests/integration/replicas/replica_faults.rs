//! Faults of one replica: the others go on, and a change waits until that one can answer no more.

use std::fs;
use std::process::{Child, Command};

use scopegate::proto::*;
use scopegate::store::replicated::etcd::Range;
use scopegate::store::replicated::keys;
use scopegate::store::replicated::member_record::MemberRecord;
use tonic_health::pb::health_check_response::ServingStatus;

use super::load::{Load, reason};
use super::{LEASE, rounds, three};
use crate::harness::cluster::{Cluster, until};
use crate::harness::etcd::WITHIN;
use crate::harness::process::is_possible;
use crate::harness::{Client, pause, scopes_of};

const CUT_OFF: &str = "REPLICA_CUT_OFF";

async fn records(cluster: &Cluster) -> Vec<MemberRecord> {
    let answer = cluster.etcd.client().range(&Range::under(keys::MEMBERS), WITHIN).await;
    let pairs = answer.expect("an answer").pairs;
    pairs.iter().map(|pair| MemberRecord::decode(&pair.value).expect("a record")).collect()
}

/// Wakes a replica up with many checks at once: each is judged.
async fn wake_up(cluster: &mut Cluster, load: &Load, replica: usize) {
    let asked = load.burst(replica, 100);
    cluster.replicas[replica].server().signal("CONT");
    for ended in asked {
        ended.await.expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_die_or_were_stopped_are_waited_for_once_and_answer_nothing_old() {
    let Some(mut cluster) = Cluster::start(1, &[], 4, LEASE).await else { return };
    let load = Load::start(&cluster).await;
    load.begin_row();
    cluster.replicas[2].take().kill();
    cluster.replicas[3].server().pause();
    load.goes_on(&[0, 1]).await;
    let deleted = "the record of a replica that has died was deleted";
    assert!(cluster.logged(deleted) > 0);
    // Its record is gone, and what was changed meanwhile is acknowledged.
    wake_up(&mut cluster, &load, 3).await;
    load.goes_on(&[0, 1, 3]).await;
    let row = load.end_row("a replica dies, and one is stopped beyond its lease");
    row.untouched(&[0, 1]);
    assert!(row.failed(3, CUT_OFF) > 0, "its session was over");
    cluster.launch(2);
    load.goes_on(&[0, 1, 2, 3]).await;
    load.end_row("a dead replica starts again").untouched(&[0, 1, 3]);
    load.finish().await;
}

/// A tracer that is stopped, and so stops what it traces.
struct StoppedTracer(Child);

impl Drop for StoppedTracer {
    /// What is traced goes on. It could not end before.
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Stops one thread of a process when it waits next, and not the others.
async fn stop_thread(pid: u32, thread: &str) -> StoppedTracer {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("readable");
    let task = tasks
        .map(|task| task.expect("a thread").path())
        .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == thread));
    let task = task.expect("the thread");
    let id = task.file_name().and_then(|id| id.to_str()).expect("an id");
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o", "/dev/null", "-e", "trace=epoll_wait", "-p", id]);
    let strace = StoppedTracer(strace.spawn().expect("it runs"));
    let is = |field: &str, value: &str| {
        let status = fs::read_to_string(task.join("status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
        line.contains(value)
    };
    let tracer = strace.0.id().to_string();
    until("the tracer", async || is("TracerPid:", &tracer)).await;
    pause(strace.0.id());
    until("the thread stops", async || is("State:", "t (tracing stop)")).await;
    strace
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_without_etcd_answer_until_their_leases_end() {
    let Some(cluster) = three().await else { return };
    let load = Load::start(&cluster).await;
    load.begin_row();
    cluster.cut(1);
    cluster.hold(2);
    load.until_failed(&[1, 2], CUT_OFF).await;
    load.goes_on(&[0]).await;
    load.end_row("connections to etcd are cut at one replica, and hang at another").untouched(&[0]);
    cluster.mend(1);
    cluster.mend(2);
    load.goes_on(&[0, 1, 2]).await;
    load.end_row("their connections are back").untouched(&[0]);
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_replica_costs_a_change_a_fence() {
    let Some(mut cluster) = three().await else { return };
    let load = Load::start(&cluster).await;
    load.begin_row();
    for _ in 0..rounds() {
        cluster.replicas[2].server().pause();
        let is_fenced =
            |record: &MemberRecord| record.name.as_str() == "replica-2" && record.fenced;
        until("the fence", async || records(&cluster).await.iter().any(is_fenced)).await;
        // Its lease is perhaps not over.
        wake_up(&mut cluster, &load, 2).await;
        load.goes_on(&[0, 1, 2]).await;
    }
    load.end_row("a replica that stands still for a while").untouched(&[0, 1]);
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_restarted_one_after_the_other_under_load() {
    let Some(mut cluster) = three().await else { return };
    let load = Load::start(&cluster).await;
    let failover = super::failover::Failover::start(&cluster);
    load.begin_row();
    for number in 0..3 {
        let status = cluster.replicas[number].take().terminate();
        assert!(status.success(), "{status}");
        load.changes_go_on(&[(number + 1) % 3, (number + 2) % 3]).await;
        cluster.launch(number);
        load.goes_on(&[0, 1, 2]).await;
    }
    load.end_row("a rolling restart");
    assert!(failover.finish().await > 100, "checks went on");
    for what in ["has died was deleted", "was fenced"] {
        assert_eq!(cluster.logged(what), 0, "a change waited for a lease: {what}");
    }
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_a_replica_is_killed_under_writers() {
    let Some(mut cluster) = three().await else { return };
    let writers = super::writers::Writers::start(&cluster, 8);
    for round in 0..rounds() {
        let number = round as usize % 3;
        writers.more(20).await;
        cluster.replicas[number].take().kill();
        writers.more(20).await;
        cluster.launch(number);
        cluster.until_serving(number).await;
    }
    writers.more(20).await;
    writers.finish(&cluster).await;
}

/// Panics if a replica still allows what was restricted.
async fn assert_in_force(replica: &Client, what: &str) {
    if let Ok(answer) = replica.ask(scopes_of("acme", "key", &["a"])).await {
        assert_eq!(answer.reason(), Reason::ScopeNotInCompany, "after {what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_tells_of_a_change_waits_as_long_as_the_change() {
    let Some(mut cluster) = three().await else { return };
    let [first, second, third] = [0, 1, 2].map(|number| cluster.client(number));
    first.create_company("acme", Some(&["a"])).await;
    first.create_credential("acme", "key", &["a"]).await;
    // This one goes on with what it has, until its lease ends. No thread of it ends the session: each call
    // has to look at the clock.
    let can_trace = is_possible(&["strace", "-o", "/dev/null"]);
    let _stopped = match can_trace {
        true => Some(stop_thread(cluster.replicas[2].server().pid(), "replica-lease").await),
        false => {
            println!("skipped in part: no strace (apt-get install strace), or no right to trace");
            None
        }
    };
    cluster.hold(2);
    let restrict = |request_id: &str| RestrictCompanyScopesRequest {
        company_id: "acme".to_owned(),
        scopes: vec!["a".to_owned()],
        acknowledge_impact: true,
        request_id: request_id.to_owned(),
        ..Default::default()
    };
    let id = "7f1f3c1e-95f5-4f0c-8a3d-0c1d2b3a4f5e";
    let change = async {
        first.try_restrict(restrict(id)).await.expect("restricted");
        assert_in_force(&third, "the change").await;
    };
    let others = async {
        let is_shown = async || {
            let answer = second.ask(scopes_of("acme", "key", &["a"])).await.expect("an answer");
            answer.reason() == Reason::ScopeNotInCompany
        };
        until("the change is shown before it is acknowledged", is_shown).await;
        let old = third.ask(scopes_of("acme", "key", &["a"])).await;
        eprintln!("meanwhile the third answers {:?}", old.map(|answer| answer.reason()));
        let repeat = async {
            second.try_restrict(restrict(id)).await.expect("repeated");
            assert_in_force(&third, "its repeat").await;
        };
        let unchanged = async {
            second.try_restrict(restrict("")).await.expect("nothing to do");
            assert_in_force(&third, "a change that changes nothing").await;
        };
        let refused = async {
            second.grant("acme", "key", &["a"]).await.expect_err("not in the ceiling");
            assert_in_force(&third, "a refusal").await;
        };
        tokio::join!(repeat, unchanged, refused);
    };
    tokio::join!(change, others);
    let refused = third.ask(scopes_of("acme", "key", &["a"])).await;
    assert_eq!(reason(&refused.expect_err("no answer")), CUT_OFF);
    assert_eq!(cluster.replicas[2].health("").await, ServingStatus::NotServing);
}
