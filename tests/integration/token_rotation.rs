//! Access tokens while the catalog changes under load: no check that begins after a change of the issuer
//! or of its keys was acknowledged is decided by what was before (D12, T20 to T22).
//!
//! Many threads verify the same tokens, most of the time from the cache, while one changes the keys of the
//! issuer and the companies for which it may speak.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use scopegate::authority::{Authority, NewCompany, NewCredential, WriteOptions};
use scopegate::policy::client_credential::ClientCredential;
use scopegate::policy::decision::Verdict;
use scopegate::policy::id::{CompanyId, CredentialId};
use scopegate::policy::query::{Client, Query, Request, Requirement, Subject};
use scopegate::policy::reason::Reason;
use scopegate::policy::revision::Revision;
use scopegate::policy::scope::Scope;
use scopegate::store::Store;
use serde_json::json;

use crate::harness::jwt::{Signer, key_set};

/// How often the catalog changes.
const CHANGES: u64 = 150;

/// The states between which the catalog changes: which of the two keys are in force, and whether the
/// issuer may speak for the company.
const STATES: [([bool; 2], bool); 4] =
    [([true, false], true), ([true, true], true), ([false, true], true), ([true, true], false)];

fn catalog(signers: &[Signer; 2], (keys, may_speak): ([bool; 2], bool)) -> String {
    let keys = signers.iter().zip(keys).filter(|(_, is_in)| *is_in).map(|(signer, _)| signer);
    let company = if may_speak { "acme" } else { "other" };
    format!(
        "
scopes: {{ read: }}
issuers:
  https://id.example.org/:
    algorithms: [ES256]
    audiences: [api]
    company: {{ claim: tid }}
    companies: [{company}]
    user: none
    jwks: {}
",
        key_set(keys)
    )
}

fn request(signer: &Signer) -> Request {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs();
    let claims = json!({
        "iss": "https://id.example.org/", "aud": "api", "client_id": "hr", "tid": "acme",
        "scope": "read", "exp": now + 3600,
    });
    let query = Query {
        subject: Subject::Unproven(Reason::TokenRequired.into()),
        needs: Requirement::Scopes(vec![Scope::parse("read").expect("a scope")]),
        audience: None,
        token: None,
        user: None,
        owner: None,
        denies_own: false,
    };
    let presented = ClientCredential::bearer_token(signer.token(&claims));
    Request { query, client: Some(Client { presented, company: None, credential: None }) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_check_is_decided_by_a_key_or_an_issuer_that_was_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(Store::open(dir.path()).expect("opened"));
    let authority = Arc::new(Authority::new(store, 1_000).expect("readable"));
    let signers = [Signer::new("ES256", "a"), Signer::new("ES256", "b")];
    let yamls = STATES.map(|state| catalog(&signers, state));
    let requests = [request(&signers[0]), request(&signers[1])];
    let options = WriteOptions::default();
    let session = authority.internal_session("test");
    session.apply_catalog(&yamls[0], &options).await.expect("applied");
    let acme = CompanyId::parse("acme").expect("an id");
    let new = NewCompany { id: acme.clone(), display_name: String::new(), scopes: None };
    session.create_company(&new, &options).await.expect("created");
    let credential = NewCredential {
        company: acme,
        id: CredentialId::parse("hr").expect("an id"),
        label: String::new(),
        scopes: vec![Scope::parse("read").expect("a scope")],
        expires_at: None,
        enabled: true,
        redirect_uris: vec![],
        tokens_valid_from: None,
    };
    session.create_credential(&credential, &options).await.expect("created");
    // Twice the number of acknowledged changes; one more while a change is under way.
    let epoch = Arc::new(AtomicU64::new(0));
    let (is_over, settled) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let checkers: Vec<_> = (0..4)
        .map(|n| {
            let (core, mut requests) = (authority.for_core(), requests.clone());
            let (epoch, is_over, settled) =
                (Arc::clone(&epoch), Arc::clone(&is_over), Arc::clone(&settled));
            tokio::spawn(async move {
                let mut turn = n;
                while !is_over.load(Ordering::SeqCst) {
                    turn += 1;
                    let which = turn % 2;
                    let before = epoch.load(Ordering::SeqCst);
                    let session = core.internal_session("test");
                    let answer = if turn % 3 == 0 {
                        let batch = session.batch_check(&mut requests, Revision::ZERO).await;
                        batch.expect("answers").0.swap_remove(which)
                    } else {
                        session
                            .check(&mut requests[which], Revision::ZERO)
                            .await
                            .expect("an answer")
                    };
                    tokio::task::yield_now().await;
                    if before % 2 == 1 || epoch.load(Ordering::SeqCst) != before {
                        continue;
                    }
                    let (keys, may_speak) = STATES[usize::try_from(before / 2).expect("few") % 4];
                    let is_allowed = matches!(answer.verdict, Verdict::Allowed { .. });
                    assert_eq!(is_allowed, keys[which] && may_speak, "{:?}", answer.verdict);
                    assert_eq!(answer.client.is_some(), is_allowed);
                    settled.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for change in 1..=CHANGES {
        epoch.fetch_add(1, Ordering::SeqCst);
        let yaml = &yamls[usize::try_from(change).expect("few") % 4];
        session.apply_catalog(yaml, &options).await.expect("applied");
        epoch.fetch_add(1, Ordering::SeqCst);
        // Some checks between two changes.
        let enough = settled.load(Ordering::Relaxed) + 8;
        while settled.load(Ordering::Relaxed) < enough {
            tokio::task::yield_now().await;
            assert!(!checkers.iter().any(tokio::task::JoinHandle::is_finished), "a checker failed");
        }
    }
    is_over.store(true, Ordering::SeqCst);
    for checker in checkers {
        checker.await.expect("right answers");
    }
    assert!(authority.sum().tokens[0].1 > 0, "some were in the cache");
}
