//! A server that says what it is told to: what the real one never would.

use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, Full};
use prost::Message;
use scopegate_client::proto::{self, BatchCheckResponse, CheckResponse};
use scopegate_client::{Caller, Check, Decision, NotAllowed, Reach, Reason};
use tonic::{Code, Status};

use crate::harness::{hr_sync, patient};

/// What it says to a call.
pub enum Scripted {
    Message(Vec<u8>),
    Error(Code),
    Never,
}

pub fn this(message: impl Message) -> Scripted {
    Scripted::Message(message.encode_to_vec())
}

pub struct MisbehavingServer {
    pub url: String,
    asked: Arc<AtomicUsize>,
    health_checks: Arc<AtomicUsize>,
}

impl MisbehavingServer {
    /// Scripted this to the n-th call, from 0.
    pub async fn replying(
        says: impl Fn(usize) -> Scripted + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::at_a_distance(Duration::ZERO, says).await
    }

    /// The same, and its responses to health checks take this long.
    pub async fn at_a_distance(
        distance: Duration,
        says: impl Fn(usize) -> Scripted + Clone + Send + Sync + 'static,
    ) -> Self {
        let (asked, health_checks) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let (counter, health_counter) = (Arc::clone(&asked), Arc::clone(&health_checks));
        let app = Router::new().fallback(async move |request: Request| {
            // Of its health it says nothing.
            if request.uri().path().starts_with("/grpc.health") {
                tokio::time::sleep(distance).await;
                health_counter.fetch_add(1, Ordering::SeqCst);
                return Status::unimplemented("no").into_http();
            }
            match says(counter.fetch_add(1, Ordering::SeqCst)) {
                Scripted::Message(message) => answer(&message),
                Scripted::Error(code) => Status::new(code, "no").into_http(),
                Scripted::Never => pending().await,
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, asked, health_checks }
    }

    /// The number of health checks that it has answered so far.
    pub fn health_checks(&self) -> usize {
        self.health_checks.load(Ordering::SeqCst)
    }

    /// How often it was asked so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A message as gRPC frames it, and the trailer that says it was all.
fn answer(message: &[u8]) -> Response {
    let length = u32::try_from(message.len()).expect("a short message");
    let framed = [&[0], &length.to_be_bytes()[..], message].concat();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from(framed)).with_trailers(ready(Some(Ok(trailers))));
    let response = Response::builder().header("content-type", "application/grpc");
    response.body(Body::new(body)).expect("a response")
}

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

async fn required(answer: CheckResponse, check: &Check) -> Result<u64, NotAllowed> {
    let server = MisbehavingServer::replying(move |_| this(answer.clone())).await;
    patient(&server.url).require(check).await.map(|allowed| allowed.revision)
}

#[tokio::test]
async fn only_a_consistent_allow_is_an_allow() {
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
            Err(NotAllowed::Failed(none)) => assert_eq!(none.code(), Code::Internal, "{lie:?}"),
            other => panic!("{lie:?} is {other:?}"),
        }
    }
}

#[tokio::test]
async fn denied_response_stays_denied() {
    let check = Check::scope(&hr_sync(), "users:write");
    let no = CheckResponse { decision: proto::Decision::Denied.into(), ..yes() };
    for (http_status, answered) in
        [(200, 403), (0, 403), (500, 403), (401, 401), (404, 404), (503, 503)]
    {
        match required(CheckResponse { http_status, ..no.clone() }, &check).await {
            Err(NotAllowed::Denied(denied)) => {
                assert_eq!(denied.http_status, answered);
                assert_eq!(denied.error, "access_denied");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn allow_for_a_header_names_the_client_that_was_proven() {
    let by = |company: &str, credential: &str| CheckResponse {
        company_id: company.to_owned(),
        credential_id: credential.to_owned(),
        ..yes()
    };
    let check = Check::scope(&Caller::authorization("Bearer a.b.c"), "users:write");
    let answer = CheckResponse { user_id: "ada".to_owned(), ..by("demo", "hr-sync") };
    let server = MisbehavingServer::replying(move |_| this(answer.clone())).await;
    let allowed = patient(&server.url).require(&check).await.expect("a yes");
    assert_eq!((&*allowed.company_id, &*allowed.credential_id), ("demo", "hr-sync"));
    assert_eq!(allowed.user_id, "ada");
    // A server that does not know the header has proven no client.
    for unproven in [yes(), by("demo", ""), by("", "hr-sync")] {
        assert!(matches!(required(unproven, &check).await, Err(NotAllowed::Failed(_))));
    }
    let stated = Check::scope(&hr_sync(), "users:write");
    for other in [by("other", "hr-sync"), by("demo", "other")] {
        assert!(matches!(required(other, &stated).await, Err(NotAllowed::Failed(_))));
    }
}

#[tokio::test]
async fn allow_at_an_older_revision_is_an_error() {
    let check = Check::scope(&hr_sync(), "users:write");
    assert!(required(yes(), &check.clone().at_least_revision(7)).await.is_ok());
    assert!(matches!(
        required(yes(), &check.at_least_revision(8)).await,
        Err(NotAllowed::Failed(_))
    ));
}

#[tokio::test]
async fn own_reach_is_denied_without_an_owner_or_a_filter() {
    let own = CheckResponse { reach: proto::Reach::Own.into(), ..yes() };
    let server = MisbehavingServer::replying(move |_| this(own.clone())).await;
    let client = patient(&server.url);
    let check = Check::scope(&hr_sync().user("ada"), "users:read");
    match client.require(&check).await {
        Err(NotAllowed::Denied(denied)) => {
            assert_eq!(denied.reason, Reason::NotRecordOwner);
            assert_eq!((denied.http_status, denied.error.as_str()), (403, "access_denied"));
        }
        other => panic!("{other:?}"),
    }
    assert!(client.require(&check.clone().owned_by("")).await.is_err());
    assert!(client.require(&check.clone().owned_by("ada")).await.is_ok());
    assert_eq!(client.require_reach(&check).await.expect("a yes"), Reach::Own);
    let decision = async |check: &Check| client.check(check).await.expect("an answer");
    assert!(matches!(decision(&check).await, Decision::OwnRecords(_)));
    assert!(matches!(decision(&check.owned_by("ada")).await, Decision::Allowed(_)));
}

#[tokio::test]
async fn batch_with_a_wrong_result_count_is_an_error() {
    let checks = [Check::scope(&hr_sync(), "users:read"), Check::scope(&hr_sync(), "users:write")];
    for count in [0, 1, 3] {
        let server = MisbehavingServer::replying(move |_| {
            this(BatchCheckResponse { results: vec![yes(); count], revision: 7 })
        });
        let none = patient(&server.await.url).batch_check(&checks).await.expect_err("no answer");
        assert_eq!(none.code(), Code::Internal, "{count}");
    }
    let server = MisbehavingServer::replying(|_| {
        this(BatchCheckResponse { results: vec![yes(); 2], revision: 7 })
    });
    let all = patient(&server.await.url).batch_check(&checks).await.expect("answers");
    assert!(matches!(all[..], [Decision::Allowed(_), Decision::Allowed(_)]));
    let half = vec![yes(), CheckResponse::default()];
    let server = MisbehavingServer::replying(move |_| {
        this(BatchCheckResponse { results: half.clone(), revision: 7 })
    });
    assert!(patient(&server.await.url).batch_check(&checks).await.is_err());
}
