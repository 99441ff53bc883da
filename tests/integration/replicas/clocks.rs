//! Clocks: replicas whose clocks differ, and the operator's word of which is right.

use scopegate::proto::*;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{LEASE, sentence};
use crate::harness::cluster::{Cluster, until};
use crate::harness::fake_clock::FakeClock;
use crate::harness::{Client, owned, scopes_of};

/// The reason of a call that must be refused.
fn refused<T>(answer: Result<T, Status>) -> String {
    let Err(status) = answer else { panic!("it was answered") };
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

async fn check(client: &Client) -> Result<CheckResponse, Status> {
    client.ask(scopes_of("acme", "key", &["a"])).await
}

async fn change(client: &Client, company: &str) -> Result<(), Status> {
    let request =
        CreateCompanyRequest { company_id: company.to_owned(), ..CreateCompanyRequest::default() };
    client.directory.clone().create_company(request).await.map(|_| ())
}

/// Starts a replica again, by this clock.
fn restart(cluster: &mut Cluster, number: usize, clock: &FakeClock, accepts: bool) {
    if cluster.replicas[number].is_started() {
        cluster.replicas[number].take().terminate();
    }
    let mut command = clock.command();
    if accepts {
        command.env("SCOPEGATE_ACCEPT_CLOCK", "true");
    }
    cluster.launch_by(number, command);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_clock_differs_makes_no_changes_or_answers_nothing() {
    let [Some(first), Some(second)] = [FakeClock::new(), FakeClock::new()] else { return };
    let Some(mut cluster) = Cluster::start(1, &[], 1, LEASE).await else { return };
    cluster.add();
    restart(&mut cluster, 0, &first, false);
    restart(&mut cluster, 1, &second, false);
    for number in 0..2 {
        cluster.until_serving(number).await;
    }
    let [a, b] = [0, 1].map(|number| cluster.client(number));
    a.create_company("acme", Some(&["a"])).await;
    a.create_credential("acme", "key", &["a"]).await;

    // A clock is set ahead while both run. None can know which is right.
    second.set("+60s");
    until("the other one is behind", async || check(&a).await.is_err()).await;
    until("a reason", async || refused(check(&a).await) == "CLOCK_BEHIND").await;
    assert_eq!(refused(change(&a, "behind").await), "CLOCK_BEHIND");
    until("it is named", async || change(&b, "ahead").await.is_err()).await;
    assert_eq!(refused(change(&b, "ahead-too").await), "CLOCK_AHEAD");
    let dry_run = CreateCompanyRequest {
        company_id: "ahead-too".to_owned(),
        validate_only: true,
        ..CreateCompanyRequest::default()
    };
    assert_eq!(refused(b.directory.clone().create_company(dry_run).await), "CLOCK_AHEAD");
    assert_eq!(check(&b).await.expect("an answer").reason(), Reason::Allowed);

    // They agree again.
    first.set("+60s");
    until("one changes", async || change(&a, "one").await.is_ok()).await;
    until("the other one changes", async || change(&b, "two").await.is_ok()).await;
    assert_eq!(check(&a).await.expect("an answer").reason(), Reason::Allowed);

    // The clocks are set right, and the stores have kept the wrong time. The first to be told so is
    // refused while the other one is as far ahead.
    second.set("+0");
    restart(&mut cluster, 1, &second, true);
    let said = sentence(cluster.replicas[1].take());
    assert!(said.contains("most other replicas are ahead of the clock of this machine"), "{said}");
    first.set("+0");
    restart(&mut cluster, 0, &first, true);
    cluster.until_serving(0).await;
    assert_eq!(cluster.logged("are valid again"), 1);
    change(&a, "three").await.expect("changed");
    // Without the word of the operator the other one keeps its time, and is ahead.
    restart(&mut cluster, 1, &second, false);
    until("it is ahead", async || check(&a).await.is_err()).await;
    restart(&mut cluster, 1, &second, true);
    for number in 0..2 {
        cluster.until_serving(number).await;
    }
    until("one changes", async || change(&a, "four").await.is_ok()).await;
    until("the other one changes", async || change(&b, "five").await.is_ok()).await;
    let log = b
        .changes
        .clone()
        .list_changes(ListChangesRequest { page_size: 1_000, ..Default::default() })
        .await
        .expect("a page");
    let changes = log.into_inner().changes;
    let accepted: Vec<_> = changes.iter().filter(|change| change.kind == "AcceptClock").collect();
    let of = |change: &&Change| {
        assert_eq!(change.actor, "scopegate serve");
        let field = change.fields.iter().find(|field| field.field == "replica");
        field.expect("a replica").after.clone()
    };
    let mut of: Vec<_> = accepted.iter().map(of).collect();
    of.sort();
    assert_eq!(of, owned(&["\"replica-0\"", "\"replica-1\""]));
    let now = jiff::Timestamp::now().as_second();
    let time = |change: &&Change| change.time.expect("a time").seconds;
    assert!(accepted.iter().all(|change| time(change) < now + 30), "{accepted:?}");
    let last = changes.iter().max_by_key(|change| change.revision).expect("a change");
    assert!(time(&last) < now + 30);
}
