//! The client's own `Authorization` header in checks: HTTP Basic and secrets (T1, T3, T5, T6, T30).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use scopegate::proto::*;
use tempfile::TempDir;
use tonic::Code;

use crate::harness::{Client, Server, bootstrap, fields, owned, refused};

/// A served company `acme` with the credential `hr`, and the credential's secret.
async fn served(dir: &TempDir) -> (Server, Client, String) {
    let key = bootstrap(dir.path());
    let server = Server::with_catalog(dir.path(), "360learning.yaml");
    let client = Client::connect_as(&server.url(), Some(&key)).await;
    for company in ["acme", "other"] {
        client.create_company(company, None).await;
        client.create_credential(company, "hr", &["users:read"]).await;
    }
    let secret = make(&client, "acme").await.secret;
    (server, client, secret)
}

async fn make(client: &Client, company: &str) -> CreateSecretResponse {
    let request = CreateSecretRequest {
        company_id: company.to_owned(),
        credential_id: "hr".to_owned(),
        ..Default::default()
    };
    client.directory.clone().create_secret(request).await.expect("made").into_inner()
}

fn with_header(header: &str) -> CheckRequest {
    CheckRequest {
        scopes: owned(&["users:read"]),
        authorization: Some(header.to_owned()),
        ..Default::default()
    }
}

fn basic(name: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{secret}")))
}

/// The answers of Check, a batch, Explain, which must agree.
async fn answer(client: &Client, request: CheckRequest) -> CheckResponse {
    let checked = client.ask(request.clone()).await.expect("an answer");
    let batch = BatchCheckRequest { checks: vec![request.clone()] };
    let batch = client.authorization.clone().batch_check(batch).await.expect("an answer");
    assert_eq!(batch.into_inner().results, std::slice::from_ref(&checked));
    let explain = ExplainCheckRequest { check: Some(request.clone()) };
    let explained = client.authorization.clone().explain_check(explain).await.expect("an answer");
    let explained = explained.into_inner();
    assert_eq!(explained.decision, Some(checked.clone()));
    let list = ListEffectiveScopesRequest {
        company_id: request.company_id,
        credential_id: request.credential_id,
        authorization: request.authorization,
        ..Default::default()
    };
    let listed = client.authorization.clone().list_effective_scopes(list).await.expect("a list");
    let listed: Vec<_> = listed.into_inner().scopes.into_iter().map(|scope| scope.scope).collect();
    assert_eq!(listed.contains(&"users:read".to_owned()), checked.reason() == Reason::Allowed);
    checked
}

fn whom(response: &CheckResponse) -> (&str, &str, &str) {
    (&response.company_id, &response.credential_id, &response.user_id)
}

#[tokio::test]
async fn header_with_a_secret_decides_for_its_company_and_credential() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client, secret) = served(&dir).await;
    let encoded = format!("Basic {}", STANDARD.encode(format!("%61cme:{secret}")));
    for header in [
        basic("acme", &secret),
        basic("hr", &secret),
        encoded,
        basic("acme", &secret).replacen("Basic", "bAsIc", 1),
        format!("Bearer {secret}"),
        format!("bearer  {secret}"),
    ] {
        for (company, credential) in [("", ""), ("acme", ""), ("", "hr"), ("acme", "hr")] {
            let request = CheckRequest {
                company_id: company.to_owned(),
                credential_id: credential.to_owned(),
                ..with_header(&header)
            };
            let response = answer(&client, request).await;
            assert_eq!(response.reason(), Reason::Allowed, "{header}");
            assert_eq!(whom(&response), ("acme", "hr", ""));
        }
    }
    let request = CheckRequest {
        scopes: owned(&["users:write"]),
        ..with_header(&format!("Bearer {secret}"))
    };
    let denied = client.ask(request).await.expect("an answer");
    assert_eq!(denied.reason(), Reason::ScopeNotGranted);
    assert_eq!(whom(&denied), ("acme", "hr", ""), "the client proved who it is");
    let stated = client.check("acme", "hr", &["users:read"]).await;
    assert_eq!(whom(&stated), ("", "", ""), "the request said it, nobody proved it");
}

