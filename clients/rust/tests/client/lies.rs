//! What is not plainly a yes is none.

use scopegate_client::proto::{self, BatchCheckResponse, CheckResponse};
use scopegate_client::{Check, Decision, Reach, Reason, Refused};
use tonic::Code;

use crate::harness::{hr_sync, patient};
use crate::liar::{Liar, this};

fn yes() -> CheckResponse {
    CheckResponse {
        decision: proto::Decision::Allowed.into(),
        reason: Reason::Allowed.into(),
        reach: proto::Reach::All.into(),
        http_status: 200,
        revision: 7,
        ..CheckResponse::default()
    }
}

async fn required(answer: CheckResponse, check: &Check) -> Result<u64, Refused> {
    let liar = Liar::saying(move |_| this(answer.clone())).await;
    patient(&liar.url).require(check).await.map(|allowed| allowed.revision)
}

#[tokio::test]
async fn only_a_plain_yes_is_one() {
    let check = Check::scope(&hr_sync(), "users:write");
    assert_eq!(required(yes(), &check).await.expect("a yes"), 7);
    let reason = |reason: i32| CheckResponse { reason, ..yes() };
    let lies = [
        CheckResponse::default(),
        CheckResponse { decision: 0, ..yes() },
        CheckResponse { decision: 3, ..yes() },
        CheckResponse { decision: -1, ..yes() },
        CheckResponse { reach: 0, ..yes() },
        CheckResponse { reach: 3, ..yes() },
        reason(0),
        reason(Reason::ScopeNotGranted.into()),
        reason(99),
        CheckResponse { missing_scopes: vec!["users:write".to_owned()], ..yes() },
    ];
    for lie in lies {
        match required(lie.clone(), &check).await {
            Err(Refused::Unanswered(none)) => assert_eq!(none.code(), Code::Internal, "{lie:?}"),
            other => panic!("{lie:?} is {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_no_is_one_whatever_else_is_said() {
    let check = Check::scope(&hr_sync(), "users:write");
    let no = CheckResponse { decision: proto::Decision::Denied.into(), ..yes() };
    for (http_status, answered) in [(200, 403), (0, 403), (500, 403), (401, 401), (404, 404)] {
        match required(CheckResponse { http_status, ..no.clone() }, &check).await {
            Err(Refused::Denied(denied)) => {
                assert_eq!(denied.http_status, answered);
                assert_eq!(denied.error, "access_denied");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_yes_of_an_older_revision_than_asked_for_is_none() {
    let check = Check::scope(&hr_sync(), "users:write");
    assert!(required(yes(), &check.clone().at_least(7)).await.is_ok());
    assert!(matches!(required(yes(), &check.at_least(8)).await, Err(Refused::Unanswered(_))));
}

#[tokio::test]
async fn a_yes_to_own_records_is_refused_unless_somebody_looks_whose_they_are() {
    let own = CheckResponse { reach: proto::Reach::Own.into(), ..yes() };
    let liar = Liar::saying(move |_| this(own.clone())).await;
    let gate = patient(&liar.url);
    let check = Check::scope(&hr_sync().user("ada"), "users:read");
    match gate.require(&check).await {
        Err(Refused::Denied(denied)) => {
            assert_eq!(denied.reason, Reason::NotRecordOwner);
            assert_eq!((denied.http_status, denied.error.as_str()), (403, "access_denied"));
        }
        other => panic!("{other:?}"),
    }
    assert!(gate.require(&check.clone().owned_by("")).await.is_err());
    assert!(gate.require(&check.clone().owned_by("ada")).await.is_ok());
    assert_eq!(gate.require_reach(&check).await.expect("a yes"), Reach::Own);
    let decision = async |check: &Check| gate.check(check).await.expect("an answer");
    assert!(matches!(decision(&check).await, Decision::OwnRecords(_)));
    assert!(matches!(decision(&check.owned_by("ada")).await, Decision::Allowed(_)));
}

#[tokio::test]
async fn a_batch_with_another_number_of_answers_is_none() {
    let checks = [Check::scope(&hr_sync(), "users:read"), Check::scope(&hr_sync(), "users:write")];
    for count in [0, 1, 3] {
        let liar = Liar::saying(move |_| {
            this(BatchCheckResponse { results: vec![yes(); count], revision: 7 })
        });
        let none = patient(&liar.await.url).check_all(&checks).await.expect_err("no answer");
        assert_eq!(none.code(), Code::Internal, "{count}");
    }
    let liar = Liar::saying(|_| this(BatchCheckResponse { results: vec![yes(); 2], revision: 7 }));
    let all = patient(&liar.await.url).check_all(&checks).await.expect("answers");
    assert!(matches!(all[..], [Decision::Allowed(_), Decision::Allowed(_)]));
    let half = vec![yes(), CheckResponse::default()];
    let liar =
        Liar::saying(move |_| this(BatchCheckResponse { results: half.clone(), revision: 7 }));
    assert!(patient(&liar.await.url).check_all(&checks).await.is_err());
}
