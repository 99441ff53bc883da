//! Facts: a replica whose store has other facts than the log makes.

use scopegate::proto::CreateCompanyRequest;
use scopegate::store::replicated::etcd::Range;
use scopegate::store::replicated::keys;
use scopegate::store::replicated::member_record::MemberRecord;
use serde_json::Value;

use super::three;
use crate::entries::forge;
use crate::harness::cluster::{Cluster, until};
use crate::harness::etcd::WITHIN;
use crate::harness::scopegate;

/// What `replicas verify` says: its exit code, its answer and its error.
fn verify(cluster: &Cluster) -> (Option<i32>, Value, String) {
    let url = format!("etcd://{}/test", cluster.etcd.address(0));
    let mut verify = scopegate();
    verify.args(["replicas", "verify", "--output", "json", "--replicate", &url]);
    let output = verify.output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default(), error)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_other_facts_is_named_and_a_change_makes_them_equal() {
    let Some(mut cluster) = three().await else { return };
    let request = CreateCompanyRequest {
        company_id: "acme".to_owned(),
        display_name: "ACME".to_owned(),
        ..CreateCompanyRequest::default()
    };
    cluster.client(0).directory.create_company(request).await.expect("created");
    let (code, answer, error) = verify(&cluster);
    assert_eq!((code, &answer["same"]), (Some(0), &Value::Bool(true)), "{error}");
    assert_eq!(answer["replicas"].as_array().map(Vec::len), Some(3), "{answer}");

    let status = cluster.replicas[2].take().terminate();
    assert!(status.success(), "{status}");
    forge(&cluster.replicas[2].dir, b"Cacme", |value| {
        let id = value.windows(4).position(|part| part == b"ACME").expect("its name");
        value[id] = b'a';
    });
    cluster.launch(2);
    cluster.until_serving(2).await;
    let (code, answer, error) = verify(&cluster);
    assert_eq!(code, Some(1), "{answer} {error}");
    assert!(error.contains("`replica-2`; stop each"), "{error}");
    let differs_in = |number: usize| answer["replicas"][number]["differs_in"].clone();
    assert_eq!(
        [0, 1, 2].map(differs_in),
        [
            Value::from(Vec::<String>::new()),
            Value::from(Vec::<String>::new()),
            Value::from(vec!["Company"]),
        ]
    );

    cluster.client(0).restrict("acme", &["a"]).await;
    assert_eq!(
        cluster.logged("this replica had other facts than the replica that changed them"),
        1
    );
    let (code, answer, error) = verify(&cluster);
    assert_eq!(code, Some(0), "{answer} {error}");
    let diverged = async || {
        let records = cluster.etcd.client().range(&Range::under(keys::MEMBERS), WITHIN).await;
        let records = records.expect("an answer").pairs;
        let record = |pair: &scopegate::store::replicated::etcd::Pair| {
            let record = MemberRecord::decode(&pair.value).expect("a record");
            (record.name.to_string(), record.report.diverged)
        };
        let mut all: Vec<_> = records.iter().map(record).collect();
        all.sort();
        all.iter().map(|(_, diverged)| *diverged).collect::<Vec<_>>() == [0, 0, 1]
    };
    until("its record tells of it", diverged).await;
}