#[tokio::test]
async fn header_that_proves_nothing_is_a_denial() {
    use Reason::{CredentialUnknown, TokenInvalid, TokenRequired};
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client, secret) = served(&dir).await;
    let mut forged = secret.clone();
    let last = forged.pop();
    forged.push(if last == Some('0') { '1' } else { '0' });
    let other = make(&client, "other").await.secret;
    let unknown = format!("sgs_{}_{}", "0".repeat(24), "0".repeat(64));
    let long = "a".repeat(17 << 10);
    for (header, reason) in [
        ("", TokenRequired),
        ("Digest x", TokenRequired),
        (&*secret, TokenRequired),
        ("Bearer", TokenInvalid),
        ("Bearer a.b.c", TokenInvalid),
        (&format!("Bearer {long}"), TokenInvalid),
        (&format!("Bearer {forged}"), CredentialUnknown),
        (&format!("Bearer {unknown}"), CredentialUnknown),
        (&format!("Bearer {secret}0"), CredentialUnknown),
        (&format!("Bearer {}", secret.to_uppercase()), TokenInvalid),
        (&format!("Basic {long}"), CredentialUnknown),
        ("Basic", CredentialUnknown),
        ("Basic ???", CredentialUnknown),
        (&basic("acme", &forged), CredentialUnknown),
        (&basic("other", &secret), CredentialUnknown),
        (&basic("ACME", &secret), CredentialUnknown),
        (&basic("", &secret), CredentialUnknown),
        (&basic("acme", ""), CredentialUnknown),
        (&basic(&secret, ""), CredentialUnknown),
    ] {
        let response = answer(&client, with_header(header)).await;
        assert_eq!(response.reason(), reason, "{header}");
        assert_eq!((response.http_status, whom(&response)), (401, ("", "", "")), "{header}");
        assert_eq!(response.missing_scopes, ["users:read"]);
        // Named by the request, it is no other.
        let request = CheckRequest {
            company_id: "acme".to_owned(),
            credential_id: "hr".to_owned(),
            ..with_header(header)
        };
        assert_eq!(answer(&client, request).await.reason(), reason, "{header}");
    }
    // The request may repeat what the secret says and never replace it.
    for (company, credential) in [("other", ""), ("other", "hr"), ("acme", "bi"), ("none", "")] {
        let request = CheckRequest {
            company_id: company.to_owned(),
            credential_id: credential.to_owned(),
            ..with_header(&format!("Bearer {secret}"))
        };
        let response = answer(&client, request).await;
        assert_eq!((response.reason(), whom(&response)), (CredentialUnknown, ("", "", "")));
    }
    let response = answer(&client, with_header(&basic("hr", &other))).await;
    assert_eq!(whom(&response), ("other", "hr", ""), "two companies have a credential of one id");
    // An empty `bearer_token` is a token that is no good, and a secret is none.
    for token in ["", &secret, "a.b.c"] {
        let request = CheckRequest {
            authorization: None,
            bearer_token: Some(token.to_owned()),
            ..with_header("")
        };
        assert_eq!(client.ask(request).await.expect("an answer").reason(), TokenInvalid, "{token}");
    }
    // The endpoint comes first (T5).
    let request = CheckRequest {
        scopes: vec![],
        endpoint: Some(Endpoint { method: "GET".to_owned(), path: "/nowhere".to_owned() }),
        ..with_header("Bearer a.b.c")
    };
    assert_eq!(client.ask(request).await.expect("an answer").reason(), Reason::EndpointUnknown);
}

#[tokio::test]
async fn client_that_is_over_is_denied_with_its_own_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client, secret) = served(&dir).await;
    let header = format!("Bearer {secret}");
    let reason = async || answer(&client, with_header(&header)).await.reason();
    let mut directory = client.directory.clone();
    let enabled = |enabled| UpdateCredentialRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        enabled,
        update_mask: Some(prost_types::FieldMask { paths: owned(&["enabled"]) }),
        ..Default::default()
    };
    directory.update_credential(enabled(false)).await.expect("disabled");
    assert_eq!(reason().await, Reason::CredentialDisabled);
    directory.update_credential(enabled(true)).await.expect("enabled");
    assert_eq!(reason().await, Reason::Allowed);
    let of_company = |enabled| UpdateCompanyRequest {
        company_id: "acme".to_owned(),
        enabled,
        update_mask: Some(prost_types::FieldMask { paths: owned(&["enabled"]) }),
        ..Default::default()
    };
    directory.update_company(of_company(false)).await.expect("disabled");
    assert_eq!(reason().await, Reason::CompanyDisabled);
    directory.update_company(of_company(true)).await.expect("enabled");
    let delete = DeleteSecretRequest {
        company_id: "acme".to_owned(),
        credential_id: "hr".to_owned(),
        secret_id: secret[4..28].to_owned(),
        ..Default::default()
    };
    directory.delete_secret(delete).await.expect("deleted");
    assert_eq!(reason().await, Reason::CredentialUnknown);
    // What is created again under an old id is another credential (D3).
    let header = format!("Bearer {}", make(&client, "acme").await.secret);
    let reason = async || answer(&client, with_header(&header)).await.reason();
    assert_eq!(reason().await, Reason::Allowed);
    let delete = DeleteCompanyRequest { company_id: "acme".to_owned(), ..Default::default() };
    directory.delete_company(delete).await.expect("deleted");
    assert_eq!(reason().await, Reason::CredentialUnknown);
    client.create_company("acme", None).await;
    client.create_credential("acme", "hr", &["users:read"]).await;
    assert_eq!(reason().await, Reason::CredentialUnknown);
}

#[tokio::test]
async fn bound_caller_learns_nothing_of_another_companys_client() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, client, acme) = served(&dir).await;
    let other = make(&client, "other").await.secret;
    let new = CreateKeyRequest {
        name: "gateway".to_owned(),
        roles: vec![Role::Service.into()],
        company_ids: owned(&["acme"]),
        ..Default::default()
    };
    let key = client.keys.clone().create_key(new).await.expect("created").into_inner().secret;
    let bound = Client::connect_as(&server.url(), Some(&key)).await;
    assert_eq!(
        answer(&bound, with_header(&format!("Bearer {acme}"))).await.reason(),
        Reason::Allowed
    );
    let wrong = answer(&bound, with_header(&basic("acme", "wrong"))).await;
    for header in [format!("Bearer {other}"), basic("other", &other), basic("hr", &other)] {
        let response = answer(&bound, with_header(&header)).await;
        assert_eq!(response, CheckResponse { revision: response.revision, ..wrong.clone() });
        let request = CheckRequest {
            company_id: "acme".to_owned(),
            ..with_header(&format!("Bearer {other}"))
        };
        assert_eq!(answer(&bound, request).await.reason(), Reason::CredentialUnknown);
    }
    // In a batch, it is that item alone.
    let checks = vec![
        with_header(&format!("Bearer {acme}")),
        with_header(&format!("Bearer {other}")),
        with_header("nonsense"),
    ];
    let mut authorization = bound.authorization.clone();
    let batch = authorization.batch_check(BatchCheckRequest { checks }).await;
    let results = batch.expect("an answer").into_inner().results;
    let reasons: Vec<_> = results.iter().map(CheckResponse::reason).collect();
    assert_eq!(reasons, [Reason::Allowed, Reason::CredentialUnknown, Reason::TokenRequired]);
    // A company that the request names is the caller's own fault.
    let request =
        CheckRequest { company_id: "other".to_owned(), ..with_header(&format!("Bearer {other}")) };
    let (code, _) = refused(bound.ask(request).await);
    assert_eq!(code, Code::PermissionDenied);
}

#[tokio::test]
async fn request_names_its_client_in_one_way() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client, secret) = served(&dir).await;
    let header = format!("Bearer {secret}");
    let stated = CheckRequest { token: Some(Token::default()), ..with_header(&header) };
    let (code, details) = refused(client.ask(stated).await);
    assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["authorization"]));
    let both = CheckRequest { bearer_token: Some(String::new()), ..with_header(&header) };
    let (code, details) = refused(client.ask(both).await);
    assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["authorization"]));
    let none = CheckRequest { authorization: None, ..with_header("") };
    let (code, details) = refused(client.ask(none).await);
    let ids = vec!["company_id", "credential_id"];
    assert_eq!((code, fields(&details)), (Code::InvalidArgument, ids));
    let malformed = CheckRequest { company_id: "a b".to_owned(), ..with_header(&header) };
    let (code, details) = refused(client.ask(malformed).await);
    assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["company_id"]));
}

#[tokio::test]
async fn batch_has_a_limited_number_of_distinct_clients() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, client, secret) = served(&dir).await;
    let batch = |count: usize| BatchCheckRequest {
        checks: (0..count)
            .map(|n| with_header(&format!("Bearer {n}")))
            .chain((0..500).map(|_| with_header(&format!("Bearer {secret}"))))
            .collect(),
    };
    let mut authorization = client.authorization.clone();
    let answered = authorization.batch_check(batch(99)).await.expect("an answer").into_inner();
    let allowed = answered.results.iter().filter(|result| result.reason() == Reason::Allowed);
    assert_eq!((answered.results.len(), allowed.count()), (599, 500));
    let (code, _) = refused(authorization.batch_check(batch(100)).await);
    assert_eq!(code, Code::ResourceExhausted);
}
